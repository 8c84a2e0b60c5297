"""Uses the stack in the demo as a developer's program does: through the tasks API only."""

import hashlib
import threading
from dataclasses import replace
from typing import Any

from catchlight.api.response_models import TaskResponse
from catchlight.client import TasksApiError, TasksClient
from local.demo.cases import Case
from local.demo.runner import DemoError

_CALLBACK_URL_FIELDS = ("callBackUrl", "callback_url")


class Developer:
    """Submits tasks through the tasks API, waits for each one in a thread, and checks the images at its links."""

    def __init__(self, api: TasksClient, *, timeout_seconds: float) -> None:
        self._api = api
        self._timeout_seconds = timeout_seconds
        self._waiting: list[threading.Thread] = []
        self._responses: dict[str, TaskResponse | Exception] = {}

    def submit(self, case: Case) -> Case:
        """Submits the case's request and returns the case with the task id that the provider has assigned.

        Submits twice with the same idempotency key, as a client does after a broken connection: both responses must
        have the same task id.

        Raises:
            DemoError: the API refused the request, or the responses have different task ids.
        """
        request: dict[str, Any] = dict(case.request(""))
        for field in _CALLBACK_URL_FIELDS:
            request.pop(field, None)
        try:
            first, second = (
                self._api.submit(case.provider, request, idempotency_key=f"demo-{case.provider}") for _ in range(2)
            )
        except TasksApiError as exc:
            raise DemoError(f"the tasks API refused a request for {case.provider}: {exc}") from exc
        if first.task_id != second.task_id:
            task_ids = f"{first.task_id} and {second.task_id}"
            raise DemoError(f"{case.provider} generated twice for one idempotency key: {task_ids}")
        submitted = replace(case, task_id=first.task_id)
        self._waiting.append(threading.Thread(target=self._wait, args=(submitted,), daemon=True))
        self._waiting[-1].start()
        return submitted

    def problems(self) -> list[str]:
        """Waits for all tasks and returns a message for each wrong response of the API."""
        for thread in self._waiting:
            thread.join()
        return [f"{key}, in the tasks API: {problem}" for key in self._responses for problem in self._faults(key)]

    def _wait(self, case: Case) -> None:
        try:
            self._responses[case.key] = self._api.wait(
                case.provider, case.task_id, timeout_seconds=self._timeout_seconds
            )
        except TasksApiError as exc:
            self._responses[case.key] = exc

    def _faults(self, key: str) -> list[str]:
        task = self._responses[key]
        if isinstance(task, Exception):
            return [str(task)]
        if not task.done:
            return [f"still {task.status} when the time was over"]
        faults = []
        for image in task.images:
            if image.link is None:
                faults.append(f"no link to {image.kind}-{image.index}, which is {image.state}")
                continue
            with self._api.open_link(image.link) as response:
                if hashlib.sha256(response.read()).hexdigest() != image.sha256:
                    faults.append(f"the link to {image.kind}-{image.index} returns other bytes")
        return faults

"""The developer in the demo, who uses the tasks API: repeated submissions, and checks of the responses."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from catchlight.client import TasksApiError
from local.demo.cases import Case
from local.demo.developer import Developer
from local.demo.runner import DemoError
from local.simulator import NANOBANANA

CASE = Case(NANOBANANA, "by API", "success", images=1, by_api=True)
CONTENT = b"an image"


class TasksApiHarness:
    """A fake tasks API that returns the given task ids and the given task."""

    def __init__(self, *task_ids: str, **response: Any) -> None:
        self.task_ids = list(task_ids)
        image = {"kind": "result", "index": 0, "state": "ARCHIVED", "link": "https://bucket/1"}
        image |= {"sha256": hashlib.sha256(CONTENT).hexdigest(), **response.pop("image", {})}
        self.response = SimpleNamespace(
            **{"done": True, "status": "ARCHIVED", "images": [SimpleNamespace(**image)], **response}
        )
        self.requests: list[tuple[str, dict[str, Any], str]] = []

    def submit(self, provider: str, request: dict[str, Any], *, idempotency_key: str) -> Any:
        self.requests.append((provider, request, idempotency_key))
        if not self.task_ids:
            raise TasksApiError("The provider refused.")
        return SimpleNamespace(task_id=self.task_ids.pop(0))

    def wait(self, provider: str, task_id: str, *, timeout_seconds: float) -> Any:
        return self.response

    @contextmanager
    def open_link(self, link: str) -> Iterator[Any]:
        yield SimpleNamespace(read=lambda: CONTENT)


def developer(api: TasksApiHarness) -> Developer:
    return Developer(api, timeout_seconds=1)  # type: ignore[arg-type]


def test_a_correct_api_has_no_problems() -> None:
    api = TasksApiHarness("t1", "t1")
    subject = developer(api)

    assert subject.submit(CASE).task_id == "t1"

    assert subject.problems() == []
    (provider, request, key), second = api.requests
    assert (provider, request, key) == second
    assert "callBackUrl" not in request


@pytest.mark.parametrize(
    ("response", "message"),
    [
        ({"done": False, "status": "PENDING"}, "still PENDING"),
        ({"image": {"link": None, "state": "EXPIRED"}}, "no link to result-0, which is EXPIRED"),
        ({"image": {"sha256": "00"}}, "returns other bytes"),
    ],
)
def test_each_problem_is_reported(response: dict[str, Any], message: str) -> None:
    subject = developer(TasksApiHarness("t1", "t1", **response))
    subject.submit(CASE)

    (problem,) = subject.problems()

    assert message in problem


def test_a_second_generation_is_an_error() -> None:
    with pytest.raises(DemoError, match="generated twice"):
        developer(TasksApiHarness("t1", "t2")).submit(CASE)


def test_a_refused_submission_is_an_error() -> None:
    with pytest.raises(DemoError, match=r"refused a request for nanobanana: The provider refused\."):
        developer(TasksApiHarness()).submit(CASE)

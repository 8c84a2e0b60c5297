"""Holds a callback's claim against what the provider itself says.

Whoever knows the token can post a callback, and where a provider signs, the signature covers id and time only. So a
result that came by callback is a claim until the provider, asked with our own key, says the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from image_tasks.credentials import ProviderKeys
from image_tasks.errors import ProviderUnavailableError, UnconfirmedError
from image_tasks.models import Task, TaskReport, TaskStatus, iso, split_task_key
from image_tasks.provider_client import ProviderClient
from image_tasks.providers import PROVIDERS, Provider
from image_tasks.tasks_table import TasksTable


@dataclass(frozen=True, slots=True)
class Checked:
    """A task after its claim was checked, as it is in the table now."""

    task: Task
    is_refuted: bool  # the provider says something else: the claim is kept as evidence


class Confirmation:
    """Asks providers about single tasks. Thread-safe."""

    def __init__(
        self,
        table: TasksTable,
        client: ProviderClient,
        keys: Callable[[str], ProviderKeys],
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._table = table
        self._client = client
        self._keys = keys
        self._now = now

    def check(self, task: Task, *, is_last_try: bool) -> Checked:
        """The task with URLs and status as the provider has them.

        A task that a poll brought, or whose provider has no API key here, comes back as it is. "Still running" is not
        the opposite of a success at once: a record may lag behind its callback. On the last try it is.

        Raises:
            ProviderError: the provider could not be asked.
            UnconfirmedError: it does not know of a result yet, or the task has changed meanwhile. Try again.
            StoreUnavailableError: what it says could not be written.
        """
        provider_id, task_id = split_task_key(task.task)
        provider, api_key = PROVIDERS.get(provider_id), self._keys(provider_id).usable_api_key
        if not (task.is_claim and provider and api_key):
            return Checked(task, is_refuted=False)
        answer = self._ask(provider, task_id, api_key)
        if answer.status is TaskStatus.PENDING and not is_last_try:
            raise UnconfirmedError("the provider does not confirm the callback's result yet")
        if task.says_the_same_as(answer):
            return Checked(task.model_copy(update={"confirmed_at": iso(answer.reported_at)}), is_refuted=False)
        if not self._table.correct(task, answer):
            raise UnconfirmedError("the task has changed while its provider was asked")
        corrected = self._table.get(task.task)
        if corrected is None:
            raise UnconfirmedError("the task is gone")
        return Checked(corrected, is_refuted=task.is_refuted_by(answer))

    def _ask(self, provider: Provider, task_id: str, api_key: str) -> TaskReport:
        answers = self._client.ask(provider, [task_id], api_key=api_key, now=self._now)
        if answers.errors:
            raise answers.errors[0]
        if not answers.reports:
            raise ProviderUnavailableError(f"{provider.id} said nothing of the task")
        return answers.reports[0]

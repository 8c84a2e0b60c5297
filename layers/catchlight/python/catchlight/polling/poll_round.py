"""Runs one polling round: requests the status of pending tasks, records it, and computes the next wait."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TypeGuard

from catchlight.aws.secrets import ProviderKeys
from catchlight.dispatch import PollState
from catchlight.errors import ProviderRefusedError, RequestRefusedError, SettingsError
from catchlight.models import (
    FailureReason,
    LastAnswer,
    Reporter,
    TaskReport,
    TaskStatus,
    is_task_key,
    split_task_key,
    task_key,
)
from catchlight.polling.intervals import longest_poll_gap_seconds
from catchlight.polling.no_result import had_callback, no_result_failure
from catchlight.polling.provider_client import LookupResults, ProviderClient
from catchlight.providers import PROVIDERS
from catchlight.settings import PollTasksSettings
from catchlight.tasks.concurrent_writes import write_all
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.reports import Recorded, Reports
from catchlight.tasks.table import TasksTable
from catchlight.tasks.task import Task

# If a provider is busy, the wait is multiplied by this factor, up to five minutes.
BUSY_FACTOR = 4
MAX_BUSY_WAIT_SECONDS = 300
# Step Functions ends an execution whose history reaches 25,000 events. After this many polls the following ones are at
# least SPARSE_POLL_INTERVAL_SECONDS apart, regardless of the configured intervals.
# tests/unit/template/test_polling.py computes the longest history from both figures, the state machine's retries and
# its TimeoutSeconds.
MAX_FREQUENT_POLLS = 240
# An unregistered task that its provider does not know is polled this many times, for two minutes with the default
# settings: a provider may know a task only some time after its callback. Further polls would be wasted on invented ids:
# anyone who knows the callback token can send one.
MAX_POLLS_OF_UNKNOWN_TASKS = 5
# A quarter of the shortest URL lifetime, 600 s: polls are never further apart (`longest_poll_gap_seconds`).
SPARSE_POLL_INTERVAL_SECONDS = 150


@dataclass(slots=True)
class PollRound:
    """The result of one polling round."""

    next_state: PollState
    recorded: list[tuple[TaskReport, Recorded]] = field(default_factory=list)
    answers: dict[str, LookupResults] = field(default_factory=dict)  # by provider
    contradicted: list[str] = field(default_factory=list)  # tasks whose failed callback the provider contradicts
    unanswered: dict[str, list[str]] = field(default_factory=dict)  # by provider: tasks without a report
    unknown: list[str] = field(default_factory=list)  # unregistered tasks that their provider does not know
    unreadable: dict[str, str] = field(default_factory=dict)  # by task: why it cannot be polled
    taken_over: list[str] = field(default_factory=list)  # tasks for which an execution polls that was started later
    # By task: why its report could not be written. The next round tries again.
    failures: dict[str, Exception] = field(default_factory=dict)


class Polling:
    """Polls tasks and records their status with the same conditional write as callbacks (`Reports.record`)."""

    def __init__(
        self,
        settings: PollTasksSettings,
        table: TasksTable,
        client: ProviderClient,
        keys: Callable[[str], ProviderKeys],
        *,
        keep_unreadable: Callable[[TaskReport], object],
        now: Callable[[], datetime],
    ) -> None:
        """`keep_unreadable` stores the `unreadable` answer of a report, before the report is written."""
        self._settings = settings
        self._table = table
        self._reports = Reports(table)
        self._confirmations = Confirmations(table)
        self._client = client
        self._keys = keys
        self._keep_unreadable = keep_unreadable
        self._now = now

    def poll(self, state: PollState, *, deadline: float) -> PollRound:
        """Runs one round. Requests not sent before `deadline` (on the client's clock) are left to the next round.

        Raises:
            StoreUnavailableError: the tasks or the API keys could not be read. The round can be repeated without loss.
        """
        waited = state.waited_seconds + state.wait_seconds
        gives_up = waited >= self._settings.give_up_after_seconds
        # Items with an invalid key, written by hand, must not stop the polls of the other tasks.
        unreadable = {task: "expected provider#taskId" for task in state.tasks if not is_task_key(task)}
        keys = [task for task in state.tasks if task not in unreadable]
        found = self._table.get_many(keys, unreadable=unreadable.__setitem__)
        # StartPolling can run twice at the same time with two messages about a task. Then only the execution that was
        # started later polls for it.
        items = {key: task for key, task in found.items() if not task.is_polled_by_another(state.polling_since)}
        # Tasks that have a result or were deleted are not polled, unless only a callback has reported the result: a
        # failure, or a success that the provider has not confirmed to the archiver.
        pending = [task for task, item in items.items() if item.is_awaited]
        unconfirmed = [
            task
            for task, item in items.items()
            if item.needs_polling and not item.is_awaited and self._can_confirm(item)
        ]
        answers = self._request_statuses([*pending, *unconfirmed], deadline=deadline)
        polls = state.polls + 1
        received = {report.task: report for answer in answers.values() for report in answer.reports}
        failed = {
            task_key(provider_id, task_id): error
            for provider_id, answer in answers.items()
            for task_id, error in answer.failed.items()
        }
        unknown = [
            task
            for task in (*pending, *unconfirmed)
            if polls >= MAX_POLLS_OF_UNKNOWN_TASKS
            and items[task].is_unregistered
            and self._is_unknown(items[task], received.get(task), failed.get(task))
        ]
        reports = {task: received[task] for task in pending if _has_result(received.get(task))}
        reports |= {
            task: self._final_report(items[task], received.get(task), failed.get(task), waited=waited)
            for task in pending
            if task not in reports and (gives_up or task in unknown)
        }
        # A success with the original image only stays PENDING. Its URL is recorded once, so that the archiver downloads
        # the image before the URL expires.
        originals = {
            task: received[task]
            for task in pending
            if task not in reports and task in received and received[task].images and not items[task].images
        }
        written = reports | originals
        recorded, failures = write_all(
            {task: partial(self._record, report, items[task]) for task, report in written.items()}
        )
        # An answer that cannot be read neither confirms nor contradicts a result.
        settled, errors = write_all(
            {
                task: partial(self._confirmations.settle, items[task], report)
                for task in unconfirmed
                if _has_result(report := received.get(task)) and report.unreadable is None
            }
        )
        failures |= errors
        _, errors = write_all(
            {
                task: partial(self._confirmations.note_not_found, items[task], now=self._now())
                for task in unknown
                if task not in settled and task not in failures
            }
        )
        failures |= errors
        running = [task for task in pending if task not in reports or task in failures]
        running += [
            task
            for task in unconfirmed
            if task not in settled and (task in failures or not (gives_up or task in unknown))
        ]
        is_busy = any(answer.is_busy for answer in answers.values())
        next_state = PollState(
            tasks=tuple(running),
            wait_seconds=next_wait_seconds(self._settings, running, waited=waited, polls=polls, is_busy=is_busy),
            waited_seconds=waited,
            polls=polls,
            polling_since=state.polling_since,
        )
        return PollRound(
            next_state,
            [(written[task], outcome) for task, outcome in recorded.items()],
            answers,
            contradicted=[task for task, result in settled.items() if result and result.is_contradicted],
            unanswered=_by_provider(task for task in (*pending, *unconfirmed) if task not in received),
            unknown=unknown,
            unreadable=unreadable,
            taken_over=[key for key in found if key not in items],
            failures=failures,
        )

    def _record(self, report: TaskReport, item: Task) -> Recorded:
        if report.unreadable is not None:
            self._keep_unreadable(report)
        return self._reports.record(report, known_request=item.request)

    def _is_unknown(self, item: Task, report: TaskReport | None, error: Exception | None) -> bool:
        """Decides whether a task counts as unknown to its provider.

        The provider answers that it has no such task or rejects requests for its id, or no API key is configured. Other
        errors, and a missing answer, do not show whether the provider knows the task.
        """
        if isinstance(error, RequestRefusedError) or not self._can_confirm(item):
            return True
        return report is not None and not _has_result(report) and report.answer is LastAnswer.NOT_FOUND

    def _can_confirm(self, item: Task) -> bool:
        try:
            return self._keys(split_task_key(item.task)[0]).usable_api_key is not None
        except SettingsError:
            return True  # `_request_statuses` adds the same error to the provider's results

    def _request_statuses(self, tasks: Sequence[str], *, deadline: float) -> dict[str, LookupResults]:
        ids_by_provider = {
            provider_id: [split_task_key(task)[1] for task in provider_tasks]
            for provider_id, provider_tasks in _by_provider(tasks).items()
        }
        if not ids_by_provider:
            return {}

        def request_of_provider(provider_id: str) -> LookupResults:
            task_ids = ids_by_provider[provider_id]
            try:
                keys = self._keys(provider_id)
                api_key = keys.usable_api_key
            except SettingsError as exc:
                # One provider's malformed entry in the secret must not stop the polls of the others.
                return LookupResults.of_error(exc, task_ids)
            if provider_id not in PROVIDERS:
                return LookupResults.of_error(ProviderRefusedError(f"no provider is called {provider_id}"), task_ids)
            if api_key is None:
                error = ProviderRefusedError(f"{keys.missing_api_key}: put one for {provider_id} into the secret")
                return LookupResults.of_error(error, task_ids)
            return self._client.request_statuses(
                PROVIDERS[provider_id],
                task_ids,
                api_key=api_key,
                deadline=deadline,
                now=self._now,
            )

        # In parallel: a slow provider must not use up the time of the others.
        with ThreadPoolExecutor(max_workers=len(ids_by_provider)) as pool:
            return dict(zip(ids_by_provider, pool.map(request_of_provider, ids_by_provider), strict=True))

    def _final_report(
        self, task: Task, report: TaskReport | None, error: Exception | None, *, waited: int
    ) -> TaskReport:
        """Returns the report of a task for which polling gives up.

        Its status is TIMED_OUT, unless the URL of the original image is known. Then it is SUCCEEDED, with the original
        image only, if the provider's record has this URL, and UNCONFIRMED if only a callback has reported it.
        """
        provider, task_id = split_task_key(task.task)
        after_hours = min(waited, self._settings.give_up_after_seconds) / 3600
        failure = no_result_failure(task, report, error, after_hours=after_hours)
        status, reported_by = TaskStatus.TIMED_OUT, Reporter.POLL
        images = report.images if report else ()
        if images or (task.images and not had_callback(task)):
            status = TaskStatus.SUCCEEDED
            images = images or task.images
        elif task.images and task.status is TaskStatus.PENDING:
            status, reported_by = TaskStatus.UNCONFIRMED, Reporter.CALLBACK
            images = task.images
            failure = failure.model_copy(update={"reason": FailureReason.UNCONFIRMED})
        return TaskReport(
            provider=provider,
            task_id=task_id,
            status=status,
            reported_by=reported_by,
            reported_at=self._now(),
            images=images,
            failure=None if status is TaskStatus.SUCCEEDED else failure,
        )


def next_wait_seconds(
    settings: PollTasksSettings, running: Sequence[str], *, waited: int, polls: int, is_busy: bool
) -> int:
    """Returns the seconds until the next poll of the `running` tasks.

    `waited`: seconds waited so far; `polls`: polls so far; `is_busy`: a provider has answered "too many requests" or
    "maintenance".
    """
    is_slow = waited >= settings.slow_poll_after_seconds
    wait = settings.slow_poll_interval_seconds if is_slow else settings.poll_interval_seconds
    if is_busy:
        wait = max(wait, min(wait * BUSY_FACTOR, MAX_BUSY_WAIT_SECONDS))
    if polls >= MAX_FREQUENT_POLLS:
        wait = max(wait, SPARSE_POLL_INTERVAL_SECONDS)
    # Regardless of the settings: an image is lost if its URL has expired before a poll finds it.
    gap = longest_poll_gap_seconds(split_task_key(task)[0] for task in running)
    wait = min(wait, gap or wait)
    # The wait never exceeds the time left: the last poll is made when polling gives up. Tasks still running after that
    # could not be written. They are tried again at the usual interval: polling every second would use up the
    # execution's history.
    left = settings.give_up_after_seconds - waited
    return min(wait, left) if left > 0 else wait


def _has_result(report: TaskReport | None) -> TypeGuard[TaskReport]:
    return report is not None and report.status is not TaskStatus.PENDING


def _by_provider(tasks: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        found[split_task_key(task)[0]].append(task)
    return dict(found)

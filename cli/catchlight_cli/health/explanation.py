"""Explains a task: its history, the reason for its status, and the next step."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Annotated

from pydantic import AfterValidator

from catchlight.models import Failure, FailureReason, ImageKind, ImageState, LastAnswer, Model, TaskStatus, parse_time
from catchlight.recovery.reconcile import FAILURES_SEARCHED, MAX_ARCHIVING_TIME
from catchlight.tasks.task import Task
from catchlight_cli.durations import format_duration
from catchlight_cli.health.archive_log import FailedAttempt
from catchlight_cli.health.polling_executions import ExecutionSearch
from catchlight_cli.output import plural, task_path

_REASONS = {
    FailureReason.CONTENT_POLICY: "The provider refused the request because of its content policy.",
    FailureReason.INTERNAL: "The provider had an internal error.",
    FailureReason.GENERATION_FAILED: "The provider could not generate the image.",
    FailureReason.CREATE_FAILED: "The provider could not start the task.",
    FailureReason.NO_RESULT: "Polling ended without a result.",
    FailureReason.UNCONFIRMED: "Its images are in quarantine, except those that could not be downloaded.",
    FailureReason.OTHER: "The provider reported a failure with an undocumented code.",
}


# What an operator can do besides restarting polling, by the provider's last response to a poll.
_REMEDIES = {
    LastAnswer.NOT_FOUND: "Check that the task id, the provider's base URL and the API key belong to one account.",
    LastAnswer.REFUSED: "First check the API key and the account: `catchlight doctor`.",
    LastAnswer.REQUEST_REFUSED: "Check the task id.",
    LastAnswer.UNREADABLE: "The provider's format may have changed: see the log of PollTasks.",
}


class Event(Model):
    """An event in a task's history."""

    at: datetime
    description: str


class ArchiveDeadLetter(Model):
    """A message about the task in ArchiveDeadLetters."""

    id: str
    sent_at: datetime


def _without_queries(task: Task) -> Task:
    images = tuple(image.model_copy(update={"url": _path(image.url)}) for image in task.images)
    conflicts = tuple(
        conflict.model_copy(update={"urls": tuple(map(_path, conflict.urls))}) for conflict in task.conflicts
    )
    skipped = tuple(output.model_copy(update={"url": output.url and _path(output.url)}) for output in task.skipped)
    return task.model_copy(update={"images": images, "skipped": skipped, "conflicts": conflicts})


def _path(url: str) -> str:
    return url.partition("?")[0]


class Explanation(Model):
    """The explanation of one task, as `catchlight describe` prints it."""

    # URLs without their queries: a query may contain a signature that gives access to the image, and users may share
    # explanations.
    task: Annotated[Task, AfterValidator(_without_queries)]
    history: tuple[Event, ...]
    reason: str  # for the task's status
    next_step: str
    polling: ExecutionSearch | None  # None: the stack does not poll for the task, so executions were not searched
    dead_letters: tuple[ArchiveDeadLetter, ...]


def explain(
    task: Task,
    *,
    polling: ExecutionSearch | None,
    dead_letters: Iterable[ArchiveDeadLetter],
    failed_attempts: Iterable[FailedAttempt],
    longest_polling: timedelta,
    now: datetime,
) -> Explanation:
    """Builds the explanation from a task's item, its dead letters, failed archiving attempts and polling executions."""
    dead_letters, attempts = tuple(dead_letters), tuple(failed_attempts)
    failures = (Event(at=each.at, description=f"archiving failed: {each.reason}") for each in attempts)
    return Explanation(
        task=task,
        history=tuple(sorted(chain(_history(task), failures), key=lambda event: event.at)),
        reason=_reason(task) + (f" The last attempt failed: {attempts[-1].reason}." if attempts else ""),
        next_step=_next_step(task, polling, dead_letters, longest_polling, now),
        polling=polling,
        dead_letters=dead_letters,
    )


def _history(task: Task) -> Iterator[Event]:
    def event(time: str | None, description: str) -> Iterator[Event]:
        if moment := parse_time(time):
            yield Event(at=moment, description=description)

    yield from event(task.registered_at, "registered")
    yield from event(
        task.hinted_at, "a success without a result was reported, or an unconfirmed one again: polling started"
    )
    if task.reported_by and task.status is TaskStatus.TIMED_OUT:
        yield from event(task.reported_at, "polling ended without a result")
    elif task.reported_by:
        result = _result(task)
        yield from event(task.reported_at, f"{task.reported_by} reported {result}")
    yield from event(task.confirmed_at, "the provider confirmed the callback")
    yield from event(task.accepted_at, "an operator accepted the callback, which the provider had not confirmed")
    for conflict in task.conflicts:
        report = _result_of(conflict.status, len(conflict.urls), conflict.failure)
        contradiction = f"{conflict.reported_by} reported {report}: a contradiction, not applied"
        yield Event(at=conflict.reported_at, description=contradiction)
    for image in task.images:
        if image.archived_at:
            yield Event(at=image.archived_at, description=f"{image.kind} image archived as {image.key}")
    yield from event(task.archived_at, "archiving finished")
    yield from event(task.reconciled_at, "polling or archiving was restarted")


def _result(task: Task) -> str:
    task = task.as_reported()
    status = TaskStatus.FAILED if task.failure else TaskStatus.SUCCEEDED
    skipped = "".join(f", {output.media} (skipped)" for output in task.skipped)
    return _result_of(status, len(task.images), task.failure) + skipped


def _result_of(status: TaskStatus, images: int, failure: Failure | None) -> str:
    if failure:
        return f"a failure, {failure.reason}"
    if status is TaskStatus.SUCCEEDED:
        return f"a result of {plural(images, 'image')}"
    return status.value


def _reason(task: Task) -> str:
    if task.failure:
        message = f" Its message: {task.failure.message}" if task.failure.message else ""
        code = f" Its code: {task.failure.code}." if task.failure.code else ""
        return f"{_REASONS[task.failure.reason]}{code}{message}"
    lost = [image for image in task.images if image.state in (ImageState.EXPIRED, ImageState.REJECTED)]
    if lost:
        return "; ".join(f"{image.kind} image {image.state}: {image.reason or 'unknown reason'}" for image in lost)
    match task.status:
        case TaskStatus.PENDING if task.hinted_at:
            return "A success without a result was reported, and no poll has found the result yet."
        case TaskStatus.PENDING:
            return "No callback has arrived, and no poll has found a result."
        case TaskStatus.SUCCEEDED:
            return "The provider has a result, but not all of its images are in the bucket yet."
        case TaskStatus.INCOMPLETE if task.skipped:
            return f"The provider returned no image: {', '.join(output.media for output in task.skipped)}."
        case TaskStatus.INCOMPLETE if _has_original_only(task):
            return "The provider reports a success, but no result: only its original is in the bucket."
        case TaskStatus.ARCHIVED:
            return "Every image is in the bucket and validated."
        case _:
            return ""


def _next_step(
    task: Task,
    polling: ExecutionSearch | None,
    dead_letters: tuple[ArchiveDeadLetter, ...],
    longest_polling: timedelta,
    now: datetime,
) -> str:
    changed_at = parse_time(task.updated_at)
    waited = now - changed_at if changed_at else None
    is_searched = waited is not None and waited <= FAILURES_SEARCHED  # the hourly run searches no older tasks
    if dead_letters and task.status is TaskStatus.SUCCEEDED:
        return (
            "Its message is in ArchiveDeadLetters: archiving failed until the URLs expired. "
            f"{_redrive(task)} retries it."
        )
    match task.status:
        case TaskStatus.PENDING:
            return _next_poll(task, polling, waited, longest_polling, now)
        case TaskStatus.SUCCEEDED if waited is not None and waited > MAX_ARCHIVING_TIME:
            return (
                f"It has waited for archiving for {format_duration(waited)}: archiving has stopped. The hourly run "
                f"restarts it once a day; {_redrive(task)} restarts it now."
            )
        case TaskStatus.SUCCEEDED:
            return (
                "Its images are being archived, which takes seconds. Failed images are retried until their URLs expire."
            )
        case TaskStatus.TIMED_OUT:
            if task.is_awaited and is_searched:
                return (
                    f"The hourly run polls for it again until its provider answers, for 14 days.{_remedy(task)} "
                    f"{_redrive(task)} polls now."
                )
            return (
                f"There is no automatic retry.{_remedy(task)} A later report is still applied; "
                f"{_redrive(task)} restarts polling."
            )
        case TaskStatus.UNCONFIRMED:
            accept = f"`catchlight accept {task_path(task.task)}`"
            return (
                f"Polling requests the confirmation for as long as it requests results.{_remedy(task)} "
                f"{_redrive(task)} polls for it again; {accept} archives the images without a confirmation."
            )
        case TaskStatus.INCOMPLETE if task.skipped and not task.images:
            return "None: only images are archived. The item has the URLs of other files in `skipped`."
        case TaskStatus.INCOMPLETE if _has_original_only(task):
            return f"There is no automatic retry. {_redrive(task)} polls for the result again."
        case TaskStatus.INCOMPLETE:
            return f"There is no automatic retry. {_redrive(task)} requests fresh URLs and retries the images."
        case TaskStatus.FAILED if task.is_unconfirmed and not is_searched:
            return (
                "There is no automatic retry: only a callback has reported the failure, and its provider did not "
                f"confirm it within 14 days. {_redrive(task)} polls for the confirmation again."
            )
        case TaskStatus.FAILED if task.is_unconfirmed:
            return (
                "Only a callback has reported the failure. Until the provider confirms or corrects it, the hourly run "
                f"polls for it, for 14 days, with the provider's API key; {_redrive(task)} polls now."
            )
        case TaskStatus.FAILED:
            return "None. A later success is still applied."
        case TaskStatus.ARCHIVED:
            return "None: the task is done."


def _remedy(task: Task) -> str:
    answer = task.failure.last_answer if task.failure else None
    return f" {_REMEDIES[answer]}" if answer in _REMEDIES else ""


def _has_original_only(task: Task) -> bool:
    return bool(task.images) and all(image.kind is ImageKind.ORIGIN for image in task.images)


def _redrive(task: Task) -> str:
    return f"`catchlight redrive {task_path(task.task)}`"


def _next_poll(
    task: Task, polling: ExecutionSearch | None, waited: timedelta | None, longest_polling: timedelta, now: datetime
) -> str:
    if polling and polling.executions:
        execution = polling.executions[0]
        if not execution.polls_next_at or execution.polls_next_at <= now:
            return f"Execution {execution.name} is polling for it."
        return f"Execution {execution.name} polls for it in {format_duration(execution.polls_next_at - now)}."
    if waited is None:
        return (
            "Its item has no updatedAt, so the hourly run does not find it. Add one, and the hourly run starts polling."
        )
    if waited > longest_polling:
        return "Polling has stopped. The hourly run restarts it; `catchlight reconcile` restarts it now."
    if polling and polling.is_exhaustive:
        return (
            "No running execution polls for it, which is normal until its first poll is due (FirstPollAfterSeconds). "
            f"At the latest, the first hourly run after {format_duration(longest_polling - waited)} starts polling; "
            f"{_redrive(task)} starts it now."
        )
    return "An execution should be polling for it, but too many executions are running to find it."

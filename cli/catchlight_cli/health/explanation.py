"""Explains the state of a task: its history, the reason for its status, and what happens next."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import chain
from typing import Annotated

from pydantic import AfterValidator

from catchlight.models import Failure, FailureReason, Image, ImageState, Model, Reporter, Task, TaskStatus
from catchlight.recovery.reconcile import ARCHIVING_TAKES_AT_MOST
from catchlight_cli.durations import in_words, parse_time
from catchlight_cli.health.archive_log import FailedTry
from catchlight_cli.health.polling_executions import Search

_REASONS = {
    FailureReason.CONTENT_POLICY: "The service refused what was asked for, by its content policy.",
    FailureReason.INTERNAL: "The service failed, by a fault of its own.",
    FailureReason.GENERATION_FAILED: "The service could not generate the image.",
    FailureReason.CREATE_FAILED: "The service could not even begin with the task.",
    FailureReason.NO_NEWS: "Neither a callback nor a poll brought news for as long as polling goes on.",
    FailureReason.OTHER: "The service says that it failed, with a code that nobody documents.",
}
_REPORTERS = {Reporter.CALLBACK: "its callback", Reporter.POLL: "polling"}


class Event(Model):
    """An event in a task's history."""

    at: datetime
    what: str


class DeadLetter(Model):
    """A message in the archive queue's dead-letter queue that names the task."""

    id: str
    since: datetime


def _without_queries(task: Task) -> Task:
    images = tuple(image.model_copy(update={"url": _path(image.url)}) for image in task.images)
    conflicts = tuple(
        conflict.model_copy(update={"urls": tuple(map(_path, conflict.urls))}) for conflict in task.conflicts
    )
    return task.model_copy(update={"images": images, "conflicts": conflicts})


def _path(url: str) -> str:
    return url.partition("?")[0]


class Explanation(Model):
    """The explanation of one task, as `catchlight describe` prints it."""

    # URLs without their queries: a query may hold a signature that gives access to the image, and explanations are
    # passed on to other people.
    task: Annotated[Task, AfterValidator(_without_queries)]
    history: tuple[Event, ...]
    why: str
    next: str
    polling: Search | None  # None: executions were not searched, as the task is not polled
    dead_letters: tuple[DeadLetter, ...]


def explain(
    task: Task,
    *,
    polling: Search | None,
    dead_letters: Iterable[DeadLetter],
    failed_tries: Iterable[FailedTry],
    longest_polling: timedelta,
    now: datetime,
) -> Explanation:
    """Builds the explanation from a task's item, its dead letters, failed archiving attempts and polling executions."""
    dead_letters, tries = tuple(dead_letters), tuple(failed_tries)
    events = chain(_history(task), (Event(at=each.at, what=f"not archived: {each.reason}") for each in tries))
    return Explanation(
        task=task,
        history=tuple(sorted(events, key=lambda event: event.at)),
        why=_why(task) + (f" The last try: {tries[-1].reason}." if tries else ""),
        next=_next(task, polling, dead_letters, longest_polling, now),
        polling=polling,
        dead_letters=dead_letters,
    )


def _history(task: Task) -> Iterator[Event]:
    def event(time: str | None, what: str) -> Iterator[Event]:
        if moment := parse_time(time):
            yield Event(at=moment, what=what)

    yield from event(task.registered_at, "registered")
    if task.reported_by and task.status is TaskStatus.TIMED_OUT:
        yield from event(task.reported_at, "polling gave up")
    elif task.reported_by:
        result = _result(task.images, task.failure)
        yield from event(task.reported_at, f"{_REPORTERS[task.reported_by]} brought {result}")
    yield from event(task.confirmed_at, "the service confirmed what the callback had said")
    for conflict in task.conflicts:
        said = _result_of(conflict.status, len(conflict.urls), conflict.failure)
        contradiction = f"{_REPORTERS[conflict.reported_by]} said otherwise: {said}; kept as evidence, not applied"
        yield Event(at=conflict.reported_at, what=contradiction)
    for image in task.images:
        if image.archived_at:
            yield Event(at=image.archived_at, what=f"{image.kind} image archived as {image.key}")
    yield from event(task.archived_at, "archiving finished")
    yield from event(task.reconciled_at, "nobody worked on it any more: its work was started again")


def _result(images: tuple[Image, ...], failure: Failure | None) -> str:
    return _result_of(TaskStatus.FAILED if failure else TaskStatus.SUCCEEDED, len(images), failure)


def _result_of(status: TaskStatus, images: int, failure: Failure | None) -> str:
    if failure:
        return f"a failure, {failure.reason}"
    if status is TaskStatus.SUCCEEDED:
        return f"a result of {images} {'image' if images == 1 else 'images'}"
    return status.value


def _why(task: Task) -> str:
    if task.failure:
        said = f" It said: {task.failure.message}" if task.failure.message else ""
        code = f" (code {task.failure.code})" if task.failure.code else ""
        return f"{_REASONS[task.failure.reason]}{code}{said}"
    lost = [image for image in task.images if image.state in (ImageState.EXPIRED, ImageState.REJECTED)]
    if lost:
        return "; ".join(f"{image.kind} image {image.state}: {image.reason or 'for no reason given'}" for image in lost)
    match task.status:
        case TaskStatus.PENDING:
            return "No callback has come, and no poll has found a result."
        case TaskStatus.SUCCEEDED:
            return "The service has a result; its images are not all in the bucket yet."
        case TaskStatus.ARCHIVED:
            return "Every image is in the bucket, checked."
        case _:
            return ""


def _next(
    task: Task, polling: Search | None, dead_letters: tuple[DeadLetter, ...], longest_polling: timedelta, now: datetime
) -> str:
    changed_at = parse_time(task.updated_at)
    waited = now - changed_at if changed_at else None
    if dead_letters and task.status is TaskStatus.SUCCEEDED:
        return "Its archiving failed five times and is among the dead letters: `catchlight redrive` with its id."
    match task.status:
        case TaskStatus.PENDING:
            return _next_poll(polling, waited, longest_polling, now)
        case TaskStatus.SUCCEEDED if waited is not None and waited > ARCHIVING_TAKES_AT_MOST:
            return (
                f"It has waited for {in_words(waited)}: nobody archives it any more. The hourly run queues it again "
                "once a day; `catchlight redrive` with its id does so now."
            )
        case TaskStatus.SUCCEEDED:
            return "Its images are being archived, which takes seconds, and with all retries a quarter of an hour."
        case TaskStatus.TIMED_OUT:
            return "Nothing by itself. Later news is still taken; `catchlight redrive` with its id starts polling anew."
        case TaskStatus.INCOMPLETE:
            return "Nothing by itself. `catchlight redrive` with its id asks for fresh URLs and tries once more."
        case TaskStatus.FAILED if task.is_unconfirmed:
            return (
                "Its failure rests on a callback alone; where the service can be asked, a poll confirms or corrects it."
            )
        case TaskStatus.FAILED:
            return "Nothing. A success that comes later is still taken."
        case TaskStatus.ARCHIVED:
            return "Nothing: this is the end."


def _next_poll(polling: Search | None, waited: timedelta | None, longest_polling: timedelta, now: datetime) -> str:
    if polling and polling.executions:
        execution = polling.executions[0]
        if not execution.polls_next_at or execution.polls_next_at <= now:
            return f"It is being polled for, by execution {execution.name}."
        return f"Polled next in {in_words(execution.polls_next_at - now)}, by execution {execution.name}."
    if waited is None:
        return "Its item has no updatedAt, so nobody finds it: put one, and the hourly run starts its polling."
    if waited > longest_polling:
        return "Nobody polls for it any more. The hourly run starts that again; `catchlight reconcile` does so now."
    if polling and polling.is_exhaustive:
        return (
            "No running execution polls for it. That is right for the first seconds only; the hourly run starts it "
            f"after {in_words(longest_polling - waited)}, `catchlight redrive` with its id does so now."
        )
    return "It should be polled for; there are too many executions to say which one does."

"""Renders tasks of the tasks API for the terminal: as rows of a table, or one task with all its details."""

from collections.abc import Iterable, Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from catchlight.api.response_models import ImageResponse, TaskResponse
from catchlight.models import ImageState, TaskStatus, parse_time
from catchlight_cli.output import PagedTable, format_time, new_table

_STYLES = {
    TaskStatus.PENDING: "dim",
    TaskStatus.TIMED_OUT: "magenta",
    TaskStatus.FAILED: "red",
    TaskStatus.SUCCEEDED: "cyan",
    TaskStatus.UNCONFIRMED: "bright_yellow",
    TaskStatus.INCOMPLETE: "yellow",
    TaskStatus.ARCHIVED: "green",
}


class TaskTable(PagedTable):
    """A table of tasks that is printed page by page."""

    def __init__(self) -> None:
        super().__init__("Task", "Status", "Reported by", "Duration", "Images or failure", "Arrived")

    def tasks(self, tasks: Iterable[TaskResponse]) -> Table:
        """Renders the next page."""
        return self.page(map(_row, tasks))


def render_tasks(tasks: Iterable[TaskResponse]) -> Table:
    """Renders tasks as a table with one row each."""
    return TaskTable().tasks(tasks)


def _row(task: TaskResponse) -> tuple[Text, ...]:
    return (
        Text(f"{task.provider}/{task.task_id}"),
        status_text(task.status),
        Text(task.reported_by or ""),
        Text(_duration(task)),
        Text(_outcome(task)),
        Text(_moment(task.arrived_at)),
    )


def render_task(task: TaskResponse) -> Iterator[RenderableType]:
    """Renders one task with its times, its images and the reports that contradicted its result."""
    yield Text.assemble((f"{task.provider}/{task.task_id}  ", "bold"), status_text(task.status))
    rows = new_table("", "")
    rows.show_header = False
    prompt = (task.request or {}).get("prompt")
    if prompt:
        rows.add_row("Prompt", Text(str(prompt)))
    if task.ref:
        rows.add_row("Reference", task.ref)
    for name, value in (task.metadata or {}).items():
        rows.add_row(Text(name), Text(value))
    if task.failure:
        failure = f"{task.failure.reason} {task.failure.code or ''} {task.failure.message}".split()
        rows.add_row("Failure", Text(" ".join(failure)))
    record = task.provider_record
    for name, moment in (
        ("Registered", task.registered_at),
        ("Created by the provider", record and record.created_at),
        ("Completed by the provider", record and record.completed_at),
        (f"Reported by {task.reported_by}", task.reported_at),
        ("Confirmed", task.confirmed_at),
        ("Accepted", task.accepted_at),
        ("Archived", task.archived_at),
    ):
        if moment:
            rows.add_row(name, _moment(moment))
    for name, text in (("Trace id", record.trace_id), ("Timings", record.timings)) if record else ():
        if text:
            rows.add_row(name, Text(text))
    if task.deliveries > 1:
        rows.add_row("Callbacks", str(task.deliveries))
    for conflict in task.conflicts:
        rows.add_row("Conflict", Text(f"{conflict.reported_by} reported {conflict.status}; not applied", "yellow"))
    for image in task.images:
        rows.add_row(f"{image.kind}-{image.index}", Text(_image(image)))
    for output in task.skipped:
        rows.add_row("Skipped", Text(f"{output.media} {output.url or ''}".strip()))
    yield rows


def status_text(status: TaskStatus) -> Text:
    """Returns the status in its colour."""
    return Text(status, _STYLES[status])


def _duration(task: TaskResponse) -> str:
    # From registration to archiving, or to the report if the task is not archived.
    started, ended = parse_time(task.registered_at), parse_time(task.archived_at or task.reported_at)
    return f"{(ended - started).total_seconds():.1f} s" if started and ended else ""


def _outcome(task: TaskResponse) -> str:
    if task.failure:
        return task.failure.reason
    archived = sum(image.state is ImageState.ARCHIVED for image in task.images)
    return f"{archived} of {len(task.images)}" if task.images else ""


def _image(image: ImageResponse) -> str:
    if image.state is not ImageState.ARCHIVED:
        reason = f": {image.reason}" if image.reason else ""
        kept = f" ({image.quarantine.bytes} bytes in quarantine)" if image.quarantine else ""
        return f"{image.state}{reason}{kept}"
    # The displayed size: EXIF's orientations from 5 on exchange width and height.
    shown = (image.height, image.width) if (image.orientation or 0) >= 5 else (image.width, image.height)
    size = f"{shown[0]} x {shown[1]}, " if all(shown) else ""
    return f"{size}{image.content_type}, {image.bytes} bytes, {image.key}"


def _moment(iso: str | None) -> str:
    moment = parse_time(iso)
    return format_time(moment) if moment else iso or ""

"""Formats tasks of the tasks API for terminals: several as a table, or one with all its details."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from catchlight.api.schemas import ImageResponse, TaskResponse
from catchlight.models import ImageState, TaskStatus
from catchlight_cli.output import a_table

_STYLES = {
    TaskStatus.PENDING: "dim",
    TaskStatus.TIMED_OUT: "magenta",
    TaskStatus.FAILED: "red",
    TaskStatus.SUCCEEDED: "cyan",
    TaskStatus.INCOMPLETE: "yellow",
    TaskStatus.ARCHIVED: "green",
}


def tasks_table(tasks: Iterable[TaskResponse]) -> Table:
    """Formats tasks as a table with one row each."""
    table = a_table("Task", "Status", "How", "Images", "Arrived")
    for task in tasks:
        table.add_row(
            Text(f"{task.provider}/{task.task_id}"),
            status_text(task),
            f"{task.reported_by or ''} {took(task)}".strip(),
            Text(_outcome(task)),
            _day_or_time(task.arrived_at),
        )
    return table


def task_page(task: TaskResponse) -> Iterator[RenderableType]:
    """Formats one task with its times, its images and the reports that contradicted its result."""
    yield Text.assemble((f"{task.provider}/{task.task_id}  ", "bold"), status_text(task))
    facts = Table.grid(padding=(0, 2))
    facts.add_column()
    facts.add_column(overflow="fold")
    prompt = (task.request or {}).get("prompt")
    if prompt:
        facts.add_row("Prompt", Text(str(prompt)))
    if task.failure:
        said = f"{task.failure.reason} {task.failure.code or ''} {task.failure.message}".split()
        facts.add_row("Failure", Text(" ".join(said)))
    for name, moment in (
        ("Registered", task.registered_at),
        (f"Reported by {task.reported_by}", task.reported_at),
        ("Confirmed", task.confirmed_at),
        ("Archived", task.archived_at),
    ):
        if moment:
            facts.add_row(name, _moment(moment))
    if task.deliveries > 1:
        facts.add_row("Callbacks", str(task.deliveries))
    for conflict in task.conflicts:
        facts.add_row("Not applied", Text(f"{conflict.reported_by} claimed {conflict.status}", "yellow"))
    for image in task.images:
        facts.add_row(f"{image.kind}-{image.index}", Text(_image(image)))
    yield facts


def status_text(task: TaskResponse) -> Text:
    """Returns a task's status in the colour of that status."""
    return Text(task.status, _STYLES.get(task.status, ""))


def took(task: TaskResponse) -> str:
    """Formats the seconds from registration to archiving, or to the report if it is not archived; empty if unknown."""
    try:
        begun = datetime.fromisoformat(task.registered_at or "")
        ended = datetime.fromisoformat(task.archived_at or task.reported_at or "")
        return f"{(ended - begun).total_seconds():.1f} s"
    except (ValueError, TypeError):  # items may be edited by hand
        return ""


def _outcome(task: TaskResponse) -> str:
    if task.failure:
        return task.failure.reason
    archived = sum(image.state is ImageState.ARCHIVED for image in task.images)
    return f"{archived} of {len(task.images)}" if task.images else ""


def _image(image: ImageResponse) -> str:
    if image.state is not ImageState.ARCHIVED:
        return f"{image.state}: {image.reason}" if image.reason else image.state
    size = f"{image.width} x {image.height}, " if image.width and image.height else ""
    return f"{size}{image.content_type}, {image.bytes} bytes, {image.key}"


def _day_or_time(iso: str | None) -> str:
    try:
        moment = datetime.fromisoformat(iso or "").astimezone()
    except ValueError:
        return iso or ""
    return moment.strftime("%H:%M" if moment.date() == datetime.now(moment.tzinfo).date() else "%d %b")


def _moment(iso: str | None) -> str:
    try:
        return datetime.fromisoformat(iso or "").astimezone().strftime("%d %b %Y %H:%M:%S")
    except ValueError:
        return iso or ""

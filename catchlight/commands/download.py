"""`catchlight download`."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from catchlight.client import DeskClient, Download, download
from catchlight.command import Command, ExitStatus, Session
from catchlight.commands.list import add_filters, chosen, positive, tell_unreadable
from catchlight.desk_lookup import each_of, look_up, task_name
from catchlight.errors import CatchlightError, UsageError
from catchlight.screen import a_table
from image_tasks.desk.messages import TaskAnswer
from image_tasks.models import ImageKind, Model


class Downloads(Model):
    """What became of every image."""

    folder: str
    images: tuple[Download, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether some image that is archived could not be saved."""
        return any(image.outcome == "failed" for image in self.images)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `download` can be told."""
    parser.add_argument("tasks", nargs="*", type=task_name, metavar="TASK", help="flux-kontext/task12345, or its id")
    add_filters(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="tasks at most (all)")
    parser.add_argument("--to", type=Path, default=Path("images"), metavar="FOLDER", help="where to (images)")
    parser.add_argument(
        "--kind", choices=[kind.value for kind in ImageKind], metavar="KIND", help="result or origin only (both)"
    )


def run(session: Session) -> ExitStatus:
    """Saves images, with a progress bar. WRONG if one that is archived could not be saved, or a named task has none."""
    options = session.options
    if options.tasks and (options.status or options.provider or options.since or options.limit):
        raise UsageError("Name tasks or say which ones you mean, not both.")
    kinds = [ImageKind(options.kind)] if options.kind else list(ImageKind)
    images: list[Download] = []
    named: list[TaskAnswer] = []
    unreadable: list[str] = []
    with DeskClient.of(session.stack) as desk, session.screen.progress() as progress:
        bar = progress.add_task("Downloading", total=0)

        def counted(tasks: Iterable[TaskAnswer]) -> Iterator[TaskAnswer]:
            total = 0
            for task in tasks:
                total += sum(image.kind in kinds for image in task.images)
                progress.update(bar, total=total)
                yield task

        def tasks() -> Iterator[TaskAnswer]:
            if options.tasks:
                for task in each_of(options.tasks, lambda name: look_up(desk, name), session.screen.complain):
                    named.append(task)
                    yield task
                return
            for page_of_tasks in desk.pages(**chosen(options), limit=options.limit):
                unreadable.extend(page_of_tasks.unreadable)
                yield from page_of_tasks.tasks

        try:
            for image in download(desk, counted(tasks()), options.to, kinds=kinds):
                images.append(image)
                progress.advance(bar)
        except OSError as exc:
            raise CatchlightError(f"{options.to} cannot be written to: {exc}") from exc
    result = Downloads(folder=str(options.to), images=tuple(images))
    session.screen.show(result, lambda: page(result))
    tell_unreadable(session.screen, unreadable)
    # Of a query it is no surprise that a task has none.
    without_images = [task for task in named if not task.images]
    for task in without_images:
        session.screen.complain(f"{task.provider}/{task.task_id} has no images: it is {task.status}.")
    is_wrong = result.is_wrong or without_images or len(named) < len(options.tasks)
    return ExitStatus.WRONG if is_wrong else ExitStatus.FINE


def page(result: Downloads) -> Iterable[RenderableType]:
    """For people: how many there are, and each that is not there."""
    counts = Counter(image.outcome for image in result.images)
    size = sum(image.bytes or 0 for image in result.images if image.outcome == "downloaded")
    yield Text(
        f"{counts['downloaded']} downloaded ({size / 1e6:.1f} MB), {counts['present']} were there already, "
        f"{counts['missing']} are not archived, {counts['failed']} failed. All checked by SHA-256, in {result.folder}."
    )
    lost = [image for image in result.images if image.reason]
    if lost:
        table = a_table("Image", "Outcome", "Why")
        for image in lost:
            outcome = Text(image.outcome, "red" if image.outcome == "failed" else "yellow")
            table.add_row(Text(f"{image.provider}/{image.task_id} {image.image}"), outcome, Text(image.reason or ""))
        yield table


COMMAND = Command(
    name="download",
    summary="all images of tasks into a folder, checked",
    description="Saves all images of tasks into a folder. What is there already is left alone, what was broken off "
    "goes on where it ended, every file is checked by SHA-256, and no other file is overwritten.",
    add_arguments=add_arguments,
    run=run,
)

"""Implements `catchlight download`: saves the images of tasks into a folder and checks their SHA-256."""

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from catchlight.api.schemas import TaskResponse
from catchlight.client import Download, TasksClient, download
from catchlight.client.aws_errors import CatchlightError, UsageError
from catchlight.models import ImageKind, Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.list import add_filters, chosen, positive, tell_unreadable
from catchlight_cli.lookup.api_tasks import each_of, look_up, task_name
from catchlight_cli.output import a_table


class Downloads(Model):
    """Outcome of the download of each image."""

    folder: str
    images: tuple[Download, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether an archived image could not be saved."""
        return any(image.outcome == "failed" for image in self.images)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `download` to its parser."""
    parser.add_argument("tasks", nargs="*", type=task_name, metavar="TASK", help="flux-kontext/task12345, or its id")
    add_filters(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="tasks at most (all)")
    parser.add_argument("--to", type=Path, default=Path("images"), metavar="FOLDER", help="where to (images)")
    parser.add_argument(
        "--kind", choices=[kind.value for kind in ImageKind], metavar="KIND", help="result or origin only (both)"
    )


def run(session: Session) -> ExitStatus:
    """Saves images, with a progress bar.

    Returns WRONG if an archived image could not be saved, or if a named task does not exist or has no images.

    Raises:
        UsageError: both tasks and filters are given.
        CatchlightError: the folder is not writable.
    """
    options = session.options
    if options.tasks and (options.status or options.provider or options.since or options.limit):
        raise UsageError("Name tasks or say which ones you mean, not both.")
    kinds = [ImageKind(options.kind)] if options.kind else list(ImageKind)
    images: list[Download] = []
    with TasksClient.of(session.stack) as api, session.screen.progress() as progress:
        bar = progress.add_task("Downloading", total=0)
        chosen_tasks = _ChosenTasks(api, session)

        def counted() -> Iterator[TaskResponse]:
            total = 0
            for task in chosen_tasks:
                total += sum(image.kind in kinds for image in task.images)
                progress.update(bar, total=total)
                yield task

        try:
            for image in download(api, counted(), options.to, kinds=kinds):
                images.append(image)
                progress.advance(bar)
        except OSError as exc:
            raise CatchlightError(f"{options.to} cannot be written to: {exc}") from exc
    result = Downloads(folder=str(options.to), images=tuple(images))
    session.screen.show(result, lambda: page(result))
    chosen_tasks.tell()
    return ExitStatus.WRONG if result.is_wrong or chosen_tasks.is_wrong else ExitStatus.FINE


class _ChosenTasks:
    """Fetches the named or filtered tasks while they are iterated, and collects problems to report afterwards."""

    def __init__(self, api: TasksClient, session: Session) -> None:
        self._api = api
        self._options = session.options
        self._screen = session.screen
        self._found = 0
        self._without_images: list[TaskResponse] = []
        self._unreadable: list[str] = []

    def __iter__(self) -> Iterator[TaskResponse]:
        return self._named() if self._options.tasks else self._queried()

    def _named(self) -> Iterator[TaskResponse]:
        for task in each_of(self._options.tasks, lambda name: look_up(self._api, name), self._screen.error):
            self._found += 1
            if not task.images:
                self._without_images.append(task)
            yield task

    def _queried(self) -> Iterator[TaskResponse]:
        # No problem here, unlike for named tasks: filters also match tasks without images.
        for found in self._api.pages(**chosen(self._options), limit=self._options.limit):
            self._unreadable += found.unreadable
            yield from found.tasks

    def tell(self) -> None:
        """Reports malformed items and named tasks without images on stderr."""
        tell_unreadable(self._screen, self._unreadable)
        for task in self._without_images:
            self._screen.error(f"{task.provider}/{task.task_id} has no images: it is {task.status}.")

    @property
    def is_wrong(self) -> bool:
        """Whether a named task does not exist or has no images."""
        return bool(self._without_images) or self._found < len(self._options.tasks)


def page(result: Downloads) -> Iterable[RenderableType]:
    """Renders the result for the terminal: counts by outcome, and a table of the images that were not saved."""
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

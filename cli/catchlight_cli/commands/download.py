"""Implements `catchlight download`: saves the images of tasks into a folder and verifies their SHA-256 checksums."""

import argparse
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from catchlight.api.response_models import TaskResponse
from catchlight.client import Download, TasksClient, download
from catchlight.client.downloading import images_to_save
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.models import ImageKind, Model
from catchlight_cli.arguments import add_filters, add_limit, add_tasks, filters
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.task_lookup import get_task, get_tasks


class Downloads(Model):
    """Outcome of the download of each image."""

    folder: str
    images: tuple[Download, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tasks(parser, nargs="*")
    add_filters(parser)
    add_limit(parser, None, "tasks")
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("images"),
        metavar="FOLDER",
        help="folder for the images (default: images)",
    )
    parser.add_argument(
        "--kind",
        choices=[kind.value for kind in ImageKind],
        metavar="KIND",
        help="only images of this kind: result or origin (default: both)",
    )
    parser.add_argument(
        "--quarantined",
        action="store_true",
        help="save the bytes in quarantine, which could not be archived, instead of the archived images",
    )


def run(session: Session) -> ExitStatus:
    """Saves images, with a progress bar.

    Returns FAILURE if an archived image could not be saved, or if a named task does not exist or has no images.

    Raises:
        UsageError: both tasks and filters are given.
        CatchlightError: the folder is not writable.
    """
    options = session.options
    if options.tasks and (options.limit or any(filters(options).values())):
        names = ", ".join(f"--{name}" for name in filters(options))
        raise UsageError(f"Give either tasks or filters ({names}, --limit), not both.")
    kinds = [ImageKind(options.kind)] if options.kind else list(ImageKind)
    with TasksClient.of(session.stack) as api, session.output.progress() as progress:
        bar = progress.add_task("Downloading", total=0)
        selected = _SelectedTasks(api, session)

        def counted() -> Iterator[TaskResponse]:
            total = 0
            for task in selected:
                total += len(images_to_save(task, kinds, quarantined=options.quarantined))
                progress.update(bar, total=total)
                yield task

        def saved() -> Generator[Download, None, None]:
            images = download(api, counted(), options.output_dir, kinds=kinds, quarantined=options.quarantined)
            try:
                with closing(images):
                    for image in images:
                        progress.advance(bar)
                        yield image
            except OSError as exc:
                raise CatchlightError(f"{options.output_dir} is not writable: {exc}") from exc

        images = session.output.show_rows(saved(), _cells, "Image", "Outcome", "File or reason")
    result = Downloads(folder=str(options.output_dir), images=images)
    session.output.show(result, lambda: render(result))
    selected.report_problems()
    has_failed = selected.has_failed or any(image.outcome == "failed" for image in images)
    return ExitStatus.FAILURE if has_failed else ExitStatus.SUCCESS


def _cells(image: Download) -> tuple[Text, ...]:
    outcome = Text(image.outcome, {"failed": "red", "missing": "yellow"}.get(image.outcome, ""))
    return Text(f"{image.provider}/{image.task_id} {image.image}"), outcome, Text(image.path or image.reason or "")


class _SelectedTasks:
    """Fetches the named or filtered tasks while they are iterated, and collects problems to report afterwards."""

    def __init__(self, api: TasksClient, session: Session) -> None:
        self._api = api
        self._options = session.options
        self._output = session.output
        self._found = 0
        self._without_images: list[TaskResponse] = []
        self._unreadable: dict[str, str] = {}

    def __iter__(self) -> Iterator[TaskResponse]:
        return self._named() if self._options.tasks else self._filtered()

    def _named(self) -> Iterator[TaskResponse]:
        for task in get_tasks(self._options.tasks, lambda name: get_task(self._api, name), self._output.error):
            self._found += 1
            if not task.images:
                self._without_images.append(task)
            yield task

    def _filtered(self) -> Iterator[TaskResponse]:
        # A task without images is an error only if it was named: filters may match such tasks as well.
        for page in self._api.pages(**filters(self._options), limit=self._options.limit):
            self._unreadable |= page.unreadable_reasons
            yield from page.tasks

    def report_problems(self) -> None:
        """Reports malformed items and named tasks without images on stderr."""
        self._output.malformed_items(self._unreadable)
        for task in self._without_images:
            self._output.error(f"{task.provider}/{task.task_id} is {task.status} and has no images.")

    @property
    def has_failed(self) -> bool:
        """Whether a named task does not exist or has no images."""
        return bool(self._without_images) or self._found < len(self._options.tasks)


def render(result: Downloads) -> Iterable[RenderableType]:
    """Renders the summary for the terminal, below the table: counts by outcome."""
    if not result.images:
        yield "No image was saved: the selected tasks have none, or no task matches."
        return
    counts = Counter(image.outcome for image in result.images)
    size = sum(image.bytes or 0 for image in result.images if image.outcome == "downloaded")
    yield ""
    yield Text(
        f"{counts['downloaded']} downloaded ({size / 1e6:.1f} MB), {counts['present']} already present, "
        f"{counts['missing']} not archived, {counts['failed']} failed."
        + (
            f" The saved images are in {result.folder}; their SHA-256 checksums match."
            if counts["downloaded"] + counts["present"]
            else ""
        )
    )


COMMAND = Command(
    name="download",
    summary="save the images of tasks into a folder and verify their checksums",
    description="""\
Save the images of tasks into a folder and verify their SHA-256 checksums. Images that are in the folder already are
skipped, interrupted downloads are resumed, and other files are never overwritten.""",
    add_arguments=add_arguments,
    run=run,
)

"""Runs the demo from start to end: stack, simulator, tasks, checks and output."""

import shutil
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.text import Text

from catchlight.client import TasksApiError, TasksClient, connect
from local.artefact import Artefact, built_artefact
from local.demo.cases import CASES
from local.demo.checks import Bucket, count_messages, find_problems, read_bucket, save_images
from local.demo.chromium import find_chromium
from local.demo.developer import Developer
from local.demo.output import Progress, make_console, result_table
from local.demo.pictures import take_screenshot, write_image_grid
from local.demo.runner import DemoError, DemoTask, submit_and_register, watch
from local.simulator import ORIGIN_LIFETIME_SECONDS, Simulator
from local.stack import LocalStack

# A wait of a minute takes three seconds. The first poll is due 120 s after the registration.
TIME_SCALE = 0.05
# A generous limit, for busy machines: two idle cores need twelve seconds.
MAX_SECONDS = 150.0
IMAGE_GRID = "all-images.png"
SCREENSHOT = "gallery.png"


def main(state_dir: Path, *, built: bool = False) -> int:
    """Runs the demo and returns the exit code: 0 if every task had the expected outcome."""
    console = make_console()
    try:
        artefact = built_artefact(lambda message: console.print(Text(message))) if built else None
        problems = run(state_dir, console, artefact)
    except (TasksApiError, DemoError) as exc:
        problems = [str(exc)]
    if not problems:
        return 0
    console.print(Text("\nThe demo failed:", "bold red"))
    for problem in problems:
        console.print(Text(f"  {problem}"))
    console.print(Text(f"The functions' logs are in {state_dir / 'logs'}; errors.log lists their errors, if any."))
    return 1


def run(state_dir: Path, console: Console, artefact: Artefact | None = None) -> list[str]:
    """Runs all cases and returns a message for each deviation. With an artefact, runs the functions that SAM built.

    Raises:
        LocalStackError: the stack cannot start.
        TasksApiError, DemoError: the demo cannot continue.
    """
    images_dir = state_dir / "images"
    begun = time.monotonic()
    console.print(
        f"Starting the stack on this machine, from template.yaml and the {'built ' if artefact else ''}functions. "
        f"{len(CASES)} tasks of five simulated\nimage services will go through it. "
        f"Waits are {1 / TIME_SCALE:.0f} times shorter than in AWS."
    )
    if artefact:
        console.print(Text(f"The functions and their layer are those that `sam build` made, in {artefact.folder}."))
    with (
        # URL lifetimes are not scaled, because the download of an image takes the same time in every time scale.
        Simulator(
            time_scale=TIME_SCALE, origin_lifetime_seconds=ORIGIN_LIFETIME_SECONDS / TIME_SCALE, records_wait=True
        ) as simulator,
        LocalStack(
            port=0,
            aws_port=0,
            time_scale=TIME_SCALE,
            state_dir=state_dir,
            provider_urls=simulator.provider_urls,
            image_hosts=simulator.image_hosts,
            simulator=False,
            artefact=artefact,
        ) as stack,
    ):
        console.print(f"The stack is up after {time.monotonic() - begun:.1f} s.\n")
        dynamodb, table = stack.boto3_client("dynamodb"), stack.info["table"]
        tasks = [DemoTask(case) for case in CASES]
        api = connect(local=True, state_dir=str(state_dir))
        developer = Developer(api, timeout_seconds=MAX_SECONDS)
        with Progress(console, tasks, simulator) as progress:
            for task in submit_and_register(tasks, simulator, api, stack.info["callback_urls"], developer.submit):
                progress.show([task])
            for changed in watch(tasks, simulator, dynamodb, table, deadline=begun + MAX_SECONDS):
                progress.show(changed)
        bucket = read_bucket(stack.boto3_client("s3"), stack.info["bucket"])
        dead_letters = count_messages(stack.boto3_client("sqs"), stack.info["archive_dlq_url"])
        problems = find_problems(tasks, simulator, bucket, dead_letters)
        problems += developer.problems()
        picture = _take_screenshot(api, state_dir / SCREENSHOT, len(tasks), problems)
    console.print(result_table(tasks, console.width))
    if picture is None:
        console.print(
            "No screenshot of the gallery, which needs Chromium (`scripts/install-chromium`) and `make setup`."
        )
    if images_dir.exists():
        shutil.rmtree(images_dir)
    save_images(bucket.images, images_dir)
    if not problems:
        # Only after a successful check: unexpected objects in the bucket may not be images.
        write_image_grid([bucket.images[key] for key in sorted(bucket.images)], images_dir / IMAGE_GRID)
        _print_success(console, tasks, bucket, images_dir, picture, time.monotonic() - begun)
    return problems


def _take_screenshot(api: TasksClient, path: Path, expected: int, problems: list[str]) -> Path | None:
    path.unlink(missing_ok=True)
    browser = find_chromium()
    if browser is None or find_spec("playwright") is None:
        return None
    shown = take_screenshot(browser, api, path)
    if shown != expected:
        problems.append(f"{shown} tasks in the gallery instead of {expected}")
    return path


def _print_success(
    console: Console, tasks: Sequence[DemoTask], bucket: Bucket, folder: Path, picture: Path | None, seconds: float
) -> None:
    console.print(Text(f"\nAll {len(tasks)} tasks have the expected outcome, after {seconds:.1f} s.", "bold green"))
    console.print(
        f"The bucket has {len(bucket.images)} images, under images/PROVIDER/TASK/. Each one has exactly the bytes that "
        "its service served."
    )
    for case in (task.case for task in tasks):
        if remark := case.remark or (case.forgery and case.forgery.remark):
            console.print(f"{case.task_id}: {remark}")
    for key in sorted(bucket.kept_deliveries):
        console.print(f"An unreadable callback was refused and is kept for `catchlight replay`: {key}", soft_wrap=True)
    sam = Path(sys.executable).with_name("sam")
    sam_command = sam.relative_to(Path.cwd()) if sam.is_relative_to(Path.cwd()) else sam
    hints = {
        "All images": str(folder),
        "In one picture": str(folder / IMAGE_GRID),
        **({"Gallery screenshot": str(picture)} if picture else {}),
        "Run the stack": "make up",
        "Deploy to AWS": f"make build && {sam_command} deploy --guided",
    }
    console.print()
    for label, hint in hints.items():
        # Not wrapped, so that paths and commands can be copied.
        console.print(Text(f"{label:<20}", "dim") + Text(hint, "bold cyan"), soft_wrap=True)

"""Runs the demo from start to end: stack, simulator, tasks, checks and output."""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from catchlight.client import TasksClient, connect
from local import LocalStackError
from local.artefact import Artefact, built_artefact
from local.demo.cases import CASES
from local.demo.checks import Bucket, count_messages, find_problems, read_bucket, save_images
from local.demo.chromium import find_chromium
from local.demo.developer import Developer
from local.demo.gallery_picture import take_picture
from local.demo.image_grid import write_contact_sheet
from local.demo.operator import Operator
from local.demo.output import Progress, make_console, result_table
from local.demo.runner import DemoError, Played, submit_and_register, watch
from local.simulator import ORIGIN_LIFETIME_SECONDS, Simulator
from local.stack import LocalStack

# A minute of waiting takes three seconds: the first poll is due 60 s after the registration.
TIME_SCALE = 0.05
# Generous: two idle cores need twelve seconds.
MAX_SECONDS = 150.0
STATE_DIR = Path(".local/demo")
CONTACT_SHEET = "contact-sheet.png"
GALLERY_PICTURE = "gallery.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit code: 0 if every task had the expected outcome."""
    parser = argparse.ArgumentParser(
        prog="python -m local demo",
        description="Plays tasks of all providers through the whole stack on this machine and checks every outcome.",
    )
    parser.add_argument("--state-dir", type=Path, default=STATE_DIR, help="for images and logs (default: %(default)s)")
    parser.add_argument("--built", action="store_true", help="run the functions as `sam build` makes them")
    options = parser.parse_args(argv)
    state_dir: Path = options.state_dir
    console = make_console()
    try:
        artefact = built_artefact(lambda message: console.print(Text(message))) if options.built else None
        problems = run(state_dir, console, artefact)
    except (LocalStackError, DemoError) as exc:
        problems = [str(exc)]
    if not problems:
        return 0
    console.print(Text("\nThe demo failed. What is not as it has to be:", "bold red"))
    for problem in problems:
        console.print(Text(f"  {problem}"))
    console.print(Text(f"Logs are in {state_dir / 'logs'}; errors.log there, if any, has what went wrong."))
    return 1


def run(state_dir: Path, console: Console, artefact: Artefact | None = None) -> list[str]:
    """Runs all cases and returns a message for each deviation. With an artefact, runs the functions that SAM built.

    Raises:
        LocalStackError, DemoError: the demo cannot continue; the message gives the reason.
    """
    images_dir = state_dir / "images"
    begun = time.monotonic()
    functions = "the built functions" if artefact else "the real functions"
    console.print(
        f"Playing {len(CASES)} tasks of three image services through the real template and {functions}, "
        f"on this machine.\nWaits are {1 / TIME_SCALE:.0f} times shorter than in AWS."
    )
    if artefact:
        console.print(Text(f"The functions and their layer run as `sam build` made them, from {artefact.folder}."))
    with (
        # URL lifetimes are not scaled, because the time that a busy machine needs to download an image is not either.
        Simulator(
            time_scale=TIME_SCALE, origin_lifetime_seconds=ORIGIN_LIFETIME_SECONDS / TIME_SCALE, records_wait=True
        ) as simulator,
        LocalStack(
            port=0,
            aws_port=0,
            time_scale=TIME_SCALE,
            state_dir=state_dir,
            provider_urls=simulator.provider_urls,
            image_hosts=[simulator.image_host],
            simulator=False,
            artefact=artefact,
        ) as stack,
    ):
        console.print(f"The stack is up after {time.monotonic() - begun:.1f} s.\n")
        dynamodb, table = stack.boto3_client("dynamodb"), stack.info["table"]
        tasks = [Played(case) for case in CASES]
        api = connect(local=True, state_dir=str(state_dir))
        developer = Developer(api, timeout_seconds=MAX_SECONDS)
        with Progress(console, tasks, simulator) as progress:
            for played in submit_and_register(
                tasks, simulator, dynamodb, table, stack.info["callback_urls"], developer.submit
            ):
                progress.show([played])
            operator = Operator(stack.boto3_client("sqs"), stack.info["archive_dlq_url"], state_dir)
            for changed in watch(tasks, simulator, dynamodb, table, deadline=begun + MAX_SECONDS):
                progress.show(changed)
                operator.look()
            operator.finish()
        bucket = read_bucket(stack.boto3_client("s3"), stack.info["bucket"])
        dead_letters = count_messages(stack.boto3_client("sqs"), stack.info["archive_dlq_url"])
        problems = find_problems(tasks, simulator, bucket, dead_letters)
        if operator.redriven != 1:
            problems.append(f"dead letters were redriven {operator.redriven} times instead of once")
        problems += developer.problems()
        picture = _take_picture(api, state_dir / GALLERY_PICTURE, len(tasks), problems)
    console.print(result_table(tasks, console.width))
    if picture is None:
        console.print("No picture of the gallery: there is no Chromium here (scripts/install-chromium installs it).")
    if images_dir.exists():
        shutil.rmtree(images_dir)
    save_images(bucket.images, images_dir)
    if not problems:
        # Only after a successful check: unexpected objects in the bucket may not be images.
        write_contact_sheet([bucket.images[key] for key in sorted(bucket.images)], images_dir / CONTACT_SHEET)
        _tell_success(console, tasks, bucket, images_dir, picture, time.monotonic() - begun)
    return problems


def _take_picture(api: TasksClient, path: Path, expected: int, problems: list[str]) -> Path | None:
    path.unlink(missing_ok=True)
    browser = find_chromium()
    if browser is None:
        return None
    shown = take_picture(browser, api, path)
    if shown != expected:
        problems.append(f"{shown} tasks in the gallery instead of {expected}")
    return path


def _tell_success(
    console: Console, tasks: Sequence[Played], bucket: Bucket, folder: Path, picture: Path | None, seconds: float
) -> None:
    console.print(Text(f"\nAll {len(tasks)} tasks ended as they had to, in {seconds:.1f} s.", "bold green"))
    console.print(
        f"{len(bucket.images)} images are in the bucket, under images/PROVIDER/TASK/, each byte for byte what was "
        "served; no other image is there."
    )
    for case in (played.case for played in tasks):
        if told := case.told or (case.forgery and case.forgery.told):
            console.print(f"{case.task_id}: {told}")
    count = len(bucket.kept_deliveries)
    what = (
        "1 delivery could not be read and is kept" if count == 1 else f"{count} deliveries were not read and are kept"
    )
    console.print(f"{what}: {', '.join(sorted(bucket.kept_deliveries))}", soft_wrap=True)
    sam = Path(sys.executable).with_name("sam")
    sam_command = sam.relative_to(Path.cwd()) if sam.is_relative_to(Path.cwd()) else sam
    hints = {
        "Images": str(folder),
        "On one sheet": str(folder / CONTACT_SHEET),
        **({"The gallery": str(picture)} if picture else {}),
        "Kept running": "make up",
        "In your account": f"make build && {sam_command} deploy --guided",
    }
    console.print()
    for what, hint in hints.items():
        # Not wrapped, so that paths and commands can be copied.
        console.print(Text(f"{what:<17}", "dim") + Text(hint, "bold cyan"), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())

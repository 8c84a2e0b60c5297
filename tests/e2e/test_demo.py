"""The demo shows what it promises, and says plainly what is wrong when something is."""

import io
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from catchlight.callbacks.rejected_deliveries import RejectedDelivery
from catchlight.models import TaskStatus
from local.artefact import Artefact
from local.demo import run
from local.demo.cases import CASES, NO_TOKEN, WITH_TOKEN, Case
from local.demo.checks import Bucket, StoredImage, find_problems
from local.demo.forgeries import forged_urls, trap_path
from local.demo.output import result_table
from local.demo.runner import Played
from local.simulator import FLUX_KONTEXT, ImageRequest, Simulator

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_demo_ends_well_and_leaves_the_images(tmp_path: Path, artefact: Artefact | None) -> None:
    options = ["--built"] if artefact else []
    ended = subprocess.run(
        [sys.executable, "-m", "local", "demo", "--state-dir", str(tmp_path), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,  # ends by itself before, and says what is wrong
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"All {len(CASES)} tasks ended as they had to" in ended.stdout
    assert ended.stderr == ""
    assert ("as `sam build` made them" in ended.stdout) is (artefact is not None)
    told = " ".join(ended.stdout.replace("│", " ").split())
    for what in ("callback ×2", "poll", "1 in conflict", "ARCHIVED", "GENERATION_FAILED", "contact-sheet.png"):  # noqa: RUF001
        assert what in told
    for what in (
        "INCOMPLETE",
        "result REJECTED: not an",
        "answered 401",
        "did not confirm it",
        "could not be read",
    ):
        assert what in told
    images = [path for path in (tmp_path / "images").rglob("*-*.*") if path.name != "contact-sheet.png"]
    assert len(images) == sum(case.images - (case.rejected is not None) for case in CASES)
    for path in [*images, tmp_path / "images" / "contact-sheet.png"]:
        with Image.open(path) as image:
            image.load()


def test_it_plays_every_provider_and_every_way_of_being_resolved() -> None:
    assert {case.provider for case in CASES} == {"flux-kontext", "nanobanana", "acedata"}
    assert len({case.key for case in CASES}) == len(CASES)
    for provider in ("flux-kontext", "acedata"):
        silent = [case for case in CASES if case.provider == provider and case.script_name == "silent"]
        assert [case.status for case in silent] == [TaskStatus.ARCHIVED]


def test_it_plays_strangers_and_images_that_are_none() -> None:
    assert [case.forgery for case in CASES if case.forgery] == [NO_TOKEN, WITH_TOKEN]
    refused = {case.script_name: case.status for case in CASES if case.rejected}
    assert refused == dict.fromkeys(("private-address", "html-page"), TaskStatus.INCOMPLETE)


def test_it_plays_repairs() -> None:
    repaired = {case.script_name: case.status for case in CASES if case.told}
    assert repaired == dict.fromkeys(("silent", "origin-renewed", "image-outage"), TaskStatus.ARCHIVED)


def test_an_original_has_to_come_from_a_fresh_url() -> None:
    with Simulator() as simulator:
        played, stored = archived(simulator, script="origin-renewed")
        problems = find_problems([played], simulator, Bucket(stored, ASKED, {}), dead_letters=0)
    assert problems == [f"{CASE.key}: origin-0: signature of the URL differs from what was served"]


# ------------------------------------------------------------------------------------------------ failures are told

CASE = Case(FLUX_KONTEXT, "task12345", "success", images=1)
ASKED = {"images/flux-kontext/task12345/request.json": {"request": {"prompt": "A serene mountain landscape"}}}


def archived(simulator: Simulator, script: str = "null-original") -> tuple[Played, dict[str, StoredImage]]:
    """A task that went well, and the bucket."""
    task = simulator.submit(FLUX_KONTEXT, script=script, task_id=CASE.task_id)
    image = task.images[0]
    picture = image.picture
    key = f"images/flux-kontext/{CASE.task_id}/{image.kind}-0.any"
    item = {
        "status": "ARCHIVED",
        "reportedBy": "callback",
        "deliveries": 1,
        "archivedAt": "2026-01-31T12:00:01.500Z",
        "request": {"prompt": "A serene mountain landscape"},
        "images": [
            {
                "kind": image.kind,
                "url": image.url,
                "state": "ARCHIVED",
                "key": key,
                "sha256": picture.sha256,
                "bytes": len(picture.content),
                "contentType": picture.format.content_type,
                "width": picture.width,
                "height": picture.height,
            }
        ],
    }
    played = Played(CASE, submitted_at=1769860800.0, item=item)  # 2026-01-31T12:00:00Z
    return played, {key: StoredImage(key, picture.content, picture.format.content_type)}


def nothing(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    pass


def wrong_status(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["status"] = "INCOMPLETE"


def still_running(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["status"] = "SUCCEEDED"


def found_by_poll(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["reportedBy"] = "poll"


def counted_twice(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["deliveries"] = 2


def one_byte_differs(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    (key, image), *_ = stored.items()
    stored[key] = StoredImage(key, image.content[:-1] + b"?", image.content_type)


def wrong_type(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["images"][0]["contentType"] = "text/html"


def object_missing(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    stored.clear()


def image_forgotten(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["images"].clear()
    stored.clear()


def prompt_forgotten(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    del item["request"]


def stray_object(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    stored["images/stray"] = StoredImage("images/stray", b"", "image/png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nothing, None),
        (wrong_status, "INCOMPLETE instead of ARCHIVED"),
        (still_running, "SUCCEEDED instead of ARCHIVED, and its time is over"),
        (found_by_poll, "reported by poll"),
        (counted_twice, "2 callbacks counted instead of 1"),
        (one_byte_differs, "bytes in the bucket differs"),
        (wrong_type, "contentType differs"),
        (object_missing, "result-0 is not in the bucket"),
        (image_forgotten, "0 images instead of 1"),
        (prompt_forgotten, "its prompt is not kept"),
        (stray_object, "images/stray is in the bucket and belongs to no task"),
    ],
)
def test_each_fault_is_found(
    spoil: Callable[[dict[str, Any], dict[str, StoredImage]], None], words: str | None
) -> None:
    with Simulator() as simulator:
        played, stored = archived(simulator)
        assert isinstance(played.item, dict)
        spoil(played.item, stored)
        problems = find_problems([played], simulator, Bucket(stored, ASKED, {}), dead_letters=0)
    assert (words in problems[0]) if words else (problems == [])
    assert len(problems) <= 1


def test_dead_letters_and_missing_items_are_found() -> None:
    with Simulator() as simulator:
        problems = find_problems([Played(CASE)], simulator, Bucket({}, {}, {}), dead_letters=3)
    assert problems == ["flux-kontext#task12345: there is no item", "3 dead letters in the archive's queue"]


def test_a_kept_delivery_that_nobody_sent_is_found() -> None:
    stray = RejectedDelivery("acedata", datetime(2026, 1, 31, tzinfo=UTC), "no task id", {}, b"{}")
    with Simulator() as simulator:
        problems = find_problems([], simulator, Bucket({}, {}, {"rejected/stray.json": stray}), dead_letters=0)
    assert problems == ["1 unreadable deliveries are kept, and 0 were sent"]


@pytest.mark.parametrize(
    ("answer", "is_evidence", "is_fetched", "words"),
    [
        (200, True, False, None),
        (401, True, False, "the forged callback was answered 401 instead of 200"),
        (200, False, False, "the forged callback is not among the evidence"),
        (200, True, True, "what a stranger named was fetched"),
    ],
)
def test_a_stranger_who_gets_further_than_he_should_is_found(
    answer: int, is_evidence: bool, is_fetched: bool, words: str | None
) -> None:
    with Simulator() as simulator:
        played, stored = archived(simulator)
        assert isinstance(played.item, dict)
        played.case = replace(CASE, forgery=WITH_TOKEN, conflicts=(1,))
        played.forgery_answer = answer
        urls = forged_urls(CASE.task_id, simulator.url) if is_evidence else ["https://elsewhere.test/"]
        played.item["conflicts"] = [{"urls": urls}]
        if is_fetched:
            simulator.record(ImageRequest(trap_path(CASE.task_id), "catchlight", 404))
        problems = find_problems([played], simulator, Bucket(stored, ASKED, {}), dead_letters=0)
    assert [problem.partition(": ")[2] for problem in problems] == ([words] if words else [])


@pytest.mark.parametrize(
    ("state", "reason", "is_fine"),
    [
        ("REJECTED", "not an image: the bytes are no JPEG", True),
        ("REJECTED", "the URL is not https", False),
        ("ARCHIVED", None, False),
    ],
)
def test_an_image_has_to_be_refused_for_the_right_reason(state: str, reason: str | None, is_fine: bool) -> None:
    with Simulator() as simulator:
        played, _ = archived(simulator)
        assert isinstance(played.item, dict)
        played.case = replace(CASE, rejected="not an image")
        played.item["status"] = "INCOMPLETE"
        url = played.item["images"][0]["url"]
        played.item["images"] = [{"kind": "result", "url": url, "state": state, "reason": reason}]
        problems = find_problems([played], simulator, Bucket({}, ASKED, {}), dead_letters=0)
    assert (problems == []) is is_fine


def test_problems_make_it_exit_with_1_and_say_where_the_logs_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "run", lambda *_: ["flux-kontext#task12345: FAILED instead of ARCHIVED"])
    assert run.main(["--state-dir", str(tmp_path)]) == 1
    told = capsys.readouterr().out.replace("\n", "")
    assert "flux-kontext#task12345: FAILED instead of ARCHIVED" in told
    assert str(tmp_path / "logs") in told


@pytest.mark.parametrize(("width", "shows_script"), [(120, True), (100, True), (80, False)])
def test_the_table_fits_the_terminal(width: int, shows_script: bool) -> None:
    with Simulator() as simulator:
        played, _ = archived(simulator)
    refused = {"kind": "result", "state": "REJECTED", "reason": "not an image: the bytes are no JPEG, PNG or WebP"}
    item = {"status": "INCOMPLETE", "reportedBy": "poll", "conflicts": [{}], "images": [refused]}
    late = {"archivedAt": "2026-01-31T12:00:47.700Z"}
    slow = Played(
        Case(FLUX_KONTEXT, "task12346", "failure-without-id"), submitted_at=played.submitted_at, item=item | late
    )
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(result_table([played, slow], width))
    text = captured.get()
    for what in ("result-0.any", "1.5 s", "48 s", "INCOMPLETE", "1 in conflict", "result REJECTED: not", "task12346"):
        assert what in text
    assert ("success" in text) is shows_script
    assert ("failure-without-id" in text) is shows_script
    assert all(len(line) <= width for line in text.splitlines())


def test_seconds_are_counted_from_the_submission_to_the_end() -> None:
    played = Played(CASE, submitted_at=time.time(), item={"status": "PENDING", "updatedAt": "2026-01-31T12:00:00.000Z"})
    assert played.seconds is None

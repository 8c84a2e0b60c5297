"""The demo: a complete run, and the problems that it reports."""

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

from catchlight.models import FailureReason, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight.recovery.deliveries import StoredDelivery
from local.artefact import Artefact
from local.demo import run
from local.demo.cases import CASES, NO_TOKEN, WITH_TOKEN, Case
from local.demo.checks import Bucket, StoredImage, find_problems
from local.demo.forgeries import forged_path, forged_urls
from local.demo.output import result_table
from local.demo.runner import DemoTask
from local.simulator import FLUX_KONTEXT, Simulator

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_demo_succeeds_and_saves_the_images(tmp_path: Path, artefact: Artefact | None) -> None:
    options = ["--built"] if artefact else []
    process = subprocess.run(
        [sys.executable, "-m", "local", "demo", "--state-dir", str(tmp_path), *options],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=900,  # the demo itself times out earlier, with a message
        check=False,
    )

    assert process.returncode == 0, process.stdout + process.stderr
    assert f"All {len(CASES)} tasks have the expected outcome" in process.stdout
    assert process.stderr == ""
    assert ("that `sam build` made" in process.stdout) is (artefact is not None)
    output = " ".join(process.stdout.replace("│", " ").split())
    for text_part in ("callback ×2", "poll", "1 conflict", "ARCHIVED", "GENERATION_FAILED", "all-images.png"):  # noqa: RUF001
        assert text_part in output
    for text_part in (
        "INCOMPLETE",
        "result REJECTED: not an",
        "refused with 401",
        "contradicted it",
        "An unreadable callback was refused",
    ):
        assert text_part in output
    images = [path for path in (tmp_path / "images").rglob("*-*.*") if path.name != "all-images.png"]
    assert len(images) == sum(case.archived_images for case in CASES)
    for path in [*images, tmp_path / "images" / "all-images.png"]:
        with Image.open(path) as image:
            image.load()


def test_cases_cover_every_provider_and_a_lost_callback() -> None:
    assert {case.provider for case in CASES} == {*PROVIDERS}
    assert len({case.key for case in CASES}) == len(CASES)
    for provider in ("flux-kontext", "apikley", "kie-market", "acedata"):
        silent = [case for case in CASES if case.provider == provider and case.scenario_name == "silent"]
        assert [case.status for case in silent] == [TaskStatus.ARCHIVED]


def test_cases_cover_forged_callbacks_and_rejected_images() -> None:
    assert [case.forgery for case in CASES if case.forgery] == [NO_TOKEN, WITH_TOKEN]
    rejected = {case.scenario_name: case.status for case in CASES if case.rejected}
    assert rejected == dict.fromkeys(("private-address", "html-page", "heic"), TaskStatus.INCOMPLETE)


def test_cases_cover_recovery() -> None:
    cases = [case for case in CASES if case.status is not TaskStatus.UNCONFIRMED]
    statuses = {case.scenario_name: case.status for case in cases if case.remark and not case.rejected}
    recovered = ("silent", "origin-renewed", "image-outage", "origin-gone", "original-first", "result-gone")
    unusual = ("redirect-chain", "unlisted-host", "phone-photo", "image-and-video")
    assert statuses == dict.fromkeys((*recovered, *unusual), TaskStatus.ARCHIVED)


def test_cases_cover_tasks_that_stay_unconfirmed() -> None:
    unconfirmed = [case for case in CASES if case.status is TaskStatus.UNCONFIRMED]
    names = {case.scenario_name for case in unconfirmed}
    assert names == {"never-confirmed", "key-refused", "maintenance", "another-account"}


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_demo_checks_that_images_of_unconfirmed_tasks_are_quarantined(is_kept: bool) -> None:
    with Simulator() as simulator:
        task, stored = archived(simulator)
        assert isinstance(task.item, dict)
        task.case = replace(CASE, failure=FailureReason.UNCONFIRMED)
        task.item |= {"status": "UNCONFIRMED", "failure": {"reason": "UNCONFIRMED"}}
        task.item["images"][0] |= {"state": "PENDING", "key": None}
        quarantine = {"quarantine/flux-kontext/task12345/result-0": next(iter(stored.values()))} if is_kept else {}
        problems = find_problems([task], simulator, Bucket({}, {}, {}, quarantine), dead_letters=0)
    assert (problems == []) is is_kept


@pytest.mark.parametrize("is_missing", [True, False])
def test_the_demo_checks_that_an_expired_original_is_expired(is_missing: bool) -> None:
    with Simulator() as simulator:
        task, stored = archived(simulator)
        assert isinstance(task.item, dict)
        task.case = replace(CASE, images=2, has_original=False)
        original = {"kind": "origin", "state": "EXPIRED"} if is_missing else task.item["images"][0]
        task.item["images"] = [original, *task.item["images"]]
        problems = find_problems([task], simulator, Bucket(stored, REQUESTS, {}), dead_letters=0)
    assert (problems == []) is is_missing


def test_the_demo_checks_that_an_expired_original_has_a_fresh_url() -> None:
    with Simulator() as simulator:
        task, stored = archived(simulator, scenario="origin-renewed")
        problems = find_problems([task], simulator, Bucket(stored, REQUESTS, {}), dead_letters=0)
    assert problems == [f"{CASE.key}: origin-0: signature of the URL differs from what was served"]


# ------------------------------------------------------------------------------------------------ reported problems

CASE = Case(FLUX_KONTEXT, "task12345", "success", images=1)
REQUESTS = {"images/flux-kontext/task12345": {"prompt": "A serene mountain landscape"}}


def archived(simulator: Simulator, scenario: str = "null-original") -> tuple[DemoTask, dict[str, StoredImage]]:
    """Returns an archived task and the bucket's objects."""
    simulated = simulator.submit(FLUX_KONTEXT, scenario=scenario, task_id=CASE.task_id)
    image = simulated.images[0]
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
    task = DemoTask(CASE, submitted_at=1769860800.0, item=item)  # 2026-01-31T12:00:00Z
    return task, {key: StoredImage(key, picture.content, picture.format.content_type)}


def no_change(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    pass


def wrong_status(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["status"] = "INCOMPLETE"


def not_archived(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["status"] = "SUCCEEDED"


def found_by_poll(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["reportedBy"] = "poll"


def two_deliveries(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["deliveries"] = 2


def different_byte(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    (key, image), *_ = stored.items()
    stored[key] = StoredImage(key, image.content[:-1] + b"?", image.content_type)


def wrong_content_type(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["images"][0]["contentType"] = "text/html"


def object_missing(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    stored.clear()


def image_missing(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    item["images"].clear()
    stored.clear()


def prompt_missing(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    del item["request"]


def unexpected_object(item: dict[str, Any], stored: dict[str, StoredImage]) -> None:
    stored["images/stray"] = StoredImage("images/stray", b"", "image/png")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (no_change, None),
        (wrong_status, "INCOMPLETE instead of ARCHIVED"),
        (not_archived, "SUCCEEDED instead of ARCHIVED when the time was over"),
        (found_by_poll, "reported by poll"),
        (two_deliveries, "2 callbacks counted instead of 1"),
        (different_byte, "bytes in the bucket differs"),
        (wrong_content_type, "contentType differs"),
        (object_missing, "result-0 is not in the bucket"),
        (image_missing, "0 images instead of 1"),
        (prompt_missing, "its prompt is not stored"),
        (unexpected_object, "images/stray is in the bucket and belongs to no task"),
    ],
)
def test_each_problem_is_reported(
    change: Callable[[dict[str, Any], dict[str, StoredImage]], None], problem: str | None
) -> None:
    with Simulator() as simulator:
        task, stored = archived(simulator)
        assert isinstance(task.item, dict)
        change(task.item, stored)
        problems = find_problems([task], simulator, Bucket(stored, REQUESTS, {}), dead_letters=0)
    assert (problem in problems[0]) if problem else (problems == [])
    assert len(problems) <= 1


def test_dead_letters_and_missing_items_are_reported() -> None:
    with Simulator() as simulator:
        problems = find_problems([DemoTask(CASE)], simulator, Bucket({}, {}, {}), dead_letters=3)
    assert problems == ["flux-kontext#task12345: there is no item", "3 messages are in the archive's dead-letter queue"]


def test_unexpected_stored_deliveries_are_reported() -> None:
    unexpected = StoredDelivery("acedata", datetime(2026, 1, 31, tzinfo=UTC), "no task id", {}, b"{}")
    with Simulator() as simulator:
        problems = find_problems([], simulator, Bucket({}, {}, {"rejected/stray.json": unexpected}), dead_letters=0)
    assert problems == ["1 unreadable deliveries are stored instead of 0"]


@pytest.mark.parametrize(
    ("response_status", "is_evidence", "is_image", "problem"),
    [
        (200, True, False, None),
        (401, True, False, "the forged callback was answered 401 instead of 200"),
        (200, False, False, "the forged callback is not among the evidence"),
        (200, True, True, "a forged URL is among the images"),
    ],
)
def test_a_forgery_with_an_effect_is_reported(
    response_status: int, is_evidence: bool, is_image: bool, problem: str | None
) -> None:
    with Simulator() as simulator:
        task, stored = archived(simulator)
        assert isinstance(task.item, dict)
        task.case = replace(CASE, forgery=WITH_TOKEN, conflicts=(1,))
        task.forgery_status = response_status
        urls = forged_urls(CASE.task_id, simulator.url) if is_evidence else ["https://elsewhere.test/"]
        task.item["conflicts"] = [{"urls": urls}]
        if is_image:
            task.item["images"][0]["url"] = simulator.url + forged_path(CASE.task_id)
        problems = find_problems([task], simulator, Bucket(stored, REQUESTS, {}), dead_letters=0)
    found = [problem.partition(": ")[2] for problem in problems]
    assert found[:1] == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("state", "reason", "kept", "is_correct"),
    [
        ("REJECTED", "not an image: the bytes are no JPEG", True, True),
        ("REJECTED", "not an image: the bytes are no JPEG", False, False),
        ("REJECTED", "the URL is not https", True, False),
        ("ARCHIVED", None, True, False),
    ],
)
def test_the_demo_checks_the_reason_of_a_rejection_and_the_quarantine(
    state: str, reason: str | None, kept: bool, is_correct: bool
) -> None:
    with Simulator() as simulator:
        task, stored = archived(simulator)
        (served,) = stored.values()
        key = "quarantine/flux-kontext/task12345/result-0"
        quarantine = {key: replace(served, key=key)} if kept else {}
        assert isinstance(task.item, dict)
        task.case = replace(CASE, rejected="not an image")
        task.item["status"] = "INCOMPLETE"
        url = task.item["images"][0]["url"]
        task.item["images"] = [{"kind": "result", "url": url, "state": state, "reason": reason}]
        problems = find_problems([task], simulator, Bucket({}, REQUESTS, {}, quarantine), dead_letters=0)
    assert (problems == []) is is_correct


def test_problems_are_printed_with_the_logs_folder_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "run", lambda *_: ["flux-kontext#task12345: FAILED instead of ARCHIVED"])
    assert run.main(tmp_path) == 1
    output = capsys.readouterr().out.replace("\n", "")
    assert "flux-kontext#task12345: FAILED instead of ARCHIVED" in output
    assert str(tmp_path / "logs") in output


@pytest.mark.parametrize(("width", "shows_scenario"), [(120, True), (100, True), (80, False)])
def test_the_table_fits_the_terminal(width: int, shows_scenario: bool) -> None:
    with Simulator() as simulator:
        task, _ = archived(simulator)
    rejected = {"kind": "result", "state": "REJECTED", "reason": "not an image: the bytes are no JPEG, PNG or WebP"}
    item = {"status": "INCOMPLETE", "reportedBy": "poll", "conflicts": [{}], "images": [rejected]}
    archived_late = {"archivedAt": "2026-01-31T12:00:47.700Z"}
    slow = DemoTask(
        Case(FLUX_KONTEXT, "task12346", "failure-without-id"), submitted_at=task.submitted_at, item=item | archived_late
    )
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(result_table([task, slow], width))
    text = captured.get()
    for text_part in ("result-0.any", "1.5 s", "48 s", "INCOMPLETE", "1 conflict", "result REJECTED: not", "task12346"):
        assert text_part in text
    assert ("success" in text) is shows_scenario
    assert ("failure-without-id" in text) is shows_scenario
    assert all(len(line) <= width for line in text.splitlines())


def test_a_task_without_a_final_status_has_no_duration() -> None:
    task = DemoTask(CASE, submitted_at=time.time(), item={"status": "PENDING", "updatedAt": "2026-01-31T12:00:00.000Z"})
    assert task.seconds is None

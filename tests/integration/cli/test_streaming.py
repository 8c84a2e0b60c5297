"""Commands print rows while they run, and stop when the program that reads their output closes the pipe."""

import io
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from catchlight.client import TasksClient
from catchlight.dispatch import Dispatcher
from catchlight.recovery.acceptance import Acceptance
from catchlight.recovery.redrive import Redrive
from catchlight.tasks.registration import Registry
from catchlight_cli.command_line import run
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.integration.providers import Providers
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, an_image
from tests.unit.cli.test_rows import Screen

HOUR = timedelta(hours=1)
PICTURE = b"\xff\xd8\xff the bytes of an image"


@pytest.fixture
def screen() -> Screen:
    return Screen()


def connect_to(api: TasksApiInMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TasksClient, "of", lambda _: api.client())


def catchlight(stdout: io.StringIO, *arguments: str) -> int:
    with redirect_stdout(stdout):
        return run([*arguments, "--stack-name", STACK_NAME])


def wait_before_call(
    monkeypatch: pytest.MonkeyPatch, cls: type, name: str, number: int, wait: Callable[[], None]
) -> None:
    """Calls `wait` before the given call of a method, counted from 1."""
    method, calls = getattr(cls, name), []

    def waiting(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            wait()
        return method(*arguments, **options)

    monkeypatch.setattr(cls, name, waiting)


# ------------------------------------------------------------------------------------------------ list


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_the_first_page_is_printed_before_the_second_is_requested(
    deployed: Deployed, screen: Screen, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    api = TasksApiInMemory([a_task(f"task{number:03}") for number in range(250)])
    connect_to(api, monkeypatch)
    printed = []
    api.before = lambda _: printed.append(screen.getvalue().count("/task" if format_ != "json" else '"taskId"'))

    assert catchlight(screen, "list", "--all", "--format", format_) == 0

    assert printed == [0, 20, 120, 220]  # the first page is a small one


@pytest.mark.parametrize("format_", ["table", "csv", "json"])
def test_a_closed_pipe_ends_a_listing_without_a_further_request(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    class Head(io.StringIO):
        def write(self, text: str) -> int:
            if "task" in self.getvalue():
                raise BrokenPipeError
            return super().write(text)

    api = TasksApiInMemory([a_task(f"task{number:03}") for number in range(1000)])
    connect_to(api, monkeypatch)

    with pytest.raises(BrokenPipeError):
        catchlight(Head(), "list", "--all", "--format", format_)

    assert len(api.requested_paths()) <= 2  # the page that the reader has read, and the one whose output failed


# ------------------------------------------------------------------------------------------------ other commands


def test_register_prints_each_task_when_it_is_registered(
    deployed: Deployed, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = TasksApiInMemory()
    connect_to(api, monkeypatch)

    def before(_: httpx.Request) -> None:
        if len(api.requested_paths("POST")) == 2:
            screen.wait_for("flux-kontext/task99")

    api.before = before
    assert catchlight(screen, "register", "flux-kontext", *(f"task{number}" for number in range(150))) == 0
    assert screen.getvalue().endswith("\n150 tasks registered, 0 already known.\n")


def test_download_prints_each_image_when_it_is_saved(
    deployed: Deployed, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {name: an_image(name, PICTURE) for name in ("first", "second")}
    tasks = [a_task(name, images=[image]) for name, image in images.items()]
    api = TasksApiInMemory(tasks, {image.key or "": PICTURE for image in images.values()})
    connect_to(api, monkeypatch)
    second_began = threading.Event()

    def before(request: httpx.Request) -> None:
        if request.url.path.endswith("second/result-0.jpg"):
            second_began.set()
            screen.wait_for("flux-kontext/first result-0")
        elif request.url.path.endswith("first/result-0.jpg"):
            assert second_began.wait(60)

    api.before = before
    assert catchlight(screen, "download") == 0
    lines = screen.getvalue().splitlines()
    assert lines[1].split() == [
        "flux-kontext/first",
        "result-0",
        "downloaded",
        str(Path("images", Path(lines[1]).name)),
    ]
    assert lines[-1].startswith("2 downloaded")


def test_redrive_prints_each_task_when_it_is_redriven(
    deployed: Deployed, providers: Providers, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        deployed.put(f"flux-kontext#{name}", "PENDING")
    wait_before_call(monkeypatch, Redrive, "redrive", 2, lambda: screen.wait_for("polling started"))

    assert catchlight(screen, "redrive", "flux-kontext/first", "flux-kontext/second") == 0

    assert [line.split()[0] for line in screen.getvalue().splitlines()[:3]] == [
        "Task",
        "flux-kontext/first",
        "flux-kontext/second",
    ]
    assert "2 tasks retried" in screen.getvalue()


def test_reconcile_prints_restarts_of_polling_before_it_queues_archiving(
    deployed: Deployed, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("acedata#stuck", "SUCCEEDED", 2 * HOUR)
    wait_before_call(monkeypatch, Dispatcher, "queue_archiving", 1, lambda: screen.wait_for("flux-kontext/lost"))

    assert catchlight(screen, "reconcile") == 0

    assert "acedata/stuck" in screen.getvalue()
    assert screen.getvalue().endswith("\nPolling of 1 task and archiving of 1 restarted.\n")


def test_import_prints_each_task_when_it_is_registered(
    deployed: Deployed, screen: Screen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = "".join(f"flux-kontext#task{number}\n" for number in range(12))
    (tmp_path / "tasks.txt").write_text(f"nonsense here\n{lines}")
    wait_before_call(monkeypatch, Registry, "register", 2, lambda: screen.wait_for("flux-kontext/task9"))

    assert catchlight(screen, "import", "tasks.txt", "--yes", "--skip-invalid", "--rate", "1000") == 1

    printed = screen.getvalue().splitlines()
    assert printed[0].startswith("✗ line 1: no provider")
    assert sum(line.endswith("registered") for line in printed) == 12


def test_accept_prints_each_task_when_it_is_processed(
    deployed: Deployed, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        deployed.put(f"flux-kontext#{name}", "ARCHIVED")
    wait_before_call(monkeypatch, Acceptance, "accept", 2, lambda: screen.wait_for("flux-kontext/first"))

    assert catchlight(screen, "accept", "flux-kontext/first", "flux-kontext/second") == 1
    assert screen.getvalue().endswith("\n0 tasks accepted, 2 refused.\n")


# ------------------------------------------------------------------------------------------------ malformed items


def test_malformed_items_are_listed_with_their_reasons_and_counted(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    api = TasksApiInMemory([a_task("task1")])
    api.unreadable = {"flux-kontext#by-hand": "images, request", "acedata#edited": "status"}
    connect_to(api, monkeypatch)

    assert catchlight(Screen(), "list") == 0

    assert capsys.readouterr().err.splitlines()[-3:] == [
        "Skipped flux-kontext/by-hand: its item in the table is malformed (images, request).",
        "Skipped acedata/edited: its item in the table is malformed (status).",
        "2 malformed items skipped. Correct them in the table.",
    ]

"""Every command: valid and invalid arguments, terminal widths, pipes, NO_COLOR, and Ctrl-C."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import httpx
import pytest

from catchlight.api.response_models import TaskResponse
from catchlight.client import TasksClient
from catchlight.client.stack import Stack, StackChoice
from catchlight.models import TaskStatus
from catchlight_cli.command_line import parser, run
from catchlight_cli.commands import COMMANDS
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.integration.providers import ACE_PATH, Providers, json_response
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, an_image

TASK_ID = "task-" + "0123456789_" * 8
TASK = f"flux-kontext/{TASK_ID}"
PICTURE = b"\xff\xd8\xff the bytes of an image"
REQUEST = '{"prompt": "a lighthouse"}'


class Example(NamedTuple):
    """Valid arguments of a command with the expected output, and invalid ones with a part of the error message."""

    valid: list[str]
    prints: str
    invalid: list[str]
    error: str
    status: int = 0


EXAMPLES = {
    "keys": Example(["list"], "flux-kontext", ["set", "flux"], "'flux' is not a provider; the providers are "),
    "outputs": Example([], "CallbackUrlPattern", ["--export", "--json"], "Use only one of them."),
    "submit": Example(
        ["flux-kontext", REQUEST], "Submitted flux-kontext/", ["flux-kontext", "{}"], "The request is empty."
    ),
    "register": Example(["flux-kontext", TASK_ID], TASK, ["flux-kontext", "a b"], "'a b' is not a task id"),
    "get": Example([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "wait": Example([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "list": Example([], TASK, ["--status", "done"], "(choose from 'PENDING'"),
    "download": Example(
        [TASK], "The saved images are in images", ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."
    ),
    "gallery": Example([], "http://127.0.0.1:", ["--port", "70000"], "'70000' is not a port from 0 to 65535"),
    "status": Example([], "ARCHIVED", ["--since", "1y"], "'1y' is not a duration; valid durations are "),
    "describe": Example([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "doctor": Example([], "No check failed.", ["--samples", "0"], "'0' is not a whole number above 0"),
    "redrive": Example([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "accept": Example([TASK, "--dry-run"], TASK, ["flux-kontext/"], "'' is not a task id", status=1),
    "reconcile": Example([], "No task in", ["--older-than", "7"], "'7' is not a duration; valid durations are "),
    "replay": Example([], "There are no kept deliveries", ["--provider", "flux"], "'flux' is not a provider"),
    "import": Example(["tasks.csv"], "would be registered", ["missing.csv"], "There is no file missing.csv."),
    "resend-events": Example(
        [], "PublishDeadLetters and WebhookDeadLetters are empty", ["--limit", "x"], "'x' is not a whole number above 0"
    ),
}
NAMES = [command.name for command in COMMANDS]


@pytest.fixture
def stack(deployed: Deployed, providers: Providers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deployed:
    """A stack with an archived task, whose commands reach a tasks API."""
    providers.answers |= {
        "/api/v1/chat/credit": json_response({"code": 200, "msg": "success", "data": 35.95}),
        "/api/v1/common/credit": json_response({"code": 200, "msg": "success", "data": 7}),
        ACE_PATH: json_response({}),
    }
    image = an_image(TASK_ID, PICTURE)
    api = TasksApiInMemory([a_task(TASK_ID, images=[image])], {image.key or "": PICTURE})
    monkeypatch.setattr(TasksClient, "of", lambda _: api.client())
    # The gallery runs until Ctrl-C; here it is interrupted immediately.
    monkeypatch.setattr("catchlight_cli.commands.gallery.wait_for_interruption", _interrupt)
    monkeypatch.setattr("catchlight_cli.commands.doctor.check_endpoint", lambda *_, **__: ([], None))
    deployed.put(f"flux-kontext#{TASK_ID}", "ARCHIVED")
    (tmp_path / "tasks.csv").write_text("task\nflux-kontext#new1\n")
    return deployed


def _interrupt() -> None:
    raise KeyboardInterrupt


def catchlight(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Returns exit status, stdout and stderr."""
    try:
        status = run([*arguments, "--stack-name", STACK_NAME])
    except SystemExit as exc:
        status = int(str(exc.code))
    output = capsys.readouterr()
    return status, output.out, output.err


def test_every_command_has_examples() -> None:
    assert list(EXAMPLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_valid_arguments_print_the_expected_text(
    name: str, stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids are not wrapped in any width; pipes get no colours; all commands print tasks and times in the same format."""
    example = EXAMPLES[name]
    for width in ("60", "120", None):
        if width is None:
            monkeypatch.delenv("COLUMNS")
        else:
            monkeypatch.setenv("COLUMNS", width)
        status, out, err = catchlight(capsys, name, *example.valid)
        assert status == example.status, (width, out, err)
        assert example.prints in out, (width, out)
        assert "\x1b" not in out + err
        assert "Traceback" not in err
        assert "flux-kontext#" not in out
        for found in re.findall(r"\d{4}-\d\d-\d\d.\d\d:\d\d[^\s,]*(?: [^\s,]+)?", out):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", found), found


@pytest.mark.parametrize("name", NAMES)
def test_invalid_arguments_print_one_error(name: str, stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """The error message names the invalid argument."""
    status, _, err = catchlight(capsys, name, *EXAMPLES[name].invalid)
    assert status in (1, 2)
    assert err.count("error:") == 1
    assert EXAMPLES[name].error in err


@pytest.mark.parametrize("name", NAMES)
def test_no_color_disables_colours(
    name: str, stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, err = catchlight(capsys, name, *EXAMPLES[name].valid)
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|38;|9[0-7])[\d;]*m", out + err)


@pytest.mark.parametrize("name", NAMES)
def test_ctrl_c_ends_every_command_with_an_error_message(
    name: str, stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: StackChoice) -> Stack:
        raise KeyboardInterrupt

    monkeypatch.setattr(StackChoice, "find", interrupt)
    status, out, err = catchlight(capsys, name, *EXAMPLES[name].valid)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "error: interrupted; changes made so far remain, and the command can be repeated."


# ------------------------------------------------------------------------------------------------ as processes


@pytest.fixture
def endless_listing(tmp_path: Path) -> list[str]:
    """Returns the command of a program whose `list` prints pages of tasks without end, with a letter outside of ASCII.

    With $WAITS, the second page never arrives, and the request for it is repeated after an OSError.
    """
    script = tmp_path / "endless.py"
    script.write_text(
        "import itertools, os, sys, time\n"
        "from types import SimpleNamespace\n"
        "from catchlight.client import TasksClient\n"
        "from catchlight.client.stack import StackChoice\n"
        "from catchlight.api.response_models import TaskPage\n"
        "from tests.tasks_api_in_memory import a_task\n"
        "class Stack:\n"
        "    def __str__(self): return 'the endless stack'\n"
        "    def close(self): pass\n"
        "class Api:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *_): pass\n"
        "    def pages(self, limit=None, **_):\n"
        "        for number in range(1) if limit else itertools.count():\n"
        "            yield TaskPage(tasks=tuple(a_task(f't\\xe4sk{number}-{each}') for each in range(10)))\n"
        "            while os.environ.get('WAITS'):\n"
        "                try:\n"
        "                    sys.stderr.write('waiting\\n')\n"
        "                    time.sleep(600)\n"
        "                except OSError: pass\n"
        "StackChoice.find = lambda _: Stack()\n"
        "TasksClient.of = lambda _: Api()\n"
        "from catchlight_cli.__main__ import main\n"
        "sys.exit(main())\n"
    )
    root = Path(__file__).parents[3]
    paths = [str(root), str(root / "cli"), str(root / "layers" / "catchlight" / "python")]
    return [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; exec(open({str(script)!r}).read())"]


FORMATS = ("table", "csv", "json")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_closed_pipe_ends_a_listing_without_an_error(endless_listing: list[str], format_: str) -> None:
    with subprocess.Popen(
        [*endless_listing, "list", "--all", "--format", format_], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout
        assert listing.stderr
        assert listing.stdout.read(200)
        listing.stdout.close()  # as head does
        stderr = listing.stderr.read().decode()
        assert listing.wait(60) == 1
    assert stderr.startswith("Using the endless stack.\n")
    assert "error" not in stderr
    assert "Traceback" not in stderr


@pytest.mark.skipif(not hasattr(select, "poll"), reason="this platform has no select.poll")
@pytest.mark.parametrize("format_", FORMATS)
def test_a_closed_pipe_ends_a_listing_that_waits_for_a_page(endless_listing: list[str], format_: str) -> None:
    with subprocess.Popen(
        [*endless_listing, "list", "--all", "--format", format_],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "WAITS": "1"},
    ) as listing:
        assert listing.stdout
        assert listing.stderr
        assert listing.stderr.readline() == b"Using the endless stack.\n"
        assert listing.stderr.readline() == b"waiting\n"
        listing.stdout.close()  # as head does
        try:
            assert listing.wait(60) == 1
        finally:
            listing.kill()
        assert listing.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full does not exist")
@pytest.mark.parametrize("arguments", [["list", "--all"], ["list", "--all", "--json"]])
def test_a_full_disk_is_an_error(endless_listing: list[str], arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [*endless_listing, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert process.returncode == 1
    assert process.stderr.endswith("error: The output cannot be written: No space left on device.\n")
    assert "Traceback" not in process.stderr


def test_ctrl_c_ends_a_listing(endless_listing: list[str]) -> None:
    with subprocess.Popen(
        [*endless_listing, "list", "--all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout
        assert listing.stderr
        listing.stdout.read(200)
        listing.send_signal(signal.SIGINT)
        listing.stdout.read()
        stderr = listing.stderr.read().decode()
        assert listing.wait(60) == 130
    assert "Traceback" not in stderr
    assert stderr.endswith("error: interrupted; changes made so far remain, and the command can be repeated.\n")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [(["--help"], b"usage: catchlight"), (["list", "--limit", "3"], b"flux-kontext/t?sk0-0")],
)
def test_characters_that_the_encoding_of_stdout_lacks_are_replaced(
    endless_listing: list[str], arguments: list[str], printed: bytes
) -> None:
    """Encodings that lack some characters occur on Windows."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    process = subprocess.run([*endless_listing, *arguments], capture_output=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    assert printed in process.stdout
    assert b"Traceback" not in process.stderr


# ------------------------------------------------------------------------------------------------ no effect


def test_a_command_without_effect_prints_the_reason(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = TasksApiInMemory()
    monkeypatch.setattr(TasksClient, "of", lambda _: empty.client())
    (tmp_path / "nothing.csv").write_text("task\n")
    (tmp_path / "known.csv").write_text(f"task\nflux-kontext#{TASK_ID}\n")
    for arguments, message in (
        (["list"], "No task matches."),
        (["list", "--format", "csv"], "No task matches."),
        (["download"], "No image was saved"),
        (["import", "nothing.csv", "--yes"], "The file lists no task: nothing was registered."),
        (["import", "known.csv", "--yes"], "Nothing was registered: every task is in the table already."),
        (["keys", "remove", "nanobanana", "--webhook-key"], "nanobanana has no webhook key: nothing was removed."),
    ):
        status, out, err = catchlight(capsys, *arguments)
        assert (status, message in out + err) == (0, True), (arguments, out, err)


def test_an_invalid_choice_lists_the_valid_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, choices in (
        (["redrive", "--kind", "expired"], "archive-dead-letters"),
        (["download", "--kind", "both"], "result"),
        (["list", "--format", "xml"], "csv"),
        (["nothing"], "resend-events"),
        (["--completion", "powershell"], "fish"),
    ):
        with pytest.raises(SystemExit, match="2"):
            parser().parse_args(arguments)
        error = capsys.readouterr().err
        assert f"invalid choice: '{arguments[-1]}' (choose from" in error
        assert choices in error


@pytest.mark.parametrize(
    ("request_text", "error"),
    [
        ("{}", "The request is empty."),
        ("[1]", "The request is an array and not a JSON object"),
        ("3", "The request is a number and not a JSON object"),
        ("{prompt: x}", "The request is not valid JSON"),
    ],
)
def test_an_invalid_request_is_described_in_the_error(
    request_text: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", "flux-kontext", request_text]) == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")


# ------------------------------------------------------------------------------------------------ status --watch


def test_ctrl_c_ends_status_watch(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("catchlight_cli.commands.status.time", SimpleNamespace(sleep=sleep))
    status, out, err = catchlight(capsys, "status", "--watch", "2", "--json")
    assert (status, pauses) == (0, [2.0, 2.0, 2.0])
    states = [json.loads(line) for line in out.splitlines()]
    assert [state["tasks"]["byStatus"]["ARCHIVED"] for state in states] == [1, 1, 1]
    assert "interrupted" not in err


# ------------------------------------------------------------------------------------------------ progress


def test_without_a_terminal_progress_is_printed_as_lines(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catchlight_cli.output._FIRST_LINE_SECONDS", 0.05)
    api = TasksApiInMemory([a_task(TASK_ID), a_task("second")])
    monkeypatch.setattr(TasksClient, "of", lambda _: api.client())

    def delay(request: httpx.Request) -> None:
        time.sleep(0.3)

    api.before = delay
    _, out, err = catchlight(capsys, "wait", TASK, "flux-kontext/second")
    assert "Waiting: 0 of 2, " in err
    assert "Waiting" not in out


def test_rows_are_printed_while_the_command_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from catchlight_cli.output import Output

    monkeypatch.setattr("catchlight_cli.output._PAGE_SECONDS", 0)
    output, printed = Output(), []

    def rows() -> Generator[str, None, None]:
        for text in ("one", "two words", "three"):
            yield text
            printed.append(capsys.readouterr().out)

    assert output.show_rows(rows(), lambda text: [text], "Text") == ("one", "two words", "three")
    assert [text.split() for text in printed] == [["Text", "one"], ["two", "words"], ["three"]]


def test_printed_times_are_local_with_utc_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    from catchlight_cli.output import format_time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert format_time(datetime(2026, 11, 28, 18, 45, tzinfo=UTC)) == "2026-11-29 00:15:00 +0530"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_json_output_has_times_in_utc(stack: Deployed) -> None:
    (task,) = stack.run("get", TASK)["tasks"]
    assert TaskResponse.model_validate(task).status is TaskStatus.ARCHIVED
    assert task["arrivedAt"].endswith(("Z", "+00:00"))

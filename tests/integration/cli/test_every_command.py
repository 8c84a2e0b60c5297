"""Every command with valid and invalid input, in narrow and wide terminals, piped, without colours, and interrupted."""

import json
import re
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

from catchlight.api.schemas import TaskResponse
from catchlight.client import TasksClient
from catchlight.client.stack import Stack, StackChoice
from catchlight.models import TaskStatus
from catchlight_cli.command_line import parser, run
from catchlight_cli.commands import COMMANDS
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.integration.providers import ACE_PATH, Providers, saying
from tests.tasks_api_in_memory import TasksApiInMemory, a_task, an_image

TASK_ID = "task-" + "0123456789_" * 8
TASK = f"flux-kontext/{TASK_ID}"
PICTURE = b"\xff\xd8\xff the bytes of an image"
REQUEST = '{"prompt": "a lighthouse"}'


class Use(NamedTuple):
    """Valid arguments of a command, what it prints then, invalid arguments, and a part of the error message."""

    valid: list[str]
    prints: str
    invalid: list[str]
    error: str
    status: int = 0


USES = {
    "keys": Use(["list"], "flux-kontext", ["set", "flux"], "'flux' is not a provider; the providers are "),
    "outputs": Use([], "CallbackUrlPattern", ["--export", "--json"], "Use only one of them."),
    "submit": Use(
        ["flux-kontext", REQUEST], "Submitted flux-kontext/", ["flux-kontext", "{}"], "The request is empty."
    ),
    "register": Use(["flux-kontext", TASK_ID], TASK, ["flux-kontext", "a b"], "'a b' is not a task id"),
    "get": Use([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "wait": Use([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "list": Use([], TASK, ["--status", "done"], "(choose from 'PENDING'"),
    "download": Use(
        [TASK], "The saved images are in images", ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."
    ),
    "gallery": Use([], "http://127.0.0.1:", ["--port", "70000"], "'70000' is not a port from 0 to 65535"),
    "status": Use([], "ARCHIVED", ["--since", "1y"], "'1y' is not a duration; valid durations are "),
    "describe": Use([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "doctor": Use([], "No check failed.", ["--samples", "0"], "'0' is not a whole number above 0"),
    "redrive": Use([TASK], TASK, ["flux-kontext/unknown"], "There is no task flux-kontext/unknown."),
    "accept": Use([TASK, "--dry-run"], TASK, ["flux-kontext/"], "'' is not a task id", status=1),
    "reconcile": Use([], "No task in", ["--older-than", "7"], "'7' is not a duration; valid durations are "),
    "replay": Use([], "There are no kept deliveries", ["--provider", "flux"], "'flux' is not a provider"),
    "import": Use(["tasks.csv"], "would be registered", ["missing.csv"], "There is no file missing.csv."),
    "resend-events": Use(
        [], "PublishDeadLetters and WebhookDeadLetters are empty", ["--limit", "x"], "'x' is not a whole number above 0"
    ),
}
NAMES = [command.name for command in COMMANDS]


@pytest.fixture
def stack(deployed: Deployed, providers: Providers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Deployed:
    """A stack with an archived task, whose commands reach a tasks API."""
    providers.answers |= {
        "/api/v1/chat/credit": saying({"code": 200, "msg": "success", "data": 35.95}),
        "/api/v1/common/credit": saying({"code": 200, "msg": "success", "data": 7}),
        ACE_PATH: saying({}),
    }
    image = an_image(TASK_ID, PICTURE)
    api = TasksApiInMemory([a_task(TASK_ID, images=[image])], {image.key or "": PICTURE})
    monkeypatch.setattr(TasksClient, "of", lambda _: api.client())
    # The gallery is served until Ctrl-C, which comes at once here.
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


def test_every_command_is_here() -> None:
    assert list(USES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_valid_input(
    name: str, stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids stay whole in any width; a pipe gets no colours; tasks and times are spelled in one way."""
    use = USES[name]
    for width in ("60", "120", None):
        if width is None:
            monkeypatch.delenv("COLUMNS")
        else:
            monkeypatch.setenv("COLUMNS", width)
        status, out, err = catchlight(capsys, name, *use.valid)
        assert status == use.status, (width, out, err)
        assert use.prints in out, (width, out)
        assert "\x1b" not in out + err
        assert "Traceback" not in err
        assert "flux-kontext#" not in out
        for found in re.findall(r"\d{4}-\d\d-\d\d.\d\d:\d\d[^\s,]*(?: [^\s,]+)?", out):
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", found), found


@pytest.mark.parametrize("name", NAMES)
def test_invalid_input(name: str, stack: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the input, once, and nothing is done."""
    status, _, err = catchlight(capsys, name, *USES[name].invalid)
    assert status in (1, 2)
    assert err.count("error:") == 1
    assert USES[name].error in err


@pytest.mark.parametrize("name", NAMES)
def test_without_colours(
    name: str, stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("NO_COLOR", "1")
    _, out, err = catchlight(capsys, name, *USES[name].valid)
    assert not re.search(r"\x1b\[[\d;]*(3[0-7]|38;|9[0-7])[\d;]*m", out + err)


@pytest.mark.parametrize("name", NAMES)
def test_interrupted(
    name: str, stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: StackChoice) -> Stack:
        raise KeyboardInterrupt

    monkeypatch.setattr(StackChoice, "find", interrupted)
    status, out, err = catchlight(capsys, name, *USES[name].valid)
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "error: interrupted; changes made so far remain, and the command can be repeated."


# ------------------------------------------------------------------------------------------------ as processes


@pytest.fixture
def server(tmp_path: Path) -> list[str]:
    """Returns the arguments of a program whose `list` never ends: a page of tasks, then the next one, and so on."""
    script = tmp_path / "endless.py"
    script.write_text(
        "import itertools, sys\n"
        "from types import SimpleNamespace\n"
        "from catchlight.client import TasksClient\n"
        "from catchlight.client.stack import StackChoice\n"
        "from catchlight.api.schemas import TaskPage\n"
        "from tests.tasks_api_in_memory import a_task\n"
        "class Stack:\n"
        "    def __str__(self): return 'the endless stack'\n"
        "    def close(self): pass\n"
        "class Api:\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *_): pass\n"
        "    def pages(self, limit=None, **_):\n"
        "        for number in range(1) if limit else itertools.count():\n"
        "            yield TaskPage(tasks=tuple(a_task(f'task{number}-{each}') for each in range(100)))\n"
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
def test_head_ends_a_listing(server: list[str], format_: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*server, "list", "--all", "--format", format_], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as listing:
        assert listing.stdout
        assert listing.stderr
        assert listing.stdout.read(200)
        listing.stdout.close()  # as head does
        said = listing.stderr.read().decode()
        assert listing.wait(60) == 1
    assert said.startswith("Using the endless stack.\n")
    assert "error" not in said
    assert "Traceback" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["list", "--all"], ["list", "--all", "--json"]])
def test_a_full_disk_is_an_error(server: list[str], arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*server, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("error: The output cannot be written: No space left on device.\n")
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_listing(server: list[str]) -> None:
    with subprocess.Popen([*server, "list", "--all"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout
        assert listing.stderr
        listing.stdout.read(200)
        listing.send_signal(signal.SIGINT)
        listing.stdout.read()
        said = listing.stderr.read().decode()
        assert listing.wait(60) == 130
    assert "Traceback" not in said
    assert said.endswith("error: interrupted; changes made so far remain, and the command can be repeated.\n")


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--limit", "3"]])
def test_an_encoding_without_the_characters(server: list[str], arguments: list[str]) -> None:
    """As on Windows: characters that the encoding does not have are replaced."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*server, *arguments], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------ nothing done


def test_a_command_that_does_nothing_says_so(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = TasksApiInMemory()
    monkeypatch.setattr(TasksClient, "of", lambda _: empty.client())
    (tmp_path / "nothing.csv").write_text("task\n")
    (tmp_path / "known.csv").write_text(f"task\nflux-kontext#{TASK_ID}\n")
    for arguments, says in (
        (["list"], "No task matches."),
        (["list", "--format", "csv"], "No task matches."),
        (["download"], "No image was saved"),
        (["import", "nothing.csv", "--yes"], "The file lists no task: nothing was registered."),
        (["import", "known.csv", "--yes"], "Nothing was registered: every task is in the table already."),
        (["keys", "remove", "nanobanana", "--webhook-key"], "nanobanana has no webhook key: nothing was removed."),
    ):
        status, out, err = catchlight(capsys, *arguments)
        assert (status, says in out + err) == (0, True), (arguments, out, err)


def test_a_wrong_choice_lists_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
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
def test_an_error_names_the_fault_of_the_request(
    request_text: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["submit", "flux-kontext", request_text]) == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")


# ------------------------------------------------------------------------------------------------ status --watch


def test_watching_the_status_ends_with_ctrl_c(
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


def test_progress_is_lines_where_no_terminal_is(
    stack: Deployed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catchlight_cli.output._FIRST_LINE_SECONDS", 0.05)
    api = TasksApiInMemory([a_task(TASK_ID), a_task("second")])
    monkeypatch.setattr(TasksClient, "of", lambda _: api.client())

    def slowly(request: httpx.Request) -> None:
        time.sleep(0.3)

    api.before = slowly
    _, out, err = catchlight(capsys, "wait", TASK, "flux-kontext/second")
    assert "Waiting: 0 of 2, " in err
    assert "Waiting" not in out


def test_rows_are_printed_while_the_command_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from catchlight_cli.output import Output

    monkeypatch.setattr("catchlight_cli.output._PAGE_SECONDS", 0)
    output, seen = Output(), []

    def rows() -> Generator[str, None, None]:
        for text in ("one", "two words", "three"):
            yield text
            seen.append(capsys.readouterr().out)

    assert output.show_rows(rows(), lambda text: [text], "Text") == ("one", "two words", "three")
    assert [text.split() for text in seen] == [["Text", "one"], ["two", "words"], ["three"]]


def test_times_are_local_with_their_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    from catchlight_cli.output import format_time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert format_time(datetime(2026, 11, 28, 18, 45, tzinfo=UTC)) == "2026-11-29 00:15:00 +0530"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_json_has_times_in_utc(stack: Deployed) -> None:
    (task,) = stack.run("get", TASK)["tasks"]
    assert TaskResponse.model_validate(task).status is TaskStatus.ARCHIVED
    assert task["arrivedAt"].endswith(("Z", "+00:00"))

"""The local stack with the project's template, as a program and as a library. More: tests/e2e/test_local_up.py."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from catchlight.client.errors import CatchlightError, UsageError
from catchlight.client.stack import find_local
from local import REPOSITORY, LocalStackError
from local.__main__ import _parser, _up, main
from local.artefact import Artefact
from local.http.api import HttpApi
from local.lambda_.logs import LogFolder
from local.moto.server import MotoServer
from tests.integration.local.running_example import EXAMPLE
from tests.waiting import TIMEOUT_SECONDS, eventually


def is_running(pid: int) -> bool:
    """Returns whether a process is running; a zombie is not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def children(pid: int) -> list[int]:
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in table.splitlines() if int(line.split()[1]) == pid]


Up = tuple[subprocess.Popen[str], dict[str, Any], Path]


def command(state_dir: Path, *arguments: str) -> list[str]:
    fixed = ["--port", "0", "--state-dir", str(state_dir), "--no-simulator"]
    return [sys.executable, "-m", "local", "up", *fixed, *arguments]


@contextmanager
def started(state_dir: Path, artefact: Artefact | None) -> Iterator[Up]:
    """Runs `python -m local up`. Yields its process, the content of stack.json and its path when the stack is ready."""
    options = ["--built"] if artefact else []
    with subprocess.Popen(
        command(state_dir, *options),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        path = state_dir / "stack.json"
        try:
            # The existence of stack.json is not enough: a killed stack may have left one.
            eventually(lambda: process.poll() is not None or is_running_in(state_dir))
            yield process, json.loads(path.read_text()), path
        finally:
            process.kill()


def is_running_in(state_dir: Path) -> bool:
    try:
        find_local(state_dir)
    except CatchlightError:
        return False
    return True


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None) -> Iterator[tuple[Up, list[int]]]:
    """A stack that was killed, and the processes of its sandboxes."""
    with started(tmp_path_factory.mktemp("killed"), artefact) as up:
        process, _, _ = up
        pids = sandboxes(process)
        process.kill()
        process.wait(TIMEOUT_SECONDS)
        yield up, pids


def sandboxes(process: subprocess.Popen[str]) -> list[int]:
    """Waits for one warm sandbox of each function with a route or a stream. Returns their process ids."""
    functions = ("ReceiveCallback", "ServeTasksApi", "DispatchChanges", "PublishEvents")
    found: list[int] = eventually(lambda: len(pids := children(process.pid)) == len(functions) and pids)
    return found


def test_the_sandboxes_of_a_killed_stack_end(killed: tuple[Up, list[int]]) -> None:
    _, pids = killed

    eventually(lambda: not any(is_running(pid) for pid in pids))


def test_a_stack_starts_in_the_folder_of_a_killed_one_and_sigterm_ends_all_its_processes(
    killed: tuple[Up, list[int]], artefact: Artefact | None
) -> None:
    (_, info, path), _ = killed
    assert json.loads(path.read_text()) == info
    with pytest.raises(UsageError, match="is not running"):
        find_local(path.parent)

    with started(path.parent, artefact) as (process, following, _):
        pids = sandboxes(process)
        assert following["aws_endpoint_url"] != info["aws_endpoint_url"]
        assert httpx.post(following["api_url"], trust_env=False).status_code == 404

        process.terminate()

        assert process.wait(TIMEOUT_SECONDS) == 0
    assert not any(is_running(pid) for pid in pids)
    assert not path.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(following["api_url"], trust_env=False)


def test_an_invalid_parameter_is_an_error(tmp_path: Path) -> None:
    arguments = command(tmp_path, "--parameter", "PollIntervalSeconds=0")
    done = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)

    assert done.returncode == 1
    assert "PollIntervalSeconds: '0' is not a number from 1" in done.stderr
    assert not (tmp_path / "stack.json").exists()


def test_an_unknown_provider_is_an_error() -> None:
    options = _parser().parse_args(["up", "--provider-url", "other=http://host"])

    with pytest.raises(LocalStackError, match=r"unknown provider other\. Choose from acedata, apikley"):
        _up(options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--provider-url", "nonsense"], "'nonsense' is not PROVIDER=URL"),
        (["--allow-image-host", "host"], "'host' is not HOST:PORT"),
        (["--provider-url", "acedata=host"], "'acedata=host' is not PROVIDER=URL"),
        (["--time-scale", "0"], "'0' is not a number above 0"),
        (["--webhook-url", "http://hooks.example.com/"], "is neither an https URL nor http://127.0.0.1:PORT/PATH"),
        (["--webhook-url", "127.0.0.1:8000"], "is neither an https URL nor http://127.0.0.1:PORT/PATH"),
    ],
)
def test_an_invalid_option_is_an_error(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["up", *arguments])

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_the_error_for_a_port_of_an_api_that_is_in_use_names_its_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalStackError, match=f"Port {port} is in use. Choose another with --port"):
            HttpApi(port, LogFolder(tmp_path))


def test_the_error_for_a_port_of_the_aws_endpoint_that_is_in_use_names_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(LocalStackError, match="--aws-port"):
        MotoServer(server.getsockname()[1])


def run(script: str, *arguments: Path) -> list[str]:
    """Runs a program in its own process, because the example runs in this one. Returns the lines that it prints."""
    path = os.pathsep.join(
        [str(REPOSITORY), str(REPOSITORY / "cli"), str(REPOSITORY / "layers" / "catchlight" / "python")]
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_stack_can_be_started_again_and_is_then_empty(tmp_path: Path) -> None:
    lines = run(
        """
        import sys, threading
        from pathlib import Path
        from local import LocalStackError
        from local.stack import LocalStack

        state_dir, template = map(Path, sys.argv[1:])
        def stack():
            parameters = {"NotesFolder": str(state_dir)}
            return LocalStack(template=template, state_dir=state_dir, simulator=False, parameters=parameters)
        for _ in range(2):
            with stack() as running:
                s3, bucket = running.boto3_client("s3"), running.resources["ImagesBucket"].ref
                print(s3.list_objects_v2(Bucket=bucket)["KeyCount"], running.resources["Table"].ref)
                s3.put_object(Bucket=bucket, Key="x", Body=b"x")
                try:
                    stack().__enter__()
                except LocalStackError:
                    print("refused")
            print([thread.name for thread in threading.enumerate() if not thread.daemon])
        """,
        tmp_path,
        EXAMPLE,
    )

    assert lines == ["0 catchlight-Table", "refused", "['MainThread']"] * 2

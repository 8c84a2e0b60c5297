"""The project's own template on this machine, as a program and as a library."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from catchlight.client.errors import UsageError
from catchlight.client.stack import find_local
from catchlight.providers import PROVIDERS
from local import REPOSITORY, LocalStackError
from local.artefact import Artefact
from local.moto.server import MotoServer
from local.template.expand import load_template
from tests.integration.local.running_example import EXAMPLE, PATIENCE_SECONDS, eventually


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


@pytest.fixture
def up(tmp_path: Path, artefact: Artefact | None) -> Iterator[Up]:
    """`python -m local up`, ready: its process, the content of stack.json, and its path."""
    options = ["--built"] if artefact else []
    with subprocess.Popen(command(tmp_path, *options), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        path = tmp_path / "stack.json"
        eventually(lambda: path.exists() or process.poll() is not None)
        yield process, json.loads(path.read_text()), path
        process.kill()


def sandboxes(process: subprocess.Popen[str]) -> list[int]:
    """One warm sandbox for each function."""
    functions = load_template(REPOSITORY / "template.yaml", {}).of_type("AWS::Lambda::Function")
    found: list[int] = eventually(lambda: len(pids := children(process.pid)) == len(functions) and pids)
    return found


def test_up_prints_all_addresses_and_ends_with_ctrl_c(up: Up) -> None:
    process, info, _ = up

    assert set(info) == {
        *("api_url", "aws_endpoint_url", "region", "table", "bucket", "archive_queue_url", "archive_dlq_url"),
        *(
            "tasks_api_url",
            "gallery_url",
            "state_machine_arn",
            "callback_urls",
            "simulator_url",
            "resources",
            "parameters",
        ),
        "built",
    }
    assert set(info["callback_urls"]) == set(PROVIDERS)
    assert info["simulator_url"] is None
    assert process.stdout
    output = "".join(iter(process.stdout.readline, "Ready. Ctrl-C ends everything.\n"))
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert info["api_url"] in output
    assert info["callback_urls"]["flux-kontext"] in output


def test_sigterm_ends_everything(up: Up) -> None:
    process, info, path = up
    pids = sandboxes(process)
    assert httpx.post(info["api_url"], trust_env=False).status_code == 404

    process.terminate()

    assert process.wait(PATIENCE_SECONDS) == 0
    assert not any(is_running(pid) for pid in pids)
    assert not path.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(info["api_url"], trust_env=False)


def test_no_sandbox_outlives_a_killed_stack(up: Up) -> None:
    process, _, _ = up
    pids = sandboxes(process)

    process.kill()
    process.wait(PATIENCE_SECONDS)

    eventually(lambda: not any(is_running(pid) for pid in pids))


def test_a_second_stack_does_not_touch_the_first(up: Up, tmp_path_factory: pytest.TempPathFactory) -> None:
    process, info, path = up
    log = path.parent / "logs" / "first.log"
    log.write_text("a line\n")
    before = path.read_text()

    def second(state_dir: Path, port: int) -> str:
        arguments = command(state_dir, "--port", str(port))
        done = subprocess.run(
            arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        return done.stderr

    said = second(path.parent, 0)
    assert f"process {process.pid}, API {info['api_url']}, AWS endpoint {info['aws_endpoint_url']}" in said
    # A folder of its own: refused for the port, and not for the folder.
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    taken = urlsplit(info["api_url"]).port
    assert taken
    assert f"Port {taken} is in use. Choose another with --port" in second(elsewhere, taken)
    assert not (elsewhere / "stack.json").exists()

    assert path.read_text() == before
    assert log.read_text() == "a line\n"
    assert find_local(path.parent).api_url == info["api_url"]


def test_a_stack_starts_after_another_one_was_killed(up: Up) -> None:
    process, info, path = up
    process.kill()
    process.wait(PATIENCE_SECONDS)
    assert json.loads(path.read_text()) == info
    with pytest.raises(UsageError, match="is not running"):
        find_local(path.parent)

    with subprocess.Popen(command(path.parent), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as following:
        try:
            assert following.stdout
            assert "Ready. Ctrl-C ends everything.\n" in iter(following.stdout.readline, "")
            assert find_local(path.parent).endpoint_url != info["aws_endpoint_url"]
        finally:
            following.kill()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--parameter", "PollIntervalSeconds=0"], 1, "PollIntervalSeconds: '0' is not a number from 1"),
        (["--provider-url", "nonsense"], 2, "'nonsense' is not PROVIDER=URL"),
        (["--allow-image-host", "host"], 2, "'host' is not HOST:PORT"),
        (["--provider-url", "acedata=host"], 2, "'acedata=host' is not PROVIDER=URL"),
        (["--provider-url", "other=http://host"], 1, "unknown provider other. Choose from acedata, apikley"),
        (["--time-scale", "0"], 2, "'0' is not a number above 0"),
    ],
)
def test_an_invalid_option_is_an_error(arguments: list[str], status: int, message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, *arguments), cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )

    assert done.returncode == status
    assert message in done.stderr
    assert not (tmp_path / "stack.json").exists()


def test_a_taken_port_of_the_aws_endpoint_names_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LocalStackError, match="--aws-port"):
        MotoServer(taken.getsockname()[1])


def run(script: str, *arguments: Path) -> list[str]:
    """Returns the lines that a program prints in its own process, because this process runs the example."""
    path = os.pathsep.join(
        [str(REPOSITORY), str(REPOSITORY / "cli"), str(REPOSITORY / "layers" / "catchlight" / "python")]
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_stack_can_start_again_and_keeps_no_state(tmp_path: Path) -> None:
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
                    stack().start()
                except LocalStackError:
                    print("refused")
            print([thread.name for thread in threading.enumerate() if not thread.daemon])
        """,
        tmp_path,
        EXAMPLE,
    )

    assert lines == ["0 catchlight-Table", "refused", "['MainThread']"] * 2

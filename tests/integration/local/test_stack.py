"""The project's own template on this machine, as a program and as a library."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from image_tasks.providers import PROVIDERS
from local import LocalStackError
from local.__main__ import main
from local.stack import REPOSITORY, LocalStack
from tests.integration.local.running_example import EXAMPLE, eventually


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and waits for its parent to notice is none."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def children(pid: int) -> list[int]:
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(line.split()[0]) for line in table.splitlines() if int(line.split()[1]) == pid]


@pytest.fixture
def up(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], Path]]:
    """`python -m local up`, ready."""
    command = [sys.executable, "-m", "local", "up", "--port", "0", "--state-dir", str(tmp_path), "--no-simulator"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        path = tmp_path / "stack.json"
        eventually(lambda: path.exists() or process.poll() is not None, 30)
        yield process, json.loads(path.read_text()), path
        process.kill()


def test_it_tells_where_everything_is(up: tuple[subprocess.Popen[str], dict[str, Any], Path]) -> None:
    process, info, _ = up

    assert set(info) == {
        *("api_url", "aws_endpoint_url", "region", "table", "bucket", "archive_queue_url", "archive_dlq_url"),
        *("state_machine_arn", "callback_urls", "simulator_url"),
    }
    assert set(info["callback_urls"]) == set(PROVIDERS)
    assert info["simulator_url"] is None
    process.terminate()
    output, _ = process.communicate(timeout=20)
    assert info["api_url"] in output
    assert info["callback_urls"]["flux-kontext"] in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_everything(
    up: tuple[subprocess.Popen[str], dict[str, Any], Path], number: signal.Signals
) -> None:
    process, info, path = up
    sandboxes = eventually(lambda: len(found := children(process.pid)) == 4 and found)

    process.send_signal(number)

    assert process.wait(20) == 0
    assert not any(is_running(pid) for pid in sandboxes)
    assert not path.exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(info["api_url"], trust_env=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_no_sandbox_outlives_a_killed_stack(up: tuple[subprocess.Popen[str], dict[str, Any], Path]) -> None:
    process, _, _ = up
    sandboxes = eventually(lambda: len(found := children(process.pid)) == 4 and found)

    process.kill()
    process.wait(20)

    eventually(lambda: not any(is_running(pid) for pid in sandboxes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parameter", "NoSuchParameter=1"], "NoSuchParameter"),
        (["--parameter", "PollIntervalSeconds=0"], "PollIntervalSeconds"),
    ],
)
def test_a_wrong_option_ends_it_with_an_error(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        status = main(["up", "--port", "0", "--state-dir", str(tmp_path), "--no-simulator", *arguments])
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])

    assert status == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "stack.json").exists()


def test_a_taken_port_of_the_aws_endpoint_names_its_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LocalStackError, match="--aws-port"):
            LocalStack(aws_port=port, state_dir=tmp_path, simulator=False).start()


class TestLibrary:
    """Not together with the example stack: moto's state belongs to the process."""

    def run(self, script: str, tmp_path: Path) -> str:
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "layers" / "image_tasks" / "python")])
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(tmp_path), str(EXAMPLE)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_it_comes_up_again_and_again_and_remembers_nothing(self, tmp_path: Path) -> None:
        output = self.run(
            """
import sys, threading
from pathlib import Path
from local import LocalStackError
from local.stack import LocalStack
def stack():
    return LocalStack(template=Path(sys.argv[2]), state_dir=sys.argv[1], simulator=False, parameters={"NotesFolder": sys.argv[1]})
for _ in range(3):
    with stack() as running:
        s3, bucket = running.boto3_client("s3"), running.resources["Bucket"].ref
        print(s3.list_objects_v2(Bucket=bucket)["KeyCount"], running.resources["Table"].ref)
        s3.put_object(Bucket=bucket, Key="x", Body=b"x")
        try:
            stack().start()
        except LocalStackError as exc:
            print("refused")
    print([thread.name for thread in threading.enumerate() if not thread.daemon])
""",
            tmp_path,
        )

        assert output.splitlines() == ["0 catchlight-Table", "refused", "['MainThread']"] * 3

    def test_images_can_be_written_into_a_folder(self, tmp_path: Path) -> None:
        output = self.run(
            """
import sys
from pathlib import Path
from local.stack import LocalStack
with LocalStack(state_dir=sys.argv[1], simulator=False) as stack:
    s3 = stack.boto3_client("s3")
    s3.put_object(Bucket=stack.info["bucket"], Key="images/flux-kontext/t/result-0.png", Body=b"image")
    s3.put_object(Bucket=stack.info["bucket"], Key="other", Body=b"other")
    for path in stack.export_images(Path(sys.argv[1]) / "out"):
        print(path.relative_to(sys.argv[1]), path.read_bytes())
""",
            tmp_path,
        )

        assert output.splitlines() == ["out/images/flux-kontext/t/result-0.png b'image'"]

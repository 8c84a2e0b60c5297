"""Runs the AWS emulator MiniStack as a process on the loopback address, with IAM roles enforced."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from local import REPOSITORY
from local.account import ACCOUNT_ID, REGION
from local.lambda_.sandbox import IMAGE_HOSTS_VARIABLE
from scripts.rehearsal import RehearsalError

PYTHON = REPOSITORY / ".venv-ministack" / "bin" / "python"
# An idle machine needs two seconds.
MAX_START_SECONDS = 120.0
MAX_STOP_SECONDS = 15.0
# In MiniStack, the account number is the access key of the root user.
ROOT = {"AWS_ACCESS_KEY_ID": ACCOUNT_ID, "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}


@dataclass(frozen=True)
class MiniStack:
    """A running MiniStack; `client` returns boto3 clients of the account's root user."""

    port: int

    @property
    def url(self) -> str:
        """The endpoint URL of all services."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def root_settings(self) -> dict[str, str]:
        """Environment variables with which AWS tools call MiniStack as the account's root user."""
        return ROOT | {"AWS_ENDPOINT_URL": self.url, "NO_PROXY": "*"}

    def client(self, service: str) -> Any:
        """Returns a boto3 client of the account's root user, who has all permissions."""
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ROOT["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=ROOT["AWS_SECRET_ACCESS_KEY"],
            # A long timeout, for cold starts on a busy machine. No proxies: they cannot reach this machine's loopback.
            config=Config(read_timeout=120, retries={"total_max_attempts": 2}, proxies={}),
        )


@contextmanager
def running_ministack(folder: Path, log: Path, *, time_scale: float, hosts: Sequence[str]) -> Iterator[MiniStack]:
    """Runs MiniStack until the end of the block.

    `folder` is the working directory, where functions and layers are unpacked; `log` is the log file. `hosts` are the
    only addresses on this machine, as HOST:PORT, from which images may be fetched and to which webhooks may be sent.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        ministack = MiniStack(free.getsockname()[1])
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(ministack.port),
        "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
        "MINISTACK_REGION": REGION,
        "AUTH": "true",
        "SFN_WAIT_SCALE": str(time_scale),
        # Configures the functions' workers: see worker/sitecustomize.py.
        "PYTHONPATH": str(Path(__file__).parent / "worker"),
        IMAGE_HOSTS_VARIABLE: ",".join(hosts),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(PYTHON), "-m", "ministack"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # A separate process group: Ctrl-C must not end MiniStack while the rehearsal still uses it.
            start_new_session=True,
        )
    try:
        _wait_until_ready(ministack, process, log)
        yield ministack
    finally:
        _stop(process)


def _wait_until_ready(ministack: MiniStack, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + MAX_START_SECONDS
    with httpx.Client(trust_env=False, timeout=60) as http:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if http.get(f"{ministack.url}/_ministack/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
    raise RehearsalError(f"MiniStack did not start. Read {log}, then try again.")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends MiniStack and its workers, which normally end when their standard input is closed."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(MAX_STOP_SECONDS)
    # Workers that still run are in its process group.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

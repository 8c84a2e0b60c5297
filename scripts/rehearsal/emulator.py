"""Runs the AWS emulator MiniStack as a process on the loopback address, with IAM roles enforced."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

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


class MiniStack:
    """Runs MiniStack as a context manager; `client` returns boto3 clients of the account's root user."""

    def __init__(self, folder: Path, log: Path, *, time_scale: float, image_host: str, webhook_host: str) -> None:
        """`folder` is the working directory, where functions and layers are unpacked; `log` is the log file.

        `image_host` is the only HOST:PORT on this machine that images may be fetched from, `webhook_host` the one that
        webhooks may be sent to.
        """
        self._folder = folder
        self._log = log
        self._time_scale = time_scale
        self._hosts = f"{image_host},{webhook_host}"
        self._process: subprocess.Popen[bytes] | None = None
        self._port = _free_port()

    @property
    def url(self) -> str:
        """The endpoint URL of all services."""
        return f"http://127.0.0.1:{self._port}"

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

    def __enter__(self) -> Self:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
            "MINISTACK_REGION": REGION,
            "AUTH": "true",
            "SFN_WAIT_SCALE": str(self._time_scale),
            # Configures the functions' workers: see worker/sitecustomize.py.
            "PYTHONPATH": str(Path(__file__).parent / "worker"),
            "CATCHLIGHT_SANDBOX": str(REPOSITORY / "local" / "lambda_" / "sandbox.py"),
            IMAGE_HOSTS_VARIABLE: self._hosts,
        }
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(PYTHON), "-m", "ministack"],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A separate process group: Ctrl-C must not end MiniStack while the rehearsal still uses it.
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + MAX_START_SECONDS
        with httpx.Client(trust_env=False, timeout=60) as http:
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    if http.get(f"{self.url}/_ministack/health").is_success:
                        return
                except httpx.TransportError:
                    time.sleep(0.2)
        raise RehearsalError(f"MiniStack did not start. Read {self._log}, then try again.")

    def _stop(self) -> None:
        """Ends MiniStack and its workers, which normally end when their standard input is closed."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(MAX_STOP_SECONDS)
        # Workers that still run are in its process group.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

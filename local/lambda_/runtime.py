"""Runs functions as Lambda does: one process per sandbox, cold starts, timeouts, concurrency."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from local import REPOSITORY
from local.lambda_.configuration import FunctionConfiguration, sandbox_environment
from local.lambda_.logs import LogFolder
from local.lambda_.runtime_api import Invocation, InvocationResult, RuntimeApi
from local.lambda_.sandbox import CLOCK_VARIABLE

# Lambda starts up to 1,000. Here, more sandboxes than the cores can run would make a burst slower, because each one
# imports all modules.
MAX_SANDBOXES_PER_FUNCTION = max(3, min(8, 2 * (os.cpu_count() or 4)))
# Lambda's limit for the init phase is 10 s. Here several sandboxes start at the same time, beside all other processes
# of the machine: under load an init phase took up to 51 s, and replacing a slow sandbox would only increase the load.
# This limit detects sandboxes that hang forever.
INIT_TIMEOUT_SECONDS = 300.0

_SANDBOX = Path(__file__).resolve().with_name("sandbox.py")
_serial_numbers = itertools.count(1)


class TooManyRequestsError(Exception):
    """No sandbox became free in time, or the function was stopped. Lambda calls it TooManyRequestsException (429)."""


def _command(configuration: FunctionConfiguration) -> list[str]:
    """Returns the command that starts a sandbox of the function."""
    if configuration.runtime_dir is None:
        return [sys.executable, "-m", "local.lambda_.sandbox"]
    # -I ignores the current folder, the user's packages and PYTHONPATH. -S ignores the packages of the environment,
    # where the function would otherwise find modules that are missing in the artefact.
    isolated = [sys.executable, "-I", "-S", str(_SANDBOX)]
    return [*isolated, *map(str, (*configuration.layers, configuration.runtime_dir))]


class Sandbox:
    """One process that runs one function, one invocation at a time."""

    def __init__(self, configuration: FunctionConfiguration, environment: Mapping[str, str], logs: LogFolder) -> None:
        self._configuration = configuration
        self._logs = logs
        self._api = RuntimeApi()
        self._started_at = time.monotonic()
        self._reported_init = False
        self._current: Invocation | None = None
        self._is_killed = False
        self.id = f"{configuration.name}-{next(_serial_numbers)}"
        self.exited = threading.Event()
        self._process = subprocess.Popen(
            _command(configuration),
            cwd=REPOSITORY,
            # The session token identifies the sandbox that sends an AWS request.
            env={**environment, "AWS_LAMBDA_RUNTIME_API": self._api.address, "AWS_SESSION_TOKEN": self.id},
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends, and the sandbox then exits
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # awslambdaric ends the lines of a traceback with \r, which universal newlines recognize as line ends.
            text=True,
            errors="replace",
            process_group=0,
        )
        self._api.start()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> bool:
        """Waits until the handler's module is imported, and returns whether it is. The init phase has a time limit."""
        self._api.ready.wait(INIT_TIMEOUT_SECONDS)
        return self._api.ready.is_set() and self._api.init_error is None and not self.exited.is_set()

    def invoke(self, invocation: Invocation) -> InvocationResult:
        """Returns the handler's result or the error that Lambda would report. A sandbox that times out is killed."""
        self._current = invocation
        ready = self.wait_until_ready()
        started_at = time.monotonic()
        if ready:
            self._run(invocation)
        else:
            self.kill()
            self._fail_init(invocation)
        self._report(invocation, time.monotonic() - started_at)
        self._current = None
        assert invocation.outcome is not None  # both branches end the invocation
        return invocation.outcome

    def _run(self, invocation: Invocation) -> None:
        self._api.hand_over(invocation)
        if self.exited.is_set():  # the process may have exited since it was ready
            self._fail_exited(invocation)
        if not invocation.ended.wait(invocation.timeout_seconds):
            seconds = f"{invocation.timeout_seconds:.2f} seconds"
            self._fail(invocation, "Sandbox.Timedout", f"Task timed out after {seconds}")
            self.kill()

    def begin_kill(self) -> None:
        """Kills the process and its child processes without waiting for their end."""
        self._is_killed = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kills the process and its child processes, and waits for their end."""
        self.begin_kill()
        self.exited.wait(5)

    def _watch(self) -> None:
        """Copies the output of the process to its log, then records its exit."""
        assert self._process.stdout
        assert self._process.stdin
        with self._process.stdout as lines:
            for line in lines:
                self._logs.write(self._configuration.name, line.replace("\u00a0", " "))
        self._process.wait()
        self._process.stdin.close()
        self.exited.set()
        self._api.ready.set()
        if current := self._current:
            if self._api.init_error is None:
                self._fail_exited(current)
            else:
                self._fail_init(current)
        elif not self._is_killed:
            # The next invocation gets another sandbox, so this is the only report of the exit.
            details = (self._api.init_error or b"").decode(errors="replace")
            self._logs.error(self._configuration.name, f"{self._exit_reason()} without an invocation", details)
        self._api.close()

    def _fail_init(self, invocation: Invocation) -> None:
        if self._api.init_error is not None:
            invocation.end(InvocationResult(self._api.init_error, "Unhandled"))
        elif self.exited.is_set() and self._process.returncode != -signal.SIGKILL:
            self._fail_exited(invocation)
        else:
            self._fail(invocation, "Sandbox.Timedout", f"Init phase timed out after {INIT_TIMEOUT_SECONDS:.2f} seconds")

    def _fail_exited(self, invocation: Invocation) -> None:
        self._fail(invocation, "Runtime.ExitError", self._exit_reason())

    def _exit_reason(self) -> str:
        code = self._process.returncode
        status = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"Runtime exited with error: {status}"

    def _fail(self, invocation: Invocation, error_type: str, reason: str) -> None:
        message = f"RequestId: {invocation.request_id} Error: {reason}"
        error = {"errorType": error_type, "errorMessage": message}
        invocation.end(InvocationResult(json.dumps(error).encode(), "Unhandled"))

    def _report(self, invocation: Invocation, seconds: float) -> None:
        line = f"REPORT RequestId: {invocation.request_id} Duration: {seconds * 1000:.2f} ms"
        if not self._reported_init and self._api.ready_at is not None:
            line += f" Init Duration: {(self._api.ready_at - self._started_at) * 1000:.2f} ms"
            self._reported_init = True
        self._logs.write(self._configuration.name, line)
        if invocation.outcome and invocation.outcome.function_error:
            payload = invocation.outcome.payload
            self._logs.function_error(self._configuration.name, invocation.request_id, payload)


class Function:
    """A function and its sandboxes. An invocation gets the idle sandbox that was used most recently, as in Lambda."""

    def __init__(
        self,
        configuration: FunctionConfiguration,
        logs: LogFolder,
        environment: Mapping[str, str],
        max_sandboxes: int = MAX_SANDBOXES_PER_FUNCTION,
    ) -> None:
        self.configuration = configuration
        self.max_sandboxes = max_sandboxes
        self._logs = logs
        self._environment = sandbox_environment(configuration, environment)
        self._changed = threading.Condition()
        self._idle: list[Sandbox] = []
        self._busy: set[Sandbox] = set()
        self._stopped = False

    def prewarm(self) -> Sandbox:
        """Starts a sandbox ahead of the first invocation."""
        with self._changed:
            sandbox = self._start()
            self._idle.append(sandbox)
            return sandbox

    def invoke(self, payload: bytes) -> InvocationResult:
        """Runs the handler once and returns its outcome.

        Raises TooManyRequestsError if no sandbox becomes free within the function's own timeout.
        """
        timeout = self.configuration.timeout_seconds
        sandbox = self._acquire_sandbox(timeout)
        try:
            return sandbox.invoke(Invocation(payload, self.configuration.arn, timeout))
        finally:
            with self._changed:
                self._busy.discard(sandbox)
                if not sandbox.exited.is_set():
                    self._idle.append(sandbox)
                self._changed.notify()

    def pids(self) -> list[int]:
        """Returns the ids of the running processes."""
        with self._changed:
            return [sandbox.pid for sandbox in (*self._idle, *self._busy) if not sandbox.exited.is_set()]

    def busy(self) -> list[str]:
        """Returns the ids of the sandboxes that are running an invocation."""
        with self._changed:
            return sorted(sandbox.id for sandbox in self._busy if not sandbox.exited.is_set())

    def kill(self, sandbox_id: str) -> bool:
        """Kills a sandbox, as a crash would, also during an invocation. Returns whether it was running."""
        with self._changed:
            sandboxes = (*self._idle, *self._busy)
            found = [sandbox for sandbox in sandboxes if sandbox.id == sandbox_id and not sandbox.exited.is_set()]
        for sandbox in found:
            sandbox.kill()
        return bool(found)

    def shift_clock(self, seconds: float) -> None:
        """Advances the clock of new sandboxes by these seconds and kills the idle ones, for tests of long periods."""
        with self._changed:
            self._environment = {**self._environment, CLOCK_VARIABLE: str(seconds)}
            idle, self._idle = self._idle, []
        for sandbox in idle:
            sandbox.kill()

    def begin_stop(self) -> None:
        """Kills all sandboxes without waiting for their end. Later invocations raise TooManyRequestsError."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            for sandbox in (*self._idle, *self._busy):
                sandbox.begin_kill()

    def stop(self) -> None:
        self.begin_stop()
        with self._changed:
            sandboxes = [*self._idle, *self._busy]
        for sandbox in sandboxes:
            sandbox.kill()

    def _acquire_sandbox(self, timeout: float) -> Sandbox:
        with self._changed:
            deadline = time.monotonic() + timeout
            while True:
                if self._stopped:
                    raise TooManyRequestsError(f"{self.configuration.name} has been stopped.")
                while self._idle:
                    sandbox = self._idle.pop()
                    if not sandbox.exited.is_set():
                        break
                else:
                    if len(self._busy) >= self.max_sandboxes:
                        if not self._changed.wait(deadline - time.monotonic()):
                            raise TooManyRequestsError(f"All sandboxes of {self.configuration.name} are busy.")
                        continue
                    sandbox = self._start()
                self._busy.add(sandbox)
                return sandbox

    def _start(self) -> Sandbox:
        return Sandbox(self.configuration, self._environment, self._logs)

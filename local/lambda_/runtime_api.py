"""Serves the Lambda Runtime API for one sandbox: sends events to its process and receives the results.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import hmac
import queue
import re
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import cast

from catchlight_cli.http_server import HOST
from local.loopback import LoopbackHandler, LoopbackServer

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_RESPONSE_BYTES = 6_291_556


@dataclass(frozen=True)
class InvocationResult:
    """The result of an invocation: the handler's result, or Lambda's error object and the kind of error."""

    payload: bytes
    function_error: str | None = None


@dataclass
class Invocation:
    """One event that a sandbox processes."""

    payload: bytes
    function_arn: str
    timeout_seconds: float
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    outcome: InvocationResult | None = None
    ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def end(self, outcome: InvocationResult) -> None:
        """Sets the outcome, unless there is one: a result may arrive at the moment of the timeout."""
        with self._lock:
            if not self.ended.is_set():
                self.outcome = outcome
                self.ended.set()

    @property
    def trace_id(self) -> str:
        compact = self.request_id.replace("-", "")
        return f"Root=1-{int(time.time()):08x}-{compact[:24]};Parent={compact[:16]};Sampled=0"


class RuntimeApi(LoopbackServer):
    """Serves one sandbox, under paths that begin with a secret in this sandbox's environment.

    Without the secret, other processes on this machine could receive the function's events and send results for them.
    """

    max_idle_connections = 4  # the runtime client keeps one connection open

    def __init__(self) -> None:
        super().__init__(_RuntimeApiHandler)
        self.secret = secrets.token_urlsafe(16)
        self.ready = threading.Event()
        self.ready_at: float | None = None
        self.init_error: bytes | None = None
        self._events: queue.SimpleQueue[Invocation | None] = queue.SimpleQueue()
        self._current: Invocation | None = None

    @property
    def address(self) -> str:
        """The value of AWS_LAMBDA_RUNTIME_API, to which runtime clients append `/2018-06-01/...`."""
        return f"{HOST}:{self.port}/{self.secret}"

    def hand_over(self, invocation: Invocation) -> None:
        self._events.put(invocation)

    def close(self) -> None:
        self._events.put(None)
        self.stop()

    def next_invocation(self) -> Invocation | None:
        if self.ready_at is None:
            self.ready_at = time.monotonic()
        self.ready.set()
        self._current = self._events.get()
        return self._current

    def end_invocation(self, request_id: str, outcome: InvocationResult) -> int:
        """Stores a result and returns the HTTP status of the response."""
        current = self._current
        if current is None or current.request_id != request_id:
            return 400
        if len(outcome.payload) > MAX_RESPONSE_BYTES:
            message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
            too_large = f'{{"errorType": "Function.ResponseSizeTooLarge", "errorMessage": "{message}"}}'
            current.end(InvocationResult(too_large.encode(), "Unhandled"))
            return 413
        current.end(outcome)
        return 202


class _RuntimeApiHandler(LoopbackHandler):
    timeout = None  # the sandbox's connection is idle while its function runs

    def parse_request(self) -> bool:
        """Parses a request's headers, refuses requests without the secret, and removes it from the path."""
        if not super().parse_request():
            return False
        secret, _, path = self.path.removeprefix("/").partition("/")
        if hmac.compare_digest(secret.encode(), cast("RuntimeApi", self.server).secret.encode()):
            self.path = f"/{path}"
            return True
        self.close_connection = True
        self.answer(403, b"", [("connection", "close")])
        return False

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        api = cast("RuntimeApi", self.server)
        if self.path != "/2018-06-01/runtime/invocation/next":
            return self.answer(404, b"", [])
        invocation = api.next_invocation()
        if invocation is None:
            self.close_connection = True
            return None
        deadline_ms = int((time.time() + invocation.timeout_seconds) * 1000)
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(deadline_ms)),
            ("Lambda-Runtime-Invoked-Function-Arn", invocation.function_arn),
            ("Lambda-Runtime-Trace-Id", invocation.trace_id),
        ]
        return self.answer(200, invocation.payload, headers)

    def do_POST(self) -> None:  # noqa: N802
        api = cast("RuntimeApi", self.server)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/2018-06-01/runtime/init/error":
            api.init_error = body
            api.ready.set()
            return self.answer(202, b"", [])
        if match := re.fullmatch(r"/2018-06-01/runtime/invocation/([^/]+)/(response|error)", self.path):
            request_id, kind = match.groups()
            outcome = InvocationResult(body, "Unhandled" if kind == "error" else None)
            return self.answer(api.end_invocation(request_id, outcome), b"", [])
        return self.answer(404, b"", [])

"""Injects faults into the functions' AWS calls, in the forms that AWS documents. A seed determines all faults.

    faults = AwsFaults(seed, {"dynamodb": {Fault.THROTTLE: 0.05}}, kill=...)
    stack = LocalStack(aws_middleware=faults.around)

Only calls of functions are affected, and only after `begin()`; calls of users and tests are not.
"""

import contextlib
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from local.moto.calls import AwsCall, request_json
from local.moto.responses import AwsResponse, error_response, json_response


class Fault(StrEnum):
    """The faults that can be injected into a call."""

    THROTTLE = "throttled"  # the call has no effect
    ERROR = "500, nothing applied"
    ERROR_AFTER = "500 after it was applied"
    CUT = "connection cut, nothing applied"
    CUT_AFTER = "response cut after it was applied"
    TIMEOUT_AFTER = "timeout after it was applied"
    SLOW = "slow"
    PARTIAL = "part of a batch not processed"
    CONFLICT = "409, concurrent write"
    KILL = "killed before a call"
    KILL_AFTER = "killed after a call"


Rates = Mapping[str, Mapping[Fault, float]]
"""Probability of each fault, by service."""

# The error codes of AWS; botocore retries all of them.
_THROTTLING = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "sqs": "com.amazonaws.sqs#RequestThrottled",
    "states": "ThrottlingException",
    "secretsmanager": "ThrottlingException",
    "s3": "SlowDown",
}
_INTERNAL_ERROR = {
    "dynamodb": "com.amazonaws.dynamodb.v20120810#InternalServerError",
    "sqs": "com.amazonaws.sqs#InternalError",
    "states": "InternalFailure",
    "secretsmanager": "InternalServiceError",
    "s3": "InternalError",
}
_MESSAGE = "an injected fault"

# A persistent fault: this many consecutive calls about one subject fail, the attempts of two invocations.
STREAK_LENGTH = 6
_STREAK_FAULTS = (Fault.THROTTLE, Fault.ERROR, Fault.CUT)
# Longer than the read timeout of the functions' clients.
TIMEOUT_SECONDS = {"dynamodb": 2.4, "s3": 4.4}
SLOW_SECONDS = (0.05, 0.4)
# Faults that apply to some operations only.
_ONLY_OF = {Fault.PARTIAL: {"BatchGetItem", "SendMessageBatch"}, Fault.CONFLICT: {"PutObject"}}


@dataclass(frozen=True, slots=True)
class Outage:
    """A period in which a service rejects every call of a function, in seconds since the faults began."""

    service: str
    begins_at: float
    seconds: float


class AwsFaults:
    """Chooses a fault for each call of a function and injects it.

    The fault depends only on the seed, the function, the operation, the subject (such as a task) and the number of
    such calls before it, not on concurrent calls. `kill(function, sandbox)` kills a sandbox.
    """

    def __init__(
        self,
        seed: int,
        rates: Rates,
        *,
        kill: Callable[[str, str], object],
        streak_rate: float = 0.0,
        outages: Sequence[Outage] = (),
        oversized: Collection[str] = (),
    ) -> None:
        """`oversized`: ids of tasks; S3 calls for their objects kill the function until `end_oversized_kills()`."""
        self._seed = seed
        self._rates = rates
        self._kill = kill
        self._streak_rate = streak_rate
        self._outages = tuple(outages)
        self._oversized = frozenset(oversized)
        self._out: str | None = None  # the service whose calls `set_out` rejects
        self._began_at: float | None = None
        self._lock = threading.Lock()
        self._calls_about: Counter[tuple[str, str, str]] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()  # of functions, by service and operation
        self.injected: Counter[tuple[str, Fault]] = Counter()  # by service

    def begin(self) -> None:
        self._began_at = time.monotonic()

    def end(self) -> None:
        self._began_at = None

    def end_oversized_kills(self) -> None:
        """Stops killing the functions that handle oversized tasks, which `end` does not stop."""
        self._oversized = frozenset()

    def set_out(self, service: str | None) -> None:
        """Makes this service reject every call until the next call of this method; None: no service."""
        self._out = service

    def around(self, application: WSGIApplication) -> WSGIApplication:
        """Wraps a WSGI application and injects faults into the calls that it receives."""

        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            call = AwsCall.of(environ)
            if call is None:
                return application(environ, start_response)
            fault = self._next_fault(call)
            if fault is None:
                return application(environ, start_response)
            return self._inject(call, fault, application, environ, start_response)

        return respond

    def planned(self, call: AwsCall, nth: int) -> Fault | None:
        """Returns the planned fault of the n-th such call, counted from 0, or None. Ignores outages."""
        rates = self._rates.get(call.service)
        if not rates:
            return None
        who = (call.function, call.operation, call.subject)
        if self._share("streak", *who, nth // STREAK_LENGTH) < self._streak_rate:
            kind = self._share("streak's kind", *who, nth // STREAK_LENGTH)
            return _STREAK_FAULTS[int(kind * len(_STREAK_FAULTS))]
        share = self._share("fault", *who, nth)
        for fault, rate in rates.items():
            if share < rate:
                return fault if call.operation in _ONLY_OF.get(fault, {call.operation}) else None
            share -= rate
        return None

    def _next_fault(self, call: AwsCall) -> Fault | None:
        if call.service == "s3" and not self._oversized.isdisjoint(call.subject.split("/")):
            return Fault.KILL
        if self._began_at is None:
            return None
        about = (call.function, call.operation, call.subject)
        with self._lock:
            nth = self._calls_about[about]
            self._calls_about[about] += 1
            self.calls[call.service, call.operation] += 1
        fault = Fault.ERROR if self.is_out(call.service) else self.planned(call, nth)
        if fault is not None:
            with self._lock:
                self.injected[call.service, fault] += 1
        return fault

    def is_out(self, service: str) -> bool:
        """Returns whether the service currently rejects every call."""
        if self._began_at is None:
            return False
        now = time.monotonic() - self._began_at
        return service == self._out or any(
            outage.service == service and 0 <= now - outage.begins_at < outage.seconds for outage in self._outages
        )

    def _share(self, *parts: object) -> float:
        """Returns a number from 0 to 1 that depends only on the seed and these parts."""
        digest = blake2b(repr((self._seed, *parts)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def _inject(
        self,
        call: AwsCall,
        fault: Fault,
        application: WSGIApplication,
        environ: WSGIEnvironment,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        match fault:
            case Fault.THROTTLE:
                return _throttled(call).send(start_response)
            case Fault.ERROR:
                return _internal_error(call).send(start_response)
            case Fault.CONFLICT:
                # S3's response to a conditional PutObject while another request writes the same object.
                conflict = error_response(call, "409 Conflict", "ConditionalRequestConflict", _MESSAGE)
                return conflict.send(start_response)
            case Fault.CUT | Fault.KILL:
                # The server would parse unread bytes of this request as the next request.
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                if fault is Fault.KILL:
                    self._kill(call.function, call.sandbox)
                raise _cut_connection(environ)
            case Fault.SLOW:
                time.sleep(SLOW_SECONDS[0] + self._share("slow", call.subject) * (SLOW_SECONDS[1] - SLOW_SECONDS[0]))
                return application(environ, start_response)
            case Fault.PARTIAL:
                return _process_part(call, application, environ).send(start_response)
        response = AwsResponse.of(application, environ)
        match fault:
            case Fault.ERROR_AFTER:
                return _internal_error(call).send(start_response)
            case Fault.TIMEOUT_AFTER:
                time.sleep(TIMEOUT_SECONDS.get(call.service, 0.0))
                return response.send(start_response)
            case Fault.KILL_AFTER:
                self._kill(call.function, call.sandbox)
            case Fault.CUT_AFTER if response.body:
                # Send half of the body with the whole body's length and checksum: clients can detect the truncation.
                start_response(response.status, response.headers)(response.body[: len(response.body) // 2])
        raise _cut_connection(environ)


def _throttled(call: AwsCall) -> AwsResponse:
    status = "503 Slow Down" if call.service == "s3" else "400 Bad Request"
    return error_response(call, status, _THROTTLING[call.service], _MESSAGE)


def _internal_error(call: AwsCall) -> AwsResponse:
    return error_response(call, "500 Internal Server Error", _INTERNAL_ERROR[call.service], _MESSAGE)


def _cut_connection(environ: WSGIEnvironment) -> ConnectionResetError:
    """Closes the connection, and returns the error that the server must raise."""
    with contextlib.suppress(OSError):  # the client may have closed the connection first
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return ConnectionResetError(_MESSAGE)


def _process_part(call: AwsCall, application: WSGIApplication, environ: WSGIEnvironment) -> AwsResponse:
    """Processes the first part of a batch; the 200 response lists the rest as unprocessed, as AWS does."""
    request = request_json(environ)
    outcome: dict[str, Any]
    if call.operation == "BatchGetItem":
        left_out = {}
        for table, wanted in request["RequestItems"].items():
            keys = wanted["Keys"]
            processed = (len(keys) + 1) // 2
            if keys[processed:]:
                left_out[table] = {**wanted, "Keys": keys[processed:]}
                wanted["Keys"] = keys[:processed]
        outcome = {"UnprocessedKeys": left_out}
    else:
        entries = request["Entries"]
        processed = len(entries) // 2
        failed = [
            {"Id": entry["Id"], "SenderFault": False, "Code": "InternalError", "Message": _MESSAGE}
            for entry in entries[processed:]
        ]
        outcome = {"Failed": failed}
        request["Entries"] = entries[:processed]
        if not request["Entries"]:
            return json_response("200 OK", outcome)
    body = json.dumps(request).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    response = AwsResponse.of(application, environ)
    response.change(json.dumps(json.loads(response.body) | outcome).encode())
    return response

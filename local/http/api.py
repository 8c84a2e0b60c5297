"""Serves an API Gateway HTTP API on the loopback address: routes, limits and access log.

https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api.html
"""

import json
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import cast

from catchlight_cli.http_server import HOST
from local import UnsupportedError
from local.http.events import HttpRequest, HttpResponse, function_response, message_response, request_event
from local.http.sigv4 import NotSignedError, verify_signature
from local.lambda_.logs import LogFolder
from local.lambda_.runtime import Function, TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult
from local.loopback import LoopbackHandler, LoopbackServer

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
MAX_BODY_BYTES = 10 * 1024 * 1024
DEFAULT_INTEGRATION_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Route:
    """A route such as `POST /callbacks/{provider}/{token+}` and the function that it invokes."""

    method: str
    path: str
    function: str
    timeout_seconds: float = DEFAULT_INTEGRATION_TIMEOUT_SECONDS
    is_signed: bool = False  # AWS_IAM: only requests with a valid signature are accepted

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Returns the path parameters, or None if the route does not match. `{name+}` matches one or more segments."""
        match = self.pattern.fullmatch(path) if self.method in ("ANY", method) else None
        return match.groupdict() if match else None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile("".join(_segment_pattern(part) for part in re.split(r"(\{[^}]+\})", self.path)), re.DOTALL)

    @property
    def precedence(self) -> tuple[bool, bool, int]:
        """Sort key, lowest first: full match before greedy, method before ANY, fewer path parameters before more."""
        return ("+}" in self.path, self.method == "ANY", self.path.count("{"))


def _segment_pattern(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name = part.strip("{}+")
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise UnsupportedError(f"Route parameter {part}", "local/http/api.py")
    return f"(?P<{name}>.+)" if part.endswith("+}") else f"(?P<{name}>[^/]+)"


@dataclass(frozen=True)
class Stage:
    """The settings of the $default stage.

    Without a rate limit, requests are not throttled: the local stack has no account-level limit.
    """

    rate_limit: float | None = None
    burst_limit: int | None = None
    access_log_format: str = ""


class TokenBucket:
    """Throttles as API Gateway does: `burst` requests at once, `rate` requests per second in the long run."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled_at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


class HttpApi(LoopbackServer):
    """Invokes functions for HTTP requests. Listens from its construction on, but responds only after `serve()`."""

    def __init__(self, port: int, logs: LogFolder, *, option: str = "--port") -> None:
        super().__init__(_HttpApiHandler, port, option)
        self._logs = logs
        self._routes: list[Route] = []
        self._functions: Mapping[str, Function] = {}
        self._stage = Stage()
        self._bucket: TokenBucket | None = None
        # When API Gateway times out, the function continues in Lambda, so invocations run in their own threads.
        self._invocations = ThreadPoolExecutor(64, thread_name_prefix="http-api")

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def serve(self, routes: list[Route], stage: Stage, functions: Mapping[str, Function]) -> None:
        for route in routes:
            _ = route.pattern  # a pattern that cannot be compiled must fail at start, not at the first request
        self._routes = sorted(routes, key=lambda route: route.precedence)
        self._stage = stage
        self._functions = functions
        if stage.rate_limit is not None and stage.burst_limit is not None:
            self._bucket = TokenBucket(stage.rate_limit, stage.burst_limit)
        self.start()

    def stop(self) -> None:
        super().stop()
        self._invocations.shutdown(wait=True, cancel_futures=True)

    def respond(self, request: HttpRequest) -> HttpResponse:
        """Returns the response to a request and writes it to the access log."""
        started_at = time.monotonic()
        route_key, response = self._route(request)
        response.headers.append(("apigw-requestid", request.request_id))
        self._log_access(request, route_key, response, time.monotonic() - started_at)
        return response

    def _route(self, request: HttpRequest) -> tuple[str, HttpResponse]:
        for route in self._routes:
            parameters = route.match(request.method, request.path)
            if parameters is not None:
                break
        else:
            return "-", message_response(404, "Not Found")
        if self._bucket and not self._bucket.take():
            return route.key, message_response(429, "Too Many Requests")
        access_key_id = None
        if route.is_signed:
            try:
                access_key_id = verify_signature(request, now=datetime.now(UTC))
            except NotSignedError as exc:
                self._logs.write("api", f"{route.key}: forbidden, {exc}")
                return route.key, message_response(403, "Forbidden")
        event = request_event(request, route.key, parameters, access_key_id)
        return route.key, self._invoke(route, event)

    def _invoke(self, route: Route, event: dict[str, object]) -> HttpResponse:
        function = self._functions[route.function]
        invocation = self._invocations.submit(function.invoke, json.dumps(event).encode())
        try:
            outcome: InvocationResult = invocation.result(route.timeout_seconds)
        except TimeoutError:
            self._logs.error("api", f"{route.key}: no response within {route.timeout_seconds:g} s")
            return message_response(503, "Service Unavailable")
        except TooManyRequestsError as exc:
            self._logs.error("api", f"{route.key}: {exc}")
            return message_response(503, "Service Unavailable")
        response = function_response(outcome)
        if response.status == 500 and not outcome.function_error:
            self._logs.error("api", f"{route.key}: 500 for the malformed result {outcome.payload[:200]!r}")
        return response

    def _log_access(self, request: HttpRequest, route_key: str, response: HttpResponse, seconds: float) -> None:
        if not self._stage.access_log_format:
            return
        now = time.gmtime()
        milliseconds = str(round(seconds * 1000))
        variables = {
            "requestId": request.request_id,
            "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000", now),
            "requestTimeEpoch": str(int(time.time() * 1000)),
            "httpMethod": request.method,
            "path": request.path,
            "protocol": request.protocol,
            "routeKey": route_key,
            "stage": "$default",
            "status": str(response.status),
            "identity.sourceIp": request.source_ip,
            "identity.userAgent": request.header("user-agent") or "-",
            "responseLatency": milliseconds,
            "integrationLatency": milliseconds,
            "responseLength": str(len(response.body)),
        }
        # API Gateway writes a dash for a variable that has no value.
        line = re.sub(
            r"\$context\.([\w.]*\w)", lambda match: variables.get(match.group(1), "-"), self._stage.access_log_format
        )
        self._logs.write("access", line)


class _HttpApiHandler(LoopbackHandler):
    def _handle(self) -> None:
        api = cast("HttpApi", self.server)
        body = self.read_body(MAX_BODY_BYTES)
        if body is None:
            self.close_connection = True
            too_large = message_response(413, "Request Entity Too Large")
            return self.answer(too_large.status, too_large.body, [*too_large.headers, ("connection", "close")])
        request = HttpRequest(
            self.command,
            self.path,
            self.headers.items(),
            body,
            str(self.client_address[0]),
            self.request_version,
        )
        response = api.respond(request)
        return self.answer(response.status, response.body, response.headers)

    # The method names that http.server looks up.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _handle  # noqa: N815

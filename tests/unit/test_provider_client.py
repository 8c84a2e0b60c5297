"""Asking providers: what is sent, how much is read, when asking stops, and which connections are kept."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from catchlight.errors import ProviderBusyError, ProviderRefusedError, ProviderUnavailableError
from catchlight.models import TaskStatus
from catchlight.polling import provider_client
from catchlight.polling.provider_client import (
    CONNECT_TIMEOUT_SECONDS,
    FIRST_REQUESTS,
    MAX_ANSWER_BYTES,
    REQUEST_TIMEOUT_SECONDS,
    ProviderClient,
)
from catchlight.providers import PROVIDERS

FLUX = PROVIDERS["flux-kontext"]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUNNING = {"code": 200, "msg": "success", "data": {"successFlag": 0}}
Respond = Callable[[httpx.Request], httpx.Response]


def running(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=RUNNING)


class Transport(httpx.MockTransport):
    """Answers, and counts how often a client that has it is closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1


def ask(
    respond: Respond, *ids: str, clock: Callable[[], float] = lambda: 0.0, **more: Any
) -> provider_client.LookupResults:
    client = ProviderClient({}, transport=httpx.MockTransport(respond), clock=clock)
    return client.ask(FLUX, ids or ("t1",), api_key="k3y", now=lambda: NOW, **more)


# ------------------------------------------------------------------------------------------------ what is sent


def test_a_request_names_its_task_and_its_key_and_bounds_its_waits() -> None:
    requests: list[httpx.Request] = []

    def keep(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return running(request)

    answers = ask(keep)

    (request,) = requests
    assert str(request.url) == "https://api.kie.ai/api/v1/flux/kontext/record-info?taskId=t1"
    assert request.method == "GET"
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("Catchlight/")
    assert request.extensions["timeout"] == {"connect": 3.0, "read": 10.0, "write": 10.0, "pool": 10.0}
    assert (CONNECT_TIMEOUT_SECONDS, REQUEST_TIMEOUT_SECONDS) == (3.0, 10.0)
    assert (answers.requests, answers.errors, answers.is_busy) == (1, [], False)
    assert [(report.task_id, report.status, report.reported_at) for report in answers.reports] == [
        ("t1", TaskStatus.PENDING, NOW)
    ]


def test_a_redirect_does_not_get_the_key() -> None:
    urls: list[str] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://elsewhere.example/"})

    assert len(ask(redirect).errors) == 1
    assert len(urls) == 1


@pytest.mark.parametrize(
    ("fault", "named"),
    [(httpx.ConnectError("no"), "ConnectError"), (httpx.ReadTimeout("late"), "ReadTimeout")],
)
def test_a_provider_that_does_not_answer_is_asked_again_later(fault: Exception, named: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    (error,) = ask(fail).errors
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == f"flux-kontext did not answer: {named}"


# ------------------------------------------------------------------------------------------------ how much is read


@pytest.mark.parametrize(("length", "is_read"), [(MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False)])
def test_an_answer_is_read_up_to_its_limit(length: int, is_read: bool) -> None:
    body = b'{"code": 200, "data": null}'
    answers = ask(lambda _: httpx.Response(200, content=body + b" " * (length - len(body))))

    assert MAX_ANSWER_BYTES == 4 * 1024 * 1024
    assert len(answers.reports) == is_read
    assert [str(error) for error in answers.errors] == (
        [] if is_read else [f"the answer is longer than {MAX_ANSWER_BYTES} bytes"]
    )


@pytest.mark.parametrize(("seconds", "is_read"), [(10.0, True), (10.5, False)])
def test_an_answer_that_drips_is_read_for_as_long_as_a_request_may_take(seconds: float, is_read: bool) -> None:
    time = [100.0]

    def drip() -> Iterator[bytes]:
        yield b'{"code": 200,'
        time[0] += seconds
        yield b' "data": null}'

    answers = ask(lambda _: httpx.Response(200, content=drip()), clock=lambda: time[0])

    assert len(answers.reports) == is_read
    assert [str(error) for error in answers.errors] == ([] if is_read else ["the answer does not come to an end"])


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_what_is_no_json_says_nothing_of_the_task(body: bytes) -> None:
    (error,) = ask(lambda _: httpx.Response(200, content=body)).errors
    assert isinstance(error, ProviderUnavailableError)


# ------------------------------------------------------------------------------------------------ when asking stops


@pytest.mark.parametrize(
    ("code", "error"), [(429, ProviderBusyError), (455, ProviderBusyError), (401, ProviderRefusedError)]
)
def test_who_is_busy_or_refuses_the_account_is_not_asked_for_every_task(code: int, error: type[Exception]) -> None:
    answers = ask(lambda _: httpx.Response(200, json={"code": code}), *(f"t{number}" for number in range(50)))

    assert 1 <= answers.requests <= FIRST_REQUESTS == 10
    assert {type(each) for each in answers.errors} == {error}
    assert answers.is_busy is (error is ProviderBusyError)
    assert answers.reports == []


def test_other_errors_stop_nothing() -> None:
    answers = ask(lambda _: httpx.Response(500), *(f"t{number}" for number in range(20)))

    assert answers.requests == len(answers.errors) == 20


@pytest.mark.parametrize(("deadline", "requests"), [(0.0, 0), (0.5, 1), (float("inf"), 1)])
def test_no_request_is_sent_at_the_deadline_or_later(deadline: float, requests: int) -> None:
    answers = ask(running, deadline=deadline)

    assert answers.requests == len(answers.reports) == requests
    assert answers.errors == []


def test_nothing_is_asked_about_nothing() -> None:
    client = ProviderClient({}, transport=httpx.MockTransport(running))

    assert client.ask(FLUX, [], api_key="k3y", now=lambda: NOW).requests == 0


# ------------------------------------------------------------------------------------------------ one task


def test_the_first_error_is_the_answer_about_one_task() -> None:
    client = ProviderClient({}, transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"code": 401})))

    with pytest.raises(ProviderRefusedError):
        client.ask_about(FLUX, "t1", api_key="k3y", now=lambda: NOW)


def test_an_answer_without_a_report_is_none_about_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ProviderClient({}, transport=httpx.MockTransport(running))
    monkeypatch.setattr(type(FLUX), "parse_poll", lambda *_, **__: [])

    with pytest.raises(ProviderUnavailableError, match="flux-kontext said nothing of the task"):
        client.ask_about(FLUX, "t1", api_key="k3y", now=lambda: NOW)


# ------------------------------------------------------------------------------------------------ connections


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:
        code, body = (500, b"{}") if "bad" in self.path else (200, b'{"code": 200, "data": null}')
        self.send_response(code)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Keeps the output of tests clean."""


@contextmanager
def serving() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Counting", (Handler,), {"connections": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("first", ["good", "bad"])
def test_a_connection_is_kept_for_the_next_poll(first: str) -> None:
    with serving() as (url, handler):
        client = ProviderClient({"flux-kontext": url})
        for task_id in (first, "good", "good"):
            client.ask(FLUX, [task_id], api_key="k3y", now=lambda: NOW)
        client.close()

    assert handler.connections == 1


def test_closing_closes_every_connection_that_is_kept() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def meet(request: httpx.Request) -> httpx.Response:
        meeting.wait()
        return running(request)

    transport = Transport(meet)
    client = ProviderClient({}, transport=transport)
    client.ask(FLUX, ["t1", "t2", "t3"], api_key="k3y", now=lambda: NOW)
    assert transport.closed == 0

    client.close()

    assert transport.closed == 3

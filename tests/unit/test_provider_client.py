"""Requests to providers: what is sent, how much is read, when requests stop, and which connections are kept."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from catchlight.aws.secrets import ProviderKeys
from catchlight.errors import (
    ProviderBusyError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
)
from catchlight.models import TaskStatus
from catchlight.polling import provider_client
from catchlight.polling.provider_client import (
    FIRST_REQUESTS,
    MAX_ANSWER_BYTES,
    ProviderClient,
)
from catchlight.polling.status_lookup import StatusLookup
from catchlight.providers import PROVIDERS
from local.loopback import LoopbackHandler, LoopbackServer
from tests.fake_http import FakeHttp
from tests.hostile.internet import listening, read_request

FLUX = PROVIDERS["flux-kontext"]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
RUNNING = {"code": 200, "msg": "success", "data": {"successFlag": 0}}
Respond = Callable[[httpx.Request], httpx.Response]


def running(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=RUNNING)


def request_statuses(
    respond: Respond, *ids: str, clock: Callable[[], float] = lambda: 0.0, **more: Any
) -> provider_client.LookupResults:
    client = ProviderClient({}, http=FakeHttp(respond), clock=clock)
    return client.request_statuses(FLUX, ids or ("t1",), api_key="k3y", now=lambda: NOW, **more)


# ------------------------------------------------------------------------------------------------ requests


def test_a_request_has_the_task_id_and_the_api_key() -> None:
    requests: list[httpx.Request] = []

    def keep(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return running(request)

    answers = request_statuses(keep)

    (request,) = requests
    assert str(request.url) == "https://api.kie.ai/api/v1/flux/kontext/record-info?taskId=t1"
    assert request.method == "GET"
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("Catchlight/")
    assert (answers.requests, answers.errors, answers.is_busy) == (1, [], False)
    assert [(report.task_id, report.status, report.reported_at) for report in answers.reports] == [
        ("t1", TaskStatus.PENDING, NOW)
    ]


def test_redirects_are_not_followed() -> None:
    urls: list[str] = []

    def redirect(request: httpx.Request) -> httpx.Response:
        urls.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://elsewhere.example/"})

    assert len(request_statuses(redirect).errors) == 1
    assert len(urls) == 1


@pytest.mark.parametrize(
    ("fault", "named"),
    [(httpx.ConnectError("no"), "ConnectError"), (httpx.ReadTimeout("late"), "ReadTimeout")],
)
def test_a_request_without_an_answer_is_a_temporary_error(fault: Exception, named: str) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    (error,) = request_statuses(fail).errors
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == f"flux-kontext did not answer: {named}"


# ------------------------------------------------------------------------------------------------ answers


@pytest.mark.parametrize(("length", "is_read"), [(MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False)])
def test_an_answer_is_read_up_to_its_limit(length: int, is_read: bool) -> None:
    body = b'{"code": 200, "data": null}'
    answers = request_statuses(lambda _: httpx.Response(200, content=body + b" " * (length - len(body))))

    assert MAX_ANSWER_BYTES == 4 * 1024 * 1024
    assert len(answers.reports) == is_read
    assert [str(error) for error in answers.errors] == (
        [] if is_read else [f"the answer is longer than {MAX_ANSWER_BYTES} bytes"]
    )


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_json_is_a_temporary_error(body: bytes) -> None:
    (error,) = request_statuses(lambda _: httpx.Response(200, content=body)).errors
    assert isinstance(error, ProviderUnavailableError)


# ------------------------------------------------------------------------------------------------ when requests stop


@pytest.mark.parametrize(
    ("code", "error"), [(429, ProviderBusyError), (455, ProviderBusyError), (401, ProviderRefusedError)]
)
def test_requests_stop_if_the_provider_is_busy_or_refuses_the_account(code: int, error: type[Exception]) -> None:
    answers = request_statuses(
        lambda _: httpx.Response(200, json={"code": code}), *(f"t{number}" for number in range(50))
    )

    assert 1 <= answers.requests <= FIRST_REQUESTS == 10
    assert {type(each) for each in answers.errors} == {error}
    assert answers.is_busy is (error is ProviderBusyError)
    assert answers.reports == []


def test_other_errors_do_not_stop_requests() -> None:
    answers = request_statuses(lambda _: httpx.Response(500), *(f"t{number}" for number in range(20)))

    assert answers.requests == len(answers.errors) == 20


@pytest.mark.parametrize(("deadline", "requests"), [(0.0, 0), (0.5, 1), (float("inf"), 1)])
def test_no_request_is_sent_at_the_deadline_or_later(deadline: float, requests: int) -> None:
    answers = request_statuses(running, deadline=deadline)

    assert answers.requests == len(answers.reports) == requests
    assert answers.errors == []


def test_without_tasks_no_request_is_sent() -> None:
    client = ProviderClient({}, http=FakeHttp(running))

    assert client.request_statuses(FLUX, [], api_key="k3y", now=lambda: NOW).requests == 0


# ------------------------------------------------------------------------------------------------ refused batches


def request_batch(bad: set[str], ids: list[str]) -> provider_client.LookupResults:
    def refuse_bad_ids(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        requested_ids = body.get("ids") or [body["id"]]
        if bad & set(requested_ids):
            return httpx.Response(400, json={"error": {"code": "token_mismatched", "message": "invalid parameters"}})
        return httpx.Response(200, json={"items": [{"id": each} for each in requested_ids]})

    client = ProviderClient({}, http=FakeHttp(refuse_bad_ids))
    return client.request_statuses(PROVIDERS["acedata"], ids, api_key="k3y", now=lambda: NOW)


@pytest.mark.parametrize("bad", ["t0", "t25", "t49"])
def test_a_refused_batch_is_split_until_the_bad_id_is_isolated(bad: str) -> None:
    ids = [f"t{number}" for number in range(50)]

    answers = request_batch({bad}, ids)

    assert [report.task_id for report in answers.reports] == [each for each in ids if each != bad]
    assert [type(error) for error in answers.errors] == [RequestRefusedError]
    assert answers.requests <= 13


def test_a_batch_of_refused_ids_only_has_one_error_per_id() -> None:
    ids = [f"t{number}" for number in range(50)]

    answers = request_batch(set(ids), ids)

    assert answers.reports == []
    assert len(answers.errors) == 50
    assert answers.requests == 99


# ------------------------------------------------------------------------------------------------ one task


def status_lookup(respond: Respond) -> StatusLookup:
    client = ProviderClient({}, http=FakeHttp(respond))
    return StatusLookup(client, lambda provider: ProviderKeys(provider, {"apiKey": "k3y"}), now=lambda: NOW)


def test_the_error_of_a_request_for_one_task_is_raised() -> None:
    lookup = status_lookup(lambda _: httpx.Response(200, json={"code": 401}))

    with pytest.raises(ProviderRefusedError):
        lookup.request_status("flux-kontext#t1")


def test_an_answer_without_the_requested_task_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(FLUX), "parse_poll", lambda *_, **__: [])

    with pytest.raises(ProviderUnavailableError, match="the answer of flux-kontext does not contain the task"):
        status_lookup(running).request_status("flux-kontext#t1")


# ------------------------------------------------------------------------------------------------ connections


class Handler(LoopbackHandler):
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        code, body = (500, b"{}") if "bad" in self.path else (200, b'{"code": 200, "data": null}')
        self.answer(code, body, [])


@contextmanager
def serving() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("Counting", (Handler,), {"connections": 0})
    with LoopbackServer(handler) as server:
        yield f"http://127.0.0.1:{server.port}", handler


@pytest.mark.parametrize("first", ["good", "bad"])
def test_a_connection_is_kept_for_the_next_poll(first: str) -> None:
    with serving() as (url, handler):
        client = ProviderClient({"flux-kontext": url})
        for task_id in (first, "good", "good"):
            client.request_statuses(FLUX, [task_id], api_key="k3y", now=lambda: NOW)
        client.close()

    assert handler.connections == 1


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX-Wait: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["head", "body"])
def test_an_answer_that_arrives_byte_by_byte_ends_at_the_deadline(begin: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(begin)
        while True:  # until the client closes the connection
            connection.sendall(b"x")
            time.sleep(0.05)

    with listening(drip) as port:
        client = ProviderClient({"flux-kontext": f"http://127.0.0.1:{port}"}, timeout_seconds=1)
        (error,) = client.request_statuses(FLUX, ["t1"], api_key="k3y", now=lambda: NOW).errors

    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == "flux-kontext did not answer: ReadTimeout"


def test_a_batch_is_sent_as_json() -> None:
    requests: list[httpx.Request] = []

    def keep(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"items": [], "count": 0})

    ProviderClient({}, http=FakeHttp(keep)).request_statuses(
        PROVIDERS["acedata"], ["a", "b"], api_key="k3y", now=lambda: NOW
    )

    (request,) = requests
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert json.loads(request.content)["ids"] == ["a", "b"]

"""Submissions over real sockets: requests that were certainly not received, and those that may have been."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from catchlight.api.submission_client import MAX_ANSWER_BYTES, Reply, SubmissionClient
from catchlight.errors import ProviderUnavailableError, ProviderUnreachableError
from catchlight.providers import PROVIDERS
from tests.fake_http import FakeHttp

FLUX = PROVIDERS["flux-kontext"]
PATH = "/generate"
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"code": 200}'


@contextmanager
def a_server(behaviour: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[bytes]]]:
    """Runs a server with this behaviour after each request. Yields its URL, and the requests that it has read."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(60)
                    if request := read_request(connection):
                        received.append(request)
                        behaviour(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def read_request(connection: socket.socket) -> bytes:
    """Returns a complete request, or no bytes if the client closes the connection without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (received := connection.recv(65536)):
            assert data == b""
            return b""
        data += received
    head, _, body = data.partition(b"\r\n\r\n")
    (length,) = (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def send(url: str, client: SubmissionClient | None = None, prompt: str = "a lighthouse") -> int:
    client = client or SubmissionClient({"flux-kontext": url})
    return client.send(FLUX, PATH, {"prompt": prompt}, api_key="key").status


def test_the_answer_is_returned() -> None:
    with a_server(lambda connection: connection.sendall(OK)) as (url, received):
        reply = SubmissionClient({"flux-kontext": url}).send(FLUX, PATH, {"prompt": "ä\ud800"}, api_key="key")

    assert (reply.status, reply.json) == (200, {"code": 200})
    head, _, body = received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /generate HTTP/1.1\r\n")
    assert b"authorization: bearer key" in head.lower()
    assert json.loads(body) == {"prompt": "ä\ud800"}


def test_without_a_server_nothing_was_received() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

    with pytest.raises(ProviderUnreachableError):
        send(url)


def test_a_server_without_tls_has_not_received_the_request() -> None:
    def no_tls(connection: socket.socket) -> None:
        connection.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(60)
                connection.recv(65536)
                no_tls(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ProviderUnreachableError):
            send(f"https://127.0.0.1:{port}")
        thread.join()


@pytest.mark.parametrize(
    "behaviour",
    [
        lambda connection: None,
        lambda connection: connection.sendall(OK[:20]),
        lambda connection: connection.sendall(OK[:-1]),
        lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (MAX_ANSWER_BYTES + 1)),
    ],
    ids=["closed", "half a head", "half a body", "no HTTP", "too long"],
)
def test_a_server_that_has_read_the_request_may_have_accepted_it(behaviour: Callable[[socket.socket], None]) -> None:
    with a_server(behaviour) as (url, received), pytest.raises(ProviderUnavailableError) as caught:
        send(url)

    assert not isinstance(caught.value, ProviderUnreachableError)
    assert len(received) == 1  # the request is not sent again


def test_without_an_answer_in_time_the_outcome_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catchlight.api.submission_client.ANSWER_TIMEOUT_SECONDS", 2)
    done = threading.Event()

    def wait_until_done() -> None:
        done.wait(60)

    with a_server(lambda _: wait_until_done()) as (url, received):
        with pytest.raises(ProviderUnavailableError) as caught:
            send(url)
        done.set()

    assert not isinstance(caught.value, ProviderUnreachableError)
    assert len(received) == 1


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 200 OK\r\nX-Wait: ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"], ids=["head", "body"]
)
def test_an_answer_that_arrives_byte_by_byte_ends_at_the_timeout(begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catchlight.api.submission_client.ANSWER_TIMEOUT_SECONDS", 2)
    is_closed = threading.Event()

    def send_byte_by_byte(connection: socket.socket) -> None:
        connection.sendall(begin)
        while True:
            try:
                connection.sendall(b"x")
            except OSError:
                is_closed.set()
                return
            threading.Event().wait(0.05)

    with (
        a_server(send_byte_by_byte) as (url, received),
        pytest.raises(ProviderUnavailableError, match="did not answer: ReadTimeout") as caught,
    ):
        send(url)

    assert not isinstance(caught.value, ProviderUnreachableError)
    assert is_closed.wait(60)
    assert len(received) == 1


@pytest.mark.parametrize("api_key", ["\u201ckey\u201d", "key\nX-Other: 1", "k\u200bey", "k\0ey"])
def test_an_api_key_that_is_invalid_in_a_header_is_not_sent(api_key: str) -> None:
    with a_server(lambda connection: connection.sendall(OK)) as (url, received):
        client = SubmissionClient({"flux-kontext": url})
        with pytest.raises(ProviderUnreachableError) as caught:
            client.send(FLUX, PATH, {"prompt": "a lighthouse"}, api_key=api_key)
        assert send(url, client) == 200

    assert api_key not in str(caught.value)
    assert len(received) == 1


def test_a_connection_is_not_kept_for_the_next_request() -> None:
    """A kept connection that ended while the function was frozen would leave an unknown outcome."""
    with a_server(lambda connection: connection.sendall(OK)) as (url, received):
        client = SubmissionClient({"flux-kontext": url})
        assert [send(url, client), send(url, client)] == [200, 200]

    assert len(received) == 2


def test_no_redirect_is_followed() -> None:
    with a_server(lambda connection: connection.sendall(OK)) as (elsewhere, at_elsewhere):
        moved = b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % elsewhere.encode()
        with a_server(lambda connection: connection.sendall(moved)) as (url, _):
            assert send(url) == 307

    assert at_elsewhere == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"7", 7),
        (b"", None),
        (b"soon", None),
        (b"Wed, 21 Oct 2026 07:28:00 GMT", None),
        (b"-1", None),
        (b"9999999", None),
    ],
)
def test_retry_after_is_read(header: bytes, seconds: int | None) -> None:
    answer = b"HTTP/1.1 429 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % header
    with a_server(lambda connection: connection.sendall(answer)) as (url, _):
        reply = SubmissionClient({"flux-kontext": url}).send(FLUX, PATH, {}, api_key="key")

    assert (reply.status, reply.retry_after_seconds) == (429, seconds)


# ------------------------------------------------------------------------------------------------ without sockets


def reply_to(respond: Callable[[httpx.Request], httpx.Response]) -> Reply:
    client = SubmissionClient({}, http=FakeHttp(respond))
    return client.send(FLUX, PATH, {"prompt": "ä"}, api_key="k3y")


def test_a_request_is_sent_with_its_key() -> None:
    requests: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"code": 200})

    reply = reply_to(take)

    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", "https://api.kie.ai/generate")
    assert json.loads(request.content) == {"prompt": "ä"}
    assert request.headers["authorization"] == "Bearer k3y"
    assert request.headers["content-type"] == request.headers["accept"] == "application/json"
    assert reply == Reply(200, '{"code":200}')
    assert reply.json == {"code": 200}


@pytest.mark.parametrize("text", ["", "<html>", "[" * 60_000])
def test_an_answer_that_is_not_json_has_no_value(text: str) -> None:
    assert reply_to(lambda _: httpx.Response(200, text=text)).json is None


def test_an_answer_may_begin_with_a_byte_order_mark() -> None:
    assert reply_to(lambda _: httpx.Response(200, content=b'\xef\xbb\xbf{"code": 200}')).json == {"code": 200}


def test_an_answer_is_read_up_to_its_limit() -> None:
    assert len(reply_to(lambda _: httpx.Response(200, content=b"x" * 64 * 1024)).text) == 64 * 1024
    with pytest.raises(ProviderUnavailableError, match="longer than 65536 bytes"):
        reply_to(lambda _: httpx.Response(200, content=b"x" * (64 * 1024 + 1)))


@pytest.mark.parametrize(
    ("fault", "error", "reason"),
    [
        (httpx.ConnectError("no"), ProviderUnreachableError, "could not be reached: ConnectError"),
        (httpx.ConnectTimeout("no"), ProviderUnreachableError, "could not be reached: ConnectTimeout"),
        (httpx.ReadTimeout("no"), ProviderUnavailableError, "did not answer: ReadTimeout"),
        (httpx.WriteError("no"), ProviderUnavailableError, "did not answer: WriteError"),
        (httpx.RemoteProtocolError("no"), ProviderUnavailableError, "did not answer: RemoteProtocolError"),
    ],
)
def test_only_errors_before_the_request_mean_that_nothing_was_sent(
    fault: Exception, error: type[Exception], reason: str
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise fault

    with pytest.raises(ProviderUnavailableError, match=f"^flux-kontext {reason}$") as raised:
        reply_to(fail)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), ("7", 7), ("99999", 99_999), ("100000", None), ("-1", None), ("1.5", None), ("٣", None), ("soon", None)],
)
def test_retry_after_is_a_number_of_seconds(header: str, seconds: int | None) -> None:
    reply = reply_to(lambda _: httpx.Response(429, headers=[(b"retry-after", header.encode())]))

    assert (reply.status, reply.retry_after_seconds) == (429, seconds)

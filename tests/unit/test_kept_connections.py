"""Persistent connections to untrusted hosts: a connection is reused only if it has no unread bytes."""

import gc
import itertools
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpcore
import pytest

from catchlight import http_connections, outbound_http
from catchlight.http_connections import HTTP_ERRORS, Deadline, Exchange, ResponseTooLargeError
from catchlight.outbound_http import HttpClient
from tests.hostile.internet import Authority, Behaviour, listening, read_request

# A large body is longer than one read, so that its end arrives separately. A small one arrives with its head.
SIZES = {"large": 200_000, "small": 5}
NAMES = ("images.example", "other.example")


def response(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"HTTP/{version} 200 OK", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


FIRST, SECOND = b"1" * SIZES["large"], b"2" * SIZES["large"]


class Host:
    """A server that handles each request with the next one of its behaviours, and counts its connections."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = iter(behaviours)
        self.connections = 0
        self.closed = threading.Semaphore(0)

    def __call__(self, connection: socket.socket) -> None:
        self.connections += 1
        try:
            while True:
                read_request(connection)
                next(self.behaviours)(connection)
        except StopIteration:
            pass
        finally:
            self.closed.release()


class Resolver:
    """Resolves every name to the configured addresses."""

    def __init__(self) -> None:
        self.addresses = ["127.0.0.1"]
        self.names: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.names.append(host)
        if not self.addresses:
            raise PermissionError("not a public address")
        return self.addresses


def sends(body: bytes) -> Behaviour:
    return lambda connection: connection.sendall(response(body))


def hangs_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


def is_silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the client closes the connection


class Client:
    """Requests the same URL again and again."""

    def __init__(self, scheme: str, port: int) -> None:
        self.resolver = Resolver()
        self.http = HttpClient(self.resolver, keeps_connections=True, trusts_hosts=False)
        self._url = f"{scheme}://%s:{port}/a.png"

    def get(self, name: str = NAMES[0], method: str = "GET") -> bytes:
        exchange = Exchange(Deadline(60))
        with self.http.send(method, httpcore.URL(self._url % name), {}, exchange=exchange) as answer:
            return answer.read(10**6)

    def wait_for_unread_bytes(self) -> None:
        """Waits until what the host has sent arrives at the connections that are kept so far."""
        for connection in self.http._idle._connections:
            assert select.select([connection._socket], [], [], 60)[0]


@contextmanager
def requesting(host: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[Client]:
    with listening(host, tls) as port:
        client = Client("https" if tls else "http", port)
        yield client
        client.http.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext | None:
    if request.param == "plain":
        return None
    monkeypatch.setattr(outbound_http, "tls_context", authority.client)
    return authority.server(*NAMES)


# ------------------------------------------------------------------------------------------------ reused


@pytest.mark.parametrize("size", SIZES)
def test_a_connection_serves_further_requests(size: str, tls: ssl.SSLContext | None) -> None:
    bodies = [digit * SIZES[size] for digit in (b"1", b"2", b"3")]
    host = Host(*map(sends, bodies))
    with requesting(host, tls) as client:
        assert [client.get() for _ in bodies] == bodies
        assert client.resolver.names == [NAMES[0]] * 3  # the addresses are checked for every request

    assert host.connections == 1


def test_a_connection_serves_one_host_only() -> None:
    host = Host(*map(sends, [FIRST, SECOND]))
    with requesting(host) as client:
        assert [client.get(name) for name in NAMES] == [FIRST, SECOND]

    assert host.connections == 2


def test_a_connection_is_reused_after_a_chunked_response() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    host = Host(lambda connection: connection.sendall(chunked), sends(SECOND))
    with requesting(host) as client:
        assert [client.get(), client.get()] == [b"ok", SECOND]

    assert host.connections == 1


# ------------------------------------------------------------------------------------------------ not reused


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("is_same_write", [True, False], ids=["in the same write", "later"])
@pytest.mark.parametrize("more", [response(b"injected"), b"\0", b"HTTP/1.1 200 OK\r\n"], ids=["all", "byte", "head"])
def test_bytes_after_a_response_are_not_read_as_the_next_response(
    more: bytes, is_same_write: bool, size: str, tls: ssl.SSLContext | None
) -> None:
    first, is_read, is_sent = b"1" * SIZES[size], threading.Event(), threading.Event()

    def act(connection: socket.socket) -> None:
        connection.sendall(response(first) + (more if is_same_write else b""))
        assert is_read.wait(60)
        if not is_same_write:
            connection.sendall(more)
        is_sent.set()

    host = Host(act, sends(SECOND), sends(SECOND))
    with requesting(host, tls) as client:
        assert client.get() == first
        is_read.set()
        assert is_sent.wait(60)
        client.wait_for_unread_bytes()
        assert client.get() == SECOND

    assert host.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        response(FIRST, "Connection: close"),
        response(FIRST, "Connection: x, Close"),
        response(FIRST, version="1.0"),
        response(b"1", version="1.0"),
        response(b"1" * 2_000_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\ncut",
    ],
    ids=["close", "close among others", "HTTP/1.0", "small HTTP/1.0", "not read to its end", "cut off"],
)
def test_other_responses_are_followed_by_a_new_connection(answer: bytes) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(answer)
        if answer.endswith(b"cut"):
            hangs_up(connection)

    host = Host(act, sends(SECOND))
    with requesting(host) as client:
        with suppress(ResponseTooLargeError, *HTTP_ERRORS):
            client.get()
        assert client.get() == SECOND

    assert host.connections == 2


def test_a_connection_to_an_address_that_the_name_no_longer_has_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, addresses = socket.create_connection, []

    def create_connection(address: tuple[str, int], timeout: float) -> socket.socket:
        addresses.append(address[0])
        return connect(("127.0.0.1", address[1]), timeout)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    host = Host(*map(sends, [FIRST, SECOND, FIRST]))
    with requesting(host) as client:
        client.resolver.addresses = ["1.1.1.1"]
        assert client.get() == FIRST
        client.resolver.addresses = ["8.8.8.8", "9.9.9.9"]
        assert client.get() == SECOND
        client.resolver.addresses = ["9.9.9.9", "8.8.8.8"]
        assert client.get() == FIRST

    assert addresses == ["1.1.1.1", "8.8.8.8"]


def test_no_connection_is_kept_to_a_host_whose_addresses_are_refused() -> None:
    host = Host(*map(sends, [FIRST, SECOND]))
    with requesting(host) as client:
        assert client.get() == FIRST
        client.resolver.addresses = []
        with pytest.raises(httpcore.ConnectError):
            client.get()
        assert host.closed.acquire(timeout=60)
        client.resolver.addresses = ["127.0.0.1"]
        assert client.get() == SECOND

    assert host.connections == 2


# ------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize("fails", [hangs_up, is_silent])
def test_a_request_is_sent_again_if_a_kept_connection_does_not_answer(
    fails: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound_http, "REUSED_CONNECTION_SECONDS", 0.2)
    host = Host(sends(FIRST), fails, sends(SECOND))
    with requesting(host) as client:
        assert [client.get(), client.get()] == [FIRST, SECOND]

    assert host.connections == 2


def test_other_kept_connections_are_closed_with_the_one_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_http, "REUSED_CONNECTION_SECONDS", 0.2)
    both = threading.Barrier(2, timeout=60)

    def act(connection: socket.socket) -> None:
        both.wait()
        connection.sendall(response(FIRST))

    host = Host(act, act, is_silent, sends(SECOND))
    with requesting(host) as client:
        threads = [threading.Thread(target=client.get) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert client.get() == SECOND
        for _ in range(2):
            assert host.closed.acquire(timeout=60)

    assert host.connections == 3


def test_only_the_first_byte_of_a_response_has_the_short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound_http, "REUSED_CONNECTION_SECONDS", 0.2)
    sent = threading.Event()

    def act(connection: socket.socket) -> None:
        connection.sendall(response(SECOND)[:1])
        sent.wait(0.4)
        connection.sendall(response(SECOND)[1:])

    host = Host(sends(FIRST), act)
    with requesting(host) as client:
        assert [client.get(), client.get()] == [FIRST, SECOND]

    assert host.connections == 1


@pytest.mark.parametrize(
    ("method", "begin"), [("POST", b""), ("GET", b"HTTP/1.1 200 OK\r\n")], ids=["not idempotent", "response has begun"]
)
def test_other_requests_are_not_sent_again(method: str, begin: bytes) -> None:
    def act(connection: socket.socket) -> None:
        connection.sendall(begin)
        hangs_up(connection)

    host = Host(sends(FIRST), act, sends(SECOND))
    with requesting(host) as client:
        assert client.get() == FIRST
        with pytest.raises(HTTP_ERRORS):
            client.get(method=method)

    assert host.connections == 1


def test_a_new_connection_that_fails_is_not_tried_again() -> None:
    host = Host(hangs_up, sends(FIRST))
    with requesting(host) as client, pytest.raises(HTTP_ERRORS):
        client.get()

    assert host.connections == 1


# ------------------------------------------------------------------------------------------------ closed


def test_an_expired_connection_is_closed_by_a_request_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "KEEPALIVE_SECONDS", -1)
    host = Host(*map(sends, [FIRST, SECOND]))
    with requesting(host) as client:
        client.get(NAMES[0])
        client.get(NAMES[1])
        assert host.closed.acquire(timeout=60)


def test_the_number_of_idle_connections_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connections, "MAX_IDLE_CONNECTIONS", 2)
    host = Host(*itertools.repeat(sends(FIRST), 4))
    with requesting(host) as client:
        for number in range(3):
            client.get(f"{number}.example")
        assert host.closed.acquire(timeout=60)
        client.get("2.example")
        assert not host.closed.acquire(blocking=False)

    assert host.connections == 3


def test_connections_are_closed_when_their_client_is_collected() -> None:
    host = Host(sends(FIRST), sends(FIRST))
    with listening(host) as port:
        Client("http", port).get()
        gc.collect()
        assert host.closed.acquire(timeout=60)

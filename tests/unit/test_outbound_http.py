"""HTTP requests over real sockets: one deadline for the whole exchange, and whether a request was sent."""

import gzip
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace

import httpcore
import pytest

from catchlight import http_connections, outbound_http
from catchlight.http_connections import HTTP_ERRORS, KEEPALIVE_SECONDS, Deadline, Exchange, ResponseTooLargeError
from catchlight.outbound_http import (
    MAX_CONNECT_SECONDS,
    MIN_SHARE_SECONDS,
    HttpClient,
    resolve_host,
    tls_context,
)
from tests.hostile.internet import Authority, Behaviour, listening, read_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# Repetitions of endless servers: without the deadline, they would go on for longer than any test may take.
FOREVER = 10**6
SHORT = 0.4


def answers(*parts: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            connection.sendall(b"".join(parts))

    return behave


def drips(begin: bytes) -> Behaviour:
    """Sends the beginning, then one byte every 50 ms for ever, so that each single read is in time."""

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(begin)
        for _ in range(FOREVER):
            connection.sendall(b"x")
            time.sleep(0.05)

    return behave


def send(
    url: str,
    client: HttpClient | None = None,
    *,
    seconds: float = 60,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    content: bytes = b"",
    exchange: Exchange | None = None,
    max_bytes: int = 1000,
) -> bytes:
    exchange = exchange or Exchange(Deadline(seconds))
    client = client or HttpClient()
    with client.send(method, httpcore.URL(url), headers or {}, content, exchange=exchange) as response:
        return response.read(max_bytes)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def serving(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with listening(behave, tls) as port:
        yield f"{'https' if tls else 'http'}://localhost:{port}"


def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


# ------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://h.example/a?b", b"h.example"),
        ("https://h.example:443/a?b", b"h.example"),
        ("https://h.example:8443/a?b", b"h.example:8443"),
        ("http://h.example:80/a?b", b"h.example"),
        ("http://h.example:443/a?b", b"h.example:443"),
        ("http://[::1]:8000/a?b", b"[::1]:8000"),
    ],
)
def test_a_request_has_the_host_header_of_its_url(url: str, host: bytes) -> None:
    request = http_connections.http_request("GET", httpcore.URL(url), {"X-A": "1"}, b"")

    assert request.head.target == b"/a?b"
    assert request.head.headers.raw_items() == [(b"Host", host), (b"X-A", b"1")]


def test_the_server_receives_method_headers_and_content() -> None:
    received = []

    def behave(connection: socket.socket) -> None:
        received.append(read_request(connection))
        connection.sendall(OK)

    with serving(behave) as url:
        assert send(f"{url}/a/b?c=%2Fd", method="POST", headers={"X-A": "ä"}, content=b"12345") == b"ok"

    head, _, body = received[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a/b?c=%2Fd HTTP/1.1\r\n")
    assert {b"X-A: \xe4", b"Connection: close", b"Content-Length: 5"} <= set(head.split(b"\r\n"))
    assert body in (b"", b"12345")  # the rest of the request may arrive later


def test_repeated_headers_are_joined_under_their_names_in_lower_case() -> None:
    headers = [(b"A-B", b"1"), (b"c", b"\xe4"), (b"a-b", b"2"), (b"A-b", b"3")]

    assert http_connections._joined(headers) == {"a-b": "1, 2, 3", "c": "ä"}


def test_tls_verifies_the_host_name_of_a_resolved_address(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound_http, "tls_context", authority.client)
    client = HttpClient(loopback)
    with listening(answers(OK), authority.server("good.example")) as port:
        assert send(f"https://good.example:{port}/", client) == b"ok"
        with pytest.raises(httpcore.ConnectError) as raised:
            send(f"https://other.example:{port}/", client)

    assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)


def test_certificates_are_verified_by_default(authority: Authority) -> None:
    with listening(answers(OK), authority.server("localhost")) as port, pytest.raises(httpcore.ConnectError):
        send(f"https://localhost:{port}/")

    assert tls_context().verify_mode is ssl.CERT_REQUIRED
    assert tls_context().check_hostname


# ------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(("length", "is_read"), [(1000, True), (1001, False)])
@pytest.mark.parametrize("is_compressed", [False, True], ids=["plain", "gzip"])
def test_a_body_is_read_up_to_its_limit(length: int, is_read: bool, is_compressed: bool) -> None:
    body = b"x" * length
    sent = gzip.compress(body) if is_compressed else body
    coding = b"Content-Encoding: gzip\r\n" if is_compressed else b""
    with serving(answers(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n%s" % (len(sent), coding, sent))) as url:
        if is_read:
            assert send(url) == body
        else:
            with pytest.raises(ResponseTooLargeError):
                send(url)


@pytest.mark.parametrize("body", [gzip.compress(b"x" * 100)[:-1], b"not compressed"], ids=["cut", "plain"])
def test_a_body_that_cannot_be_decompressed_is_a_protocol_error(body: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with serving(answers(head, body)) as url, pytest.raises(httpcore.RemoteProtocolError):
        send(url)


# ------------------------------------------------------------------------------------------------ one deadline


def silent(connection: socket.socket) -> None:
    read_request(connection)
    connection.recv(1)  # until the client closes the connection


def reads_nothing(connection: socket.socket) -> None:
    time.sleep(120)


def reads_slowly(connection: socket.socket) -> None:
    for _ in range(FOREVER):
        if not connection.recv(4096):
            return
        time.sleep(0.01)


SLOW = {
    "no answer": (silent, 0),
    "head byte by byte": (drips(b"HTTP/1.1 200 OK\r\nX-Padding: "), 0),
    "body byte by byte": (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"), 0),
    "request not read": (reads_nothing, 50_000_000),
    "request read slowly": (reads_slowly, 50_000_000),
}


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("name", SLOW)
def test_one_deadline_covers_everything(
    name: str, is_encrypted: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound_http, "tls_context", authority.client)
    behave, length = SLOW[name]
    with serving(behave, authority.server("localhost") if is_encrypted else None) as url:
        started_at = time.monotonic()
        with pytest.raises(httpcore.TimeoutException):
            send(url, HttpClient(loopback), seconds=SHORT, method="POST", content=b"x" * length, max_bytes=10**9)

    assert SHORT * 0.9 <= time.monotonic() - started_at < 60


@pytest.mark.parametrize("is_silent", [True, False], ids=["no answer", "byte by byte"])
def test_the_deadline_covers_the_tls_handshake(is_silent: bool) -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        for byte in b"\x16\x03\x03\x40\x00" + bytes(10_000):
            if is_silent:
                connection.recv(1)
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    exchange = Exchange(Deadline(SHORT))
    with listening(behave) as port, pytest.raises(httpcore.ConnectTimeout):
        send(f"https://localhost:{port}/", HttpClient(loopback), exchange=exchange)
    assert not exchange.was_sent


def test_no_time_is_left_after_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(http_connections, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    deadline = Deadline(60)

    assert deadline.seconds_left() == 60
    clock[0] += 59.5
    assert deadline.seconds_left() == 0.5
    clock[0] += 0.5  # a timeout of 0 would make a socket non-blocking
    with pytest.raises(TimeoutError):
        deadline.seconds_left()


# ------------------------------------------------------------------------------------------------ resolving


@pytest.fixture
def hanging() -> Iterator[Callable[[str, int], list[str]]]:
    """A resolver that never answers for names that begin with "hangs"."""
    released = threading.Event()

    def resolve(host: str, port: int) -> list[str]:
        if host.startswith("hangs"):
            released.wait()
        return ["127.0.0.1"]

    yield resolve
    released.set()


def test_the_deadline_covers_a_resolver_that_hangs(hanging: Callable[[str, int], list[str]]) -> None:
    exchange = Exchange(Deadline(0.1))
    with pytest.raises(httpcore.ConnectTimeout):
        send("http://hangs.example/", HttpClient(hanging), exchange=exchange)

    assert not exchange.was_sent


def test_names_whose_resolution_hangs_do_not_delay_other_names(hanging: Callable[[str, int], list[str]]) -> None:
    client = HttpClient(hanging)
    for number in range(100):
        with pytest.raises(httpcore.ConnectTimeout):
            send(f"http://hangs{number}.example/", client, seconds=0.001)

    with listening(answers(OK)) as port:
        assert send(f"http://answers.example:{port}/", client) == b"ok"


def test_errors_of_the_resolver_are_passed_on() -> None:
    class RefusedError(Exception):
        pass

    def refuse(host: str, port: int) -> list[str]:
        raise RefusedError

    with pytest.raises(RefusedError):
        send("http://a.example/", HttpClient(refuse))


def test_a_name_that_does_not_exist_is_a_connection_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_name(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", no_such_name)
    with pytest.raises(httpcore.ConnectError):
        send("http://a.example/")


def test_a_resolved_host_has_each_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 80)) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    assert resolve_host("a.example", 80) == ["192.0.2.1", "192.0.2.2"]


# ------------------------------------------------------------------------------------------------ several addresses


class Network:
    """Replaces `socket.create_connection`. A connection to an unreachable address takes its whole timeout."""

    def __init__(self, unreachable: Sequence[str], port: int) -> None:
        self.unreachable = unreachable
        self.port = port
        self.tried: list[tuple[str, float]] = []
        self.now = 1000.0
        self._connect = socket.create_connection

    def monotonic(self) -> float:
        return self.now

    def create_connection(self, address: tuple[str, int], timeout: float) -> socket.socket:
        self.tried.append((address[0], timeout))
        if address[0] in self.unreachable:
            self.now += timeout
            raise TimeoutError
        return self._connect(("127.0.0.1", self.port), timeout=60)


@pytest.mark.parametrize(
    ("unreachable", "addresses", "seconds", "tried"),
    [
        (["a"], ["a", "b"], 7.5, [2.0, 2.0]),
        (["a"], ["a", "b"], 3.0, [1.5, 1.5]),
        (["a", "b", "c"], ["a", "b", "c", "d"], 6.0, [1.5, 1.5, 1.5, 1.5]),
        (["a", "b"], list("abcdefghijklmnop"), 7.5, [1.0, 1.0, 1.0]),
        ([], ["a", "b"], 7.5, [2.0]),
        ([], ["a"], 1.5, [1.5]),
    ],
)
def test_each_address_has_a_share_of_the_deadline(
    monkeypatch: pytest.MonkeyPatch, unreachable: list[str], addresses: list[str], seconds: float, tried: list[float]
) -> None:
    with listening(answers(OK)) as port:
        network = Network(unreachable, port)
        monkeypatch.setattr(socket, "create_connection", network.create_connection)
        monkeypatch.setattr(http_connections, "time", network)
        assert send("http://images.example/", HttpClient(lambda *_: addresses), seconds=seconds) == b"ok"

    assert network.tried == list(zip(addresses, tried, strict=False))


def test_unreachable_addresses_take_no_longer_than_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network("abcdefghijklmnop", 0)
    monkeypatch.setattr(socket, "create_connection", network.create_connection)
    monkeypatch.setattr(http_connections, "time", network)
    with pytest.raises(httpcore.ConnectTimeout):
        send("http://images.example/", HttpClient(lambda *_: "abcdefghijklmnop"), seconds=7.5)

    assert network.now == pytest.approx(1007.5)
    assert (MAX_CONNECT_SECONDS, MIN_SHARE_SECONDS) == (2.0, 1.0)


def test_an_address_without_a_tls_handshake_leaves_time_for_the_next(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load balancer without working servers accepts connections, but does not answer TLS handshakes."""
    monkeypatch.setattr(outbound_http, "tls_context", authority.client)
    connect = socket.create_connection
    with listening(silent) as first, listening(answers(OK), authority.server("images.example")) as second:
        ports = {"first": first, "second": second}
        monkeypatch.setattr(
            socket, "create_connection", lambda to, timeout: connect(("127.0.0.1", ports[to[0]]), timeout=timeout)
        )
        # The first has half of the deadline. The rest is enough for a handshake, also on a busy machine.
        assert send("https://images.example/", HttpClient(lambda *_: ["first", "second"]), seconds=10) == b"ok"


def test_a_refused_connection_leads_to_the_next_address() -> None:
    with listening(answers(OK)) as port:
        client = HttpClient(lambda *_: ["::1", "127.0.0.1"])  # the server listens on the second only
        assert send(f"http://images.example:{port}/", client) == b"ok"


def test_no_address_is_a_connection_error() -> None:
    with pytest.raises(httpcore.ConnectError):
        send("http://a.example/", HttpClient(lambda *_: []))


# ------------------------------------------------------------------------------------------------ sent or not


def closes_connection(connection: socket.socket) -> None:
    read_request(connection)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"Authorization": "Bearer \u201ckey\u201d"}, UnicodeEncodeError),
        ({"Authorization": "Bearer key\nX-Other: 1"}, httpcore.LocalProtocolError),
        ({"Authorization": "Bearer k\x00y"}, httpcore.LocalProtocolError),
    ],
)
@pytest.mark.parametrize("keeps_connections", [False, True])
def test_a_header_that_http_does_not_allow_is_not_sent(
    headers: dict[str, str], error: type[Exception], keeps_connections: bool
) -> None:
    exchange = Exchange(Deadline(60))
    client = HttpClient(keeps_connections=keeps_connections)
    with serving(answers(OK)) as url:
        with pytest.raises(error):
            send(url, client, headers=headers, exchange=exchange)
        assert not exchange.was_sent
        assert send(url, client) == b"ok"
        client.close()


def test_nothing_was_sent_if_the_port_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    exchange = Exchange(Deadline(60))

    with pytest.raises(httpcore.ConnectError):
        send(f"http://127.0.0.1:{port}/", exchange=exchange)
    assert not exchange.was_sent


def test_nothing_was_sent_if_the_server_has_no_tls() -> None:
    def behave(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(OK)

    exchange = Exchange(Deadline(60))
    with listening(behave) as port, pytest.raises(httpcore.ConnectError):
        send(f"https://localhost:{port}/", exchange=exchange)
    assert not exchange.was_sent


def test_nothing_is_sent_after_the_deadline() -> None:
    origin = httpcore.URL("http://localhost/").origin
    request = http_connections.http_request("GET", httpcore.URL("http://localhost/"), {}, b"")
    exchange = Exchange(Deadline(0))
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(httpcore.WriteTimeout):
        http_connections.HttpConnection(origin, "127.0.0.1", ours).send(request, exchange)
    assert not exchange.was_sent


@pytest.mark.parametrize(
    "behave", [closes_connection, answers(OK[:20]), answers(b"SSH-2.0\r\n")], ids=["closed", "cut", "no HTTP"]
)
def test_a_request_counts_as_sent_from_its_first_byte(behave: Behaviour) -> None:
    exchange = Exchange(Deadline(SHORT))
    with serving(behave) as url, pytest.raises(HTTP_ERRORS):
        send(url, exchange=exchange)
    assert exchange.was_sent


# ------------------------------------------------------------------------------------------------ kept connections


class Counting:
    """A server that answers every request of a connection, and counts the connections."""

    def __init__(self, answer: bytes = OK, *, closes: bool = False) -> None:
        self.answer = answer
        self.closes = closes
        self.connections = 0
        self.closed = threading.Semaphore(0)

    def __call__(self, connection: socket.socket) -> None:
        self.connections += 1
        try:
            while True:
                read_request(connection)
                connection.sendall(self.answer)
                if self.closes:
                    connection.shutdown(socket.SHUT_RDWR)
        finally:
            self.closed.release()


def test_each_request_has_its_own_connection() -> None:
    server = Counting()
    with serving(server) as url:
        client = HttpClient()
        assert [send(url, client) for _ in range(3)] == [b"ok"] * 3
        for _ in range(3):
            assert server.closed.acquire(timeout=60)

    assert server.connections == 3


def test_bytes_after_a_response_are_not_read_as_the_next_response() -> None:
    server = Counting(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected")
    with serving(server) as url:
        client = HttpClient()
        assert [send(url, client) for _ in range(3)] == [b"ok"] * 3


def test_a_connection_is_kept_if_the_client_keeps_connections() -> None:
    server = Counting()
    with serving(server) as url:
        client = HttpClient(keeps_connections=True)
        assert [send(url, client) for _ in range(3)] == [b"ok"] * 3
        client.close()
        assert server.closed.acquire(timeout=60)

    assert server.connections == 1


def test_a_kept_connection_has_the_deadline_of_its_current_request(monkeypatch: pytest.MonkeyPatch) -> None:
    elapsed = 0.0
    monkeypatch.setattr(http_connections, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + elapsed))
    monkeypatch.setattr(http_connections, "KEEPALIVE_SECONDS", 1000)
    received = []

    def behave(connection: socket.socket) -> None:
        while True:
            received.append(read_request(connection))
            if len(received) < 3:
                connection.sendall(OK)

    with serving(behave) as url:
        client = HttpClient(keeps_connections=True)
        for _ in range(2):
            assert send(url, client, seconds=60) == b"ok"
            elapsed += 60
        with pytest.raises(httpcore.ReadTimeout):
            send(url, client, seconds=SHORT)


def test_a_connection_that_its_server_has_closed_is_not_used() -> None:
    server = Counting(closes=True)
    with serving(server) as url:
        client = HttpClient(keeps_connections=True)
        for _ in range(2):
            assert send(url, client) == b"ok"
            assert server.closed.acquire(timeout=60)
        client.close()

    assert server.connections == 2


def test_a_connection_whose_response_was_not_read_is_not_kept() -> None:
    server = Counting(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000)
    with serving(server) as url:
        client = HttpClient(keeps_connections=True)
        for _ in range(2):
            with pytest.raises(ResponseTooLargeError):
                send(url, client)

    assert server.connections == 2


def test_a_connection_is_kept_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEEPALIVE_SECONDS == 5.0
    monkeypatch.setattr(http_connections, "KEEPALIVE_SECONDS", 0.01)
    server = Counting()
    with serving(server) as url:
        client = HttpClient(keeps_connections=True)
        for _ in range(2):
            assert send(url, client) == b"ok"
            time.sleep(0.05)
        client.close()

    assert server.connections == 2


def test_simultaneous_requests_have_separate_connections() -> None:
    both = threading.Barrier(2, timeout=60)
    server = Counting()

    def behave(connection: socket.socket) -> None:
        server.connections += 1
        while True:
            read_request(connection)
            both.wait()
            connection.sendall(OK)

    with serving(behave) as url:
        client = HttpClient(keeps_connections=True)
        for _ in range(2):
            threads = [threading.Thread(target=send, args=(url, client)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        client.close()

    assert server.connections == 2

"""A connection to an image host serves the next image only if nothing can be left in it of the one before."""

import itertools
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Barrier, Event
from typing import Any

import httpx
import pytest

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.images import connections as connections_module
from catchlight.images import fetcher as fetcher_module
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.url_policy import UrlPolicy
from tests.hostile.behaviours import CHUNKED, chunks, head, sized
from tests.hostile.internet import Authority, Behaviour, listening, read_request
from tests.image_server import large_picture, take

FIRST, SECOND, INJECTED = large_picture(1), large_picture(2), large_picture(3)
HOSTS = ["images.example", "other.example"]


class AnyPortUrlPolicy(UrlPolicy):
    """Lets the names through that the tests use, to loopback."""

    def check_url(self, url: str, allowed_hosts: Iterable[str]) -> str:
        return httpx.URL(url).host

    def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]


class Host:
    """An image host that is told what to do with each request; counts its connections."""

    def __init__(self, *acts: Callable[[socket.socket], object]) -> None:
        self.acts = iter(acts)
        self.connections = 0

    def behave(self, connection: socket.socket) -> None:
        self.connections += 1
        while True:
            read_request(connection)
            next(self.acts)(connection)


def sends(*parts: bytes, pause: float = 0.0) -> Behaviour:
    def act(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
            time.sleep(pause)

    return act


def hangs_up(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def fetching(host: Host, tls: ssl.SSLContext | None = None) -> Iterator[Callable[..., bytes]]:
    """Fetches the next image from a running host."""
    with listening(host.behave, tls) as port:
        fetcher = ImageFetcher(AnyPortUrlPolicy())

        def fetch(name: str = "images.example") -> bytes:
            return take(fetcher, f"{'https' if tls else 'http'}://{name}:{port}/a.png", HOSTS).content

        yield fetch


def test_images_of_one_host_come_over_one_connection() -> None:
    host = Host(sends(sized(FIRST)), sends(sized(SECOND)), sends(sized(FIRST)))
    with fetching(host) as fetch:
        assert [fetch(), fetch(), fetch()] == [FIRST, SECOND, FIRST]

    assert host.connections == 1


def test_every_host_has_its_own() -> None:
    host = Host(sends(sized(FIRST)), sends(sized(SECOND)))
    with fetching(host) as fetch:
        assert [fetch("images.example"), fetch("other.example")] == [FIRST, SECOND]

    assert host.connections == 2


def test_every_image_under_way_has_its_own() -> None:
    both = Barrier(2)

    def act(connection: socket.socket) -> None:
        both.wait(timeout=60)
        connection.sendall(sized(FIRST))

    host = Host(*itertools.repeat(act, 4))
    with fetching(host) as fetch, ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            assert list(threads.map(lambda _: fetch(), range(2))) == [FIRST, FIRST]

    assert host.connections == 2


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("is_at_once", [True, False], ids=["at once", "later"])
@pytest.mark.parametrize("more", [sized(INJECTED), INJECTED, b"\0", head()], ids=["answer", "image", "byte", "head"])
def test_what_follows_an_image_is_not_the_next_one(
    more: bytes,
    is_at_once: bool,
    is_encrypted: bool,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tls = None
    if is_encrypted:
        authority = Authority(tmp_path_factory.mktemp("authority"))
        tls = authority.server(*HOSTS)
        monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: authority.client())
    answer = sends(sized(FIRST) + more) if is_at_once else sends(sized(FIRST), more, pause=0.05)
    host = Host(answer, sends(sized(SECOND)), sends(sized(SECOND)))

    with fetching(host, tls) as fetch:
        first = fetch()
        time.sleep(0.3)  # it has come by now
        assert [first, fetch()] == [FIRST, SECOND]

    assert host.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        sized(FIRST, "Connection: close"),
        sized(FIRST, version="HTTP/1.0"),
        CHUNKED + chunks(FIRST) + b"0\r\n\r\n",
        sized(b"not an image" * 20_000),
        sized(FIRST, status="500 Oh"),
    ],
    ids=["said so", "HTTP/1.0", "length not told", "not read to its end", "no answer"],
)
def test_after_another_answer_there_is_a_new_one(answer: bytes) -> None:
    host = Host(sends(answer), sends(sized(SECOND)))
    with fetching(host) as fetch:
        with suppress(ImageRejectedError, ImageUnavailableError):
            assert fetch() == FIRST
        assert fetch() == SECOND

    assert host.connections == 2


@pytest.mark.parametrize("when", ["while nobody asks", "when it is asked"])
def test_a_connection_that_its_host_has_closed_costs_nothing(when: str) -> None:
    is_closed = Event()

    def answer_and_close(connection: socket.socket) -> None:
        connection.sendall(sized(FIRST))
        if when == "while nobody asks":
            hangs_up(connection)
            is_closed.set()

    host = Host(answer_and_close, *([hangs_up] if when == "when it is asked" else []), sends(sized(SECOND)))
    with fetching(host) as fetch:
        assert fetch() == FIRST
        assert when == "when it is asked" or is_closed.wait(timeout=60)
        assert fetch() == SECOND

    assert host.connections == 2


def test_a_new_connection_that_is_closed_is_not_tried_again() -> None:
    host = Host(hangs_up, sends(sized(FIRST)))
    with fetching(host) as fetch, pytest.raises(ImageUnavailableError, match="connection failed"):
        fetch()

    assert host.connections == 1


def test_nothing_is_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "KEPT_SECONDS", 0.01)
    host = Host(sends(sized(FIRST)), sends(sized(SECOND)))
    with fetching(host) as fetch:
        first = fetch()
        time.sleep(0.05)
        assert [first, fetch()] == [FIRST, SECOND]

    assert host.connections == 2


def test_what_is_old_is_closed_when_another_host_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections_module, "KEPT_SECONDS", 0.01)
    closed = Event()

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(sized(FIRST))
        if connection.recv(1) == b"":
            closed.set()

    with listening(behave) as port:
        fetcher = ImageFetcher(AnyPortUrlPolicy())
        take(fetcher, f"http://images.example:{port}/a.png", HOSTS)
        time.sleep(0.05)
        assert not closed.is_set()
        take(fetcher, f"http://other.example:{port}/a.png", HOSTS)
        assert closed.wait(timeout=60)


def test_a_deadline_is_of_one_image_not_of_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 2.0)
    host = Host(*itertools.repeat(sends(sized(FIRST)), 3))
    with fetching(host) as fetch:
        for _ in range(3):
            assert fetch() == FIRST
            time.sleep(1.0)

    assert host.connections == 1


def test_what_nobody_fetches_with_any_more_is_closed() -> None:
    closed = Event()

    def behave(connection: Any) -> None:
        read_request(connection)
        connection.sendall(sized(FIRST))
        if connection.recv(1) == b"":
            closed.set()

    with listening(behave) as port:
        take(ImageFetcher(AnyPortUrlPolicy()), f"http://images.example:{port}/a.png", HOSTS)
        assert closed.wait(timeout=60)

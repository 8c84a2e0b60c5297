"""Servers that behave badly: each is done with in time, in little memory, and nothing but whole images comes of it."""

import logging
import socket
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from catchlight.errors import ImageError, ImageRejectedError, ImageUnavailableError
from catchlight.images import fetcher as fetcher_module
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.url_policy import UrlPolicy
from tests.hostile.behaviours import BEHAVIOURS, IMAGES, PNG, Server, drips, rows, sends, sized, stalls, unsized
from tests.hostile.internet import Behaviour, listening, read_request
from tests.image_server import LoopbackUrlPolicy, take

# What all of them together may cost.
MAX_GROWTH_BYTES = 64 * 1024 * 1024

QUERY = "sig=s3cret"


def answering(act: Behaviour) -> Behaviour:
    """Acts once the request has come."""

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        act(connection)

    return behave


def fetch(port: int, server: Server) -> ImageError | None:
    """What comes of one fetch; an image must be one of those that the table has."""
    url = f"http://images.example:{port}/a.png?{QUERY}"
    try:
        fetched = take(ImageFetcher(LoopbackUrlPolicy(port)), url)
    except ImageError as exc:
        return exc
    assert fetched.content in IMAGES.values()
    return None


def test_the_table_is_large_and_without_repetition() -> None:
    names = [name for name, _ in rows()]
    assert len(names) >= 200
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_only_whole_images_come_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = BEHAVIOURS[name]
    if server.is_slow:
        monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 0.3)
    with listening(answering(server.act)) as port:
        problem = fetch(port, server)

    assert type(problem) is (server.error or type(None)), problem
    if problem:
        with pytest.raises(ImageError, match=server.says):
            raise problem
        assert QUERY not in repr(problem)
        assert "/a.png" not in str(problem)


def test_the_real_deadline_holds_against_the_slowest() -> None:
    slowest = [
        stalls(),
        drips(unsized(PNG)),
        drips(PNG, unsized(b"")),
        BEHAVIOURS["informational answers without end"].act,
    ]

    def fetch_from(act: Behaviour) -> ImageError | None:
        with listening(answering(act)) as port:
            return fetch(port, Server(act))

    with ThreadPoolExecutor(len(slowest)) as threads:
        for problem in threads.map(fetch_from, slowest):
            # They would go on for ever: nothing but the deadline ends them.
            assert isinstance(problem, ImageUnavailableError)
            assert "did not arrive within 7.5 s" in str(problem)


def test_all_of_them_together_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 1.0)
    with ExitStack() as stack:
        servers = [(stack.enter_context(listening(answering(server.act))), server) for _, server in rows()]
        tracemalloc.start()
        try:
            with ThreadPoolExecutor(16) as threads:
                problems = list(threads.map(lambda row: fetch(*row), servers))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert peak < MAX_GROWTH_BYTES
    accepted = [server for problem, (_, server) in zip(problems, servers, strict=True) if problem is None]
    assert all(server.error is None for server in accepted)


@pytest.mark.parametrize("name", ["PNG with a length", "status 500", "redirect to itself", "reset in the body"])
def test_nothing_is_logged_that_would_fetch_the_image(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with listening(answering(BEHAVIOURS[name].act)) as port:
        fetch(port, BEHAVIOURS[name])

    assert QUERY not in caplog.text


# ------------------------------------------------------------------------------------------------ one after another


@pytest.mark.parametrize(
    "more",
    [
        sized(b"<html>not yours</html>"),
        sized(PNG, "X-Poison: 1"),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"garbage",
    ],
    ids=["an answer", "an image", "a redirect", "garbage"],
)
def test_what_follows_an_answer_is_not_the_answer_to_the_next_request(more: bytes) -> None:
    answers = iter([sized(PNG, "Connection: keep-alive") + more, sized(IMAGES["GIF"])])

    def behave(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            connection.sendall(next(answers))

    with listening(behave) as port:
        fetcher = ImageFetcher(LoopbackUrlPolicy(port))
        types = []
        for _ in range(2):
            fetched = take(fetcher, f"http://images.example:{port}/a")
            types.append(fetched.facts.content_type)

    assert types == ["image/png", "image/gif"]


# ------------------------------------------------------------------------------------------------ below HTTP


class LedAstray(UrlPolicy):
    """The URL policy of deployed functions, with every name resolved to a port on loopback that should speak TLS."""

    def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]


@pytest.fixture
def led_astray(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    ports: dict[str, int] = {}
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda _, *args, **kwargs: connect(("127.0.0.1", ports["tls"]), *args, **kwargs)
    )
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 0.4)
    return ports


@pytest.mark.parametrize(
    ("behave", "says"),
    [
        pytest.param(stalls(), "did not arrive within", id="silence"),
        pytest.param(drips(b"\x16\x03\x03\x40\x00" + bytes(1000)), "did not arrive within", id="byte by byte"),
        pytest.param(sends(), "connection failed", id="nothing"),
        pytest.param(sends(sized(PNG)), "connection failed", id="plain HTTP"),
        pytest.param(sends(b"\x15\x03\x01\x00\x02\x02\x28"), "connection failed", id="alert"),
        pytest.param(sends(b"\x16\x03\x01\xff\xff" + bytes(70000)), "connection failed", id="record too large"),
    ],
)
def test_handshakes_that_lead_nowhere(led_astray: dict[str, int], behave: Behaviour, says: str) -> None:
    def handshake(connection: socket.socket) -> None:
        connection.recv(65536)
        behave(connection)

    with listening(handshake) as led_astray["tls"], pytest.raises(ImageUnavailableError, match=says):
        take(ImageFetcher(LedAstray()), "https://images.example/a.png")


@pytest.mark.parametrize("url", ["http://images.example/a.png", "https://127.0.0.1/a.png"])
def test_the_url_policy_is_applied_before_any_connection(led_astray: dict[str, int], url: str) -> None:
    with pytest.raises(ImageRejectedError):
        take(ImageFetcher(LedAstray()), url, ["*"])

"""Tests that downloads from faulty servers end in time, use little memory, and accept only complete images."""

import hashlib
import logging
import socket
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from catchlight.errors import ImageError, ImageRejectedError, ImageUnavailableError
from catchlight.images import fetcher as fetcher_module
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.stream import BLOCK_BYTES
from catchlight.images.url_policy import UrlPolicy
from tests.hostile.behaviours import BEHAVIOURS, IMAGES, PNG, Server, drip, rows, send, sized, stall, unsized
from tests.hostile.internet import Behaviour, listening, read_request
from tests.image_server import LoopbackUrlPolicy, download_image

CONCURRENT_DOWNLOADS = 16
# The memory of one download is documented at `SPOOL_BYTES`: 2 MB.
MAX_GROWTH_BYTES = CONCURRENT_DOWNLOADS * 2 * 1024 * 1024

QUERY = "sig=s3cret"
URL = f"http://images.example:{{port}}/a.png?{QUERY}"
DIGESTS = {hashlib.sha256(image).digest() for image in IMAGES.values()}


def after_request(act: Behaviour) -> Behaviour:
    """Runs the behaviour after the request has been received."""

    def behave(connection: socket.socket) -> None:
        read_request(connection)
        act(connection)

    return behave


def fetch(port: int, server: Server) -> ImageError | None:
    """Returns the error of one download, or None; a downloaded image must equal one of IMAGES."""
    try:
        fetched = download_image(ImageFetcher(LoopbackUrlPolicy(port)), URL.format(port=port))
    except ImageError as exc:
        return exc
    assert fetched.content in IMAGES.values()
    return None


def discard(port: int) -> ImageError | None:
    """Downloads an image without keeping it in memory. Returns the error, or None."""
    try:
        with ImageFetcher(LoopbackUrlPolicy(port)).fetch(URL.format(port=port), ["images.example"]) as image:
            while image.read(BLOCK_BYTES):
                pass
            assert image.sha256() in DIGESTS
    except ImageError as exc:
        return exc
    return None


def test_there_are_many_behaviours_with_unique_names() -> None:
    names = [name for name, _ in rows()]
    assert len(names) >= 200
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_only_complete_images_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = BEHAVIOURS[name]
    if server.is_slow:
        monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 0.3)
    with listening(after_request(server.act)) as port:
        problem = fetch(port, server)

    assert type(problem) is (server.error or type(None)), problem
    if problem:
        with pytest.raises(ImageError, match=server.message):
            raise problem
        assert QUERY not in repr(problem)
        assert "/a.png" not in str(problem)


def test_the_deadline_ends_the_slowest_downloads() -> None:
    slowest = [
        stall(),
        drip(unsized(PNG)),
        drip(PNG, unsized(b"")),
        BEHAVIOURS["informational responses without end"].act,
    ]

    def fetch_from(act: Behaviour) -> ImageError | None:
        with listening(after_request(act)) as port:
            return fetch(port, Server(act))

    with ThreadPoolExecutor(len(slowest)) as threads:
        for problem in threads.map(fetch_from, slowest):
            assert isinstance(problem, ImageUnavailableError)
            assert "did not arrive within 7.5 s" in str(problem)


def test_all_behaviours_together_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 1.0)
    servers = [server for _, server in rows()]

    def fetch_from(server: Server) -> ImageError | None:
        # A server ends with its download. Otherwise, on a busy machine, servers would keep the data not sent yet.
        with listening(after_request(server.act)) as port:
            return discard(port)

    tracemalloc.start()
    try:
        with ThreadPoolExecutor(CONCURRENT_DOWNLOADS) as threads:
            problems = list(threads.map(fetch_from, servers))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < MAX_GROWTH_BYTES
    accepted = [server for problem, server in zip(problems, servers, strict=True) if problem is None]
    assert all(server.error is None for server in accepted)


@pytest.mark.parametrize("name", ["PNG with a length", "status 500", "redirect to itself", "reset in the body"])
def test_the_signed_query_of_an_image_url_is_not_logged(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with listening(after_request(BEHAVIOURS[name].act)) as port:
        fetch(port, BEHAVIOURS[name])

    assert QUERY not in caplog.text


# ------------------------------------------------------------------------------------------------ kept connections


@pytest.mark.parametrize(
    "trailing",
    [
        sized(b"<html>not yours</html>"),
        sized(PNG, "X-Poison: 1"),
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"garbage",
    ],
    ids=["a response", "an image", "a redirect", "garbage"],
)
def test_bytes_after_a_response_are_not_read_as_the_next_response(trailing: bytes) -> None:
    responses = iter([sized(PNG, "Connection: keep-alive") + trailing, sized(IMAGES["GIF"])])

    def behave(connection: socket.socket) -> None:
        while True:
            read_request(connection)
            connection.sendall(next(responses))

    with listening(behave) as port:
        fetcher = ImageFetcher(LoopbackUrlPolicy(port))
        types = []
        for _ in range(2):
            fetched = download_image(fetcher, f"http://images.example:{port}/a")
            types.append(fetched.facts.content_type)

    assert types == ["image/png", "image/gif"]


# ------------------------------------------------------------------------------------------------ below HTTP


class LoopbackResolution(UrlPolicy):
    """The deployed URL policy, except that every name resolves to a loopback address."""

    def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"]


@pytest.fixture
def loopback_ports(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    ports: dict[str, int] = {}
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda _, *args, **kwargs: connect(("127.0.0.1", ports["tls"]), *args, **kwargs)
    )
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 0.4)
    return ports


@pytest.mark.parametrize(
    ("behave", "message"),
    [
        pytest.param(stall(), "did not arrive within", id="silence"),
        pytest.param(drip(b"\x16\x03\x03\x40\x00" + bytes(1000)), "did not arrive within", id="byte by byte"),
        pytest.param(send(), "connection failed", id="nothing"),
        pytest.param(send(sized(PNG)), "connection failed", id="plain HTTP"),
        pytest.param(send(b"\x15\x03\x01\x00\x02\x02\x28"), "connection failed", id="alert"),
        pytest.param(send(b"\x16\x03\x01\xff\xff" + bytes(70000)), "connection failed", id="record too large"),
    ],
)
def test_failed_tls_handshakes_are_errors(loopback_ports: dict[str, int], behave: Behaviour, message: str) -> None:
    def handshake(connection: socket.socket) -> None:
        connection.recv(65536)
        behave(connection)

    with listening(handshake) as loopback_ports["tls"], pytest.raises(ImageUnavailableError, match=message):
        download_image(ImageFetcher(LoopbackResolution()), "https://images.example/a.png")


@pytest.mark.parametrize("url", ["http://images.example/a.png", "https://127.0.0.1/a.png"])
def test_the_url_policy_is_applied_before_any_connection(loopback_ports: dict[str, int], url: str) -> None:
    with pytest.raises(ImageRejectedError):
        download_image(ImageFetcher(LoopbackResolution()), url, ["*"])

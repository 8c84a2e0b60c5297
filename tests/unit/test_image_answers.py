"""What an image host is asked, and what its answer's head says of the image."""

import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from catchlight.errors import ImageError, ImageGoneError, ImageRejectedError, ImageUnavailableError
from catchlight.images.connections import ImageConnections, _ConnectionState, _joined
from catchlight.images.fetcher import _check_head, _connection_errors, _request_url
from catchlight.images.url_policy import UrlPolicy

# ------------------------------------------------------------------------------------------------ asked


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://h.example/a?b", b"h.example"),
        ("https://h.example:443/a?b", b"h.example"),
        ("https://h.example:8443/a?b", b"h.example:8443"),
    ],
)
def test_a_request_names_its_host_and_what_it_takes(monkeypatch: pytest.MonkeyPatch, url: str, host: bytes) -> None:
    sent: list[httpcore.Request] = []

    def answer(_: httpcore.HTTPConnection, request: httpcore.Request) -> httpcore.Response:
        sent.append(request)
        return httpcore.Response(204, headers=[(b"X-A", b"1")], content=b"")

    monkeypatch.setattr(httpcore.HTTPConnection, "handle_request", answer)
    with ImageConnections(UrlPolicy()).get(httpcore.URL(url), seconds=60) as found:
        assert (found.status, found.headers) == (204, {"x-a": "1"})

    (request,) = sent
    assert (request.method, request.url.target) == (b"GET", b"/a?b")
    headers = dict(request.headers)
    assert headers.pop(b"User-Agent").startswith(b"Mozilla/5.0 (compatible; Catchlight/")
    assert headers == {b"Host": host, b"Accept": b"image/*", b"Accept-Encoding": b"identity"}


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://h.example", b"/"),
        ("https://h.example/", b"/"),
        ("https://h.example/a/b.png", b"/a/b.png"),
        ("https://h.example?a=1", b"/?a=1"),
        ("https://h.example/a?b=c%2Fd&e", b"/a?b=c%2Fd&e"),
        ("https://h.example/a?", b"/a"),
        ("https://h.example/a#part", b"/a"),
    ],
)
def test_a_url_is_sent_as_it_came(url: str, target: bytes) -> None:
    sent = _request_url(url, "h.example")

    assert (sent.scheme, sent.host, sent.port, sent.target) == (b"https", b"h.example", None, target)


def test_a_port_is_kept() -> None:
    assert _request_url("https://H.example:443/a", "h.example").port == 443


# ------------------------------------------------------------------------------------------------ answered


def head(status: int, **headers: str) -> Any:
    return SimpleNamespace(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, ImageGoneError) for status in (403, 404, 410)),
        *((status, ImageRejectedError) for status in (301, 302, 303, 307, 308)),
        *(
            (status, ImageUnavailableError)
            for status in (201, 204, 206, 300, 304, 400, 401, 405, 409, 411, 429, 500, 503)
        ),
    ],
)
def test_a_status_says_what_becomes_of_the_image(status: int, error: type[ImageError]) -> None:
    with pytest.raises(ImageError) as raised:
        _check_head(head(status))
    assert type(raised.value) is error
    assert (str(status) in str(raised.value)) is (error is not ImageRejectedError)


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ({}, None),
        ({"content_length": "0"}, 0),
        ({"content_length": "123"}, 123),
        ({"transfer_encoding": "chunked"}, None),
        ({"content_encoding": "identity", "content_length": "9"}, 9),
        *(
            ({"content_encoding": value}, None)
            for value in (
                "Identity",
                "",
                "identity, identity",
                "aws-chunked",
                "binary",
                "utf-8",
                "None",
                "unknown",
                ",",
            )
        ),
    ],
)
def test_a_size_is_told_by_its_header(headers: dict[str, str], size: int | None) -> None:
    assert _check_head(head(200, **headers)) == size


@pytest.mark.parametrize(
    ("headers", "error", "reason"),
    [
        ({"content_encoding": "gzip"}, ImageUnavailableError, "a compressed body"),
        ({"content_encoding": "identity, BR"}, ImageUnavailableError, "a compressed body"),
        ({"content_length": "9", "transfer_encoding": "chunked"}, ImageUnavailableError, "tells in two ways"),
    ],
)
def test_a_body_that_cannot_be_trusted_is_not_read(
    headers: dict[str, str], error: type[ImageError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        _check_head(head(200, **headers))


def test_headers_are_joined_under_their_names_in_lower_case() -> None:
    headers = [(b"A-B", b"1"), (b"c", b"\xe4"), (b"a-b", b"2"), (b"A-b", b"3")]

    assert _joined(headers) == {"a-b": "1, 2, 3", "c": "ä"}


# ------------------------------------------------------------------------------------------------ broken off


def of_tls() -> Exception:
    try:
        raise httpcore.ConnectError from ssl.SSLCertVerificationError()
    except httpcore.ConnectError as exc:
        return exc


def failures() -> Iterator[tuple[Exception, str]]:
    yield httpcore.ReadTimeout(), "it did not arrive within 7.5 s"
    yield httpcore.ConnectTimeout(), "it did not arrive within 7.5 s"
    yield of_tls(), "the connection failed: the server's certificate is not valid"
    yield httpcore.ConnectError(), "the connection failed: nobody answers there"
    yield httpcore.RemoteProtocolError(), "the connection failed: the answer is cut off, or is not HTTP"
    yield httpcore.LocalProtocolError(), "the connection failed: the answer is cut off, or is not HTTP"
    yield httpcore.ReadError(), "the connection failed: the server broke it off"
    yield httpcore.WriteError(), "the connection failed: the server broke it off"


@pytest.mark.parametrize(("failure", "reason"), list(failures()), ids=lambda value: type(value).__name__)
def test_what_goes_wrong_on_the_way_is_worth_another_try(failure: Exception, reason: str) -> None:
    with pytest.raises(ImageUnavailableError) as raised, _connection_errors():
        raise failure
    assert str(raised.value) == reason


@pytest.mark.parametrize(("deadline", "left"), [(10.5, 0.5), (10.0, None), (9.5, None)])
def test_there_is_time_until_the_deadline(monkeypatch: pytest.MonkeyPatch, deadline: float, left: float | None) -> None:
    monkeypatch.setattr("catchlight.images.connections.time", SimpleNamespace(monotonic=lambda: 10.0))
    wire = _ConnectionState(body_left=7, is_read_to_the_byte=True)
    wire.begin(deadline)

    assert (wire.body_left, wire.is_read_to_the_byte) == (None, False)
    if left is None:
        with pytest.raises(httpcore.ReadTimeout):
            wire.seconds_left(httpcore.ReadTimeout)
    else:
        assert wire.seconds_left(httpcore.ReadTimeout) == left

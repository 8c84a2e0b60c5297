"""Requests to image hosts, and the status and headers of their responses."""

import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpcore
import pytest

from catchlight.errors import ImageError, ImageGoneError, ImageUnavailableError
from catchlight.images.fetcher import _check_head, _connection_errors
from catchlight.outbound_http import request_url

# ------------------------------------------------------------------------------------------------ requests


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
def test_a_request_has_path_and_query_of_the_url(url: str, target: bytes) -> None:
    sent = request_url(url, "h.example")

    assert (sent.scheme, sent.host, sent.port, sent.target) == (b"https", b"h.example", None, target)


def test_a_request_has_the_port_of_the_url() -> None:
    assert request_url("https://H.example:443/a", "h.example").port == 443


# ------------------------------------------------------------------------------------------------ responses


def head(status: int, **headers: str) -> Any:
    return SimpleNamespace(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, ImageGoneError) for status in (403, 404, 410)),
        *(
            (status, ImageUnavailableError)
            for status in (201, 204, 206, 300, 304, 400, 401, 405, 409, 411, 429, 500, 503)
        ),
    ],
)
def test_the_status_determines_the_error(status: int, error: type[ImageError]) -> None:
    with pytest.raises(ImageError) as raised:
        _check_head(head(status))
    assert type(raised.value) is error
    assert str(status) in str(raised.value)


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
def test_a_size_is_read_from_its_header(headers: dict[str, str], size: int | None) -> None:
    assert _check_head(head(200, **headers)) == size


@pytest.mark.parametrize(
    ("headers", "error", "reason"),
    [
        ({"content_encoding": "gzip"}, ImageUnavailableError, "a compressed body"),
        ({"content_encoding": "identity, BR"}, ImageUnavailableError, "a compressed body"),
        (
            {"content_length": "9", "transfer_encoding": "chunked"},
            ImageUnavailableError,
            "both Transfer-Encoding and Content-Length",
        ),
    ],
)
def test_compressed_and_ambiguous_bodies_are_not_read(
    headers: dict[str, str], error: type[ImageError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        _check_head(head(200, **headers))


# ------------------------------------------------------------------------------------------------ connection errors


def certificate_error() -> Exception:
    try:
        raise httpcore.ConnectError from ssl.SSLCertVerificationError()
    except httpcore.ConnectError as exc:
        return exc


def failures() -> Iterator[tuple[Exception, str]]:
    yield httpcore.ReadTimeout(), "the image did not arrive within 7.5 s"
    yield httpcore.ConnectTimeout(), "the image did not arrive within 7.5 s"
    yield certificate_error(), "the connection failed: the server's certificate is not valid"
    yield httpcore.ConnectError(), "the connection failed: the server cannot be reached"
    yield httpcore.RemoteProtocolError(), "the connection failed: the response is cut off, or is not HTTP"
    yield httpcore.LocalProtocolError(), "the connection failed: the response is cut off, or is not HTTP"
    yield httpcore.ReadError(), "the connection failed: it was interrupted"
    yield httpcore.WriteError(), "the connection failed: it was interrupted"


@pytest.mark.parametrize(("failure", "reason"), list(failures()), ids=lambda value: type(value).__name__)
def test_connection_errors_are_temporary(failure: Exception, reason: str) -> None:
    with pytest.raises(ImageUnavailableError) as raised, _connection_errors():
        raise failure
    assert str(raised.value) == reason

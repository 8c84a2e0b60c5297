"""ImageFetcher: downloads of one image from correct, faulty and unresponsive servers."""

import gzip
import hashlib
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from catchlight import http_connections, outbound_http
from catchlight.errors import ImageGoneError, ImageRejectedError, ImageUnavailableError
from catchlight.images import fetcher as fetcher_module
from catchlight.images import stream
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.url_policy import UrlPolicy
from tests.image_server import (
    ImageServer,
    LoopbackUrlPolicy,
    SendResponse,
    content,
    download_image,
    dripping,
    picture,
    serving,
    status,
)

PNG = picture()


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with serving() as running:
        yield running


@pytest.fixture
def fetcher(server: ImageServer) -> ImageFetcher:
    return ImageFetcher(LoopbackUrlPolicy(server.port))


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> float:
    seconds = 0.3
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", seconds)
    return seconds


# ------------------------------------------------------------------------------------------------ complete images


def test_an_image_is_fetched_with_its_metadata(server: ImageServer, fetcher: ImageFetcher) -> None:
    fetched = download_image(fetcher, server.serve("a.png", PNG))

    assert fetched.content == PNG
    assert fetched.size == len(PNG)
    assert fetched.sha256 == hashlib.sha256(PNG).digest()
    assert (fetched.facts.content_type, fetched.facts.width, fetched.facts.height) == ("image/png", 8, 6)
    assert fetched.source_host == "images.example"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "AVIF"])
def test_the_type_is_read_from_the_bytes_not_from_the_header(
    server: ImageServer, fetcher: ImageFetcher, format_name: str
) -> None:
    url = server.serve("a.txt", content(picture(format_name), "application/octet-stream"))

    assert download_image(fetcher, url).content == picture(format_name)


def test_an_image_that_does_not_fit_into_memory_is_complete(
    server: ImageServer, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "SPOOL_BYTES", 64)

    assert download_image(fetcher, server.serve("a.png", PNG)).content == PNG


def test_requests_have_the_host_name_and_no_headers_of_a_library(server: ImageServer, fetcher: ImageFetcher) -> None:
    download_image(fetcher, server.serve("a.png?sig=a%2Fb", PNG))

    assert server.requests == ["/a.png?sig=a%2Fb"]
    (headers,) = server.headers
    assert headers["host"] == f"images.example:{server.port}"
    assert headers["user-agent"].startswith("Mozilla/5.0")
    assert headers["accept-encoding"] == "identity"
    assert not {"cookie", "authorization", "referer"} & headers.keys()


def test_a_length_is_not_required(server: ImageServer, fetcher: ImageFetcher) -> None:
    def chunked(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(PNG), PNG))

    assert download_image(fetcher, server.serve("a.png", chunked)).content == PNG


# ------------------------------------------------------------------------------------------------ statuses


@pytest.mark.parametrize("code", [403, 404, 410])
def test_statuses_403_404_and_410_mean_that_the_image_is_gone(
    server: ImageServer, fetcher: ImageFetcher, code: int
) -> None:
    url = server.serve("a.png", status(code))

    with pytest.raises(ImageGoneError, match=f"answers {code}: the URL has expired"):
        download_image(fetcher, url)


@pytest.mark.parametrize("code", [400, 401, 408, 429, 500, 502, 503, 504, 201, 206])
def test_other_statuses_are_temporary_errors(server: ImageServer, fetcher: ImageFetcher, code: int) -> None:
    url = server.serve("a.png", content(PNG, status=code))

    with pytest.raises(ImageUnavailableError, match=f"answers {code}$") as raised:
        download_image(fetcher, url)
    assert not isinstance(raised.value, ImageGoneError)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: ImageServer, fetcher: ImageFetcher, code: int) -> None:
    target = server.serve("b.png", PNG, "cdn.example")
    url = server.serve("a.png", status(code, Location=target))

    fetched = download_image(fetcher, url)

    assert (fetched.content, fetched.source_host) == (PNG, "cdn.example")
    assert server.requests == ["/a.png", "/b.png"]
    assert [headers["host"] for headers in server.headers] == [
        f"images.example:{server.port}",
        f"cdn.example:{server.port}",
    ]


@pytest.mark.parametrize(
    ("code", "error"), [(404, ImageGoneError), (503, ImageUnavailableError), (300, ImageUnavailableError)]
)
def test_the_status_after_a_redirect_determines_the_error(
    server: ImageServer, fetcher: ImageFetcher, code: int, error: type[Exception]
) -> None:
    url = server.serve("a.png", status(302, Location=server.serve("b.png", status(code))))

    with pytest.raises(error, match=f"answers {code}") as raised:
        download_image(fetcher, url)
    assert type(raised.value) is error


def test_the_error_of_a_refused_redirect_has_a_reason_without_the_url(
    server: ImageServer, fetcher: ImageFetcher
) -> None:
    url = server.serve("a.png", status(302, Location="https://10.0.0.5/b.png?sig=s3cret"))

    with pytest.raises(ImageRejectedError) as refused:
        download_image(fetcher, url)
    assert str(refused.value) == (
        "the server redirects to a URL that is not allowed: the URL's host is not a public host name"
    )


# ------------------------------------------------------------------------------------------------ bodies


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html>Not found</html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_a_body_that_is_not_an_image_is_rejected(server: ImageServer, fetcher: ImageFetcher, body: bytes) -> None:
    with pytest.raises(ImageRejectedError, match="not an image"):
        download_image(fetcher, server.serve("a.png", body))


def test_an_empty_body_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageUnavailableError, match="0 bytes"):
        download_image(fetcher, server.serve("a.png", b""))


def test_a_body_shorter_than_its_length_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher) -> None:
    def send(request: BaseHTTPRequestHandler) -> None:
        content(PNG, Content_Length=str(len(PNG) + 1))(request)
        request.close_connection = True

    with pytest.raises(ImageUnavailableError, match="cut off"):
        download_image(fetcher, server.serve("a.png", send))


def test_a_body_longer_than_its_length_is_cut(server: ImageServer, fetcher: ImageFetcher) -> None:
    url = server.serve("a.png", content(PNG, Content_Length=str(len(PNG) - 1)))

    # The missing byte belongs to the end of the PNG: all pixels have arrived.
    assert download_image(fetcher, url).content == PNG[:-1]


@pytest.mark.parametrize("length", ["-1", "1e3", "", "0x10", "9" * 5000, "1, 2", "\xb2"])
def test_a_malformed_length_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher, length: str) -> None:
    with pytest.raises(ImageUnavailableError):
        download_image(fetcher, server.serve("a.png", content(PNG, Content_Length=length)))


def test_a_body_without_length_that_ends_early_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher) -> None:
    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(PNG[:-5])
        request.close_connection = True

    with pytest.raises(ImageUnavailableError, match="not whole"):
        download_image(fetcher, server.serve("a.png", send))


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "identity, gzip", "br", "zstd", "deflate"])
def test_a_compressed_body_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher, coding: str) -> None:
    url = server.serve("a.png", content(gzip.compress(PNG), Content_Encoding=coding))

    with pytest.raises(ImageUnavailableError, match="compressed"):
        download_image(fetcher, url)


def test_an_invalid_body_with_an_unknown_encoding_is_a_temporary_error(
    server: ImageServer, fetcher: ImageFetcher
) -> None:
    url = server.serve("a.png", content(gzip.compress(PNG), Content_Encoding="rot13"))

    with pytest.raises(ImageUnavailableError, match="unknown content encoding"):
        download_image(fetcher, url)


@pytest.mark.parametrize(
    "value", ["identity", "Identity", "", "identity, identity", "aws-chunked", "binary", "utf-8", "none", "rot13"]
)
def test_a_valid_image_is_accepted_with_any_encoding_but_a_compression(
    server: ImageServer, fetcher: ImageFetcher, value: str
) -> None:
    assert download_image(fetcher, server.serve("a.png", content(PNG, Content_Encoding=value))).content == PNG


def test_a_body_with_too_large_a_length_is_rejected_before_it_arrives(
    server: ImageServer, fetcher: ImageFetcher
) -> None:
    url = server.serve("a.png", content(b"", Content_Length=str(stream.MAX_IMAGE_BYTES + 1)))

    with pytest.raises(ImageRejectedError, match="larger than 26214400 bytes"):
        download_image(fetcher, url)


def test_a_body_without_length_is_rejected_when_it_becomes_too_large(
    server: ImageServer, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_IMAGE_BYTES", 300_000)
    sent = 0

    def endless(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(PNG + bytes(100_000))
            sent += 100_000

    with pytest.raises(ImageRejectedError, match="larger than 300000 bytes"):
        download_image(fetcher, server.serve("a.png", endless))
    assert sent < 50_000_000  # what fits into socket buffers; the server itself does not stop


def test_the_maximum_number_of_bytes_is_accepted(
    server: ImageServer, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("a.png", PNG)
    monkeypatch.setattr(stream, "MAX_IMAGE_BYTES", len(PNG))
    download_image(fetcher, url)

    monkeypatch.setattr(stream, "MAX_IMAGE_BYTES", len(PNG) - 1)
    with pytest.raises(ImageRejectedError, match="larger"):
        download_image(fetcher, url)


# ------------------------------------------------------------------------------------------------ time


def silent(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def slow_head(request: BaseHTTPRequestHandler) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * 100:
        request.wfile.write(bytes([byte]))
        request.wfile.flush()
        time.sleep(0.02)


@pytest.mark.parametrize("answer", [dripping(PNG, 0.02), slow_head, silent], ids=["body", "head", "no answer"])
def test_one_deadline_covers_the_whole_response(
    server: ImageServer, fetcher: ImageFetcher, short_deadline: float, answer: SendResponse
) -> None:
    url = server.serve("a.png", answer)
    started_at = time.monotonic()

    # With a separate limit for each read, the first two responses would be received completely.
    with pytest.raises(ImageUnavailableError, match="did not arrive within"):
        download_image(fetcher, url)

    assert short_deadline * 0.9 <= time.monotonic() - started_at


def test_each_fetch_has_its_own_deadline(
    server: ImageServer, fetcher: ImageFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(fetcher_module, "FETCH_DEADLINE_SECONDS", 60)
    monkeypatch.setattr(http_connections, "time", SimpleNamespace(monotonic=lambda: now))
    url = server.serve("a.png", PNG)
    for _ in range(3):
        download_image(fetcher, url)
        now += 42


def test_the_deadline_covers_name_resolution(short_deadline: float) -> None:
    answered = Event()

    class SlowResolver(UrlPolicy):
        def resolve(self, host: str, port: int) -> list[str]:
            answered.wait()
            return []

    try:
        with pytest.raises(ImageUnavailableError, match="did not arrive within"):
            download_image(ImageFetcher(SlowResolver()), "https://images.example/a.png")
    finally:
        answered.set()


# ------------------------------------------------------------------------------------------------ the connection


def test_a_closed_port_is_a_temporary_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    unreachable = ImageFetcher(LoopbackUrlPolicy(port))

    with pytest.raises(ImageUnavailableError, match="connection failed: the server cannot be reached"):
        download_image(unreachable, f"http://images.example:{port}/a.png")


def test_the_next_address_is_tried_when_one_does_not_answer(server: ImageServer) -> None:
    class TwoAddresses(LoopbackUrlPolicy):
        def resolve(self, host: str, port: int) -> list[str]:
            return ["::1", "127.0.0.1"]  # the server listens on the second only

    assert download_image(ImageFetcher(TwoAddresses(server.port)), server.serve("a.png", PNG)).content == PNG


def test_a_closed_connection_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher) -> None:
    def close_connection_early(request: BaseHTTPRequestHandler) -> None:
        request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True

    with pytest.raises(ImageUnavailableError, match="connection failed"):
        download_image(fetcher, server.serve("a.png", close_connection_early))


def test_an_answer_that_is_not_http_is_a_temporary_error(server: ImageServer, fetcher: ImageFetcher) -> None:
    def greet_as_mail_server(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"220 mail.example ESMTP\r\n")
        request.close_connection = True

    with pytest.raises(ImageUnavailableError, match="connection failed"):
        download_image(fetcher, server.serve("a.png", greet_as_mail_server))


def test_no_error_contains_the_url(server: ImageServer, fetcher: ImageFetcher) -> None:
    # The URL is signed: a reader of the log could download the image.
    url = server.serve("a.png?sig=s3cret", status(500))
    with pytest.raises(ImageUnavailableError) as failed:
        download_image(fetcher, url)

    assert "s3cret" not in str(failed.value)


def test_environment_proxies_are_ignored(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert download_image(ImageFetcher(LoopbackUrlPolicy(server.port)), server.serve("a.png", PNG)).content == PNG


# ------------------------------------------------------------------------------------------------ the URL policy


def test_no_request_is_sent_to_an_unexpected_host(server: ImageServer, fetcher: ImageFetcher) -> None:
    with pytest.raises(ImageRejectedError):
        download_image(fetcher, server.serve("a.png", PNG, host="other.example"))

    assert server.requests == []


def test_fetchers_have_the_strict_url_policy_by_default(server: ImageServer) -> None:
    with pytest.raises(ImageRejectedError, match="not https"):
        download_image(ImageFetcher(), server.serve("a.png", PNG), ["*"])

    assert server.requests == []


def test_connections_are_made_to_checked_addresses_only(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([["203.0.113.7"], ["127.0.0.1"]])

    def rebinding(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    class NameOnlyUrlPolicy(LoopbackUrlPolicy):
        def resolve(self, host: str, port: int) -> list[str]:
            return UrlPolicy.resolve(self, host, port)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises(ImageUnavailableError, match="an address that is not public"):
        download_image(ImageFetcher(NameOnlyUrlPolicy(server.port)), server.serve("a.png", PNG))

    assert server.requests == []


# ------------------------------------------------------------------------------------------------ TLS


class TlsUrlPolicy(UrlPolicy):
    """The URL policy of deployed functions, with every name resolved to a loopback port."""

    def resolve(self, host: str, port: int) -> list[str]:
        assert port == 443
        return ["127.0.0.1"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and self-signed certificate of images.example."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.example")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("images.example"), x509.IPAddress(ip_address("127.0.0.2"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "images.example.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_names(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str | None]]:
    """Starts a TLS server on loopback, and yields the server names that clients send. Port 443 is redirected to it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    tls.recv(65536)
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PNG)}\r\nConnection: close\r\n\r\n"
                    tls.sendall(head.encode() + PNG)
            except OSError:
                pass  # the client refused the certificate
            finally:
                connection.close()

    connect = socket.create_connection
    port = server.getsockname()[1]

    def create_connection(address: tuple[str, int], *args: object, **kwargs: object) -> socket.socket:
        assert address == ("127.0.0.1", 443)
        return connect(("127.0.0.1", port), *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_connection", create_connection)
    thread = Thread(target=serve)
    thread.start()
    yield names
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def trust(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.create_default_context(cafile=certificate)
    monkeypatch.setattr(outbound_http, "tls_context", lambda: context)


def test_tls_uses_the_host_name_and_not_the_address(
    tls_names: list[str | None], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(certificate, monkeypatch)

    assert download_image(ImageFetcher(TlsUrlPolicy()), "https://images.example/a.png").content == PNG
    assert tls_names == ["images.example"]


def test_a_certificate_of_another_name_is_not_accepted(
    tls_names: list[str | None], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(certificate, monkeypatch)

    with pytest.raises(ImageUnavailableError, match="connection failed"):
        download_image(ImageFetcher(TlsUrlPolicy()), "https://other.example/a.png", ["*"])
    assert tls_names == ["other.example"]


def test_a_self_signed_certificate_is_not_accepted(tls_names: list[str | None]) -> None:
    with pytest.raises(ImageUnavailableError, match="connection failed"):
        download_image(ImageFetcher(TlsUrlPolicy()), "https://images.example/a.png")
    assert tls_names == ["images.example"]

"""Serves images from a loopback server, correctly or with faults, and provides a URL policy that allows it."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from random import Random
from urllib.parse import urlsplit

from PIL import Image as Pillow

from catchlight.errors import ImageRejectedError
from catchlight.images.fetcher import ImageFetcher
from catchlight.images.formats import ImageMetadata
from catchlight.images.url_policy import UrlPolicy, is_expected_host
from tests.canary_secrets import URL_QUERY

SendResponse = Callable[[BaseHTTPRequestHandler], None]


def picture(format_name: str = "PNG", size: tuple[int, int] = (8, 6)) -> bytes:
    """Returns a small image, with the same bytes each time."""
    file = BytesIO()
    Pillow.linear_gradient("L").resize(size).convert("RGB").save(file, format_name)
    return file.getvalue()


def large_picture(seed: int) -> bytes:
    """Returns a PNG of 360 KB, which needs several reads and several blocks."""
    file = BytesIO()
    Pillow.frombytes("RGB", (400, 300), Random(seed).randbytes(400 * 300 * 3)).save(file, "PNG")
    return file.getvalue()


def content(body: bytes, content_type: str = "image/png", status: int = 200, **headers: str) -> SendResponse:
    """Returns an answer with this body and its length; header names use _ for -."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content_Type": content_type, "Content_Length": str(len(body))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(body)

    return send


def cut(body: bytes, size: int) -> SendResponse:
    """Returns an answer whose connection ends before all of the announced body has been sent."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "image/png")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:size])
        request.close_connection = True

    return send


def status(code: int, **headers: str) -> SendResponse:
    """Returns an answer with this status and no image."""
    return content(b"<html>no</html>", "text/html", code, **headers)


def dripping(body: bytes, seconds: float) -> SendResponse:
    """Returns an answer that sends one byte at a time: each read succeeds in time, the whole download never does."""

    def send(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for at in range(len(body)):
            request.wfile.write(body[at : at + 1])
            request.wfile.flush()
            time.sleep(seconds)

    return send


@dataclass
class ImageServer:
    """Sends the configured answer for each path, and records the requests in order."""

    port: int = 0
    answers: dict[str, SendResponse] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    clients: set[tuple[str, int]] = field(default_factory=set)  # addresses of connections

    def url(self, path: str, host: str = "images.example") -> str:
        """Returns the URL of a path, with a host name that only the test's URL policy resolves."""
        return f"http://{host}:{self.port}/{path}"

    def serve(self, path: str, answer: SendResponse | bytes, host: str = "images.example") -> str:
        """Serves the answer at the path from now on. Returns its URL."""
        self.answers[f"/{path}"] = content(answer) if isinstance(answer, bytes) else answer
        return self.url(path, host)


@contextmanager
def serving() -> Iterator[ImageServer]:
    """Yields a running server."""
    images = ImageServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            # A signed URL serves the same path: the signature is a canary secret and must not appear anywhere.
            self.path = self.path.removesuffix(f"?{URL_QUERY}")
            images.requests.append(self.path)
            images.clients.add(self.client_address)
            images.headers.append({name.lower(): value for name, value in self.headers.items()})
            with suppress(ConnectionError):  # clients close connections to servers with faults
                images.answers.get(self.path, status(404))(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        images.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield images
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Download:
    """A completely read image and its metadata."""

    content: bytes
    facts: ImageMetadata
    size: int
    sha256: bytes
    source_host: str


def download_image(fetcher: ImageFetcher, url: str, allowed_hosts: Iterable[str] = ("images.example",)) -> Download:
    """Downloads an image and reads it to its end. Raises the errors of both steps."""
    with fetcher.fetch(url, allowed_hosts) as image:
        content = image.read()
        return Download(content, image.complete(), image.size, image.sha256(), image.source_host)


class LoopbackUrlPolicy(UrlPolicy):
    """Allows plain HTTP to one loopback port, to which all host names resolve. Expected hosts are still checked."""

    def __init__(self, port: int) -> None:
        self.port = port

    def check_url(self, url: str, allowed_hosts: Iterable[str]) -> str:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.port != self.port:
            return super().check_url(url, allowed_hosts)
        host = parts.hostname or ""
        if not is_expected_host(host, allowed_hosts):
            raise ImageRejectedError(f"{host} is not expected")
        return host

    def resolve(self, host: str, port: int) -> list[str]:
        return ["127.0.0.1"] if port == self.port else super().resolve(host, port)

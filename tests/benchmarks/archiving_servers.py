"""Runs an image host and an S3 on this machine, both over TLS, in a separate process.

    python -m tests.benchmarks.archiving_servers FOLDER MILLISECONDS

Writes certificates to the folder and prints both ports. Each new connection and each request to the image host is
delayed by the milliseconds, to simulate distance. The S3 reads the uploads and responds.
"""

import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.benchmarks.archiving_pictures import picture_of
from tests.benchmarks.aws_stand_in import write_certificate

PIECE = 1024 * 1024


class Handler(BaseHTTPRequestHandler):
    """A handler that keeps connections open and writes no log."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0

    def log_message(self, *_: object) -> None:
        """Writes no log."""


class Images(Handler):
    """Serves pictures: `GET /5/NAME.png` returns a picture of 5 MB."""

    seconds = 0.0

    def setup(self) -> None:
        time.sleep(self.seconds)
        super().setup()

    def do_GET(self) -> None:
        """Sends a picture."""
        time.sleep(self.seconds)
        body = picture_of(int(self.path.split("/")[1]))
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Objects(Handler):
    """Accepts objects and discards them."""

    def do_PUT(self) -> None:
        """Accepts an object."""
        checksum = None
        if self.headers.get("transfer-encoding") == "chunked":
            _, separator, value = self._read_chunks().rpartition(b"x-amz-checksum-sha256:")
            checksum = value.strip().decode() if separator else None
        else:
            self._read(int(self.headers["content-length"]))
        self.send_response(200)
        if checksum:
            self.send_header("x-amz-checksum-sha256", checksum)
        self.send_header("content-length", "0")
        self.send_header("etag", '"0"')
        self.end_headers()

    def _read(self, left: int) -> bytes:
        """Reads this many bytes and returns the last piece."""
        piece = b""
        while left:
            piece = self.rfile.read(min(PIECE, left))
            left -= len(piece)
        return piece

    def _read_chunks(self) -> bytes:
        """Returns the last chunk that is not empty; its end has the checksum computed during the upload."""
        last = b""
        while size := int(self.rfile.readline(), 16):
            last = self._read(size)
            self.rfile.readline()
        self.rfile.readline()
        return last


class Server(ThreadingHTTPServer):
    """Uses a thread for each connection, including its handshake."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Ignores clients that close their connection."""


def serve(handler: type[Handler], folder: Path) -> int:
    """Starts a server for the lifetime of the process, and returns its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server = Server(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port: int = server.server_address[1]
    return port


def main() -> None:
    """Serves until the process is terminated."""
    folder = Path(sys.argv[1])
    write_certificate(folder)
    Images.seconds = float(sys.argv[2]) / 1000
    for megabytes in (1, 5, 25):
        picture_of(megabytes)
    print(serve(Images, folder), serve(Objects, folder), flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    main()

"""Simulates the parts of AWS that the benchmarks call, over HTTPS on loopback: fixed responses, counted calls."""

import datetime
import json
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# The host names that the functions call.
NAMES = ("*.us-east-1.amazonaws.com", "*.s3.us-east-1.amazonaws.com", "api.kie.ai", "localhost")

# By operation: a function from the request's body to the response's body, both as parsed JSON.
Answers = Mapping[str, Callable[[Any], Any]]


def write_certificate(folder: Path) -> None:
    """Writes `key.pem`, `cert.pem`, and `bundle.pem`: the certificate and the usual trusted certificates."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AWS stand-in")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    ).public_bytes(serialization.Encoding.PEM)
    private = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption())
    )
    (folder / "cert.pem").write_bytes(certificate)
    # Includes the usual certificates, because parsing a hundred of them is part of the cost of a first connection.
    (folder / "bundle.pem").write_bytes(Path(certifi.where()).read_bytes() + certificate)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The body of a response with status 400."""

    body: Mapping[str, Any]


@dataclass
class StandIn:
    """A running simulation of AWS."""

    port: int
    bundle: Path  # the certificates that clients must trust
    calls: Counter[str] = field(default_factory=Counter)  # by operation
    connections: int = 0


@contextmanager
def stand_in(folder: Path, answers: Answers) -> Iterator[StandIn]:
    """Runs the simulation until the end of the block. Writes its certificate to `folder`.

    The operation is the name in AWS's JSON protocols (`DynamoDB_20120810.UpdateItem` is `UpdateItem`), otherwise method
    and path: `GET /api/v1/...`. An operation that is not in `answers` gets status 400.
    """
    write_certificate(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Like the real services: headers and body in one packet, without delay.
        disable_nagle_algorithm = True
        wbufsize = -1

        def handle(self) -> None:
            running.connections += 1
            super().handle()

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            target = self.headers.get("x-amz-target")
            operation = target.partition(".")[2] if target else f"{self.command} {self.path.partition('?')[0]}"
            running.calls[operation] += 1
            respond = answers.get(operation)
            answer = (
                respond(json.loads(body or b"null"))
                if respond
                else Refusal({"message": f"unknown operation: {operation}"})
            )
            is_error = isinstance(answer, Refusal)
            content = json.dumps(answer.body if is_error else answer).encode()
            self.send_response(400 if is_error else 200)
            self.send_header("content-type", "application/x-amz-json-1.0")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = answer  # noqa: N815 # names of the base class

        def log_message(self, *_: object) -> None:
            """Writes no log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Ignores clients that close their connection or do not trust the certificate."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with Server(("127.0.0.1", 0), Handler) as server:
        # Each handshake runs in its connection's thread: a failing one must not block the others.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        running = StandIn(server.server_port, folder / "bundle.pem")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()

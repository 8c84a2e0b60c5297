"""Simulates the public internet on loopback: defined DNS answers, and one TLS server for all addresses.

No connection leaves the machine: each address is recorded, and the connection goes to the TLS server.
"""

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Behaviour = Callable[[socket.socket], None]


@contextmanager
def listening(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Yields the port of a server with this behaviour for every connection, each in its own thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:  # clients close connections to faulty servers
            if tls:
                with tls.wrap_socket(connection, server_side=True) as encrypted:
                    behave(encrypted)
            else:
                behave(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(120)
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def read_request(connection: socket.socket) -> bytes:
    """Reads a request's head."""
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            raise ConnectionError
        head += received
    return head


@dataclass
class Internet:
    """The defined answers of the resolver and the server, and the recorded requests to both."""

    port: int = 0
    tls: ssl.SSLContext | None = None
    response: bytes = b""
    responses: dict[str, bytes] = field(default_factory=dict)  # by URL; `response` for all others
    # By name: the addresses of the first resolution, the second, and so on.
    dns: dict[str, list[list[str]]] = field(default_factory=dict)
    resolutions: list[str] = field(default_factory=list)
    connections: list[tuple[str, int]] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def behave(self, connection: socket.socket) -> None:
        """Handles a connection to the server."""
        head = read_request(connection)
        self.requests.append(head)
        connection.sendall(self.responses.get(_requested_url(head), self.response))

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        """Replaces `socket.getaddrinfo`."""
        self.resolutions.append(host)
        if host not in self.dns:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.dns[host].pop(0)
        ]

    def create_connection(
        self, address: tuple[str, int], timeout: float | None = None, *_: Any, **__: Any
    ) -> socket.socket:
        """Replaces `socket.create_connection`."""
        self.connections.append(address)
        client = socket.socket()
        client.settimeout(timeout)
        client.connect(("127.0.0.1", self.port))
        return client

    def reset(self) -> None:
        """Deletes all recorded requests, and all answers except `response`."""
        self.responses.clear()
        self.dns.clear()
        self.resolutions.clear()
        self.connections.clear()
        self.requests.clear()

    @contextmanager
    def running(self, tls: ssl.SSLContext, patch: pytest.MonkeyPatch) -> Iterator["Internet"]:
        """Runs the server and replaces the network of this process."""
        self.tls = tls
        with listening(self.behave, tls) as self.port, patch.context() as patched:
            patched.setattr(socket, "getaddrinfo", self.getaddrinfo)
            patched.setattr(socket, "create_connection", self.create_connection)
            yield self


def _requested_url(head: bytes) -> str:
    request, *headers = head.decode().split("\r\n")
    (host,) = (header.removeprefix("Host: ") for header in headers if header.startswith("Host: "))
    return f"https://{host}{request.split()[1]}"


# Python 3.13 verifies strictly: an authority's certificate must allow signing.
_CERTIFICATE_SIGNING = x509.KeyUsage(
    key_cert_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


class Authority:
    """A certificate authority for tests."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        extensions = [
            x509.BasicConstraints(ca=True, path_length=None),
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()),
            _CERTIFICATE_SIGNING,
        ]
        certificate = self._sign(self._subject, self._key.public_key(), extensions, timedelta(days=1))
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, *names: str, valid_for: timedelta = timedelta(days=1)) -> ssl.SSLContext:
        """Returns the TLS context of a server whose certificate contains these names."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")])
        extensions = [
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
        ]
        certificate = self._sign(subject, key.public_key(), extensions, valid_for)
        path = self._folder / "server.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def client(self) -> ssl.SSLContext:
        """Returns a client's TLS context that trusts this authority only."""
        return ssl.create_default_context(cafile=self.path)

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extensions: Iterable[x509.ExtensionType],
        valid_for: timedelta,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=2))
            .not_valid_after(now + valid_for)
        )
        for extension in extensions:
            builder = builder.add_extension(
                extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
            )
        return builder.sign(self._key, hashes.SHA256())

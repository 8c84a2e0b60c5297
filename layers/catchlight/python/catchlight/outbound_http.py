"""Sends HTTP requests to providers and image hosts, each with one deadline for the request and its whole response.

The deadline covers resolving the name, connecting, the TLS handshake, sending, and every byte of the response's head
and body. The timeouts of HTTP libraries apply to single reads: a response that arrives byte by byte does not exceed
them.

    HttpClient.send          resolve → connect (each address has a share of the deadline) → TLS → HttpConnection.send

httpx is not used: it would parse the URL again, use proxies and .netrc of the environment, keep cookies and log whole
URLs.
"""

import socket
import ssl
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import cache
from threading import Thread
from urllib.parse import urlsplit

import certifi
import httpcore

from catchlight.http_connections import (
    HTTP_ERRORS,
    Deadline,
    Exchange,
    HttpConnection,
    HttpRequest,
    HttpResponse,
    IdleConnections,
    http_request,
    httpcore_errors,
)

# Time for two SYN packets: the second is sent after one second. A host that has not accepted the connection by then is
# tried again later.
MAX_CONNECT_SECONDS = 2.0
# The minimum time for connecting to one address. A distant host responds in well under a second; without the minimum,
# each address of a name with many addresses would have too little time.
MIN_SHARE_SECONDS = 1.0
# The time for the first byte of a response over a reused connection, which a router may have dropped silently. Even a
# distant host responds in well under a second; 6.5 s of an image's deadline are then left for a new connection.
REUSED_CONNECTION_SECONDS = 1.0

# Returns the addresses to connect to for a host name and a port.
Resolve = Callable[[str, int], Sequence[str]]


@cache
def tls_context() -> ssl.SSLContext:
    """Returns the TLS context of all connections. Parsing the CA bundle takes 15 ms.

    The bundle is always certifi's: SSL_CERT_FILE and the like are ignored.
    """
    context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def resolve_host(host: str, port: int) -> list[str]:
    """Returns all addresses of a host, in the order in which the system prefers them.

    Raises:
        OSError: the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def request_url(url: str, host: str) -> httpcore.URL:
    """Splits a URL with the parser of the URL policy, which has allowed it and returned `host`.

    Path and query are sent unchanged.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=host, port=parts.port, target=target)


class HttpClient:
    """Sends HTTP requests. Thread-safe."""

    def __init__(
        self, resolve: Resolve = resolve_host, *, keeps_connections: bool = False, trusts_hosts: bool = True
    ) -> None:
        """Creates a client.

        Args:
            resolve: returns the addresses of a host. Connections are made to these addresses only.
            keeps_connections: whether a connection is reused for further requests to the same origin.
            trusts_hosts: False if the hosts come from untrusted input. The name is then resolved for every request, and
                a connection is reused only if its address is one of the name's addresses. If no byte of the response to
                a GET arrives over a reused connection within REUSED_CONNECTION_SECONDS, the request is sent again over
                a new one.
        """
        self._resolve = resolve
        self._keeps_connections = keeps_connections
        self._trusts_hosts = trusts_hosts
        self._tls = tls_context()
        self._idle = IdleConnections()
        # Closes the connections when this client is garbage-collected.
        weakref.finalize(self, self._idle.close)

    @contextmanager
    def send(
        self, method: str, url: httpcore.URL, headers: Mapping[str, str], content: bytes = b"", *, exchange: Exchange
    ) -> Iterator[HttpResponse]:
        """Sends a request and yields the response before its body has arrived.

        Redirects are not followed. No request is sent twice, except for a GET as described at `trusts_hosts`.

        Raises:
            HTTP_ERRORS: the request failed, or no response has arrived by the deadline.
            Exception: the request cannot be sent, for example because of an invalid header, or `resolve` has failed.
        """
        if not self._keeps_connections:
            headers = {**headers, "Connection": "close"}
        connection, response = self._begin(http_request(method, url, headers, content), exchange)
        try:
            yield response
        finally:
            if self._keeps_connections and connection.is_reusable():
                self._idle.put(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Closes the idle connections."""
        self._idle.close()

    def _begin(self, request: HttpRequest, exchange: Exchange) -> tuple[HttpConnection, HttpResponse]:
        addresses = None if self._trusts_hosts else self._addresses(request.origin, exchange.deadline)
        if kept := self._idle.take(request.origin, addresses):
            is_repeatable = not self._trusts_hosts and request.head.method == b"GET"
            try:
                return kept, kept.send(
                    request, exchange, Deadline(REUSED_CONNECTION_SECONDS) if is_repeatable else None
                )
            except HTTP_ERRORS:
                if not kept.awaits_first_byte:
                    raise
                # The other connections to this origin have probably failed too, and would delay other requests as long.
                self._idle.close(request.origin)
        if addresses is None:
            addresses = self._addresses(request.origin, exchange.deadline)
        connection = self._connect(request.origin, addresses, exchange.deadline)
        return connection, connection.send(request, exchange)

    def _addresses(self, origin: httpcore.Origin, deadline: Deadline) -> Sequence[str]:
        try:
            with httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
                return _resolved(self._resolve, origin.host.decode("ascii"), origin.port, deadline)
        except BaseException:
            # If the addresses of a host are not allowed, its idle connections must not be reused.
            self._idle.close(origin)
            raise

    def _connect(self, origin: httpcore.Origin, addresses: Sequence[str], deadline: Deadline) -> HttpConnection:
        with httpcore_errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            failure = OSError("the name has no address")
            for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
                # One address that does not respond must not use up the time of the others.
                seconds = deadline.seconds_left()
                share = Deadline(min(seconds, max(seconds / left, MIN_SHARE_SECONDS)))
                try:
                    return HttpConnection(origin, address, _opened(address, origin, self._tls, share))
                except OSError as exc:
                    failure = exc
            raise failure


def _resolved(resolve: Resolve, host: str, port: int, deadline: Deadline) -> Sequence[str]:
    """Returns the addresses of a host within the deadline, although `getaddrinfo` has no timeout parameter.

    Each resolution has a thread of its own, so that names whose servers do not respond do not delay other names. Such a
    thread ends when the system's resolver stops trying, after about 30 s.
    """
    addresses: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            addresses.set_result(resolve(host, port))
        except BaseException as exc:  # noqa: BLE001 - raised in the thread that waits
            addresses.set_exception(exc)

    Thread(target=run, name=f"resolver of {host}", daemon=True).start()
    return addresses.result(deadline.seconds_left())


def _opened(address: str, origin: httpcore.Origin, tls: ssl.SSLContext, deadline: Deadline) -> socket.socket:
    """Connects to an address. TLS verifies that the server has a certificate for the origin's host name.

    Raises:
        OSError: the address does not respond by the deadline, or the certificate is not valid.
    """
    opened = socket.create_connection((address, origin.port), min(deadline.seconds_left(), MAX_CONNECT_SECONDS))
    try:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if origin.scheme == b"https":
            opened.settimeout(deadline.seconds_left())
            return tls.wrap_socket(opened, server_hostname=origin.host.decode("ascii"))
    except BaseException:
        opened.close()
        raise
    return opened

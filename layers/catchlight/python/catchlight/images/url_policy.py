"""Decides which image URLs may be fetched and which IP addresses may be connected to. Every image URL is checked here.

URLs are untrusted: every client that knows the callback token can send one. No setting of the deployed stack allows
addresses that are not public.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from catchlight.errors import ImageRejectedError, ImageUnavailableError
from catchlight.models import MAX_URL_LENGTH

HTTPS_PORT = 443
# Allows every host name. Its addresses must still be public.
ANY_HOST = "*"

# One label of a host name (RFC 1123) and names of at least two labels: ASCII only, so that the name resolved is exactly
# the name checked. The last label begins with a letter: some resolvers read "127.1" and "127.0.0.0x1" as addresses.
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
HOST_NAME_PATTERN = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}", re.ASCII)
MAX_HOST_NAME_LENGTH = 253

# Networks that must be rejected although `is_global` may accept them: it differs between Python versions and follows an
# IANA registry whose "global" means "forwardable", not "address of a public web server".
_NEVER_PUBLIC = [
    ip_network(network)
    for network in (
        "100.64.0.0/10",  # carrier-grade NAT, also inside AWS
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: embeds an IPv4 address
        "3fff::/20",  # documentation
    )
]
# All global unicast IPv6 addresses assigned today. IPv4-mapped, translated (64:ff9b::/96), unique local, site local and
# link local addresses are outside this network.
_GLOBAL_UNICAST_V6 = ip_network("2000::/3")


class UrlPolicy:
    """Checks URLs and addresses of images.

    The local stack's subclass also allows hosts on this machine; the deployed stack uses this class.
    """

    def check_url(self, url: str, allowed_hosts: Iterable[str]) -> str:
        """Checks that a URL may be fetched and returns its host in lower case.

        Args:
            url: untrusted input from a callback or a provider's response.
            allowed_hosts: names, "*.domain" for every name below it, or ANY_HOST.

        Raises:
            ImageRejectedError: the URL is too long, is not https on port 443, has a user name, or its host is an IP
                address or not among the allowed hosts.
        """
        if len(url) > MAX_URL_LENGTH:
            raise ImageRejectedError(f"the URL is longer than {MAX_URL_LENGTH:,} characters")
        if not url.isascii() or not url.isprintable() or any(character in url for character in ' \\"<>^`{|}'):
            raise ImageRejectedError("the URL contains characters that are not allowed in URLs")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ImageRejectedError("the URL is malformed") from None
        if parts.scheme != "https":
            raise ImageRejectedError("the URL is not https")
        if "@" in parts.netloc:
            raise ImageRejectedError("the URL contains a user name")
        if port not in (None, HTTPS_PORT):
            raise ImageRejectedError("the URL names a port other than 443")
        host = (parts.hostname or "").lower()
        if len(host) > MAX_HOST_NAME_LENGTH or not HOST_NAME_PATTERN.fullmatch(host):
            raise ImageRejectedError("the URL's host is not a public host name")
        if not is_expected_host(host, allowed_hosts):
            raise ImageRejectedError(
                f"{host} is not a host that this provider's images come from; AdditionalImageHosts can add it"
            )
        return host

    def resolve(self, host: str, port: int) -> list[str]:
        """Resolves a host name and returns its public IP addresses.

        The caller must connect to these addresses without resolving the name again: a second resolution may return
        other addresses (DNS rebinding).

        Raises:
            ImageUnavailableError: the name cannot be resolved at the moment, or one of its addresses is not public. A
                faulty resolver may also return such an address: the next resolution may have public ones only.
        """
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ImageUnavailableError(f"{host} cannot be resolved") from None
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        if not addresses or not all(is_public_address(address) for address in addresses):
            raise ImageUnavailableError(f"{host} has an address that is not public")
        return addresses


def is_expected_host(host: str, allowed_hosts: Iterable[str]) -> bool:
    """Returns whether a host is allowed by its name, by "*.domain", or by "*"."""
    return any(
        allowed == ANY_HOST or host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))
        for allowed in allowed_hosts
    )


def is_public_address(address: str) -> bool:
    """Returns whether an IP address, given as text, is public. Stricter than `ipaddress.is_global`."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False  # not an IP address
    if isinstance(parsed, IPv6Address) and (parsed.scope_id or parsed not in _GLOBAL_UNICAST_V6):
        return False
    return parsed.is_global and not any(
        parsed in network for network in _NEVER_PUBLIC if network.version == parsed.version
    )

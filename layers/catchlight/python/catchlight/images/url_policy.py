"""The URL policy that every image URL goes through: which URLs may be fetched, and which addresses connected to.

URLs come from whoever knows the callback token, so they are hostile until shown otherwise. No setting opens this door
for addresses that are not public.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from catchlight.errors import ImageRejectedError, ImageUnavailableError

HTTPS_PORT = 443

# One label of a host name (RFC 1123) and names of at least two of them: ASCII only, so that what is checked is what is
# resolved. The last label begins with a letter: "127.1" and "127.0.0.0x1" are addresses to some resolvers.
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
HOST_NAME_PATTERN = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}", re.ASCII)
MAX_HOST_NAME_LENGTH = 253

# What `is_global` lets through and must not: it differs between Python versions, and follows a registry whose "global"
# means "forwardable", not "belongs to a stranger's web server".
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
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
]
# All of today's global unicast IPv6. Mapped, translated (64:ff9b::/96), unique local, site local and link local
# addresses lie outside.
_GLOBAL_UNICAST_V6 = ip_network("2000::/3")


class UrlPolicy:
    """Decides about URLs and addresses. The local stack has a subclass with more ways in, what is deployed has none."""

    def check_url(self, url: str, allowed_hosts: Iterable[str]) -> str:
        """The URL's host, in lower case, if the URL may be fetched.

        Args:
            url: as a provider, or someone who claims to be one, gave it.
            allowed_hosts: names, "*.domain" for every name below it, or "*" for any.

        Raises:
            ImageRejectedError: https only, port 443, no user, a host name that is expected, no address.
        """
        if not url.isascii() or not url.isprintable() or any(character in url for character in ' \\"<>^`{|}'):
            raise ImageRejectedError("the URL holds characters that no URL may hold")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ImageRejectedError("the URL is malformed") from None
        if parts.scheme != "https":
            raise ImageRejectedError("the URL is not https")
        if "@" in parts.netloc:
            raise ImageRejectedError("the URL holds a user name")
        if port not in (None, HTTPS_PORT):
            raise ImageRejectedError("the URL names a port other than 443")
        host = (parts.hostname or "").lower()
        if len(host) > MAX_HOST_NAME_LENGTH or not HOST_NAME_PATTERN.fullmatch(host):
            raise ImageRejectedError("the URL's host is not a name of the public internet")
        if not is_expected_host(host, allowed_hosts):
            raise ImageRejectedError(
                f"{host} is not a host that this provider's images come from; AdditionalImageHosts can add it"
            )
        return host

    def resolve(self, host: str, port: int) -> list[str]:
        """Addresses to connect to. The caller connects to these and never asks again: a second answer may differ.

        Raises:
            ImageUnavailableError: the name cannot be resolved now.
            ImageRejectedError: one of its addresses is not public.
        """
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise ImageUnavailableError(f"{host} cannot be resolved") from None
        addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
        if not addresses or not all(is_public_address(address) for address in addresses):
            raise ImageRejectedError(f"{host} has an address that is not public")
        return addresses


def is_expected_host(host: str, allowed_hosts: Iterable[str]) -> bool:
    """Whether a host is allowed by name, by "*.domain", or by "*"."""
    return any(
        allowed == "*" or host == allowed or (allowed.startswith("*.") and host.endswith(allowed[1:]))
        for allowed in allowed_hosts
    )


def is_public_address(address: str) -> bool:
    """Whether an IP address, as text, belongs to the public internet. Stricter than `ipaddress.is_global`."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False  # with a scope ("fe80::1%eth0"), or none at all
    if isinstance(parsed, IPv6Address) and (parsed.scope_id or parsed not in _GLOBAL_UNICAST_V6):
        return False
    return parsed.is_global and not any(
        parsed in network for network in _NEVER_PUBLIC if network.version == parsed.version
    )

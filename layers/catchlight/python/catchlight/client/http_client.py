"""Creates the HTTP clients of the command line and of `catchlight.client`."""

from typing import Any, TypeVar

import httpx

from catchlight.client.errors import CatchlightError

Client = TypeVar("Client", httpx.Client, httpx.AsyncClient)

# The tasks API responds to a submission only after the provider has responded; API Gateway allows 30 s for that.
TIMEOUT = httpx.Timeout(connect=5, read=35, write=10, pool=60)


def http_client(kind: type[Client], *, trust_environment: bool, **settings: Any) -> Client:
    """Creates an HTTP client of this kind.

    With `trust_environment`, it uses the proxies and certificates of the environment, as AWS's own tools do.

    Raises:
        CatchlightError: the proxies or certificates in the environment cannot be used.
    """
    try:
        return kind(trust_env=trust_environment, **settings)
    # In this order: unreadable certificates, an invalid proxy address, a SOCKS proxy without the package for it.
    except (OSError, ValueError, ImportError) as exc:
        raise CatchlightError(
            f"The HTTP client cannot be created: {exc}. Check SSL_CERT_FILE, SSL_CERT_DIR and the proxies in your "
            "environment (HTTPS_PROXY, ALL_PROXY), then repeat the command."
        ) from exc

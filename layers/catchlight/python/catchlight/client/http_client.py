"""Creates the HTTP clients of the command line and of `catchlight.client`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from catchlight.client.errors import CatchlightError

# The tasks API responds to a submission only after the provider has responded; API Gateway allows 30 s for that.
TIMEOUT = httpx.Timeout(connect=5, read=35, write=10, pool=60)


def http_client(*, trust_environment: bool, **settings: Any) -> httpx.Client:
    """Creates an HTTP client.

    With `trust_environment`, it uses the proxies and certificates of the environment, as AWS's own tools do.

    Raises:
        CatchlightError: the proxies or certificates in the environment cannot be used.
    """
    with _explained_errors():
        return httpx.Client(trust_env=trust_environment, **settings)


def async_http_client(*, trust_environment: bool, **settings: Any) -> httpx.AsyncClient:
    """Creates an asynchronous HTTP client as `http_client` does."""
    with _explained_errors():
        return httpx.AsyncClient(trust_env=trust_environment, **settings)


@contextmanager
def _explained_errors() -> Iterator[None]:
    try:
        yield
    # In this order: unreadable certificates, an invalid proxy address, a SOCKS proxy without the package for it.
    except (OSError, ValueError, ImportError) as exc:
        raise CatchlightError(
            f"The HTTP client cannot be created: {exc}. Check SSL_CERT_FILE, SSL_CERT_DIR and the proxies in your "
            "environment (HTTPS_PROXY, ALL_PROXY), then repeat the command."
        ) from exc

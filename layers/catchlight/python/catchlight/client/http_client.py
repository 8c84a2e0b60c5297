"""Creates the HTTP clients of the command line and of `catchlight.client`."""

from typing import Any

import httpx

from catchlight.client.errors import CatchlightError


def http_client(*, trust_environment: bool, **settings: Any) -> httpx.Client:
    """Creates an HTTP client.

    With `trust_environment` it uses the proxies and certificates of the environment, as AWS's own tools do.

    Raises:
        CatchlightError: the proxies or certificates in the environment cannot be used.
    """
    try:
        return httpx.Client(trust_env=trust_environment, **settings)
    # Unreadable certificates; an invalid proxy address; a SOCKS proxy without the package that supports it.
    except (OSError, ValueError, ImportError) as exc:
        raise CatchlightError(
            f"The HTTP client cannot be created: {exc}. Check SSL_CERT_FILE, SSL_CERT_DIR and the proxies in your "
            "environment (HTTPS_PROXY, ALL_PROXY), then repeat the command."
        ) from exc

"""Makes the HTTP clients of the command line and of `catchlight.client`."""

from typing import Any

import httpx

from catchlight.client.aws_errors import CatchlightError


def http_client(*, trust_environment: bool, **settings: Any) -> httpx.Client:
    """An HTTP client that uses the user's proxies and certificates, as AWS's own tools do, or none of them.

    Raises:
        CatchlightError: what the environment says of them cannot be used.
    """
    try:
        return httpx.Client(trust_env=trust_environment, **settings)
    # Certificates that cannot be read; a proxy's address that is none; a SOCKS proxy without the package for it.
    except (OSError, ValueError, ImportError) as exc:
        raise CatchlightError(
            f"The HTTP client cannot be made: {exc}. Look at SSL_CERT_FILE, SSL_CERT_DIR and the proxies in your "
            "environment (HTTPS_PROXY, ALL_PROXY), then repeat the command."
        ) from exc

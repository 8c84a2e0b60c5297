"""Signs webhooks as the Standard Webhooks specification defines.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

from catchlight.errors import InvalidSecretError

PREFIX = "whsec_"  # prefix of webhook secrets
# The specification's limits for a decoded key.
MIN_KEY_BYTES = 24
MAX_KEY_BYTES = 64


def signing_key(secret: str) -> bytes:
    """Decodes a webhook secret: base64 of 24 to 64 bytes, with or without the prefix `whsec_`.

    Raises:
        InvalidSecretError: the secret has another format. The message does not contain it.
    """
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidSecretError("the webhook secret is not base64") from None
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise InvalidSecretError(
            f"the webhook secret must be base64 of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes, but has {len(key)} bytes"
        )
    return key


def signed_headers(keys: Iterable[bytes], *, message_id: str, sent_at: datetime, body: bytes) -> dict[str, str]:
    """Returns the headers of a webhook: its id, the Unix time in seconds, and one signature for each key.

    Receivers accept a webhook if one of the signatures is valid, so a secret can be rotated without an interruption.
    """
    seconds = str(int(sent_at.timestamp()))
    content = b".".join((message_id.encode(), seconds.encode(), body))
    signatures = (base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }

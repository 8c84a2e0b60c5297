"""Verifies the token and the signature of a callback, and decodes its body as strict JSON.

Formats are checked before values are compared or parsed. Every invalid input raises `UnauthorizedError` or
`MalformedBodyError`, and no other exception.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NoReturn

from catchlight.errors import MalformedBodyError, UnauthorizedError

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{32,128}", re.ASCII)

# kie.ai signs the task id and the time, and sends both headers; documented at docs.kie.ai, "Webhook verification".
TIMESTAMP_HEADER = "x-webhook-timestamp"
SIGNATURE_HEADER = "x-webhook-signature"
TIMESTAMP_PATTERN = re.compile(r"[0-9]{10}", re.ASCII)
SIGNATURE_PATTERN = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)
# No tolerance is documented; other clients of this scheme use five minutes in both directions.
SIGNATURE_TOLERANCE = timedelta(seconds=300)


def verify_token(presented: str, live_tokens: Iterable[str]) -> None:
    """Checks the callback token of the URL, in constant time per token.

    Raises:
        UnauthorizedError: the token is malformed or is none of the valid ones.
    """
    # The format first: a malformed token must not cause a call to Secrets Manager.
    if TOKEN_PATTERN.fullmatch(presented):
        for token in live_tokens:
            if hmac.compare_digest(presented.encode(), token.encode()):
                return
    raise UnauthorizedError("the token in the URL is not valid")


def verify_signature(headers: Mapping[str, str], task_id: str, live_keys: Iterable[str], *, now: datetime) -> None:
    """Checks kie.ai's signature: base64(HMAC-SHA256(key, taskId + "." + timestamp)).

    The signature covers only the task id and the time: status and URLs in the body stay unconfirmed.

    Args:
        headers: names in lower case. A header that was sent twice is comma-joined and therefore rejected.
        live_keys: the webhook keys valid now. Without keys, or with empty ones only, every signature is rejected.

    Raises:
        UnauthorizedError: the signature is missing, malformed, too old, too new, or made with another key.
    """
    timestamp = headers.get(TIMESTAMP_HEADER, "")
    signature = headers.get(SIGNATURE_HEADER, "")
    if TIMESTAMP_PATTERN.fullmatch(timestamp) and SIGNATURE_PATTERN.fullmatch(signature):
        age = abs(now.timestamp() - int(timestamp))
        signed = f"{task_id}.{timestamp}".encode()
        for key in live_keys:
            expected = base64.b64encode(hmac.new(key.encode(), signed, hashlib.sha256).digest())
            if key and hmac.compare_digest(signature.encode(), expected) and age <= SIGNATURE_TOLERANCE.total_seconds():
                return
    raise UnauthorizedError("the webhook signature is missing, malformed, expired or made with another key")


def decode_json(body: bytes) -> Any:
    """Decodes JSON according to RFC 8259: in UTF-8, without NaN, repeated keys, or nesting that exhausts the stack.

    Raises:
        MalformedBodyError: the body is not such JSON.
    """
    try:
        return json.loads(
            body.decode("utf-8"), parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeated_keys
        )
    except UnicodeDecodeError:
        raise MalformedBodyError("the body is not UTF-8") from None
    except RecursionError:
        raise MalformedBodyError("the body is nested too deeply") from None
    except json.JSONDecodeError as exc:
        raise MalformedBodyError(f"the body is not JSON: {exc.msg} at character {exc.pos}") from None
    except ValueError:
        # int() rejects an integer of thousands of digits (CVE-2020-10735).
        raise MalformedBodyError("the body holds a number that is too long") from None


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedBodyError("the body is not JSON: NaN and Infinity are no numbers")


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two parsers of {"taskId": "a", "taskId": "b"} may see different tasks.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedBodyError("the body has an object with the same key twice")
    return result

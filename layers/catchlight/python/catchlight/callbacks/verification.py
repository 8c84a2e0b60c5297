"""Who calls, and whether what was sent is JSON in the strict sense. Bytes and shapes first, meaning later.

Whatever a stranger sends, one of two errors comes out: `UnauthorizedError` or `MalformedBodyError`.
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

# kie.ai signs taskId and time, with these headers; documented at docs.kie.ai, "Webhook verification".
TIMESTAMP_HEADER = "x-webhook-timestamp"
SIGNATURE_HEADER = "x-webhook-signature"
TIMESTAMP_PATTERN = re.compile(r"[0-9]{10}", re.ASCII)
SIGNATURE_PATTERN = re.compile(r"[A-Za-z0-9+/]{43}=", re.ASCII)
# No tolerance is documented; five minutes each way is what clients of this scheme use.
SIGNATURE_TOLERANCE = timedelta(seconds=300)


def verify_token(presented: str, live_tokens: Iterable[str]) -> None:
    """Accepts the callback token of the URL.

    Raises:
        UnauthorizedError: it is none of the live ones.
    """
    # The shape first: no stranger makes us read secrets with garbage.
    if TOKEN_PATTERN.fullmatch(presented):
        for token in live_tokens:
            if hmac.compare_digest(presented.encode(), token.encode()):
                return
    raise UnauthorizedError("the token in the URL is not valid")


def verify_signature(headers: Mapping[str, str], task_id: str, live_keys: Iterable[str], *, now: datetime) -> None:
    """Accepts kie.ai's signature: base64(HMAC-SHA256(key, taskId + "." + timestamp)).

    It covers task id and time only: what the body says of status and URLs stays a claim.

    Args:
        headers: lower-case names; a header that was sent twice is comma-joined and therefore refused.
        live_keys: webhook keys valid now; none, or only empty ones, accepts nothing.

    Raises:
        UnauthorizedError: missing, malformed, too old, too new, or made with another key.
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
    """JSON as RFC 8259 has it: UTF-8, no NaN, no key twice, no depth that would exhaust the stack.

    Raises:
        MalformedBodyError: it is not.
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
        # An integer of thousands of digits: int() refuses it (CVE-2020-10735).
        raise MalformedBodyError("the body holds a number that is too long") from None


def _refuse_constant(_: str) -> NoReturn:
    raise MalformedBodyError("the body is not JSON: NaN and Infinity are no numbers")


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Two readers of {"taskId": "a", "taskId": "b"} may see two tasks.
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedBodyError("the body has an object with the same key twice")
    return result

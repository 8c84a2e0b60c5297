"""Sends signed task events to the receiver's URL, each within a deadline."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

import httpcore

from catchlight import __version__
from catchlight.aws.secrets import RotatingSecret
from catchlight.errors import (
    ImageRejectedError,
    ImageUnavailableError,
    InvalidMessageError,
    InvalidSecretError,
    SettingsError,
    WebhookGoneError,
    WebhookNotAcceptedError,
)
from catchlight.http_connections import HTTP_ERRORS, Deadline, Exchange, HttpResponse, failure_text
from catchlight.images.url_policy import ANY_HOST, UrlPolicy
from catchlight.models import is_task_key
from catchlight.outbound_http import HttpClient, request_url
from catchlight.webhooks.signature import signed_headers, signing_key

# The specification recommends 15 to 30 s. With a longer time, an unresponsive receiver would delay more webhooks.
SEND_DEADLINE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Webhook:
    """A task event to be sent."""

    event_id: str  # the same in every try, so that receivers can recognize repeated webhooks
    task: str
    body: bytes


def read_webhook(message: str) -> Webhook:
    """Parses a message of the webhook queue: an event as EventBridge delivers it. Its `detail` becomes the body.

    The same message always results in the same bytes.

    Raises:
        InvalidMessageError: the message is not a task event.
    """
    try:
        detail = json.loads(message)["detail"]
        event_id, task = detail["eventId"], detail["task"]
    except (KeyError, TypeError, ValueError, RecursionError):
        raise InvalidMessageError("not a task event of EventBridge: delete it from the dead letters") from None
    is_valid = isinstance(event_id, str) and isinstance(task, str) and is_task_key(task)
    if not (is_valid and event_id.isascii() and event_id.isprintable()):  # the id becomes the value of a header
        raise InvalidMessageError("a task event without a valid id or task: delete it from the dead letters")
    return Webhook(event_id, task, json.dumps(detail, separators=(",", ":")).encode())


def signing_keys(secret: RotatingSecret) -> list[bytes]:
    """Returns the current key and, after a rotation, the previous one.

    A previous value of the secret that is not a webhook secret is ignored: no receiver can use it.

    Raises:
        SettingsError: the current secret is missing or malformed.
        StoreUnavailableError: Secrets Manager did not answer.
    """
    current, previous = secret.current_and_previous()
    keys = [signing_key(current)]
    if previous is not None:
        with suppress(InvalidSecretError):
            keys.append(signing_key(previous))
    return keys


class WebhookSender:
    """Sends webhooks to one URL. Thread-safe."""

    def __init__(self, url: str, keys: Callable[[], Sequence[bytes]], http: HttpClient | None = None) -> None:
        """Creates a sender. `keys` returns the keys with which webhooks are signed."""
        self._url = url
        self._keys = keys
        self._url_policy = UrlPolicy()
        # Only public addresses, as for images: whoever controls the host's DNS records must not be able to direct
        # requests into the function's own network.
        self._http = http or HttpClient(self._url_policy.resolve)

    def send(self, webhook: Webhook, *, now: datetime) -> int:
        """Sends a webhook and returns the status of the receiver's response, 200 to 299.

        The response's body is not read. Redirects are not followed, as the specification requires.

        Raises:
            WebhookGoneError: the receiver responded with 410: it accepts no more webhooks.
            WebhookNotAcceptedError: another status, or no response. The message contains neither the URL nor a secret.
            SettingsError: the URL is not allowed, or as `signing_keys` raises it.
            StoreUnavailableError: see `signing_keys`.
        """
        headers = {
            "User-Agent": f"Catchlight/{__version__} (+webhooks)",
            "Content-Type": "application/json",
            **signed_headers(self._keys(), message_id=webhook.event_id, sent_at=now, body=webhook.body),
        }
        exchange = Exchange(Deadline(SEND_DEADLINE_SECONDS))
        url = self._request_url()
        try:
            with self._http.send("POST", url, headers, webhook.body, exchange=exchange) as response:
                _check_status(response)
                return response.status
        except httpcore.TimeoutException as exc:
            raise WebhookNotAcceptedError(f"the receiver did not answer within {SEND_DEADLINE_SECONDS:g} s") from exc
        except HTTP_ERRORS as exc:
            raise WebhookNotAcceptedError(f"the connection to the receiver failed: {failure_text(exc)}") from exc
        except ImageUnavailableError as exc:  # raised by the URL policy if it cannot resolve the host name
            raise WebhookNotAcceptedError(str(exc)) from exc

    def _request_url(self) -> httpcore.URL:
        try:
            host = self._url_policy.check_url(self._url, [ANY_HOST])
        except ImageRejectedError as exc:
            raise SettingsError(f"WebhookUrl: {exc}") from exc
        return request_url(self._url, host)


def _check_status(response: HttpResponse) -> None:
    if response.status == HTTPStatus.GONE:
        raise WebhookGoneError("the receiver answers 410: it accepts no more webhooks")
    if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
        raise WebhookNotAcceptedError(f"the receiver answers {response.status}", _retry_after(response))


def _retry_after(response: HttpResponse) -> int | None:
    """Returns the seconds of the Retry-After header; None if it is missing or has a date."""
    value = response.headers.get("retry-after", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None

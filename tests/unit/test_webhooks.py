"""Webhooks: signatures and retries are those of the specification, and each attempt has a deadline."""

import base64
import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook as Receiver
from standardwebhooks.webhooks import WebhookVerificationError

from catchlight.errors import (
    ImageUnavailableError,
    InvalidMessageError,
    InvalidSecretError,
    SettingsError,
    WebhookGoneError,
    WebhookNotAcceptedError,
)
from catchlight.images.url_policy import UrlPolicy
from catchlight.models import utc_now
from catchlight.outbound_http import HttpClient
from catchlight.webhooks import sender
from catchlight.webhooks.retries import MAX_RETRY_AFTER_SECONDS, RETRIES_AT_SECONDS, retry_after_seconds
from catchlight.webhooks.sender import Webhook, WebhookSender, read_webhook
from catchlight.webhooks.signature import signed_headers, signing_key
from tests.fake_http import FakeHttp
from tests.hostile.internet import listening, read_request

EXAMPLES = {
    path.stem: path.read_text() for path in (Path(__file__).parents[2] / "events" / "task_events").glob("*.json")
}
# The test vector of the libraries in standard-webhooks/standard-webhooks.
VECTOR = {
    "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "body": '{"test": 2432232314}',
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
SECRET, PREVIOUS = base64.b64encode(bytes(range(36))).decode(), base64.b64encode(bytes(36)).decode()
URL = "https://hooks.example.com/catchlight?token=in-the-query"
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


# ------------------------------------------------------------------------------------------------ the signature


def test_the_signature_is_the_one_of_the_official_vector() -> None:
    headers = signed_headers(
        [signing_key(VECTOR["secret"])],
        message_id=VECTOR["webhook-id"],
        sent_at=datetime.fromtimestamp(int(VECTOR["webhook-timestamp"]), UTC),
        body=VECTOR["body"].encode(),
    )

    assert headers == {name: value for name, value in VECTOR.items() if name.startswith("webhook-")}


@pytest.mark.parametrize("prefix", ["", "whsec_"])
@pytest.mark.parametrize("secret", [SECRET, PREVIOUS])
def test_receivers_with_either_secret_accept_a_webhook(prefix: str, secret: str) -> None:
    body = '{"reason":"é\U0001f4a5"}'
    keys = [signing_key(SECRET), signing_key(f"whsec_{PREVIOUS}")]
    headers = signed_headers(keys, message_id="event-1", sent_at=utc_now(), body=body.encode())

    assert Receiver(prefix + secret).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Receiver(prefix + secret).verify(body.replace("é", "e"), headers)


@pytest.mark.parametrize("length", [24, 36, 64])
def test_a_secret_is_base64_of_24_to_64_bytes(length: int) -> None:
    assert signing_key(base64.b64encode(b"k" * length).decode()) == b"k" * length


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "no base64!", "A" * 47, base64.b64encode(b"k" * 23).decode(), "A" * 88, "é" * 48]
)
def test_an_invalid_secret_is_refused_and_not_quoted(secret: str) -> None:
    with pytest.raises(InvalidSecretError) as caught:
        signing_key(secret)

    assert not secret or secret not in str(caught.value)


# ------------------------------------------------------------------------------------------------ the schedule


def test_retries_are_the_schedule_of_the_specification_and_end_after_a_day() -> None:
    queued_at, now, waited = NOW, NOW, []
    while (seconds := retry_after_seconds(now, queued_at=queued_at)) is not None:
        waited.append(seconds)
        now += timedelta(seconds=seconds)

    assert waited == [5, 300, 1800, 7200, 18_000, 36_000, 36_000]
    assert (now - queued_at).total_seconds() == RETRIES_AT_SECONDS[-1] > 86_400
    assert max(waited) < 43_200  # SQS keeps a message invisible for twelve hours at most


@pytest.mark.parametrize(
    ("age", "retry_after", "expected"),
    [
        (15.2, None, 290),  # the receiver did not answer in time, and the time of the retry after 5 s has passed
        (4.999, None, 1),
        (0, 120, 120),
        (0, 10**9, MAX_RETRY_AFTER_SECONDS),
        (310, 5, 1795),  # a shorter wait than planned is ignored
        (-60, None, 65),  # SQS's clock is ahead
        (99_305, None, None),
        (99_305, 60, None),
    ],
)
def test_the_time_of_the_next_try_is_counted_from_the_queueing(
    age: float, retry_after: int | None, expected: int | None
) -> None:
    now = NOW + timedelta(seconds=age)

    assert retry_after_seconds(now, queued_at=NOW, retry_after=retry_after) == expected


# ------------------------------------------------------------------------------------------------ the body


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_body_is_the_events_detail_in_the_same_bytes_each_time(name: str) -> None:
    detail = json.loads(EXAMPLES[name])["detail"]

    webhook = read_webhook(EXAMPLES[name])

    assert json.loads(webhook.body) == detail
    assert (webhook.event_id, webhook.task) == (detail["eventId"], detail["task"])
    assert read_webhook(EXAMPLES[name]) == webhook
    assert len(webhook.body) <= len(EXAMPLES[name])


def changed(**changes: Any) -> str:
    event = json.loads(EXAMPLES["failed"])
    return json.dumps({**event, "detail": event["detail"] | changes})


@pytest.mark.parametrize(
    "message",
    [
        *("", "no JSON", "[]", "{}", '{"detail": null}', '{"detail": {"eventId": "e"}}', "[" * 100_000),
        *(changed(eventId=None), changed(eventId="two\r\nlines"), changed(eventId="é"), changed(task="no-key")),
        changed(task=7),
    ],
)
def test_an_invalid_message_is_an_error(message: str) -> None:
    with pytest.raises(InvalidMessageError):
        read_webhook(message)


def test_a_lone_surrogate_in_metadata_is_kept() -> None:
    message = json.dumps({"detail": {"eventId": "e", "task": "acedata#t", "metadata": {"note": "\ud800"}}})

    assert json.loads(read_webhook(message).body)["metadata"] == {"note": "\ud800"}


# ------------------------------------------------------------------------------------------------ sending

WEBHOOK = Webhook("event-1", "acedata#t1", b'{"eventId":"event-1"}')


def send(respond: Callable[[httpx.Request], httpx.Response], url: str = URL) -> int:
    keys = [signing_key(SECRET), signing_key(PREVIOUS)]
    return WebhookSender(url, lambda: keys, FakeHttp(respond)).send(WEBHOOK, now=utc_now())


def answering(status: int, headers: Mapping[str, str] | None = None) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, headers=headers)


def test_a_webhook_is_a_signed_post_to_the_url() -> None:
    requests: list[httpx.Request] = []

    def accept(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(204)

    assert send(accept) == 204

    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == "event-1"
    for secret in (SECRET, PREVIOUS):
        Receiver(secret).verify(request.content, dict(request.headers))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_success(status: int) -> None:
    assert send(answering(status)) == status


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 403, 404, 405, 408, 413, 422, 429, 500, 502, 503, 504])
def test_any_other_status_is_a_failure_and_no_redirect_is_followed(status: int) -> None:
    with pytest.raises(WebhookNotAcceptedError, match=f"answers {status}$") as caught:
        send(answering(status, {"location": "https://elsewhere.example/"}))

    assert not isinstance(caught.value, WebhookGoneError)
    assert caught.value.retry_after is None


def test_status_410_has_its_own_error() -> None:
    with pytest.raises(WebhookGoneError):
        send(answering(410))


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None), ("9" * 40, None)]
)
def test_retry_after_of_the_receiver_is_read(value: str, seconds: int | None) -> None:
    with pytest.raises(WebhookNotAcceptedError) as caught:
        send(answering(503, {"retry-after": value}))

    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_receiver_that_does_not_answer_is_a_failure(error: type[httpx.TransportError]) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise error(f"{URL} is not there")

    with pytest.raises(WebhookNotAcceptedError) as caught:
        send(fail)

    assert "hooks.example.com" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("http://hooks.example.com/", "https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://"),
        *("https://user:password@hooks.example.com/", "https://hooks.example.com:8443/", "ftp://hooks.example.com/"),
    ],
)
def test_a_url_that_is_not_https_to_a_public_name_is_an_error_of_the_settings(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^WebhookUrl: ") as caught:
        send(answering(200), url)

    assert "password" not in str(caught.value)


def test_a_name_with_an_address_that_is_not_public_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any) -> list[str]:
        raise ImageUnavailableError("hooks.example.com has an address that is not public")

    monkeypatch.setattr(UrlPolicy, "resolve", resolve)

    with pytest.raises(WebhookNotAcceptedError, match="not public"):
        WebhookSender(URL, lambda: [signing_key(SECRET)]).send(WEBHOOK, now=NOW)


def test_a_response_that_arrives_byte_by_byte_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver sends a byte at a time, so each single read succeeds."""

    def send_byte_by_byte(connection: Any) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nx: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    monkeypatch.setattr(sender, "SEND_DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(UrlPolicy, "check_url", lambda *_: "127.0.0.1")
    with listening(send_byte_by_byte) as port:
        http = HttpClient(lambda *_: ["127.0.0.1"])
        webhooks = WebhookSender(f"http://127.0.0.1:{port}/", lambda: [signing_key(SECRET)], http)
        with pytest.raises(WebhookNotAcceptedError, match=r"^the receiver did not answer within 0\.3 s$"):
            webhooks.send(WEBHOOK, now=NOW)

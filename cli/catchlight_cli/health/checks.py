"""The checks of `catchlight doctor`, one function per subject. Expected errors are reported as checks, not raised."""

import json
import secrets
import statistics
import string
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import StrEnum

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import computed_field

from catchlight.aws.batches import batches
from catchlight.aws.secrets import TOKEN_PATTERN, character_problem
from catchlight.client.aws_errors import describe_error
from catchlight.client.stack import Stack
from catchlight.errors import InvalidSecretError, SettingsError
from catchlight.models import Model, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight_cli.factories import provider_client
from catchlight_cli.health.probe import (
    BINARY_TYPE,
    PROVIDER,
    PROVIDER_TIMEOUT_SECONDS,
    Endpoint,
    ProbeItem,
    ProbeResponse,
)
from catchlight_cli.health.provider_keys import (
    ApiKey,
    KeyStatus,
    check_api_key,
    check_webhook_key,
    read_secret,
    stored_keys,
)
from catchlight_cli.health.queues import queue_depths
from catchlight_cli.output import plural

# ReceiveCallback refuses bodies longer than 64 KiB.
_MAX_BODY_BYTES = 64 * 1024
# DescribeAlarms accepts at most this many names.
_MAX_ALARMS_PER_CALL = 100


class CheckStatus(StrEnum):
    """The result of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # not checked, which is not an error


class Check(Model):
    """A check: its subject, its result, and what to do next."""

    subject: str
    status: CheckStatus
    detail: str
    next_step: str = ""


class Latency(Model):
    """Response times of accepted callbacks."""

    samples: int
    median_seconds: float
    max_seconds: float

    @computed_field  # type: ignore[prop-decorator] # mypy does not support decorated properties
    @property
    def share_of_timeout(self) -> float:
        """The slowest response time as a share of the 15 s after which providers close the connection."""
        return self.max_seconds / PROVIDER_TIMEOUT_SECONDS


def _ok(subject: str, detail: str) -> Check:
    return Check(subject=subject, status=CheckStatus.OK, detail=detail)


def _failed(subject: str, detail: str, next_step: str) -> Check:
    return Check(subject=subject, status=CheckStatus.FAILED, detail=detail, next_step=next_step)


def _skipped(subject: str, detail: str, next_step: str = "") -> Check:
    return Check(subject=subject, status=CheckStatus.SKIPPED, detail=detail, next_step=next_step)


def check_token(stack: Stack) -> tuple[Check, str | None]:
    """Checks the callback token; also returns the token if it is valid, else None."""
    subject = "callback token"
    try:
        token = read_secret(stack, "CallbackTokenSecret")
    except (ClientError, BotoCoreError) as exc:
        return _failed(subject, "cannot be read", describe_error(exc)), None
    if not TOKEN_PATTERN.fullmatch(token):
        has = character_problem(token) or "needs 32 to 128 letters, digits, - and _"
        problem = f"invalid: the token {has}, so no callback is accepted"
        return _failed(subject, problem, "put a valid token into the secret, and the new URL into your requests"), None
    return _ok(subject, f"{len(token)} characters"), token


def check_provider_keys(stack: Stack) -> tuple[list[Check], str | None]:
    """Checks the API keys and webhook keys of all providers; also returns the webhook key of the probe's provider."""
    subject = "provider keys"
    try:
        secret = read_secret(stack)
        stored = stored_keys(secret)
    except (ClientError, BotoCoreError) as exc:
        return [_failed(subject, "cannot be read", describe_error(exc))], None
    except SettingsError as exc:
        return [_failed(subject, str(exc), "correct the secret, or replace it by {} and set every key again")], None
    checks = []
    if unknown := sorted(name for name in json.loads(secret) if name not in PROVIDERS):
        problem = f"unknown provider {', '.join(unknown)}; the providers are {', '.join(PROVIDERS)}"
        checks.append(_failed(subject, problem, "correct the name in the secret"))
    with provider_client(stack) as client:
        api_keys = [check_api_key(client, keys) for keys in stored.values()]
    for api_key, webhook_key in zip(api_keys, map(check_webhook_key, stored.values()), strict=True):
        if webhook_key.problem:
            checks.append(_failed(f"{webhook_key.provider} webhook key", webhook_key.problem, webhook_key.next_step))
        checks.append(_check_of(api_key))
    if all(key.status is KeyStatus.MISSING for key in api_keys):
        checks.append(_failed(subject, "no provider has an API key", "`catchlight keys set PROVIDER`"))
    try:
        return checks, stored[PROVIDER].webhook_key
    except InvalidSecretError:
        return checks, None


def _check_of(key: ApiKey) -> Check:
    detail = key.explanation
    if key.credits is not None:
        detail = f"{key.credits:,g} credits" + (f"; {detail}" if detail else "")
    status = {
        KeyStatus.VALID: CheckStatus.OK,
        KeyStatus.MISSING: CheckStatus.SKIPPED,
        KeyStatus.NOT_TRIED: CheckStatus.SKIPPED,
    }.get(key.status, CheckStatus.FAILED)
    result = f"{key.status}: {detail}" if detail else key.status.value
    return Check(subject=f"{key.provider} API key", status=status, detail=result, next_step=key.next_step)


def check_endpoint(
    stack: Stack, endpoint: Endpoint, *, samples: int, now: datetime, on_progress: Callable[[], None]
) -> tuple[list[Check], Latency | None]:
    """Sends valid and forged callbacks to the endpoint, and checks its responses.

    Also returns the latency of all accepted callbacks; None if no callback was accepted. `samples` is the number of
    further callbacks that are sent for this measurement.
    """
    checks: list[Check] = []
    responses: list[ProbeResponse] = []
    try:
        with ProbeItem.put(stack.client("dynamodb"), stack.table, now) as item:
            for check, response in _calls(endpoint, item):
                checks.append(check)
                responses.append(response)
                on_progress()
            checks.append(_check_get(endpoint.call(item.task_id, method="GET")))
            for _ in range(samples):
                responses.append(endpoint.call(item.task_id))
                on_progress()
    except httpx.HTTPError as exc:
        problem = f"{endpoint.api_url} does not respond: {type(exc).__name__}"
        checks.append(_failed("endpoint", problem, "check your network and the API in the API Gateway console"))
    except (ClientError, BotoCoreError) as exc:
        checks.append(_failed("endpoint", "the probe item could not be written, read or deleted", describe_error(exc)))
    seconds = [response.seconds for response in responses if response.status == httpx.codes.OK]
    if not seconds:
        return checks, None
    latency = Latency(samples=len(seconds), median_seconds=statistics.median(seconds), max_seconds=max(seconds))
    checks.append(_check_latency(latency))
    return checks, latency


def _calls(endpoint: Endpoint, item: ProbeItem) -> Iterator[tuple[Check, ProbeResponse]]:
    def check(
        subject: str, response: ProbeResponse, expected: int, next_step: str = "see the log of ReceiveCallback"
    ) -> tuple[Check, ProbeResponse]:
        if response.status == expected:
            return _ok(subject, f"HTTP {response.status}"), response
        return _failed(subject, f"HTTP {response.status}, expected {expected}", next_step), response

    response = endpoint.call(item.task_id)
    status = item.status()
    if response.status == httpx.codes.OK and status != TaskStatus.FAILED:
        problem = f"HTTP 200, but the status in the table is {status}"
        next_step = "check in the stack's outputs whether this API and this table belong to the same stack"
        yield _failed("valid callback", problem, next_step), response
    else:
        yield check("valid callback", response, 200)
    yield check("repeated callback", endpoint.call(item.task_id), 200)
    yield check("body in base64", endpoint.call(item.task_id, content_type=BINARY_TYPE), 200)
    next_step = "callbacks of providers that add a slash to the URL are lost; see the log of ReceiveCallback"
    yield check("trailing slash", endpoint.call(item.task_id, slash="/"), 200, next_step)
    forged = "".join(secrets.choice(string.ascii_letters) for _ in range(48))
    insecure = "the endpoint accepts forged results: disable it until this is corrected"
    yield check("forged token", endpoint.call(item.task_id, token=forged), 401, insecure)
    if endpoint.webhook_key:
        response = endpoint.call(item.task_id, webhook_key=f"not {endpoint.webhook_key}")
        yield check("forged signature", response, 401, insecure)
    yield check("body over 64 KiB", endpoint.call(item.task_id, padding=_MAX_BODY_BYTES), 413)


def _check_get(response: ProbeResponse) -> Check:
    # Not part of the latency: the function responds to GET without a write.
    if response.status == httpx.codes.OK:
        return _ok("GET", "HTTP 200")
    next_step = "providers that check the URL with GET before they use it may refuse it; update the stack"
    return _failed("GET", f"HTTP {response.status}, expected 200", next_step)


def _check_latency(latency: Latency) -> Check:
    detail = (
        f"median {latency.median_seconds * 1000:.0f} ms, maximum {latency.max_seconds * 1000:.0f} ms of "
        f"{latency.samples} callbacks: {latency.share_of_timeout:.1%} of the 15 s that providers wait"
    )
    if latency.max_seconds < PROVIDER_TIMEOUT_SECONDS / 2:
        return _ok("callback latency", detail)
    next_step = "raise MemorySize of ReceiveCallback, or check the latency of DynamoDB"
    return _failed("callback latency", detail, next_step)


def check_queues(stack: Stack) -> Iterator[Check]:
    """Checks that the stack's dead-letter queues are empty."""
    for queue in queue_depths(stack):
        if queue.should_be_empty:
            if queue.messages:
                yield _failed(queue.queue, f"{plural(queue.messages, 'message')}: {queue.content}", queue.next_step)
            else:
                yield _ok(queue.queue, "empty")


def check_alarms(stack: Stack) -> Iterator[Check]:
    """Checks that no alarm of the stack is in state ALARM, and that alarms notify a topic."""
    if stack.is_local:
        yield _skipped("alarms", "the local stack has no alarms")
        return
    # An alarm's physical id is its name.
    names = sorted(name for logical_id, name in stack.resources.items() if logical_id.endswith("Alarm"))
    active = []
    try:
        for batch in batches(names, _MAX_ALARMS_PER_CALL):
            found = stack.client("cloudwatch").describe_alarms(AlarmNames=batch)
            active += [alarm for alarm in found["MetricAlarms"] if alarm["StateValue"] == "ALARM"]
    except (ClientError, BotoCoreError) as exc:
        yield _skipped("alarms", "cannot be read", describe_error(exc))
        return
    for alarm in active:
        yield _failed(alarm["AlarmName"], "in state ALARM", alarm.get("AlarmDescription", ""))
    if not active:
        yield _ok("alarms", f"none of {len(names)} in state ALARM")
    yield from _check_alarm_recipients(stack)


def _check_alarm_recipients(stack: Stack) -> Iterator[Check]:
    subject = "alarm notifications"
    address = stack.parameters.get("AlarmEmail")
    if not address and not stack.parameters.get("AlarmTopicArn"):
        yield _skipped(subject, "none: alarms are visible in CloudWatch only", "deploy with AlarmEmail=ADDRESS")
    if not address:
        return
    try:
        topic = stack.client("sns").get_topic_attributes(TopicArn=stack.resource("AlarmTopic"))["Attributes"]
    except (ClientError, BotoCoreError) as exc:
        yield _skipped(subject, "the subscription of AlarmEmail cannot be read", describe_error(exc))
        return
    if int(topic["SubscriptionsConfirmed"]):
        yield _ok(subject, f"sent to {address}")
    else:
        next_step = "open the link in AWS's message to this address; the SNS console can send another one"
        yield _failed(subject, f"{address} has not confirmed its subscription: no alarm arrives", next_step)

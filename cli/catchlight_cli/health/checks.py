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

from catchlight.aws.secrets import TOKEN_PATTERN, ProviderKeys, provider_keys
from catchlight.client.aws_errors import explain
from catchlight.client.stack import Stack
from catchlight.errors import SettingsError
from catchlight.models import Model, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight_cli.health.probe import BINARY_TYPE, PROVIDER, PROVIDER_TIMEOUT_SECONDS, Answer, Endpoint, ProbeItem
from catchlight_cli.health.queues import queue_depths

# ReceiveCallback refuses bodies longer than 64 KiB.
_TOO_LONG = 64 * 1024


class Verdict(StrEnum):
    """The result of a check."""

    FINE = "fine"
    WRONG = "wrong"
    SKIPPED = "skipped"  # it could not be checked, which alone is not an error


class Check(Model):
    """A check: its subject, its result, and what to do next."""

    subject: str
    verdict: Verdict
    detail: str
    next: str = ""  # what to do about it


class Acknowledgement(Model):
    """Measured response times of accepted callbacks."""

    probes: int
    median_seconds: float
    max_seconds: float

    @computed_field  # type: ignore[prop-decorator] # mypy does not support decorated properties
    @property
    def share_of_timeout(self) -> float:
        """The slowest response time as a share of the 15 s after which providers close the connection."""
        return self.max_seconds / PROVIDER_TIMEOUT_SECONDS


def _read_secret(stack: Stack, logical_id: str) -> str:
    value: str = stack.client("secretsmanager").get_secret_value(SecretId=stack.resource(logical_id))["SecretString"]
    return value


def check_token(stack: Stack) -> tuple[Check, str | None]:
    """Checks the callback token; also returns the token if it is valid, else None."""
    subject = "callback token"
    try:
        token = _read_secret(stack, "CallbackTokenSecret")
    except (ClientError, BotoCoreError) as exc:
        return Check(subject=subject, verdict=Verdict.WRONG, detail="cannot be read", next=explain(exc)), None
    if not TOKEN_PATTERN.fullmatch(token):
        problem = "no callback can match it: it needs 32 to 128 letters, digits, - and _"
        rotate = "put another value into the secret, and the new URL into your requests"
        return Check(subject=subject, verdict=Verdict.WRONG, detail=problem, next=rotate), None
    return Check(subject=subject, verdict=Verdict.FINE, detail=f"{len(token)} characters"), token


def check_provider_keys(stack: Stack) -> tuple[list[Check], ProviderKeys]:
    """Checks the API keys and webhook keys of all providers; also returns the keys of the probe's provider."""
    subject = "provider keys"
    put = 'put {"PROVIDER": {"apiKey": "..."}} into the secret ProviderKeysSecretArn of the stack\'s outputs'
    try:
        secret = _read_secret(stack, "ProviderKeysSecret")
        keys = {provider: provider_keys(secret, provider) for provider in PROVIDERS}
    except (ClientError, BotoCoreError) as exc:
        return [
            Check(subject=subject, verdict=Verdict.WRONG, detail="cannot be read", next=explain(exc))
        ], ProviderKeys()
    except SettingsError as exc:
        return [Check(subject=subject, verdict=Verdict.WRONG, detail=str(exc), next=put)], ProviderKeys()
    checks = []
    if unknown := sorted(set(json.loads(secret)) - set(PROVIDERS)):
        problem = f"no provider is called {', '.join(unknown)}; there are {', '.join(PROVIDERS)}"
        checks.append(
            Check(subject=subject, verdict=Verdict.WRONG, detail=problem, next="correct the name in the secret")
        )
    for provider, found in keys.items():
        if found.webhook_key is not None and not found.webhook_key.get_secret_value():
            checks.append(
                Check(
                    subject=f"{provider} webhook key",
                    verdict=Verdict.WRONG,
                    detail="is empty: every callback is refused",
                    next="put the key there, or leave webhookKey out",
                )
            )
        without = "lost callbacks are not made good, nor are callbacks confirmed"
        checks.append(
            Check(
                subject=f"{provider} API key",
                verdict=Verdict.FINE if found.usable_api_key else Verdict.SKIPPED,
                detail="present" if found.usable_api_key else f"missing: {without}",
                next="" if found.usable_api_key else f"if you use {provider}, {put}",
            )
        )
    if not any(found.usable_api_key for found in keys.values()):
        checks.append(Check(subject=subject, verdict=Verdict.WRONG, detail="no provider has an API key", next=put))
    return checks, keys[PROVIDER]


def check_endpoint(
    stack: Stack, endpoint: Endpoint, *, probes: int, now: datetime, on_progress: Callable[[], None]
) -> tuple[list[Check], Acknowledgement | None]:
    """Sends valid and forged callbacks to the endpoint and checks its responses; measures the time of accepted ones."""
    checks: list[Check] = []
    accepted: list[Answer] = []
    try:
        with ProbeItem.put(stack.client("dynamodb"), stack.table, now) as item:
            for check, answer in _calls(endpoint, item):
                checks.append(check)
                accepted += [answer] if answer.status == httpx.codes.OK else []
                on_progress()
            for _ in range(probes):
                answer = endpoint.call(item.task_id)
                accepted += [answer] if answer.status == httpx.codes.OK else []
                on_progress()
    except httpx.HTTPError as exc:
        unreachable = f"{endpoint.api_url} does not answer: {type(exc).__name__}"
        next_step = "look at the API and at your network; `catchlight status` speaks to AWS only"
        checks.append(Check(subject="endpoint", verdict=Verdict.WRONG, detail=unreachable, next=next_step))
    except (ClientError, BotoCoreError) as exc:
        problem = "the probe's item could not be written and deleted"
        checks.append(Check(subject="endpoint", verdict=Verdict.WRONG, detail=problem, next=explain(exc)))
    if not accepted:
        return checks, None
    seconds = [answer.seconds for answer in accepted]
    measured = Acknowledgement(probes=len(seconds), median_seconds=statistics.median(seconds), max_seconds=max(seconds))
    checks.append(_check_acknowledgement(measured))
    return checks, measured


def _calls(endpoint: Endpoint, item: ProbeItem) -> Iterator[tuple[Check, Answer]]:
    logs = "the log of ReceiveCallback says why"

    def check(subject: str, answer: Answer, expected: int, next_step: str = logs) -> tuple[Check, Answer]:
        is_fine = answer.status == expected
        detail = f"answered {answer.status}" + ("" if is_fine else f", expected {expected}")
        verdict = Verdict.FINE if is_fine else Verdict.WRONG
        return Check(subject=subject, verdict=verdict, detail=detail, next="" if is_fine else next_step), answer

    answer = endpoint.call(item.task_id)
    status = item.status()
    if answer.status == httpx.codes.OK and status != TaskStatus.FAILED:
        stale = Check(
            subject="good callback",
            verdict=Verdict.WRONG,
            detail=f"answered 200, but the table says {status}",
            next="is this API of this stack? Look at the outputs of the stack",
        )
        yield stale, answer
    else:
        yield check("good callback", answer, 200)
    yield check("the same again", endpoint.call(item.task_id), 200)
    yield check("body in base64", endpoint.call(item.task_id, content_type=BINARY_TYPE), 200)
    yield check("trailing slash", endpoint.call(item.task_id, slash="/"), 200, "providers take this for a loss")
    forged = "".join(secrets.choice(string.ascii_letters) for _ in range(48))
    open_door = "anybody can post results: take the endpoint down until this is repaired"
    yield check("forged token", endpoint.call(item.task_id, token=forged), 401, open_door)
    if endpoint.webhook_key:
        answer = endpoint.call(item.task_id, webhook_key=f"not {endpoint.webhook_key}")
        yield check("forged signature", answer, 401, open_door)
    yield check("body over 64 KiB", endpoint.call(item.task_id, padding=_TOO_LONG), 413)
    # API Gateway has no route for GET and responds itself.
    yield check("GET instead of POST", endpoint.call(item.task_id, method="GET"), 404)


def _check_acknowledgement(measured: Acknowledgement) -> Check:
    is_fine = measured.max_seconds < PROVIDER_TIMEOUT_SECONDS / 2
    return Check(
        subject="acknowledgement",
        verdict=Verdict.FINE if is_fine else Verdict.WRONG,
        detail=f"median {measured.median_seconds * 1000:.0f} ms, slowest {measured.max_seconds * 1000:.0f} ms of "
        f"{measured.probes}: {measured.share_of_timeout:.1%} of the 15 s that providers wait",
        next="" if is_fine else "more MemorySize for ReceiveCallback, or look at what DynamoDB takes",
    )


def check_queues(stack: Stack) -> Iterator[Check]:
    """Checks that the stack's dead-letter queues are empty."""
    for queue in queue_depths(stack):
        if queue.should_be_empty:
            is_fine = not queue.messages
            yield Check(
                subject=queue.queue,
                verdict=Verdict.FINE if is_fine else Verdict.WRONG,
                detail="empty" if is_fine else f"{queue.messages} messages: {queue.holds}",
                next="" if is_fine else queue.next_step,
            )


def check_alarms(stack: Stack) -> Iterator[Check]:
    """Checks that no alarm of the stack is in state ALARM, and that alarms are sent to a topic."""
    subject = "alarms"
    if stack.is_local:
        yield Check(subject=subject, verdict=Verdict.SKIPPED, detail="the local stack has none")
        return
    # An alarm's physical id is its name.
    names = sorted(name for logical_id, name in stack.resources.items() if logical_id.endswith("Alarm"))
    ringing = []
    try:
        for start in range(0, len(names), 100):
            found = stack.client("cloudwatch").describe_alarms(AlarmNames=names[start : start + 100])
            ringing += [alarm for alarm in found["MetricAlarms"] if alarm["StateValue"] == "ALARM"]
    except (ClientError, BotoCoreError) as exc:
        yield Check(subject=subject, verdict=Verdict.SKIPPED, detail="cannot be read", next=explain(exc))
        return
    for alarm in ringing:
        yield Check(
            subject=alarm["AlarmName"], verdict=Verdict.WRONG, detail="in ALARM", next=alarm.get("AlarmDescription", "")
        )
    if not ringing:
        yield Check(subject=subject, verdict=Verdict.FINE, detail=f"none of {len(names)} in ALARM")
    if not stack.parameters.get("AlarmTopicArn"):
        yield Check(
            subject="who hears alarms",
            verdict=Verdict.SKIPPED,
            detail="nobody: they show in CloudWatch only",
            next="deploy with AlarmTopicArn, the ARN of an SNS topic",
        )

"""`catchlight doctor` reports each fault of a stack, and deletes its probe's item."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import boto3
import httpx
import pytest
from moto.sns.models import sns_backends

from catchlight.models import Failure, FailureReason, Reporter, TaskReport, TaskStatus, task_key, utc_now
from catchlight.providers.kie import verify_signature
from catchlight_cli.health.probe import BINARY_TYPE, ID_PREFIX, Endpoint, ProbeResponse, signed
from local.template.expand import Template
from tests.canary_secrets import API_KEYS, CALLBACK_TOKEN, WEBHOOK_KEY
from tests.integration.cli.conftest import ALARM, STACK_NAME, Deployed, a_template
from tests.integration.providers import ACE_PATH, Providers, json_response


class FakeEndpoint:
    """Responds like the deployed endpoint, except for the fault that a test sets."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self.status_of: dict[str, int] = {}
        self.skips_write = False
        self.seconds = 0.01
        self.calls: list[str] = []
        self.task_ids: set[str] = set()

    def __call__(self, endpoint: Endpoint, task_id: str, **options: Any) -> ProbeResponse:
        kind, status = self._kind(options)
        self.calls.append(kind)
        self.task_ids.add(task_id)
        status = self.status_of.get(kind, status)
        if status == 0:
            raise httpx.ConnectError("refused")
        if status == 200 and kind != "GET" and not self.skips_write:
            self._deployed.store.reports.record(
                TaskReport(
                    provider="flux-kontext",
                    task_id=task_id,
                    status=TaskStatus.FAILED,
                    reported_by=Reporter.CALLBACK,
                    reported_at=utc_now(),
                    failure=Failure(reason=FailureReason.GENERATION_FAILED),
                )
            )
        return ProbeResponse(status, self.seconds)

    @staticmethod
    def _kind(options: dict[str, Any]) -> tuple[str, int]:
        if options.get("token"):
            return "forged token", 401
        if options.get("webhook_key"):
            return "forged signature", 401
        if options.get("padding", 0) > 65_000:
            return "oversized", 413
        if options.get("method") == "GET":
            return "GET", 200
        if options.get("slash") == "/":
            return "trailing slash", 200
        return ("base64" if options.get("content_type") == BINARY_TYPE else "good"), 200


@pytest.fixture(autouse=True)
def valid_keys(providers: Providers) -> Providers:
    """Every provider accepts every key."""
    providers.answers |= {
        "/api/v1/chat/credit": json_response({"code": 200, "msg": "success", "data": 35.95}),
        "/api/v1/common/credit": json_response({"code": 200, "msg": "success", "data": 7}),
        ACE_PATH: json_response({}),
    }
    return providers


@pytest.fixture
def endpoint(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> FakeEndpoint:
    fake = FakeEndpoint(deployed)
    monkeypatch.setattr(Endpoint, "call", lambda self, task_id, **options: fake(self, task_id, **options))
    return fake


def failed(diagnosis: dict[str, Any]) -> list[str]:
    return [check["subject"] for check in diagnosis["checks"] if check["status"] == "failed"]


def put_secret(name: str, value: str) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=name, SecretString=value)


# ------------------------------------------------------------------------------------------------ the endpoint


def test_a_healthy_stack_passes_every_check(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    diagnosis = deployed.run("doctor", "--samples", "5")

    assert failed(diagnosis) == []
    assert diagnosis["latency"] == {
        "samples": 9,
        "medianSeconds": 0.01,
        "maxSeconds": 0.01,
        "shareOfTimeout": pytest.approx(0.01 / 15),
    }
    kinds = ["good", "good", "base64", "trailing slash", "forged token", "oversized", "GET"]
    assert endpoint.calls == [*kinds, *["good"] * 5]
    page = deployed.show("doctor")
    assert "✓ No check failed." in page
    assert "of the 15 s that providers wait" in page


def test_the_probes_item_is_deleted(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    deployed.put("flux-kontext#a-task", "PENDING")
    before = deployed.store.items()

    deployed.run("doctor")

    (task_id,) = endpoint.task_ids
    assert task_id.startswith(ID_PREFIX)
    assert deployed.store.items() == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_the_item_of_an_interrupted_probe_is_deleted(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        assert len(deployed.store.items()) == 1
        raise interruption

    monkeypatch.setattr(Endpoint, "call", interrupt)

    if interruption is KeyboardInterrupt:
        deployed.run("doctor", expect=130)
    else:
        with pytest.raises(RuntimeError):
            deployed.run("doctor")
    assert deployed.store.items() == []


def test_the_probes_item_is_not_a_task(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    items = []

    def read_item(self: Endpoint, task_id: str, **_: Any) -> ProbeResponse:
        items.append(deployed.store.item(task_key("flux-kontext", task_id)))
        return ProbeResponse(500, 0.1)

    monkeypatch.setattr(Endpoint, "call", read_item)
    deployed.run("doctor", expect=1)

    item = items[0]
    assert item is not None
    # The functions that read the stream ignore this status. The item is not in the feed, and expires after a day.
    assert item["status"] not in set(TaskStatus)
    assert item["feed"] != "tasks"
    assert item["deleteAfter"] > utc_now().timestamp()


@pytest.mark.parametrize(
    ("kind", "status", "subject"),
    [
        ("good", 503, "valid callback"),
        ("base64", 400, "body in base64"),
        ("trailing slash", 301, "trailing slash"),
        ("forged token", 200, "forged token"),
        ("oversized", 200, "body over 64 KiB"),
        ("GET", 404, "GET"),
    ],
)
def test_unexpected_responses_are_reported(
    deployed: Deployed, endpoint: FakeEndpoint, kind: str, status: int, subject: str
) -> None:
    endpoint.status_of[kind] = status

    diagnosis = deployed.run("doctor", expect=1)

    assert subject in failed(diagnosis)
    (check,) = [check for check in diagnosis["checks"] if check["subject"] == subject]
    assert f"HTTP {status}, expected" in check["detail"]
    assert check["nextStep"]


def test_a_200_without_a_written_item_is_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    endpoint.skips_write = True

    assert failed(deployed.run("doctor", expect=1)) == ["valid callback"]


def test_an_unreachable_endpoint_is_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    endpoint.status_of["good"] = 0

    diagnosis = deployed.run("doctor", expect=1)

    assert failed(diagnosis) == ["endpoint"]
    assert diagnosis["latency"] is None
    assert deployed.store.items() == []


def test_a_slow_response_is_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    endpoint.seconds = 8.0

    diagnosis = deployed.run("doctor", expect=1)

    assert failed(diagnosis) == ["callback latency"]
    assert diagnosis["latency"]["shareOfTimeout"] == pytest.approx(8 / 15)


# ------------------------------------------------------------------------------------------------ secrets


def test_secrets_are_not_printed(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    keys = {provider: {"apiKey": key} for provider, key in API_KEYS.items()}
    put_secret(
        "ProviderKeysSecret", json.dumps(keys | {"flux-kontext": keys["flux-kontext"] | {"webhookKey": WEBHOOK_KEY}})
    )

    printed = (
        json.dumps(deployed.run("doctor"))
        + deployed.stderr
        + deployed.show("doctor")
        + repr(Endpoint("https://x.example", CALLBACK_TOKEN, WEBHOOK_KEY))
    )

    for secret in (CALLBACK_TOKEN, WEBHOOK_KEY, *API_KEYS.values()):
        assert secret not in printed


def test_white_space_around_the_token_is_ignored(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    put_secret("CallbackTokenSecret", f"\ufeff{CALLBACK_TOKEN}\n")

    checks = {check["subject"]: check for check in deployed.run("doctor")["checks"]}

    assert checks["callback token"]["detail"] == f"{len(CALLBACK_TOKEN)} characters"


@pytest.mark.parametrize("token", ["short", "x" * 31, "with a space" * 4, "x" * 129])
def test_an_invalid_callback_token_is_reported(deployed: Deployed, endpoint: FakeEndpoint, token: str) -> None:
    put_secret("CallbackTokenSecret", token)

    assert failed(deployed.run("doctor", expect=1)) == ["callback token"]

    assert endpoint.calls == []


@pytest.mark.parametrize(
    ("keys", "subjects"),
    [
        ("no JSON", ["provider keys"]),
        ('{"flux-kontext": 1}', ["provider keys"]),
        ("{}", ["provider keys"]),
        ('{"flux": {"apiKey": "s3cret"}, "acedata": {"apiKey": "s3cret"}}', ["provider keys"]),
        ('{"flux-kontext": {"apiKey": "s3cret", "webhookKey": ""}}', ["flux-kontext webhook key"]),
        ('{"flux-kontext": {"apiKey": "s3cret", "webhookKey": "..."}}', ["flux-kontext webhook key"]),
        ('{"acedata": {"apiKey": "s3cret", "webhookKey": "s3cret"}}', ["acedata webhook key"]),
        ('{"flux-kontext": {"apiKey": "..."}}', ["flux-kontext API key"]),
        ('{"flux-kontext": {"apiKey": "s3cret"}}', []),
    ],
    ids=[
        *("not JSON", "an entry that is not an object", "no providers", "unknown provider", "empty webhook key"),
        "placeholder as webhook key",
        *("webhook key of a service without signatures", "placeholder as API key", "one provider"),
    ],
)
def test_faults_in_the_provider_keys_secret_are_reported(
    deployed: Deployed, endpoint: FakeEndpoint, keys: str, subjects: list[str]
) -> None:
    put_secret("ProviderKeysSecret", keys)

    assert failed(deployed.run("doctor", expect=int(bool(subjects)))) == subjects


@pytest.mark.parametrize(
    ("entry", "subject", "detail"),
    [
        ({"apiKey": "s3\u200bcret"}, "flux-kontext API key", "has U+200B (ZERO WIDTH SPACE) at position 3"),
        ({"apiKey": 7}, "flux-kontext API key", "is not a string"),
        ({"apiKey": "s3cret", "webhookKey": ["s3cret"]}, "flux-kontext webhook key", "is not a string"),
        (
            {"apiKey": "s3cret", "webhookKey": "s3\u00a0cret"},
            "flux-kontext webhook key",
            "has U+00A0 (NO-BREAK SPACE) at",
        ),
    ],
)
def test_a_key_with_an_invalid_character_is_reported_with_its_position(
    deployed: Deployed, endpoint: FakeEndpoint, entry: dict[str, object], subject: str, detail: str
) -> None:
    put_secret("ProviderKeysSecret", json.dumps({"flux-kontext": entry, "acedata": {"apiKey": " k3y\n"}}))

    diagnosis = deployed.run("doctor", expect=1)

    checks = {check["subject"]: check for check in diagnosis["checks"]}
    assert failed(diagnosis) == [subject]
    assert detail in checks[subject]["detail"]
    assert "s3" not in json.dumps(diagnosis)
    assert checks["acedata API key"]["status"] == "ok"


def test_a_provider_without_a_key_is_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    put_secret("ProviderKeysSecret", '{"flux-kontext": {"apiKey": "s3cret"}}')

    checks = {check["subject"]: check for check in deployed.run("doctor")["checks"]}

    assert checks["flux-kontext API key"]["status"] == "ok"
    assert checks["acedata API key"]["status"] == "skipped"
    assert "missed callbacks are not recovered" in checks["acedata API key"]["detail"]


SERVICES_WITH_CHAT_CREDIT = ["flux-kontext API key", "apikley API key", "kie-market API key"]


@pytest.mark.parametrize(
    ("response", "subjects", "detail"),
    [
        (json_response({"code": 401, "msg": "no"}), SERVICES_WITH_CHAT_CREDIT, "refused: flux-kontext answered 401"),
        (
            json_response({"code": 200, "data": 0}),
            SERVICES_WITH_CHAT_CREDIT,
            "out of credits: 0 credits; the provider accepts",
        ),
        (json_response({}, 503), [], "not tried: flux-kontext answered 503"),
        (json_response({"code": 200, "data": 35.95}), [], "valid: 35.95 credits"),
    ],
)
def test_api_keys_are_tried_at_their_service(
    deployed: Deployed, endpoint: FakeEndpoint, providers: Providers, response: Any, subjects: list[str], detail: str
) -> None:
    providers.answers["/api/v1/chat/credit"] = response

    diagnosis = deployed.run("doctor", expect=int(bool(subjects)))

    assert failed(diagnosis) == subjects
    checks = {check["subject"]: check for check in diagnosis["checks"]}
    assert checks["flux-kontext API key"]["detail"].startswith(detail)


def test_an_unreadable_token_secret_is_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId="CallbackTokenSecret", ForceDeleteWithoutRecovery=True)

    assert failed(deployed.run("doctor", expect=1)) == ["callback token"]


# ------------------------------------------------------------------------------------------------ signatures


def test_probes_are_signed_if_there_is_a_webhook_key(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    put_secret("ProviderKeysSecret", json.dumps({"flux-kontext": {"apiKey": "s3cret", "webhookKey": WEBHOOK_KEY}}))

    deployed.run("doctor")
    assert "forged signature" in endpoint.calls

    endpoint.status_of["forged signature"] = 200
    assert failed(deployed.run("doctor", expect=1)) == ["forged signature"]


def test_the_functions_verification_accepts_the_probes_signature() -> None:
    now = datetime(2026, 1, 6, tzinfo=UTC)

    verify_signature(signed("doctor-1", "key", now), "doctor-1", ["key"], now=now)


def test_the_probes_signature_equals_kies_documented_vector() -> None:
    headers = signed("task12345", "k3y", datetime.fromtimestamp(1_700_000_000, UTC))

    # The first part of the documented vector only: the search for canary secrets would find the whole.
    assert headers["x-webhook-signature"].startswith("LWjZ5r+BmSIrvPfebGqC4HGP")


# ------------------------------------------------------------------------------------------------ queues, alarms


@pytest.mark.parametrize(
    "queue", ["ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters", "ReconcileDeadLetters"]
)
def test_messages_in_dead_letter_queues_are_reported(deployed: Deployed, endpoint: FakeEndpoint, queue: str) -> None:
    deployed.send(queue, {})

    assert failed(deployed.run("doctor", expect=1)) == [queue]


def make_alarm(state: str) -> None:
    cloudwatch = boto3.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=ALARM,
        AlarmDescription="Images could not be archived. Next: catchlight redrive.",
        MetricName="m",
        Namespace="n",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0,
        ComparisonOperator="GreaterThanThreshold",
    )
    change: Callable[..., Any] = cloudwatch.set_alarm_state
    change(AlarmName=ALARM, StateValue=state, StateReason="a test")


@pytest.mark.parametrize(("state", "is_reported"), [("ALARM", True), ("OK", False), ("INSUFFICIENT_DATA", False)])
def test_alarms_in_state_alarm_are_reported(
    deployed: Deployed, endpoint: FakeEndpoint, state: str, is_reported: bool
) -> None:
    make_alarm(state)

    diagnosis = deployed.run("doctor", expect=int(is_reported))

    assert failed(diagnosis) == ([ALARM] if is_reported else [])
    if is_reported:
        assert "Next: catchlight redrive." in json.dumps(diagnosis)


def test_alarms_without_a_recipient_are_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    checks = {check["subject"]: check["status"] for check in deployed.run("doctor")["checks"]}

    assert checks["alarm notifications"] == "skipped"


@pytest.mark.parametrize(("confirmed", "subjects"), [(1, []), (0, ["alarm notifications"])])
def test_an_unconfirmed_email_subscription_is_reported(
    deployed: Deployed,
    endpoint: FakeEndpoint,
    template: Template,
    confirmed: int,
    subjects: list[str],
) -> None:
    boto3.client("cloudformation").update_stack(
        StackName=STACK_NAME,
        TemplateBody=json.dumps(a_template(template)),
        Parameters=[{"ParameterKey": "AlarmEmail", "ParameterValue": "operators@example.com"}],
    )
    for topic in sns_backends["123456789012"]["us-east-1"].topics.values():
        topic.subscriptions_confimed = confirmed

    diagnosis = deployed.run("doctor", expect=len(subjects))

    assert failed(diagnosis) == subjects
    (check,) = [check for check in diagnosis["checks"] if check["subject"] == "alarm notifications"]
    assert "operators@example.com" in check["detail"]


def test_the_key_of_a_further_account_is_tried_at_its_service(
    deployed: Deployed, endpoint: FakeEndpoint, providers: Providers
) -> None:
    put_secret("ProviderKeysSecret", '{"apikley-2": {"apiKey": "s3cret-of-the-second"}}')
    providers.answers["/api/v1/chat/credit"] = json_response({"code": 200, "data": 5})

    checks = {check["subject"]: check for check in deployed.run("doctor")["checks"]}

    assert checks["apikley-2 API key"]["detail"].startswith("valid: 5")
    assert checks["apikley API key"]["status"] == "skipped"

"""`catchlight doctor` finds each fault of a stack, and its probe leaves no trace."""

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
from tests.integration.providers import ACE_PATH, Providers, saying


class FakeEndpoint:
    """An endpoint that answers as the deployed one does, except for the fault that a test sets."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        self.wrong: dict[str, int] = {}
        self.forgets = False
        self.seconds = 0.01
        self.calls: list[str] = []
        self.task_ids: set[str] = set()

    def __call__(self, endpoint: Endpoint, task_id: str, **how: Any) -> ProbeResponse:
        kind, status = self._kind(how)
        self.calls.append(kind)
        self.task_ids.add(task_id)
        status = self.wrong.get(kind, status)
        if status == 0:
            raise httpx.ConnectError("refused")
        if status == 200 and kind != "GET" and not self.forgets:
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
    def _kind(how: dict[str, Any]) -> tuple[str, int]:
        if how.get("token"):
            return "forged token", 401
        if how.get("webhook_key"):
            return "forged signature", 401
        if how.get("padding", 0) > 65_000:
            return "oversized", 413
        if how.get("method") == "GET":
            return "GET", 200
        if how.get("slash") == "/":
            return "trailing slash", 200
        return ("base64" if how.get("content_type") == BINARY_TYPE else "good"), 200


@pytest.fixture(autouse=True)
def valid_keys(providers: Providers) -> Providers:
    """Every provider accepts every key."""
    providers.answers |= {
        "/api/v1/chat/credit": saying({"code": 200, "msg": "success", "data": 35.95}),
        "/api/v1/common/credit": saying({"code": 200, "msg": "success", "data": 7}),
        ACE_PATH: saying({}),
    }
    return providers


@pytest.fixture
def endpoint(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> FakeEndpoint:
    fake = FakeEndpoint(deployed)
    monkeypatch.setattr(Endpoint, "call", lambda self, task_id, **how: fake(self, task_id, **how))
    return fake


def failed(diagnosis: dict[str, Any]) -> list[str]:
    return [check["subject"] for check in diagnosis["checks"] if check["status"] == "failed"]


def put_secret(name: str, value: str) -> None:
    boto3.client("secretsmanager").put_secret_value(SecretId=name, SecretString=value)


# ------------------------------------------------------------------------------------------------ the endpoint


def test_all_is_well(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    diagnosis = deployed.run("doctor", "--samples", "5")

    assert failed(diagnosis) == []
    assert diagnosis["latency"] == {
        "samples": 9,
        "medianSeconds": 0.01,
        "maxSeconds": 0.01,
        "shareOfTimeout": pytest.approx(0.01 / 15),
    }
    ways = ["good", "good", "base64", "trailing slash", "forged token", "oversized", "GET"]
    assert endpoint.calls == [*ways, *["good"] * 5]
    page = deployed.show("doctor")
    assert "✓ No check failed." in page
    assert "of the 15 s that providers wait" in page


def test_the_probe_leaves_no_trace(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    deployed.put("flux-kontext#a-task", "PENDING")
    before = deployed.store.items()

    deployed.run("doctor")

    (task_id,) = endpoint.task_ids
    assert task_id.startswith(ID_PREFIX)
    assert deployed.store.items() == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_probe_leaves_no_trace(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, interruption: type[BaseException]
) -> None:
    def cut_off(*_: Any, **__: Any) -> None:
        assert len(deployed.store.items()) == 1
        raise interruption

    monkeypatch.setattr(Endpoint, "call", cut_off)

    if interruption is KeyboardInterrupt:
        deployed.run("doctor", expect=130)
    else:
        with pytest.raises(RuntimeError):
            deployed.run("doctor")
    assert deployed.store.items() == []


def test_the_probes_item_is_not_a_task(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(self: Endpoint, task_id: str, **_: Any) -> ProbeResponse:
        seen.append(deployed.store.item(task_key("flux-kontext", task_id)))
        return ProbeResponse(500, 0.1)

    monkeypatch.setattr(Endpoint, "call", look)
    deployed.run("doctor", expect=1)

    item = seen[0]
    assert item is not None
    # Its status is none of those that the stream's readers handle; it is not in the feed, and expires after a day.
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
def test_a_wrong_answer_is_noticed(
    deployed: Deployed, endpoint: FakeEndpoint, kind: str, status: int, subject: str
) -> None:
    endpoint.wrong[kind] = status

    diagnosis = deployed.run("doctor", expect=1)

    assert subject in failed(diagnosis)
    (check,) = [check for check in diagnosis["checks"] if check["subject"] == subject]
    assert f"HTTP {status}, expected" in check["detail"]
    assert check["nextStep"]


def test_an_answer_without_a_write_is_noticed(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    endpoint.forgets = True

    assert failed(deployed.run("doctor", expect=1)) == ["valid callback"]


def test_an_endpoint_without_an_answer(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    endpoint.wrong["good"] = 0

    diagnosis = deployed.run("doctor", expect=1)

    assert failed(diagnosis) == ["endpoint"]
    assert diagnosis["latency"] is None
    assert deployed.store.items() == []


def test_a_slow_acknowledgement_is_noticed(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    endpoint.seconds = 8.0

    diagnosis = deployed.run("doctor", expect=1)

    assert failed(diagnosis) == ["callback latency"]
    assert diagnosis["latency"]["shareOfTimeout"] == pytest.approx(8 / 15)


# ------------------------------------------------------------------------------------------------ secrets


def test_no_secret_is_shown(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    put_secret("ProviderKeysSecret", json.dumps({"flux-kontext": {"apiKey": "s3cret", "webhookKey": WEBHOOK_KEY}}))

    said = (
        json.dumps(deployed.run("doctor"))
        + deployed.said
        + deployed.show("doctor")
        + repr(Endpoint("https://x.example", CALLBACK_TOKEN, WEBHOOK_KEY))
    )

    for secret in (CALLBACK_TOKEN, WEBHOOK_KEY, *API_KEYS.values()):
        assert secret not in said


def test_what_is_pasted_around_the_token_is_no_part_of_it(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    put_secret("CallbackTokenSecret", f"\ufeff{CALLBACK_TOKEN}\n")

    checks = {check["subject"]: check for check in deployed.run("doctor")["checks"]}

    assert checks["callback token"]["detail"] == f"{len(CALLBACK_TOKEN)} characters"


@pytest.mark.parametrize("token", ["short", "x" * 31, "with a space" * 4, "x" * 129])
def test_a_token_that_no_callback_can_match(deployed: Deployed, endpoint: FakeEndpoint, token: str) -> None:
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
        *("no JSON", "no keys", "empty", "typing error", "empty webhook key", "a placeholder for a webhook key"),
        *("a service that does not sign", "a placeholder for a key", "one provider"),
    ],
)
def test_provider_keys(deployed: Deployed, endpoint: FakeEndpoint, keys: str, subjects: list[str]) -> None:
    put_secret("ProviderKeysSecret", keys)

    assert failed(deployed.run("doctor", expect=int(bool(subjects)))) == subjects


@pytest.mark.parametrize(
    ("entry", "subject", "named"),
    [
        ({"apiKey": "s3\u200bcret"}, "flux-kontext API key", "has U+200B (ZERO WIDTH SPACE) at position 3"),
        ({"apiKey": 7}, "flux-kontext API key", "is no text"),
        ({"apiKey": "s3cret", "webhookKey": ["s3cret"]}, "flux-kontext webhook key", "is no text"),
        (
            {"apiKey": "s3cret", "webhookKey": "s3\u00a0cret"},
            "flux-kontext webhook key",
            "has U+00A0 (NO-BREAK SPACE) at",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_named_with_its_character(
    deployed: Deployed, endpoint: FakeEndpoint, entry: dict[str, object], subject: str, named: str
) -> None:
    put_secret("ProviderKeysSecret", json.dumps({"flux-kontext": entry, "acedata": {"apiKey": " k3y\n"}}))

    diagnosis = deployed.run("doctor", expect=1)

    checks = {check["subject"]: check for check in diagnosis["checks"]}
    assert failed(diagnosis) == [subject]
    assert named in checks[subject]["detail"]
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
    ("answer", "subjects", "says"),
    [
        (saying({"code": 401, "msg": "no"}), SERVICES_WITH_CHAT_CREDIT, "refused: flux-kontext answered 401"),
        (saying({"code": 200, "data": 0}), SERVICES_WITH_CHAT_CREDIT, "out of credits: 0 credits; the service accepts"),
        (saying({}, 503), [], "not tried: flux-kontext answered 503"),
        (saying({"code": 200, "data": 35.95}), [], "valid: 35.95 credits"),
    ],
)
def test_an_api_key_is_tried(
    deployed: Deployed, endpoint: FakeEndpoint, providers: Providers, answer: Any, subjects: list[str], says: str
) -> None:
    providers.answers["/api/v1/chat/credit"] = answer

    diagnosis = deployed.run("doctor", expect=int(bool(subjects)))

    assert failed(diagnosis) == subjects
    checks = {check["subject"]: check for check in diagnosis["checks"]}
    assert checks["flux-kontext API key"]["detail"].startswith(says)


def test_a_secret_that_may_not_be_read(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    boto3.client("secretsmanager").delete_secret(SecretId="CallbackTokenSecret", ForceDeleteWithoutRecovery=True)

    assert failed(deployed.run("doctor", expect=1)) == ["callback token"]


# ------------------------------------------------------------------------------------------------ signatures


def test_where_callbacks_are_signed_the_probes_are_too(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    put_secret("ProviderKeysSecret", json.dumps({"flux-kontext": {"apiKey": "s3cret", "webhookKey": WEBHOOK_KEY}}))

    deployed.run("doctor")
    assert "forged signature" in endpoint.calls

    endpoint.wrong["forged signature"] = 200
    assert failed(deployed.run("doctor", expect=1)) == ["forged signature"]


def test_a_signature_is_what_the_function_verifies() -> None:
    now = datetime(2026, 1, 6, tzinfo=UTC)

    verify_signature(signed("doctor-1", "key", now), "doctor-1", ["key"], now=now)


def test_a_signature_is_kies() -> None:
    headers = signed("task12345", "k3y", datetime.fromtimestamp(1_700_000_000, UTC))

    # The documented vector, concatenated, so that the search for canary secrets does not find it here.
    assert headers["x-webhook-signature"].startswith("LWjZ5r+BmSIrvPfebGqC4HGP")


# ------------------------------------------------------------------------------------------------ queues, alarms


@pytest.mark.parametrize(
    "queue", ["ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters", "ReconcileDeadLetters"]
)
def test_a_queue_that_should_be_empty(deployed: Deployed, endpoint: FakeEndpoint, queue: str) -> None:
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


@pytest.mark.parametrize(("state", "is_wrong"), [("ALARM", True), ("OK", False), ("INSUFFICIENT_DATA", False)])
def test_alarms(deployed: Deployed, endpoint: FakeEndpoint, state: str, is_wrong: bool) -> None:
    make_alarm(state)

    diagnosis = deployed.run("doctor", expect=int(is_wrong))

    assert failed(diagnosis) == ([ALARM] if is_wrong else [])
    if is_wrong:
        assert "Next: catchlight redrive." in json.dumps(diagnosis)


def test_alarms_without_a_recipient_are_reported(deployed: Deployed, endpoint: FakeEndpoint) -> None:
    checks = {check["subject"]: check["status"] for check in deployed.run("doctor")["checks"]}

    assert checks["alarm notifications"] == "skipped"


@pytest.mark.parametrize(("confirmed", "subjects"), [(1, []), (0, ["alarm notifications"])])
def test_an_address_that_has_not_confirmed_gets_no_alarm(
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


def test_an_account_in_the_secret_is_tried_as_its_service_is(
    deployed: Deployed, endpoint: FakeEndpoint, providers: Providers
) -> None:
    put_secret("ProviderKeysSecret", '{"apikley-2": {"apiKey": "s3cret-of-the-second"}}')
    providers.answers["/api/v1/chat/credit"] = saying({"code": 200, "data": 5})

    checks = {check["subject"]: check for check in deployed.run("doctor")["checks"]}

    assert checks["apikley-2 API key"]["detail"].startswith("valid: 5")
    assert checks["apikley API key"]["status"] == "skipped"

"""Webhooks: without a URL they have no resources; with one, the settings match their schedule and limits."""

import base64
import re

import pytest

from catchlight.http_connections import Deadline
from catchlight.webhooks import sender, signature
from catchlight.webhooks.retries import RETRIES_AT_SECONDS
from functions.send_webhooks import app
from local.template.parse import read_template
from tests.unit.template.expanded import (
    EVENT_SOURCES,
    FUNCTIONS,
    QUEUES,
    RAW,
    REPOSITORY,
    RESOURCES,
    deployed,
    of_type,
    resolver_with,
)
from tests.unit.template.expanded import referred as referred_to

URL_PATTERN = RAW["Parameters"]["WebhookUrl"]["AllowedPattern"]
RESOURCES_OF_WEBHOOKS = {
    *("WebhookSecret", "WebhookRule", "WebhookQueue", "WebhookQueuePolicy", "WebhookDeadLetters"),
    *("SendWebhooksFunction", "SendWebhooksFunctionRole", "SendWebhooksFunctionWebhookQueue", "SendWebhooksLogGroup"),
    *("WebhookDeadLettersAlarm", "WebhookFailuresAlarm", "WebhookQueueAgeAlarm", "SendWebhooksErrorsAlarm"),
}


def test_without_a_url_no_resource_of_webhooks_exists() -> None:
    with_webhooks, without = deployed(), deployed(WebhookUrl="")

    assert with_webhooks.keys() - without.keys() == RESOURCES_OF_WEBHOOKS
    differing = {name for name in without if without[name] != with_webhooks[name]}
    assert differing == {"Dashboard"}
    assert "ebhook" not in without["Dashboard"]["DashboardBody"]


def test_essential_monitoring_has_the_alarm_of_lost_webhooks_only() -> None:
    alarms = {name for name in RESOURCES_OF_WEBHOOKS if name.endswith("Alarm")}

    assert alarms & deployed(Monitoring="Essential").keys() == {"WebhookDeadLettersAlarm"}


def test_webhooks_enable_the_publication_of_events() -> None:
    resources = deployed(TaskEvents="Disabled")

    assert resources["PublishEventsFunctionTasksTableStream"]["Enabled"] is True
    assert resources["ReconcileTasksFunction"]["Environment"]["Variables"]["PUBLISH_EVENTS_FUNCTION"]


def test_every_event_of_the_bus_is_queued_by_a_rule_that_may_do_so() -> None:
    (rule,) = of_type("AWS::Events::Rule").values()
    (target,) = rule["Targets"]
    (statement,) = of_type("AWS::SQS::QueuePolicy")["WebhookQueuePolicy"]["PolicyDocument"]["Statement"]

    assert (rule["EventBusName"], rule["EventPattern"]) == ({"Ref": "TaskEventBus"}, {"source": ["catchlight"]})
    assert referred_to(target["Arn"]) == "WebhookQueue"
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["WebhookRule", "Arn"]}}}
    assert {referred_to(arn) for arn in statement["Resource"]} == {
        referred_to(target["Arn"]),
        referred_to(target["DeadLetterConfig"]["Arn"]),
    }


def test_the_function_accepts_the_generated_secret() -> None:
    generated = of_type("AWS::SecretsManager::Secret")["WebhookSecret"]["GenerateSecretString"]
    length = generated["PasswordLength"]

    assert generated["ExcludePunctuation"] is True
    assert length % 4 == 0
    assert len(signature.signing_key("Az09" * (length // 4))) == len(base64.b64decode("A" * length))


def test_an_attempt_fits_into_the_functions_timeout_and_the_visibility_timeout() -> None:
    timeout = FUNCTIONS["SendWebhooksFunction"]["Timeout"]
    # Two reads of the secret and one call of SQS: each has three attempts of 1 s to connect and 2 s to read.
    assert timeout >= sender.SEND_DEADLINE_SECONDS + 3 * 3 * (1 + 2)
    assert QUEUES["WebhookQueue"]["VisibilityTimeout"] == 6 * timeout
    assert Deadline(sender.SEND_DEADLINE_SECONDS).seconds_left() < timeout


def test_a_message_is_retained_for_longer_than_its_schedule() -> None:
    queue = QUEUES["WebhookQueue"]

    assert queue["MessageRetentionPeriod"] > 2 * RETRIES_AT_SECONDS[-1]
    assert queue["RedrivePolicy"]["maxReceiveCount"] > 2 * (1 + len(RETRIES_AT_SECONDS))


def test_a_batch_has_one_thread_per_webhook_and_no_batching_window() -> None:
    source = EVENT_SOURCES["SendWebhooksFunctionWebhookQueue"]

    assert source["BatchSize"] == app.MAX_MESSAGES
    assert "MaximumBatchingWindowInSeconds" not in source
    assert source["ScalingConfig"] == {"MaximumConcurrency": 2}  # Lambda's minimum


def test_the_age_alarm_is_above_the_second_retry() -> None:
    alarm = RESOURCES["WebhookQueueAgeAlarm"]["Properties"]

    assert alarm["Threshold"] > RETRIES_AT_SECONDS[1]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://hooks.example.com",
        "https://a.b.example:443/x?token=1&b=%20",
        "https://h.example?x",
        "https://h.ex/~a",
    ],
)
def test_valid_urls(url: str) -> None:
    assert re.fullmatch(URL_PATTERN, url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://hooks.example.com/",
            "https://localhost/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://h.example:8443/",
        ),
        *(
            "https://user@h.example/",
            "https://h.example/a b",
            "https://h.example/#part",
            "https://h.example/{x}",
            "h.example",
        ),
    ],
)
def test_invalid_urls(url: str) -> None:
    assert not re.fullmatch(URL_PATTERN, url)


@pytest.mark.parametrize("query", ["", "?token=in-the-query", "?a=1?b=2"])
def test_the_output_leaves_the_query_out(query: str) -> None:
    outputs = read_template((REPOSITORY / "template.yaml").read_text())["Outputs"]
    url = "https://hooks.example.com/catchlight"

    assert resolver_with(WebhookUrl=url + query).resolve(outputs["WebhookReceiver"]["Value"]) == url
    assert {outputs[name]["Condition"] for name in ("WebhookReceiver", "ReadWebhookSecret")} == {"SendsWebhooks"}

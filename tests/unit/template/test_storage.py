"""Table, bucket, queues and secrets: what is retained, what is deleted, and who has no access."""

import json
import re
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import pytest

from catchlight.recovery import deliveries
from local.template.intrinsic_functions import Resolver
from tests.unit.template.expanded import EXPANDED, FUNCTIONS, QUEUES, RESOURCES, deployed, of_type
from tests.unit.template.expanded import referred as referred_to

TABLE = RESOURCES["TasksTable"]["Properties"]
BUCKET = RESOURCES["ImagesBucket"]["Properties"]
# Every combination of the template's conditions, by parameter values that make them true and false.
SWITCHES = {
    "AlarmEmail": ("", "operators@example.com"),
    "AlarmTopicArn": ("", "arn:aws:sns:us-east-1:123456789012:operators"),
    "AccessLogBucket": ("", "our-logs"),
    "ReservedConcurrency": ("0", "50"),
    "Tracing": ("Active", "Disabled"),
    "TaskRetentionDays": ("0", "30"),
    "ImageRetentionDays": ("0", "365"),
    "KeepDeliveries": ("0", "30"),
    "TaskEvents": ("Enabled", "Disabled"),
}
COMBINATIONS = [dict(zip(SWITCHES, values, strict=True)) for values in product(*SWITCHES.values())]


@pytest.mark.parametrize("name", [*of_type("AWS::DynamoDB::Table"), *of_type("AWS::S3::Bucket")])
def test_what_was_paid_for_outlives_the_stack(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == "Retain"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_the_table_can_be_brought_back_and_not_be_deleted() -> None:
    assert TABLE["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert TABLE["DeletionProtectionEnabled"] is True


def test_the_table_grows_with_its_load() -> None:
    assert TABLE["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    ("days", "enabled"), [pytest.param("0", False, id="for ever"), pytest.param("30", True, id="30 days")]
)
def test_tasks_are_deleted_only_where_it_was_asked_for(days: str, enabled: bool) -> None:
    table = deployed(TaskRetentionDays=days)["TasksTable"]

    assert table["TimeToLiveSpecification"] == {"AttributeName": "deleteAfter", "Enabled": enabled}


def test_functions_that_write_final_statuses_have_the_retention() -> None:
    resources = deployed(TaskRetentionDays="30")
    informed = {name for name in FUNCTIONS if "TASK_RETENTION_DAYS" in resources[name]["Environment"]["Variables"]}

    assert informed >= {"ReceiveCallbackFunction", "PollTasksFunction", "ArchiveImagesFunction"}
    for name in informed:
        assert resources[name]["Environment"]["Variables"]["TASK_RETENTION_DAYS"] == "30"


def test_images_are_kept_for_ever_by_default() -> None:
    assert "ExpirationInDays" not in lifecycle_rules()["Images"]
    assert lifecycle_rules(ImageRetentionDays="365")["Images"]["ExpirationInDays"] == "365"


@pytest.mark.parametrize("days", ["0", "365"])
def test_deleted_and_expired_images_can_be_brought_back_for_a_month(days: str) -> None:
    rule = lifecycle_rules(ImageRetentionDays=days)["Images"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", "images/")
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_no_two_rules_do_the_same_to_an_object() -> None:
    """S3 refuses rules of overlapping prefixes with the same action, and with them the whole deployment."""
    for combination in COMBINATIONS:
        rules = lifecycle_rules(**combination).values()

        for action in ("ExpirationInDays", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"):
            prefixes = [str(rule.get("Prefix", "")) for rule in rules if action in rule]
            assert not [(one, other) for one, other in permutations(prefixes, 2) if other.startswith(one)], combination
        named = [rule["Prefix"] for rule in rules if "Prefix" in rule]
        expected = [deliveries.ACCEPTED_PREFIX, "images/", "quarantine/", deliveries.PREFIX]
        assert sorted(named) == sorted(set(named)) == expected, combination


def test_a_rule_has_either_days_or_leftover_delete_markers() -> None:
    """S3 refuses both in one rule. With days it removes such markers by itself; without any they would pile up."""
    for combination in COMBINATIONS:
        rules = lifecycle_rules(**combination)

        for rule in rules.values():
            assert not {"ExpirationInDays", "ExpiredObjectDeleteMarker"} <= rule.keys(), combination
        images = rules["Images"]
        assert ("ExpirationInDays" in images) == (combination["ImageRetentionDays"] != "0"), combination
        assert images.get("ExpiredObjectDeleteMarker", "ExpirationInDays" in images) is True, combination


def test_kept_deliveries_are_forgotten() -> None:
    rule = lifecycle_rules(RejectedRetentionDays="9")["RejectedDeliveries"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", deliveries.PREFIX)
    assert rule["ExpirationInDays"] == "9"
    # The bucket is versioned: what has expired, or was replayed, is still there until this.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}


@pytest.mark.parametrize(("days", "kept"), [("0", 1), ("9", "9")])
def test_accepted_deliveries_are_forgotten_also_those_left_when_they_are_switched_off(
    days: str, kept: str | int
) -> None:
    rule = lifecycle_rules(KeepDeliveries=days)["AcceptedDeliveries"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", deliveries.ACCEPTED_PREFIX)
    assert rule["ExpirationInDays"] == kept


def test_refused_bytes_are_deleted_after_their_days() -> None:
    rule = lifecycle_rules(QuarantineRetentionDays="9")["Quarantine"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", "quarantine/")
    assert rule["ExpirationInDays"] == "9"
    # Bytes of an earlier attempt.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": "9"}


def test_every_condition_is_tried_both_ways() -> None:
    compared = set(re.findall(r'"Fn::Equals": \[{"Ref": "(\w+)"}', json.dumps(EXPANDED.conditions)))

    # Those of the domain, of alarms and of webhooks concern no bucket: test_callback_domain.py, test_alarms.py and
    # test_webhooks.py try them.
    assert compared == {*SWITCHES, "CallbackDomain", "CallbackHostedZoneId", "Monitoring", "WebhookUrl"}


def test_unfinished_uploads_are_never_paid_for_long() -> None:
    rule = lifecycle_rules()["UnfinishedUploads"]

    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "Prefix" not in rule  # for all prefixes


def lifecycle_rules(**parameters: str) -> dict[str, dict[str, Any]]:
    # SAM does not change the bucket: the template need not be expanded for each of many combinations.
    template = replace(EXPANDED, parameters=EXPANDED.parameters | parameters)
    rules = Resolver(template, str, "{}.{}".format).resolve(BUCKET["LifecycleConfiguration"])["Rules"]
    assert len({rule["Id"] for rule in rules}) == len(rules)
    return {rule["Id"]: rule for rule in rules}


@pytest.mark.parametrize("name", of_type("AWS::S3::Bucket"))
def test_a_bucket_is_private_versioned_and_encrypted(name: str) -> None:
    bucket = RESOURCES[name]["Properties"]

    assert bucket["PublicAccessBlockConfiguration"] == dict.fromkeys(
        ["BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets"], True
    )
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


@pytest.mark.parametrize("name", of_type("AWS::S3::Bucket"))
def test_a_bucket_accepts_tls_only(name: str) -> None:
    (policy,) = (found for found in of_type("AWS::S3::BucketPolicy").values() if referred_to(found["Bucket"]) == name)
    (statement,) = policy["PolicyDocument"]["Statement"]

    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [{"Fn::GetAtt": [name, "Arn"]}, {"Fn::Sub": f"${{{name}.Arn}}/*"}]


def test_access_to_images_is_logged_where_there_is_a_bucket_for_it() -> None:
    assert "LoggingConfiguration" not in deployed()["ImagesBucket"]
    assert deployed(AccessLogBucket="our-logs")["ImagesBucket"]["LoggingConfiguration"] == {
        "DestinationBucketName": "our-logs",
        "LogFilePrefix": "catchlight/",
    }


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_encrypted(name: str) -> None:
    assert QUEUES[name]["SqsManagedSseEnabled"] is True


def test_no_policy_allows_access_from_outside_the_account() -> None:
    letting_in = {"AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy", "AWS::SecretsManager::ResourcePolicy"}

    # A rule of the stack may send to this queue: see test_webhooks.py.
    assert {name for name, found in RESOURCES.items() if found["Type"] in letting_in} == {"WebhookQueuePolicy"}
    for table in of_type("AWS::DynamoDB::Table").values():
        assert "ResourcePolicy" not in table


def test_an_update_of_the_stack_leaves_keys_alone() -> None:
    # CloudFormation writes a secret's value only when its line changes: this one never does.
    assert RESOURCES["ProviderKeysSecret"]["Properties"]["SecretString"] == "{}"
    assert "SecretString" not in RESOURCES["CallbackTokenSecret"]["Properties"]

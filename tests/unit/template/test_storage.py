"""Table, bucket, queues and secrets: what is retained, what is deleted, and which access is denied."""

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
def test_table_and_bucket_are_retained_when_the_stack_is_deleted(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == "Retain"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_the_table_can_be_restored_and_is_protected_from_deletion() -> None:
    assert TABLE["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert TABLE["DeletionProtectionEnabled"] is True


def test_the_table_has_on_demand_capacity() -> None:
    assert TABLE["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    ("days", "enabled"), [pytest.param("0", False, id="for ever"), pytest.param("30", True, id="30 days")]
)
def test_tasks_are_deleted_only_if_a_retention_is_set(days: str, enabled: bool) -> None:
    table = deployed(TaskRetentionDays=days)["TasksTable"]

    assert table["TimeToLiveSpecification"] == {"AttributeName": "deleteAfter", "Enabled": enabled}


def test_functions_that_write_final_statuses_have_the_retention() -> None:
    resources = deployed(TaskRetentionDays="30")
    configured = {name for name in FUNCTIONS if "TASK_RETENTION_DAYS" in resources[name]["Environment"]["Variables"]}

    assert configured >= {"ReceiveCallbackFunction", "PollTasksFunction", "ArchiveImagesFunction"}
    for name in configured:
        assert resources[name]["Environment"]["Variables"]["TASK_RETENTION_DAYS"] == "30"


def test_images_are_kept_for_ever_by_default() -> None:
    assert "ExpirationInDays" not in lifecycle_rules()["Images"]
    assert lifecycle_rules(ImageRetentionDays="365")["Images"]["ExpirationInDays"] == "365"


@pytest.mark.parametrize("days", ["0", "365"])
def test_deleted_and_expired_images_can_be_restored_for_a_month(days: str) -> None:
    rule = lifecycle_rules(ImageRetentionDays=days)["Images"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", "images/")
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}


def test_no_two_rules_have_the_same_action_for_an_object() -> None:
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
    """S3 refuses both in one rule. With days, S3 removes such markers itself. Without days, they would accumulate."""
    for combination in COMBINATIONS:
        rules = lifecycle_rules(**combination)

        for rule in rules.values():
            assert not {"ExpirationInDays", "ExpiredObjectDeleteMarker"} <= rule.keys(), combination
        images = rules["Images"]
        assert ("ExpirationInDays" in images) == (combination["ImageRetentionDays"] != "0"), combination
        assert images.get("ExpiredObjectDeleteMarker", "ExpirationInDays" in images) is True, combination


def test_rejected_deliveries_are_deleted() -> None:
    rule = lifecycle_rules(RejectedRetentionDays="9")["RejectedDeliveries"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", deliveries.PREFIX)
    assert rule["ExpirationInDays"] == "9"
    # The bucket is versioned: expired and replayed deliveries are noncurrent versions for this time.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}


@pytest.mark.parametrize(("days", "kept"), [("0", 1), ("9", "9")])
def test_accepted_deliveries_are_deleted_also_after_keeping_them_is_disabled(days: str, kept: str | int) -> None:
    rule = lifecycle_rules(KeepDeliveries=days)["AcceptedDeliveries"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", deliveries.ACCEPTED_PREFIX)
    assert rule["ExpirationInDays"] == kept


def test_quarantined_bytes_are_deleted() -> None:
    rule = lifecycle_rules(QuarantineRetentionDays="9")["Quarantine"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", "quarantine/")
    assert rule["ExpirationInDays"] == "9"
    # Noncurrent versions are the bytes of an earlier attempt.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": "9"}


def test_every_condition_of_the_template_is_tested_with_both_values() -> None:
    compared = set(re.findall(r'"Fn::Equals": \[{"Ref": "(\w+)"}', json.dumps(EXPANDED.conditions)))

    # The conditions of the domain, of alarms and of webhooks do not concern the bucket. test_callback_domain.py,
    # test_alarms.py and test_webhooks.py test them.
    assert compared == {*SWITCHES, "CallbackDomain", "CallbackHostedZoneId", "Monitoring", "WebhookUrl"}


def test_unfinished_uploads_are_deleted_after_a_day() -> None:
    rule = lifecycle_rules()["UnfinishedUploads"]

    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "Prefix" not in rule  # for all prefixes


def lifecycle_rules(**parameters: str) -> dict[str, dict[str, Any]]:
    # SAM does not change the bucket, so the template is not expanded for each of the many combinations.
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


def test_access_to_images_is_logged_if_a_log_bucket_is_set() -> None:
    assert "LoggingConfiguration" not in deployed()["ImagesBucket"]
    assert deployed(AccessLogBucket="our-logs")["ImagesBucket"]["LoggingConfiguration"] == {
        "DestinationBucketName": "our-logs",
        "LogFilePrefix": "catchlight/",
    }


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_is_encrypted(name: str) -> None:
    assert QUEUES[name]["SqsManagedSseEnabled"] is True


def test_no_policy_allows_access_from_outside_the_account() -> None:
    granting_types = {"AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy", "AWS::SecretsManager::ResourcePolicy"}

    # A rule of the stack may send to this queue: see test_webhooks.py.
    assert {name for name, found in RESOURCES.items() if found["Type"] in granting_types} == {"WebhookQueuePolicy"}
    for table in of_type("AWS::DynamoDB::Table").values():
        assert "ResourcePolicy" not in table


def test_an_update_of_the_stack_does_not_overwrite_keys() -> None:
    # CloudFormation writes the value of a secret only when SecretString changes in the template.
    assert RESOURCES["ProviderKeysSecret"]["Properties"]["SecretString"] == "{}"
    assert "SecretString" not in RESOURCES["CallbackTokenSecret"]["Properties"]

"""Table, bucket, queues, secrets: what stays, what is forgotten, and who cannot look in."""

import pytest

from image_tasks import rejected_deliveries
from tests.unit.template.expanded import FUNCTIONS, QUEUES, RESOURCES, deployed, of_type
from tests.unit.template.expanded import referred as referred_to

TABLE = RESOURCES["TasksTable"]["Properties"]
BUCKET = RESOURCES["ImagesBucket"]["Properties"]


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


def test_who_brings_tasks_to_an_end_is_told_how_long_they_are_kept() -> None:
    resources = deployed(TaskRetentionDays="30")
    told = {name for name in FUNCTIONS if "TASK_RETENTION_DAYS" in resources[name]["Environment"]["Variables"]}

    assert told >= {"ReceiveCallbackFunction", "PollTasksFunction", "ArchiveImagesFunction"}
    for name in told:
        assert resources[name]["Environment"]["Variables"]["TASK_RETENTION_DAYS"] == "30"


def test_images_are_kept_for_ever_unless_told_otherwise() -> None:
    assert "OldImages" not in lifecycle_rules()
    rule = lifecycle_rules(ImageRetentionDays="365")["OldImages"]
    assert rule == {"Id": "OldImages", "Status": "Enabled", "Prefix": "images/", "ExpirationInDays": "365"}


def test_deleted_images_can_be_brought_back_for_a_month() -> None:
    rule = lifecycle_rules()["DeletedImages"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", "images/")
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 30}
    assert rule["ExpiredObjectDeleteMarker"] is True
    assert "ExpirationInDays" not in rule


def test_kept_deliveries_are_forgotten() -> None:
    rule = lifecycle_rules(RejectedRetentionDays="9")["RejectedDeliveries"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", rejected_deliveries.PREFIX)
    assert rule["ExpirationInDays"] == "9"
    # The bucket is versioned: what has expired, or was replayed, is still there until this.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}


def test_unfinished_uploads_are_never_paid_for_long() -> None:
    rule = lifecycle_rules()["UnfinishedUploads"]

    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert "Prefix" not in rule  # wherever they are


def lifecycle_rules(**parameters: str) -> dict[str, dict[str, object]]:
    rules = deployed(**parameters)["ImagesBucket"]["LifecycleConfiguration"]["Rules"]
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
def test_a_bucket_is_spoken_to_over_tls_only(name: str) -> None:
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


def test_nobody_outside_the_account_is_let_in() -> None:
    letting_in = {"AWS::SQS::QueuePolicy", "AWS::SNS::TopicPolicy", "AWS::SecretsManager::ResourcePolicy"}

    assert not letting_in & {resource["Type"] for resource in RESOURCES.values()}
    for table in of_type("AWS::DynamoDB::Table").values():
        assert "ResourcePolicy" not in table


def test_an_update_of_the_stack_leaves_keys_alone() -> None:
    # CloudFormation writes a secret's value only when its line changes: this one never does.
    assert RESOURCES["ProviderKeysSecret"]["Properties"]["SecretString"] == "{}"
    assert "SecretString" not in RESOURCES["CallbackTokenSecret"]["Properties"]

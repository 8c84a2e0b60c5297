"""The policy for deployments: what CloudFormation and SAM need for this template, and nothing else.

CloudFormation's schemas, which cfn-lint contains, list the permissions for creating, reading, updating and deleting
each type.
"""

import json
import re
from functools import cache

import pytest

from tests.unit.template.expanded import REPOSITORY, RESOURCES
from tests.unit.template.resource_schemas import resource_schema

POLICY = json.loads((REPOSITORY / "docs" / "deployer-policy.json").read_text())
STATEMENTS = {statement["Sid"]: statement for statement in POLICY["Statement"]}
ALLOWED = {action for statement in STATEMENTS.values() for action in statement["Action"]}
TYPES = sorted({resource["Type"] for resource in RESOURCES.values()})

# Permissions in the schemas that are needed only for properties that the template does not have.
UNUSED = {
    "customer managed keys": r"kms:.*|logs:(A|Disa)ssociateKmsKey",
    "functions in a VPC, with file systems": r"ec2:.*|elasticfilesystem:.*|s3files:.*",
    "signed code, capacity providers, runtime, recursion and scaling settings": (
        r"lambda:(PassCapacityProvider|AssociateRuntimeAlias|\w*CodeSigningConfig|PutRuntimeManagementConfig"
        r"|PutFunctionRecursionConfig|PutFunctionScalingConfig|\w*ProvisionedConcurrencyConfig)|codedeploy:.*"
    ),
    "tables that are imported, replicated, streamed to Kinesis, or have policies": (
        r"dynamodb:(ImportTable|DescribeImport|\w*TableReplica|Scan|Query|\w+Item|(En|Dis)ableKinesis\w+|UpdateKinesis\w+"
        r"|(Put|Delete)ResourcePolicy|UpdateContributorInsights)|kinesis:.*|iam:CreateServiceLinkedRole"
        r"|s3:GetObjectMetadata"
    ),
    "log groups with data protection, indexes, bearer tokens": (
        r"logs:(\w*DataProtectionPolicy|(Put|Delete)IndexPolicy|PutBearerToken\w+|PutLogGroupDeletionProtection"
        r"|DeleteResourcePolicy|CreateLogStream|DescribeLogStreams|PutLogEvents)|s3:REST\.PUT\.OBJECT|firehose:.*"
    ),
    "buckets with more than versions, encryption, a lifecycle and access logs": (
        r"s3:(Put|Delete|Create|Update)\w*(Analytics|CORS|Cors|Inventory|Metrics|Notification|Replication|Website|Accelerate"
        r"|ObjectLock|Tiering|Metadata|Abac|Acl)\w*|s3:DeleteBucket(Encryption|Lifecycle)|s3:DeleteObject|s3tables:.*"
    ),
    "event buses with policies": r"events:PutPermission",
    "topics that search their messages for personal data": r"sns:PutDataProtectionPolicy",
    "secrets in several regions": r"secretsmanager:(ReplicateSecretToRegions|RemoveRegionsFromReplication)",
    "permissions boundaries": r"iam:\w+PermissionsBoundary",
}
# Permissions that are in no schema.
BY_SAM = {
    *("cloudformation:CreateChangeSet", "cloudformation:DescribeChangeSet", "cloudformation:ExecuteChangeSet"),
    *("cloudformation:DescribeStacks", "cloudformation:DescribeStackEvents", "cloudformation:GetTemplateSummary"),
    *("cloudformation:DeleteStack", "cloudformation:GetTemplate", "cloudformation:ListStackResources"),
    # The bucket that --resolve-s3 creates, for uploads.
    *("s3:PutObject", "s3:GetBucketLocation"),
}
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-logging.html
BY_ACCESS_LOGS = {
    *("logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:ListLogDeliveries", "logs:UpdateLogDelivery"),
    *("logs:DeleteLogDelivery", "logs:PutResourcePolicy", "logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
}
# Statements whose actions have no resources, or resources whose names do not contain the stack's name.
ON_MORE_THAN_THE_STACK = {"AccessLogs", "WithoutResources", "Apis", "EventSources", "CallbackDomainRecord"}


@cache
def handlers() -> dict[str, dict[str, list[str]]]:
    """Returns permissions by resource type and by CloudFormation's operation."""
    return {
        type_name: {
            operation: handler["permissions"] for operation, handler in resource_schema(type_name)["handlers"].items()
        }
        for type_name in TYPES
    }


def needed(type_name: str) -> set[str]:
    """Returns the permissions that CloudFormation needs for a type, with the properties in the template."""
    actions = {
        action
        for operation in ("create", "read", "update", "delete")
        for action in handlers()[type_name].get(operation, [])
    }
    return {action for action in actions if not any(re.fullmatch(unused, action) for unused in UNUSED.values())}


@pytest.mark.parametrize("type_name", TYPES)
def test_every_type_can_be_created_read_updated_and_deleted(type_name: str) -> None:
    allowed = {action.lower() for action in ALLOWED}

    assert {action for action in needed(type_name) if action.lower() not in allowed} == set()


def test_every_allowed_action_is_needed() -> None:
    by_cloudformation = {action.lower() for type_name in TYPES for action in needed(type_name)}

    assert {a for a in ALLOWED - BY_SAM - BY_ACCESS_LOGS if a.lower() not in by_cloudformation} == set()
    assert ALLOWED >= BY_SAM | BY_ACCESS_LOGS


@pytest.mark.parametrize("unused", UNUSED)
def test_every_exception_matches_a_permission_in_the_schemas(unused: str) -> None:
    actions = {action for operations in handlers().values() for found in operations.values() for action in found}

    assert any(re.fullmatch(UNUSED[unused], action) for action in actions)


@pytest.mark.parametrize("sid", STATEMENTS)
def test_a_statement_is_limited_to_resources_of_the_stack(sid: str) -> None:
    statement = STATEMENTS[sid]

    assert statement["Effect"] == "Allow"
    assert not [action for action in statement["Action"] if "*" in action]
    if sid in ON_MORE_THAN_THE_STACK:
        return
    names = {"STACK", "aws-sam-cli-managed-default", *RESOURCES}
    names |= {"transform/Serverless-2016-10-31", "layer:CatchlightLayer", "event-source-mapping:*"}
    for resource in statement["Resource"]:
        assert any(name.lower() in resource.lower() for name in names), resource


def test_roles_may_be_passed_to_the_services_that_assume_them() -> None:
    services = {
        service
        for resource in RESOURCES.values()
        if resource["Type"] == "AWS::IAM::Role"
        for statement in resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        for service in statement["Principal"]["Service"]
    }

    statements = [statement for statement in STATEMENTS.values() if "iam:PassRole" in statement["Action"]]

    assert [set(statement["Condition"]["StringEquals"]["iam:PassedToService"]) for statement in statements] == [
        services
    ]


def test_the_policy_fits_into_a_role() -> None:
    # IAM does not count white space. https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    assert len(re.sub(r"\s", "", json.dumps(POLICY))) < 10_240


def test_the_page_on_deployments_links_to_the_policy() -> None:
    page = (REPOSITORY / "docs" / "deploying.md").read_text()

    assert "(deployer-policy.json)" in page
    assert "STACK" in page

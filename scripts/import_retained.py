"""Imports the table and the bucket that a deleted stack has retained into a new stack, which contains nothing else yet.

    python -m scripts.import_retained --stack-name catchlight --region eu-central-1 --table NAME --bucket NAME

Afterwards `sam deploy` adds the rest of the template to this stack. CloudFormation imports resources only with a change
set of the type IMPORT, which must not create other resources; `sam deploy` cannot create such a change set.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError, WaiterError

from local.template.parse import read_template

if TYPE_CHECKING:
    from mypy_boto3_cloudformation.client import CloudFormationClient

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
TABLE, BUCKET = "TasksTable", "ImagesBucket"
CHANGE_SET = "import-retained"
# Parts of the template to which both resources refer. `Transform` is not needed: neither resource has a SAM type.
_SECTIONS = ("AWSTemplateFormatVersion", "Parameters", "Conditions")


def main() -> None:
    """Reads the command line and imports the table and the bucket.

    Raises:
        SystemExit: CloudFormation refuses the import; the message contains the reason.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.import_retained", description=__doc__)
    for name, description in (
        ("stack-name", "name of the new stack"),
        ("region", "region of the table and the bucket"),
        ("table", "name of the retained table"),
        ("bucket", "name of the retained bucket"),
    ):
        parser.add_argument(f"--{name}", required=True, help=description)
    given = parser.parse_args()
    client = boto3.client("cloudformation", region_name=given.region)
    try:
        import_retained(client, given.stack_name, table=given.table, bucket=given.bucket)
    except (ClientError, WaiterError) as exc:
        raise SystemExit(f"The import into {given.stack_name} failed: {exc}") from exc
    print(f"{given.stack_name} contains {given.table} and {given.bucket}. Deploy the rest: make build && sam deploy")


def import_retained(client: "CloudFormationClient", stack_name: str, *, table: str, bucket: str) -> None:
    """Creates a stack from an existing table and an existing bucket.

    Raises:
        ClientError, WaiterError: CloudFormation refuses the import: a resource does not exist or belongs to a stack,
            or a stack of this name exists.
    """
    client.create_change_set(
        StackName=stack_name,
        ChangeSetName=CHANGE_SET,
        ChangeSetType="IMPORT",
        TemplateBody=json.dumps(template_of_retained()),
        ResourcesToImport=[
            _existing(TABLE, "AWS::DynamoDB::Table", "TableName", table),
            _existing(BUCKET, "AWS::S3::Bucket", "BucketName", bucket),
        ],
    )
    client.get_waiter("change_set_create_complete").wait(StackName=stack_name, ChangeSetName=CHANGE_SET)
    client.execute_change_set(StackName=stack_name, ChangeSetName=CHANGE_SET)
    client.get_waiter("stack_import_complete").wait(StackName=stack_name)


def template_of_retained() -> dict[str, Any]:
    """Returns the template reduced to the table and the bucket, as they are defined there."""
    whole = read_template(TEMPLATE.read_text())
    reduced = {name: whole[name] for name in _SECTIONS}
    return reduced | {"Resources": {name: whole["Resources"][name] for name in (TABLE, BUCKET)}}


def _existing(logical_id: str, type_name: str, identifier: str, name: str) -> Any:
    return {
        "LogicalResourceId": logical_id,
        "ResourceType": type_name,
        "ResourceIdentifier": {identifier: name},
    }


if __name__ == "__main__":
    main()

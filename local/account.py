"""Defines the AWS account, the region and the CloudFormation stack name that the local stack uses."""

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
STACK_NAME = "catchlight"


def local_arn(service: str, resource: str) -> str:
    """Returns the ARN of a resource in this account and region."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{resource}"

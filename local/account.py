"""Defines the AWS account, the region and the CloudFormation stack name that the local stack uses."""

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
STACK_NAME = "catchlight"

"""Names the AWS account, the region and the CloudFormation stack that the local stack simulates."""

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
STACK_NAME = "catchlight"

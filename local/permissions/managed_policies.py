"""Lists the actions of those AWS managed policies that SAM attaches to the functions' roles.

https://docs.aws.amazon.com/aws-managed-policy/latest/reference/policy-list.html
"""

from collections.abc import Mapping

from local import UnsupportedError

_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")
# Each policy allows its actions on every resource.
_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "AWSLambdaBasicExecutionRole": _LOGS,
    "AWSLambdaDynamoDBExecutionRole": (
        "dynamodb:DescribeStream",
        "dynamodb:GetRecords",
        "dynamodb:GetShardIterator",
        "dynamodb:ListStreams",
        *_LOGS,
    ),
    "AWSLambdaSQSQueueExecutionRole": (
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        *_LOGS,
    ),
    "AWSXrayWriteOnlyAccess": (
        "xray:PutTraceSegments",
        "xray:PutTelemetryRecords",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:GetSamplingStatisticSummaries",
    ),
}


def managed_policy_actions(policy_arn: str) -> tuple[str, ...]:
    """Returns the actions that a managed policy allows.

    Raises:
        UnsupportedError: the policy is not in the table.
    """
    name = policy_arn.rpartition("/")[2]
    if name not in _ACTIONS:
        raise UnsupportedError(f"Managed policy {policy_arn}", "local/permissions/managed_policies.py")
    return _ACTIONS[name]

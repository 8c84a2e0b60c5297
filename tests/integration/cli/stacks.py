"""Stacks as the command line sees them."""

import boto3

from catchlight.client.stack import Stack


def a_stack(**resources: str) -> Stack:
    """A deployed stack that has these resources, by their logical ids, in the account in memory."""
    return Stack(
        name="catchlight",
        region="us-east-1",
        is_local=False,
        api_url="https://api.example",
        resources=resources,
        parameters={},
        session=boto3.Session(),
    )

"""Builds stacks in the form that the command line uses."""

from typing import Any

import boto3

from catchlight.client.stack import Stack


def a_stack(session: Any = None, **resources: str) -> Stack:
    """Returns a deployed stack with these resources, given by logical id; by default in the in-memory account."""
    return Stack(
        name="catchlight",
        region="us-east-1",
        is_local=False,
        api_url="https://api.example",
        resources=resources,
        parameters={},
        session=session or boto3.Session(),
    )

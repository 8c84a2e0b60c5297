"""An expected error is printed as one line that says what to do next, without a traceback."""

from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
    WaiterError,
)

from catchlight.client.aws_errors import describe_error, explained_errors
from catchlight.client.errors import CatchlightError
from catchlight.errors import SettingsError, StoreUnavailableError


def refused(code: str, message: str = "", operation: str = "Query") -> ClientError:
    error: Any = {"Code": code, "Message": message}
    return ClientError({"Error": error}, operation)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (NoCredentialsError(), "aws sso login"),
        (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), "--profile"),
        (NoRegionError(), "--region"),
        (ProfileNotFound(profile="studio"), "list-profiles"),
        (UnauthorizedSSOTokenError(), "Your AWS session has ended. Sign in again"),
        (SSOTokenLoadError(error_msg="none"), "Sign in again"),
        (TokenRetrievalError(provider="sso", error_msg="none"), "Sign in again"),
        (EndpointConnectionError(endpoint_url="https://dynamodb.example"), "AWS cannot be reached"),
        (ConnectTimeoutError(endpoint_url="https://dynamodb.example"), "AWS cannot be reached"),
        (WaiterError(name="w", reason="r", last_response={}), "failed"),
        (refused("ExpiredToken"), "expired. Sign in again"),
        (refused("ExpiredTokenException"), "expired. Sign in again"),
        (refused("UnrecognizedClientException"), "does not accept your credentials"),
        (refused("AccessDeniedException", "not authorized to perform dynamodb:Query"), "perform dynamodb:Query"),
        (refused("AccessDenied"), "do not allow Query: AccessDenied"),
        (refused("ThrottlingException"), "Repeat the command in a minute"),
        (refused("ProvisionedThroughputExceededException"), "Repeat the command in a minute"),
        (refused("ValidationException", "no such index"), "Query failed: ValidationException: no such index"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_the_text_of_an_error_says_what_to_do(fault: Any, text: str) -> None:
    assert text in describe_error(fault)
    with pytest.raises(CatchlightError) as caught, explained_errors():
        raise fault
    assert text in str(caught.value)


def test_an_error_is_described_by_its_cause() -> None:
    error = StoreUnavailableError("DynamoDB refused Query: ExpiredToken")
    error.__cause__ = refused("ExpiredToken")

    with pytest.raises(CatchlightError, match=r"expired\. Sign in again"), explained_errors():
        raise error


def test_an_error_without_a_cause_has_its_own_text() -> None:
    with pytest.raises(CatchlightError, match="the provider keys secret must be JSON"), explained_errors():
        raise SettingsError("the provider keys secret must be JSON like {}")


def test_an_unexpected_exception_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), explained_errors():
        _ = 1 / 0

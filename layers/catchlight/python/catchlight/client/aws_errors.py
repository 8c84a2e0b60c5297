"""Converts errors of AWS calls into messages with the user's next step."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    ConnectionError,  # noqa: A004 - botocore's, not Python's
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from catchlight.client.errors import CatchlightError
from catchlight.errors import ImageTasksError

_SIGN_IN = "Sign in again (for IAM Identity Center: `aws sso login`), then repeat the command."
_CREDENTIALS = (
    "Configure credentials (`aws configure`, `aws sso login`, AWS_PROFILE), select a profile with --profile, or use "
    "the local stack of `make up` with --local."
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN = {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
_THROTTLED = {
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequestsException"),
    *("ProvisionedThroughputExceededException", "RequestLimitExceeded", "SlowDown", "KmsThrottled"),
}


@contextmanager
def explained_errors() -> Iterator[None]:
    """Converts errors of AWS, of the network and of the package, raised in the block, into CatchlightError."""
    try:
        yield
    except (ClientError, BotoCoreError, ImageTasksError) as exc:
        raise CatchlightError(describe_error(exc)) from exc


def describe_error(exc: Exception) -> str:
    """Returns a message that explains an error of AWS or of the package to the user, with the next step."""
    cause = exc.__cause__ if isinstance(exc, ImageTasksError) and exc.__cause__ else exc
    match cause:
        case ClientError():
            return _describe_client_error(cause)
        case BotoCoreError():
            return _describe_botocore_error(cause)
        case _:
            return str(exc) or type(exc).__name__


def _describe_botocore_error(exc: BotoCoreError) -> str:
    match exc:
        case NoCredentialsError() | PartialCredentialsError():
            return f"No AWS credentials were found. {_CREDENTIALS}"
        case SSOError() | TokenRetrievalError():
            return f"Your AWS session has ended. {_SIGN_IN}"
        case ProfileNotFound():
            return f"{exc}. `aws configure list-profiles` lists your profiles."
        case ConfigParseError():
            return f"{exc}. Correct the file, or set another one with AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE."
        case NoRegionError():
            return "No AWS region is configured. Use --region, or set AWS_REGION."
        case ConnectionError() | HTTPClientError():
            return f"AWS cannot be reached: {exc} Check your network and --region, then repeat the command."
        case _:
            return f"The call to AWS failed: {exc}"


def _describe_client_error(exc: ClientError) -> str:
    code, operation = exc.response["Error"]["Code"], exc.operation_name
    if code in _EXPIRED:
        return f"Your AWS credentials have expired. {_SIGN_IN}"
    if code in _UNKNOWN:
        return f"AWS does not accept your credentials ({code}). {_CREDENTIALS}"
    if code in _DENIED:
        message = exc.response["Error"].get("Message", "")
        return f"Your AWS credentials do not allow {operation}: {message or code}. Request the permission."
    if code in _THROTTLED:
        return f"AWS throttles {operation} ({code}). Repeat the command in a minute."
    return f"{operation} failed: {code}: {exc.response['Error'].get('Message', '')}"

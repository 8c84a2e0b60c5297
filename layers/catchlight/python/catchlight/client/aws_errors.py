"""Turns errors of AWS calls into messages for users of the command line that say what to do next."""

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

from catchlight.errors import ImageTasksError

_SIGN_IN = "Sign in again (for IAM Identity Center: `aws sso login`), then repeat the command."
_CREDENTIALS = (
    "Put some into your shell (`aws configure`, `aws sso login`, AWS_PROFILE), name a profile with --profile, or speak "
    "to the stack of `make up` with --local."
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN = {"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch"}
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
_THROTTLED = {
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "TooManyRequestsException"),
    *("ProvisionedThroughputExceededException", "RequestLimitExceeded", "SlowDown", "KmsThrottled"),
}


class CatchlightError(Exception):
    """A command cannot continue. The message says what to do next and holds no secrets; the exit status is 1."""


class UsageError(CatchlightError):
    """The arguments are invalid, or do not determine a stack; the exit status is 2."""


@contextmanager
def faults_explained() -> Iterator[None]:
    """Converts errors of AWS, of the network and of the package, raised in the block, into CatchlightError."""
    try:
        yield
    except (ClientError, BotoCoreError, ImageTasksError) as exc:
        raise CatchlightError(reason_of(exc)) from exc


def reason_of(exc: Exception) -> str:
    """Returns a message for an error of AWS or of the package; the latter may have an AWS error as its cause."""
    fault = exc.__cause__ if isinstance(exc, ImageTasksError) and exc.__cause__ else exc
    if isinstance(fault, (ClientError, BotoCoreError)):
        return explain(fault)
    return str(exc) or type(exc).__name__


def explain(exc: ClientError | BotoCoreError) -> str:
    """Returns a message that explains a failed AWS call to the user and says what to do next."""
    match exc:
        case ClientError():
            return _explain_refusal(exc)
        case NoCredentialsError() | PartialCredentialsError():
            return f"No AWS credentials are found. {_CREDENTIALS}"
        case SSOError() | TokenRetrievalError():
            return f"Your AWS session has ended. {_SIGN_IN}"
        case ProfileNotFound():
            return f"{exc}. `aws configure list-profiles` lists yours."
        case ConfigParseError():
            return f"{exc}. Repair it, or name another file with AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE."
        case NoRegionError():
            return "No AWS region is known. Name it with --region, or set AWS_REGION."
        case ConnectionError() | HTTPClientError():
            return f"AWS cannot be reached: {exc} Look at your network and at --region, then repeat the command."
        case _:
            return f"The call to AWS failed: {exc}"


def _explain_refusal(exc: ClientError) -> str:
    code, operation = exc.response["Error"]["Code"], exc.operation_name
    if code in _EXPIRED:
        return f"Your AWS credentials have expired. {_SIGN_IN}"
    if code in _UNKNOWN:
        return f"AWS does not know your credentials ({code}). {_CREDENTIALS}"
    if code in _DENIED:
        message = exc.response["Error"].get("Message", "")
        return f"Your AWS credentials may not do {operation}: {message or code}. Ask for the permission."
    if code in _THROTTLED:
        return f"AWS keeps asking for patience at {operation} ({code}). Repeat the command in a minute."
    return f"AWS refused {operation}: {code}: {exc.response['Error'].get('Message', '')}"

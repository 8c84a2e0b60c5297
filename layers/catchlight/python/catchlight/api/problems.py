"""Defines the problem types that the tasks API returns (RFC 9457): each has one HTTP status and one meaning.

Callers need to know whether a refused request may be sent again, and whether images may have been generated (and
billed). The problem types of failed submissions distinguish these cases:

    422 request-refused             nothing was generated; change the request
    424 account-refused             nothing was generated; correct the API key or add credits
    429 provider-busy               nothing was generated; send the same request later, with the same idempotency key
    503 provider-unavailable        the provider was not reached; send the same request again, with the same key
    409 submission-outcome-unknown  the provider may have accepted the request; it is not sent again with this key
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

from pydantic import Field

from catchlight.api.response_models import ResponseModel
from catchlight.errors import ImageTasksError


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem type: its name, HTTP status and title."""

    name: str
    status: HTTPStatus
    title: str

    @property
    def type(self) -> str:
        """The URI that identifies the problem type to programs."""
        return f"urn:catchlight:problem:{self.name}"


MALFORMED_BODY = Problem("malformed-body", HTTPStatus.BAD_REQUEST, "The body cannot be read")
INVALID_PARAMETER = Problem("invalid-parameter", HTTPStatus.BAD_REQUEST, "A parameter is invalid")
KEY_MISSING = Problem("idempotency-key-missing", HTTPStatus.BAD_REQUEST, "The Idempotency-Key is missing")
NO_SUCH_TASK = Problem("no-such-task", HTTPStatus.NOT_FOUND, "There is no such task")
NO_SUCH_IMAGE = Problem("no-such-image", HTTPStatus.NOT_FOUND, "There is no such image")
NO_SUCH_SUBMISSION = Problem("no-such-submission", HTTPStatus.NOT_FOUND, "There is no submission with this key")
IMAGE_NOT_ARCHIVED = Problem("image-not-archived", HTTPStatus.CONFLICT, "The image is not archived yet")
UNREADABLE_ITEM = Problem("unreadable-item", HTTPStatus.CONFLICT, "The task's item is malformed")
IN_PROGRESS = Problem("submission-in-progress", HTTPStatus.CONFLICT, "The submission is in progress")
UNKNOWN_OUTCOME = Problem(
    "submission-outcome-unknown", HTTPStatus.CONFLICT, "The provider may or may not have accepted the request"
)
OUTCOME_KNOWN = Problem("submission-outcome-known", HTTPStatus.CONFLICT, "The outcome of the submission is known")
BODY_TOO_LARGE = Problem("body-too-large", HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large")
INVALID_REQUEST = Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "The request is invalid")
KEY_USED = Problem(
    "idempotency-key-used", HTTPStatus.UNPROCESSABLE_ENTITY, "The idempotency key was used for another request"
)
REQUEST_REFUSED = Problem("request-refused", HTTPStatus.UNPROCESSABLE_ENTITY, "The provider refused the request")
ACCOUNT_REFUSED = Problem("account-refused", HTTPStatus.FAILED_DEPENDENCY, "The provider refused the account")
PROVIDER_BUSY = Problem("provider-busy", HTTPStatus.TOO_MANY_REQUESTS, "The provider is busy")
PROVIDER_UNAVAILABLE = Problem(
    "provider-unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The provider could not be reached"
)
UNAVAILABLE = Problem("unavailable", HTTPStatus.SERVICE_UNAVAILABLE, "The request cannot be served at the moment")

# After a failed call to AWS, which is usually temporary.
RETRY_AFTER_SECONDS = 2

# Responses with these problems have a Retry-After header: the same request may succeed after this time.
WORTH_WAITING = frozenset({IMAGE_NOT_ARCHIVED, IN_PROGRESS, PROVIDER_BUSY, PROVIDER_UNAVAILABLE, UNAVAILABLE})


class ProviderReply(ResponseModel):
    """The provider's response. Secrets of this stack that it contains are overwritten."""

    status: Annotated[int, Field(description="HTTP status.")]
    body: Annotated[
        Any,
        Field(
            description="The decoded JSON; the first 4,000 characters as text if the body is longer, nested too deeply "
            "or not JSON."
        ),
    ] = None


class FieldProblem(ResponseModel):
    """An invalid field, parameter or header of a request."""

    at: Annotated[str, Field(description="Its name or path: `limit`, `taskIds.3`, `request.callBackUrl`.")]
    detail: str


class ProblemBody(ResponseModel):
    """Why a request failed, and what to do next: a problem body as defined by RFC 9457."""

    type: Annotated[str, Field(description="`urn:catchlight:problem:` followed by the problem's name.")]
    title: str
    status: int
    detail: str
    advice: Annotated[str, Field(description="What to do next.")]
    errors: Annotated[tuple[FieldProblem, ...], Field(description="One entry per invalid field.")] = ()
    provider_reply: ProviderReply | None = None
    task_id: Annotated[str | None, Field(description="Task that the submission created at the provider.")] = None
    asked_at: Annotated[
        str | None, Field(description="Time at which the request was sent to the provider with this key.")
    ] = None


class APIError(ImageTasksError):
    """Raised to refuse a request with a problem. Its body is sent to the caller, so it must not contain secrets."""

    def __init__(
        self,
        problem: Problem,
        detail: str,
        *,
        advice: str,
        retry_after_seconds: int | None = None,
        errors: tuple[FieldProblem, ...] = (),
        provider_reply: ProviderReply | None = None,
        task_id: str | None = None,
        asked_at: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds
        # Set if the outcome could not be written to the table. For the log, not for the caller.
        self.store_error: ImageTasksError | None = None
        self.body = ProblemBody(
            type=problem.type,
            title=problem.title,
            status=problem.status,
            detail=detail,
            advice=advice,
            errors=errors,
            provider_reply=provider_reply,
            task_id=task_id,
            asked_at=asked_at,
        )

    @property
    def members(self) -> dict[str, Any]:
        """The members of the JSON body; members with their default value are omitted."""
        return self.body.model_dump(by_alias=True, exclude_defaults=True)


def temporarily_unavailable() -> APIError:
    """Returns the error for a request that failed because of a call to AWS, or because of invalid settings."""
    return APIError(
        UNAVAILABLE,
        "the table or a secret cannot be read or written at the moment",
        advice="Send the same request again. If it fails repeatedly, see the error in the function's log.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )

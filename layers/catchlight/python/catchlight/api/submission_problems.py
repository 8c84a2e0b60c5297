"""Builds the errors of failed submissions. Each one tells the caller whether to send the same request again."""

from catchlight.api.idempotency import IdempotencyRecord
from catchlight.api.problems import (
    ACCOUNT_REFUSED,
    IN_PROGRESS,
    INVALID_REQUEST,
    KEY_USED,
    NO_SUCH_SUBMISSION,
    OUTCOME_KNOWN,
    PROVIDER_BUSY,
    PROVIDER_UNAVAILABLE,
    REQUEST_REFUSED,
    UNKNOWN_OUTCOME,
    WORTH_WAITING,
    APIError,
    FieldProblem,
    ProviderReply,
)
from catchlight.errors import ProviderBusyError, ProviderError, ProviderRefusedError, ProviderUnreachableError

# Used if the provider's response has no Retry-After header: kie.ai accepts 20 new requests in 10 s and queues none.
RETRY_AFTER_SECONDS = 10
MAX_RETRY_AFTER_SECONDS = 300
# A request in progress usually ends within a few seconds, so a repeated one may be sent soon.
IN_PROGRESS_SECONDS = 3

NOTHING_GENERATED = "Nothing was generated, and the key can be used again."


def invalid(*errors: FieldProblem) -> APIError:
    """Returns the error for a request with invalid fields; nothing was sent to the provider."""
    return APIError(
        INVALID_REQUEST,
        "; ".join(f"{error.at}: {error.detail}" for error in errors),
        advice="Correct the fields in `errors`. Nothing was sent to the provider.",
        errors=errors,
    )


def no_api_key(provider_id: str, reason: str) -> APIError:
    """Returns the error for a provider without a usable API key in the provider keys secret."""
    return APIError(
        ACCOUNT_REFUSED,
        f"{reason} ({provider_id})",
        advice=f"Run `catchlight keys set {provider_id}`. A new key is used within five minutes. Nothing was sent to "
        "the provider.",
    )


def unusable_secret(problem: str) -> APIError:
    """Returns the error for a key or token in a secret that cannot be used because of its characters or its type."""
    return APIError(
        ACCOUNT_REFUSED,
        problem,
        advice="Correct it in its secret. The new value is used within five minutes. Nothing was sent to the provider.",
    )


def refused(error: ProviderError, reply: ProviderReply | None, retry_after_seconds: int | None) -> APIError:
    """Returns the error for a request that the provider refused or never received: nothing was generated."""
    delay_seconds = min(retry_after_seconds or RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS)
    match error:
        case ProviderUnreachableError():
            problem, advice = PROVIDER_UNAVAILABLE, "Send the same request again, with the same key."
        case ProviderBusyError():
            problem, advice = PROVIDER_BUSY, f"Send the same request again in {delay_seconds} s, with the same key."
        case ProviderRefusedError():
            problem, advice = ACCOUNT_REFUSED, "Check the provider's API key and credits, then send it again."
        case _:
            problem, advice = (
                REQUEST_REFUSED,
                "Correct the request: `providerReply` has the reason. Then send it again.",
            )
    return APIError(
        problem,
        str(error),
        advice=f"{advice} {NOTHING_GENERATED}",
        provider_reply=reply,
        # The other problems would occur again, but HTTP libraries retry automatically if there is a Retry-After header.
        retry_after_seconds=delay_seconds if problem in WORTH_WAITING else None,
    )


def key_used(record: IdempotencyRecord) -> APIError:
    """Returns the error for an idempotency key that was used for a different request."""
    return APIError(
        KEY_USED,
        f"another request was sent with this key at {record.asked_at}",
        advice="Use a new key for each request, and the same key only to repeat exactly the same request.",
    )


def in_progress(record: IdempotencyRecord) -> APIError:
    """Returns the error for a request that another invocation may still be sending."""
    return APIError(
        IN_PROGRESS,
        "a request with this key is being sent to the provider",
        advice="Send the same request again in a few seconds: the response will be that of the first request.",
        asked_at=record.asked_at,
        retry_after_seconds=IN_PROGRESS_SECONDS,
    )


def unknown_outcome(record: IdempotencyRecord, reason: str, reply: ProviderReply | None = None) -> APIError:
    """Returns the error for an unknown outcome: the provider may have created a task whose id was not received."""
    listed = f"GET /tasks?provider={record.provider}&since={record.asked_at}"
    return APIError(
        UNKNOWN_OUTCOME,
        f"it is not known whether {record.provider} accepted the request: {reason}",
        advice="The request is not sent again with this key. Check whether a new task has arrived since then: "
        f"{listed}. If so, it is probably the task of this request. If not, release the key with DELETE "
        f"/submissions/{record.key}: then the same request is sent again, and may generate and cost twice.",
        provider_reply=reply,
        asked_at=record.asked_at,
    )


def not_registered(record: IdempotencyRecord, task_id: str) -> APIError:
    """Returns the error for a task that the provider created and that could not be written to the table."""
    return APIError(
        UNKNOWN_OUTCOME,
        f"{record.provider} has created a task, but it could not be registered",
        advice=f'Register it: POST /tasks {{"provider": "{record.provider}", "taskIds": ["{task_id}"]}}. The request '
        "is not sent again with this key.",
        task_id=task_id,
        asked_at=record.asked_at,
    )


def no_such_submission() -> APIError:
    """Returns the error for an idempotency key that has no record, or whose record is RELEASED."""
    return APIError(
        NO_SUCH_SUBMISSION,
        "no submission was sent with this key, or its key is released already",
        advice="There is no key to release: it can be used for a request.",
    )


def known_outcome(record: IdempotencyRecord) -> APIError:
    """Returns the error for a key that cannot be released, because its request created a task."""
    return APIError(
        OUTCOME_KNOWN,
        "the submission has created a task",
        advice=f"See GET /tasks/{record.provider}/{record.task_id}. For more images send a request with another key.",
        task_id=record.task_id,
    )

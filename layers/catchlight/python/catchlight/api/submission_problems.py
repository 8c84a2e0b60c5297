"""Builds the errors of failed submissions; each says whether the same request may be sent again."""

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
)
from catchlight.api.schemas import FieldProblem, ProviderReply
from catchlight.errors import ProviderBusyError, ProviderError, ProviderRefusedError, ProviderUnreachableError

# Used if a provider sends no Retry-After: kie.ai accepts 20 new requests in 10 s and queues none.
RETRY_AFTER_SECONDS = 10
MAX_RETRY_AFTER_SECONDS = 300
# A request in progress usually ends within a few seconds, so a repeated one may be sent soon.
IN_PROGRESS_SECONDS = 3

NOTHING_GENERATED = "Nothing was generated, and the key is released."


def invalid(*errors: FieldProblem) -> APIError:
    """Returns the error for a request with invalid fields; nothing was sent to the provider."""
    return APIError(
        INVALID_REQUEST,
        "; ".join(f"{error.at}: {error.detail}" for error in errors),
        advice="Change what `errors` names. Nothing was sent.",
        errors=errors,
    )


def no_api_key(provider_id: str, reason: str) -> APIError:
    """Returns the error for a provider that has no usable API key in the provider keys secret."""
    return APIError(
        ACCOUNT_REFUSED,
        f"{reason} ({provider_id})",
        advice=f"Run `catchlight keys set {provider_id}`. The key is found within five minutes. Nothing was sent.",
    )


def unusable_secret(problem: str) -> APIError:
    """Returns the error for a key or token in a secret that has a character or a type that cannot be used."""
    return APIError(
        ACCOUNT_REFUSED,
        problem,
        advice="Put it into its secret again, without that. It is found within five minutes. Nothing was sent.",
    )


def refused(error: ProviderError, reply: ProviderReply | None, retry_after_seconds: int | None) -> APIError:
    """Returns the error for a request that the provider refused or never received: nothing was generated."""
    patience = min(retry_after_seconds or RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS)
    match error:
        case ProviderUnreachableError():
            problem, advice = PROVIDER_UNAVAILABLE, "Send the same request again, with the same key."
        case ProviderBusyError():
            problem, advice = PROVIDER_BUSY, f"Send the same request again in {patience} s, with the same key."
        case ProviderRefusedError():
            problem, advice = ACCOUNT_REFUSED, "Look at the provider's API key and credits, then send it again."
        case _:
            problem, advice = REQUEST_REFUSED, "Change the request as `providerReply` says, then send it again."
    return APIError(
        problem,
        str(error),
        advice=f"{advice} {NOTHING_GENERATED}",
        provider_reply=reply,
        # The other problems would occur again, and HTTP libraries retry automatically when there is a Retry-After.
        retry_after_seconds=patience if problem in WORTH_WAITING else None,
    )


def key_used(record: IdempotencyRecord) -> APIError:
    """Returns the error for an idempotency key that was used for a different request."""
    return APIError(
        KEY_USED,
        f"another request was sent with this key at {record.asked_at}",
        advice="Make up a new key for each request. Use the old one only to repeat the very same request.",
    )


def in_progress(record: IdempotencyRecord) -> APIError:
    """Returns the error for a request that another invocation is sending at this moment."""
    return APIError(
        IN_PROGRESS,
        "the provider is being asked with this key",
        advice="Send the same request again in a few seconds: it will be answered as the first one.",
        asked_at=record.asked_at,
        retry_after_seconds=IN_PROGRESS_SECONDS,
    )


def unknown_outcome(record: IdempotencyRecord, reason: str, reply: ProviderReply | None = None) -> APIError:
    """Returns the error for an unknown outcome: the provider may have created a task whose id was not received."""
    listed = f"GET /tasks?provider={record.provider}&since={record.asked_at}"
    return APIError(
        UNKNOWN_OUTCOME,
        f"it is not known whether {record.provider} has taken the request: {reason}",
        advice=f"Nothing is sent again with this key. Look whether a task has turned up since: {listed}. If so, that "
        f"is probably yours. If not, DELETE /submissions/{record.key} releases the key: then the same request "
        "generates once more, and may cost twice.",
        provider_reply=reply,
        asked_at=record.asked_at,
    )


def not_noted(record: IdempotencyRecord, task_id: str) -> APIError:
    """Returns the error for a task that the provider created, but that could not be written to the table."""
    return APIError(
        UNKNOWN_OUTCOME,
        f"{record.provider} has made a task of the request, but it could not be registered",
        advice=f'Register it: POST /tasks {{"provider": "{record.provider}", "taskIds": ["{task_id}"]}}. Nothing is '
        "sent again with this key.",
        task_id=task_id,
        asked_at=record.asked_at,
    )


def no_such_submission() -> APIError:
    """Returns the error for an idempotency key that has no record, or whose record is RELEASED."""
    return APIError(
        NO_SUCH_SUBMISSION,
        "no submission was sent with this key, or it was refused",
        advice="There is nothing to release: the key is not in use.",
    )


def known_outcome(record: IdempotencyRecord) -> APIError:
    """Returns the error for a key that cannot be released, because its request created a task."""
    return APIError(
        OUTCOME_KNOWN,
        "the submission has become a task",
        advice=f"See GET /tasks/{record.provider}/{record.task_id}. For more images send a request with another key.",
        task_id=record.task_id,
    )

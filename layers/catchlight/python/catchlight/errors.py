"""The exceptions of this package, as one tree.

    ImageTasksError
    ├── RequestError                    an error of the caller: answered with 4xx, nothing is written
    │   ├── MalformedBodyError          400  not strict JSON
    │   ├── InvalidCallbackError        422  JSON, but not in the provider's documented format
    │   ├── UnauthorizedError           401  token or signature missing or wrong
    │   ├── UnknownProviderError        404
    │   └── PayloadTooLargeError        413
    ├── StoreUnavailableError           a call to an AWS service failed                      worth a retry
    │   └── NotQueuedError              SQS did not accept some messages                     worth a retry
    ├── SettingsError                   environment or secret is missing or malformed
    │   └── InvalidSecretError          one key or token in a secret cannot be used
    ├── ProviderError                   a request to a provider failed; the task's status stays unknown
    │   ├── ProviderUnavailableError    no answer, HTTP 5xx                                  worth a retry
    │   │   ├── ProviderUnreachableError    no connection: nothing was sent                  worth a retry
    │   │   └── UnreadableAnswerError       an answer in an unknown format                   worth a retry
    │   ├── ProviderBusyError           429 rate limit, 455 maintenance                      worth a later retry
    │   ├── ProviderRefusedError        401 key, 402 credits: affects every task
    │   └── RequestRefusedError         a request that the provider will never accept unchanged
    ├── UnconfirmedError                the provider does not confirm a callback (yet)       worth a retry
    │   └── UnknownTaskError            the provider does not know the task (yet)            worth a retry
    ├── TaskEventError                  an item that cannot be turned into an event
    ├── InvalidMessageError             a message without a valid task key
    ├── WebhookNotAcceptedError         the receiver did not accept a webhook                worth a retry
    │   └── WebhookGoneError            410: it wants no webhooks any more
    └── ImageError                      one image could not be archived
        ├── ImageUnavailableError       network, HTTP status                                 worth a retry
        │   ├── ImageGoneError          403, 404, 410                         worth requesting a fresh URL
        │   └── ImageTruncatedError     the body is an image that is cut or damaged          worth a retry
        └── ImageRejectedError          will never be archived: not public, too many bytes, ...
            ├── NotAnImageError         the body is certainly no image
            ├── UnknownFormatError      the body may be an image, but of no format that is archived
            └── TooManyPixelsError      the body is an image that takes too much memory to show

Class names are a contract, because `ErrorEquals` in statemachines/poll_tasks.asl.yaml lists them. The codes in the
bodies of 4xx responses are a contract, too.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import ClassVar


class ImageTasksError(Exception):
    """Base of all exceptions that this package defines."""


class RequestError(ImageTasksError):
    """A callback is rejected.

    The message is returned to the caller: it describes the fault of the request and contains no secret.
    """

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]


class MalformedBodyError(RequestError):
    """The body is not strict JSON, or is marked as base64 but is not valid base64."""

    status = HTTPStatus.BAD_REQUEST
    code = "malformed_body"


class InvalidCallbackError(RequestError):
    """The body is JSON, but not in the format that the provider documents."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_callback"


class UnauthorizedError(RequestError):
    """The token or the signature is missing or wrong. The message does not distinguish missing from wrong ones."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"


class UnknownProviderError(RequestError):
    """No provider has this name."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_provider"


class PayloadTooLargeError(RequestError):
    """The body is larger than the limit for callbacks."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "payload_too_large"


class StoreUnavailableError(ImageTasksError):
    """A call to an AWS service (DynamoDB, Secrets Manager, S3, SQS, ...) failed, after botocore's own retries."""


class InterruptedTryError(ImageTasksError):
    """An earlier try of archiving a task was killed: the task is to be archived alone. `since`: when the try began."""

    def __init__(self, since: str) -> None:
        super().__init__(f"an earlier try, which began {since}, was killed")
        self.since = since


class NotQueuedError(StoreUnavailableError):
    """SQS did not accept the messages of some tasks, whose keys are in `tasks`. The other tasks are queued."""

    def __init__(self, message: str, tasks: Sequence[str]) -> None:
        super().__init__(message)
        self.tasks = tasks


class SettingsError(ImageTasksError):
    """An environment variable or a secret is missing or malformed; the message names it, never its value."""


class InvalidSecretError(SettingsError):
    """A key or token cannot be used, because of its type or a character in it. The message does not contain it."""


class ProviderError(ImageTasksError):
    """A request to a provider failed. The status of the task stays unknown."""


class ProviderUnavailableError(ProviderError):
    """The provider did not answer, or answered with HTTP 5xx."""


class ProviderUnreachableError(ProviderUnavailableError):
    """The connection to the provider failed, so it has received nothing."""


class UnreadableAnswerError(ProviderUnavailableError):
    """The provider answered with a record in an unknown format, or with the record of another task."""


class ProviderBusyError(ProviderError):
    """The provider cannot serve the request now: 429 rate limit or 455 maintenance."""


class ProviderRefusedError(ProviderError):
    """The provider refuses this account, not this task: 401 key, 402 credits, 403 used up, 505 disabled."""


class RequestRefusedError(ProviderError):
    """The provider rejects this request with a 4xx: because of its prompt or parameters, or of a task id in a poll."""


class UnconfirmedError(ImageTasksError):
    """The provider does not confirm the result of a callback, or does not confirm it yet."""


class UnknownTaskError(UnconfirmedError):
    """The provider does not know the task that a callback reported, or does not know it yet."""


class TaskEventError(ImageTasksError):
    """A task's item cannot be turned into an event, because it was edited by hand. The message names the attribute."""


class InvalidMessageError(ImageTasksError):
    """A message of a queue is not JSON, or has no valid task key.

    Retries cannot help: the message becomes a dead letter.
    """


class WebhookNotAcceptedError(ImageTasksError):
    """The receiver of webhooks gave no answer, or one that does not accept the webhook.

    `retry_after`: the seconds of the response's Retry-After, if it has one.
    """

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WebhookGoneError(WebhookNotAcceptedError):
    """The receiver answered 410 Gone: it wants no webhooks any more, and retries are not sent."""


class ImageError(ImageTasksError):
    """One image could not be archived. The message states the reason in terms that a user understands."""


class ImageUnavailableError(ImageError):
    """The image cannot be downloaded now, but a retry may succeed: a network error, a 5xx."""


class ImageGoneError(ImageUnavailableError):
    """The server has no image at this URL: the URL has expired, the image was withdrawn, or is not on the CDN yet."""


class ImageTruncatedError(ImageUnavailableError):
    """The body begins as an image, but bytes are missing or damaged. A retry may return the whole image."""


class ImageRejectedError(ImageError):
    """The image will never be archived: not an image, not at a public address, too large, or from an unknown host."""


class NotAnImageError(ImageRejectedError):
    """The body is no image: it has no image's signature, or goes on as something else after the signature."""


class UnknownFormatError(ImageRejectedError):
    """The body is a picture or video of a format that is not archived, such as HEIC, SVG or a lossless JPEG."""


class TooManyPixelsError(ImageRejectedError):
    """The body is an image with more pixels than programs can be expected to decode."""

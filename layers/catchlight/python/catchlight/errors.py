"""The exceptions of this package, as one tree.

    ImageTasksError
    ├── RequestError                    an error of the caller: the response is 4xx, no report is recorded
    │   ├── MalformedBodyError          400  not strict JSON
    │   ├── InvalidCallbackError        422  JSON, but not in the provider's documented format
    │   ├── UnauthorizedError           401  token or signature missing or wrong
    │   ├── UnknownProviderError        404
    │   └── PayloadTooLargeError        413
    ├── StoreUnavailableError           a call to an AWS service failed                      worth a retry
    │   └── NotQueuedError              SQS did not accept some messages                     worth a retry
    ├── InterruptedTryError             an earlier archiving try was killed: archive the task alone
    ├── SettingsError                   an environment variable or a secret is missing or malformed
    │   └── InvalidSecretError          a key or token in a secret cannot be used
    ├── ProviderError                   a request to a provider failed; the task's status stays unknown
    │   ├── ProviderUnavailableError    no answer, HTTP 5xx                                  worth a retry
    │   │   ├── ProviderUnreachableError    no connection: nothing was sent                  worth a retry
    │   │   └── UnreadableAnswerError       an answer in an unknown format                   worth a retry
    │   ├── ProviderBusyError           429 rate limit, 455 maintenance                      worth a later retry
    │   ├── ProviderRefusedError        401 key, 402 credits: affects all tasks of the account
    │   └── RequestRefusedError         4xx: repeating the same request does not help
    ├── UnconfirmedError                the provider does not confirm a callback (yet)       worth a retry
    │   └── UnknownTaskError            the provider does not know the task (yet)            worth a retry
    ├── TaskEventError                  a task's item cannot be converted into an event
    ├── InvalidMessageError             a queue message that is not JSON, or has no valid task key
    ├── WebhookNotAcceptedError         the receiver did not accept a webhook                worth a retry
    │   └── WebhookGoneError            410: the receiver accepts no more webhooks
    └── ImageError                      one image could not be archived
        ├── ImageUnavailableError       network, HTTP status                                 worth a retry
        │   ├── ImageGoneError          403, 404, 410                         worth requesting a fresh URL
        │   └── ImageTruncatedError     the body is an incomplete or damaged image           worth a retry
        └── ImageRejectedError          the image cannot be archived: not public, too many bytes, ...
            ├── NotAnImageError         the body is not an image
            ├── UnknownFormatError      the body is an image or video in a format that is not archived
            └── TooManyPixelsError      the body is an image with too many pixels to decode

Exceptions that concern a single module or package, such as the tasks API's APIError, are defined there.

Class names must not change: `ErrorEquals` in statemachines/poll_tasks.asl.yaml lists some of them. The codes in the
bodies of 4xx responses must not change either: callers may compare them.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import ClassVar


class ImageTasksError(Exception):
    """Base of all exceptions that this package defines."""


class RequestError(ImageTasksError):
    """A callback is refused because of its content.

    The message is returned to the caller: it describes what is wrong with the request and contains no secret.
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
    """There is no provider with this id, or no entry for this account in the provider keys secret."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_provider"


class PayloadTooLargeError(RequestError):
    """The body is larger than the limit for callbacks."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "payload_too_large"


class StoreUnavailableError(ImageTasksError):
    """A call to an AWS service (DynamoDB, Secrets Manager, S3, SQS, ...) failed, after botocore's own retries."""


class InterruptedTryError(ImageTasksError):
    """An earlier archiving try of this task was killed: the task must be archived alone. `since`: when it began."""

    def __init__(self, since: str) -> None:
        super().__init__(f"an earlier try, which began at {since}, was killed")
        self.since = since


class NotQueuedError(StoreUnavailableError):
    """SQS did not accept the messages of some tasks, whose keys are in `tasks`. The other tasks are queued."""

    def __init__(self, message: str, tasks: Sequence[str]) -> None:
        super().__init__(message)
        self.tasks = tasks


class SettingsError(ImageTasksError):
    """An environment variable or a secret is missing or malformed. The message has its name, not its value."""


class InvalidSecretError(SettingsError):
    """A key or token cannot be used because of its type, format or length. The message does not contain it."""


class ProviderError(ImageTasksError):
    """A request to a provider failed. The status of the task stays unknown."""


class ProviderUnavailableError(ProviderError):
    """The provider did not answer, or answered with HTTP 5xx."""


class ProviderUnreachableError(ProviderUnavailableError):
    """The connection to the provider failed before any byte of the request was sent."""


class UnreadableAnswerError(ProviderUnavailableError):
    """The provider answered with a record in an unknown format, or with the record of another task."""


class ProviderBusyError(ProviderError):
    """The provider cannot serve the request now: 429 rate limit or 455 maintenance."""


class ProviderRefusedError(ProviderError):
    """The provider refuses all requests of this account: 401 key, 402 credits, 403 quota used up, 505 disabled."""


class RequestRefusedError(ProviderError):
    """The provider refuses this request with a 4xx: because of its prompt, its parameters or a task id in a poll."""


class UnconfirmedError(ImageTasksError):
    """The provider does not confirm the result of a callback, or does not confirm it yet."""


class UnknownTaskError(UnconfirmedError):
    """The provider does not know the task that a callback reported, or does not know it yet."""


class TaskEventError(ImageTasksError):
    """A task's item cannot be converted into an event, because it was edited by hand. The message names the fault."""


class InvalidMessageError(ImageTasksError):
    """A message of a queue is not JSON, or has no valid task key.

    Retries do not help: the message becomes a dead letter.
    """


class WebhookNotAcceptedError(ImageTasksError):
    """The receiver of webhooks did not respond, or responded with another status than 2xx.

    `retry_after`: the seconds of the response's Retry-After header, if it has one.
    """

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WebhookGoneError(WebhookNotAcceptedError):
    """The receiver responded with 410 Gone: it accepts no more webhooks. The webhook is not sent again."""


class ImageError(ImageTasksError):
    """One image could not be archived. The message is written for users: it becomes the image's `reason`."""


class ImageUnavailableError(ImageError):
    """The image could not be downloaded, but a retry may succeed: a network error, HTTP 5xx."""


class ImageGoneError(ImageUnavailableError):
    """The server has no image at this URL: the URL has expired, the image was withdrawn, or is not on the CDN yet."""


class ImageTruncatedError(ImageUnavailableError):
    """The body begins like an image, but bytes are missing or damaged. A retry may return the whole image."""


class ImageRejectedError(ImageError):
    """The image cannot be archived: not an image, not at a public address, too large, or from an unexpected host."""


class NotAnImageError(ImageRejectedError):
    """The body is not an image: it has no image format's signature, or is another kind of file after the signature."""


class UnknownFormatError(ImageRejectedError):
    """The body is an image or video in a format that is not archived, such as HEIC, SVG or lossless JPEG."""


class TooManyPixelsError(ImageRejectedError):
    """The body is an image with too many pixels: decoding it takes too much memory."""

"""Everything this package raises, as one tree.

    ImageTasksError
    ├── RequestError                    the caller's fault: answered 4xx, nothing is written
    │   ├── MalformedBodyError          400  not JSON in the strict sense
    │   ├── InvalidCallbackError        422  JSON, but not what the provider documents
    │   ├── UnauthorizedError           401  token or signature missing or wrong
    │   ├── UnknownProviderError        404
    │   └── PayloadTooLargeError        413
    ├── StoreUnavailableError           DynamoDB or Secrets Manager did not take a call      worth a retry
    ├── SettingsError                   environment or secret is missing or malformed
    ├── ProviderError                   a provider could not be asked; says nothing of the task
    │   ├── ProviderUnavailableError    no answer, HTTP 5xx, an answer of no known shape     worth a retry
    │   │   └── ProviderUnreachableError    no connection: nothing was sent                  worth a retry
    │   ├── ProviderBusyError           429 rate limit, 455 maintenance                      worth a later retry
    │   ├── ProviderRefusedError        401 key, 402 credits: concerns every task
    │   └── RequestRefusedError         a request for images that will never be taken as it is
    ├── UnconfirmedError                the provider does not confirm a callback (yet)        worth a retry
    ├── TaskEventError                  an item of which no event can be made
    ├── InvalidMessageError             an archive message that names no task
    └── ImageError                      one image could not be archived
        ├── ImageUnavailableError       network, HTTP status, truncated                      worth a retry
        │   └── ImageGoneError          403, 404, 410                         a fresh URL is worth asking for
        └── ImageRejectedError          will never be archived: not an image, not public, too large, ...

Names are a contract: `ErrorEquals` in statemachines/poll_tasks.asl.yaml lists classes, 4xx bodies carry codes.
"""

from http import HTTPStatus
from typing import ClassVar


class ImageTasksError(Exception):
    """Base of everything that this package raises on purpose."""


class RequestError(ImageTasksError):
    """A callback that is refused.

    The message goes back to the caller: it says what is wrong with the request and holds no secret.
    """

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]


class MalformedBodyError(RequestError):
    """The body is not JSON in the strict sense, or not the base64 that it claims to be."""

    status = HTTPStatus.BAD_REQUEST
    code = "malformed_body"


class InvalidCallbackError(RequestError):
    """The body is JSON, but not what the provider documents."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid_callback"


class UnauthorizedError(RequestError):
    """The token or the signature is missing or wrong; which of them is not told."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"


class UnknownProviderError(RequestError):
    """No provider has this name."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_provider"


class PayloadTooLargeError(RequestError):
    """The body is longer than any callback."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "payload_too_large"


class StoreUnavailableError(ImageTasksError):
    """DynamoDB or Secrets Manager did not take a call, after botocore's own retries."""


class SettingsError(ImageTasksError):
    """An environment variable or a secret is missing or malformed; the message names it, never its value."""


class ProviderError(ImageTasksError):
    """A provider could not be asked. Says nothing about the task."""


class ProviderUnavailableError(ProviderError):
    """No answer, an HTTP 5xx, or an answer of no known shape."""


class ProviderUnreachableError(ProviderUnavailableError):
    """There was no connection to the provider, so that it has received nothing."""


class ProviderBusyError(ProviderError):
    """The provider asks for patience: 429 rate limit or 455 maintenance."""


class ProviderRefusedError(ProviderError):
    """The provider refuses this account, not this task: 401 key, 402 credits, 403 used up, 505 disabled."""


class RequestRefusedError(ProviderError):
    """The provider refuses this request for images, with a 4xx: its prompt, its parameters."""


class UnconfirmedError(ImageTasksError):
    """The provider does not confirm, or does not confirm yet, what a callback says."""


class TaskEventError(ImageTasksError):
    """No event can be made of a task's item: somebody has put it by hand; the message names the attribute."""


class InvalidMessageError(ImageTasksError):
    """A message of the archive queue is not JSON, or names no task: it can only become a dead letter."""


class ImageError(ImageTasksError):
    """One image could not be archived; the message says why in words that a user understands."""


class ImageUnavailableError(ImageError):
    """It may work next time: network trouble, a 5xx, a truncated body."""


class ImageGoneError(ImageUnavailableError):
    """The server has nothing under this URL: it has expired, was withdrawn, or has not reached the CDN yet."""


class ImageRejectedError(ImageError):
    """It will never be archived: not an image, not at a public address, too large, from a host nobody expects."""

"""Defines the base class of the providers, through which the rest of the package uses them.

A provider's module defines models of its JSON, converts callbacks and answers to polls into `TaskReport`s, and builds
the requests that poll tasks. It also lists the paths of requests for images. It does no I/O: `polling.provider_client`
and `api.submission_client` send requests, and `tasks.reports` records reports.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from catchlight.errors import UnauthorizedError
from catchlight.models import ImageKind, TaskReport


@dataclass(frozen=True, slots=True)
class PollRequest:
    """One HTTP request to a provider. The path is relative to the provider's base URL.

    `task_ids` are the tasks whose status it requests; empty for requests that concern no task.
    """

    method: str
    path: str
    task_ids: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Provider(ABC):
    """The base class of the object `PROVIDER` that each provider's module exports.

    Methods that parse an answer get its HTTP status and, as `body`, its decoded JSON; None if the body was not JSON.
    """

    # The provider's name in URLs, keys and settings.
    id: str
    # The default base URL of the provider's API; the settings can replace it.
    base_url: str
    # The known hosts of the provider's images: names, or "*.domain" for every name below a domain.
    image_hosts: tuple[str, ...]
    # How long an image's URL is valid after the image is ready, by kind of image.
    url_lifetimes: Mapping[ImageKind, timedelta]
    # The maximum number of task ids in one poll request.
    poll_batch_size: int
    # The maximum number of concurrent poll requests to the provider.
    max_concurrent_polls: int
    # The paths of the endpoints for requests for images, by the endpoint's name. The first is the default.
    submit_paths: Mapping[str, str]
    # The field of a request for images that contains the callback URL.
    callback_url_field: str
    # Whether the provider signs callbacks. If it does not, and a webhook key is configured, all are rejected.
    signs_callbacks: bool = False
    # How long a URL is valid that `download_url_request` requests; None if the provider has no such request.
    download_url_lifetime: timedelta | None = None

    @abstractmethod
    def parse_submission(self, http_status: int, body: Any) -> str:
        """Returns the id of the task that a request for images has created.

        Raises:
            RequestRefusedError, ProviderRefusedError, ProviderBusyError: the provider rejected the request and
                generates nothing.
            ProviderUnavailableError: the outcome is unknown; the request may have created a task.
        """

    @abstractmethod
    def credits_request(self) -> PollRequest:
        """Builds a request that costs nothing and shows whether the provider accepts an API key."""

    @abstractmethod
    def parse_credits(self, http_status: int, body: Any) -> float | None:
        """Returns the account's credits from the answer to `credits_request`; None if the answer has none.

        Raises:
            ProviderRefusedError: the provider refuses the key.
            ProviderError: the answer does not show whether the provider accepts the key.
        """

    @abstractmethod
    def parse_callback(self, body: Any, *, received_at: datetime) -> TaskReport:
        """Parses a callback's decoded JSON body.

        Raises:
            InvalidCallbackError: the body does not have the documented format. The message names the field, without its
                value.
        """

    def verify_callback(
        self,
        callback: TaskReport,  # noqa: ARG002
        headers: Mapping[str, str],  # noqa: ARG002
        keys: Iterable[str],  # noqa: ARG002
    ) -> None:
        """Checks the signature of a parsed callback. Called only if a webhook key is configured for the provider.

        By default, the callback is rejected: a key is configured, but the provider documents no signatures.

        Args:
            callback: the parsed callback. `reported_at` is the time when it was received.
            headers: names in lower case. A header that was sent twice has both values, joined by a comma.
            keys: the webhook keys that are valid now.

        Raises:
            UnauthorizedError: the signature is missing, malformed, too old, too new, or made with another key.
        """
        raise UnauthorizedError(f"{self.id} does not sign its callbacks, but a webhook key is configured for it")

    @abstractmethod
    def poll_request(self, task_ids: Sequence[str]) -> PollRequest:
        """Builds the request that polls 1 to `poll_batch_size` tasks."""

    @abstractmethod
    def parse_poll(
        self, request: PollRequest, http_status: int, body: Any, *, received_at: datetime
    ) -> list[TaskReport]:
        """Returns one report per polled task: PENDING if the task is running or the provider does not know it (yet).

        Raises:
            RequestRefusedError: the provider rejects this request. If it has several tasks, the caller repeats it with
                fewer of them, to find the task id that the provider rejects.
            ProviderError: the answer reports another error of the request and contains no task.
        """

    def download_url_request(self, url: str) -> PollRequest:
        """Builds the request for another URL of the file at `url`. Called only if `download_url_lifetime` is set."""
        raise NotImplementedError

    def parse_download_url(self, http_status: int, body: Any) -> str:
        """Returns the URL in the answer to `download_url_request`.

        Raises:
            ProviderError: the answer has no URL.
        """
        raise NotImplementedError

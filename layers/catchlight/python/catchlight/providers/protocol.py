"""What a provider is to the rest of the code.

A provider module defines wire models, turns a callback body and a poll answer into `TaskReport`s, and says how it is
asked for tasks and for images. It does no I/O: `provider_client` and `submission_client` ask, `tasks_table` writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from catchlight.models import ImageKind, TaskReport


@dataclass(frozen=True, slots=True)
class PollRequest:
    """One HTTP request that asks about tasks. The path is relative to the provider's base URL."""

    method: str
    path: str
    task_ids: tuple[str, ...]
    params: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None


class Provider(Protocol):
    """What a provider module exports as `PROVIDER`."""

    @property
    def id(self) -> str:
        """Its name in URLs, keys and settings."""

    @property
    def base_url(self) -> str:
        """Where its API is, unless settings say otherwise."""

    @property
    def image_hosts(self) -> tuple[str, ...]:
        """Hosts that its images are known to come from: names, or "*.domain" for every name below one."""

    @property
    def url_lifetimes(self) -> Mapping[ImageKind, timedelta]:
        """How long a URL lives from the moment the image is ready."""

    @property
    def poll_batch_size(self) -> int:
        """Task ids that one poll request may ask about."""

    @property
    def submit_paths(self) -> Mapping[str, str]:
        """Where it takes requests for images: paths by the name of the endpoint, the usual one first."""

    @property
    def callback_url_field(self) -> str:
        """The field of such a request that holds the callback URL."""

    def parse_submission(self, http_status: int, body: Any) -> str:
        """The id of the task that a request for images has become.

        `body` is the decoded JSON, None if it was none.

        Raises:
            RequestRefusedError, ProviderRefusedError, ProviderBusyError: it was refused, and nothing is generated.
            ProviderUnavailableError: there is no telling, it may have become a task.
        """

    @property
    def max_concurrent_polls(self) -> int:
        """Poll requests that it may get at once."""

    def parse_callback(self, body: Any, *, received_at: datetime) -> TaskReport:
        """News in a callback's decoded JSON body.

        Raises:
            InvalidCallbackError: it is not what the provider documents. The message says where, without values.
        """

    def poll_request(self, task_ids: Sequence[str]) -> PollRequest:
        """How to ask about 1..`poll_batch_size` tasks."""

    def parse_poll(
        self, request: PollRequest, http_status: int, body: Any, *, received_at: datetime
    ) -> list[TaskReport]:
        """One report per task asked, PENDING where the provider is still at work or does not know the task (yet).

        `body` is the decoded JSON, None if it was none.

        Raises:
            ProviderError: the answer speaks of the request, not of the tasks.
        """

"""Looks up one task at its provider, with the user's own API key: its status, or another URL of one of its files."""

from collections.abc import Callable
from datetime import datetime

from catchlight.aws.secrets import ProviderKeys
from catchlight.errors import ProviderUnavailableError, UnreadableAnswerError
from catchlight.models import TaskReport, split_task_key
from catchlight.polling.provider_client import ProviderClient
from catchlight.providers import PROVIDERS, Provider


class StatusLookup:
    """Looks up single tasks at their providers. Thread-safe."""

    def __init__(
        self, client: ProviderClient, keys: Callable[[str], ProviderKeys], *, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._keys = keys
        self._now = now

    def request_status(self, task: str) -> TaskReport | None:
        """Requests the current status of a task from its provider.

        Returns None if no request is possible: no API key is configured, or the provider is unknown.

        Raises:
            ProviderError: the provider did not answer, or the answer does not contain the task.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
            Exception: a bug in Catchlight, raised while the answer was parsed.
        """
        provider, task_id, api_key = self._find(task)
        if not (provider and api_key):
            return None
        results = self._client.request_statuses(provider, [task_id], api_key=api_key, now=self._now)
        if results.errors:
            raise results.errors[0]
        if not results.reports:
            raise ProviderUnavailableError(f"the answer of {provider.id} does not contain the task")
        report = results.reports[0]
        if report.unreadable is not None:
            # Such an answer neither confirms nor contradicts a callback, whose URLs may be usable.
            raise UnreadableAnswerError(report.failure.message if report.failure else "")
        return report

    def download_url(self, task: str, url: str) -> tuple[str, datetime] | None:
        """Requests another URL of a task's file from its provider, and returns it with the time when it expires.

        Returns None if no request is possible: no API key is configured, or the provider has no such request.

        Raises:
            ProviderError: the request failed, or its answer has no URL.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
        """
        provider, _, api_key = self._find(task)
        if not (provider and provider.download_url_lifetime and api_key):
            return None
        fresh = self._client.download_url(provider, url, api_key=api_key)
        return fresh, self._now() + provider.download_url_lifetime

    def _find(self, task: str) -> tuple[Provider | None, str, str | None]:
        provider_id, task_id = split_task_key(task)
        return PROVIDERS.get(provider_id), task_id, self._keys(provider_id).usable_api_key

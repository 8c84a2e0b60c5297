"""Looks up the status of one task at its provider, with the user's own API key."""

from collections.abc import Callable
from datetime import datetime

from catchlight.aws.secrets import ProviderKeys
from catchlight.models import TaskReport, split_task_key
from catchlight.polling.provider_client import ProviderClient
from catchlight.providers import PROVIDERS


class StatusLookup:
    """Looks up single tasks at their providers. Thread-safe."""

    def __init__(
        self, client: ProviderClient, keys: Callable[[str], ProviderKeys], *, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._keys = keys
        self._now = now

    def ask(self, task: str) -> TaskReport | None:
        """Requests the current status of a task from its provider.

        Returns None if no request is possible: no API key is configured, or the provider is unknown.

        Raises:
            ProviderError: the provider did not answer, or the answer does not contain the task.
            SettingsError, StoreUnavailableError: the provider's API key could not be read.
        """
        provider_id, task_id = split_task_key(task)
        provider, api_key = PROVIDERS.get(provider_id), self._keys(provider_id).usable_api_key
        if not (provider and api_key):
            return None
        return self._client.ask_about(provider, task_id, api_key=api_key, now=self._now)

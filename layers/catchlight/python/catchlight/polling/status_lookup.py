"""Asks a task's provider about that one task, with the user's own key."""

from collections.abc import Callable
from datetime import datetime

from catchlight.aws.secrets import ProviderKeys
from catchlight.models import TaskReport, split_task_key
from catchlight.polling.provider_client import ProviderClient
from catchlight.providers import PROVIDERS


class StatusLookup:
    """Who can be asked about which task. Thread-safe."""

    def __init__(
        self, client: ProviderClient, keys: Callable[[str], ProviderKeys], *, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._keys = keys
        self._now = now

    def ask(self, task: str) -> TaskReport | None:
        """What the provider says at this moment; None if it cannot be asked: no API key, or nobody knows its name.

        Raises:
            ProviderError: it did not answer, or not of this task.
            SettingsError, StoreUnavailableError: its API key could not be read.
        """
        provider_id, task_id = split_task_key(task)
        provider, api_key = PROVIDERS.get(provider_id), self._keys(provider_id).usable_api_key
        if not (provider and api_key):
            return None
        return self._client.ask_about(provider, task_id, api_key=api_key, now=self._now)

"""Settings of each Lambda function. The functions read environment variables only through this module."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
)

from catchlight.errors import SettingsError
from catchlight.models import Originals

Name = Annotated[str, StringConstraints(min_length=1)]


def _split_hosts(value: str) -> list[str]:
    return [host for host in value.lower().split(",") if host]


def parse_base_urls(value: str) -> dict[str, str]:
    """Parses the parameter ProviderBaseUrls, "PROVIDER=URL,...": base URLs that replace the providers' default ones.

    Raises:
        ValueError: the value has another format.
    """
    urls = {}
    for pair in filter(None, value.split(",")):
        provider, separator, url = pair.partition("=")
        if not separator:
            # If this pair were ignored, the API key meant for this URL would be sent to the provider's default URL.
            raise ValueError("expected PROVIDER=URL, several separated by commas")
        if not (urlsplit(url).scheme and urlsplit(url).hostname):
            raise ValueError(f"{provider} has no absolute URL")
        urls[provider] = url.rstrip("/")
    return urls


def _days(value: str) -> timedelta | None:
    if not value.isdecimal():
        raise ValueError("expected a number of days; 0 means no limit")
    return timedelta(days=int(value)) or None


class Settings(BaseModel):
    """Base of the settings. Each field is read from the environment variable with the same name in upper case."""

    # Validation errors omit the input values, because settings errors are logged.
    model_config = ConfigDict(
        frozen=True, alias_generator=str.upper, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Reads the settings from environment variables.

        Raises:
            SettingsError: variables are missing or malformed; the message names them.
        """
        try:
            return cls.model_validate(dict(os.environ if environment is None else environment))
        except ValidationError as exc:
            problems = "; ".join(f"{error['loc'][0]}: {error['msg']}" for error in exc.errors(include_input=False))
            raise SettingsError(f"environment of {cls.__name__}: {problems}") from exc


BaseUrls = Annotated[dict[str, str], BeforeValidator(parse_base_urls)]
# Number of days for which the item of a finished task is kept. 0 becomes None: the item is never deleted.
Retention = Annotated[timedelta | None, BeforeValidator(_days)]


class ReceiveCallbackSettings(Settings):
    """Settings of the Lambda function ReceiveCallback."""

    tasks_table: Name
    callback_token_secret: Name
    provider_keys_secret: Name
    images_bucket: Name  # also stores deliveries that could not be parsed
    task_retention_days: Retention = None
    keep_deliveries: NonNegativeInt = 0  # days for which accepted deliveries are kept in the bucket; 0: none is stored


class DispatchChangesSettings(Settings):
    """Settings of the Lambda function DispatchChanges."""

    tasks_table: Name
    archive_queue_url: Name
    poll_queue_url: Name
    dispatch_dead_letters_url: Name
    first_poll_after_seconds: PositiveInt


class StartPollingSettings(Settings):
    """Settings of the Lambda function StartPolling."""

    tasks_table: Name
    poll_tasks_state_machine: Name
    first_poll_after_seconds: PositiveInt
    give_up_after_seconds: PositiveInt


class PollTasksSettings(Settings):
    """Settings of the Lambda function PollTasks."""

    tasks_table: Name
    images_bucket: Name  # stores answers that could not be read
    provider_keys_secret: Name
    provider_base_urls: BaseUrls = {}
    task_retention_days: Retention = None
    poll_interval_seconds: PositiveInt
    slow_poll_after_seconds: PositiveInt
    slow_poll_interval_seconds: PositiveInt
    give_up_after_seconds: PositiveInt


class ArchiveImagesSettings(Settings):
    """Settings of the Lambda function ArchiveImages."""

    tasks_table: Name
    images_bucket: Name
    archive_queue_url: Name
    archive_dead_letters_url: Name
    provider_keys_secret: Name
    provider_base_urls: BaseUrls = {}
    task_retention_days: Retention = None
    # "Confirmed": only URLs from unconfirmed callbacks must be at an expected host. Confirmed URLs may be at any public
    # host: no attacker can have chosen them, the lists of expected hosts may be incomplete, and an image at a host that
    # is not listed would be lost. "Listed": every URL must be at an expected host.
    image_hosts: Literal["Confirmed", "Listed"] = "Confirmed"
    originals: Originals = Originals.BEST_EFFORT
    # Added to the providers' lists of expected hosts: host names, "*.domain", or "*" for any public host.
    additional_image_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_hosts)] = ()


class ServeTasksApiSettings(Settings):
    """Settings of the Lambda function ServeTasksApi."""

    tasks_table: Name
    images_bucket: Name
    # Base URL of the callback API: `https://HOST`, without a trailing slash.
    callback_base_url: Name
    callback_token_secret: Name
    provider_keys_secret: Name
    provider_base_urls: BaseUrls = {}
    task_retention_days: Retention = None
    tasks_api_wait_limit: NonNegativeInt


class PublishEventsSettings(Settings):
    """Settings of the Lambda function PublishEvents."""

    event_bus: Name


class SendWebhooksSettings(Settings):
    """Settings of the Lambda function SendWebhooks."""

    webhook_url: Name  # its query may contain a secret
    webhook_secret: Name
    webhook_queue_url: Name
    webhook_dead_letters_url: Name


class ReconcileTasksSettings(Settings):
    """Settings of the Lambda function ReconcileTasks."""

    tasks_table: Name
    archive_queue_url: Name
    dispatch_dead_letters_url: Name
    poll_dead_letters_url: Name
    publish_dead_letters_url: Name
    publish_events_function: str  # empty: events are not published
    poll_tasks_state_machine: Name
    give_up_after_seconds: PositiveInt

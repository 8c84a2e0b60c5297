"""What each function is told by its environment. The only module that reads it."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, PositiveInt, StringConstraints, ValidationError

from catchlight.errors import SettingsError

Name = Annotated[str, StringConstraints(min_length=1)]


def _split_hosts(value: Any) -> Any:
    return [host for host in value.lower().split(",") if host] if isinstance(value, str) else value


def _split_base_urls(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    urls = {}
    for pair in filter(None, value.split(",")):
        provider, separator, url = pair.partition("=")
        if not separator:
            # Left out, the key that is meant for this URL would go to the provider's own.
            raise ValueError("expected PROVIDER=URL, several separated by commas")
        if not (urlsplit(url).scheme and urlsplit(url).hostname):
            raise ValueError(f"{provider} has no absolute URL")
        urls[provider] = url
    return {provider: url.rstrip("/") for provider, url in urls.items()}


def _days(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.isdecimal():
        raise ValueError("expected a number of days, 0 for ever")
    return timedelta(days=int(value)) or None


class Settings(BaseModel):
    """Frozen settings, read from variables of the same name in capitals."""

    # Inputs stay out of error texts: a settings error is logged.
    model_config = ConfigDict(
        frozen=True, alias_generator=str.upper, populate_by_name=True, hide_input_in_errors=True, defer_build=True
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Settings from environment variables.

        Raises:
            SettingsError: names the variables that are missing or malformed.
        """
        try:
            return cls.model_validate(dict(os.environ if environment is None else environment))
        except ValidationError as exc:
            problems = "; ".join(f"{error['loc'][0]}: {error['msg']}" for error in exc.errors(include_input=False))
            raise SettingsError(f"environment of {cls.__name__}: {problems}") from exc


# "PROVIDER=URL,...": what differs from the providers' own base URLs.
BaseUrls = Annotated[dict[str, str], BeforeValidator(_split_base_urls)]
# Days that a finished task's item is kept; 0, and None: for ever.
Retention = Annotated[timedelta | None, BeforeValidator(_days)]


class ReceiveCallbackSettings(Settings):
    """Environment of ReceiveCallback."""

    tasks_table: Name
    callback_token_secret: Name
    provider_keys_secret: Name
    images_bucket: Name  # deliveries that cannot be read are kept there
    task_retention_days: Retention = None


class DispatchChangesSettings(Settings):
    """Environment of DispatchChanges."""

    archive_queue_url: Name
    poll_tasks_state_machine: Name
    first_poll_after_seconds: PositiveInt


class PollTasksSettings(Settings):
    """Environment of PollTasks."""

    tasks_table: Name
    provider_keys_secret: Name
    provider_base_urls: BaseUrls = {}
    task_retention_days: Retention = None
    poll_interval_seconds: PositiveInt
    slow_poll_after_seconds: PositiveInt
    slow_poll_interval_seconds: PositiveInt
    give_up_after_seconds: PositiveInt


class ArchiveImagesSettings(Settings):
    """Environment of ArchiveImages."""

    tasks_table: Name
    images_bucket: Name
    archive_queue_url: Name
    provider_keys_secret: Name
    provider_base_urls: BaseUrls = {}
    task_retention_days: Retention = None
    # Names, "*.domain", or "*" for any public host.
    additional_image_hosts: Annotated[tuple[str, ...], BeforeValidator(_split_hosts)] = ()


class ServeTasksApiSettings(Settings):
    """Environment of ServeTasksApi."""

    tasks_table: Name
    images_bucket: Name
    # Of the API that takes callbacks: `https://HOST`, without a slash.
    callback_base_url: Name
    callback_token_secret: Name
    provider_keys_secret: Name
    provider_base_urls: BaseUrls = {}
    task_retention_days: Retention = None


class PublishEventsSettings(Settings):
    """Environment of PublishEvents."""

    event_bus: Name


class ReconcileTasksSettings(Settings):
    """Environment of ReconcileTasks."""

    tasks_table: Name
    archive_queue_url: Name
    poll_tasks_state_machine: Name
    give_up_after_seconds: PositiveInt


# ------------------------------------------------------------------------------------------------ telemetry


def service_name() -> str:
    """What logs and metrics are told apart by: the stack's name. Powertools reads the same variable."""
    return os.environ.get("POWERTOOLS_SERVICE_NAME", "service_undefined")


def metrics_namespace() -> str:
    """CloudWatch's namespace of the metrics. Powertools reads the same variable."""
    return os.environ.get("POWERTOOLS_METRICS_NAMESPACE", "Catchlight")


def log_level() -> str:
    """The least level that is logged, in capitals. Powertools reads the same variable."""
    return os.environ.get("POWERTOOLS_LOG_LEVEL", "INFO").upper()


def trace_id() -> str | None:
    """X-Ray's id of this invocation, which Lambda puts into the environment; None without a trace."""
    header = os.environ.get("_X_AMZN_TRACE_ID", "")
    return header.partition("Root=")[2].partition(";")[0] or None

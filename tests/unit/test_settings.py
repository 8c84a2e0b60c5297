"""Settings: each variable is read, and errors name variables without their values."""

import pytest

from catchlight.errors import SettingsError
from catchlight.settings import (
    ArchiveImagesSettings,
    DispatchChangesSettings,
    PollTasksSettings,
    PublishEventsSettings,
    ReceiveCallbackSettings,
    Settings,
    StartPollingSettings,
)

CALLBACK = {
    "TASKS_TABLE": "tasks",
    "CALLBACK_TOKEN_SECRET": "arn:token",
    "PROVIDER_KEYS_SECRET": "arn:keys",
    "IMAGES_BUCKET": "images",
}
DISPATCH = {
    "TASKS_TABLE": "tasks",
    "ARCHIVE_QUEUE_URL": "https://sqs.example/queue",
    "POLL_QUEUE_URL": "https://sqs.example/poll-queue",
    "DISPATCH_DEAD_LETTERS_URL": "https://sqs.example/dispatch-dead-letters",
    "FIRST_POLL_AFTER_SECONDS": "60",
}
START = {
    "TASKS_TABLE": "tasks",
    "POLL_TASKS_STATE_MACHINE": "arn:machine",
    "FIRST_POLL_AFTER_SECONDS": "60",
    "GIVE_UP_AFTER_SECONDS": "21600",
}
POLL = {
    "TASKS_TABLE": "tasks",
    "IMAGES_BUCKET": "images",
    "PROVIDER_KEYS_SECRET": "arn:keys",
    "PROVIDER_BASE_URLS": "",
    "POLL_INTERVAL_SECONDS": "30",
    "SLOW_POLL_AFTER_SECONDS": "900",
    "SLOW_POLL_INTERVAL_SECONDS": "120",
    "GIVE_UP_AFTER_SECONDS": "21600",
}
ARCHIVE = {
    "TASKS_TABLE": "tasks",
    "IMAGES_BUCKET": "images",
    "ARCHIVE_QUEUE_URL": "https://sqs.example/queue",
    "ARCHIVE_DEAD_LETTERS_URL": "https://sqs.example/dead-letters",
    "PROVIDER_KEYS_SECRET": "arn:keys",
    "PROVIDER_BASE_URLS": "",
    "ORIGINALS": "BestEffort",
    "IMAGE_HOSTS": "Confirmed",
    "ADDITIONAL_IMAGE_HOSTS": "",
}
FUNCTIONS: list[tuple[type[Settings], dict[str, str]]] = [
    (ReceiveCallbackSettings, CALLBACK),
    (DispatchChangesSettings, DISPATCH),
    (StartPollingSettings, START),
    (PollTasksSettings, POLL),
    (ArchiveImagesSettings, ARCHIVE),
    (PublishEventsSettings, {"EVENT_BUS": "catchlight-tasks"}),
]
# Without one of these variables, its setting has the value that it has above.
MAY_BE_MISSING = {"PROVIDER_BASE_URLS", "ORIGINALS", "IMAGE_HOSTS", "ADDITIONAL_IMAGE_HOSTS"}


@pytest.mark.parametrize(("settings", "environment"), FUNCTIONS)
def test_settings_have_the_values_of_the_environment(settings: type[Settings], environment: dict[str, str]) -> None:
    read = settings.from_environment(environment | {"PATH": "/usr/bin"})

    assert {name.upper(): str(value) for name, value in read if value} == {
        name: value for name, value in environment.items() if value
    }


@pytest.mark.parametrize(
    ("settings", "environment", "missing"),
    [(settings, environment, name) for settings, environment in FUNCTIONS for name in environment],
)
def test_a_missing_variable_is_named(settings: type[Settings], environment: dict[str, str], missing: str) -> None:
    rest = {name: value for name, value in environment.items() if name != missing}
    if missing in MAY_BE_MISSING:
        assert settings.from_environment(rest) == settings.from_environment(environment)
        return

    with pytest.raises(SettingsError, match=rf"^environment of {settings.__name__}: {missing}: Field required$"):
        settings.from_environment(rest)


@pytest.mark.parametrize(
    ("settings", "environment", "malformed"),
    [
        (settings, environment, name)
        for settings, environment in FUNCTIONS
        for name in environment
        if name not in MAY_BE_MISSING
    ],
)
def test_an_empty_variable_is_named(settings: type[Settings], environment: dict[str, str], malformed: str) -> None:
    with pytest.raises(SettingsError, match=malformed):
        settings.from_environment(environment | {malformed: ""})


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "1e3s", "s3cret"])
@pytest.mark.parametrize("name", [name for name in POLL if name.endswith("_SECONDS")])
def test_a_malformed_number_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as refused:
        PollTasksSettings.from_environment(POLL | {name: value})

    assert "soon" not in str(refused.value)
    assert "s3cret" not in str(refused.value)
    # The error's causes are logged with it.
    assert "s3cret" not in str(refused.value.__cause__)


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(SettingsError, match=r"TASKS_TABLE: .*; CALLBACK_TOKEN_SECRET: .*; PROVIDER_KEYS_SECRET: "):
        ReceiveCallbackSettings.from_environment({})


def test_settings_are_read_from_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CALLBACK.items():
        monkeypatch.setenv(name, value)

    assert ReceiveCallbackSettings.from_environment().callback_token_secret == "arn:token"


@pytest.mark.parametrize(
    ("value", "urls"),
    [
        ("", {}),
        ("flux-kontext=https://api.apikley.ru", {"flux-kontext": "https://api.apikley.ru"}),
        ("flux-kontext=https://api.apikley.ru/", {"flux-kontext": "https://api.apikley.ru"}),
        ("a=https://a.example,b=http://127.0.0.1:8080", {"a": "https://a.example", "b": "http://127.0.0.1:8080"}),
    ],
)
def test_base_urls_are_pairs_of_provider_and_url(value: str, urls: dict[str, str]) -> None:
    assert PollTasksSettings.from_environment(POLL | {"PROVIDER_BASE_URLS": value}).provider_base_urls == urls


@pytest.mark.parametrize(
    "value", ["acedata=s3cret", "acedata=", "acedata=//s3cret", "a=https://a.example,acedata=s3cret"]
)
def test_an_invalid_base_url_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(SettingsError, match=r"PROVIDER_BASE_URLS: .*acedata has no absolute URL") as refused:
        PollTasksSettings.from_environment(POLL | {"PROVIDER_BASE_URLS": value})

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("value", ["https://api.apikley.ru", "acedata", "a=https://a.example,acedata"])
def test_a_base_url_without_its_provider_is_refused(value: str) -> None:
    # If it were ignored, polls would send the key of another service to the provider's own address.
    with pytest.raises(SettingsError, match="PROVIDER_BASE_URLS"):
        PollTasksSettings.from_environment(POLL | {"PROVIDER_BASE_URLS": value})


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("", ()),
        ("*", ("*",)),
        ("images.example", ("images.example",)),
        ("Images.Example,*.CDN.example", ("images.example", "*.cdn.example")),
    ],
)
def test_additional_hosts_are_names_in_lower_case(value: str, hosts: tuple[str, ...]) -> None:
    settings = ArchiveImagesSettings.from_environment(ARCHIVE | {"ADDITIONAL_IMAGE_HOSTS": value})

    assert settings.additional_image_hosts == hosts

"""Requests for the account's credits, which show whether a provider accepts an API key."""

from typing import Any

import pytest

from catchlight.errors import (
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    UnreadableAnswerError,
)
from catchlight.providers import PROVIDERS


@pytest.mark.parametrize(
    ("provider_id", "method", "path"),
    [
        ("flux-kontext", "GET", "/api/v1/chat/credit"),
        ("apikley", "GET", "/api/v1/chat/credit"),
        ("kie-market", "GET", "/api/v1/chat/credit"),
        ("nanobanana", "GET", "/api/v1/common/credit"),
        ("acedata", "POST", "/flux/tasks"),
    ],
)
def test_the_request_for_credits(provider_id: str, method: str, path: str) -> None:
    request = PROVIDERS[provider_id].credits_request()

    assert (request.method, request.path, dict(request.params)) == (method, path, {})


def test_ace_datas_request_is_for_a_task_that_does_not_exist() -> None:
    query = PROVIDERS["acedata"].credits_request().json

    assert query == {"id": "00000000-0000-0000-0000-000000000000", "action": "retrieve"}


USED_UP = {"success": False, "error": {"code": "used_up", "message": "no"}}


@pytest.mark.parametrize(
    ("provider_id", "http_status", "body", "credits_left"),
    [
        ("flux-kontext", 200, {"code": 200, "msg": "success", "data": 35.95}, 35.95),
        ("flux-kontext", 200, {"code": "200", "msg": "success", "data": -3}, -3),
        ("flux-kontext", 200, {"code": 200, "msg": "success", "data": {"credits": 5}}, None),
        ("flux-kontext", 200, {"code": 402, "msg": "no credits"}, 0),
        ("nanobanana", 402, None, 0),
        ("acedata", 200, {}, None),
        ("acedata", 403, USED_UP, 0),
        ("acedata", 200, USED_UP, 0),
    ],
)
def test_an_accepted_key(provider_id: str, http_status: int, body: Any, credits_left: float | None) -> None:
    assert PROVIDERS[provider_id].parse_credits(http_status, body) == credits_left


@pytest.mark.parametrize(
    ("provider_id", "http_status", "body", "error"),
    [
        ("flux-kontext", 401, {"code": 401, "msg": "no"}, ProviderRefusedError),
        ("flux-kontext", 200, {"code": 401, "msg": "no"}, ProviderRefusedError),
        ("flux-kontext", 200, {"code": 455, "msg": "maintenance"}, ProviderBusyError),
        ("flux-kontext", 404, None, ProviderUnavailableError),
        ("flux-kontext", 200, None, UnreadableAnswerError),
        ("nanobanana", 200, [], UnreadableAnswerError),
        ("acedata", 401, None, ProviderRefusedError),
        ("acedata", 403, {"error": {"code": "forbidden", "message": "no"}}, ProviderRefusedError),
        ("acedata", 429, {"error": {"code": "too_many_requests", "message": "no"}}, ProviderBusyError),
        ("acedata", 200, {"error": {"code": "api_error", "message": "no"}}, ProviderUnavailableError),
        ("acedata", 404, {}, ProviderUnavailableError),
        ("acedata", 200, None, ProviderUnavailableError),
        ("acedata", 502, None, ProviderUnavailableError),
    ],
)
def test_an_answer_that_shows_no_accepted_key_is_an_error(
    provider_id: str, http_status: int, body: Any, error: type[ProviderError]
) -> None:
    with pytest.raises(ProviderError) as raised:
        PROVIDERS[provider_id].parse_credits(http_status, body)

    assert type(raised.value) is error


@pytest.mark.parametrize("http_status", [401, 403])
def test_a_refusal_of_ace_data_names_the_service_that_has_to_be_acquired(http_status: int) -> None:
    with pytest.raises(ProviderRefusedError, match="both Flux Images and Flux Tasks, which is acquired separately"):
        PROVIDERS["acedata"].parse_credits(http_status, None)


def test_all_providers_except_ace_data_can_sign_callbacks() -> None:
    assert {name: provider.signs_callbacks for name, provider in PROVIDERS.items()} == {
        "flux-kontext": True,
        "apikley": True,
        "nanobanana": True,
        "kie-market": True,
        "acedata": False,
    }

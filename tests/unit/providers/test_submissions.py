"""Answers to generation requests: a task id, a certain refusal, or an unknown outcome."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.errors import (
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
    UnreadableAnswerError,
)
from catchlight.models import TASK_ID_PATTERN
from catchlight.providers import PROVIDERS

COMPLETED = {"code": 200, "msg": "success", "data": {"taskId": "task12345"}}

KIE: dict[str, tuple[int, Any, type[ProviderError] | str]] = {
    "documented": (200, COMPLETED, "task12345"),
    "with a record id": (
        200,
        {"code": 200, "message": "success", "data": {"taskId": "task12345", "recordId": "task12345"}},
        "task12345",
    ),
    "code as string": (200, {**COMPLETED, "code": "200"}, "task12345"),
    "id as task_id": (200, {"code": 200, "data": {"task_id": "task12345"}}, "task12345"),
    "id beside data": (200, {"code": 200, "taskId": "task12345", "data": None}, "task12345"),
    "no id": (200, {"code": 200, "msg": "success", "data": {}}, ProviderUnavailableError),
    "no data": (200, {"code": 200, "msg": "success", "data": None}, ProviderUnavailableError),
    "two ids": (200, {"code": 200, "taskId": "a", "data": {"taskId": "b"}}, ProviderUnavailableError),
    "a malformed id": (200, {"code": 200, "data": {"taskId": "../x"}}, ProviderUnavailableError),
    "prompt missing": (200, {"code": 422, "msg": "prompt is required", "data": None}, RequestRefusedError),
    "parameters": (200, {"code": 400, "msg": "parameter error"}, RequestRefusedError),
    "no such endpoint": (404, {"message": "not found"}, RequestRefusedError),
    "too large": (413, None, RequestRefusedError),
    "key": (200, {"code": 401, "msg": "You do not have access permissions"}, ProviderRefusedError),
    "key, by HTTP": (401, {"code": 401}, ProviderRefusedError),
    "credits": (200, {"code": 402, "msg": "Insufficient Credits"}, ProviderRefusedError),
    "forbidden, by a proxy": (403, "<html>", ProviderRefusedError),
    "disabled": (200, {"code": 505}, ProviderRefusedError),
    "rate limit": (200, {"code": 429}, ProviderBusyError),
    "rate limit, by HTTP": (429, None, ProviderBusyError),
    "limit of the key": (200, {"code": 433}, ProviderRefusedError),
    "maintenance": (200, {"code": 455}, ProviderBusyError),
    "server error": (200, {"code": 500, "msg": "Server Error"}, ProviderUnavailableError),
    "generation failed": (200, {"code": 501}, ProviderUnavailableError),
    "HTTP 500": (500, COMPLETED, ProviderUnavailableError),
    "HTTP 502": (502, "<html>", ProviderUnavailableError),
    "HTTP 408": (408, None, ProviderUnavailableError),
    "redirected": (302, None, ProviderUnavailableError),
    "no JSON": (200, None, UnreadableAnswerError),
    "no code": (200, {"data": {"taskId": "task12345"}}, UnreadableAnswerError),
    "a list": (200, [COMPLETED], UnreadableAnswerError),
}

ACEDATA: dict[str, tuple[int, Any, type[ProviderError] | str]] = {
    "documented": (200, {"task_id": "2db0168c-6bb4-4f4c-9d5c-000000000000"}, "2db0168c-6bb4-4f4c-9d5c-000000000000"),
    "with more": (200, {"success": True, "task_id": "a", "trace_id": "b"}, "a"),
    "finished already": (200, {"success": True, "task_id": "a", "data": [{"image_url": "https://x.example/1"}]}, "a"),
    "failed already": (200, {"success": False, "task_id": "a", "error": {"code": "api_error"}}, "a"),
    "no id": (200, {"success": True, "trace_id": "b"}, ProviderUnavailableError),
    "an error without id": (200, {"success": False, "error": {"code": "api_error"}}, ProviderUnavailableError),
    "parameters": (400, {"error": {"code": "bad_request", "message": "?"}}, RequestRefusedError),
    "not JSON": (400, None, RequestRefusedError),
    "no such endpoint": (404, "<html>", RequestRefusedError),
    "too large": (413, None, RequestRefusedError),
    "key": (401, {"error": {"code": "invalid_token"}}, ProviderRefusedError),
    "token mismatched": (400, {"error": {"code": "token_mismatched"}}, RequestRefusedError),
    "used up": (403, {"error": {"code": "used_up"}}, ProviderRefusedError),
    "used up, by its code": (200, {"error": {"code": "used_up"}}, ProviderRefusedError),
    "rate limit": (429, {"error": {"code": "too_many_requests"}}, ProviderBusyError),
    "HTTP 408": (408, None, ProviderUnavailableError),
    "server error": (500, {"error": {"code": "api_error"}}, ProviderUnavailableError),
    "server error with an id": (500, {"task_id": "a", "error": {"code": "api_error"}}, ProviderUnavailableError),
    "HTTP 504": (504, "<html>", ProviderUnavailableError),
    "redirected": (301, None, ProviderUnavailableError),
}

CASES = [
    *[
        pytest.param(id_, *case, id=f"{id_}: {name}")
        for id_ in ("flux-kontext", "apikley", "nanobanana", "kie-market")
        for name, case in KIE.items()
    ],
    *[pytest.param("acedata", *case, id=f"acedata: {name}") for name, case in ACEDATA.items()],
]


@pytest.mark.parametrize(("provider_id", "http_status", "body", "expected"), CASES)
def test_an_answer_is_the_expected_task_id_or_error(
    provider_id: str, http_status: int, body: Any, expected: type[ProviderError] | str
) -> None:
    provider = PROVIDERS[provider_id]
    if isinstance(expected, str):
        assert provider.parse_submission(http_status, body) == expected
    else:
        with pytest.raises(ProviderError) as caught:
            provider.parse_submission(http_status, body)
        assert type(caught.value) is expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 600) | st.text(max_size=8) | st.sampled_from(["task12345", "200"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "msg", "data", "taskId", "task_id", "error", "success", "message"]), inner
        )
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("provider_id", PROVIDERS)
@given(http_status=st.sampled_from([200, 200, 200, 302, 400, 401, 408, 429, 500]), body=JSON)
def test_any_answer_is_an_id_or_an_error(provider_id: str, http_status: int, body: Any) -> None:
    try:
        task_id = PROVIDERS[provider_id].parse_submission(http_status, body)
    except ProviderError:
        return
    assert http_status == 200
    assert re.fullmatch(TASK_ID_PATTERN, task_id)


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_an_endpoint_has_the_name_of_the_last_segment_of_its_path(provider_id: str) -> None:
    provider = PROVIDERS[provider_id]

    assert provider.submit_paths
    for name, path in provider.submit_paths.items():
        assert path.startswith("/")
        assert path.rpartition("/")[2] == name
    assert provider.callback_url_field.lower().replace("_", "") == "callbackurl"

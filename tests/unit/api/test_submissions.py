"""Checks of a submission before it is sent, and the part of the provider's response that callers receive."""

from typing import Any

import pytest

from catchlight.api.problems import APIError
from catchlight.api.request_models import Submission
from catchlight.api.submission_client import Reply
from catchlight.api.submissions import _checked_path, _depth, _fingerprint, _reply_for_caller
from catchlight.aws.secrets import Redactor
from catchlight.providers import PROVIDERS


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for level in range(levels):
        value = {"a": value} if level % 2 == 0 or level == levels - 1 else [value]
    assert isinstance(value, dict)
    return value


def submission(request: dict[str, Any] | None = None, **more: Any) -> Submission:
    return Submission(provider="nanobanana", request=request or {"prompt": "a"}, **more)


# ------------------------------------------------------------------------------------------------ checks before sending


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        (None, "/api/v1/nanobanana/generate"),
        ("generate", "/api/v1/nanobanana/generate"),
        ("generate-pro", "/api/v1/nanobanana/generate-pro"),
    ],
)
def test_a_request_goes_to_the_first_endpoint_by_default(endpoint: str | None, path: str) -> None:
    assert _checked_path(PROVIDERS["nanobanana"], submission(endpoint=endpoint)) == path


@pytest.mark.parametrize(
    ("request_", "endpoint", "errors"),
    [
        ({"a": 1}, "images", ["endpoint"]),
        ({"callBackUrl": "x"}, None, ["request.callBackUrl"]),
        ({"callback_url": "x"}, None, ["request.callback_url"]),
        ({"CALLBACK_URL": "x", "callbackUrl": "y"}, None, ["request.CALLBACK_URL", "request.callbackUrl"]),
        (nested(9), None, ["request"]),
        (nested(100_000), None, ["request"]),
        ({"a": float("inf")}, None, ["request"]),
        ({"a": "\ud800"}, None, ["request"]),
        ({"callBackUrl": "\ud800"}, "images", ["request.callBackUrl", "request", "endpoint"]),
    ],
    ids=[
        "endpoint",
        "kie.ai's",
        "Ace Data's",
        "both",
        "9 levels",
        "100,000 levels",
        "infinity",
        "lone surrogate",
        "all",
    ],
)
def test_the_error_names_each_invalid_field(request_: dict[str, Any], endpoint: str | None, errors: list[str]) -> None:
    with pytest.raises(APIError) as problem:
        _checked_path(PROVIDERS["nanobanana"], submission(request_, endpoint=endpoint))

    assert [error.at for error in problem.value.body.errors] == errors
    assert problem.value.problem.name == "invalid-request"


def test_the_error_for_an_unknown_endpoint_lists_the_valid_ones() -> None:
    with pytest.raises(APIError) as problem:
        _checked_path(PROVIDERS["acedata"], submission(endpoint="videos"))

    known = ", ".join(PROVIDERS["acedata"].submit_paths)
    assert [error.detail for error in problem.value.body.errors] == [f"acedata has no such endpoint; known: {known}"]


def test_a_request_may_be_as_deep_as_its_limit() -> None:
    assert _checked_path(PROVIDERS["nanobanana"], submission(nested(8)))


@pytest.mark.parametrize(
    ("value", "depth"),
    [(1, 0), ("[[]]", 0), ({}, 0), ([1], 1), ([1, {}], 1), ({"a": [1, {"b": 2}], "c": []}, 3), (nested(9), 9)],
)
def test_depth_counts_objects_and_lists_that_are_not_empty(value: Any, depth: int) -> None:
    assert _depth(value) == depth


def test_a_fingerprint_depends_on_provider_endpoint_and_request_only() -> None:
    one = _fingerprint(submission({"a": 1, "b": [1, 2]}))

    assert one == _fingerprint(submission({"b": [1, 2], "a": 1}))
    assert len(one) == 64
    others = [
        submission({"a": 1, "b": [2, 1]}),
        submission({"a": 1, "b": [1, 2]}, endpoint="generate"),
        Submission(provider="acedata", request={"a": 1, "b": [1, 2]}),
        submission({"a": "\ud800"}),
    ]
    assert len({one, *map(_fingerprint, others)}) == 5


# ------------------------------------------------------------------------------------------------ provider's response


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ('{"msg": "no"}', {"msg": "no"}),
        ("[" * 8 + "1" + "]" * 8, [[[[[[[[1]]]]]]]]),
        ("[" * 9 + "1" + "]" * 9, "[" * 9 + "1" + "]" * 9),
        ("null", "null"),
        ("", ""),
        ("<html>", "<html>"),
        ('"' + "x" * 3998 + '"', "x" * 3998),
        ('"' + "x" * 3999 + '"', '"' + "x" * 3999),
        ("x" * 4001, "x" * 4000),
        ('{"msg": "key s+3/cret"}', {"msg": "key [redacted]"}),
        (r'{"msg": "key s\u002B3\/cret, t0ken-t0ken"}', {"msg": "key [redacted], [redacted]"}),
        (r'{"msg": "\u0073+3/cret"}', {"msg": "[redacted]"}),
        ('{"msg": "S+3/cret"}', {"msg": "S+3/cret"}),
    ],
)
def test_callers_receive_the_providers_response_without_secrets(text: str, body: Any) -> None:
    shown = _reply_for_caller(Reply(422, text), Redactor(("s+3/cret", "t0ken-t0ken")))

    assert (shown.status, shown.body) == (422, body)

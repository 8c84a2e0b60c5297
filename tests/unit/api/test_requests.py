"""Requests to the tasks API: parameters at both sides of their ranges, and errors that name the invalid field."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from pydantic import BaseModel, ValidationError

from catchlight.api.problems import APIError
from catchlight.api.request_models import LinkQuery, PageQuery, Registration, Submission, TaskQuery
from catchlight.api.requests import (
    decode_body,
    invalid_request,
    malformed_body,
    read_idempotency_key,
    refuse_unknown_parameters,
)
from catchlight.errors import MalformedBodyError
from catchlight.models import TaskStatus


def read_query(model: type[BaseModel], parameters: dict[str, str]) -> Any:
    """Validates a query string as the resolver does."""
    refuse_unknown_parameters(model, urlencode(parameters))
    return validated(lambda: model.model_validate(parameters), ("query", "query"))


def read_body(content: bytes, model: type[BaseModel] = Registration) -> Any:
    """Decodes and validates a body as the resolver does."""
    try:
        decoded = decode_body(content.decode())
    except MalformedBodyError as exc:
        raise malformed_body(exc) from None
    return validated(lambda: model.model_validate(decoded), ("body",))


def validated(validate: Callable[[], Any], place: tuple[str, ...]) -> Any:
    try:
        return validate()
    except ValidationError as exc:
        raise invalid_request([{**error, "loc": (*place, *error["loc"])} for error in exc.errors()]) from None


def refused(call: Callable[[], object]) -> tuple[str, dict[str, str]]:
    """Returns the problem's name, and the detail of each error by the field that it names."""
    with pytest.raises(APIError) as problem:
        call()
    return problem.value.problem.name, {error.at: error.detail for error in problem.value.body.errors}


RANGES: list[tuple[Any, str, list[str], list[str]]] = [
    (LinkQuery, "linkSeconds", ["60", "3600"], ["59", "3601", "x", "60.5", ""]),
    (TaskQuery, "wait", ["0", "20"], ["-1", "21", "x", "1.5"]),
    (TaskQuery, "linkSeconds", ["60", "3600"], ["59", "3601"]),
    (PageQuery, "limit", ["1", "100"], ["0", "101", "x"]),
    (PageQuery, "cursor", ["x", "x" * 4096], ["", "x" * 4097]),
    (PageQuery, "status", list(TaskStatus), ["pending", "", "PROBE"]),
    (PageQuery, "provider", ["flux-kontext", "nanobanana", "acedata"], ["", "Acedata", "other"]),
    (
        PageQuery,
        "since",
        ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00+01:00"],
        ["2026-01-31T12:00:00", "2026-01-31", "7", "soon", ""],
    ),
]


@pytest.mark.parametrize(
    ("model", "name", "value"), [(model, name, value) for model, name, good, _ in RANGES for value in good]
)
def test_a_parameter_within_its_range_is_accepted(model: Any, name: str, value: str) -> None:
    assert name in read_query(model, {name: value}).model_dump(by_alias=True, exclude_unset=True)


@pytest.mark.parametrize(
    ("model", "name", "value"), [(model, name, value) for model, name, _, bad in RANGES for value in bad]
)
def test_the_error_names_a_parameter_outside_its_range(model: Any, name: str, value: str) -> None:
    problem, errors = refused(lambda: read_query(model, {name: value}))

    assert problem == "invalid-parameter"
    assert [*errors] == [name]


@pytest.mark.parametrize("model", [LinkQuery, TaskQuery, PageQuery])
def test_an_unknown_parameter_is_an_error(model: Any) -> None:
    assert refused(lambda: read_query(model, {"limits": "1"})) == ("invalid-parameter", {"limits": "is not known"})


def test_an_unknown_parameter_without_a_value_is_an_error() -> None:
    assert refused(lambda: refuse_unknown_parameters(PageQuery, "limits=&limit=1")) == (
        "invalid-parameter",
        {"limits": "is not known"},
    )


def test_a_repeated_parameter_is_an_error() -> None:
    assert refused(lambda: refuse_unknown_parameters(PageQuery, "limit=1&status=FAILED&limit=2")) == (
        "invalid-parameter",
        {"limit": "occurs more than once"},
    )


def test_parameters_that_are_not_given_have_defaults() -> None:
    assert read_query(PageQuery, {}).model_dump() == {
        "link_seconds": 900,
        "status": None,
        "provider": None,
        "since": None,
        "reason": None,
        "ref": None,
        "metadata": None,
        "limit": 50,
        "cursor": None,
    }
    assert read_query(TaskQuery, {}).model_dump() == {"link_seconds": 900, "wait": 0}


def test_a_time_is_converted_to_utc() -> None:
    since = read_query(PageQuery, {"since": "2026-01-31T13:30:00+01:00"}).since
    assert since == datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
    assert since.tzinfo is UTC


# ------------------------------------------------------------------------------------------------ bodies


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize("number", [1, 100])
def test_a_registration_has_1_to_100_tasks(number: int) -> None:
    ids = [f"t{index}" for index in range(number)]

    assert read_body(body(provider="acedata", taskIds=ids)) == Registration(provider="acedata", task_ids=tuple(ids))


def test_a_generation_request_is_read_unchanged() -> None:
    request = {"prompt": "a", "n": 2}

    read = read_body(body(provider="acedata", request=request, endpoint="images"), Submission)

    assert read == Submission(provider="acedata", request=request, endpoint="images")


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (body(provider="acedata", taskIds=[]), {"taskIds"}),
        (body(provider="acedata", taskIds=[f"t{index}" for index in range(101)]), {"taskIds"}),
        (body(provider="acedata", taskIds=["a/b", "t1", "x" * 129]), {"taskIds.0", "taskIds.2"}),
        (body(provider="other", taskIds=["t1"]), {"provider"}),
        (body(taskIds=["t1"]), {"provider"}),
        (body(provider="acedata", taskIds=["t1"], endpoint="images"), {"endpoint"}),
        (body(provider="acedata", taskIds=["t1"], request={"a": 1}), {"request"}),
        (body(provider="acedata"), {"taskIds"}),
        (b"[]", set()),
        (b'"taskIds"', set()),
    ],
)
def test_an_invalid_registration_is_refused_with_the_name_of_each_invalid_field(
    content: bytes, errors: set[str]
) -> None:
    problem, found = refused(lambda: read_body(content))

    assert problem == "invalid-request"
    assert found.keys() == errors


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        (body(provider="acedata", request={}), {"request"}),
        (body(provider="acedata", request="a lighthouse"), {"request"}),
        (body(provider="acedata", request={"a": 1}, **{"x" * 101: 1}), {"x" * 100}),
        (body(provider="acedata", request={"a": 1}, **{"x" * 100: 1}), {"x" * 100}),
        (body(provider="acedata", request={"a": 1}, taskIds=["t1"]), {"taskIds"}),
    ],
)
def test_an_invalid_submission_is_refused_with_the_name_of_each_invalid_field(content: bytes, errors: set[str]) -> None:
    problem, found = refused(lambda: read_body(content, Submission))

    assert problem == "invalid-request"
    assert found.keys() == errors


def test_the_error_for_a_submission_sent_as_a_registration_names_the_right_route() -> None:
    with pytest.raises(APIError) as problem:
        read_body(body(provider="acedata", request={"prompt": "a"}))

    assert "POST /submissions" in problem.value.body.advice


def test_at_most_ten_errors_are_listed() -> None:
    _, errors = refused(lambda: read_body(body(provider="acedata", taskIds=["/"] * 100)))

    assert [*errors] == [f"taskIds.{index}" for index in range(10)]


def test_the_detail_lists_all_errors_in_one_line() -> None:
    with pytest.raises(APIError) as problem:
        read_body(body(provider="acedata", taskIds=["/", "?"]))

    first, second = problem.value.body.errors
    assert str(problem.value) == f"taskIds.0: {first.detail}; taskIds.1: {second.detail}"


def test_the_length_of_a_body_is_limited() -> None:
    content = body(provider="acedata", request={"prompt": "a"})

    assert read_body(content.ljust(256 * 1024), Submission)
    assert refused(lambda: read_body(content.ljust(256 * 1024 + 1))) == ("body-too-large", {})
    assert refused(lambda: read_body(content[:-1])) == ("malformed-body", {})


# ------------------------------------------------------------------------------------------------ idempotency keys


@pytest.mark.parametrize("key", ["a", "A-Z_09", "x" * 128])
def test_a_key_has_the_form_of_a_task_id(key: str) -> None:
    assert read_idempotency_key(key) == key


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (None, "idempotency-key-missing"),
        ("", "invalid-parameter"),
        ("x" * 129, "invalid-parameter"),
        ("a b", "invalid-parameter"),
        ("a,b", "invalid-parameter"),
    ],
)
def test_a_missing_or_malformed_key_is_refused(key: str | None, problem: str) -> None:
    name, errors = refused(lambda: read_idempotency_key(key))

    assert name == problem
    assert [*errors] == ([] if key is None else ["Idempotency-Key"])

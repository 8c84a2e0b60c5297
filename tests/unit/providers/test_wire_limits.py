"""Values of providers at both sides of their limits, and what a report makes of a provider's verdict."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.errors import InvalidCallbackError, ProviderUnavailableError
from catchlight.models import Failure, FailureReason, GenerationRequest, ImageKind, Reporter, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight.providers.payloads import (
    Code,
    Integer,
    Message,
    PayloadModel,
    ProviderResult,
    Url,
    find_task_id,
    generation_request,
    integer_or_none,
    is_refusal,
    read,
    report,
    submitted_task_id,
    time_or_none,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
HALF = "\ud800"  # half a surrogate pair, which JSON can spell and no store takes


class Values(PayloadModel):
    """One field of each kind."""

    url: Url = None
    code: Code = None
    message: Message = ""
    number: Integer = 0
    inner: "Values | None" = None
    several: tuple[Url, ...] = ()


def values(**told: Any) -> Values:
    return read(Values, told, error=InvalidCallbackError)


def url_of(length: int) -> str:
    return "https://h.example/".ljust(length, "x")


@pytest.mark.parametrize(
    ("told", "url"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("null", None),
        (" NULL ", None),
        (" https://h.example/a ", "https://h.example/a"),
        ("HTTPS://h.example/a", "HTTPS://h.example/a"),
        ("http://h.example/a", "http://h.example/a"),
        (url_of(2048), url_of(2048)),
        (f" {url_of(2048)} ", url_of(2048)),
    ],
)
def test_a_url_is_read(told: Any, url: str | None) -> None:
    assert values(url=told).url == url


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        (7, "should be a URL"),
        (["https://h.example/a"], "should be a URL"),
        (url_of(2049), "should be a URL of at most 2048 characters"),
        ("ftp://h.example/a", "should be a URL that begins with https:// or http://"),
        ("h.example/a", "should be a URL that begins with https:// or http://"),
        ("https:/h.example", "should be a URL that begins with https:// or http://"),
        ("https://h.example/a\nb", "should be a URL of printable characters"),
        (f"https://h.example/{HALF}", "should be a URL of printable characters"),
    ],
)
def test_what_is_no_url_is_named_by_its_place(told: Any, problem: str) -> None:
    with pytest.raises(InvalidCallbackError) as refused:
        values(url=told)
    assert str(refused.value) == f"url: {problem}"


@pytest.mark.parametrize(
    ("told", "at", "problem"),
    [
        ({"number": "x"}, "", "number: should be an integer"),
        ({"number": "x"}, "data", "data.number: should be an integer"),
        ({"inner": {"number": True}}, "", "inner.number: should be an integer"),
        ({"inner": 7}, "", "inner: should be an object"),
        ({"several": 7}, "data", "data.several: should be a list"),
        ({"several": [None, 7]}, "", "several.1: should be a URL"),
        ([], "", "body: should be an object"),
        ([], "data", "data: should be an object"),
    ],
)
@pytest.mark.parametrize("error", [InvalidCallbackError, ProviderUnavailableError])
def test_a_problem_says_where_it_is(
    told: Any, at: str, problem: str, error: type[InvalidCallbackError] | type[ProviderUnavailableError]
) -> None:
    with pytest.raises(error) as refused:
        read(Values, told, error=error, at=at)
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        (500, "500"),
        (" 500 ", "500"),
        (True, None),
        (1.5, None),
        (" quota ", "quota"),
        ("x" * 64, "x" * 64),
        ("x" * 65, "x" * 64),
        (HALF, "?"),
    ],
)
def test_a_code_is_a_short_text(told: Any, code: str | None) -> None:
    assert values(code=told).code == code


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (None, ""),
        (7, ""),
        ("", ""),
        (" words ", " words "),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500),
        (HALF, "?"),
    ],
)
def test_a_message_is_cut_at_its_limit(told: Any, message: str) -> None:
    assert values(message=told).message == message


@pytest.mark.parametrize(
    ("value", "integer"),
    [
        (10**15 - 1, 10**15 - 1),
        (10**15, None),
        (1 - 10**15, 1 - 10**15),
        (-(10**15), None),
        ("9" * 15, 10**15 - 1),
        ("-" + "9" * 15, 1 - 10**15),
        ("9" * 16, None),
        ("0" * 16, None),
        ("--1", None),
        ("1\n", 1),
        ("1 1", None),
    ],
)
def test_an_integer_has_as_many_digits_as_milliseconds_have(value: Any, integer: int | None) -> None:
    assert integer_or_none(value) == integer


@pytest.mark.parametrize(
    ("value", "time"),
    [
        ("2020-01-01T00:00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2019-12-31T23:59:59Z", None),
        ("2020-01-01 08:00:00", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2020-01-01 07:59:59", None),
        (1_577_836_800, datetime(2020, 1, 1, tzinfo=UTC)),
        (1_577_836_799, None),
        # The last number that counts seconds, and the first that counts milliseconds.
        (100_000_000_000, datetime(5138, 11, 16, 9, 46, 40, tzinfo=UTC)),
        (100_000_000_001, None),
        (1_577_836_800_000, datetime(2020, 1, 1, tzinfo=UTC)),
        (99_999_999_999_000, datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
        (100_000_000_000_000, None),
        ("99999999999000", datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
        ("0" * 5 + "1577836800", datetime(2020, 1, 1, tzinfo=UTC)),
        ("0" * 6 + "1577836800", None),
    ],
)
def test_a_time_is_one_from_2020_on(value: Any, time: datetime | None) -> None:
    assert time_or_none(value) == time


# ------------------------------------------------------------------------------------------------ ids


@pytest.mark.parametrize(
    "body",
    [
        {"taskId": "t1"},
        {"task_id": "t1"},
        {"data": {"taskId": "t1"}},
        {"data": {"task_id": "t1"}},
        {"data": None, "taskId": "t1"},
        {"data": [], "taskId": "t1", "task_id": None},
        {"data": {"taskId": "t1", "task_id": "t1"}, "taskId": "t1", "task_id": "t1"},
    ],
)
def test_a_task_id_is_found_at_each_of_its_places(body: Any) -> None:
    assert find_task_id(body) == submitted_task_id("acedata", body) == "t1"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (None, "body: should be an object"),
        (["taskId"], "body: should be an object"),
        ({}, "task id is missing"),
        ({"data": {"taskId": None}}, "task id is missing"),
        ({"taskId": 7}, "task id is malformed"),
        ({"taskId": ""}, "task id is malformed"),
        ({"taskId": "x" * 129}, "task id is malformed"),
        ({"taskId": "t1", "data": {"taskId": "t/1"}}, "task id is malformed"),
        ({"taskId": "t1", "task_id": "t2"}, "task id is ambiguous"),
        ({"taskId": "t1", "data": {"task_id": "t2"}}, "task id is ambiguous"),
    ],
)
def test_a_body_without_one_task_id_is_refused(body: Any, problem: str) -> None:
    with pytest.raises(InvalidCallbackError, match=f"^{problem}"):
        find_task_id(body)
    with pytest.raises(ProviderUnavailableError, match=f"^acedata seems to have taken the request, but: {problem}"):
        submitted_task_id("acedata", body)


@pytest.mark.parametrize(
    ("code", "is_one"),
    [
        (None, False),
        (200, False),
        (399, False),
        (400, True),
        (407, True),
        (408, False),
        (409, True),
        (499, True),
        (500, False),
    ],
)
def test_a_refusal_says_for_certain_that_nothing_was_taken(code: int | None, is_one: bool) -> None:
    assert is_refusal(code) is is_one


# ------------------------------------------------------------------------------------------------ what was asked


@pytest.mark.parametrize(
    ("told", "request_"),
    [
        ({"prompt": "a", "model": "m", "size": "1x1", "seed": 7}, ("a", "m", "1x1", (7,))),
        ('{"prompt": "a"}', ("a", None, None, None)),
        (b'{"prompt": "a"}', ("a", None, None, None)),
        ({"image_size": "16:9"}, (None, None, "16:9", None)),
        ({"aspectRatio": "16:9"}, (None, None, "16:9", None)),
        ({"aspectRatio": "3", "image_size": "2", "size": "1"}, (None, None, "1", None)),
        ({"aspectRatio": "3", "image_size": "2", "size": ""}, (None, None, "2", None)),
        ({"seed": "7"}, (None, None, None, (7,))),
        ({"seed": 0}, (None, None, None, (0,))),
        ({"prompt": "x" * 8000}, ("x" * 8000, None, None, None)),
        ({"prompt": "x" * 8001}, ("x" * 8000, None, None, None)),
        ({"model": "x" * 65}, (None, "x" * 64, None, None)),
        ({"prompt": HALF, "model": 7, "size": [], "seed": True}, ("?", None, None, None)),
    ],
)
def test_what_was_asked_is_read_where_it_can_be(told: Any, request_: tuple[Any, ...]) -> None:
    prompt, model, size, seeds = request_
    assert generation_request(told) == GenerationRequest(prompt=prompt, model=model, size=size, seeds=seeds)


@pytest.mark.parametrize("told", [None, {}, [], 7, "", "no JSON", "[" * 100_000, "7", {"prompt": ""}, {"seed": None}])
def test_what_tells_nothing_of_a_request_is_none(told: Any) -> None:
    assert generation_request(told) is None


def test_seeds_are_those_of_the_images_if_they_tell() -> None:
    assert generation_request({"seed": 7}, seeds=(1, "2", None, "x")) == GenerationRequest(seeds=(1, 2))
    assert generation_request({"seed": 7}, seeds=(None,)) == GenerationRequest(seeds=(7,))
    assert generation_request(None, seeds=(1,)) == GenerationRequest(seeds=(1,))


# ------------------------------------------------------------------------------------------------ news


@pytest.mark.parametrize(
    ("completed_at", "ready_at"),
    [(None, NOW), (NOW - timedelta(minutes=3), NOW - timedelta(minutes=3)), (NOW + timedelta(hours=1), NOW)],
    ids=["not told", "earlier", "by a clock that runs ahead"],
)
def test_urls_live_from_the_moment_the_task_was_completed(completed_at: datetime | None, ready_at: datetime) -> None:
    verdict = ProviderResult(
        images=((ImageKind.ORIGIN, "https://h.example/o"), (ImageKind.RESULT, "https://h.example/r")),
        completed_at=completed_at,
        request=GenerationRequest(prompt="a"),
    )

    told = report(PROVIDERS["flux-kontext"], "t1", verdict, reported_by=Reporter.POLL, received_at=NOW)

    assert (told.provider, told.task_id, told.status) == ("flux-kontext", "t1", TaskStatus.SUCCEEDED)
    assert (told.reported_by, told.reported_at) == (Reporter.POLL, NOW)
    assert [(image.kind.value, image.url, image.expires_at - ready_at) for image in told.images] == [
        ("origin", "https://h.example/o", timedelta(minutes=10)),
        ("result", "https://h.example/r", timedelta(days=14)),
    ]
    assert told.request == GenerationRequest(prompt="a")
    assert told.failure is None


@pytest.mark.parametrize(
    ("verdict", "status"),
    [
        (ProviderResult(), TaskStatus.PENDING),
        (ProviderResult(failure=Failure(reason=FailureReason.INTERNAL)), TaskStatus.FAILED),
        (ProviderResult(images=((ImageKind.RESULT, "https://h.example/r"),)), TaskStatus.SUCCEEDED),
    ],
)
def test_a_verdict_is_a_status(verdict: ProviderResult, status: TaskStatus) -> None:
    told = report(PROVIDERS["acedata"], "t1", verdict, reported_by=Reporter.CALLBACK, received_at=NOW)

    assert (told.status, told.failure) == (status, verdict.failure)

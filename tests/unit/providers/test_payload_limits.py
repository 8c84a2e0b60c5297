"""Values of providers at both sides of their limits, and reports that are built from a provider's result."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.errors import ImageRejectedError, InvalidCallbackError, ProviderUnavailableError
from catchlight.images.url_policy import UrlPolicy
from catchlight.models import Failure, FailureReason, GenerationRequest, Image, ImageKind, Reporter, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight.providers.payloads import (
    Code,
    Integer,
    Message,
    PayloadModel,
    ProviderResult,
    UnusableUrl,
    Url,
    find_task_id,
    integer_or_none,
    is_refusal,
    read,
    report,
    submitted_task_id,
    time_or_none,
)
from catchlight.providers.records import generation_request

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
LONE_SURROGATE = "\ud800"  # JSON can represent it, and no AWS service accepts it


class Values(PayloadModel):
    """One field of each kind."""

    url: Url = None
    code: Code = None
    message: Message = ""
    number: Integer = 0
    inner: "Values | None" = None
    several: tuple[Url, ...] = ()


def values(**fields: Any) -> Values:
    return read(Values, fields, error=InvalidCallbackError)


def url_of(length: int) -> str:
    return "https://h.example/".ljust(length, "x")


@pytest.mark.parametrize(
    ("value", "url"),
    [
        (None, None),
        ("", None),
        ("  ", None),
        ("null", None),
        (" NULL ", None),
        (" https://h.example/a ", "https://h.example/a"),
        ("HTTPS://h.example/a", "HTTPS://h.example/a"),
        ("http://h.example/a", "http://h.example/a"),
        (url_of(8192), url_of(8192)),
        (f" {url_of(8192)} ", url_of(8192)),
        # These URLs are encoded as browsers do it.
        ("https://h.example/a b.png?c=d e", "https://h.example/a%20b.png?c=d%20e"),
        ("https://h.example/\u56fe\u00e4.png?\u00fc", "https://h.example/%E5%9B%BE%C3%A4.png?%C3%BC"),
        ("https://h.example/a\u202fPM\u00a0b.png", "https://h.example/a%E2%80%AFPM%C2%A0b.png"),
        ("https://h.example/\U0001f431.png", "https://h.example/%F0%9F%90%B1.png"),
        ('https://h.example/"<a>`{b}|^', "https://h.example/%22%3Ca%3E%60%7Bb%7D%7C%5E"),
        (
            "https://h.example/a%20b%zz%?c=%2F+&d=[1]'!~*();:@$,#e",
            "https://h.example/a%20b%zz%?c=%2F+&d=[1]'!~*();:@$,#e",
        ),
        # The URL policy rejects these.
        ("https://b\u00fccher.example/a", "https://b%C3%BCcher.example/a"),
        ("https://h.example\uff0f@127.0.0.1/", "https://h.example%EF%BC%8F@127.0.0.1/"),
        ("https://h .example/a", "https://h%20.example/a"),
        ("https://h.example\\@127.0.0.1/", "https://h.example\\@127.0.0.1/"),
    ],
)
def test_a_url_is_read(value: Any, url: str | None) -> None:
    read_url = values(url=value).url
    assert read_url == url
    assert not isinstance(read_url, UnusableUrl)


@pytest.mark.parametrize(
    ("value", "stored", "reason"),
    [
        (7, "not-text", "the URL is not https"),
        (True, "not-text", "the URL is not https"),
        (["https://h.example/a"], "not-text", "the URL is not https"),
        ({"url": "https://h.example/a"}, "not-text", "the URL is not https"),
        (url_of(8193), url_of(8193), "the URL is longer than 8,192 characters"),
        (url_of(99_999), url_of(8193), "the URL is longer than 8,192 characters"),
        ("https://h.example/\u56fe".ljust(8185, "x"), None, "the URL is longer than 8,192 characters"),
        ("ftp://h.example/a", "ftp%3A//h.example/a", "the URL is not https"),
        ("javascript:alert(1)", "javascript%3Aalert(1)", "the URL is not https"),
        ("java\nscript:alert(1)", "java\\script%3Aalert(1)", "characters that are not allowed in URLs"),
        ("data:text/html,<script>alert(1)</script>", None, "the URL is not https"),
        ("//h.example/a", "//h.example/a", "the URL is not https"),
        ("h.example/a", "h.example/a", "the URL is not https"),
        ("https:/h.example", "https%3A/h.example", "the URL is not https"),
        ("https://h.example/a\nb", "https://h.example/a\\b", "characters that are not allowed in URLs"),
        ("https://h.example/\x00", "https://h.example/\\", "characters that are not allowed in URLs"),
        ("https://h.example/\x85a", "https://h.example/\\a", "characters that are not allowed in URLs"),
        (f"https://h.example/{LONE_SURROGATE}", "https://h.example/\\", "characters that are not allowed in URLs"),
        ("\ud83d", "\\", "characters that are not allowed in URLs"),
    ],
)
def test_an_invalid_url_is_stored_as_one_that_the_url_policy_rejects(
    value: Any, stored: str | None, reason: str
) -> None:
    url = values(url=value).url
    assert isinstance(url, UnusableUrl)
    assert stored is None or url == stored
    assert url.isascii()
    assert Image(kind=ImageKind.RESULT, url=url, expires_at=NOW).url == url
    with pytest.raises(ImageRejectedError, match=reason):
        UrlPolicy().check_url(url, ["*"])


@given(st.none() | st.integers() | st.text(st.characters(exclude_categories=()), max_size=60))
def test_any_value_of_a_url_field_can_be_stored(value: Any) -> None:
    url = values(url=value).url
    if url is None:
        return
    assert url.isascii()
    assert url.isprintable()
    assert Image(kind=ImageKind.RESULT, url=url, expires_at=NOW).url == url
    if isinstance(url, UnusableUrl):
        with pytest.raises(ImageRejectedError):
            UrlPolicy().check_url(url, ["*"])


@pytest.mark.parametrize(
    ("value", "at", "problem"),
    [
        ({"number": "x"}, "", "number: should be an integer"),
        ({"number": "x"}, "data", "data.number: should be an integer"),
        ({"inner": {"number": True}}, "", "inner.number: should be an integer"),
        ({"inner": 7}, "", "inner: should be an object"),
        ({"several": 7}, "data", "data.several: should be a list"),
        ([], "", "body: should be an object"),
        ([], "data", "data: should be an object"),
    ],
)
@pytest.mark.parametrize("error", [InvalidCallbackError, ProviderUnavailableError])
def test_an_error_names_the_invalid_field(
    value: Any, at: str, problem: str, error: type[InvalidCallbackError] | type[ProviderUnavailableError]
) -> None:
    with pytest.raises(error) as refused:
        read(Values, value, error=error, at=at)
    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("value", "code"),
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
        (LONE_SURROGATE, "?"),
    ],
)
def test_a_code_is_a_short_text(value: Any, code: str | None) -> None:
    assert values(code=value).code == code


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, ""),
        (7, ""),
        ("", ""),
        (" words ", " words "),
        ("x" * 500, "x" * 500),
        ("x" * 501, "x" * 500),
        (LONE_SURROGATE, "?"),
    ],
)
def test_a_message_is_cut_at_its_limit(value: Any, message: str) -> None:
    assert values(message=value).message == message


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
def test_an_integer_has_at_most_15_digits(value: Any, integer: int | None) -> None:
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
def test_times_before_2020_are_ignored(value: Any, time: datetime | None) -> None:
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
    with pytest.raises(ProviderUnavailableError, match=f"^acedata seems to have accepted the request, but: {problem}"):
        submitted_task_id("acedata", body)


@pytest.mark.parametrize(
    ("code", "is_certain"),
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
def test_codes_of_refusals_that_are_certain(code: int | None, is_certain: bool) -> None:
    assert is_refusal(code) is is_certain


# ------------------------------------------------------------------------------------------------ generation requests


@pytest.mark.parametrize(
    ("value", "request_"),
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
        ({"prompt": LONE_SURROGATE, "model": 7, "size": [], "seed": True}, ("?", None, None, None)),
    ],
)
def test_the_readable_fields_of_a_request_are_read(value: Any, request_: tuple[Any, ...]) -> None:
    prompt, model, size, seeds = request_
    assert generation_request(value) == GenerationRequest(prompt=prompt, model=model, size=size, seeds=seeds)


@pytest.mark.parametrize("value", [None, {}, [], 7, "", "no JSON", "[" * 100_000, "7", {"prompt": ""}, {"seed": None}])
def test_values_without_a_request_give_none(value: Any) -> None:
    assert generation_request(value) is None


def test_seeds_are_those_of_the_images_if_they_have_seeds() -> None:
    assert generation_request({"seed": 7}, seeds=(1, "2", None, "x")) == GenerationRequest(seeds=(1, 2))
    assert generation_request({"seed": 7}, seeds=(None,)) == GenerationRequest(seeds=(7,))
    assert generation_request(None, seeds=(1,)) == GenerationRequest(seeds=(1,))


# ------------------------------------------------------------------------------------------------ reports


@pytest.mark.parametrize(
    ("completed_at", "ready_at"),
    [(None, NOW), (NOW - timedelta(minutes=3), NOW - timedelta(minutes=3)), (NOW + timedelta(hours=1), NOW)],
    ids=["unknown", "earlier", "in the future"],
)
def test_the_lifetime_of_urls_starts_when_the_task_was_completed(
    completed_at: datetime | None, ready_at: datetime
) -> None:
    result = ProviderResult(
        images=((ImageKind.ORIGIN, "https://h.example/o"), (ImageKind.RESULT, "https://h.example/r")),
        completed_at=completed_at,
        request=GenerationRequest(prompt="a"),
    )

    made = report(PROVIDERS["flux-kontext"], "t1", result, reported_by=Reporter.POLL, received_at=NOW)

    assert (made.provider, made.task_id, made.status) == ("flux-kontext", "t1", TaskStatus.SUCCEEDED)
    assert (made.reported_by, made.reported_at) == (Reporter.POLL, NOW)
    assert [(image.kind.value, image.url, image.expires_at - ready_at) for image in made.images] == [
        ("origin", "https://h.example/o", timedelta(minutes=10)),
        ("result", "https://h.example/r", timedelta(days=14)),
    ]
    assert made.request == GenerationRequest(prompt="a")
    assert made.failure is None


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (ProviderResult(), TaskStatus.PENDING),
        (ProviderResult(failure=Failure(reason=FailureReason.INTERNAL)), TaskStatus.FAILED),
        (ProviderResult(images=((ImageKind.RESULT, "https://h.example/r"),)), TaskStatus.SUCCEEDED),
    ],
)
def test_a_result_becomes_a_status(result: ProviderResult, status: TaskStatus) -> None:
    made = report(PROVIDERS["acedata"], "t1", result, reported_by=Reporter.CALLBACK, received_at=NOW)

    assert (made.status, made.failure) == (status, result.failure)

"""Every callback under events/ becomes the expected report, or is refused with the expected error."""

from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

import pytest

from catchlight.errors import InvalidCallbackError
from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    MAX_MESSAGE_LENGTH,
    MAX_URL_LENGTH,
    Failure,
    FailureReason,
    Reporter,
    TaskStatus,
)
from catchlight.providers import PROVIDERS
from catchlight.providers.payloads import MAX_CODE_LENGTH
from tests.unit.providers.cases import RECEIVED_AT, ExpectedReport, Refused, body_of, load
from tests.unit.providers.expected_callbacks import CALLBACKS


@pytest.mark.parametrize(("path", "expected"), CALLBACKS.items(), ids=CALLBACKS)
def test_a_callback_becomes_the_expected_report_or_error(path: str, expected: ExpectedReport | Refused) -> None:
    event = load(path)
    provider = PROVIDERS[event["pathParameters"]["provider"]]
    body = body_of(event)
    if isinstance(expected, Refused):
        with pytest.raises(InvalidCallbackError) as refusal:
            provider.parse_callback(body, received_at=RECEIVED_AT)
        assert str(refusal.value) == expected.message
    else:
        report = provider.parse_callback(body, received_at=RECEIVED_AT)
        # The generation request is tested in test_generation_requests.py.
        assert report.model_copy(update={"request": None, "provider_record": None}) == expected.report(
            provider.id, Reporter.CALLBACK
        )


def test_images_of_documented_and_recorded_successes_come_from_known_hosts() -> None:
    for path, expected in CALLBACKS.items():
        for image in expected.images if isinstance(expected, ExpectedReport) else ():
            host = urlsplit(image.url).hostname or ""
            known = PROVIDERS[path.split("/")[1]].image_hosts
            # example.com in the documents is no provider's host.
            assert host == "example.com" or any(fnmatchcase(host, pattern) for pattern in known), path


def _kie(**change: Any) -> dict[str, Any]:
    info = {"originImageUrl": None, "resultImageUrl": "https://example.com/result.jpg"}
    return {"code": 200, "msg": "", "data": {"taskId": "task12345", "info": info}} | change


def _acedata(*urls: Any) -> dict[str, Any]:
    return {"success": True, "task_id": "task12345", "data": [{"image_url": url} for url in urls]}


@pytest.mark.parametrize("provider_id", ["flux-kontext", "nanobanana"])
@pytest.mark.parametrize("code", [True, 200.0, "", "ok", "200.0", None, [200], {}, 10**20, "9" * 5000])
def test_a_code_is_an_integer(provider_id: str, code: Any) -> None:
    with pytest.raises(InvalidCallbackError, match=r"^code: should be an integer$"):
        PROVIDERS[provider_id].parse_callback(_kie(code=code), received_at=RECEIVED_AT)


@pytest.mark.parametrize("message", ["x" * 1000, "\ud800" * 1000, "ü" * 1000])
def test_a_message_is_cut_and_can_be_stored(message: str) -> None:
    report = PROVIDERS["flux-kontext"].parse_callback(_kie(code=501, msg=message), received_at=RECEIVED_AT)
    assert report.failure is not None
    assert len(report.failure.message) == MAX_MESSAGE_LENGTH
    assert report.failure.message.encode()


@pytest.mark.parametrize(
    ("code", "reason", "kept"),
    [
        ("NSFW_Content", FailureReason.CONTENT_POLICY, "NSFW_Content"),
        ("sensitive_word", FailureReason.CONTENT_POLICY, "sensitive_word"),
        ("moderation_blocked", FailureReason.CONTENT_POLICY, "moderation_blocked"),
        (400, FailureReason.GENERATION_FAILED, "400"),
        ("", FailureReason.GENERATION_FAILED, None),
        (True, FailureReason.GENERATION_FAILED, None),
        (["api_error"], FailureReason.GENERATION_FAILED, None),
        ("x" * 1000, FailureReason.GENERATION_FAILED, "x" * MAX_CODE_LENGTH),
    ],
)
def test_ace_datas_codes_give_the_reason(code: Any, reason: FailureReason, kept: str | None) -> None:
    body = {"success": False, "task_id": "task12345", "error": {"code": code, "message": "no"}}
    report = PROVIDERS["acedata"].parse_callback(body, received_at=RECEIVED_AT)
    assert report.failure == Failure(reason=reason, code=kept, message="no")


@pytest.mark.parametrize("message", [None, 5, True, ["text"], {"text": ""}])
def test_a_message_of_an_odd_type_does_not_hide_a_failure(message: Any) -> None:
    report = PROVIDERS["flux-kontext"].parse_callback(_kie(code=501, msg=message), received_at=RECEIVED_AT)
    assert report.failure is not None
    assert report.failure.message == ""


UNUSABLE_URLS = [
    "https://example.com/".ljust(MAX_URL_LENGTH + 1, "x"),
    "https://example.com/\ud800",
    "https://exam\tple.com/",
    "ftp://example.com/a.png",
    ["https://example.com/a.png"],
    5,
]


@pytest.mark.parametrize("url", UNUSABLE_URLS)
def test_a_success_needs_one_usable_url(url: Any) -> None:
    for provider_id, body, where in (
        ("acedata", _acedata(url), "body"),
        (
            "flux-kontext",
            _kie(data={"taskId": "task12345", "info": {"originImageUrl": url, "resultImageUrl": url}}),
            "body",
        ),
        (
            "nanobanana",
            _kie(data={"taskId": "task12345", "successFlag": 1, "response": {"resultImageUrl": url}}),
            "data",
        ),
    ):
        with pytest.raises(InvalidCallbackError) as refusal:
            PROVIDERS[provider_id].parse_callback(body, received_at=RECEIVED_AT)
        assert str(refusal.value) == f"{where}: success without a usable image URL"


@pytest.mark.parametrize("url", UNUSABLE_URLS)
def test_one_unusable_url_does_not_affect_the_others(url: Any) -> None:
    good = "https://example.com/good.png"
    for provider_id, body in (
        ("acedata", _acedata(good, url)),
        ("acedata", {"success": True, "task_id": "task12345", "data": [{"image_url": good}, url]}),
        ("flux-kontext", _kie(data={"taskId": "task12345", "info": {"originImageUrl": url, "resultImageUrl": good}})),
        ("flux-kontext", _kie(data={"taskId": "task12345", "info": {"originImageUrl": good, "resultImageUrl": url}})),
        (
            "nanobanana",
            _kie(
                data={
                    "taskId": "task12345",
                    "successFlag": 1,
                    "response": {"originImageUrl": url, "resultImageUrl": good},
                }
            ),
        ),
    ):
        report = PROVIDERS[provider_id].parse_callback(body, received_at=RECEIVED_AT)
        assert report.status is TaskStatus.SUCCEEDED
        assert len(report.images) == 2
        assert good in [image.url for image in report.images]


@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "HTTPS://EXAMPLE.COM/a.png", " https://example.com/a.png\n"]
)
def test_a_url_is_stored_without_surrounding_white_space_and_otherwise_unchanged(url: str) -> None:
    report = PROVIDERS["acedata"].parse_callback(_acedata(url), received_at=RECEIVED_AT)
    assert [image.url for image in report.images] == [url.strip()]


def test_a_url_of_the_maximum_length_is_stored() -> None:
    url = "https://example.com/".ljust(MAX_URL_LENGTH, "x")
    report = PROVIDERS["acedata"].parse_callback(_acedata(url), received_at=RECEIVED_AT)
    assert [image.url for image in report.images] == [url]


def test_the_number_of_images_is_limited() -> None:
    urls = [f"https://example.com/{i}.png" for i in range(MAX_IMAGES_PER_TASK + 1)]
    report = PROVIDERS["acedata"].parse_callback(_acedata(*urls[:-1]), received_at=RECEIVED_AT)
    assert [image.url for image in report.images] == urls[:-1]
    with pytest.raises(InvalidCallbackError, match=rf"^data: should be at most {MAX_IMAGES_PER_TASK} images$"):
        PROVIDERS["acedata"].parse_callback(_acedata(*urls), received_at=RECEIVED_AT)


@pytest.mark.parametrize("body", [None, True, 5, 0.5, "text", [], [{}]])
@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_a_body_is_an_object(provider_id: str, body: Any) -> None:
    with pytest.raises(InvalidCallbackError, match=r"^body: should be an object$"):
        PROVIDERS[provider_id].parse_callback(body, received_at=RECEIVED_AT)


@pytest.mark.parametrize("rest", [{"data": []}, {"data": "oops"}, {"data": {"info": "oops"}}, {"data": {"info": [1]}}])
def test_other_fields_of_a_failure_are_ignored(rest: dict[str, Any]) -> None:
    body = {"code": 501, "msg": "", "taskId": "task12345"} | rest
    report = PROVIDERS["flux-kontext"].parse_callback(body, received_at=RECEIVED_AT)
    assert report.status is TaskStatus.FAILED


@pytest.mark.parametrize("task_id", ["", "a b", "ä", "x" * 129, "a\n", "../a", 5, True, ["a"], {"a": 1}])
@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_a_malformed_task_id_is_refused(provider_id: str, task_id: Any) -> None:
    with pytest.raises(InvalidCallbackError, match=r"^task id is malformed"):
        PROVIDERS[provider_id].parse_callback({"code": 501, "task_id": task_id}, received_at=RECEIVED_AT)

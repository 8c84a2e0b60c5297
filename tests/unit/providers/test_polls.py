"""Every poll answer under events/ becomes the expected reports, or the expected error."""

import json
from typing import Any

import pytest

from catchlight.errors import (
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnavailableError,
    RequestRefusedError,
    UnreadableAnswerError,
)
from catchlight.models import MAX_IMAGES_PER_TASK, Reporter, TaskStatus
from catchlight.providers import PROVIDERS, PollRequest
from tests.unit.providers.cases import RECEIVED_AT, Poll, load
from tests.unit.providers.expected_polls import POLLS


@pytest.mark.parametrize(("path", "poll"), POLLS.items(), ids=POLLS)
def test_an_answer_becomes_the_expected_reports_or_error(path: str, poll: Poll) -> None:
    provider = PROVIDERS[path.split("/")[1]]
    request = provider.poll_request(poll.task_ids)
    if isinstance(poll.expected, list):
        reports = provider.parse_poll(request, poll.http_status, load(path), received_at=RECEIVED_AT)
        # The generation request is tested in test_generation_requests.py.
        assert [
            report.model_copy(update={"request": None, "provider_record": None, "unreadable": None})
            for report in reports
        ] == [expected.report(provider.id, Reporter.POLL) for expected in poll.expected]
        assert [report.unreadable is not None for report in reports] == [
            expected.is_unreadable for expected in poll.expected
        ]
    else:
        error, message = poll.expected
        with pytest.raises(ProviderError) as caught:
            provider.parse_poll(request, poll.http_status, load(path), received_at=RECEIVED_AT)
        assert (type(caught.value), str(caught.value)) == (error, message)


def test_a_request_for_record_info_has_one_task() -> None:
    for provider_id, path in (
        ("flux-kontext", "/api/v1/flux/kontext/record-info"),
        ("nanobanana", "/api/v1/nanobanana/record-info"),
    ):
        provider = PROVIDERS[provider_id]
        assert provider.poll_batch_size == 1
        assert provider.poll_request(["a"]) == PollRequest("GET", path, ("a",), params={"taskId": "a"})


def test_a_request_to_ace_data_has_one_task_or_many() -> None:
    provider = PROVIDERS["acedata"]
    assert provider.poll_batch_size == 50
    one = {"id": "a", "action": "retrieve"}
    assert provider.poll_request(["a"]) == PollRequest("POST", "/flux/tasks", ("a",), json=one)
    two = {"ids": ["a", "b"], "action": "retrieve_batch", "limit": 2}
    assert provider.poll_request(["a", "b"]) == PollRequest("POST", "/flux/tasks", ("a", "b"), json=two)


@pytest.mark.parametrize(
    ("http_status", "body", "error"),
    [
        # Without a body of the API, only the HTTP status counts.
        (401, None, ProviderRefusedError),
        (402, None, ProviderRefusedError),
        (403, "<html>", ProviderRefusedError),
        (429, None, ProviderBusyError),
        (500, None, ProviderUnavailableError),
        (502, "<html>", ProviderUnavailableError),
        (301, None, ProviderUnavailableError),
        (501, None, ProviderUnavailableError),
        (200, None, UnreadableAnswerError),
        (200, [], UnreadableAnswerError),
        (200, "ok", UnreadableAnswerError),
        # With such a body, its code counts.
        (500, {"code": 401}, ProviderRefusedError),
        (400, {"code": "429"}, ProviderBusyError),
        (501, {"code": 200, "data": {"successFlag": 0}}, ProviderUnavailableError),
        (200, {"code": 500, "data": {"successFlag": 0}}, ProviderUnavailableError),
        (200, {"code": 500, "data": {"successFlag": 1}}, ProviderUnavailableError),
        (200, {"code": 501, "data": {"taskId": "b"}}, UnreadableAnswerError),
        (200, {"code": True}, UnreadableAnswerError),
    ],
)
@pytest.mark.parametrize("provider_id", ["flux-kontext", "nanobanana"])
def test_a_failed_request_does_not_fail_the_task(
    provider_id: str, http_status: int, body: Any, error: type[ProviderError]
) -> None:
    provider = PROVIDERS[provider_id]
    with pytest.raises(ProviderError) as caught:
        provider.parse_poll(provider.poll_request(["a"]), http_status, body, received_at=RECEIVED_AT)
    assert type(caught.value) is error


@pytest.mark.parametrize(("http_status", "body"), [(404, None), (404, {"code": 404}), (422, {"msg": "recordInfo"})])
def test_not_found_is_not_final(http_status: int, body: Any) -> None:
    provider = PROVIDERS["flux-kontext"]
    (report,) = provider.parse_poll(provider.poll_request(["a"]), http_status, body, received_at=RECEIVED_AT)
    assert (report.task_id, report.status) == ("a", TaskStatus.PENDING)


@pytest.mark.parametrize(
    ("http_status", "body", "error"),
    [
        (200, None, ProviderUnavailableError),
        (200, [], ProviderUnavailableError),
        (200, {"detail": "?"}, UnreadableAnswerError),
        (200, {"error": {"code": "used_up"}}, ProviderRefusedError),
        (200, {"error": {"code": "too_many_requests"}}, ProviderBusyError),
        (200, {"error": "?"}, ProviderUnavailableError),
        (400, {"error": {"code": "bad_request"}}, RequestRefusedError),
        (400, {"error": {"code": "used_up"}}, ProviderRefusedError),
        (422, None, RequestRefusedError),
        (503, {"error": {"code": "token_mismatched"}}, RequestRefusedError),
        (401, {"success": "?", "error": 5}, ProviderRefusedError),
        (404, None, ProviderUnavailableError),
        (429, None, ProviderBusyError),
        (503, "<html>", ProviderUnavailableError),
    ],
)
def test_a_failed_request_to_ace_data_does_not_fail_the_task(
    http_status: int, body: Any, error: type[ProviderError]
) -> None:
    provider = PROVIDERS["acedata"]
    with pytest.raises(ProviderError) as caught:
        provider.parse_poll(provider.poll_request(["a"]), http_status, body, received_at=RECEIVED_AT)
    assert type(caught.value) is error


def test_invalid_members_of_a_batch_do_not_hide_the_others() -> None:
    provider = PROVIDERS["acedata"]
    good = {"id": "b", "response": {"success": True, "data": [{"image_url": "https://example.com/b.png"}]}}
    items: list[Any] = [
        None,
        5,
        [],
        {},
        {"id": ["a"]},
        {"id": "a", "response": {"success": 5}},
        {"task_id": "unknown"},
        good,
    ]
    reports = provider.parse_poll(provider.poll_request(["a", "b"]), 200, {"items": items}, received_at=RECEIVED_AT)
    assert [report.status for report in reports] == [TaskStatus.PENDING, TaskStatus.SUCCEEDED]


def test_a_record_may_carry_its_id_as_task_id_and_an_error_beside_its_response() -> None:
    provider = PROVIDERS["acedata"]
    body = {
        "task_id": "a",
        "error": "of an earlier try",
        "response": {"success": True, "data": [{"image_url": "https://example.com/a.png"}]},
    }
    (report,) = provider.parse_poll(provider.poll_request(["a"]), 200, body, received_at=RECEIVED_AT)
    assert report.status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("response", ["", "null", "gone", 5, [], {"resultImageUrl": 5}])
def test_the_response_field_of_a_failure_is_ignored(response: Any) -> None:
    provider = PROVIDERS["flux-kontext"]
    body = {"code": 200, "data": {"successFlag": 3, "response": response}}
    (report,) = provider.parse_poll(provider.poll_request(["a"]), 200, body, received_at=RECEIVED_AT)
    assert report.status is TaskStatus.FAILED


def test_a_poll_keeps_the_first_of_too_many_images() -> None:
    provider = PROVIDERS["acedata"]
    urls = [f"https://example.com/{i}.png" for i in range(MAX_IMAGES_PER_TASK + 1)]
    body = {"id": "a", "response": {"success": True, "data": [{"image_url": url} for url in urls]}}
    (report,) = provider.parse_poll(provider.poll_request(["a"]), 200, body, received_at=RECEIVED_AT)
    assert [image.url for image in report.images] == urls[:MAX_IMAGES_PER_TASK]


@pytest.mark.parametrize(
    "response",
    [
        '{"resultImageUrl":',
        '{"a":' * 2000,
        "[[",
        '{"resultImageUrl": "\ud800"}',
        5,
        None,
        [],
        {"resultImageUrl": "ftp://h.example/a"},
        {"resultImageUrl": "https://h.example/".ljust(9000, "x")},
    ],
)
def test_a_success_without_a_readable_url_is_a_failure_with_the_answer(response: Any) -> None:
    provider = PROVIDERS["flux-kontext"]
    record = {"successFlag": 1, "response": response}
    body = {"code": 200, "msg": "success", "data": record}
    (report,) = provider.parse_poll(provider.poll_request(["a"]), 200, body, received_at=RECEIVED_AT)
    assert (report.status, report.images) == (TaskStatus.FAILED, ())
    assert report.failure is not None
    assert report.failure.message.startswith("the service reports a success, but no image URL")
    # It has the format of a callback, so that a later version can replay it.
    assert report.unreadable is not None
    kept = json.loads(report.unreadable)
    assert kept == {**body, "data": {**record, "taskId": "a"}}
    kept["data"]["response"] = "https://example.com/a.png"
    assert provider.parse_callback(kept, received_at=RECEIVED_AT).status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ({"response": {"success": True, "data": [{"image_url": 5}]}}, TaskStatus.FAILED),
        ({"response": {"success": True, "data": {"images": []}}}, TaskStatus.FAILED),
        ({"response": {"success": True, "data": []}, "finished_at": 1736391073.51}, TaskStatus.FAILED),
        ({"response": {"success": True}, "finished_at": 1736391073.51}, TaskStatus.FAILED),
        ({"response": {"success": True, "data": []}}, TaskStatus.PENDING),
        ({"response": {"success": True}}, TaskStatus.PENDING),
    ],
)
def test_ace_datas_finished_success_without_a_readable_url_is_a_failure(
    record: dict[str, Any], status: TaskStatus
) -> None:
    provider = PROVIDERS["acedata"]
    for body in ({"id": "a", **record}, {"items": [{"id": "a", **record}]}):
        (report,) = provider.parse_poll(provider.poll_request(["a"]), 200, body, received_at=RECEIVED_AT)
        assert (report.status, report.unreadable is not None) == (status, status is TaskStatus.FAILED)
        if report.unreadable:
            kept = json.loads(report.unreadable)
            kept["data"] = [{"image_url": "https://example.com/a.png"}]
            assert provider.parse_callback(kept, received_at=RECEIVED_AT).task_id == "a"


@pytest.mark.parametrize(
    ("http_status", "code", "flag", "status"),
    [
        (200, 501, 0, TaskStatus.FAILED),
        (200, "501", None, TaskStatus.FAILED),
        (501, 501, None, TaskStatus.FAILED),
        (200, 501, 1, TaskStatus.SUCCEEDED),
        (200, 422, 3, TaskStatus.FAILED),
        (500, 200, 3, TaskStatus.FAILED),
        (200, 404, 0, TaskStatus.PENDING),
    ],
)
def test_the_record_takes_precedence_over_its_envelope(
    http_status: int, code: Any, flag: int | None, status: TaskStatus
) -> None:
    provider = PROVIDERS["flux-kontext"]
    record = {"successFlag": flag, "response": "https://example.com/a.png"} if flag is not None else None
    body = {"code": code, "msg": "a message", "data": record}
    (report,) = provider.parse_poll(provider.poll_request(["a"]), http_status, body, received_at=RECEIVED_AT)
    assert report.status == status
    assert (report.failure is not None) == (status is TaskStatus.FAILED)
    assert report.failure is None or report.failure.message == ("a message" if code != 200 else "")


def test_ace_datas_record_takes_precedence_over_the_http_status() -> None:
    provider = PROVIDERS["acedata"]
    body = {"items": [{"id": "a", "response": {"success": False, "error": {"code": "api_error"}}}]}
    (report,) = provider.parse_poll(provider.poll_request(["a"]), 500, body, received_at=RECEIVED_AT)
    assert report.status is TaskStatus.FAILED


@pytest.mark.parametrize(
    ("count", "remark"),
    [(2, "the answer's count is 2, and it has 1 items"), (1, ""), (None, ""), ("many", "")],
)
def test_a_count_that_differs_from_the_number_of_items_gives_a_remark(count: Any, remark: str) -> None:
    provider = PROVIDERS["acedata"]
    body = {"items": [{"id": "a"}], "count": count}
    reports = provider.parse_poll(provider.poll_request(["a", "b"]), 200, body, received_at=RECEIVED_AT)
    assert [report.remark for report in reports] == [remark, remark]


def test_the_providers_message_in_an_error_is_short_and_printable() -> None:
    provider = PROVIDERS["flux-kontext"]
    body = {"code": 500, "msg": "\x1b[31mno\n\ud800" + "x" * 500}
    with pytest.raises(ProviderError) as caught:
        provider.parse_poll(provider.poll_request(["a"]), 200, body, received_at=RECEIVED_AT)
    words = " [31mno ?" + "x" * 191
    assert str(caught.value) == f'flux-kontext answered 500: the request failed, and says "{words}"'

"""Task events: their contract, id and size, and the changes that have no event."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import jsonschema
import pytest
from boto3.dynamodb.types import TypeSerializer
from hypothesis import given, settings
from hypothesis import strategies as st

from catchlight.aws.batches import MAX_EVENTS_PER_CALL
from catchlight.errors import TaskEventError
from catchlight.events import DETAIL_TYPES, EVENT_IDS, MAX_DETAIL_BYTES, MAX_REASON_BYTES, TaskEvent, cut, is_published
from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    MAX_MESSAGE_LENGTH,
    MAX_RECORD_TEXT_LENGTH,
    FailureReason,
    ImageKind,
    ImageState,
    Reporter,
    TaskStatus,
)
from functions.publish_events import app
from scripts import write_task_event_schema
from tests.unit.providers.cases import EVENTS, load
from tests.unit.test_events import TASK_EVENTS

SCHEMA = json.loads(write_task_event_schema.DOCUMENT.read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
PAGE = (EVENTS.parent / "docs" / "events.md").read_text()
WRITTEN_AT = datetime(2026, 1, 6, 0, 17, 8, tzinfo=UTC)
CHANGED_AT = "2026-01-06T00:17:07.700Z"
# The longest values: a bucket's name, a key, 25 MiB, 64 megapixels in one row.
LARGEST_IMAGE = {
    "bucket": "b" * 63,
    "key": f"images/flux-kontext/{'x' * 128}/result-31.webp",
    "bytes": 25 * 1024 * 1024,
    "width": 64_000_000,
    "height": 64_000_000,
}
LARGEST_TASK = {
    "metadata": {f"name-{number}": "x" * (243 + (number > 0)) for number in range(8)},
    "ref": "x" * 128,
    "providerRecord": dict.fromkeys(["createdAt", "completedAt", "traceId"], "\x01" * MAX_RECORD_TEXT_LENGTH),
    "task": f"flux-kontext#{'x' * 128}",
    **dict.fromkeys(["registeredAt", "reportedAt", "confirmedAt", "archivedAt"], CHANGED_AT),
}
# A character takes at most six bytes of JSON.
LONG_TEXT = "\x01" * 10_000

_serialize = TypeSerializer().serialize


def an_item(**attributes: Any) -> dict[str, Any]:
    """Returns an archived task's item in the stream's format, with these attributes replaced."""
    plain = {
        "task": "flux-kontext#task12345",
        "provider": "flux-kontext",
        "taskId": "task12345",
        "status": "ARCHIVED",
        "rank": 50,
        "updatedAt": CHANGED_AT,
        "reportedBy": "callback",
        "images": [an_image()],
        **attributes,
    }
    return {name: _serialize(value) for name, value in plain.items() if value is not None}


def an_image(**attributes: Any) -> dict[str, Any]:
    """Returns an archived image in the format of items, with these attributes replaced, or left out if None."""
    plain = {
        "kind": "result",
        "url": "https://tempfile.aiquickdraw.com/r/task12345.jpg?sig=x",
        "expiresAt": "2026-01-20T00:17:05.120Z",
        "state": "ARCHIVED",
        "bucket": "catchlight-images",
        "key": "images/flux-kontext/task12345/result-0.jpg",
        "bytes": 388112,
        "sha256": "2e" * 32,
        "contentType": "image/jpeg",
        "width": 1392,
        "height": 752,
        **attributes,
    }
    return {name: value for name, value in plain.items() if value is not None}


def a_missing_image(**attributes: Any) -> dict[str, Any]:
    """Returns an image that could not be downloaded, in the format of items."""
    url = "https://tempfile.aiquickdraw.com/r/task12345.jpg?sig=x"
    plain = {"kind": "result", "url": url, "expiresAt": "2026-01-20T00:17:05.120Z", "state": "REJECTED"}
    return {**plain, "reason": "not an image", **attributes}


def detail_of(item: dict[str, Any]) -> dict[str, Any]:
    detail: dict[str, Any] = json.loads(TaskEvent.of(item, written_at=WRITTEN_AT).detail())
    return detail


def size_of(item: dict[str, Any]) -> int:
    return len(TaskEvent.of(item, written_at=WRITTEN_AT).detail().encode())


def test_an_event_has_the_providers_times_and_trace_id_without_the_request() -> None:
    recorded = {"createdAt": CHANGED_AT, "traceId": "trace"}
    event = detail_of(an_item(providerRecord=recorded | {"timings": "[1]", "parameters": '{"prompt": "a tree"}'}))
    assert event["providerRecord"] == recorded
    assert "providerRecord" not in detail_of(an_item(providerRecord="my own"))


# ------------------------------------------------------------------------------------------------ the contract


def test_the_schema_is_that_of_the_models() -> None:
    assert write_task_event_schema.DOCUMENT.read_text() == write_task_event_schema.text()


def test_the_schema_is_a_valid_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", TASK_EVENTS)
def test_an_example_matches_the_schema_and_has_no_other_fields(path: str) -> None:
    detail = load(path)["detail"]

    VALIDATOR.validate(detail)
    assert json.loads(TaskEvent.model_validate(detail).detail()) == detail
    assert detail.keys() <= SCHEMA["properties"].keys()


@pytest.mark.parametrize("path", TASK_EVENTS)
def test_an_example_has_the_envelope_of_eventbridge(path: str) -> None:
    event = load(path)

    assert list(event) == [
        *("version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail"),
    ]
    assert event["source"] == "catchlight"
    assert event["detail-type"] == DETAIL_TYPES[event["detail"]["status"]]
    assert event["time"] == event["detail"]["changedAt"][: len("2026-01-06T00:17:07")] + "Z"


def test_the_examples_are_the_events_of_the_example_stream() -> None:
    entries, unusable = app.read_entries(load("dynamodb_stream_ends.json")["Records"])

    assert unusable is None
    events: list[Any] = [entry.event for entry in entries]
    assert [(entry["Source"], entry["DetailType"], json.loads(entry["Detail"])) for entry in events] == [
        (event["source"], event["detail-type"], event["detail"]) for event in map(load, TASK_EVENTS)
    ]


def test_there_is_an_example_of_each_final_status() -> None:
    assert {load(path)["detail"]["status"] for path in TASK_EVENTS} == set(DETAIL_TYPES)


@pytest.mark.parametrize(
    "change",
    [
        {"eventId": None},
        {"eventId": "1"},
        {"images": None},
        {"status": "SUCCEEDED"},
        {"changedAt": "yesterday"},
        {"failure": {"message": "without a reason"}},
        {"images": [{"kind": "result", "index": 0, "state": "ARCHIVED"}]},
        {"images": [{"kind": "result", "index": 0, "state": "SUCCEEDED"}]},
        {"images": [{"kind": "result", "state": "EXPIRED", "reason": "which one?"}]},
    ],
)
def test_the_schema_refuses_invalid_events(change: dict[str, Any]) -> None:
    detail = load("task_events/archived.json")["detail"]
    VALIDATOR.validate(detail)

    assert not VALIDATOR.is_valid({**detail, **change})


def test_fields_of_a_later_version_are_accepted() -> None:
    VALIDATOR.validate({**load("task_events/archived.json")["detail"], "mood": "cheerful"})


def test_the_pages_table_has_every_final_status() -> None:
    rows = [line.split("|")[1:3] for line in PAGE.splitlines() if line.startswith("| `Task ")]

    assert {status.strip(" `"): name.strip(" `") for name, status in rows} == {
        status.value: name for status, name in DETAIL_TYPES.items()
    }


# ------------------------------------------------------------------------------------------------ changes with an event


@pytest.mark.parametrize("status", TaskStatus)
def test_a_final_status_has_an_event_when_it_is_reached_and_not_while_it_stays(status: TaskStatus) -> None:
    is_final = status in {"FAILED", "TIMED_OUT", "UNCONFIRMED", "INCOMPLETE", "ARCHIVED"}
    others = [None, *(other for other in TaskStatus if other is not status)]

    # No task changes between these two statuses, so they share a pattern of the stream's filter.
    unrelated = {"TIMED_OUT": "UNCONFIRMED", "UNCONFIRMED": "TIMED_OUT"}.get(status, "")
    assert [is_published(status, other) for other in others] == [is_final and other != unrelated for other in others]
    assert not is_published(status, status)


def test_deleted_items_and_unknown_statuses_have_no_event() -> None:
    assert not is_published(None, "ARCHIVED")
    assert not is_published("NEW", None)


# ------------------------------------------------------------------------------------------------ event ids


def test_a_repeated_event_has_the_same_id() -> None:
    first = detail_of(an_item())

    assert first == detail_of(an_item())
    # A literal, because all versions must give the same change the same id.
    assert first["eventId"] == "1582683b-a2a6-553c-b5a5-85c8a6fe5ac6"
    assert first["eventId"] == str(uuid.uuid5(EVENT_IDS, f"flux-kontext#task12345 ARCHIVED {CHANGED_AT}"))


def test_other_attributes_of_the_item_do_not_change_the_id() -> None:
    assert detail_of(an_item())["eventId"] == detail_of(an_item(deliveries=4, rank=0))["eventId"]


@pytest.mark.parametrize(
    "change",
    [
        {"task": "flux-kontext#task12346"},
        {"status": "INCOMPLETE"},
        {"updatedAt": "2026-01-06T00:17:07.701Z"},
    ],
)
def test_another_change_has_another_id(change: dict[str, Any]) -> None:
    assert detail_of(an_item())["eventId"] != detail_of(an_item(**change))["eventId"]


@pytest.mark.parametrize("updated_at", [None, "yesterday", ""])
def test_without_a_valid_updated_at_the_time_of_the_write_is_used(updated_at: str | None) -> None:
    assert detail_of(an_item(updatedAt=updated_at))["changedAt"] == "2026-01-06T00:17:08.000Z"


@pytest.mark.parametrize("updated_at", ["2026-01-06T00:17:07.7", "2026-01-06T01:17:07.700+01:00"])
def test_times_are_in_utc(updated_at: str) -> None:
    detail = detail_of(an_item(updatedAt=updated_at))

    assert detail["changedAt"] == CHANGED_AT
    assert detail["eventId"] == detail_of(an_item())["eventId"]


# ------------------------------------------------------------------------------------------------ content


def test_images_are_counted_within_their_kind() -> None:
    images = [an_image(kind=kind) for kind in ("origin", "result", "result", "origin", "result")]

    listed = detail_of(an_item(images=images))["images"]

    assert [(image["kind"], image["index"]) for image in listed] == [
        *[("origin", 0), ("result", 0), ("result", 1), ("origin", 1), ("result", 2)]
    ]


def test_an_event_has_no_url_of_a_provider() -> None:
    images = [an_image(), a_missing_image()]

    assert "http" not in json.dumps(detail_of(an_item(status="INCOMPLETE", images=images)))


def test_outputs_that_are_not_images_are_listed_without_their_urls() -> None:
    video = {"media": "video", "url": "https://h.example/a.mp4?signature=secret"}
    event = TaskEvent.of(
        an_item(status="INCOMPLETE", images=[], skipped=[video, {"media": "text"}]), written_at=WRITTEN_AT
    )

    detail = json.loads(event.detail())
    VALIDATOR.validate(detail)
    assert (detail["images"], detail["skipped"]) == ([], ["video", "text"])
    assert "skipped" not in json.loads(TaskEvent.of(an_item(), written_at=WRITTEN_AT).detail())


@pytest.mark.parametrize("status", ["FAILED", "TIMED_OUT"])
def test_a_failed_task_has_no_images(status: str) -> None:
    detail = detail_of(an_item(status=status, failure={"reason": "OTHER", "code": "505", "message": "no"}))

    assert detail["images"] == []
    assert detail["failure"] == {"reason": "OTHER", "code": "505", "message": "no"}


def test_an_unconfirmed_task_has_its_images_in_quarantine() -> None:
    kept = {"key": "quarantine/flux-kontext/task12345/origin-0", "bytes": 7, "sha256": "0" * 64}
    pending = {"state": "PENDING", "key": None, "bucket": None}
    images = [an_image(kind="origin", quarantine=kept, **pending), an_image(**pending), an_image()]
    failure = {"reason": "UNCONFIRMED", "message": "no answer"}

    detail = detail_of(an_item(status="UNCONFIRMED", failure=failure, images=images))

    VALIDATOR.validate(detail)
    assert detail["images"] == [
        {"kind": "origin", "index": 0, "state": "PENDING", "quarantine": kept},
        {"kind": "result", "index": 0, "state": "PENDING"},
    ]


def test_an_archived_task_may_lack_its_original() -> None:
    images = [a_missing_image(kind="origin", state="EXPIRED", reason="it had expired"), an_image()]

    assert [image["state"] for image in detail_of(an_item(images=images))["images"]] == ["EXPIRED", "ARCHIVED"]


def test_an_archived_task_has_no_failure() -> None:
    assert "failure" not in detail_of(an_item(failure={"reason": "OTHER"}))


@pytest.mark.parametrize(
    ("item", "names"),
    [
        (an_item(images=[an_image(), a_missing_image(kind="result")]), "a result image is not"),
        (an_item(images=[an_image(state="PENDING")]), "an image is PENDING"),
        (an_item(status="INCOMPLETE", images=[an_image(state="PENDING")]), "an image is PENDING"),
        (an_item(images=[an_image(key=None)]), "images.0.*key"),
        (an_item(images=[an_image(bucket=None)]), "images.0.*bucket"),
        (an_item(images=[an_image(url=None)]), "images.0.*url"),
        (an_item(images="none"), "images"),
        (an_item(status="SUCCEEDED"), "status"),
        (an_item(status="NEW"), "status"),
        (an_item(reportedBy="a friend"), "reportedBy"),
        (an_item(task="task12345"), "not a task key"),
    ],
)
def test_a_malformed_item_has_no_event(item: dict[str, Any], names: str) -> None:
    with pytest.raises(TaskEventError, match=names):
        TaskEvent.of(item, written_at=WRITTEN_AT)


def test_an_error_does_not_contain_values_of_the_item() -> None:
    with pytest.raises(TaskEventError) as caught:
        TaskEvent.of(an_item(images=[an_image(state="https://secret.example")]), written_at=WRITTEN_AT)

    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ size


def test_the_page_has_the_sizes_of_the_largest_events() -> None:
    archived = an_item(**LARGEST_TASK, images=[an_image(**LARGEST_IMAGE)] * MAX_IMAGES_PER_TASK)
    kept = {"key": f"quarantine/flux-kontext/{'x' * 128}/result-31", "bytes": 25 * 1024 * 1024, "sha256": "0" * 64}
    missing = an_item(
        **LARGEST_TASK,
        status="INCOMPLETE",
        images=[a_missing_image(reason=LONG_TEXT, quarantine=kept)] * MAX_IMAGES_PER_TASK,
    )
    failure = {"reason": "GENERATION_FAILED", "code": "\x01" * 64, "message": LONG_TEXT[:MAX_MESSAGE_LENGTH]}
    failed = an_item(**LARGEST_TASK, status="FAILED", failure=failure)

    assert size_of(failed) < size_of(archived) < size_of(missing) < MAX_DETAIL_BYTES
    assert f"{size_of(archived):,} bytes." in PAGE
    assert f"{size_of(missing):,} bytes:" in PAGE
    assert f"{MAX_DETAIL_BYTES:,} bytes" in PAGE
    assert f"{MAX_REASON_BYTES} bytes" in PAGE


def test_ten_of_the_largest_events_fit_into_one_call() -> None:
    envelope = 14 + len("catchlight") + max(map(len, DETAIL_TYPES.values()))  # as EventBridge counts

    assert MAX_EVENTS_PER_CALL * (MAX_DETAIL_BYTES + envelope) < 256 * 1024


def test_an_event_that_is_too_large_is_an_error() -> None:
    event = TaskEvent.of(an_item(images=[an_image(key="k" * MAX_DETAIL_BYTES)]), written_at=WRITTEN_AT)

    with pytest.raises(TaskEventError, match="bytes"):
        event.detail()


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("", ""),
        ("x" * 20, "x" * 20),
        ("x" * 21, "x" * 17 + "…"),
        ('"' * 10, '"' * 10),
        ('"' * 11, '"' * 8 + "…"),
        ("я" * 10, "я" * 10),
        ("я" * 11, "я" * 8 + "…"),
        ("🖼" * 6, "🖼" * 4 + "…"),
        ("\x01" * 4, "\x01" * 2 + "…"),
    ],
)
def test_a_long_text_is_cut_between_characters(text: str, stored: str) -> None:
    assert cut(text, 20) == stored


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_MESSAGE_LENGTH)
IMAGES = st.one_of(
    st.builds(an_image, kind=st.sampled_from([*map(str, ImageKind)]), reason=st.none() | TEXTS),
    st.builds(
        a_missing_image,
        kind=st.sampled_from([*map(str, ImageKind)]),
        state=st.sampled_from([str(ImageState.EXPIRED), str(ImageState.REJECTED)]),
        reason=TEXTS | st.just(LONG_TEXT),
    ),
)
TASKS = st.fixed_dictionaries(
    {
        "task": st.from_regex(r"\A(flux-kontext|nanobanana|acedata)#[A-Za-z0-9_-]{1,128}\Z"),
        "status": st.sampled_from([str(status) for status in DETAIL_TYPES if status is not TaskStatus.ARCHIVED]),
        "reportedBy": st.none() | st.sampled_from([*map(str, Reporter)]),
        "failure": st.none()
        | st.fixed_dictionaries(
            {"reason": st.sampled_from([*map(str, FailureReason)]), "message": TEXTS},
            optional={"code": st.text(st.characters(exclude_categories=["Cs"]), max_size=64)},
        ),
        "images": st.lists(IMAGES, max_size=MAX_IMAGES_PER_TASK),
    }
)


@settings(max_examples=60, deadline=None)
@given(TASKS)
def test_the_event_of_any_task_matches_the_contract(task: dict[str, Any]) -> None:
    item = an_item(**task)

    assert size_of(item) < MAX_DETAIL_BYTES
    VALIDATOR.validate(detail_of(item))

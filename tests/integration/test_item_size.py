"""The largest item that reports can create stays below DynamoDB's limit, beyond which no report could be written."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from catchlight.models import (
    MAX_IMAGES_PER_TASK,
    MAX_METADATA_VALUE_LENGTH,
    MAX_PARAMETERS_BYTES,
    MAX_PROMPT_LENGTH,
    MAX_TIMINGS_BYTES,
    MAX_URL_BYTES_PER_TASK,
    MAX_URL_LENGTH,
    ImageState,
    Quarantined,
)
from catchlight.providers import PROVIDERS
from catchlight.tasks.registration import Registry
from catchlight.tasks.reports import MAX_CONFLICTS
from functions.receive_callback.app import MAX_BODY_BYTES
from tests.benchmarks.bill_units import item_size
from tests.integration.conftest import TABLE_NAME, Store

LIMIT = 400 * 1024
NOW = datetime(2026, 1, 6, 0, 17, 5, tzinfo=UTC)
MARKET = PROVIDERS["kie-market"]
TASK_ID = "t" * 128
TASK = f"kie-market#{TASK_ID}"
WIDE = "\U0001f980"  # four bytes in UTF-8


def a_url(number: int, extension: str, length: int = MAX_URL_LENGTH) -> str:
    start = f"https://{number}.example/"
    return start + "u" * (length - len(start) - len(extension)) + extension


def a_record(urls: list[str]) -> dict[str, Any]:
    return {
        "taskId": TASK_ID,
        "state": "success",
        "resultJson": json.dumps({"resultUrls": urls}),
        "createTime": "c" * 100,
        "completeTime": "c" * 100,
        "costTime": "t" * MAX_TIMINGS_BYTES,
        "param": json.dumps({"input": {"prompt": WIDE * MAX_PROMPT_LENGTH, "size": WIDE * 64}, "model": WIDE * 64}),
    }


def size(store: Store) -> int:
    return item_size(store.client.get_item(TableName=TABLE_NAME, Key={"task": {"S": TASK}})["Item"])


def forge(store: Store, urls: list[str]) -> None:
    body = {"code": 200, "data": {"taskId": TASK_ID, "state": "success", "resultJson": json.dumps(urls)}}
    store.reports.record(MARKET.parse_callback(body, received_at=NOW))


def test_the_largest_item_stays_below_the_limit(store: Store) -> None:
    metadata = {f"{number:064}": WIDE * (MAX_METADATA_VALUE_LENGTH // 4) for number in range(6)}
    Registry(store.table).register("kie-market", [TASK_ID], now=NOW, metadata=metadata, ref="r" * 128)
    urls = [a_url(number, end) for end in (".png", ".mp4") for number in range(MAX_IMAGES_PER_TASK + 1)]
    (report,) = MARKET.parse_poll(
        MARKET.poll_request([TASK_ID]), 200, {"code": 200, "data": a_record(urls)}, received_at=NOW
    )
    store.reports.record(report)
    for number in range(MAX_CONFLICTS + 2):
        forge(store, [a_url(100 + number, f"{image}.png", 8000) for image in range(8)])
    task = store.table.get(TASK)
    assert task is not None
    settled = {
        index: image.model_copy(
            update={
                "state": ImageState.REJECTED,
                "bucket": "b" * 63,
                "content_type": "image/jpeg",
                "width": 10**5,
                "height": 10**5,
                "orientation": 8,
                "trailing_bytes": 10**7,
                "archived_at": NOW + timedelta(days=1),
                # The longest reasons name a host, of 253 characters.
                "reason": "r" * 400,
                "quarantine": Quarantined(key="k" * 200, bytes=10**7, sha256="a" * 64),
            }
        )
        for index, image in enumerate(task.images)
    }
    store.images.save(task, settled, now=NOW)

    item = store.item(TASK)
    assert item is not None
    assert (len(item["images"]), len(item["skipped"]), len(item["conflicts"])) == (32, 32, MAX_CONFLICTS)
    assert len(item["providerRecord"]["parameters"]) > MAX_PARAMETERS_BYTES / 4
    assert 0.7 * LIMIT < size(store) < 0.9 * LIMIT


def test_urls_beyond_the_size_limit_are_left_out_and_the_others_stay(store: Store) -> None:
    urls = [a_url(number, end) for end in (".png", ".mp4") for number in range(MAX_IMAGES_PER_TASK)]
    (report,) = MARKET.parse_poll(
        MARKET.poll_request([TASK_ID]), 200, {"code": 200, "data": a_record(urls)}, received_at=NOW
    )

    fitting = MAX_URL_BYTES_PER_TASK // MAX_URL_LENGTH
    assert [image.url for image in report.images[: fitting - 1]] == urls[: fitting - 1]
    assert report.images[-1].url == "no-room-for-a-URL-this-long"
    assert len(report.images) == len(report.skipped) == MAX_IMAGES_PER_TASK
    assert report.skipped[-1].url is None


@pytest.mark.parametrize("character", ["u", "é", "字", WIDE])
def test_no_url_of_a_callback_is_left_out(character: str) -> None:
    """Percent-encoding turns each byte of the body into three bytes."""
    start, frame = "https://1.example/", 200
    count = ((MAX_BODY_BYTES - frame) // MAX_IMAGES_PER_TASK - len(start) - 8) // len(character.encode())
    urls = [f"{start}{number}{character * count}" for number in range(MAX_IMAGES_PER_TASK)]
    body = {"code": 200, "data": {"taskId": "t", "state": "success", "resultJson": urls}}
    assert len(json.dumps(body, ensure_ascii=False).encode()) <= MAX_BODY_BYTES

    report = MARKET.parse_callback(body, received_at=NOW)

    assert len(report.images) == MAX_IMAGES_PER_TASK
    assert all(image.url.startswith(start) for image in report.images)

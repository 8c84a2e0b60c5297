"""The fields of a provider's record besides the result are stored unchanged, and never make an answer fail."""

import json
from typing import Any

import pytest

from catchlight.models import MAX_PARAMETERS_BYTES, MAX_TIMINGS_BYTES, ProviderRecord, TaskReport
from catchlight.providers import PROVIDERS
from catchlight.providers.records import provider_record
from tests.unit.providers.cases import RECEIVED_AT, body_of, load
from tests.unit.providers.expected_polls import POLLS

TRACE = "6624929c-bb80-40c0-81e8-d96af8405d19"
CAT_TIMINGS = '[{"inference": 3.193}]'


def polled(path: str) -> TaskReport:
    provider, poll = PROVIDERS[path.split("/")[1]], POLLS[path]
    request = provider.poll_request(poll.task_ids)
    (report,) = provider.parse_poll(request, poll.http_status, load(path), received_at=RECEIVED_AT)
    return report


def called_back(path: str) -> TaskReport:
    return PROVIDERS[path.split("/")[1]].parse_callback(body_of(load(path)), received_at=RECEIVED_AT)


def test_a_record_of_flux_kontext() -> None:
    expected = ProviderRecord(
        created_at="2024-03-20T10:25:00.000Z",
        completed_at="2024-03-20T10:30:00.000Z",
        parameters='{"prompt":"A serene mountain landscape","aspectRatio":"16:9"}',
    )
    assert polled("polls/flux-kontext/success.json").provider_record == expected
    assert polled("polls/flux-kontext/content_policy.json").provider_record is not None
    assert polled("polls/flux-kontext/unknown_422.json").provider_record is None


def test_a_record_of_the_market() -> None:
    record = polled("polls/kie-market/success.json").provider_record
    assert record is not None
    assert (record.created_at, record.completed_at, record.timings) == (
        "2026-01-06T00:16:43.000Z",
        "2026-01-06T00:17:04.000Z",
        "21",
    )
    assert json.loads(record.parameters or "")["model"] == "nano-banana-2"
    callback = called_back("callbacks/kie-market/success.json").provider_record
    assert callback is not None
    assert (callback.created_at, callback.timings) == ("2025-08-19T10:33:54.000Z", "8")


def test_a_record_of_ace_data() -> None:
    record = polled("polls/acedata/success.json").provider_record
    assert record is not None
    assert (record.created_at, record.trace_id, record.timings) == ("2025-01-08T02:51:09.779Z", TRACE, CAT_TIMINGS)
    assert json.loads(record.parameters or "") == {
        "action": "generate",
        "size": "1024x1024",
        "prompt": "a white siamese cat",
    }
    assert polled("polls/acedata/success_finished_at.json").provider_record != record
    callback = called_back("callbacks/acedata/success.json").provider_record
    assert callback == ProviderRecord(trace_id=TRACE, timings=CAT_TIMINGS)
    failure = called_back("callbacks/acedata/failure.json").provider_record
    assert failure is not None
    assert failure.trace_id


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_without_values_nothing_is_stored(value: Any) -> None:
    assert provider_record(created=value, completed=value, trace_id=value, timings=value, parameters=value) is None


@pytest.mark.parametrize(
    "value", [7, True, -1.5, "yesterday", "2024-03-20 24:00:00", ["\ud800"], {"a": [1]}, float("nan")]
)
def test_unreadable_values_are_stored_as_text(value: Any) -> None:
    record = provider_record(created=value, completed=value, timings=value, parameters=value)
    assert record is not None
    assert record.created_at == record.parameters
    record.model_dump_json().encode()  # AWS services reject lone surrogates


def test_the_size_of_a_record_is_limited() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    long = "ж" * 50_000
    record = provider_record(created=long, completed=deep, trace_id=long, timings=[long], parameters={"prompt": long})
    assert record is not None
    assert record.completed_at is None
    assert len(record.created_at or "") == len(record.trace_id or "") == 64
    assert len((record.timings or "").encode()) <= MAX_TIMINGS_BYTES
    assert len((record.parameters or "").encode()) <= MAX_PARAMETERS_BYTES
    assert (record.parameters or "").startswith('{"prompt": "жжж')

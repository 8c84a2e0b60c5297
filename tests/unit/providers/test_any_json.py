"""Any JSON becomes a report or one of the documented errors, and never another exception."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catchlight.errors import InvalidCallbackError, ProviderError
from catchlight.models import Reporter
from catchlight.providers import PROVIDERS
from tests.unit.providers.cases import RECEIVED_AT

# With lone surrogates, which JSON can represent.
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
SIGNIFICANT = st.sampled_from(
    ["task12345", "", "null", "200", "1", "https://example.com/a.png", "https://\ud800", '{"resultImageUrl": "x"}', "["]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, 2, 3, 200, 400, 404, 429, 10**400])
    | st.floats()
    | TEXT
    | SIGNIFICANT
)
# The names that parsers read: their fields get arbitrary values.
NAMES = [
    *("code", "msg", "data", "info", "taskId", "task_id", "id", "originImageUrl", "resultImageUrl"),
    *("successFlag", "response", "errorCode", "errorMessage", "completeTime"),
    *("state", "resultJson", "resultUrls", "resultObject", "failCode", "param", "input"),
    *("success", "error", "message", "items", "image_url", "finished_at"),
]


def _objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(NAMES) | TEXT, values, max_size=8)


JSON = st.recursive(SCALARS, lambda values: st.lists(values, max_size=3) | _objects(values), max_leaves=30)

IMAGES = st.fixed_dictionaries(
    {}, optional={"originImageUrl": SIGNIFICANT | JSON, "resultImageUrl": SIGNIFICANT | JSON}
)
RECORDS = st.fixed_dictionaries(
    {"successFlag": st.sampled_from([0, 1, 2, 3, "1"]) | JSON},
    optional={"taskId": st.just("task12345"), "response": IMAGES | JSON, "errorCode": JSON, "completeTime": JSON},
)
ANSWERS = st.fixed_dictionaries(
    {"success": st.booleans() | JSON},
    optional={"data": st.lists(st.fixed_dictionaries({"image_url": SIGNIFICANT | JSON})) | JSON, "error": JSON},
)
# Nearly valid documents, with errors in nested fields.
CALLBACKS = st.one_of(
    JSON,
    st.fixed_dictionaries(
        {"code": st.sampled_from([200, 400, "501"]) | JSON, "taskId": st.just("task12345")},
        optional={"msg": JSON, "data": st.fixed_dictionaries({"info": IMAGES | JSON}) | RECORDS | JSON},
    ),
    ANSWERS.map(lambda answer: {"task_id": "task12345", **answer}),
)
TASKS = st.fixed_dictionaries(
    {"id": st.sampled_from(["task12345", "task67890"])}, optional={"response": ANSWERS | JSON, "finished_at": JSON}
)
POLLS = st.one_of(
    JSON,
    st.fixed_dictionaries({"code": st.just(200) | JSON, "data": RECORDS | JSON}),
    TASKS,
    st.fixed_dictionaries({"items": st.lists(TASKS | JSON, max_size=4)}),
)


@pytest.mark.parametrize("provider_id", PROVIDERS)
@given(body=CALLBACKS)
def test_a_callback_is_a_report_or_refused(provider_id: str, body: Any) -> None:
    try:
        report = PROVIDERS[provider_id].parse_callback(body, received_at=RECEIVED_AT)
    except InvalidCallbackError:
        return
    assert (report.provider, report.reported_by) == (provider_id, Reporter.CALLBACK)
    assert report.model_dump_json().encode()


@pytest.mark.parametrize("provider_id", PROVIDERS)
@given(http_status=st.sampled_from([200, 200, 200, 400, 401, 404, 429, 500]), body=POLLS, several=st.booleans())
def test_an_answer_is_reports_of_the_requested_tasks_or_an_error(
    provider_id: str, http_status: int, body: Any, several: bool
) -> None:
    provider = PROVIDERS[provider_id]
    task_ids = ["task12345", "task67890"] if several and provider.poll_batch_size > 1 else ["task12345"]
    try:
        reports = provider.parse_poll(provider.poll_request(task_ids), http_status, body, received_at=RECEIVED_AT)
    except ProviderError:
        return
    assert [report.task_id for report in reports] == task_ids
    assert {report.reported_by for report in reports} == {Reporter.POLL}
    assert all(report.model_dump_json().encode() for report in reports)

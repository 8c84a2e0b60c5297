"""Builds the bodies of callbacks and of answers to polls of the simulated services."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.searches.soak.plans import ACEDATA, FLUX_KONTEXT
from tests.searches.soak.reported_state import ReportedState

Body = dict[str, Any]

PROMPT = "a lighthouse"
_KIE_CODES = {"CONTENT_POLICY": 400, "INTERNAL": 500, "GENERATION_FAILED": 501}
_ACEDATA_CODES = {
    "CONTENT_POLICY": "content_policy_violation",
    "INTERNAL": "api_error",
    "GENERATION_FAILED": "generation_failed",
}


def callback_body(provider: str, task_id: str, says: ReportedState, base_url: str, *, is_record_shaped: bool) -> Body:
    """Returns the JSON of a callback; image URLs start with the base URL."""
    if provider == ACEDATA:
        return _acedata_response(task_id, says, _urls(says, base_url))
    if is_record_shaped:
        return _envelope(200, _record(task_id, says, _urls(says, base_url)))
    if says.reason:
        return _envelope(_KIE_CODES[says.reason], {"taskId": task_id, "info": None})
    return _envelope(200, {"taskId": task_id, "info": _info(_urls(says, base_url))})


def kie_answer(task_id: str, says: ReportedState, urls: Sequence[str]) -> Body:
    """Returns an answer of record-info, which has status 200 in every case."""
    return _envelope(200, _record(task_id, says, urls))


def unknown_kie_task(provider: str) -> Body:
    """Returns the answer of record-info for a task that it does not know (yet)."""
    return _envelope(422, None) if provider == FLUX_KONTEXT else _envelope(200, None)


def acedata_record(task_id: str, says: ReportedState, urls: Sequence[str]) -> Body:
    """Returns one record of /flux/tasks."""
    request = {"action": "generate", "prompt": PROMPT}
    record: Body = {"id": task_id, "created_at": 1700000000.0, "request": request}
    if says.status == "PENDING":
        return record
    return record | {"finished_at": 1700000012.0, "response": _acedata_response(task_id, says, urls)}


def _urls(says: ReportedState, base_url: str) -> list[str]:
    return [base_url + path for path in says.paths]


def _envelope(code: int, data: Mapping[str, Any] | None) -> Body:
    return {"code": code, "msg": "success" if code == 200 else "failed", "data": data}


def _info(urls: Sequence[str]) -> dict[str, str | None]:
    kinds = {url.rpartition("/")[2].partition("-")[0]: url for url in urls}
    return {"originImageUrl": kinds.get("origin"), "resultImageUrl": kinds.get("result")}


def _record(task_id: str, says: ReportedState, urls: Sequence[str]) -> Body:
    flags = {"PENDING": 0, "SUCCEEDED": 1, "FAILED": 3}
    return {
        "taskId": task_id,
        "successFlag": flags[says.status],
        "response": _info(urls) if urls else None,
        "errorCode": _KIE_CODES[says.reason] if says.reason else None,
        "errorMessage": "failed" if says.reason else None,
        "completeTime": None if says.status == "PENDING" else "2026-01-06 08:17:04",
    }


def _acedata_response(task_id: str, says: ReportedState, urls: Sequence[str]) -> Body:
    head: Body = {"success": not says.reason, "task_id": task_id, "trace_id": f"trace-{task_id}"}
    if says.reason:
        return head | {"error": {"code": _ACEDATA_CODES[says.reason], "message": "failed"}}
    return head | {"data": [{"prompt": PROMPT, "image_url": url, "timings": 3} for url in urls]}

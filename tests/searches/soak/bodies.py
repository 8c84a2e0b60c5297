"""Builds the JSON bodies of the simulated providers' callbacks and of their responses to polls."""

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


def callback_body(
    provider: str, task_id: str, reported: ReportedState, base_url: str, *, is_record_shaped: bool
) -> Body:
    """Returns the JSON of a callback; image URLs start with the base URL."""
    if provider == ACEDATA:
        return _acedata_response(task_id, reported, _urls(reported, base_url))
    if is_record_shaped:
        return _envelope(200, _record(task_id, reported, _urls(reported, base_url)))
    if reported.reason:
        return _envelope(_KIE_CODES[reported.reason], {"taskId": task_id, "info": None})
    return _envelope(200, {"taskId": task_id, "info": _info(_urls(reported, base_url))})


def kie_response(task_id: str, reported: ReportedState, urls: Sequence[str]) -> Body:
    """Returns a response body of record-info, whose HTTP status is always 200."""
    return _envelope(200, _record(task_id, reported, urls))


def unknown_kie_task(provider: str) -> Body:
    """Returns the response body of record-info for a task that the provider does not know (yet)."""
    return _envelope(422, None) if provider == FLUX_KONTEXT else _envelope(200, None)


def acedata_record(task_id: str, reported: ReportedState, urls: Sequence[str]) -> Body:
    """Returns one record of /flux/tasks."""
    request = {"action": "generate", "prompt": PROMPT}
    record: Body = {"id": task_id, "created_at": 1700000000.0, "request": request}
    if reported.status == "PENDING":
        return record
    return record | {"finished_at": 1700000012.0, "response": _acedata_response(task_id, reported, urls)}


def _urls(reported: ReportedState, base_url: str) -> list[str]:
    return [base_url + path for path in reported.paths]


def _envelope(code: int, data: Mapping[str, Any] | None) -> Body:
    return {"code": code, "msg": "success" if code == 200 else "failed", "data": data}


def _info(urls: Sequence[str]) -> dict[str, str | None]:
    kinds = {url.rpartition("/")[2].partition("-")[0]: url for url in urls}
    return {"originImageUrl": kinds.get("origin"), "resultImageUrl": kinds.get("result")}


def _record(task_id: str, reported: ReportedState, urls: Sequence[str]) -> Body:
    flags = {"PENDING": 0, "SUCCEEDED": 1, "FAILED": 3}
    return {
        "taskId": task_id,
        "successFlag": flags[reported.status],
        "response": _info(urls) if urls else None,
        "errorCode": _KIE_CODES[reported.reason] if reported.reason else None,
        "errorMessage": "failed" if reported.reason else None,
        "completeTime": None if reported.status == "PENDING" else "2026-01-06 08:17:04",
    }


def _acedata_response(task_id: str, reported: ReportedState, urls: Sequence[str]) -> Body:
    head: Body = {"success": not reported.reason, "task_id": task_id, "trace_id": f"trace-{task_id}"}
    if reported.reason:
        return head | {"error": {"code": _ACEDATA_CODES[reported.reason], "message": "failed"}}
    return head | {"data": [{"prompt": PROMPT, "image_url": url, "timings": 3} for url in urls]}

"""Builds the JSON of the simulated providers: callbacks, and responses to submissions and polls."""

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from local.simulator.scenarios import ACEDATA, FLUX_SERVICES, KIE_MARKET, NANOBANANA, SimulatedOutcome
from local.simulator.tasks import SimulatedTask

Body = dict[str, Any]

_SUCCESS_MESSAGES = {
    **dict.fromkeys(FLUX_SERVICES, "BFL image generated successfully."),
    NANOBANANA: "Image generated successfully.",
}
_FAILURES = {
    SimulatedOutcome.CONTENT_POLICY: (400, "Your prompt was flagged by Website as violating content policies"),
    SimulatedOutcome.INTERNAL_ERROR: (500, "Internal Error, Please try again later"),
    SimulatedOutcome.GENERATION_FAILED: (501, "Image generation task failed"),
}
# Only api_error is documented; the other codes are assumptions.
_ACEDATA_FAILURES = {
    SimulatedOutcome.CONTENT_POLICY: (
        "content_policy_violation",
        "the prompt was flagged as violating content policies",
    ),
    SimulatedOutcome.INTERNAL_ERROR: ("api_error", "fetch failed"),
    SimulatedOutcome.GENERATION_FAILED: ("generation_failed", "image generation failed"),
}
_SUCCESS_FLAGS = {SimulatedOutcome.SUCCESS: 1, SimulatedOutcome.CREATE_FAILED: 2}
_STILL_RUNNING, _GENERATE_FAILED = 0, 3

_BEIJING = timezone(timedelta(hours=8))


def submitted(task: SimulatedTask) -> Body:
    """Returns the response to a submission."""
    if task.provider == ACEDATA:
        return {"task_id": task.task_id}
    return envelope(200, "success", {"taskId": task.task_id})


def callback(task: SimulatedTask, outcome: SimulatedOutcome, *, has_task_id: bool = True) -> Body:
    """Returns the body of the callback that reports this outcome."""
    if task.provider == ACEDATA:
        response = _acedata_response(task, outcome)
        return response if has_task_id else {key: value for key, value in response.items() if key != "task_id"}
    if task.provider == KIE_MARKET:
        # As documented: a callback's `code` states the task's outcome, and its data is that of a poll's response.
        code = 200 if outcome is SimulatedOutcome.SUCCESS else 501
        message = f"Playground task {'completed successfully' if code == 200 else 'failed'}."
        return envelope(code, message, _market_data(task, outcome))
    if task.record_shaped:
        # The outer code is that of the delivery: it is 200 for failed tasks, too.
        return envelope(200, "success", _record_data(task, outcome))
    if outcome is SimulatedOutcome.SUCCESS:
        urls = {"resultImageUrl": None if task.scenario.polls_before_result else task.url_of("result")}
        if task.provider in FLUX_SERVICES:
            # For a missing original, providers were observed to send null, and in callbacks also the string "null".
            urls = {"originImageUrl": task.url_of("origin") or "null", **urls}
        return envelope(200, _SUCCESS_MESSAGES[task.provider], {"taskId": task.task_id, "info": urls})
    code, message = _FAILURES[outcome]
    if task.provider == NANOBANANA:
        return envelope(code, message, {"taskId": task.task_id, "info": {"resultImageUrl": ""}})
    # Three formats of failures are documented for these services. Here, each failure code has one of them.
    if outcome is SimulatedOutcome.CONTENT_POLICY:
        urls = {"originImageUrl": "", "resultImageUrl": ""}
        return envelope(code, message, {"taskId": task.task_id, "info": urls})
    if outcome is SimulatedOutcome.GENERATION_FAILED:
        return envelope(code, message, {"taskId": task.task_id, "info": None})
    return {**envelope(code, message, None), "taskId": task.task_id}


def record_info(provider: str, task: SimulatedTask | None, now: float) -> Body:
    """Returns the response of record-info. Its HTTP status is always 200."""
    if task is not None and task.scenario.poll_error:
        return envelope(*task.scenario.poll_error, None)
    if task is not None:
        data = _market_data if provider == KIE_MARKET else _record_data
        return envelope(200, "success", data(task, task.outcome_at(now)))
    if provider == KIE_MARKET:
        return envelope(422, "recordInfo is null", None)
    if provider in FLUX_SERVICES:
        return envelope(422, "Record does not exist", None)
    return envelope(200, "success", None)


def acedata_record(task: SimulatedTask | None, now: float) -> Body:
    """Returns the response of /flux/tasks to `retrieve`: an empty object for an unknown task."""
    if task is None:
        return {}
    record = {
        "_id": _stable_id(task, "_id").hex[:24],
        "id": task.task_id,
        "api_id": str(_stable_id(task, "api")),
        "application_id": str(_stable_id(task, "application")),
        "created_at": round(task.created_at, 3),
        "credential_id": str(_stable_id(task, "credential")),
        "request": dict(task.params),
        "trace_id": str(_stable_id(task, "trace")),
        "user_id": str(_stable_id(task, "user")),
    }
    outcome = task.outcome_at(now)
    if outcome is None:
        return record
    return {**record, "finished_at": round(task.ends_at, 3), "response": _acedata_response(task, outcome)}


def acedata_batch(tasks: Sequence[SimulatedTask], now: float) -> Body:
    """Returns the response of /flux/tasks to `retrieve_batch`, which does not include unknown tasks."""
    items = [acedata_record(task, now) for task in tasks]
    return {"items": items, "count": len(items)}


def envelope(code: int, message: str, data: Any) -> Body:
    """Wraps data in the envelope that kie.ai and related services use for responses and callbacks."""
    return {"code": code, "msg": message, "data": data}


def acedata_error(code: str, message: str) -> Body:
    """Returns the body of Ace Data's error responses."""
    trace_id = str(uuid.uuid5(uuid.NAMESPACE_OID, message))
    return {"success": False, "error": {"code": code, "message": message}, "trace_id": trace_id}


def _record_data(task: SimulatedTask, outcome: SimulatedOutcome | None) -> Body:
    running, succeeded = outcome is None, outcome is SimulatedOutcome.SUCCESS
    nanobanana = task.provider == NANOBANANA
    error_code, error_message = (None, None if nanobanana else "")
    if outcome is SimulatedOutcome.CREATE_FAILED:
        error_code, error_message = 500, "Failed to create the task"
    elif outcome is not None and outcome is not SimulatedOutcome.SUCCESS:
        error_code, error_message = _FAILURES[outcome]
    record: Body = {
        "taskId": task.task_id,
        "paramJson": json.dumps(dict(task.params)),
        "completeTime": None if running else _time(task.ends_at, naive=nanobanana),
        "response": None,
        "successFlag": _STILL_RUNNING if outcome is None else _SUCCESS_FLAGS.get(outcome, _GENERATE_FAILED),
        "errorCode": error_code,
        "errorMessage": error_message,
        "createTime": _time(task.created_at, naive=nanobanana),
    }
    if succeeded:
        record["response"] = {
            "originImageUrl": task.next_origin_url(),
            "resultImageUrl": task.next_result_url(),
        }
    if running:
        record["progress"] = "0.50"
    if nanobanana:
        record["operationType"] = "nanobanana_TEXTTOIAMGE"
    return record


def _market_data(task: SimulatedTask, outcome: SimulatedOutcome | None) -> Body:
    """Returns a record of the Market. Result and request are JSON strings; the request's `input` is one again."""
    failure = _FAILURES.get(outcome) if outcome else None
    urls = [*task.videos, *(image.url for image in task.images)]
    return {
        "taskId": task.task_id,
        "model": task.params.get("model", ""),
        "state": "generating" if outcome is None else "fail" if failure else "success",
        "param": json.dumps({**task.params, "input": json.dumps(task.params.get("input", {}))}),
        "resultJson": json.dumps({"resultUrls": urls}) if outcome is SimulatedOutcome.SUCCESS else "",
        "failCode": str(failure[0]) if failure else None,
        "failMsg": failure[1] if failure else None,
        "costTime": None if outcome is None else round(task.ends_at - task.created_at),
        "completeTime": None if outcome is None else round(task.ends_at * 1000),
        "createTime": round(task.created_at * 1000),
    }


def _acedata_response(task: SimulatedTask, outcome: SimulatedOutcome) -> Body:
    head: Body = {
        "success": outcome is SimulatedOutcome.SUCCESS,
        "task_id": task.task_id,
        "trace_id": str(_stable_id(task, "trace")),
    }
    if outcome is not SimulatedOutcome.SUCCESS:
        code, message = _ACEDATA_FAILURES[outcome]
        return {**head, "error": {"code": code, "message": message}}
    data: list[Body] = []
    for image in task.images:
        entry: Body = {"prompt": task.params.get("prompt", ""), "image_url": image.url}
        entry["seed"] = _stable_id(task, f"seed {image.index}").int % 2**31
        # `timings` is an object in the documentation, an integer in real responses, and sometimes missing.
        entry["timings"] = {"inference": 3.193} if image.index % 2 == 0 else 3
        data.append(entry if image.index < 3 else {"image_url": image.url})
    return {**head, "data": data}


def _stable_id(task: SimulatedTask, role: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{task.task_id} {role}")


def _time(moment: float, *, naive: bool) -> str:
    """Formats a time as documented (ISO 8601), or as Beijing time without zone, which NanoBanana's records contain."""
    if naive:
        return datetime.fromtimestamp(moment, _BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

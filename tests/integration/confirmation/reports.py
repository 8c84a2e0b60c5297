"""Builds callback reports and provider responses for tests of confirmation."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from catchlight.models import Failure, FailureReason, Reporter, TaskReport, TaskStatus
from tests.image_server import picture
from tests.integration.archiver import TASK
from tests.integration.conftest import Store
from tests.integration.functions import metric_lines
from tests.integration.providers import json_response, record, timed_out, unreachable

PNG, FORGED = picture(size=(8, 6)), picture(size=(9, 9))
ACE = "acedata#a1"


def flux_record(result: str, origin: str | None = None) -> Callable[[httpx.Request], httpx.Response]:
    """Returns a handler that responds with the record of a successful task with these URLs."""
    return lambda request: record(request, successFlag=1, response={"originImageUrl": origin, "resultImageUrl": result})


def acedata_record(*urls: str) -> Callable[[httpx.Request], httpx.Response]:
    data = [{"image_url": url} for url in urls]
    return json_response({"id": "a1", "response": {"success": True, "data": data}})


def report_failure(store: Store, reason: FailureReason = FailureReason.INTERNAL, task: str = TASK) -> None:
    """Records a callback that reports a failure."""
    provider, _, task_id = task.partition("#")
    store.reports.record(
        TaskReport(
            provider=provider,
            task_id=task_id,
            status=TaskStatus.FAILED,
            reported_by=Reporter.CALLBACK,
            reported_at=datetime.now(UTC),
            failure=Failure(reason=reason),
        )
    )


def contradictions(capsys: pytest.CaptureFixture[str]) -> int:
    """Returns the sum of the metric UnconfirmedCallbacks since the last call."""
    return int(sum(sum(line.get("UnconfirmedCallbacks", [])) for line in metric_lines(capsys)))


def urls(item: dict[str, Any]) -> list[str]:
    return [image["url"] for image in item["images"]]


INCONCLUSIVE = {
    "500": json_response({"code": 500, "msg": "error"}),
    "HTTP 500": json_response({}, 500),
    "unreachable": unreachable,
    "too slow": timed_out,
    "429": json_response({"code": 429}),
    "455": json_response({"code": 455}),
    "401": json_response({"code": 401}),
    "HTTP 401": json_response({}, 401),
    "402": json_response({"code": 402}),
    "redirect": lambda _: httpx.Response(302, headers={"Location": "https://api.kie.ai/elsewhere"}),
    "HTML": lambda _: httpx.Response(200, text="<html>"),
    "another task": json_response({"code": 200, "data": {"taskId": "other", "successFlag": 3}}),
    "success without a URL": json_response(
        {"code": 200, "data": {"taskId": "task12345", "successFlag": 1, "response": {}}}
    ),
}

"""Defines the smoke test's steps of ServeTasksApi."""

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx

from scripts.smoke.account import REGION, Account, AwsResponse, Call
from scripts.smoke.steps import (
    FOUND,
    IMAGE,
    ITEM,
    OK,
    PENDING,
    PNG,
    UNPROCESSED,
    Step,
    archived,
    error,
    found,
    moment,
    page,
    quarantined,
    refused,
)


def request(route: str, path: Mapping[str, str] | None = None, body: Any = None, **query: str) -> dict[str, Any]:
    """Builds API Gateway's event of a request."""
    method, _, template = route.partition(" ")
    raw_path = template.format(**(path or {}))
    return {
        "version": "2.0",
        "routeKey": route,
        "rawPath": raw_path,
        "rawQueryString": urlencode(query),
        "headers": {"content-type": "application/json", "idempotency-key": "smoke-1"},
        "requestContext": {"requestId": "smoke", "stage": "$default", "http": {"method": method, "path": raw_path}},
        "pathParameters": path or {},
        "queryStringParameters": query,
        "body": body and json.dumps(body),
        "isBase64Encoded": False,
    }


PATH = {"provider": "flux-kontext", "taskId": "task12345"}
GENERATE = "POST https://api.kie.ai/api/v1/flux/kontext/generate"
SUBMISSION = request("POST /submissions", body={"provider": "flux-kontext", "request": {"prompt": "a lake"}})
SUBMITTED = AwsResponse(body={"code": 200, "msg": "success", "data": {"taskId": "task12345"}})
CANCELLED = error(
    "TransactionCanceledException", CancellationReasons=[{"Code": "None"}, {"Code": "TransactionConflict"}]
)


def _idempotency_record(state: str, **more: Any) -> dict[str, Any]:
    known = {"key": "smoke-1", "provider": "flux-kontext", "fingerprint": "", "attempt": "another"}
    return {"task": "#submission#smoke-1", **known, "askedAt": moment(minutes=5), "state": state, **more}


def _link_works(response: Any, _: Sequence[Call], aws: Account) -> Iterator[str]:
    """Follows the redirect. Yields problems if the link is not signed for S3 or does not return the image."""
    link = urlsplit(response["headers"]["location"])
    aws.scripted["GetObject"].append(IMAGE)
    with httpx.Client(verify=ssl.create_default_context(cafile=str(aws.authority)), trust_env=False) as http:
        answer = http.get(
            f"https://127.0.0.1:{aws.port}{link.path}?{link.query}",
            headers={"Host": link.netloc},
            extensions={"sni_hostname": link.hostname},
        )
    if answer.status_code != 200 or answer.content != PNG:
        yield f"the link {response['headers']['location']} does not return the image: {aws.problems}"
    if "X-Amz-Algorithm=AWS4-HMAC-SHA256" not in link.query or f".s3.{REGION}." not in link.netloc:
        yield f"the link {response['headers']['location']} is not signed with Signature Version 4 for {REGION}"


SERVE_TASKS_API = [
    Step(
        "tasks to register",
        request("POST /tasks", body={"provider": "flux-kontext", "taskIds": ["task12345", "task23456"]}),
        {"statusCode": 200},
        {"UpdateItem": [OK, error("ConditionalCheckFailedException")]},
    ),
    Step(
        "the newest tasks",
        request("GET /tasks"),
        {"statusCode": 200},
        {
            "Query": [page(PENDING | {"feed": "tasks", "arrivedAt": moment()})],
            "BatchGetItem": [UNPROCESSED, ITEM],
        },
    ),
    Step("tasks of a status", request("GET /tasks", status="PENDING"), {"statusCode": 200}, {"Query": [page(PENDING)]}),
    Step("a task", request("GET /tasks/{provider}/{taskId}", PATH), {"statusCode": 200}, {"GetItem": [FOUND]}),
    Step("a missing task", request("GET /tasks/{provider}/{taskId}", PATH), {"statusCode": 404}, {"GetItem": [OK]}),
    Step(
        "an image",
        request("GET /tasks/{provider}/{taskId}/images/{image}", PATH | {"image": "result-0"}),
        {"statusCode": 302},
        {"GetItem": [found(archived())]},
        _link_works,
    ),
    Step(
        "the bytes of a refused image",
        request("GET /tasks/{provider}/{taskId}/images/{image}", PATH | {"image": "result-0"}, quarantined="true"),
        {"statusCode": 302},
        {"GetItem": [found(quarantined())]},
        _link_works,
    ),
    Step(
        "a submission whose callback arrives at the same time",
        SUBMISSION,
        {"statusCode": 201},
        {"UpdateItem": [OK], GENERATE: [SUBMITTED], "TransactWriteItems": [CANCELLED, OK]},
    ),
    Step(
        "an idempotency key of another request",
        SUBMISSION,
        {"statusCode": 422},
        {"UpdateItem": [refused(_idempotency_record("COMPLETED", taskId="task23456"))]},
    ),
    Step(
        "an idempotency key to release",
        request("DELETE /submissions/{key}", {"key": "smoke-1"}),
        {"statusCode": 204},
        {
            "GetItem": [found(_idempotency_record("UNKNOWN_OUTCOME"))],
            "UpdateItem": [OK],
        },
    ),
    Step(
        "a table that fails",
        request("GET /tasks"),
        {"statusCode": 503},
        {"Query": [error("InternalServerError", 500)] * 3},
    ),
]

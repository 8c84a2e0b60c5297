"""Defines the smoke test's steps of ReceiveCallback."""

import json
from typing import Any

from scripts.smoke.steps import IMAGE_URL, OK, THROTTLED, TOKEN, Step, archived, error, refused, s3_error, succeeded


def callback(body: Any, provider: str = "flux-kontext", token: str = TOKEN, method: str = "POST") -> dict[str, Any]:
    """Builds API Gateway's event of a callback."""
    return {
        "version": "2.0",
        "routeKey": f"{method} /callbacks/{{provider}}/{{token+}}",
        "headers": {"content-type": "application/json"},
        "requestContext": {"requestId": "smoke"},
        "pathParameters": {"provider": provider, "token": token},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


def flux(url: str = IMAGE_URL) -> dict[str, Any]:
    """Builds the body of Flux Kontext's callback of a success."""
    return {"code": 200, "msg": "ok", "data": {"taskId": "task12345", "info": {"resultImageUrl": url}}}


NANOBANANA = {"code": 200, "msg": "ok", "data": {"taskId": "9e4286b7", "info": {"resultImageUrl": IMAGE_URL}}}
ACEDATA = {"success": True, "task_id": "2db0168c-2373", "data": [{"prompt": "a cat", "image_url": IMAGE_URL}]}
MARKET = {
    "code": 200,
    "msg": "ok",
    "data": {"taskId": "6ac0f3b1", "state": "success", "resultJson": json.dumps({"resultUrls": [IMAGE_URL]})},
}
RECEIVED = {"statusCode": 200, "body": '{"status": "received"}'}

RECEIVE_CALLBACK = [
    Step("a callback of Flux Kontext", callback(flux()), RECEIVED, {"UpdateItem": [OK]}),
    Step("a callback of Nano Banana", callback(NANOBANANA, "nanobanana"), RECEIVED, {"UpdateItem": [OK]}),
    Step("a callback of Ace Data", callback(ACEDATA, "acedata"), RECEIVED, {"UpdateItem": [OK]}),
    Step("a callback of Apikley", callback(flux(), "apikley"), RECEIVED, {"UpdateItem": [OK]}),
    Step("a callback of kie.ai's Market", callback(MARKET, "kie-market"), RECEIVED, {"UpdateItem": [OK]}),
    Step("a browser", callback(None, method="GET"), {"statusCode": 200}, {}),
    Step("a repeated callback", callback(flux()), RECEIVED, {"UpdateItem": [refused(succeeded())]}),
    Step(
        "a conflicting callback",
        callback(flux(IMAGE_URL.replace("12345", "99999"))),
        RECEIVED,
        {"UpdateItem": [refused(archived()), OK]},  # the second update stores the conflict as evidence
    ),
    Step(
        "a throttled table",
        callback(flux()),
        RECEIVED,
        {"UpdateItem": [THROTTLED, error("ProvisionedThroughputExceededException"), OK]},
    ),
    Step(
        "a table that fails once",
        callback(flux()),
        RECEIVED,
        {"UpdateItem": [error("InternalServerError", 500), OK]},
    ),
    Step(
        "a transaction on the same task",
        callback(flux()),
        RECEIVED,
        {"UpdateItem": [error("TransactionConflictException"), OK]},
    ),
    Step(
        "a missing table",
        callback(flux()),
        {"statusCode": 503},
        {"UpdateItem": [error("ResourceNotFoundException")]},
    ),
    # Also reads the version AWSPREVIOUS, which may be missing.
    Step("a wrong token", callback(flux(), token="wrong" * 10), {"statusCode": 401}),
    Step("an unreadable delivery", callback({}), {"statusCode": 422}, {"PutObject": [OK]}),
    Step(
        "an unreadable delivery that is stored already",
        callback({}),
        {"statusCode": 422},
        {"PutObject": [s3_error("PreconditionFailed", 412)]},
    ),
    Step(
        "a throttled bucket",
        callback({}),
        {"statusCode": 422},
        {"PutObject": [s3_error("SlowDown", 503), s3_error("InternalError", 500), OK]},
    ),
    Step(
        "a bucket that denies access",
        callback({}),
        {"statusCode": 503},
        {"PutObject": [s3_error("AccessDenied", 403)]},
    ),
]

# With the parameter KeepDeliveries.
RECEIVE_CALLBACK_KEEPING_DELIVERIES = [
    Step("an accepted callback", callback(flux()), RECEIVED, {"UpdateItem": [OK], "PutObject": [OK]}),
    Step(
        "a bucket that denies access to an accepted callback",
        callback(flux()),
        RECEIVED,
        {"UpdateItem": [OK], "PutObject": [s3_error("AccessDenied", 403)]},
    ),
]

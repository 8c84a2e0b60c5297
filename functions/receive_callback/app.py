"""ReceiveCallback: a provider's callback becomes news of a task.

Five moves: decode, verify, parse, write, answer. Providers take 200 for success and anything else for a failure that
they retry three times; so news that is written is answered 200 even if it changed nothing, and only what cannot be
written is answered 5xx.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from image_tasks.credentials import LiveSecret, provider_keys
from image_tasks.errors import InvalidCallbackError, PayloadTooLargeError, RequestError, StoreUnavailableError
from image_tasks.models import TaskReport, utc_now
from image_tasks.providers import find_provider
from image_tasks.settings import ReceiveCallbackSettings
from image_tasks.tasks_table import CLIENT_CONFIG, TasksTable
from image_tasks.verification import decode_json, verify_signature, verify_token

# The longest callback seen has 6 KB; the API itself would let 10 MB through.
MAX_BODY_BYTES = 64 * 1024

logger = Logger()
metrics = Metrics()


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """What of an API Gateway event (HTTP API, payload format 2.0) a callback is made of."""

    provider_id: str
    token: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Dependencies:
    """Settings, secrets and the table, made when the first callback needs them."""

    def __init__(self) -> None:
        settings = ReceiveCallbackSettings.from_environment()
        secrets_manager = boto3.client("secretsmanager", config=CLIENT_CONFIG)
        self.callback_token = LiveSecret(settings.callback_token_secret, secrets_manager)
        self.provider_keys = LiveSecret(settings.provider_keys_secret, secrets_manager)
        self.table = TasksTable(settings.tasks_table, boto3.client("dynamodb", config=CLIENT_CONFIG))


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answers 200 `{"status": "received"}`, 4xx with what is wrong, or 503 if the news could not be written."""
    try:
        request = decode(event)
        verify_token(request.token, dependencies().callback_token.versions())
        report = parse(request)
        recorded = dependencies().table.record(report)
    except RequestError as exc:
        logger.warning("callback refused", reason=exc.code, detail=str(exc))
        metrics.add_metric("CallbacksRefused", MetricUnit.Count, 1)
        return answer(exc.status, {"error": exc.code, "message": str(exc)})
    except StoreUnavailableError:
        logger.exception("callback not written, the provider will send it again")
        return answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "unavailable", "message": "not written, send it again"})
    logger.info("callback received", task=report.task, status=report.status, outcome=recorded.outcome)
    metrics.add_dimension("provider", report.provider)
    metrics.add_metric(f"Callbacks{recorded.outcome.title()}", MetricUnit.Count, 1)
    return answer(HTTPStatus.OK, {"status": "received"})


def decode(event: dict[str, Any]) -> CallbackRequest:
    """The parts of the event that matter.

    Raises:
        PayloadTooLargeError: the body is over MAX_BODY_BYTES.
        InvalidCallbackError: the body claims to be base64 and is not.
    """
    # surrogatepass: half a character is refused where the body is read, not here.
    body = (event.get("body") or "").encode(errors="surrogatepass")
    if event.get("isBase64Encoded"):
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise InvalidCallbackError("the body is not the base64 that it claims to be") from None
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLargeError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    path = event["pathParameters"]
    return CallbackRequest(
        provider_id=path["provider"],
        token=path["token"].removesuffix("/"),
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=body,
    )


def parse(request: CallbackRequest) -> TaskReport:
    """The news in a callback, with its signature verified where the provider signs.

    Raises:
        UnknownProviderError, InvalidCallbackError, UnauthorizedError: with what is wrong.
    """
    provider = find_provider(request.provider_id)
    report = provider.parse_callback(decode_json(request.body), received_at=utc_now())
    # The signature covers the task's id, so it can only be checked once the body has been read.
    if _is_signed(report.provider):
        verify_signature(request.headers, report.task_id, _webhook_keys(report.provider), now=report.reported_at)
    return report


def _is_signed(provider_id: str) -> bool:
    return provider_keys(dependencies().provider_keys.current(), provider_id).webhook_key is not None


def _webhook_keys(provider_id: str) -> list[str]:
    keys = (provider_keys(version, provider_id).webhook_key for version in dependencies().provider_keys.versions())
    return [key.get_secret_value() for key in keys if key]


def answer(status: HTTPStatus, body: dict[str, str]) -> dict[str, Any]:
    """An HTTP API response, payload format 2.0."""
    return {"statusCode": status.value, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}

"""ReceiveCallback: verifies a provider's callback and records its report in the tasks table.

The function takes six steps: decode, verify the token, parse, verify the signature, record, answer. After the token is
verified, this stack's secrets are overwritten in the request, so that neither stored deliveries nor logs contain them.

Providers treat 200 as success and other statuses as failures, which they retry three times. So a report that was
written is answered with 200 even if it changed nothing, and 5xx is sent only if it could not be written. A delivery
with a valid token that cannot be parsed is stored in the bucket, to be replayed with a later version that can parse it.
A success without a URL is recorded as a hint, which starts polling of its task at once; if no API key is configured,
so that its provider cannot be polled, the delivery is stored, too.

GET and HEAD requests are answered 200 with one line, before the token is verified: people and services open a URL to
see whether it works. The answer is the same for every token, so it does not show which one is valid.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import Redactor, RotatingSecret, provider_keys, secrets_in, verify_token
from catchlight.errors import (
    InvalidCallbackError,
    MalformedBodyError,
    PayloadTooLargeError,
    RequestError,
    SettingsError,
    StoreUnavailableError,
    UnknownProviderError,
)
from catchlight.models import REFERENCE_PATTERN, TaskReport, TaskStatus, utc_now
from catchlight.observability.failures import report_failure
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.providers import PROVIDERS, find_provider, is_account
from catchlight.providers.payloads import decode_json
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, KEPT_HEADERS, DeliveryStore, StoredDelivery
from catchlight.settings import ReceiveCallbackSettings
from catchlight.tasks.reports import Recorded, ReportOutcome, Reports
from catchlight.tasks.table import TasksTable

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# The longest recorded callback has 6 KB; API Gateway itself allows 10 MB.
MAX_BODY_BYTES = 64 * 1024
# Previous statuses without a result: a callback that is applied to one of these resolves the task.
_UNRESOLVED = (None, TaskStatus.PENDING, TaskStatus.TIMED_OUT)

# The answer to GET and HEAD.
PAGE = "Catchlight receives the callbacks of image generation services here, by POST.\n"

logger = Logger(json_serializer=log_line)


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """The parts of an API Gateway event (HTTP API, payload format 2.0) that make up a callback."""

    provider_id: str
    token: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    received_at: datetime
    ref: str | None = None  # the user's own reference; None if the URL has none or a malformed one


class Dependencies:
    """Creates settings, secrets and the table on first use."""

    def __init__(self) -> None:
        settings = ReceiveCallbackSettings.from_environment()
        clients = AwsClients()
        secrets_manager = clients.secrets_manager()
        self.callback_token = RotatingSecret(settings.callback_token_secret, secrets_manager)
        self.provider_keys = RotatingSecret(settings.provider_keys_secret, secrets_manager)
        self.reports = Reports(
            TasksTable(settings.tasks_table, clients.dynamodb(), retention=settings.task_retention_days)
        )
        self.keeps_accepted = settings.keep_deliveries > 0
        # Created on first use: most callbacks need no store, and creating a client takes a tenth of a second.
        self.rejected_deliveries = cache(lambda: DeliveryStore(clients.s3(), settings.images_bucket))
        self.accepted_deliveries = cache(lambda: DeliveryStore(clients.s3(), settings.images_bucket, ACCEPTED_PREFIX))


dependencies = cache(Dependencies)


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Handles a callback. Answers 200 `{"status": "received"}`, 4xx with the reason, or 503 if it was not written."""
    try:
        # Added to every log line: API Gateway's id of the request. Its access log has the same id, but not the task.
        logger.append_keys(request_id=(event.get("requestContext") or {}).get("requestId"))
        return receive(event)
    except Exception as exc:
        report_failure(logger, "callback failed, API Gateway answers 500 and the provider will send it again", exc)
        raise


def receive(event: dict[str, Any]) -> dict[str, Any]:
    """Processes a callback and returns the HTTP response."""
    if event.get("routeKey", "").startswith(("GET ", "HEAD ")):
        return {"statusCode": HTTPStatus.OK.value, "headers": {"content-type": "text/plain"}, "body": PAGE}
    report = None
    try:
        request = decode(event)
        verify_token(request.token, dependencies().callback_token.versions())
        request = redacted(request)
        try:
            report = parse(request)
        except (MalformedBodyError, InvalidCallbackError, UnknownProviderError) as exc:
            # UnknownProviderError: with a valid token it is a typing error in the callback URL that a caller has
            # submitted.
            keep(request, str(exc))
            raise
        verify_signature(report, request)
        keep_unanswerable_hint(report, request)
        recorded = dependencies().reports.record(report)
        keep_accepted(request, report, recorded)
    except RequestError as exc:
        return refuse(exc)
    except StoreUnavailableError as exc:
        return defer(exc, event, report)
    return acknowledge(report, recorded)


def decode(event: dict[str, Any]) -> CallbackRequest:
    """Extracts the callback from the event.

    Raises:
        PayloadTooLargeError: the body is over MAX_BODY_BYTES.
        MalformedBodyError: the event marks the body as base64, but it is not valid base64.
    """
    # surrogatepass: a lone surrogate must not fail here; `decode_json` rejects it later.
    body = (event.get("body") or "").encode(errors="surrogatepass")
    if event.get("isBase64Encoded"):
        try:
            body = base64.b64decode(body, validate=True)
        except binascii.Error:
            raise MalformedBodyError("the body is not valid base64") from None
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLargeError(f"the body is longer than {MAX_BODY_BYTES} bytes")
    path = event["pathParameters"]
    return CallbackRequest(
        provider_id=path["provider"],
        token=path["token"].removesuffix("/"),
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=body,
        received_at=utc_now(),
        ref=reference_in(event),
    )


def reference_in(event: dict[str, Any]) -> str | None:
    """Returns the user's own reference from the callback URL, `?ref=`; None if it is missing or malformed."""
    ref = (event.get("queryStringParameters") or {}).get("ref")
    return ref if isinstance(ref, str) and re.fullmatch(REFERENCE_PATTERN, ref) else None


def redacted(request: CallbackRequest) -> CallbackRequest:
    """Returns the request with the presented token and the configured keys overwritten.

    Raises:
        StoreUnavailableError: the provider keys could not be read; the provider is to send the callback again.
    """
    try:
        keys = secrets_in(dependencies().provider_keys.current())
    except SettingsError:
        keys = iter(())  # no keys are configured
    redactor = Redactor((request.token, *keys))
    return replace(
        request,
        provider_id=redactor.redact_text(request.provider_id),
        # Only these headers are stored. The others stay unchanged, because the signature is one of them.
        headers=request.headers
        | {name: redactor.redact_text(request.headers[name]) for name in KEPT_HEADERS if name in request.headers},
        body=redactor.redact(request.body),
        # A reference that contains a secret is dropped.
        ref=request.ref if request.ref and redactor.redact_text(request.ref) == request.ref else None,
    )


def parse(request: CallbackRequest) -> TaskReport:
    """Parses a callback into a report.

    Raises:
        MalformedBodyError, InvalidCallbackError, UnknownProviderError: the callback cannot be parsed.
    """
    body = decode_json(request.body)
    provider = find_provider(request.provider_id)
    if is_account(provider.id) and not dependencies().provider_keys.provider_keys(provider.id).is_stored:
        # Otherwise a sender who knows the token could invent accounts, whose results no provider can confirm.
        raise UnknownProviderError("the provider keys secret has no entry for this account")
    report = provider.parse_callback(body, received_at=request.received_at)
    return report.model_copy(update={"ref": request.ref}) if request.ref else report


def keep(request: CallbackRequest, reason: str) -> None:
    """Stores a delivery in the bucket, under rejected/, and logs and counts it.

    Raises:
        StoreUnavailableError: S3 did not accept it; the provider is to send it again.
    """
    delivery = StoredDelivery(request.provider_id, request.received_at, reason, request.headers, request.body)
    key = dependencies().rejected_deliveries().keep(delivery)
    logger.error("a delivery could not be parsed and was stored", key=key, reason=reason)
    with metrics_by() as metrics:
        metrics.add_metric("RejectedDeliveries", MetricUnit.Count, 1)


def keep_unanswerable_hint(report: TaskReport, request: CallbackRequest) -> None:
    """Stores a hint whose provider cannot be polled, because no usable API key is configured. Raises as `keep`."""
    if not report.is_hint:
        return
    try:
        api_key = dependencies().provider_keys.provider_keys(report.provider).usable_api_key
    except SettingsError:
        api_key = None
    if api_key is None:
        keep(request, report.remark)


def keep_accepted(request: CallbackRequest, report: TaskReport, recorded: Recorded) -> None:
    """Stores an accepted delivery in the bucket, under deliveries/, if the stack keeps accepted deliveries.

    A failure of S3 is only logged and counted: the report is written, so the provider need not send it again.
    """
    if not dependencies().keeps_accepted:
        return
    delivery = StoredDelivery(
        request.provider_id, request.received_at, recorded.outcome.value, request.headers, request.body
    )
    try:
        dependencies().accepted_deliveries().keep(delivery)
    except StoreUnavailableError as exc:
        report_failure(logger, "an accepted delivery was not kept; its report is written", exc, task=report.task)


def verify_signature(report: TaskReport, request: CallbackRequest) -> None:
    """Lets the provider check the signature if a webhook key is configured for it.

    A signature covers the task's id, so it can be verified only after the body was parsed.

    Raises:
        UnauthorizedError: the signature is not valid.
    """
    secret = dependencies().provider_keys
    keys = secret.provider_keys(report.provider)
    for name in keys.placeholders:
        logger.error("a key in the secret is a placeholder, it is not used", provider=report.provider, key=name)
    if keys.webhook_key is None:
        return
    versions = (provider_keys(version, report.provider).webhook_key for version in secret.versions())
    valid_keys = (key for key in versions if key)
    find_provider(report.provider).verify_callback(report, request.headers, valid_keys)


def acknowledge(report: TaskReport, recorded: Recorded) -> dict[str, Any]:
    """Logs and counts a callback that was recorded and returns a 200 response."""
    logger.info(
        "callback received",
        task=report.task,
        status=report.status,
        hint=report.remark or None,
        outcome=recorded.outcome,
        previous_status=recorded.previous_status,
    )
    count(report, recorded)
    if recorded.evidence_error:
        message = "the replaced failure was not added to `conflicts`"
        report_failure(logger, message, recorded.evidence_error, task=report.task)
    return answer(HTTPStatus.OK, {"status": "received"})


def count(report: TaskReport, recorded: Recorded) -> None:
    """Writes the metrics of a callback that was recorded."""
    with metrics_by(provider=report.provider) as metrics:
        metrics.add_metric("CallbacksReceived", MetricUnit.Count, 1)
        metrics.add_metric(f"Callbacks{recorded.outcome.title()}", MetricUnit.Count, 1)
        has_resolved = report.status is not TaskStatus.PENDING and recorded.previous_status in _UNRESOLVED
        if has_resolved and recorded.outcome is ReportOutcome.APPLIED:
            metrics.add_metric("ResolvedByCallback", MetricUnit.Count, 1)


def refuse(error: RequestError) -> dict[str, Any]:
    """Logs and counts an invalid callback and returns a 4xx response."""
    logger.warning("callback refused", reason=error.code, detail=str(error))
    with metrics_by(reason=error.code) as metrics:
        metrics.add_metric("CallbacksRefused", MetricUnit.Count, 1)
    return answer(error.status, {"error": error.code, "message": str(error)})


def defer(error: StoreUnavailableError, event: dict[str, Any], report: TaskReport | None) -> dict[str, Any]:
    """Logs and counts a callback that could not be written and returns a 503 response: the provider sends it again."""
    message = "callback not written, the provider will send it again"
    report_failure(logger, message, error, task=report.task if report else None)
    provider_id = event["pathParameters"]["provider"]
    # The token may not be verified yet: otherwise a sender without it could invent accounts, each of which would be a
    # new value of the dimension `provider` and cost money.
    with metrics_by(provider=provider_id if provider_id in [*PROVIDERS] else "unknown") as metrics:
        metrics.add_metric("CallbacksDeferred", MetricUnit.Count, 1)
    return answer(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "unavailable", "message": "not written, send it again"})


def answer(status: HTTPStatus, body: dict[str, str]) -> dict[str, Any]:
    """Returns an HTTP API response (payload format 2.0)."""
    return {"statusCode": status.value, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}

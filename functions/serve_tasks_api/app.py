"""ServeTasksApi: the tasks API. Submits and registers image generation tasks, and returns their status and images.

Five steps: decode, read, answer, encode, log. API Gateway has authenticated the caller. Refused requests are answered
with a problem body (application/problem+json) that says what to do next.
"""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from catchlight.api.presigned_urls import S3_CONFIG, PresignedLinks
from catchlight.api.problems import ACCOUNT_REFUSED, IN_DOUBT, MALFORMED_BODY, UNAVAILABLE, APIError
from catchlight.api.queries import TaskQueries
from catchlight.api.requests import read_body, read_idempotency_key, read_query
from catchlight.api.schemas import LinkQuery, PageQuery, Registration, ResponseModel, Submission, TaskQuery
from catchlight.api.tasks_api import TasksApi
from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import RotatingSecret
from catchlight.errors import SettingsError, StoreUnavailableError
from catchlight.models import utc_now
from catchlight.observability.failures import report_failure, reports_failures
from catchlight.observability.metrics import metrics_by
from catchlight.settings import ServeTasksApiSettings
from catchlight.tasks.registration import Registry
from catchlight.tasks.table import TasksTable

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_s3.client import S3Client

    from catchlight.api.submissions import Submissions

# A request that waits for a task is answered when this much of the function's time is left.
RESERVED_SECONDS = 3
RETRY_AFTER_SECONDS = 2

logger = Logger()


@dataclass(frozen=True, slots=True)
class Request:
    """The parts of an API Gateway event (HTTP API, payload format 2.0) on which the response depends."""

    route: str
    path: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: str
    is_base64_encoded: bool
    remaining_seconds: float

    def content(self) -> bytes:
        """Returns the body's bytes.

        Raises:
            APIError: the event marks the body as base64, but it is not valid base64.
        """
        # surrogatepass: a lone surrogate must not fail here; `read_body` rejects it.
        content = self.body.encode(errors="surrogatepass")
        if not self.is_base64_encoded:
            return content
        try:
            return base64.b64decode(content, validate=True)
        except binascii.Error:
            raise APIError(MALFORMED_BODY, "the body is not base64", advice="Send JSON in UTF-8.") from None


@dataclass(frozen=True, slots=True)
class Response:
    """A successful response, and the task to log."""

    status: HTTPStatus
    message: ResponseModel | None = None
    headers: dict[str, str] = field(default_factory=dict)
    task: str | None = None


class Dependencies:
    """Creates settings, secrets, clients and the objects built from them, each on first use."""

    def __init__(self) -> None:
        self._settings = ServeTasksApiSettings.from_environment()
        self._clients = AwsClients()
        # The three tries of a call without a response take 7 s; a provider's answer before that may have taken 18 s of
        # the 29 s in total.
        self._dynamodb = self._clients.dynamodb()
        self.api = TasksApi(
            TaskQueries(self._settings.tasks_table, self._dynamodb),
            Registry(TasksTable(self._settings.tasks_table, self._dynamodb)),
            links=self._links,
            now=utc_now,
        )

    @cached_property
    def submissions(self) -> "Submissions":
        """The service that submits generation requests to providers."""
        # Imported here: only submissions need httpcore, which is a twelfth of the imports of a cold start.
        from catchlight.api.idempotency import IdempotencyStore
        from catchlight.api.submission_client import SubmissionClient
        from catchlight.api.submissions import Submissions

        secrets_manager = self._clients.secrets_manager()
        return Submissions(
            IdempotencyStore(self._settings.tasks_table, self._dynamodb, retention=self._settings.task_retention_days),
            SubmissionClient(self._settings.provider_base_urls),
            RotatingSecret(self._settings.provider_keys_secret, secrets_manager).provider_keys,
            RotatingSecret(self._settings.callback_token_secret, secrets_manager).current,
            callback_base_url=self._settings.callback_base_url,
            now=utc_now,
        )

    @cached_property
    def _s3(self) -> "S3Client":
        # Only presigned links need it, and creating a client takes a tenth of a second.
        return self._clients.s3(S3_CONFIG)

    def _links(self, seconds: int) -> PresignedLinks:
        return PresignedLinks(lambda: self._s3, self._settings.images_bucket, seconds=seconds, now=utc_now())


dependencies = cache(Dependencies)


def about(event: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that identify a request in the log: route, task, and the id that the access log has too."""
    path = event.get("pathParameters") or {}
    task = f"{path['provider']}#{path['taskId']}" if "taskId" in path else None
    return {"route": event.get("routeKey"), "task": task, "request_id": event["requestContext"]["requestId"]}


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, about)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Handles a request to the tasks API. Answers with JSON, a redirect or a problem body."""
    request = decode(event, context)
    named = about(event)
    try:
        response = ROUTES[request.route](request)
    except APIError as exc:
        # An error with a cause is not the caller's error alone.
        write = logger.warning if exc.__cause__ else logger.info
        error = type(exc.__cause__ or exc).__name__
        write("refused", problem=exc.problem.name, error=error, detail=str(exc), **named)
        return refuse(exc)
    except (StoreUnavailableError, SettingsError) as exc:
        report_failure(logger, "not answered", exc, **named)
        return refuse(
            APIError(
                UNAVAILABLE,
                "the table or a secret cannot be read or written at the moment",
                advice="Send the same request again. If that does not help, the function's log says what is wrong.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        )
    logger.info("answered", status=response.status.value, **named | {"task": response.task})
    return encode(response)


def decode(event: dict[str, Any], context: "LambdaContext") -> Request:
    """Extracts the request from the event."""
    return Request(
        route=event["routeKey"],
        path=event.get("pathParameters") or {},
        query=event.get("queryStringParameters") or {},
        headers={name.lower(): value for name, value in (event.get("headers") or {}).items()},
        body=event.get("body") or "",
        is_base64_encoded=bool(event.get("isBase64Encoded")),
        remaining_seconds=context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS,
    )


# ------------------------------------------------------------------------------------------------ routes


def post_tasks(request: Request) -> Response:
    """Registers existing tasks of a provider, or submits a new one."""
    asked = read_body(request.content())
    if isinstance(asked, Registration):
        # Added to every log line of this request: if the table fails, only some of the tasks may be registered.
        logger.append_keys(tasks=[f"{asked.provider}#{task_id}" for task_id in asked.task_ids])
        return Response(HTTPStatus.OK, dependencies().api.register(asked))
    return submit(asked, read_idempotency_key(request.headers))


def submit(submission: Submission, key: str) -> Response:
    """Submits a generation request to its provider, unless this idempotency key was used before."""
    try:
        new = dependencies().submissions.submit(submission, key)
    except APIError as exc:
        count_and_report(exc, submission.provider, key)
        raise
    location = {"location": f"/tasks/{new.provider}/{new.task_id}"}
    return Response(HTTPStatus.CREATED, new, location, task=new.task)


def count_and_report(error: APIError, provider: str, key: str) -> None:
    """Counts a failed submission, and logs errors that concern the operator."""
    with metrics_by(provider=provider) as metrics:
        if error.problem is IN_DOUBT:
            metrics.add_metric("SubmissionsWithUnknownOutcome", MetricUnit.Count, 1)
        if error.problem is ACCOUNT_REFUSED:
            metrics.add_metric("ProviderRefused", MetricUnit.Count, 1)
    task = f"{provider}#{error.body.task_id}" if error.body.task_id else None
    if error.problem is IN_DOUBT and isinstance(error.__cause__, Exception):
        # The provider may have charged for images whose task the caller does not know.
        message = "submission in doubt: nothing is sent again with its key"
        report_failure(
            logger, message, error.__cause__, task=task, provider=provider, idempotency_key=key, detail=str(error)
        )
    if error.note_error:
        message = "what came of the submission was not noted: its key comes to be in doubt"
        report_failure(logger, message, error.note_error, provider=provider, idempotency_key=key)


def list_tasks(request: Request) -> Response:
    """Returns a page of tasks."""
    return Response(HTTPStatus.OK, dependencies().api.page(read_query(PageQuery, request.query)))


def get_task(request: Request) -> Response:
    """Returns one task, after waiting for it if the query requests that."""
    query = read_query(TaskQuery, request.query)
    found = dependencies().api.task(
        request.path["provider"], request.path["taskId"], query, max_wait_seconds=request.remaining_seconds
    )
    return Response(HTTPStatus.OK, found, task=found.task)


def get_image(request: Request) -> Response:
    """Redirects to a presigned URL of one image."""
    query = read_query(LinkQuery, request.query)
    link = dependencies().api.image_link(request.path["provider"], request.path["taskId"], request.path["image"], query)
    return Response(HTTPStatus.FOUND, headers={"location": link, "cache-control": "no-store"})


def delete_submission(request: Request) -> Response:
    """Releases the idempotency key of a submission with an unknown outcome, so that it can be submitted again."""
    dependencies().submissions.give_up(request.path["key"])
    # A warning, because the caller accepts that the images may be paid for twice.
    logger.warning("submission given up", key=request.path["key"])
    return Response(HTTPStatus.NO_CONTENT)


ROUTES: dict[str, Callable[[Request], Response]] = {
    "POST /tasks": post_tasks,
    "GET /tasks": list_tasks,
    "GET /tasks/{provider}/{taskId}": get_task,
    "GET /tasks/{provider}/{taskId}/images/{image}": get_image,
    "DELETE /submissions/{key}": delete_submission,
}


# ------------------------------------------------------------------------------------------------ answers


def encode(response: Response) -> dict[str, Any]:
    """Returns a successful response as an HTTP API response (payload format 2.0)."""
    headers = dict(response.headers)
    encoded: dict[str, Any] = {"statusCode": response.status.value, "headers": headers}
    if response.message is not None:
        headers["content-type"] = "application/json"
        encoded["body"] = response.message.model_dump_json(by_alias=True, exclude_none=True)
    return encoded


def refuse(error: APIError) -> dict[str, Any]:
    """Returns an error as an HTTP API response with a problem body (RFC 9457)."""
    headers = {"content-type": "application/problem+json"}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    # Not pydantic's JSON: a provider's text may contain a lone surrogate, which UTF-8 cannot encode.
    return {"statusCode": error.problem.status.value, "headers": headers, "body": json.dumps(error.members)}

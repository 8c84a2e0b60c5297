"""ServeTasksApi: the tasks API. Takes requests for images, and tells what has become of them.

Five moves: decode, read, answer, encode, log. API Gateway has checked who calls. What is refused is a problem body
that says what to do next.
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
from catchlight.observability.metrics import Unit, metrics_by
from catchlight.settings import ServeTasksApiSettings
from catchlight.tasks.registration import Registry

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_s3.client import S3Client

    from catchlight.api.submissions import Submissions

# Who waits for a task is answered with so much time left.
RESERVED_SECONDS = 3
RETRY_AFTER_SECONDS = 2

logger = Logger()


@dataclass(frozen=True, slots=True)
class Request:
    """What of an API Gateway event (HTTP API, payload format 2.0) an answer depends on."""

    route: str
    path: dict[str, str]
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: str
    is_base64_encoded: bool
    remaining_seconds: float

    def content(self) -> bytes:
        """The body.

        Raises:
            APIError: it is not the base64 that it claims to be.
        """
        # surrogatepass: half a character is refused where the body is read.
        content = self.body.encode(errors="surrogatepass")
        if not self.is_base64_encoded:
            return content
        try:
            return base64.b64decode(content, validate=True)
        except binascii.Error:
            raise APIError(MALFORMED_BODY, "the body is not base64", advice="Send JSON in UTF-8.") from None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, and what of it is logged."""

    status: HTTPStatus
    message: ResponseModel | None = None
    headers: dict[str, str] = field(default_factory=dict)
    task: str | None = None


class Dependencies:
    """Settings, secrets, clients and what is built of them, each made when it is needed first."""

    def __init__(self) -> None:
        self._settings = ServeTasksApiSettings.from_environment()
        self._clients = AwsClients()
        # The three tries of a call that nobody answers take 7 s: a provider may have taken 18 before, of 29 in all.
        self._dynamodb = self._clients.dynamodb()
        self.api = TasksApi(
            TaskQueries(self._settings.tasks_table, self._dynamodb),
            Registry(self._settings.tasks_table, self._dynamodb),
            links=self._links,
            now=utc_now,
        )

    @cached_property
    def submissions(self) -> "Submissions":
        """For those who order images."""
        # httpx, which nothing else here needs, is an eighth of what a cold start imports.
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
        # Only links need it, and a client costs a tenth of a second.
        return self._clients.s3(S3_CONFIG)

    def _links(self, seconds: int) -> PresignedLinks:
        return PresignedLinks(lambda: self._s3, self._settings.images_bucket, seconds=seconds, now=utc_now())


dependencies = cache(Dependencies)


def about(event: dict[str, Any]) -> dict[str, Any]:
    """What names a request in the log: its route, its task, and its id, which the API's access log has too."""
    path = event.get("pathParameters") or {}
    task = f"{path['provider']}#{path['taskId']}" if "taskId" in path else None
    return {"route": event.get("routeKey"), "task": task, "request_id": event["requestContext"]["requestId"]}


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, about)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Answers with JSON, a redirect or a problem body."""
    request = decode(event, context)
    named = about(event)
    try:
        response = ROUTES[request.route](request)
    except APIError as exc:
        # With a cause it is not the caller's doing alone.
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
    """The parts of the event that matter."""
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
    """Registers tasks, or submits one."""
    asked = read_body(request.content())
    if isinstance(asked, Registration):
        # On every line of this request: should the table fail, some are registered and some are not.
        logger.append_keys(tasks=[f"{asked.provider}#{task_id}" for task_id in asked.task_ids])
        return Response(HTTPStatus.OK, dependencies().api.register(asked))
    return submit(asked, read_idempotency_key(request.headers))


def submit(submission: Submission, key: str) -> Response:
    """Sends a request for images to its provider, unless that was done with this key before."""
    try:
        new = dependencies().submissions.submit(submission, key)
    except APIError as exc:
        count_and_report(exc, submission.provider, key)
        raise
    location = {"location": f"/tasks/{new.provider}/{new.task_id}"}
    return Response(HTTPStatus.CREATED, new, location, task=new.task)


def count_and_report(error: APIError, provider: str, key: str) -> None:
    """Counts a submission that has not become a task, and reports what an operator should know of it."""
    with metrics_by(provider=provider) as metrics:
        if error.problem is IN_DOUBT:
            metrics.add_metric("SubmissionsWithUnknownOutcome", Unit.COUNT, 1)
        if error.problem is ACCOUNT_REFUSED:
            metrics.add_metric("ProviderRefused", Unit.COUNT, 1)
    task = f"{provider}#{error.body.task_id}" if error.body.task_id else None
    if error.problem is IN_DOUBT and isinstance(error.__cause__, Exception):
        # Images may have been paid for that the caller does not know.
        message = "submission in doubt: nothing is sent again with its key"
        report_failure(
            logger, message, error.__cause__, task=task, provider=provider, idempotency_key=key, detail=str(error)
        )
    if error.note_error:
        message = "what came of the submission was not noted: its key comes to be in doubt"
        report_failure(logger, message, error.note_error, provider=provider, idempotency_key=key)


def list_tasks(request: Request) -> Response:
    """A page of tasks."""
    return Response(HTTPStatus.OK, dependencies().api.page(read_query(PageQuery, request.query)))


def get_task(request: Request) -> Response:
    """One task."""
    query = read_query(TaskQuery, request.query)
    found = dependencies().api.task(
        request.path["provider"], request.path["taskId"], query, max_wait_seconds=request.remaining_seconds
    )
    return Response(HTTPStatus.OK, found, task=found.task)


def get_image(request: Request) -> Response:
    """A redirect to one image."""
    query = read_query(LinkQuery, request.query)
    link = dependencies().api.image_link(request.path["provider"], request.path["taskId"], request.path["image"], query)
    return Response(HTTPStatus.FOUND, headers={"location": link, "cache-control": "no-store"})


def delete_submission(request: Request) -> Response:
    """Gives up a submission that is in doubt."""
    dependencies().submissions.give_up(request.path["key"])
    # Somebody has decided that it may cost twice.
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
    """An HTTP API response, payload format 2.0."""
    headers = dict(response.headers)
    encoded: dict[str, Any] = {"statusCode": response.status.value, "headers": headers}
    if response.message is not None:
        headers["content-type"] = "application/json"
        encoded["body"] = response.message.model_dump_json(by_alias=True, exclude_none=True)
    return encoded


def refuse(error: APIError) -> dict[str, Any]:
    """A problem body."""
    headers = {"content-type": "application/problem+json"}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    # Not pydantic's JSON: what a provider said may hold half a character, which has no bytes.
    return {"statusCode": error.problem.status.value, "headers": headers, "body": json.dumps(error.members)}

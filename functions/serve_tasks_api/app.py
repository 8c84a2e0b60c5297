"""ServeTasksApi: the tasks API. Submits and registers image generation tasks, and returns their status and images.

API Gateway has authenticated the caller. Powertools' resolver finds the route and validates the request.
docs/tasks-api.openapi.yaml is generated from the routes and responses that are declared here. Refused requests are
answered with a problem body (application/problem+json), whose `advice` says what the caller can do next.
"""

import binascii
import json
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Path, Query
from aws_lambda_powertools.metrics import MetricUnit

from catchlight.api import problems
from catchlight.api.documentation import location, responses, retry_after, success
from catchlight.api.presigned_urls import S3_CONFIG, PresignedLinks
from catchlight.api.problems import ACCOUNT_REFUSED, UNKNOWN_OUTCOME, APIError, temporarily_unavailable
from catchlight.api.queries import TaskQueries
from catchlight.api.request_models import (
    IDEMPOTENCY_KEY_PATTERN,
    ImageQuery,
    PageQuery,
    Registration,
    Submission,
    TaskQuery,
)
from catchlight.api.requests import (
    decode_body,
    invalid_request,
    malformed_body,
    read_idempotency_key,
    refuse_unknown_parameters,
)
from catchlight.api.response_models import NewTask, RegisteredTasks, ResponseModel, TaskPage, TaskResponse
from catchlight.api.submission_problems import no_such_submission
from catchlight.api.tasks_api import TasksApi, no_such_task
from catchlight.api.wait_slots import WaitSlots
from catchlight.aws.clients import AwsClients
from catchlight.aws.secrets import RotatingSecret
from catchlight.errors import MalformedBodyError, SettingsError, StoreUnavailableError
from catchlight.models import TASK_ID_PATTERN, utc_now
from catchlight.observability.failures import report_failure, reports_failures
from catchlight.observability.log_lines import log_line
from catchlight.observability.metrics import metrics_by
from catchlight.providers import PROVIDER_ID_PATTERN
from catchlight.settings import ServeTasksApiSettings
from catchlight.tasks.registration import Registry
from catchlight.tasks.table import TasksTable

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from catchlight.api.submissions import Submissions

# A request that waits for a task is answered at the latest when this much of the function's time is left.
RESERVED_SECONDS = 3

logger = Logger(json_serializer=log_line)


class Dependencies:
    """Creates settings, secrets, clients and the objects built from them, each on first use."""

    def __init__(self) -> None:
        self._settings = ServeTasksApiSettings.from_environment()
        self._clients = AwsClients()
        # The client's three tries take 7 s without a response, after up to 18 s for a provider's response: together
        # less than the function's timeout of 29 s.
        self._dynamodb = self._clients.dynamodb()
        table = TasksTable(self._settings.tasks_table, self._dynamodb)
        # Created on first use: only presigned links need it, and creating a client takes a tenth of a second.
        s3 = cache(lambda: self._clients.s3(S3_CONFIG))
        bucket = self._settings.images_bucket
        self.api = TasksApi(
            TaskQueries(self._settings.tasks_table, self._dynamodb),
            Registry(table),
            WaitSlots(table, self._settings.tasks_api_wait_limit, now=utc_now),
            links=lambda seconds: PresignedLinks(s3, bucket, seconds=seconds, now=utc_now()),
            now=utc_now,
        )

    @cached_property
    def submissions(self) -> "Submissions":
        """Submits generation requests to providers."""
        # Imported here: only submissions need httpcore, which takes a twelfth of the import time of a cold start.
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


dependencies = cache(Dependencies)


def about(event: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of every log line of a request: route, task, and its id in API Gateway's access log."""
    path = event.get("pathParameters") or {}
    task = f"{path['provider']}#{path['taskId']}" if "taskId" in path else None
    return {"route": event.get("routeKey"), "task": task, "request_id": event["requestContext"]["requestId"]}


@logger.inject_lambda_context(clear_state=True)
@reports_failures(logger, about)
def handler(event: dict[str, Any], context: "LambdaContext") -> dict[str, Any]:
    """Handles a request to the tasks API. Answers with JSON, a redirect or a problem body."""
    logger.append_keys(**about(event))
    # Powertools refuses or converts bodies of other types. HTTP clients such as curl send JSON with the type of a form.
    headers = {**(event.get("headers") or {}), "content-type": "application/json"}
    return api.resolve({**event, "headers": headers}, context)


api = APIGatewayHttpResolver(enable_validation=True, json_body_deserializer=decode_body)

Provider = Annotated[str, Path(json_schema_extra={"pattern": PROVIDER_ID_PATTERN})]
TaskIdInPath = Annotated[str, Path(alias="taskId", json_schema_extra={"pattern": TASK_ID_PATTERN})]


# ------------------------------------------------------------------------------------------------ routes


@api.post(
    "/tasks",
    tags=["Tasks"],
    operation_id="registerTasks",
    summary="Registers tasks that were submitted elsewhere",
    description=(
        "Registered tasks are polled if their callbacks get lost. This route sends nothing to the provider: a caller "
        "with permission for this route only cannot cause costs there.\n"
    ),
    responses=responses(
        HTTPStatus.OK,
        success("All tasks are registered; `outcome` shows which ones were before", RegisteredTasks),
        *(problems.MALFORMED_BODY, problems.BODY_TOO_LARGE, problems.INVALID_REQUEST),
    ),
)
def register_tasks(body: Annotated[Registration, Body()]) -> Response[str | None]:
    """Registers existing tasks of a provider."""
    # Added to every log line of this request: if DynamoDB fails, only some of the tasks may be registered.
    logger.append_keys(tasks=[f"{body.provider}#{task_id}" for task_id in body.task_ids])
    return answer(HTTPStatus.OK, dependencies().api.register(body))


@api.post(
    "/submissions",
    tags=["Submissions"],
    operation_id="submitTask",
    summary="Submits a request for images",
    description=(
        "Catchlight adds its callback URL to the request, sends it to the provider, and registers the task that the "
        "provider creates. A request that contains a callback URL is refused.\n"
    ),
    responses=responses(
        HTTPStatus.CREATED,
        success(
            "The provider accepted the request, and the task is registered. The same request with the same key gets "
            "the same response",
            NewTask,
            location("Path of the task in this API"),
        ),
        *(problems.MALFORMED_BODY, problems.INVALID_PARAMETER, problems.KEY_MISSING, problems.BODY_TOO_LARGE),
        *(problems.IN_PROGRESS, problems.UNKNOWN_OUTCOME, problems.INVALID_REQUEST, problems.KEY_USED),
        *(problems.REQUEST_REFUSED, problems.ACCOUNT_REFUSED, problems.PROVIDER_BUSY, problems.PROVIDER_UNAVAILABLE),
    ),
)
def submit_task(
    body: Annotated[Submission, Body()],
    idempotency_key: Annotated[
        str | None,
        Header(
            alias="Idempotency-Key",
            description="Required. It is stored with the task.",
            json_schema_extra={"pattern": IDEMPOTENCY_KEY_PATTERN},
        ),
    ] = None,
) -> Response[str | None]:
    """Submits a generation request to its provider, unless its idempotency key was used before."""
    key = read_idempotency_key(idempotency_key)
    try:
        new = dependencies().submissions.submit(body, key)
    except APIError as exc:
        count_and_report(exc, body.provider, key)
        raise
    logger.append_keys(task=new.task)
    return answer(HTTPStatus.CREATED, new, {"location": f"/tasks/{new.provider}/{new.task_id}"})


def count_and_report(error: APIError, provider: str, key: str) -> None:
    """Counts a failed submission, and logs an unknown outcome and an outcome that could not be recorded."""
    with metrics_by(provider=provider) as metrics:
        if error.problem is UNKNOWN_OUTCOME:
            metrics.add_metric("SubmissionsWithUnknownOutcome", MetricUnit.Count, 1)
        if error.problem is ACCOUNT_REFUSED:
            metrics.add_metric("ProviderRefused", MetricUnit.Count, 1)
    task = f"{provider}#{error.body.task_id}" if error.body.task_id else None
    if error.problem is UNKNOWN_OUTCOME and isinstance(error.__cause__, Exception):
        # The provider may have charged for images whose task the caller does not know.
        message = "the outcome of a submission is unknown: nothing is sent again with its key"
        report_failure(
            logger, message, error.__cause__, task=task, provider=provider, idempotency_key=key, detail=str(error)
        )
    if error.store_error:
        message = "the outcome of the submission could not be recorded: it will count as unknown"
        report_failure(logger, message, error.store_error, provider=provider, idempotency_key=key)


@api.get(
    "/tasks",
    tags=["Tasks"],
    operation_id="listTasks",
    summary="Lists tasks, the newest first",
    description=(
        "Tasks are sorted by the time of their first write to the table; with `status`, by the time of their last "
        "change. A task that changes between two requests may then be listed twice or not at all.\n\nAn item that a "
        "user has written to the table without `feed` and `arrivedAt` is listed once Catchlight has added these "
        "attributes, usually within seconds.\n"
    ),
    responses=responses(HTTPStatus.OK, success("One page of tasks", TaskPage), problems.INVALID_PARAMETER),
)
def list_tasks(query: Annotated[PageQuery, Query()]) -> Response[str | None]:
    """Returns a page of tasks."""
    refuse_unknown_parameters(PageQuery, api.current_event.raw_query_string)
    return answer(HTTPStatus.OK, dependencies().api.page(query))


@api.get(
    "/tasks/<provider>/<taskId>",
    tags=["Tasks"],
    operation_id="getTask",
    summary="Looks up one task, with links to its images",
    description=(
        "With `wait`, the response is sent when the task is done, or after this number of seconds. If too many "
        "requests are waiting already, it is sent at once, with Retry-After.\n"
    ),
    responses=responses(
        HTTPStatus.OK,
        success(
            "The task at the time of the response",
            TaskResponse,
            retry_after("Seconds; present if the request did not wait because too many others were waiting"),
        ),
        *(problems.INVALID_PARAMETER, problems.NO_SUCH_TASK, problems.UNREADABLE_ITEM),
    ),
)
def get_task(
    provider: Provider,
    taskId: TaskIdInPath,  # noqa: N803 - as in the path
    query: Annotated[TaskQuery, Query()],
) -> Response[str | None]:
    """Returns one task; waits until it is done if the query requests that."""
    refuse_unknown_parameters(TaskQuery, api.current_event.raw_query_string)
    seconds = api.lambda_context.get_remaining_time_in_millis() / 1000 - RESERVED_SECONDS
    found = dependencies().api.task(provider, taskId, query, max_wait_seconds=seconds)
    seconds_to_wait = found.retry_after_seconds
    headers = None if seconds_to_wait is None else {"retry-after": str(seconds_to_wait)}
    return answer(HTTPStatus.OK, found.task, headers)


@api.get(
    "/tasks/<provider>/<taskId>/images/<image>",
    tags=["Images"],
    operation_id="getImage",
    summary="Redirects to an archived image",
    description="The URL in `Location` is presigned: anyone can read the image with it, by GET, without credentials.\n",
    responses=responses(
        HTTPStatus.FOUND,
        success(
            "The image is at the URL in `Location`",
            headers=location("Presigned URL, valid for `linkSeconds` seconds"),
        ),
        *(problems.INVALID_PARAMETER, problems.NO_SUCH_TASK, problems.NO_SUCH_IMAGE),
        *(problems.IMAGE_NOT_ARCHIVED, problems.UNREADABLE_ITEM),
    ),
)
def get_image(
    provider: Provider,
    taskId: TaskIdInPath,  # noqa: N803
    image: Annotated[
        str,
        Path(
            description="`{kind}-{index}`, for example `result-0`.",
            json_schema_extra={"pattern": "^(origin|result)-[0-9]{1,2}$"},
        ),
    ],
    query: Annotated[ImageQuery, Query()],
) -> Response[str | None]:
    """Redirects to a presigned URL of one image."""
    refuse_unknown_parameters(ImageQuery, api.current_event.raw_query_string)
    link = dependencies().api.image_link(provider, taskId, image, query)
    return answer(HTTPStatus.FOUND, headers={"location": link, "cache-control": "no-store"})


@api.delete(
    "/submissions/<key>",
    tags=["Submissions"],
    operation_id="releaseKey",
    summary="Releases the key of a submission whose outcome is unknown",
    description=(
        "The next request with the key is sent to the provider, even if the provider has accepted the first one: the "
        "caller may pay for the images twice.\n"
    ),
    responses=responses(
        HTTPStatus.NO_CONTENT,
        success("The key is released: the next request with it is sent to the provider"),
        *(problems.INVALID_PARAMETER, problems.NO_SUCH_SUBMISSION, problems.IN_PROGRESS, problems.OUTCOME_KNOWN),
    ),
)
def delete_submission(
    key: Annotated[
        str,
        Path(
            description="The `Idempotency-Key` of the submission.",
            json_schema_extra={"pattern": IDEMPOTENCY_KEY_PATTERN},
        ),
    ],
) -> Response[str | None]:
    """Releases the idempotency key of a submission with an unknown outcome, so that it can be submitted again."""
    dependencies().submissions.release(key)
    # Level WARNING, because the caller may pay for the images twice.
    logger.warning("idempotency key released", key=key)
    return answer(HTTPStatus.NO_CONTENT)


# ------------------------------------------------------------------------------------------------ responses


def answer(
    status: HTTPStatus, message: ResponseModel | None = None, headers: dict[str, str] | None = None
) -> Response[str | None]:
    """Logs and returns a successful response."""
    logger.info("answered", status=status.value)
    if message is None:
        # API Gateway's documentation allows a string as body, not null.
        return Response(status.value, body="", headers=headers)
    body = message.model_dump_json(by_alias=True, exclude_none=True)
    return Response(status.value, "application/json", body, headers=headers)


def refuse(error: APIError) -> Response[str | None]:
    """Logs a refused request and returns its problem body (RFC 9457)."""
    # An error with a cause is not the caller's alone: a provider, an AWS service or a stored item has failed.
    write = logger.warning if error.__cause__ else logger.info
    name = type(error.__cause__ or error).__name__
    write("refused", problem=error.problem.name, error=name, detail=str(error))
    return problem_response(error)


def problem_response(error: APIError) -> Response[str | None]:
    """Returns the problem body of an error."""
    headers = {}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    # Not pydantic's JSON: a provider's text may contain a lone surrogate, which only json.dumps escapes.
    return Response(error.problem.status.value, "application/problem+json", json.dumps(error.members), headers=headers)


def unavailable(error: Exception) -> Response[str | None]:
    """Logs and counts a failed call to AWS, or invalid settings, and returns a problem body with Retry-After."""
    report_failure(logger, "the request failed, its caller is asked to repeat it", error)
    return problem_response(temporarily_unavailable())


def refuse_invalid(error: RequestValidationError) -> Response[str | None]:
    """Refuses a request whose query or body does not match the declaration of its route."""
    return refuse(invalid_request(error.errors()))


def refuse_unreadable(error: Exception) -> Response[str | None]:
    """Refuses a body that is not strict JSON in UTF-8."""
    return refuse(malformed_body(error))


def refuse_path(_: NotFoundError) -> Response[str | None]:
    """Refuses a path with characters that Powertools' routes do not match: no task id and no key contains them."""
    return refuse(no_such_submission() if "key" in api.current_event.path_parameters else no_such_task("such a task"))


# Called as functions, because Powertools' decorators have no types.
api.exception_handler(APIError)(refuse)
api.exception_handler([StoreUnavailableError, SettingsError])(unavailable)
api.exception_handler(RequestValidationError)(refuse_invalid)
api.exception_handler([MalformedBodyError, UnicodeDecodeError, binascii.Error])(refuse_unreadable)
api.exception_handler(NotFoundError)(refuse_path)

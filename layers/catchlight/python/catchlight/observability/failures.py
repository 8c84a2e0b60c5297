"""Logs and counts failures in the same way for all functions.

Lambda's own metric does not count exceptions that a function handles.
"""

import json
from collections.abc import Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import MetricUnit

from catchlight.observability.metrics import metrics_by

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

Result = TypeVar("Result")
Event = dict[str, Any]
Handler = Callable[[Event, "LambdaContext"], Result]


def report_failure(logger: Logger, message: str, error: Exception, **fields: Any) -> None:
    """Writes a log line of level ERROR with the exception and these fields, and counts the failure by exception type.

    The message must say what happens next. `fields` identify the failed operation: `task`, `tasks`, `request_id`.
    """
    # `stacklevel`: the log line has the location of the caller instead of this function's.
    logger.exception(message, exc_info=error, stacklevel=3, **fields)
    count_failure(type(error).__name__)


def count_failure(reason: str) -> None:
    """Counts a failure that has been logged already. FunctionErrorsAlarm adds this count to Lambda's own errors."""
    with metrics_by(reason=reason) as metrics:
        metrics.add_metric("ProcessingErrors", MetricUnit.Count, 1)


def reports_failures(
    logger: Logger, about: Callable[[Event], Mapping[str, Any]]
) -> Callable[[Handler[Result]], Handler[Result]]:
    """Decorates a handler: an exception that ends an invocation is logged, counted and raised again.

    Lambda logs the exception too, but without the tasks of the event. `about` returns these as log fields.
    """

    def decorate(handler: Handler[Result]) -> Handler[Result]:
        @wraps(handler)
        def reported(event: Event, context: "LambdaContext") -> Result:
            try:
                return handler(event, context)
            except Exception as exc:
                report_failure(logger, "invocation failed, its caller will try again", exc, **_fields(about, event))
                raise

        return reported

    return decorate


def _fields(about: Callable[[Event], Mapping[str, Any]], event: Event) -> Mapping[str, Any]:
    try:
        return about(event)
    except Exception:  # noqa: BLE001 - the event has an unknown format, which the reported exception shows
        return {}


def stream_tasks(event: Event) -> dict[str, list[str | None]]:
    """Returns the task keys of all records in a DynamoDB stream event, as log fields."""
    return {"tasks": [stream_task(record) for record in event["Records"]]}


def stream_task(record: Event) -> str | None:
    """Returns the task key of a DynamoDB stream record; None if the record has another format."""
    try:
        task: str = record["dynamodb"]["Keys"]["task"]["S"]
    except (KeyError, TypeError):
        return None
    return task


def message_tasks(event: Event) -> dict[str, Any]:
    """Returns the task keys of all messages in an SQS event, as log fields."""
    return {"tasks": [message_task(message) for message in event["Records"]]}


def message_task(message: Event) -> str | None:
    """Returns the task key in the body of an SQS message; None if the message has another format."""
    try:
        task = json.loads(message["body"])["task"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return task if isinstance(task, str) else None

"""Writes log lines with the same fields as Powertools' Logger, for ReceiveCallback, whose callers wait for it.

Powertools' Logger takes 7 ms of a cold start, and 70 µs of each callback, which is a tenth of its CPU time.
"""

import json
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from catchlight import settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

Result = TypeVar("Result")
Handler = Callable[[dict[str, Any], "LambdaContext"], Result]

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class StructuredLog:
    """Writes one JSON object per line to standard output."""

    def __init__(self) -> None:
        self._service = settings.service_name()
        self._least_level = _LEVELS.get(settings.log_level(), _LEVELS["INFO"])
        self._invocation: dict[str, Any] = {}
        self._is_cold_start = True

    def names_invocations(self, handler: Handler[Result]) -> Handler[Result]:
        """Decorates a handler: every log line of an invocation contains its function and request id."""

        @wraps(handler)
        def named(event: dict[str, Any], context: "LambdaContext") -> Result:
            self._invocation = {
                "cold_start": self._is_cold_start,
                "function_name": context.function_name,
                "function_memory_size": context.memory_limit_in_mb,
                "function_arn": context.invoked_function_arn,
                "function_request_id": context.aws_request_id,
            }
            self._is_cold_start = False
            return handler(event, context)

        return named

    def info(self, message: str, **fields: Any) -> None:
        """Logs expected behaviour."""
        self._write("INFO", message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Logs an error of the caller."""
        self._write("WARNING", message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Logs an error that requires the attention of an operator."""
        self._write("ERROR", message, fields)

    def exception(self, msg: str, *, exc_info: BaseException, stacklevel: int = 2, **fields: Any) -> None:
        """Logs an error with its exception and traceback. `stacklevel` is as in Powertools' Logger: 2 is the caller."""
        text = "".join(traceback.format_exception(exc_info)).rstrip()
        self._write("ERROR", msg, {**fields, "exception": text, "exception_name": type(exc_info).__name__}, stacklevel)

    def _write(self, level: str, message: str, fields: dict[str, Any], stacklevel: int = 2) -> None:
        if _LEVELS[level] < self._least_level:
            return
        caller = sys._getframe(stacklevel)
        now = datetime.now(UTC)
        line = {
            "level": level,
            "location": f"{caller.f_code.co_name}:{caller.f_lineno}",
            "message": message,
            "timestamp": f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d}+0000",
            "service": self._service,
            **self._invocation,
            **fields,
            "xray_trace_id": settings.trace_id(),
        }
        told = {name: value for name, value in line.items() if value is not None}
        # In one write: CloudWatch may turn two writes to standard output into two log events.
        sys.stdout.write(json.dumps(told, separators=(",", ":")) + "\n")

"""Runs functions and state machines: moto would start a container for a function, and only store a state machine."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend
from moto.core.config import default_user_config
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.backend.execution import BaseExecutionWorkerCommunication

from local.lambda_.runtime import TooManyRequestsError
from local.lambda_.runtime_api import InvocationResult

FunctionInvoker = Callable[[str, bytes], InvocationResult]
"""Runs the function with this name or ARN and returns its outcome. Raises KeyError if there is no such function."""


@contextmanager
def functions_run_by(invoke_function: FunctionInvoker) -> Iterator[None]:
    """Makes Lambda's Invoke run the stack's own functions: moto would start Docker containers."""

    def invoke(
        _: LambdaBackend, function_name: str, _qualifier: Any, body: Any, _headers: Any, response_headers: Any
    ) -> bytes:
        payload = body if isinstance(body, bytes) else (body or "{}").encode()
        try:
            outcome = invoke_function(function_name, payload)
        except KeyError as exc:
            raise _lambda_error("ResourceNotFoundException", f"Function not found: {function_name}", 404) from exc
        except TooManyRequestsError as exc:
            raise _lambda_error("TooManyRequestsException", "Rate Exceeded.", 429) from exc
        if outcome.function_error:
            response_headers["x-amz-function-error"] = outcome.function_error
        return outcome.payload

    with mock.patch.object(LambdaBackend, "invoke", invoke):
        yield


def _lambda_error(code: str, message: str, status: int) -> LambdaClientError:
    error = LambdaClientError(code, message)
    error.code = status
    return error


@contextmanager
def state_machines_execute(time_scale: float, lambda_client: Callable[[], Any]) -> Iterator[None]:
    """Executes state machines instead of only storing them, with scaled waits and scaled delays before retries."""

    def wait(self: WaitFunction, env: Any) -> None:
        # moto's own loop counts whole seconds, so a scaled wait of less than a second would never end.
        deadline = time.monotonic() + self._get_wait_seconds(env=env) * time_scale
        while env.is_running() and (remaining := deadline - time.monotonic()) > 0:
            env.program_state_event.wait(remaining)

    def client_for(**_: Any) -> Any:
        return lambda_client()

    clock = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * time_scale))
    with (
        mock.patch.dict(default_user_config, {"stepfunctions": {"execute_state_machine": True}}),
        mock.patch.object(WaitFunction, "_eval_body", wait),
        mock.patch.object(retrier_decl, "time", clock),
        # For each call moto creates a client for "localhost" from boto3's default session, which threads must not
        # share.
        mock.patch.object(lambda_eval_utils, "boto_client_for", client_for),
    ):
        yield


@contextmanager
def failed_executions_are_reported(on_failure: Callable[[str, str], None]) -> Iterator[None]:
    """Calls `on_failure` for failed executions, which moto records in the execution history only."""
    terminated = BaseExecutionWorkerCommunication.terminated

    def report_failure(self: BaseExecutionWorkerCommunication) -> None:
        terminated(self)
        execution = self.execution
        if execution.status in ("FAILED", "TIMED_OUT"):
            reason = f"{execution.error or execution.status}: {execution.cause or 'no cause given'}"
            on_failure(execution.state_machine.name, f"{reason} (execution {execution.name})")

    with mock.patch.object(BaseExecutionWorkerCommunication, "terminated", report_failure):
        yield

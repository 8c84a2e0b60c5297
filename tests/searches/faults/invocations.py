"""Models invocations as values: the input of a function and the answers that it has received so far.

A function is deterministic: its input and the received answers determine its next request. To find this request, the
function is run from the beginning with the recorded answers, and is stopped at its first request without one.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from unittest import mock

from botocore.client import BaseClient
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.searches.faults.account import AwsResponse, Call

# Calls of these services are not steps of the exploration: secrets do not change, and warm functions cache them.
_UNSCHEDULED = {"secretsmanager"}


class Fault(StrEnum):
    """A fault in one call of an AWS client."""

    CRASHED_BEFORE = "crashed before"  # the invocation ends before the call
    CRASHED_AFTER = "crashed after"  # the invocation ends after the call, before it receives the answer
    REFUSED = "refused"  # the call is throttled in all attempts of the client
    UNANSWERED = "unanswered"  # the call was made, the answer is lost
    REPEATED = "repeated"  # the call was made, the answer is lost, and the client repeats the call


CRASHES = (Fault.CRASHED_BEFORE, Fault.CRASHED_AFTER)


@dataclass(frozen=True, slots=True)
class ExternalRequest:
    """A request that is not a modelled AWS call, such as a poll: the action `what` on the object `which`."""

    what: str
    which: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.which}".rstrip()


Request = Call | ExternalRequest


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an invocation: the function's result or its error."""

    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """An invocation in progress. Equal invocations make the same next request."""

    name: str  # function and number: "archive 1"
    event: str
    now: datetime  # the time of its clock
    answers: tuple[AwsResponse | Fault, ...] = ()

    @property
    def function(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def index(self) -> int:
        """The number in its name, from 0."""
        return int(self.name.rpartition(" ")[2]) - 1

    def with_answer(self, answer: AwsResponse | Fault) -> "Invocation":
        return replace(self, answers=(*self.answers, answer))


class _Stopped(BaseException):
    """Stops a function at a request without an answer. A BaseException, so that no `except Exception` catches it."""


class _DiscardedOutput(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


class FunctionRunner:
    """Runs functions, given by name, until their first request without a recorded answer."""

    def __init__(self, functions: Mapping[str, Callable[[str], Any]]) -> None:
        self._functions = functions
        self._known: dict[Invocation, Request | Ended] = {}
        self._current: Invocation | None = None
        self._requests: list[Request] = []
        self.runs = 0  # number of function runs

    def clear(self) -> None:
        """Clears the recorded steps, which depend on the functions' settings."""
        self._known.clear()

    @property
    def now(self) -> datetime:
        """The time of the running invocation's clock."""
        assert self._current is not None
        return self._current.now

    def next_of(self, invocation: Invocation) -> Request | Ended:
        """Returns the next request of an invocation, or its end."""
        if invocation not in self._known:
            self._known[invocation] = self._run(invocation)
        return self._known[invocation]

    def answer_to(self, request: Request) -> AwsResponse:
        """Returns the recorded answer to a request of the running function.

        Raises:
            ClientError, BotoCoreError: the call failed.
        """
        assert self._current is not None
        position = len(self._requests)
        self._requests.append(request)
        if position >= len(self._current.answers):
            raise _Stopped
        match self._current.answers[position]:
            case Fault.REFUSED:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, str(request))
            case Fault.UNANSWERED:
                raise ReadTimeoutError(endpoint_url="https://aws.example")
            case AwsResponse() as answer:
                return answer
        raise AssertionError("a crashed invocation has no result")

    def _run(self, invocation: Invocation) -> Request | Ended:
        self.runs += 1
        self._current, self._requests = invocation, []
        try:
            with redirect_stdout(_DiscardedOutput()):
                ended = Ended(self._functions[invocation.function](invocation.event))
        except _Stopped:
            ended = Ended()
        except Exception as exc:  # noqa: BLE001 - Lambda catches all errors of a function
            ended = Ended(error=exc)
        finally:
            self._current = None
        self._check_repetition(invocation)
        return self._requests[len(invocation.answers)] if len(self._requests) > len(invocation.answers) else ended

    def _check_repetition(self, invocation: Invocation) -> None:
        """Checks that the function makes the same requests when it receives the same answers; the model requires it."""
        for position in range(len(invocation.answers)):
            before = replace(invocation, answers=invocation.answers[:position])
            earlier, request = self._known[before], self._requests[position]
            assert earlier == request, f"{invocation.name} made the request {earlier}, and in a repeated run {request}"

    @contextmanager
    def intercepted_calls(self) -> Iterator[None]:
        """Routes every client call through this runner while a function is running."""
        make = BaseClient._make_api_call  # type: ignore[attr-defined] # not in the stubs

        def call_or_answer(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            if self._current is None or client.meta.service_model.service_name in _UNSCHEDULED:
                return make(client, operation, parameters)
            call = Call.of(client, operation, parameters, make)
            return self.answer_to(call).return_or_raise(call)

        with mock.patch.object(BaseClient, "_make_api_call", call_or_answer):
            yield


class InlineExecutor(Executor):
    """Replaces a thread pool: runs each task immediately in the calling thread."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as exc:  # noqa: BLE001 - the future raises it in its caller
            future.set_exception(exc)
        return future

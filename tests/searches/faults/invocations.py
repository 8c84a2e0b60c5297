"""Models invocations as values: the input of a function and the answers that it has received so far.

A function is deterministic: its next step follows from its input and the received answers. So an invocation needs no
waiting thread. To learn its next request, the function is run from the beginning with the recorded answers, and is
stopped at its first request without an answer.
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

from tests.searches.faults.account import Answer, Call

# The clients' secrets do not change, and a warm function has cached them.
_UNSCHEDULED = {"secretsmanager"}


class Fault(StrEnum):
    """The faults that one call can meet."""

    CRASHED_BEFORE = "crashed before"  # the invocation ends, the call was never made
    CRASHED_AFTER = "crashed after"  # the call was made, the invocation ends before the answer
    REFUSED = "refused"  # throttled, after all attempts of the client
    UNANSWERED = "unanswered"  # made, and the answer was lost
    REPEATED = "repeated"  # made, the answer was lost, and the client has repeated it


CRASHES = (Fault.CRASHED_BEFORE, Fault.CRASHED_AFTER)


@dataclass(frozen=True, slots=True)
class ExternalRequest:
    """A request outside the modelled AWS calls, such as to the provider: the action `what` on the object `which`."""

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
    """An invocation in progress. Equal invocations behave the same."""

    name: str  # function and number: "archive 1"
    event: str
    now: datetime  # its clock
    heard: tuple[Answer | Fault, ...] = ()

    @property
    def function(self) -> str:
        return self.name.partition(" ")[0]

    @property
    def index(self) -> int:
        """The number in its name, from 0."""
        return int(self.name.rpartition(" ")[2]) - 1

    def hears(self, answer: Answer | Fault) -> "Invocation":
        return replace(self, heard=(*self.heard, answer))


class _Stopped(BaseException):
    """Stops a function at a request without an answer. Not an Exception, so that the function does not handle it."""


class _Nowhere(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


class Player:
    """Runs functions, given by name, as far as recorded answers allow."""

    def __init__(self, functions: Mapping[str, Callable[[str], Any]]) -> None:
        self._functions = functions
        self._known: dict[Invocation, Request | Ended] = {}
        self._playing: Invocation | None = None
        self._requests: list[Request] = []
        self.played = 0  # number of function runs

    def forget(self) -> None:
        """Clears the recorded steps: with other settings functions behave differently."""
        self._known.clear()

    @property
    def now(self) -> datetime:
        """The clock of the invocation that is running."""
        assert self._playing is not None
        return self._playing.now

    def next_of(self, invocation: Invocation) -> Request | Ended:
        """Returns the next request of an invocation, or its end."""
        if invocation not in self._known:
            self._known[invocation] = self._play(invocation)
        return self._known[invocation]

    def ask(self, request: Request) -> Answer:
        """Returns the recorded answer to a request of the running function.

        Raises:
            ClientError, BotoCoreError: the call failed.
        """
        assert self._playing is not None
        position = len(self._requests)
        self._requests.append(request)
        if position >= len(self._playing.heard):
            raise _Stopped
        match self._playing.heard[position]:
            case Fault.REFUSED:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, str(request))
            case Fault.UNANSWERED:
                raise ReadTimeoutError(endpoint_url="https://aws.example")
            case Answer() as answer:
                return answer
        raise AssertionError("a crashed invocation has no result")

    def _play(self, invocation: Invocation) -> Request | Ended:
        self.played += 1
        self._playing, self._requests = invocation, []
        try:
            with redirect_stdout(_Nowhere()):
                ended = Ended(self._functions[invocation.function](invocation.event))
        except _Stopped:
            ended = Ended()
        except Exception as exc:  # noqa: BLE001 - Lambda handles it
            ended = Ended(error=exc)
        finally:
            self._playing = None
        self._check_repetition(invocation)
        return self._requests[len(invocation.heard)] if len(self._requests) > len(invocation.heard) else ended

    def _check_repetition(self, invocation: Invocation) -> None:
        """Checks that the function repeats its requests when it receives the same answers: the model depends on it."""
        for position in range(len(invocation.heard)):
            before = replace(invocation, heard=invocation.heard[:position])
            asked, asks = self._known[before], self._requests[position]
            assert asked == asks, f"{invocation.name} asked for {asked}, and the next time for {asks}"

    @contextmanager
    def takes_calls(self) -> Iterator[None]:
        """Routes every client call through this player while a function is running."""
        make = BaseClient._make_api_call  # type: ignore[attr-defined] # not in the stubs

        def ask(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            if self._playing is None or client.meta.service_model.service_name in _UNSCHEDULED:
                return make(client, operation, parameters)
            call = Call.of(client, operation, parameters, make)
            return self.ask(call).give(call)

        with mock.patch.object(BaseClient, "_make_api_call", ask):
            yield


class Inline(Executor):
    """Replaces a thread pool: concurrent work of an invocation runs sequentially."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as exc:  # noqa: BLE001 - the future passes it on to its caller
            future.set_exception(exc)
        return future

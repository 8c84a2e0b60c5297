"""Invocations as values: what a function was given, and what it has heard since.

A function is deterministic: what it does next follows from what it was given and what it has heard. So an invocation
needs no thread that waits. To learn what it does next, the function is run from its beginning, hears again what it has
heard, and is stopped at its first request that has no answer yet.
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

from tests.faults.account import Answer, Call

# What a client needs to know of its secrets does not change, and a warm function knows it already.
_UNSCHEDULED = {"secretsmanager"}


class Fault(StrEnum):
    """What may go wrong with one call."""

    CRASHED_BEFORE = "crashed before"  # the invocation dies, the call was never made
    CRASHED_AFTER = "crashed after"  # the call was made, the invocation dies before it knows
    REFUSED = "refused"  # throttled, after all of the client's own tries
    UNANSWERED = "unanswered"  # made, and the answer was lost
    REPEATED = "repeated"  # made, the answer was lost, and the client has made it again


CRASHES = (Fault.CRASHED_BEFORE, Fault.CRASHED_AFTER)


@dataclass(frozen=True, slots=True)
class Outside:
    """A request to somebody who is not AWS, or of AWS's own: `what` to do with `which`."""

    what: str
    which: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.which}".rstrip()


Request = Call | Outside


@dataclass(frozen=True, slots=True)
class Ended:
    """How an invocation has ended: with what the function returned, or with an error."""

    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation under way. Two equal ones will do the same."""

    name: str  # whose it is, and of what: "archive 1"
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
    """Ends a function at a request that has no answer yet. No Exception: the function must not handle it."""


class _Nowhere(io.TextIOBase):
    def write(self, text: str, /) -> int:
        return len(text)


class Player:
    """Runs functions, by name, for as long as they have answers."""

    def __init__(self, functions: Mapping[str, Callable[[str], Any]]) -> None:
        self._functions = functions
        self._known: dict[Invocation, Request | Ended] = {}
        self._playing: Invocation | None = None
        self._requests: list[Request] = []
        self.played = 0  # functions run

    def forget(self) -> None:
        """What was played before: with other settings functions act otherwise."""
        self._known.clear()

    @property
    def now(self) -> datetime:
        """The clock of the invocation that is being played."""
        assert self._playing is not None
        return self._playing.now

    def next_of(self, invocation: Invocation) -> Request | Ended:
        """What an invocation asks for next, or how it has ended."""
        if invocation not in self._known:
            self._known[invocation] = self._play(invocation)
        return self._known[invocation]

    def ask(self, request: Request) -> Answer:
        """Asks on behalf of the function that is being played.

        Raises:
            ClientError, BotoCoreError: what the call came to.
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
        raise AssertionError("nobody hears of a crash")

    def _play(self, invocation: Invocation) -> Request | Ended:
        self.played += 1
        self._playing, self._requests = invocation, []
        try:
            with redirect_stdout(_Nowhere()):
                ended = Ended(self._functions[invocation.function](invocation.event))
        except _Stopped:
            ended = Ended()
        except Exception as exc:  # noqa: BLE001 - it is Lambda's then
            ended = Ended(error=exc)
        finally:
            self._playing = None
        self._check_repetition(invocation)
        return self._requests[len(invocation.heard)] if len(self._requests) > len(invocation.heard) else ended

    def _check_repetition(self, invocation: Invocation) -> None:
        """All of this rests on a function's asking for the same things when it hears the same answers."""
        for position in range(len(invocation.heard)):
            before = replace(invocation, heard=invocation.heard[:position])
            asked, asks = self._known[before], self._requests[position]
            assert asked == asks, f"{invocation.name} asked for {asked}, and the next time for {asks}"

    @contextmanager
    def takes_calls(self) -> Iterator[None]:
        """Every call of a client is asked here, while a function is being played."""
        make = BaseClient._make_api_call  # type: ignore[attr-defined] # not in the stubs

        def ask(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            if self._playing is None or client.meta.service_model.service_name in _UNSCHEDULED:
                return make(client, operation, parameters)
            call = Call.of(client, operation, parameters, make)
            return self.ask(call).give(call)

        with mock.patch.object(BaseClient, "_make_api_call", ask):
            yield


class Inline(Executor):
    """In place of a thread pool: what an invocation does side by side, it does one after the other."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as exc:  # noqa: BLE001 - it belongs to whoever waits for the future
            future.set_exception(exc)
        return future

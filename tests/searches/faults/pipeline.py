"""Models the processing of one task: messages in transit, invocations in progress, and their effects."""

import functools
import json
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TypeVar

from tests.searches.faults import harness
from tests.searches.faults.account import TASK, AccountState, AwsResponse, Call
from tests.searches.faults.checks import Violation, check_change, plain
from tests.searches.faults.invocations import Ended, Fault, Invocation, Request
from tests.searches.faults.provider import as_text
from tests.searches.faults.scenarios import Scenario

NOW = datetime(2026, 1, 6, 0, 17, 5, tzinfo=UTC)
# From the fifth try on, negative answers are final. A receive whose fault prevents the write of its try is not counted.
# A message that still fails after two such receives becomes a dead letter, as if its URLs had expired.
MAX_RECEIVES = 7
# The poll queue's maxReceiveCount.
MAX_POLL_RECEIVES = 10

T = TypeVar("T")

_FIRST_SEQUENCE_NUMBER = 10**20


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the archive or the poll queue, in flight until it is consumed or moved to the dead-letter queue."""

    receives: int = 1
    is_consumed: bool = False
    is_dead_letter: bool = False


@dataclass(frozen=True, slots=True)
class Polls:
    """The progress of a state machine execution."""

    state: str  # JSON that each round passes to the next
    seconds: int = 0  # duration of all rounds so far


class Pipeline:
    """The state of the pipeline. All attributes are immutable values, so that a shallow copy is independent."""

    def __init__(self, harness: harness.Harness, scenario: Scenario) -> None:
        self._harness = harness
        self._scenario = scenario
        self.violations: tuple[Violation, ...] = ()  # of the writes since the last copy
        self.account = AccountState()
        self.invocations: tuple[Invocation, ...] = ()  # in progress; each waits for an answer
        self.origin_is_expired = False
        self.sent = 0  # number of callbacks sent
        self.acknowledged: frozenset[int] = frozenset()  # indices of the callbacks answered with 200
        self.stream: tuple[str, ...] = ()  # records that are not delivered yet
        self.batches: tuple[tuple[str, ...], ...] = ()  # batches to be delivered again, in order
        self.messages: tuple[Message, ...] = ()
        self.poll_messages: tuple[Message, ...] = ()
        self._records = 0  # number of records written to the stream
        self._next_answer = 0  # index of the provider's next answer
        self._polls: tuple[Polls, ...] = ()
        if scenario.is_registered:
            self._begin("registration 1", "", 0)
        if scenario.operator:
            # Eight hours later, when every task is overdue.
            self._begin(f"{scenario.operator} 1", "nonce", 8 * 3600)
        for index in range(len(scenario.callbacks)):
            self._deliver(index, 0)

    def values(self) -> tuple[object, ...]:
        """Returns all values that determine the possible later events."""
        return (
            *(self.account, self.invocations, self.origin_is_expired, self.sent, self.acknowledged),
            *(
                self.stream,
                self.batches,
                self.messages,
                self.poll_messages,
                self._records,
                self._next_answer,
                self._polls,
            ),
        )

    def copy(self) -> "Pipeline":
        """Returns a copy in the same state, without violations."""
        other = copy(self)
        other.violations = ()
        return other

    # -------------------------------------------------------------------------------------------- invocations

    def resume(self, invocation: Invocation) -> None:
        """Continues an invocation until its next request or its end."""
        ended = self._harness.runner.next_of(invocation)
        if isinstance(ended, Ended):
            self.finish(invocation, ended)
        else:
            self.invocations = tuple(sorted((*self.invocations, invocation), key=lambda each: each.name))

    def remove(self, invocation: Invocation) -> Request:
        """Removes an invocation from those in progress and returns its next request. `resume` adds it again."""
        self.invocations = tuple(found for found in self.invocations if found != invocation)
        request = self._harness.runner.next_of(invocation)
        assert not isinstance(request, Ended)
        return request

    def finish(self, invocation: Invocation, ended: Ended | None) -> None:
        """Applies the effects of an invocation's end on AWS and the provider. `ended`: None if it crashed."""
        finish: dict[str, Callable[[Invocation, Ended | None], None]] = {
            "registration": lambda *_: None,
            "redrive": lambda *_: None,
            "reconciliation": lambda *_: None,
            "callback": self._finish_callback,
            "dispatch": self._finish_dispatch,
            "start": self._finish_start,
            "poll": self._finish_poll,
            "archive": self._finish_archive,
        }
        finish[invocation.function](invocation, ended)

    def answer(self, invocation: Invocation, request: Request) -> AwsResponse:
        match request:
            case Call():
                before = self.account
                self.account, answer = self._harness.aws.perform(before, request)
                if self.account.item != before.item:
                    self._record_change(before.item, self.account.item, is_redriven=invocation.function == "redrive")
                self._receive_messages()
                self._poll_for_new_executions()
                return answer
            case harness.POLL_PROVIDER if self._scenario.origin_expires:
                return AwsResponse(str(int(self.origin_is_expired)))
            case harness.POLL_PROVIDER:
                number = self._next_answer
                self._next_answer = min(number + 1, len(self._scenario.answers) - 1)
                return AwsResponse(str(number))
            case harness.FETCH_ORIGIN:
                return harness.GONE if self.origin_is_expired else AwsResponse("available")
            case harness.CONSUME_MESSAGE:
                index = invocation.index
                if invocation.function == "start":
                    message = replace(self.poll_messages[index], is_consumed=True)
                    self.poll_messages = _with(self.poll_messages, index, message)
                else:
                    self.messages = _with(self.messages, index, replace(self.messages[index], is_consumed=True))
                return AwsResponse("deleted")
        raise AssertionError(f"the model has no answer to {request}")

    def _begin(self, name: str, event: str, seconds: int) -> None:
        self.resume(Invocation(name, event, NOW + timedelta(seconds=seconds)))

    def _record_change(self, old: str | None, new: str | None, *, is_redriven: bool) -> None:
        assert new is not None, "no function deletes items"
        self.violations += _violations(old, new, is_redriven)
        record = _record(old, new, self._records)
        self._records += 1
        if self._harness.passes_filter(record):
            self.stream += (record,)

    # -------------------------------------------------------------------------------------------- callbacks

    def _deliver(self, index: int, seconds: int) -> None:
        """Sends a callback.

        The number of attempts is not limited: providers make four, which is more than the number of faults.
        """
        self._begin(
            f"callback {index + 1}",
            as_text(self._scenario.callbacks[index].callback()),
            10 * (index + 1) + seconds,
        )

    def _finish_callback(self, invocation: Invocation, ended: Ended | None) -> None:
        self.sent += bool(_number_of_requests(invocation))
        if ended and ended.result and ended.result["statusCode"] == HTTPStatus.OK:
            self.acknowledged |= {invocation.index}
        else:
            self._deliver(invocation.index, (invocation.now - NOW).seconds % 10 + _number_of_requests(invocation))

    # -------------------------------------------------------------------------------------------- the stream

    def deliver_batch(self, count: int) -> None:
        """Delivers a failed batch again, or else this many of the next records."""
        if self.batches:
            batch, self.batches = self.batches[0], self.batches[1:]
        else:
            batch, self.stream = self.stream[:count], self.stream[count:]
        self._begin("dispatch 1", json.dumps(batch), 0)

    def _finish_dispatch(self, invocation: Invocation, ended: Ended | None) -> None:
        batch = tuple(json.loads(invocation.event))
        if ended is None or ended.error:
            # BisectBatchOnFunctionError: an error of the function halves the batch.
            middle = (len(batch) + 1) // 2
            self.batches = (*(part for part in (batch[:middle], batch[middle:]) if part), *self.batches)
        elif failures := ended.result["batchItemFailures"]:
            numbers = [json.loads(record)["dynamodb"]["SequenceNumber"] for record in batch]
            first = min(numbers.index(failure["itemIdentifier"]) for failure in failures)
            self.batches = (batch[first:], *self.batches)

    # -------------------------------------------------------------------------------------------- start of polling

    def _start_polling(self, index: int) -> None:
        """Delivers a message of the poll queue. The explorer chooses its delay by choosing the order.

        Each message is sent 20 s after the one before it, and delivered 10 s later.
        """
        receives = self.poll_messages[index].receives
        sent_at = NOW + timedelta(seconds=2000 + 20 * index)
        record = {
            "messageId": f"poll-message-{index}",
            "receiptHandle": f"poll-receipt-{index}-{receives}",
            "body": self.account.poll_messages[index],
            "attributes": {
                "ApproximateReceiveCount": str(receives),
                "SentTimestamp": str(int(sent_at.timestamp() * 1000)),
            },
            "eventSource": "aws:sqs",
        }
        self._begin(f"start {index + 1}", json.dumps({"Records": [record]}), 2000 + 20 * index + 10)

    def _finish_start(self, invocation: Invocation, ended: Ended | None) -> None:
        index = invocation.index
        message = self.poll_messages[index]
        if message.is_consumed:
            return
        if message.receives == MAX_POLL_RECEIVES:
            self.poll_messages = _with(self.poll_messages, index, replace(message, is_dead_letter=True))
        else:
            self.poll_messages = _with(self.poll_messages, index, replace(message, receives=message.receives + 1))
            self._start_polling(index)

    # -------------------------------------------------------------------------------------------- polling

    def _poll_for_new_executions(self) -> None:
        for execution in self.account.executions[len(self._polls) :]:
            self._polls += (Polls(execution.input),)
            self._poll(len(self._polls) - 1)

    def _poll(self, index: int) -> None:
        """Starts a polling round.

        The explorer chooses the length of the wait before the round by choosing the order.
        """
        polls = self._polls[index]
        self._begin(f"poll {index + 1}", polls.state, 100 + 50 * index + polls.seconds)

    def _finish_poll(self, invocation: Invocation, ended: Ended | None) -> None:
        index = invocation.index
        polls = self._polls[index]
        seconds = polls.seconds + _number_of_requests(invocation)
        if ended is None or ended.error:
            self._polls = _with(self._polls, index, replace(polls, seconds=seconds))
            self._poll(index)
        elif ended.result["tasks"]:
            self._polls = _with(self._polls, index, Polls(json.dumps(ended.result), seconds))
            self._poll(index)
        else:
            over = replace(self.account.executions[index], is_over=True)
            self.account = replace(self.account, executions=_with(self.account.executions, index, over))

    # -------------------------------------------------------------------------------------------- archiving

    def _receive_messages(self) -> None:
        for _ in self.account.messages[len(self.messages) :]:
            self.messages += (Message(),)
            self._archive(len(self.messages) - 1)
        for _ in self.account.poll_messages[len(self.poll_messages) :]:
            self.poll_messages += (Message(),)
            self._start_polling(len(self.poll_messages) - 1)

    def _archive(self, index: int) -> None:
        """Delivers a message of the archive queue. The explorer chooses its delay by choosing the order."""
        receives = self.messages[index].receives
        record = {
            "messageId": f"message-{index}",
            "receiptHandle": f"receipt-{index}-{receives}",
            "body": self.account.messages[index],
            "attributes": {"ApproximateReceiveCount": str(receives), "SentTimestamp": "1767658625200"},
            "eventSource": "aws:sqs",
        }
        self._begin(f"archive {index + 1}", json.dumps({"Records": [record]}), 300 + 20 * index + receives)

    def _finish_archive(self, invocation: Invocation, ended: Ended | None) -> None:
        index = invocation.index
        message = self.messages[index]
        if message.is_consumed:
            return
        if message.receives == MAX_RECEIVES:
            self.messages = _with(self.messages, index, replace(message, is_dead_letter=True))
        else:
            self.messages = _with(self.messages, index, replace(message, receives=message.receives + 1))
            self._archive(index)


def _number_of_requests(invocation: Invocation) -> int:
    """Returns the number of requests that an invocation has made.

    Each request takes a second, so that repeated requests have different times.
    """
    return sum(answer is not Fault.REFUSED for answer in invocation.answers)


def _with(values: tuple[T, ...], index: int, value: T) -> tuple[T, ...]:
    return (*values[:index], value, *values[index + 1 :])


@functools.cache
def _violations(old: str | None, new: str, is_redriven: bool) -> tuple[Violation, ...]:
    return tuple(check_change(plain(old), plain(new), is_redriven=is_redriven))


@functools.cache
def _record(old: str | None, new: str, number: int) -> str:
    """Returns the stream record of a change."""
    sequence_number = str(_FIRST_SEQUENCE_NUMBER + number)
    change = {"Keys": {"task": {"S": TASK}}, "NewImage": json.loads(new), "SequenceNumber": sequence_number}
    if old:
        change["OldImage"] = json.loads(old)
    return json.dumps({"eventName": "MODIFY" if old else "INSERT", "dynamodb": change})

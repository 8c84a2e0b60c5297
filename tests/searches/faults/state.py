"""Implements a state of the exploration: the possible next events of the pipeline, and their effects."""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass

from tests.searches.faults import harness
from tests.searches.faults.account import Call
from tests.searches.faults.checks import Violation, check_end
from tests.searches.faults.invocations import CRASHES, Ended, Fault, Invocation, Request
from tests.searches.faults.pipeline import Pipeline
from tests.searches.faults.provider import Failure
from tests.searches.faults.scenarios import Scenario

STREAM = "stream"
ORIGIN_EXPIRES = "the original's URL expires"


@dataclass(frozen=True, slots=True)
class Choice:
    """The next event: an invocation continues, with or without a fault, or the stream delivers its next records."""

    name: str
    fault: Fault | None = None
    records: int = 0


class State:
    """A state of the exploration. `kinds`: the faults to inject; the scenario limits their number."""

    def __init__(self, harness: harness.Harness, scenario: Scenario, kinds: Iterable[Fault] = ()) -> None:
        self._harness = harness
        self._scenario = scenario
        self._kinds = tuple(kinds)
        self._faults_left = scenario.faults if self._kinds else 0
        self._has_failed = False
        self._pipeline = Pipeline(harness, scenario)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The violations on the step from the previous state."""
        return self._pipeline.violations

    def key(self) -> tuple[object, ...]:
        """Returns a key; states with equal keys have the same possible later events and violations."""
        return self._faults_left, self._has_failed, *self._pipeline.values()

    def choices(self) -> list[Choice]:
        """Returns the possible next events; empty in a final state."""
        return [*self._choices_without_fault(), *self._choices_with_fault()]

    def _choices_without_fault(self) -> Iterator[Choice]:
        pipeline = self._pipeline
        names = [invocation.name for invocation in pipeline.invocations]
        yield from map(Choice, names)
        if "dispatch 1" not in names:  # one batch at a time
            if pipeline.batches:
                yield Choice(STREAM)
            else:
                yield from (Choice(STREAM, records=count) for count in range(1, len(pipeline.stream) + 1))
        if self._scenario.origin_expires and not pipeline.origin_is_expired:
            yield Choice(ORIGIN_EXPIRES)

    def _choices_with_fault(self) -> Iterator[Choice]:
        if self._faults_left:
            for invocation in self._pipeline.invocations:
                possible = _faults_of(invocation, self._request_of(invocation))
                yield from (Choice(invocation.name, fault) for fault in possible if fault in self._kinds)

    def after(self, choice: Choice) -> "State":
        """Returns the state after the event."""
        state = copy(self)
        state._pipeline = pipeline = self._pipeline.copy()
        if choice.name == STREAM:
            pipeline.deliver_batch(choice.records)
        elif choice.name == ORIGIN_EXPIRES:
            pipeline.origin_is_expired = True
        elif choice.fault is None:
            invocation = self._find(choice.name)
            request = pipeline.remove(invocation)
            pipeline.resume(invocation.with_answer(pipeline.answer(invocation, request)))
        else:
            state._faults_left -= 1
            state._has_failed = True
            _fail(pipeline, self._find(choice.name), choice.fault)
        return state

    def describe(self, choice: Choice) -> str:
        """Describes an event in plain language."""
        if choice.name == STREAM:
            return "the stream delivers a batch"
        if choice.name == ORIGIN_EXPIRES:
            return choice.name
        return (
            f"{choice.name}: {self._request_of(self._find(choice.name))}{f', {choice.fault}' if choice.fault else ''}"
        )

    def check_end(self) -> tuple[Violation, ...]:
        """Returns the violations of a final state."""
        pipeline, scenario = self._pipeline, self._scenario
        acknowledged = [
            scenario.callbacks[index]
            for index in pipeline.acknowledged
            # When a success replaces a failure, a second write adds the failure to `conflicts`. A fault between the two
            # writes loses it.
            if not (self._has_failed and isinstance(scenario.callbacks[index], Failure) and scenario.end_state.pictures)
        ]
        dead_letters = sum(message.is_dead_letter for message in (*pipeline.messages, *pipeline.poll_messages))
        found = [
            tuple(check_end(pipeline.account, end_state, acknowledged, pipeline.sent, allowed))
            for end_state, allowed in (
                (scenario.end_state, dead_letters),
                *((other, 0) for other in scenario.other_end_states),
            )
        ]
        return () if () in found else found[0]

    def _find(self, name: str) -> Invocation:
        (invocation,) = (found for found in self._pipeline.invocations if found.name == name)
        return invocation

    def _request_of(self, invocation: Invocation) -> Request:
        request = self._harness.runner.next_of(invocation)
        assert not isinstance(request, Ended)
        return request


def _fail(pipeline: Pipeline, invocation: Invocation, fault: Fault) -> None:
    request = pipeline.remove(invocation)
    match fault:
        case Fault.CRASHED_BEFORE:
            pipeline.finish(invocation, None)
        case Fault.CRASHED_AFTER:
            pipeline.finish(invocation.with_answer(pipeline.answer(invocation, request)), None)
        case Fault.REFUSED:
            pipeline.resume(invocation.with_answer(fault))
        case Fault.UNANSWERED:
            pipeline.answer(invocation, request)
            pipeline.resume(invocation.with_answer(fault))
        case Fault.REPEATED:
            pipeline.answer(invocation, request)
            # A callback that is counted twice counts as sent twice.
            pipeline.sent += invocation.function == "callback"
            pipeline.resume(invocation.with_answer(pipeline.answer(invocation, request)))


def _faults_of(invocation: Invocation, request: Request) -> tuple[Fault, ...]:
    match request:
        case Call() if invocation.function != "registration":
            return tuple(Fault)
        case harness.CONSUME_MESSAGE:
            return CRASHES
        case _:
            return ()

"""Compares the real tasks table with its model after random operations on one task, with repetitions and faults."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from botocore.exceptions import ClientError, ReadTimeoutError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType

from catchlight.errors import StoreUnavailableError
from catchlight.models import (
    Failure,
    FailureReason,
    Image,
    ImageKind,
    ImageState,
    Reporter,
    TaskReport,
    TaskStatus,
    iso,
)
from catchlight.tasks.registration import Registry
from catchlight.tasks.reports import MAX_CONFLICTS
from catchlight.tasks.task import Task
from local.account import ACCOUNT_ID, REGION
from tests.integration.conftest import TABLE_NAME, Store, plain
from tests.searches.faults import table_model as model
from tests.searches.faults.invocations import Fault
from tests.searches.faults.table_model import Item

STEPS_EACH = 16
WITH_FAULT = "with a fault"
PROVIDER = "flux-kontext"
NOW = datetime(2026, 1, 6, 0, 17, 5, tzinfo=UTC)

fresh_ids = (f"machine{number}" for number in itertools.count())


class Crash(BaseException):
    """Simulates the crash of a process during a call."""


class FaultyClient:
    """Wraps the real client and injects a fault into one of the next writing calls."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.exceptions = client.exceptions
        self.fault: Fault | None = None
        self.after_calls = 0  # number of calls that succeed before the fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def update_item(self, **parameters: Any) -> Any:
        """Makes the call, with the fault if it is due."""
        fault, self.after_calls = (self.fault if self.after_calls == 0 else None), self.after_calls - 1
        match fault:
            case Fault.CRASHED_BEFORE:
                raise Crash
            case Fault.REFUSED:
                raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "UpdateItem")
            case Fault.CRASHED_AFTER:
                self._make(parameters)
                raise Crash
            case Fault.UNANSWERED:
                self._make(parameters)
                raise ReadTimeoutError(endpoint_url="https://dynamodb.example")
            case Fault.REPEATED:
                self._make(parameters)
        return self._client.update_item(**parameters)

    def _make(self, parameters: dict[str, Any]) -> None:
        with suppress(self.exceptions.ConditionalCheckFailedException):
            self._client.update_item(**parameters)


def url(name: str, number: int = 1) -> str:
    return f"https://host.example/{name}.png?number={number}"


def images(*names: str) -> tuple[Image, ...]:
    return tuple(Image(kind=ImageKind.RESULT, url=url(name), expires_at=NOW + timedelta(days=1)) for name in names)


NO_FAULT = (None, 0)
faults = st.tuples(st.sampled_from([None, None, *Fault]), st.integers(0, 1))
reporters = st.sampled_from(list(Reporter))
Reported = tuple[str, ...] | FailureReason | TaskStatus
outcomes: st.SearchStrategy[Reported] = st.one_of(
    st.sampled_from([FailureReason.CONTENT_POLICY, FailureReason.INTERNAL, FailureReason.OTHER]),
    st.sampled_from([("a", "b"), ("c", "d"), ("a", "d"), ("a",), ("a", "b", "c"), ("c",)]),
    st.sampled_from([TaskStatus.PENDING, TaskStatus.TIMED_OUT, TaskStatus.TIMED_OUT]),
)
# Age of an operation's read of the item, in steps.
ages = st.sampled_from([0, 0, 0, 1, 2, 3])
indices = st.sets(st.integers(0, 2), min_size=1)
final_image_states = st.sampled_from(
    [ImageState.ARCHIVED, ImageState.ARCHIVED, ImageState.EXPIRED, ImageState.REJECTED]
)


def check_table(
    store: Store, *, examples: int, returns_unchanged: bool = False, phases: Sequence[Phase] = tuple(Phase)
) -> Counter[str]:
    """Compares the table in a store with its model. Returns the number of steps by the item's resulting status.

    The examples are the same in every run.

    Raises:
        AssertionError: the table differs from the model; the output has the steps that lead to the difference.
    """
    TableMachine.store, TableMachine.returns_unchanged = store, returns_unchanged
    TableMachine.steps.clear()
    options = settings(
        max_examples=examples,
        stateful_step_count=STEPS_EACH,
        deadline=None,
        derandomize=True,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(TableMachine, settings=options)
    return TableMachine.steps


def _is_unconfirmed(item: Item) -> bool:
    return item.is_unconfirmed


def _has_pending_images(item: Item) -> bool:
    return item.status is TaskStatus.SUCCEEDED and "PENDING" in item.states


def _has_missing_images(item: Item) -> bool:
    return item.status in (TaskStatus.SUCCEEDED, TaskStatus.INCOMPLETE) and set(item.states) != {"ARCHIVED"}


def _is_timed_out(item: Item) -> bool:
    return item.status is TaskStatus.TIMED_OUT


def _rule_for(is_suitable: Callable[[Item], bool], **strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Returns a rule for an operation that uses an earlier read of the item. `is_suitable` selects the reads."""

    def decorate(act: Any) -> Any:
        is_due = precondition(lambda machine: any(is_suitable(item) for _, item in machine.reads))
        return is_due(rule(fault=faults, age=ages, **strategies)(act))  # type: ignore[call-overload] # rules have no target

    return decorate


class TableMachine(RuleBasedStateMachine):
    """Applies random operations to one task. `check_table` sets the store."""

    store: Store
    returns_unchanged = False  # see `table_model.record_report`
    steps: ClassVar[Counter[str]] = Counter()  # steps of all examples, by resulting status

    @initialize()
    def begin(self) -> None:
        self.task_id = next(fresh_ids)
        self.task = f"{PROVIDER}#{self.task_id}"
        self.client = FaultyClient(self.store.client)
        self.tasks = Store(self.client)  # type: ignore[arg-type] # a client with injected faults
        self.registry = Registry(self.tasks.table)
        self.seconds = 0
        self.registrations = 0
        self.has_false_reports = False
        self.before: Item | None = None
        self.item: Item | None = None
        self.reads: list[tuple[Task, Item]] = []  # the item after each step
        self.may_lower_rank = False  # whether the last operation may lower the rank

    # -------------------------------------------------------------------------------------------- reports

    @precondition(lambda self: self.registrations < 2)
    @rule(fault=faults)
    def register(self, fault: tuple[Fault | None, int]) -> None:
        self.registrations += 1
        now = self.now()
        self.apply(
            lambda: self.registry.register(PROVIDER, [self.task_id], now=now), model.registration(iso(now)), fault
        )

    @rule(fault=faults, reporter=reporters, what=outcomes, times=st.sampled_from([1, 1, 1, 2, 4]))
    def report(self, fault: tuple[Fault | None, int], reporter: Reporter, what: Reported, times: int) -> None:
        for time in range(times):
            self.record(self.new_report(what, reporter), fault if time == 0 else NO_FAULT)

    @precondition(lambda self: self.item is None or self.item.status is TaskStatus.PENDING)
    @rule(fault=faults)
    def give_up(self, fault: tuple[Fault | None, int]) -> None:
        self.record(self.new_report(TaskStatus.TIMED_OUT, Reporter.POLL), fault)

    @precondition(lambda self: not self.has_false_reports)
    @rule()
    def send_false_reports(self) -> None:
        self.has_false_reports = True
        for number in range(MAX_CONFLICTS):
            self.record(self.new_report((f"false-{number}",), Reporter.CALLBACK), NO_FAULT)

    # -------------------------------------------------------------------------------------------- with earlier reads

    @_rule_for(_is_unconfirmed, what=outcomes)
    def correct(self, fault: tuple[Fault | None, int], age: int, what: Reported) -> None:
        task, known = self.read(_is_unconfirmed, age)
        answer = self.new_report(what, Reporter.POLL)
        if answer.status is not TaskStatus.TIMED_OUT:
            self.may_lower_rank = True
            self.apply(lambda: self.tasks.confirmations.correct(task, answer), model.correction(known, answer), fault)

    @_rule_for(_is_unconfirmed)
    def confirm(self, fault: tuple[Fault | None, int], age: int) -> None:
        task, known = self.read(_is_unconfirmed, age)
        answer = self.new_report(TaskStatus.PENDING, Reporter.POLL)  # only its time is written
        self.apply(
            lambda: self.tasks.confirmations.confirm(task, answer),
            model.confirmation(known, iso(answer.reported_at)),
            fault,
        )

    @_rule_for(_has_pending_images, which=indices, states=st.tuples(final_image_states, final_image_states))
    def save_images(
        self, fault: tuple[Fault | None, int], age: int, which: set[int], states: tuple[ImageState, ImageState]
    ) -> None:
        task, known = self.read(_has_pending_images, age)
        pending = {index for index, image in enumerate(task.images) if image.state is ImageState.PENDING}
        settled = dict(zip(sorted(pending & which or pending), itertools.cycle(states), strict=False))
        now = self.now()
        # The provider confirms a report before any of its images is downloaded.
        checked = task.model_copy(update={"confirmed_at": iso(now)}) if known.is_unconfirmed else task
        after = {index: task.images[index].model_copy(update={"state": to}) for index, to in settled.items()}
        self.apply(
            lambda: self.tasks.images.save(checked, after, now=now), model.archiving(known, settled, iso(now)), fault
        )

    @_rule_for(_has_missing_images, which=indices)
    def renew(self, fault: tuple[Fault | None, int], age: int, which: set[int]) -> None:
        task, known = self.read(_has_missing_images, age)
        missing = {index for index, image in enumerate(task.images) if image.state is not ImageState.ARCHIVED}
        now = self.now()
        fresh = {
            index: task.images[index].model_copy(
                update={"url": f"{task.images[index].url}&at={self.seconds}", "state": ImageState.PENDING}
            )
            for index in missing & which or missing
        }
        urls = {index: image.url for index, image in fresh.items()}
        self.may_lower_rank = True
        self.apply(lambda: self.tasks.images.replace(task, fresh, now=now), model.renewal(known, urls, iso(now)), fault)

    @_rule_for(_is_timed_out)
    def restart(self, fault: tuple[Fault | None, int], age: int) -> None:
        task, known = self.read(_is_timed_out, age)
        now = self.now()
        self.may_lower_rank = True
        self.apply(lambda: self.tasks.restarts.reopen(task, now=now), model.restart(known, iso(now)), fault)

    # -------------------------------------------------------------------------------------------- invariants

    @invariant()
    def images_match_status(self) -> None:
        if self.item is None:
            return
        states = set(self.item.states)
        match self.item.status:
            case TaskStatus.ARCHIVED:
                assert states == {"ARCHIVED"}
            case TaskStatus.INCOMPLETE:
                assert "PENDING" not in states
                assert states != {"ARCHIVED"}
            case TaskStatus.SUCCEEDED:
                assert states
            case TaskStatus.FAILED | TaskStatus.TIMED_OUT:
                assert self.item.reason
                assert not states
            case TaskStatus.PENDING:
                assert not states

    @invariant()
    def conflicts_are_limited(self) -> None:
        # A correction appends an entry even if another one was added after its read. This happens once only: then the
        # item has no unconfirmed report any more.
        assert self.item is None or len(self.item.conflicts) <= MAX_CONFLICTS + 1

    # -------------------------------------------------------------------------------------------- helpers of the rules

    def read(self, is_suitable: Callable[[Item], bool], age: int) -> tuple[Task, Item]:
        """Returns the last read that satisfies `is_suitable`, or the one that is `age` before it."""
        fitting = [found for found in self.reads if is_suitable(found[1])]
        return fitting[max(-1 - age, -len(fitting))]

    def now(self) -> datetime:
        """Returns a new time, one second after the last one."""
        self.seconds += 1
        return NOW + timedelta(seconds=self.seconds)

    def new_report(self, what: Reported, reporter: Reporter) -> TaskReport:
        """Returns a report with a new time. `what` is its images, failure reason or status."""
        result: dict[str, Any]
        match what:
            case tuple():
                status, result = TaskStatus.SUCCEEDED, {"images": images(*what)}
            case FailureReason():
                status, result = TaskStatus.FAILED, {"failure": Failure(reason=what)}
            case TaskStatus.TIMED_OUT:
                status, result = what, {"failure": Failure(reason=FailureReason.NO_RESULT)}
                reporter = Reporter.POLL  # only polls report TIMED_OUT
            case _:
                status, result = what, {}
        return TaskReport(
            provider=PROVIDER,
            task_id=self.task_id,
            status=status,
            reported_by=reporter,
            reported_at=self.now(),
            **result,
        )

    def record(self, report: TaskReport, fault: tuple[Fault | None, int]) -> None:
        """Records a report."""
        writes = model.record_report(report, self.item, returns_unchanged=self.returns_unchanged)
        self.apply(lambda: self.tasks.reports.record(report), writes, fault)

    def apply(self, act: Callable[[], object], writes: list[model.Write], fault: tuple[Fault | None, int]) -> None:
        """Applies an operation to the real table, and compares the item with the states that the model allows."""
        self.client.fault, self.client.after_calls = fault
        is_faulty = fault[0] is not None
        try:
            act()
        except (Crash, StoreUnavailableError):
            assert is_faulty, "the operation failed without a fault"
        self.steps[WITH_FAULT] += is_faulty
        self.client.fault = None
        self.before, self.item = self.item, self.read_item()
        possible = model.outcomes(self.before, writes, is_faulty=is_faulty)
        assert self.item in possible, f"the item is {self.item}, allowed are {possible}"
        self.steps[self.item.status if self.item else "no item"] += 1
        self.check_order()

    def read_item(self) -> Item | None:
        """Reads the item directly from moto's table; the API would take as long as the write."""
        table = dynamodb_backends[ACCOUNT_ID][REGION].get_table(TABLE_NAME)
        found = table.get_item(DynamoType({"S": self.task}))
        if found is None:
            return None
        attributes = plain(found.to_json()["Attributes"])
        item = model.read(attributes)
        self.reads.append((Task.model_validate(attributes), item))
        return item

    def check_order(self) -> None:
        """Checks invariants between two consecutive states, for every operation."""
        before, after = self.before, self.item
        may_lower_rank, self.may_lower_rank = self.may_lower_rank, False
        if before is None:
            return
        assert after is not None
        assert after.deliveries >= before.deliveries
        assert after.conflicts[: len(before.conflicts)] == before.conflicts
        if not may_lower_rank:
            assert after.rank >= before.rank
        # Archived images stay in the item, unless they belong to an unconfirmed report.
        if not before.is_unconfirmed:
            for (was_url, was), is_now in zip(before.images, after.images, strict=False):
                assert was != "ARCHIVED" or is_now == (was_url, was)

"""StartPolling starts executions only for tasks that need polling, and loses no task when a call fails."""

import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext

from catchlight.dispatch import MAX_TASKS_PER_EXECUTION, PollingExecutions, PollState
from catchlight.errors import SettingsError, StoreUnavailableError
from catchlight.models import TaskStatus, iso, utc_now
from functions.start_polling import app
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.fault_injection import AWS_FAULTS, counted, every_fault, failing, reported
from tests.unit.template.expanded import QUEUES, RAW

FIRST_POLL_AFTER_SECONDS = 60
BATCHING_WINDOW_SECONDS = 10
MACHINE = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
GIVEN_UP_AT = "2026-01-31T11:00:00.000Z"
TASK, OTHER = "flux-kontext#task1", "acedata#task2"


@dataclass
class Account:
    """The table and the state machine of a stack."""

    store: Store
    step_functions: Any
    machine: str

    def put(self, task: str, status: str = "PENDING", **attributes: Any) -> None:
        registered = {"rank": TaskStatus(status).rank, "updatedAt": iso(utc_now() - timedelta(minutes=1))}
        self.store.put(task, status=status, **{**registered, **attributes})

    def executions(self) -> list[PollState]:
        """Returns the input of each execution, oldest first."""
        found = self.step_functions.list_executions(stateMachineArn=self.machine)["executions"]
        arns = [execution["executionArn"] for execution in sorted(found, key=lambda execution: execution["startDate"])]
        inputs = [self.step_functions.describe_execution(executionArn=arn)["input"] for arn in arns]
        return [PollState.model_validate_json(text) for text in inputs]

    def polling_since(self, task: str) -> str | None:
        item = self.store.item(task)
        assert item is not None
        return item.get("pollingSince")


@pytest.fixture
def account(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    step_functions = boto3.client("stepfunctions")
    role = "arn:aws:iam::123456789012:role/poll"
    machine = step_functions.create_state_machine(name="poll", definition=MACHINE, roleArn=role)["stateMachineArn"]
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("POLL_TASKS_STATE_MACHINE", machine)
    monkeypatch.setenv("FIRST_POLL_AFTER_SECONDS", str(FIRST_POLL_AFTER_SECONDS))
    monkeypatch.setenv("GIVE_UP_AFTER_SECONDS", "21600")
    app.dependencies.cache_clear()
    yield Account(store, step_functions, machine)
    app.dependencies.cache_clear()


def a_message(number: int, task: str) -> dict[str, Any]:
    return {"messageId": f"message-{number}", "body": json.dumps({"task": task, "change": str(number)})}


def start(context: LambdaContext, *messages: dict[str, Any]) -> list[str]:
    """Handles messages. Returns the ids of those that return to the queue."""
    answer = app.handler({"Records": list(messages)}, context)
    assert answer.keys() == {"batchItemFailures"}
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


# ------------------------------------------------------------------------------------------------ polled tasks


def test_tasks_without_a_result_share_an_execution_and_the_others_have_none(
    account: Account, context: LambdaContext
) -> None:
    account.put(TASK)
    account.put(OTHER)
    account.put("flux-kontext#done", "ARCHIVED")

    tasks = (TASK, "flux-kontext#done", OTHER, "flux-kontext#deleted")
    assert start(context, *(a_message(number, task) for number, task in enumerate(tasks))) == []

    (state,) = account.executions()
    assert (state.tasks, state.wait_seconds, state.waited_seconds) == ((TASK, OTHER), 0, FIRST_POLL_AFTER_SECONDS)
    assert account.polling_since(TASK) == account.polling_since(OTHER)
    assert (account.polling_since(TASK) or "") > iso(utc_now() - timedelta(minutes=1))
    assert account.polling_since("flux-kontext#done") is None


@pytest.mark.parametrize("status", ["SUCCEEDED", "INCOMPLETE", "ARCHIVED", "TIMED_OUT"])
def test_a_task_that_needs_no_polling_starts_no_execution(
    account: Account, context: LambdaContext, status: str
) -> None:
    account.put(TASK, status)
    before = account.store.item(TASK)

    assert start(context, a_message(1, TASK)) == []

    assert account.executions() == []
    assert account.store.item(TASK) == before


@pytest.mark.parametrize(
    ("attributes", "is_polled"),
    [
        ({"status": "FAILED", "reportedBy": "callback"}, True),
        ({"status": "FAILED", "reportedBy": "callback", "confirmedAt": "2026-01-31T12:00:00.000Z"}, False),
        ({"status": "FAILED", "reportedBy": "poll"}, False),
        # A callback has reported a success without a URL after polling gave up, or before.
        ({"status": "TIMED_OUT", "hintedAt": "2026-01-31T12:00:00.000Z", "reportedAt": GIVEN_UP_AT}, True),
        ({"status": "TIMED_OUT", "hintedAt": "2026-01-31T10:00:00.000Z", "reportedAt": GIVEN_UP_AT}, False),
    ],
)
def test_tasks_with_unconfirmed_reports_are_polled(
    account: Account, context: LambdaContext, attributes: dict[str, str], is_polled: bool
) -> None:
    account.put(TASK, **attributes)

    assert start(context, a_message(1, TASK)) == []

    assert len(account.executions()) == is_polled


def test_a_full_batch_is_one_execution(account: Account, context: LambdaContext) -> None:
    tasks = [f"flux-kontext#task{number}" for number in range(MAX_TASKS_PER_EXECUTION)]
    for task in tasks:
        account.put(task)

    assert start(context, *(a_message(number, task) for number, task in enumerate(tasks))) == []

    assert [state.tasks for state in account.executions()] == [tuple(tasks)]


# ------------------------------------------------------------------------------------------------ repetition


def test_callbacks_without_a_url_start_no_further_execution(account: Account, context: LambdaContext) -> None:
    """The messages are that of the first poll and one for each of these callbacks."""
    account.put(TASK, registeredAt=iso(utc_now()))
    for number in range(20):
        assert start(context, a_message(number, TASK)) == []

    assert len(account.executions()) == 1


def test_a_task_that_has_changed_since_its_execution_started_gets_another_one(
    account: Account, context: LambdaContext
) -> None:
    """The first task timed out and was reopened; the second became UNCONFIRMED after the start."""
    earlier = iso(utc_now() - timedelta(hours=3))
    account.put(TASK, pollingSince=earlier, registeredAt=earlier)
    account.put(OTHER, "UNCONFIRMED", reportedBy="callback", deliveries=1, registeredAt=earlier, pollingSince=earlier)

    assert start(context, a_message(1, TASK), a_message(2, OTHER)) == []

    assert [state.tasks for state in account.executions()] == [(TASK, OTHER)]


@pytest.mark.parametrize(("hours", "is_polled"), [(6, False), (8, True)])
def test_a_task_whose_execution_has_ended_gets_another_one(
    account: Account, context: LambdaContext, hours: int, is_polled: bool
) -> None:
    """A callback of an UNCONFIRMED task was repeated."""
    times = {"updatedAt": iso(utc_now() - timedelta(hours=9)), "pollingSince": iso(utc_now() - timedelta(hours=hours))}
    account.put(TASK, "UNCONFIRMED", reportedBy="callback", deliveries=2, **times)

    assert start(context, a_message(1, TASK)) == []

    assert len(account.executions()) == is_polled


@pytest.mark.parametrize("status", ["TIMED_OUT", "FAILED", "UNCONFIRMED"])
def test_an_unregistered_task_that_is_not_found_is_not_polled_again(
    account: Account, context: LambdaContext, status: str
) -> None:
    now = iso(utc_now())
    more = {"reportedBy": "callback", "deliveries": 2, "notFoundAt": now, "hintedAt": now, "reportedAt": GIVEN_UP_AT}
    account.put(TASK, status, **more)
    account.put(OTHER, status, registeredAt=now, **more)

    assert start(context, a_message(1, TASK), a_message(2, OTHER)) == []

    assert [state.tasks for state in account.executions()] == [(OTHER,)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_batch_that_is_received_again_starts_no_second_execution(
    account: Account, context: LambdaContext, order: tuple[int, int]
) -> None:
    messages = [a_message(1, TASK), a_message(2, OTHER)]
    account.put(TASK)
    account.put(OTHER)
    # The first run cannot note its execution in the items.
    with failing("UpdateItem", KeyError("stopped")):
        assert start(context, *messages) == []
    assert account.polling_since(TASK) is None

    assert start(context, *(messages[index] for index in order)) == []

    assert len(account.executions()) == 1
    # An execution stops polling a task whose item notes another start. ReconcileTasks restarts polling without a note.
    assert account.polling_since(TASK) is None


def test_of_the_executions_of_two_concurrent_runs_one_polls(
    account: Account, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.put(TASK)
    start_execution = PollingExecutions.start

    def during_another_run(self: Any, *arguments: Any, **options: Any) -> bool:
        monkeypatch.setattr(PollingExecutions, "start", start_execution)
        time.sleep(0.002)  # times in items have milliseconds
        assert start(context, a_message(2, TASK)) == []
        return start_execution(self, *arguments, **options)

    monkeypatch.setattr(PollingExecutions, "start", during_another_run)
    assert start(context, a_message(1, TASK)) == []

    task = account.store.table.get(TASK)
    assert task is not None
    states = account.executions()
    assert len(states) == 2
    assert sorted(task.is_polled_by_another(state.polling_since) for state in states) == [False, True]


def test_two_messages_about_a_task_are_one_task_of_one_execution(account: Account, context: LambdaContext) -> None:
    account.put(TASK)

    assert start(context, a_message(1, TASK), a_message(2, TASK)) == []

    assert [state.tasks for state in account.executions()] == [(TASK,)]


# ------------------------------------------------------------------------------------------------ faults


@every_fault
def test_an_execution_that_could_not_be_started_is_started_when_the_messages_are_received_again(
    account: Account,
    context: LambdaContext,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fault: Exception,
) -> None:
    account.put(TASK)
    account.put(OTHER, "ARCHIVED")
    messages = a_message(1, TASK), a_message(2, OTHER)
    error = type(fault).__name__ if isinstance(fault, KeyError) else "StoreUnavailableError"

    with failing("StartExecution", fault):
        assert start(context, *messages) == ["message-1"]
    assert account.executions() == []
    assert account.polling_since(TASK) is None
    assert reported(caplog.records, TASK) == {error}
    assert counted(capsys) == [error]

    assert start(context, messages[0]) == []
    assert [state.tasks for state in account.executions()] == [(TASK,)]


def test_after_five_minutes_without_step_functions_polling_starts_in_time_for_an_original(
    account: Account, context: LambdaContext
) -> None:
    """The URL of an original expires after 600 s; polls are 30 s apart. The outage begins with the first poll."""
    account.put(TASK)
    queue = QUEUES["PollQueue"]
    now = begun = RAW["Parameters"]["FirstPollAfterSeconds"]["Default"] + BATCHING_WINDOW_SECONDS
    receives = 0
    while not account.executions():
        receives += 1
        fault = failing("StartExecution", AWS_FAULTS["unanswered"]) if now < begun + 300 else nullcontext()
        with fault:
            start(context, a_message(1, TASK))
        now += queue["VisibilityTimeout"]

    assert receives <= queue["RedrivePolicy"]["maxReceiveCount"]
    assert now - queue["VisibilityTimeout"] < 600 - 60


@every_fault
def test_a_table_that_cannot_be_read_fails_the_batch(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    account.put(TASK)

    with failing("BatchGetItem", fault), pytest.raises((StoreUnavailableError, KeyError)):
        start(context, a_message(1, TASK))

    assert account.executions() == []
    assert reported(caplog.records, TASK)


@every_fault
def test_an_execution_whose_start_cannot_be_noted_is_reported_and_not_started_again(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    account.put(TASK)

    with failing("UpdateItem", fault):
        assert start(context, a_message(1, TASK)) == []

    assert len(account.executions()) == 1
    assert reported(caplog.records, TASK)


def test_a_callback_during_the_start_is_not_overwritten(account: Account, context: LambdaContext) -> None:
    account.put(TASK)

    def arrive(**_: Any) -> None:
        account.put(TASK, "SUCCEEDED", updatedAt=iso(utc_now()))

    app.dependencies().table._client.meta.events.register_first("before-call.dynamodb.UpdateItem", arrive)

    assert start(context, a_message(1, TASK)) == []

    item = account.store.item(TASK)
    assert item is not None
    assert (item["status"], "pollingSince" in item) == ("SUCCEEDED", False)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "{}", '{"task": 7}', '{"task": "no task"}', '{"task": "flux-kontext#task1"}', "[" * 10_000],
    ids=["empty", "list", "no task", "number", "no key", "no change", "nested"],
)
def test_a_malformed_message_does_not_affect_the_others(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    account.put(OTHER)

    assert start(context, a_message(1, TASK) | {"body": body}, a_message(2, OTHER)) == ["message-1"]

    assert [state.tasks for state in account.executions()] == [(OTHER,)]
    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert vars(error)["message_id"] == "message-1"


def test_a_malformed_item_is_reported_and_does_not_affect_the_others(
    account: Account, context: LambdaContext, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    account.put(TASK, images="none")
    account.put(OTHER)

    assert start(context, a_message(1, TASK), a_message(2, OTHER)) == []

    assert [state.tasks for state in account.executions()] == [(OTHER,)]
    (error,) = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
    assert (error["task"], error["reason"]) == (TASK, "images")
    assert counted(capsys) == ["UnreadableItem"]


def test_missing_settings_fail_the_batch(
    account: Account, context: LambdaContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLL_TASKS_STATE_MACHINE")

    with pytest.raises(SettingsError, match="POLL_TASKS_STATE_MACHINE"):
        start(context, a_message(1, TASK))


def test_a_task_whose_request_attribute_is_text_is_polled(account: Account, context: LambdaContext) -> None:
    account.put(TASK, request="a note of the user")

    assert start(context, a_message(1, TASK)) == []

    assert [state.tasks for state in account.executions()] == [(TASK,)]

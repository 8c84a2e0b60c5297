"""The hourly run restarts the polling or archiving of stuck tasks, and does not touch other tasks."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.exceptions import ClientError, EndpointConnectionError

from catchlight.dispatch import MAX_TASKS_PER_EXECUTION, PollState
from catchlight.errors import SettingsError, StoreUnavailableError
from catchlight.models import LastAnswer, TaskStatus, iso, utc_now
from catchlight.recovery.reconcile import (
    FAILURES_SEARCHED,
    MAX_ARCHIVING_TIME,
    MAX_CONFIRMING_TIME,
    MAX_STARTING_TIME,
    REPEAT_ARCHIVING_AFTER,
)
from catchlight.tasks.restarts import POLLING_SLACK
from functions.reconcile_tasks import app
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches.execution import functions_run_by
from tests.conftest import FakeLambdaContext
from tests.integration.conftest import TABLE_NAME, Store
from tests.integration.fault_injection import counted, every_aws_fault, every_fault, failing, reported

GIVE_UP_AFTER = timedelta(hours=6)
OVERDUE = GIVE_UP_AFTER + POLLING_SLACK
MACHINE = json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}})
MOMENT = timedelta(minutes=1)
DISPATCH, POLL, PUBLISH = "dispatch", "poll", "publish"


@dataclass
class Account:
    """The table, the queues and the state machine of a stack."""

    store: Store
    sqs: Any
    step_functions: Any
    queue_url: str
    machine: str
    dead_letter_urls: dict[str, str]

    def dead_letters(self, queue: str) -> int:
        """Returns the number of messages in a dead-letter queue."""
        url = self.dead_letter_urls[queue]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        return int(found["ApproximateNumberOfMessages"]) + int(found["ApproximateNumberOfMessagesNotVisible"])

    def send(self, queue: str, body: Any) -> None:
        """Sends a message to a dead-letter queue."""
        self.sqs.send_message(QueueUrl=self.dead_letter_urls[queue], MessageBody=json.dumps(body))

    def positions(self, *, first: int = 0, last: int = 0) -> dict[str, Any]:
        """Returns a message of the event source about stream records whose retries have failed: their positions."""
        streams = boto3.client("dynamodbstreams")
        stream = boto3.client("dynamodb").describe_table(TableName=TABLE_NAME)["Table"]["LatestStreamArn"]
        (shard,) = streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
        iterator = streams.get_shard_iterator(
            StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        records = streams.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
        return {
            "DDBStreamBatchInfo": {
                "streamArn": stream,
                "shardId": shard["ShardId"],
                "startSequenceNumber": records[first]["dynamodb"]["SequenceNumber"],
                "endSequenceNumber": records[last]["dynamodb"]["SequenceNumber"],
            }
        }

    def put(self, task: str, status: str, age: timedelta, **attributes: Any) -> None:
        """Stores a task that reached this status the given time ago."""
        provider, _, task_id = task.partition("#")
        changed = iso(utc_now() - age)
        known = {"provider": provider, "taskId": task_id, "status": status, "rank": TaskStatus(status).rank}
        times = {"registeredAt": changed, "updatedAt": changed}
        self.store.put(task, **{**known, **times, **attributes})

    def messages(self) -> list[dict[str, str]]:
        """Returns the messages queued for archiving since the last call."""
        queued = []
        while batch := self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10).get("Messages"):
            queued += [json.loads(message["Body"]) for message in batch]
        return queued

    def executions(self) -> list[PollState]:
        """Returns the input of each execution, oldest first."""
        found = self.step_functions.list_executions(stateMachineArn=self.machine)["executions"]
        arns = [execution["executionArn"] for execution in sorted(found, key=lambda execution: execution["startDate"])]
        inputs = [self.step_functions.describe_execution(executionArn=arn)["input"] for arn in arns]
        return [PollState.model_validate_json(text) for text in inputs]


@pytest.fixture
def account(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    sqs, step_functions = boto3.client("sqs"), boto3.client("stepfunctions")
    queue_url = sqs.create_queue(QueueName="archive")["QueueUrl"]
    role = "arn:aws:iam::123456789012:role/poll"
    machine = step_functions.create_state_machine(name="poll", definition=MACHINE, roleArn=role)["stateMachineArn"]
    monkeypatch.setenv("TASKS_TABLE", TABLE_NAME)
    monkeypatch.setenv("ARCHIVE_QUEUE_URL", queue_url)
    dead_letter_urls = {
        queue: sqs.create_queue(QueueName=f"{queue}-dead-letters")["QueueUrl"] for queue in (DISPATCH, POLL, PUBLISH)
    }
    for queue, url in dead_letter_urls.items():
        monkeypatch.setenv(f"{queue.upper()}_DEAD_LETTERS_URL", url)
    monkeypatch.setenv("PUBLISH_EVENTS_FUNCTION", "PublishEvents")
    streamed: Any = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    boto3.client("dynamodb").update_table(TableName=TABLE_NAME, StreamSpecification=streamed)
    monkeypatch.setattr("catchlight.recovery.dead_letters._WAIT_SECONDS", 0)
    monkeypatch.setenv("POLL_TASKS_STATE_MACHINE", machine)
    monkeypatch.setenv("GIVE_UP_AFTER_SECONDS", str(int(GIVE_UP_AFTER.total_seconds())))
    app.dependencies.cache_clear()
    yield Account(store, sqs, step_functions, queue_url, machine, dead_letter_urls)
    app.dependencies.cache_clear()


def reconcile(context: LambdaContext | None = None) -> dict[str, int]:
    """Runs the function once, by default with enough time, and returns its result."""
    return app.handler({"source": "aws.scheduler"}, context or FakeLambdaContext(180))


def metrics(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, ...], float]:
    """Returns the metrics of the run, by name and provider."""
    found = {}
    for line in capsys.readouterr().out.splitlines():
        if '"_aws"' in line:
            document = json.loads(line)
            for metric in document["_aws"]["CloudWatchMetrics"][0]["Metrics"]:
                provider = [document["provider"]] if "provider" in document else []
                (value,) = document[metric["Name"]]
                found[(metric["Name"], *provider)] = value
    return found


# ------------------------------------------------------------------------------------------------ dead letters

HINTED = "flux-kontext#hinted"


def put_hinted(account: Account, **attributes: Any) -> None:
    """Stores a TIMED_OUT task whose callback has just reported a success: the repairs do not restart it yet."""
    hint = {"deliveries": 1, "hintedAt": iso(utc_now()), "reportedAt": iso(utc_now() - MOMENT)}
    account.put(HINTED, "TIMED_OUT", MOMENT, **hint | attributes)


@pytest.mark.parametrize("queue", [DISPATCH, POLL])
def test_a_dead_letter_that_names_its_task_is_redriven(account: Account, queue: str) -> None:
    put_hinted(account)
    account.put("flux-kontext#succeeded", "SUCCEEDED", MOMENT)
    account.put("flux-kontext#done", "ARCHIVED", MOMENT)
    for task in (HINTED, "flux-kontext#succeeded", "flux-kontext#done", "flux-kontext#deleted"):
        account.send(queue, {"task": task, "change": "1"})

    reconcile()

    assert [state.tasks for state in account.executions()] == [(HINTED,)]
    assert [message["task"] for message in account.messages()] == ["flux-kontext#succeeded"]
    item = account.store.item(HINTED)
    assert item is not None
    assert item["pollingSince"] > iso(utc_now() - MOMENT)
    assert account.dead_letters(queue) == 0


def test_the_tasks_of_positions_in_the_stream_are_redriven(account: Account) -> None:
    put_hinted(account)
    account.store.put("#wait-slot#1", expiresAt=1)  # not a task
    original = {
        "kind": "origin",
        "url": "https://example.com/a",
        "expiresAt": iso(utc_now() + MOMENT),
        "state": "PENDING",
    }
    account.put("flux-kontext#original", "PENDING", MOMENT, images=[original], pollingSince=iso(utc_now()))
    account.send(DISPATCH, account.positions(first=0, last=2))

    reconcile()

    assert [state.tasks for state in account.executions()] == [(HINTED,)]
    assert [message["task"] for message in account.messages()] == ["flux-kontext#original"]
    assert account.dead_letters(DISPATCH) == 0


def test_a_task_with_a_running_execution_is_not_polled_twice(account: Account) -> None:
    put_hinted(account, pollingSince=iso(utc_now()))
    account.send(POLL, {"task": HINTED, "change": "1"})

    reconcile()

    assert account.executions() == []
    assert account.dead_letters(POLL) == 0


def test_dead_letters_that_cannot_be_processed_stay_in_the_queue(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    account.put("flux-kontext#malformed", "PENDING", MOMENT, rank="high")
    of_a_deleted_stream = account.positions()
    of_a_deleted_stream["DDBStreamBatchInfo"]["streamArn"] += "-deleted"
    account.send(DISPATCH, {"task": "flux-kontext#malformed", "change": "1"})
    account.send(DISPATCH, {"task": "", "change": "1"})
    account.send(DISPATCH, of_a_deleted_stream)
    account.send(POLL, "no task")
    account.send(PUBLISH, "by hand")

    reconcile()

    assert (account.dead_letters(DISPATCH), account.dead_letters(POLL), account.dead_letters(PUBLISH)) == (3, 1, 1)
    (report,) = [vars(record) for record in caplog.records if record.message.startswith("malformed item")]
    assert (report["task"], report["reason"]) == ("flux-kontext#malformed", "rank")


@pytest.mark.parametrize("operation", ["StartExecution", "SendMessageBatch", "UpdateItem", "BatchGetItem"])
def test_a_dead_letter_whose_work_could_not_be_started_stays_in_the_queue(account: Account, operation: str) -> None:
    put_hinted(account)
    account.put("flux-kontext#succeeded", "SUCCEEDED", MOMENT)
    for task in (HINTED, "flux-kontext#succeeded"):
        account.send(DISPATCH, {"task": task, "change": "1"})

    fault = ClientError({"Error": {"Code": "ThrottlingException"}}, operation)
    with failing(operation, fault), pytest.raises(StoreUnavailableError):
        reconcile()

    assert account.dead_letters(DISPATCH) == (1 if operation in ("StartExecution", "SendMessageBatch") else 2)


@every_aws_fault
def test_messages_that_cannot_be_received_fail_the_run_after_its_work(
    account: Account, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    account.put("flux-kontext#stuck", "SUCCEEDED", MAX_ARCHIVING_TIME + MOMENT)

    with failing("ReceiveMessage", fault), pytest.raises(type(fault)):
        reconcile()

    assert [message["task"] for message in account.messages()] == ["flux-kontext#stuck"]


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ({"batchItemFailures": []}, 0),
        ({"batchItemFailures": [{"itemIdentifier": "1"}]}, 2),
        ({"errorMessage": "Task timed out"}, 2),
    ],
)
def test_events_that_were_not_published_are_published_by_the_hourly_run(
    account: Account, answer: Any, left: int
) -> None:
    account.put("flux-kontext#1", "ARCHIVED", MOMENT)
    account.put("flux-kontext#2", "FAILED", MOMENT)
    for number in range(2):
        account.send(PUBLISH, account.positions(first=number, last=number))
    published: list[str] = []

    def publish_events(name: str, payload: bytes) -> InvocationResult:
        assert name == "PublishEvents"
        published.extend(record["dynamodb"]["Keys"]["task"]["S"] for record in json.loads(payload)["Records"])
        return InvocationResult(json.dumps(answer).encode(), None)

    with functions_run_by(publish_events):
        reconcile()

    assert sorted(published) == ["flux-kontext#1", "flux-kontext#2"]
    assert account.dead_letters(PUBLISH) == left


def test_publish_events_is_invoked_once_a_run_if_it_fails(account: Account, caplog: pytest.LogCaptureFixture) -> None:
    account.put("flux-kontext#1", "ARCHIVED", MOMENT)
    for _ in range(3):
        account.send(PUBLISH, account.positions())

    with failing("Invoke", ClientError({"Error": {"Code": "TooManyRequestsException"}}, "Invoke")):
        reconcile()

    assert account.dead_letters(PUBLISH) == 3
    assert len([record for record in caplog.records if record.message.startswith("events not published")]) == 1


def test_events_that_are_disabled_are_not_published(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUBLISH_EVENTS_FUNCTION", "")
    account.put("flux-kontext#1", "ARCHIVED", MOMENT)
    account.send(PUBLISH, account.positions())

    reconcile()

    assert account.dead_letters(PUBLISH) == 1


def test_a_run_receives_a_limited_number_of_messages(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_DEAD_LETTERS", 60)
    for number in range(70):
        account.send(DISPATCH, {"task": f"flux-kontext#{number}", "change": "1"})

    reconcile(FakeLambdaContext(1))  # without time left, only one batch of each queue is received
    assert account.dead_letters(DISPATCH) == 20
    reconcile()
    assert account.dead_letters(DISPATCH) == 0


# ------------------------------------------------------------------------------------------------ restarts


def test_a_malformed_item_is_reported_by_each_run_until_it_is_repaired(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    def reports() -> list[str]:
        found = [vars(record)["task"] for record in caplog.records if record.message.startswith("malformed item")]
        caplog.clear()
        return found

    account.put("flux-kontext#edited", "SUCCEEDED", 2 * MAX_ARCHIVING_TIME, images="a note of the user")
    reconcile()
    assert reports() == ["flux-kontext#edited"]
    reconcile()
    assert reports() == ["flux-kontext#edited"]

    account.put("flux-kontext#edited", "ARCHIVED", MOMENT)
    reconcile()
    assert reports() == []


def test_a_task_without_an_execution_is_polled_again(account: Account) -> None:
    account.put("flux-kontext#lost", "PENDING", OVERDUE + MOMENT)
    account.put("acedata#waiting", "PENDING", OVERDUE - MOMENT, pollingSince=iso(utc_now()))

    assert reconcile() == {"pollingRestarted": 1, "archivingRepeated": 0}

    assert account.executions() == [PollState(tasks=("flux-kontext#lost",), wait_seconds=0)]
    item = account.store.item("flux-kontext#lost")
    assert item is not None
    # The time of registration is not changed. For the next run, polling has just started.
    assert item["status"] == "PENDING"
    assert item["registeredAt"] < iso(utc_now() - OVERDUE)
    assert item["updatedAt"] == item["reconciledAt"] == item["pollingSince"] > iso(utc_now() - MOMENT)


@pytest.mark.parametrize(
    ("age", "polling_since_ago", "is_restarted"),
    [
        # The message of the first poll was lost, or is a dead letter.
        (MAX_STARTING_TIME + MOMENT, None, True),
        # The noted start of polling is older than the last change to PENDING.
        (MAX_STARTING_TIME + MOMENT, MAX_STARTING_TIME + 2 * MOMENT, True),
        (MAX_STARTING_TIME + MOMENT, MAX_STARTING_TIME, False),
        (MAX_STARTING_TIME - MOMENT, None, False),
        (OVERDUE + MOMENT, OVERDUE, True),
    ],
)
def test_polling_that_never_started_is_restarted_after_an_hour(
    account: Account, age: timedelta, polling_since_ago: timedelta | None, is_restarted: bool
) -> None:
    noted = {"pollingSince": iso(utc_now() - polling_since_ago)} if polling_since_ago else {}
    account.put("flux-kontext#lost", "PENDING", age, **noted)

    assert reconcile()["pollingRestarted"] == is_restarted
    assert reconcile()["pollingRestarted"] == 0

    assert len(account.executions()) == is_restarted


def test_a_task_that_waits_for_archiving_is_queued_again(account: Account) -> None:
    account.put("flux-kontext#stuck", "SUCCEEDED", MAX_ARCHIVING_TIME + MOMENT)
    account.put("flux-kontext#young", "SUCCEEDED", MAX_ARCHIVING_TIME - MOMENT)
    before = account.store.item("flux-kontext#stuck")

    assert reconcile() == {"pollingRestarted": 0, "archivingRepeated": 1}

    (message,) = account.messages()
    assert message["task"] == "flux-kontext#stuck"
    assert message["nonce"].startswith("reconcile-")
    item = account.store.item("flux-kontext#stuck")
    assert item is not None
    assert item.pop("reconciledAt") > iso(utc_now() - MOMENT)
    # No other attribute changes: `updatedAt` is still the time of the success.
    assert item == before


@pytest.mark.parametrize("status", ["TIMED_OUT", "FAILED", "INCOMPLETE", "ARCHIVED"])
def test_tasks_in_a_final_status_are_not_changed(account: Account, status: str) -> None:
    account.put("flux-kontext#final", status, timedelta(days=30))
    before = account.store.items()

    assert reconcile() == {"pollingRestarted": 0, "archivingRepeated": 0}

    assert account.store.items() == before
    assert (account.executions(), account.messages()) == ([], [])


@pytest.mark.parametrize("status", ["PENDING", "SUCCEEDED"])
def test_an_invalid_key_does_not_stop_the_others(account: Account, status: str) -> None:
    account.put("no task", status, timedelta(days=2), provider="x")
    account.put("flux-kontext#1", status, timedelta(days=1))

    assert sum(reconcile().values()) == 1


def test_tasks_share_executions(account: Account) -> None:
    for number in range(2 * MAX_TASKS_PER_EXECUTION + 1):
        account.put(f"flux-kontext#{number}", "PENDING", OVERDUE + timedelta(minutes=number + 1))

    assert reconcile()["pollingRestarted"] == 101

    executions = account.executions()
    assert [len(state.tasks) for state in executions] == [50, 50, 1]
    # The tasks that have waited longest come first.
    assert executions[0].tasks[0] == "flux-kontext#100"
    assert executions[2].tasks == ("flux-kontext#0",)


def test_an_unconfirmed_failure_is_polled_until_it_is_confirmed(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unconfirmed = {"reportedBy": "callback"}
    account.put("flux-kontext#false", "FAILED", MAX_CONFIRMING_TIME + MOMENT, **unconfirmed)
    account.put("flux-kontext#young", "FAILED", MAX_CONFIRMING_TIME - MOMENT, **unconfirmed)
    account.put("flux-kontext#old", "FAILED", FAILURES_SEARCHED + MOMENT, **unconfirmed)
    account.put("flux-kontext#polled", "FAILED", 2 * MAX_CONFIRMING_TIME, reportedBy="poll")
    confirmed = unconfirmed | {"confirmedAt": iso(utc_now())}
    account.put("flux-kontext#confirmed", "FAILED", 2 * MAX_CONFIRMING_TIME, **confirmed)
    app.dependencies()

    for hours, runs in ((0, 1), (1, 1), (8, 2), (16, 3)):
        now = utc_now() + timedelta(hours=hours)
        monkeypatch.setattr(app.dependencies().reconciliation, "_now", lambda now=now: now)
        reconcile()
        executions = [state for state in account.executions() if "flux-kontext#false" in state.tasks]
        # A new execution starts only after the previous one has given up. Every run counts the task.
        assert len(executions) == runs
        assert metrics(capsys)[("UnconfirmedFailures",)] == (1 if hours == 0 else 2)

    polled = {task for state in account.executions() for task in state.tasks}
    assert polled == {"flux-kontext#false", "flux-kontext#young"}
    item = account.store.item("flux-kontext#false")
    assert item is not None
    assert (item["status"], item["reportedBy"]) == ("FAILED", "callback")


def test_an_unconfirmed_success_is_polled_again(account: Account) -> None:
    unconfirmed = {"reportedBy": "callback", "images": []}
    account.put("flux-kontext#unconfirmed", "UNCONFIRMED", MAX_CONFIRMING_TIME + MOMENT, **unconfirmed)
    account.put("flux-kontext#young", "UNCONFIRMED", MAX_CONFIRMING_TIME - MOMENT, **unconfirmed)

    for _ in range(2):
        reconcile()

    assert [state.tasks for state in account.executions()] == [("flux-kontext#unconfirmed",)]
    item = account.store.item("flux-kontext#unconfirmed")
    assert item is not None
    assert (item["status"], "reconciledAt" in item) == ("UNCONFIRMED", True)


@pytest.mark.parametrize(
    ("hinted_ago", "attributes", "is_restarted"),
    [
        # The message of the poll was lost: there is neither an execution nor a dead letter.
        (MAX_STARTING_TIME + MOMENT, {}, True),
        (MAX_STARTING_TIME + MOMENT, {"deliveries": 1, "registeredAt": None}, True),
        # The message of the poll may still be in the queue.
        (MAX_STARTING_TIME - MOMENT, {}, False),
        # The hint was recorded before polling gave up.
        (timedelta(hours=30), {}, False),
        (MAX_STARTING_TIME + MOMENT, {"pollingSince": MAX_STARTING_TIME}, False),
        (MAX_STARTING_TIME + MOMENT, {"pollingSince": OVERDUE + MOMENT}, True),
        # The provider did not find the task, and it is not registered.
        (MAX_STARTING_TIME + MOMENT, {"deliveries": 1, "registeredAt": None, "notFoundAt": MOMENT}, False),
    ],
)
def test_a_task_with_a_hint_after_its_timeout_is_polled_again(
    account: Account, hinted_ago: timedelta, attributes: dict[str, Any], is_restarted: bool
) -> None:
    gave_up = dict.fromkeys(("registeredAt", "updatedAt", "reportedAt"), timedelta(hours=26))
    known = {"status": "TIMED_OUT", "rank": 10, "reportedBy": "poll", **gave_up, "hintedAt": hinted_ago, **attributes}
    stored = {
        name: iso(utc_now() - value) if isinstance(value, timedelta) else value
        for name, value in known.items()
        if value is not None
    }
    account.store.put(HINTED, **stored)
    before = account.store.item(HINTED)

    assert reconcile()["pollingRestarted"] == is_restarted
    assert reconcile()["pollingRestarted"] == 0

    assert [state.tasks for state in account.executions()] == [(HINTED,)] * is_restarted
    item = account.store.item(HINTED)
    assert item is not None
    assert item.pop("reconciledAt", None) is not None or not is_restarted
    assert item == before


@pytest.mark.parametrize("answer", LastAnswer)
@pytest.mark.parametrize(
    ("gave_up", "attributes", "may_restart"),
    [
        (timedelta(hours=2), {}, True),
        (timedelta(days=13), {"deliveries": 1, "registeredAt": None}, True),
        (timedelta(days=15), {}, False),
        (MAX_CONFIRMING_TIME - MOMENT, {}, False),
        (timedelta(hours=2), {"pollingSince": MOMENT}, False),
        # The provider did not find the task, and it is not registered.
        (timedelta(hours=2), {"deliveries": 1, "registeredAt": None, "notFoundAt": MOMENT}, False),
    ],
)
def test_a_task_that_timed_out_without_an_answer_is_polled_again(
    account: Account, answer: LastAnswer, gave_up: timedelta, attributes: dict[str, Any], may_restart: bool
) -> None:
    times = dict.fromkeys(("registeredAt", "updatedAt", "reportedAt"), gave_up)
    failure = {"reason": "NO_RESULT", "lastAnswer": answer.value}
    known = {"status": "TIMED_OUT", "rank": 10, "reportedBy": "poll", "failure": failure, **times, **attributes}
    stored = {
        name: iso(utc_now() - value) if isinstance(value, timedelta) else value
        for name, value in known.items()
        if value is not None
    }
    account.store.put("flux-kontext#given-up", **stored)
    is_restarted = may_restart and answer in {LastAnswer.NO_ANSWER, LastAnswer.BUSY, LastAnswer.NOT_ASKED}

    assert [reconcile()["pollingRestarted"] for _ in range(2)] == [is_restarted, 0]

    assert [state.tasks for state in account.executions()] == [("flux-kontext#given-up",)] * is_restarted


# ------------------------------------------------------------------------------------------------ repetition


def test_a_second_run_does_nothing(account: Account) -> None:
    account.put("flux-kontext#lost", "PENDING", OVERDUE + MOMENT)
    account.put("flux-kontext#stuck", "SUCCEEDED", MAX_ARCHIVING_TIME + MOMENT)
    reconcile()
    items = account.store.items()

    assert reconcile() == {"pollingRestarted": 0, "archivingRepeated": 0}

    assert account.store.items() == items
    assert len(account.executions()) == 1
    assert len(account.messages()) == 1


def test_after_a_crash_before_the_restarts_are_noted_no_second_execution_starts(account: Account) -> None:
    for number in range(3):
        account.put(f"flux-kontext#{number}", "PENDING", OVERDUE + MOMENT)

    def fail(**_: Any) -> None:
        raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "UpdateItem")

    reconciliation = app.dependencies().reconciliation
    reconciliation._index._client.meta.events.register("before-call.dynamodb.UpdateItem", fail)
    with pytest.raises(StoreUnavailableError):
        reconcile()
    reconciliation._index._client.meta.events.unregister("before-call.dynamodb.UpdateItem", fail)

    assert reconcile() == {"pollingRestarted": 3, "archivingRepeated": 0}

    assert len(account.executions()) == 1
    assert reconcile() == {"pollingRestarted": 0, "archivingRepeated": 0}


@pytest.mark.parametrize(
    ("reconciled_ago", "is_due"),
    [
        (None, True),
        (timedelta(hours=30), True),  # before the success: this was a restart of polling
        (REPEAT_ARCHIVING_AFTER + MOMENT, True),
        (REPEAT_ARCHIVING_AFTER - MOMENT, False),
        (timedelta(hours=2), False),
    ],
)
def test_archiving_is_repeated_once_a_day(account: Account, reconciled_ago: timedelta | None, is_due: bool) -> None:
    age = timedelta(hours=26)
    noted = {"reconciledAt": iso(utc_now() - reconciled_ago)} if reconciled_ago else {}
    account.put("flux-kontext#stuck", "SUCCEEDED", age, **noted)

    assert reconcile()["archivingRepeated"] == int(is_due)

    assert len(account.messages()) == int(is_due)


def test_a_report_during_the_restart_of_polling_is_not_overwritten(account: Account) -> None:
    account.put("flux-kontext#lost", "PENDING", OVERDUE + MOMENT)

    def record_a_failure(**_: Any) -> None:
        account.put("flux-kontext#lost", "FAILED", timedelta(0))

    events = app.dependencies().reconciliation._index._client.meta.events
    events.register_first("before-call.dynamodb.UpdateItem", record_a_failure)
    reconcile()

    item = account.store.item("flux-kontext#lost")
    assert item is not None
    assert item["status"] == "FAILED"
    assert "reconciledAt" not in item


# ------------------------------------------------------------------------------------------------ limits


def test_a_run_without_time_stops_and_the_next_one_continues(account: Account) -> None:
    for number in range(60):
        account.put(f"flux-kontext#{number}", "PENDING", OVERDUE + MOMENT)
    for number in range(12):
        account.put(f"nanobanana#{number}", "SUCCEEDED", OVERDUE)

    assert reconcile(FakeLambdaContext(1)) == {"pollingRestarted": 50, "archivingRepeated": 10}
    assert reconcile(FakeLambdaContext(1)) == {"pollingRestarted": 10, "archivingRepeated": 2}
    assert reconcile() == {"pollingRestarted": 0, "archivingRepeated": 0}

    polled = [task for state in account.executions() for task in state.tasks]
    assert sorted(polled) == sorted(f"flux-kontext#{number}" for number in range(60))
    assert len(account.messages()) == 12


def test_a_run_restarts_no_more_tasks_than_its_limit(account: Account) -> None:
    for number in range(7):
        account.put(f"flux-kontext#{number}", "PENDING", OVERDUE + MOMENT)
    reconciliation = app.dependencies().reconciliation

    batches = list(reconciliation.restart_polling(OVERDUE, limit=4))

    assert [len(batch.tasks) for batch in batches] == [4]
    assert reconciliation.pending_too_long(OVERDUE) == 3


FAULTS = [
    ClientError({"Error": {"Code": "ThrottlingException"}}, "StartExecution"),
    EndpointConnectionError(endpoint_url="https://states.example"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=["throttled", "unreachable"])
@pytest.mark.parametrize(
    ("service", "operation", "status"),
    [
        ("step_functions", "StartExecution", "PENDING"),
        ("sqs", "SendMessageBatch", "SUCCEEDED"),
        ("dynamodb", "Query", "PENDING"),
    ],
)
def test_repairs_that_fail_are_left_to_the_next_run(
    account: Account, service: str, operation: str, status: str, fault: Exception
) -> None:
    account.put("flux-kontext#1", status, OVERDUE + MOMENT)
    before = account.store.items()
    reconciliation = app.dependencies().reconciliation
    clients: dict[str, Any] = {
        "dynamodb": reconciliation._index._client,
        "sqs": reconciliation._dispatcher._archive_queue._sqs,
        "step_functions": reconciliation._dispatcher._executions._step_functions,
    }
    events = clients[service].meta.events

    def fail(**_: Any) -> None:
        raise fault

    for name in ("dynamodb", "sqs", "sfn", "stepfunctions"):
        events.register(f"before-call.{name}.{operation}", fail)
    with pytest.raises(StoreUnavailableError):
        reconcile()
    assert account.store.items() == before

    for name in ("dynamodb", "sqs", "sfn", "stepfunctions"):
        events.unregister(f"before-call.{name}.{operation}", fail)
    assert sum(reconcile().values()) == 1


def refuse_one(parsed: dict[str, Any], **_: Any) -> None:
    refused = parsed["Successful"].pop()
    parsed["Failed"] = [{"Id": refused["Id"], "SenderFault": False, "Code": "InternalError"}]


def break_off(parsed: dict[str, Any], **_: Any) -> None:
    parsed.clear()  # botocore parses truncated JSON as an empty response


@pytest.mark.parametrize(("answer", "left"), [(refuse_one, 1), (break_off, 3)])
def test_messages_that_sqs_does_not_accept_are_not_noted(
    account: Account, answer: Callable[..., None], left: int
) -> None:
    for number in range(3):
        account.put(f"flux-kontext#{number}", "SUCCEEDED", OVERDUE)
    sqs = app.dependencies().reconciliation._dispatcher._archive_queue._sqs
    sqs.meta.events.register("after-call.sqs.SendMessageBatch", answer)

    with pytest.raises(StoreUnavailableError, match=f"{left} of 3 messages"):
        reconcile()

    assert [item for item in account.store.items() if "reconciledAt" in item] == []


# ------------------------------------------------------------------------------------------------ metrics


def test_a_run_that_finds_nothing_writes_metrics_too(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    reconcile()

    assert metrics(capsys) == {
        ("StuckPending",): 0,
        ("StuckArchiving",): 0,
        ("UnconfirmedFailures",): 0,
        ("OldestPendingSeconds",): 0,
    }


def test_a_run_counts_the_tasks_that_it_found_and_restarted(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        account.put(f"flux-kontext#{number}", "PENDING", OVERDUE + MOMENT)
    account.put("acedata#1", "PENDING", OVERDUE + 2 * MOMENT)
    account.put("acedata#2", "PENDING", MOMENT)
    account.put("nanobanana#1", "SUCCEEDED", OVERDUE)
    # This task has been queued again by an earlier run. It is still counted.
    account.put("nanobanana#2", "SUCCEEDED", OVERDUE, reconciledAt=iso(utc_now()))

    reconcile()

    counted = metrics(capsys)
    oldest = counted.pop(("OldestPendingSeconds",))
    assert oldest == pytest.approx((OVERDUE + 2 * MOMENT).total_seconds(), abs=30)
    assert counted == {
        ("StuckPending",): 4,
        ("StuckArchiving",): 2,
        ("UnconfirmedFailures",): 0,
        ("PollingRestarted", "flux-kontext"): 3,
        ("PollingRestarted", "acedata"): 1,
        ("ArchivingRepeated", "nanobanana"): 1,
    }


@pytest.mark.parametrize("written", ["yesterday", "", "2026-01-01 00:00:00"])
def test_a_malformed_time_in_an_item_does_not_stop_the_run(
    account: Account, capsys: pytest.CaptureFixture[str], written: str
) -> None:
    account.put("flux-kontext#1", "PENDING", OVERDUE + MOMENT, registeredAt=written)

    assert reconcile()["pollingRestarted"] == 1

    assert metrics(capsys)[("StuckPending",)] == 1


def test_missing_settings_fail_the_run(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIVE_UP_AFTER_SECONDS")

    with pytest.raises(SettingsError, match="GIVE_UP_AFTER_SECONDS"):
        reconcile()


# ------------------------------------------------------------------------------------------------ failures are reported

STUCK, UNARCHIVED = "flux-kontext#stuck", "acedata#unarchived"


@every_fault
@pytest.mark.parametrize("operation", ["StartExecution", "SendMessageBatch", "UpdateItem"])
def test_a_failed_repair_is_logged_with_its_tasks_and_does_not_affect_the_others(
    account: Account,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    fault: Exception,
) -> None:
    account.put(STUCK, "PENDING", OVERDUE + MOMENT)
    account.put(UNARCHIVED, "SUCCEEDED", MAX_ARCHIVING_TIME + MOMENT)
    refused = "NotQueuedError" if operation == "SendMessageBatch" else "StoreUnavailableError"
    kind = "KeyError" if isinstance(fault, KeyError) else refused

    # The function fails, and Lambda runs it once more.
    with failing(operation, fault), pytest.raises((StoreUnavailableError, KeyError)):
        reconcile()

    failed = {"StartExecution": {STUCK}, "SendMessageBatch": {UNARCHIVED}, "UpdateItem": {STUCK, UNARCHIVED}}[operation]
    assert {task for task in (STUCK, UNARCHIVED) if reported(caplog.records, task) == {kind}} == failed
    assert counted(capsys) == [kind] * (len(failed) + 1)
    assert len(account.executions()) == (operation != "StartExecution")
    assert len(account.messages()) == (operation != "SendMessageBatch")


@every_fault
def test_a_run_that_cannot_read_the_table_is_reported(
    account: Account, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], fault: Exception
) -> None:
    kind = "KeyError" if isinstance(fault, KeyError) else "StoreUnavailableError"

    with failing("Query", fault), pytest.raises((StoreUnavailableError, KeyError)):
        reconcile()

    (error,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert error.exc_info
    assert error.exc_info[0]
    assert [error.exc_info[0].__name__] == counted(capsys) == [kind]


@pytest.mark.parametrize("unread", ["PENDING", "SUCCEEDED"])
def test_an_index_that_can_be_counted_but_not_read_fails_the_run_after_the_other_repair(
    account: Account, caplog: pytest.LogCaptureFixture, unread: str
) -> None:
    account.put(STUCK, "PENDING", OVERDUE + MOMENT)
    account.put(UNARCHIVED, "SUCCEEDED", MAX_ARCHIVING_TIME + MOMENT)

    def fail(params: dict[str, Any], **_: Any) -> None:
        query = json.loads(params["body"])
        is_of_repair = "Select" not in query and "Limit" not in query
        if is_of_repair and query["ExpressionAttributeValues"][":status"]["S"] == unread:
            raise EndpointConnectionError(endpoint_url="https://dynamodb.example")

    app.dependencies().reconciliation._index._client.meta.events.register("before-call.dynamodb.Query", fail)
    with pytest.raises(StoreUnavailableError):
        reconcile()

    (error,) = [vars(record) for record in caplog.records if record.levelname == "ERROR" and "repair" in vars(record)]
    assert error["repair"] == ("PollingRestarted" if unread == "PENDING" else "ArchivingRepeated")
    assert len(account.executions()) == (unread != "PENDING")
    assert len(account.messages()) == (unread != "SUCCEEDED")


def test_items_that_cannot_be_read_are_reported(
    account: Account, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    account.put(STUCK, "PENDING", OVERDUE + MOMENT, rank="high")
    account.put("no key", "SUCCEEDED", MAX_ARCHIVING_TIME + MOMENT)

    for _ in range(2):  # each run reports it once
        caplog.clear()
        reconcile()
        errors = [vars(record) for record in caplog.records if record.levelname == "ERROR"]
        assert {error["task"]: error["reason"] for error in errors} == {
            STUCK: "rank",
            "no key": "expected provider#taskId",
        }
    assert counted(capsys) == ["UnreadableItem"] * 4

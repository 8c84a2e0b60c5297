"""The dispatcher: the messages and executions that it creates, and the answers of AWS that mean acceptance."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from catchlight.aws.batches import MAX_MESSAGES_PER_CALL
from catchlight.dispatch import Dispatcher, PollingExecutions, TaskQueue
from catchlight.errors import NotQueuedError, StoreUnavailableError

QUEUE_URL = "https://sqs.example/archive"
STATE_MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:poll"
REFUSED = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "Any")
NO_ANSWER = EndpointConnectionError(endpoint_url="https://aws.example")
FAULTS = [(REFUSED, "AccessDenied"), (NO_ANSWER, "EndpointConnectionError")]


class AlreadyExistsError(ClientError):
    """The error of Step Functions' client with this name."""


class Aws:
    """Both AWS clients: they record their requests, and return what `answer` returns."""

    def __init__(self, answer: Callable[[dict[str, Any]], Any]) -> None:
        self.answer = answer
        self.sent: list[dict[str, Any]] = []
        self.exceptions = self
        self.ExecutionAlreadyExists = AlreadyExistsError

    def send_message_batch(self, **call: Any) -> Any:
        self.sent.append(call)
        return self.answer(call)

    start_execution = send_message_batch


def dispatcher(aws: Aws) -> Dispatcher:
    client: Any = aws
    return Dispatcher(client, client, archive_queue_url=QUEUE_URL, state_machine=STATE_MACHINE)


def accepts(number: int) -> Callable[[dict[str, Any]], Any]:
    return lambda call: {"Successful": [{"Id": entry["Id"]} for entry in call["Entries"][:number]]}


def fails_with(fault: Exception) -> Callable[[dict[str, Any]], Any]:
    def fail(_: dict[str, Any]) -> Any:
        raise fault

    return fail


def test_each_task_has_a_message_with_the_nonce_of_its_run() -> None:
    aws = Aws(accepts(MAX_MESSAGES_PER_CALL))
    tasks = [f"acedata#{number}" for number in range(MAX_MESSAGES_PER_CALL)]

    dispatcher(aws).queue_archiving(tasks, nonce="run-7")

    (call,) = aws.sent
    assert call["QueueUrl"] == QUEUE_URL
    assert len({entry["Id"] for entry in call["Entries"]}) == MAX_MESSAGES_PER_CALL == 10
    bodies = [json.loads(entry["MessageBody"]) for entry in call["Entries"]]
    assert bodies == [{"task": task, "nonce": "run-7"} for task in tasks]


@pytest.mark.parametrize("answer", [lambda _: {}, accepts(1), lambda _: {"Failed": [], "Successful": []}])
def test_messages_that_sqs_does_not_report_as_accepted_are_missing(answer: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(NotQueuedError, match=r"SQS did not accept [12] of 2 messages: they are missing") as refused:
        dispatcher(Aws(answer)).queue_archiving(["acedata#1", "acedata#2"], nonce="run-7")

    assert refused.value.tasks in (["acedata#2"], ["acedata#1", "acedata#2"])


@pytest.mark.parametrize("delay", [0, 60])
def test_messages_are_sent_with_their_delay(delay: int) -> None:
    aws = Aws(accepts(2))
    client: Any = aws
    messages = [{"task": "acedata#1", "change": "7"}, {"task": "acedata#2", "change": "8"}]

    TaskQueue(client, QUEUE_URL).send(messages, delay_seconds=delay)

    assert [json.loads(entry["MessageBody"]) for entry in aws.sent[0]["Entries"]] == messages
    assert [entry["DelaySeconds"] for entry in aws.sent[0]["Entries"]] == [delay] * 2


@pytest.mark.parametrize(("fault", "named"), FAULTS)
def test_an_error_of_sqs_may_be_retried(fault: Exception, named: str) -> None:
    with pytest.raises(StoreUnavailableError, match=f"SQS did not accept messages: {named}"):
        dispatcher(Aws(fails_with(fault))).queue_archiving(["acedata#1"], nonce="run-7")


def test_the_input_of_an_execution_has_its_tasks_and_their_waiting_time() -> None:
    aws = Aws(lambda _: {})
    client: Any = aws
    executions = PollingExecutions(client, STATE_MACHINE)

    assert executions.start(["acedata#1", "acedata#2"], name="tasks-1", waited_seconds=60) is True
    assert dispatcher(aws).start_polling(["acedata#3"], name="redrive-1") is True

    assert [(call["stateMachineArn"], call["name"]) for call in aws.sent] == [
        (STATE_MACHINE, "tasks-1"),
        (STATE_MACHINE, "redrive-1"),
    ]
    assert [json.loads(call["input"]) for call in aws.sent] == [
        {"tasks": ["acedata#1", "acedata#2"], "waitSeconds": 0, "waitedSeconds": 60, "polls": 0},
        {"tasks": ["acedata#3"], "waitSeconds": 0, "waitedSeconds": 0, "polls": 0},
    ]


def test_an_execution_that_was_started_before_is_not_started_again() -> None:
    exists = AlreadyExistsError({"Error": {"Code": "ExecutionAlreadyExists", "Message": "it does"}}, "Any")

    assert dispatcher(Aws(fails_with(exists))).start_polling(["acedata#1"], name="n") is False


@pytest.mark.parametrize(("fault", "named"), FAULTS)
def test_an_error_of_step_functions_may_be_retried(fault: Exception, named: str) -> None:
    with pytest.raises(StoreUnavailableError, match=f"Step Functions did not start an execution: {named}"):
        dispatcher(Aws(fails_with(fault))).start_polling(["acedata#1"], name="n")

"""`catchlight describe` shows everything that a stack stores about a task, and changes nothing."""

import json
from datetime import datetime, timedelta
from typing import Any

import boto3
import pytest

from catchlight.models import iso, utc_now
from catchlight_cli.health.polling_executions import find_executions
from tests.integration.cli.conftest import STACK_NAME, Deployed

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def poll(deployed: Deployed, name: str, *tasks: str) -> None:
    """Starts an execution that polls for these tasks."""
    deployed.step_functions.start_execution(
        stateMachineArn=deployed.resources["PollTasksStateMachine"],
        name=name,
        input=json.dumps({"tasks": tasks, "waitSeconds": 60, "waitedSeconds": 0}),
    )


def test_describe_shows_a_task_and_its_history(deployed: Deployed) -> None:
    conflict = {"reportedBy": "callback", "reportedAt": "2026-01-06T00:20:00.000Z", "status": "FAILED", "urls": []}
    failure = {"reason": "INTERNAL", "code": "500", "message": "busy"}
    deployed.put(
        "flux-kontext#task12345",
        "ARCHIVED",
        registeredAt="2026-01-06T00:16:00.000Z",
        reportedAt="2026-01-06T00:17:00.000Z",
        reportedBy="poll",
        archivedAt="2026-01-06T00:18:00.000Z",
        conflicts=[conflict | {"failure": failure}],
        images=[
            {
                "kind": "result",
                "url": "https://x.example/1",
                "expiresAt": "2026-01-20T00:17:00.000Z",
                "state": "ARCHIVED",
                "key": "images/flux-kontext/task12345/result-0.png",
                "archivedAt": "2026-01-06T00:18:00.000Z",
                "bytes": 1000,
                "width": 10,
                "height": 20,
            }
        ],
    )

    description = deployed.run("describe", "task12345")

    assert [event["description"] for event in description["history"]] == [
        "registered",
        "poll reported a result of 1 image",
        "result image archived as images/flux-kontext/task12345/result-0.png",
        "archiving finished",
        "callback reported a failure, INTERNAL: a contradiction, not applied",
    ]
    assert description["reason"] == "Every image is in the bucket and validated."
    assert description["nextStep"] == "None: the task is done."
    page = deployed.show("describe", "flux-kontext/task12345")
    assert "flux-kontext/task12345 ARCHIVED" in page
    assert "10 x 20, 1,000 bytes" in page


# ------------------------------------------------------------------------------------------------ task names


@pytest.mark.parametrize("name", ["flux-kontext#t1", "flux-kontext/t1", "t1"])
def test_a_task_can_be_selected_by_key_by_path_or_by_its_id_alone(deployed: Deployed, name: str) -> None:
    deployed.put("flux-kontext#t1", "PENDING")

    assert deployed.run("describe", name)["task"]["task"] == "flux-kontext#t1"


def test_an_id_of_several_tasks_is_an_error(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING")
    deployed.put("acedata#t1", "PENDING")

    assert deployed.run("describe", "t1", expect=2) is None

    assert "is the id of several tasks: acedata/t1, flux-kontext/t1" in deployed.stderr


@pytest.mark.parametrize("name", ["a b", "flux-kontext#", "#t1", "flux-kontext/a/b", ""])
def test_an_invalid_task_name_is_an_error(deployed: Deployed, name: str) -> None:
    assert deployed.run("describe", name, expect=2) is None


def test_an_unknown_task_is_an_error(deployed: Deployed) -> None:
    assert deployed.run("describe", "t1", expect=1) is None
    assert "There is no task t1 of any provider" in deployed.stderr
    assert "Tasks of further accounts need their provider: apikley-2/t1." in deployed.stderr
    assert deployed.run("describe", "flux-kontext#t1", expect=1) is None

    assert "There is no task flux-kontext/t1" in deployed.stderr
    assert "further accounts" not in deployed.stderr


# ------------------------------------------------------------------------------------------------ next step


def test_the_execution_that_polls_a_task_is_shown(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING")
    poll(deployed, "other", "flux-kontext#t2")
    poll(deployed, "its-own", "flux-kontext#t2", "flux-kontext#t1")

    description = deployed.run("describe", "t1")

    (execution,) = description["polling"]["executions"]
    assert execution["name"] == "its-own"
    assert description["polling"]["isExhaustive"]
    assert "Execution its-own" in description["nextStep"]


@pytest.mark.parametrize(("first_poll_after", "is_shown"), [(900, True), (120, False)])
def test_an_execution_is_found_if_it_started_with_the_first_poll(
    deployed: Deployed, first_poll_after: int, is_shown: bool
) -> None:
    parameters: Any = [{"ParameterKey": "FirstPollAfterSeconds", "ParameterValue": str(first_poll_after)}]
    boto3.client("cloudformation").update_stack(StackName=STACK_NAME, UsePreviousTemplate=True, Parameters=parameters)
    deployed.put("flux-kontext#t1", "PENDING", 15 * MINUTE)
    poll(deployed, "its-own", "flux-kontext#t1")

    executions = deployed.run("describe", "t1")["polling"]["executions"]

    assert [execution["name"] for execution in executions] == ["its-own"] * is_shown


def test_stopped_executions_are_not_shown(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING")
    poll(deployed, "stopped", "flux-kontext#t1")
    machine = deployed.resources["PollTasksStateMachine"]
    (execution,) = deployed.step_functions.list_executions(stateMachineArn=machine)["executions"]
    deployed.step_functions.stop_execution(executionArn=execution["executionArn"])

    description = deployed.run("describe", "t1")

    assert description["polling"]["executions"] == []
    assert description["nextStep"].startswith("No running execution polls for it,")


def test_reconcile_is_suggested_for_a_pending_task_without_an_execution(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING", 8 * HOUR)

    assert "`catchlight reconcile`" in deployed.run("describe", "t1")["nextStep"]


def test_the_dead_letter_of_a_task_is_shown(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "SUCCEEDED")
    for task in ("flux-kontext#t2", "flux-kontext#t1", "flux-kontext#t3"):
        deployed.send("ArchiveDeadLetters", {"task": task})

    description = deployed.run("describe", "t1")

    assert len(description["deadLetters"]) == 1
    assert "is in ArchiveDeadLetters" in description["nextStep"]
    # The messages were read, and stay in the queue.
    assert deployed.count("ArchiveDeadLetters") == 3


def log(deployed: Deployed, *lines: Any) -> None:
    """Writes lines to the archiver's log."""
    logs, group = boto3.client("logs"), deployed.resources["ArchiveImagesLogGroup"]
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    now = int(utc_now().timestamp() * 1000)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    logs.put_log_events(
        logGroupName=group, logStreamName="one", logEvents=[{"timestamp": now, "message": text} for text in texts]
    )


def failed_attempt(task: str, reason: str, age: timedelta = timedelta(0), message: str = "not archived yet") -> Any:
    written = (utc_now() - age).strftime("%Y-%m-%d %H:%M:%S,") + "123+0000"
    return {"level": "WARNING", "message": message, "timestamp": written, "task": task, "reason": reason}


def test_failed_attempts_of_archiving_are_read_from_the_log(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "SUCCEEDED", HOUR, reportedAt=iso(utc_now() - HOUR))
    log(
        deployed,
        "START RequestId: 1 flux-kontext#t1",
        failed_attempt("flux-kontext#t1", "before the task was reported", 3 * HOUR),
        failed_attempt("flux-kontext#t1", "the server answers 503", HOUR / 2),
        failed_attempt("flux-kontext#t12", "of another task"),
        failed_attempt("flux-kontext#t1", "with another log message", message="archive run"),
        failed_attempt("flux-kontext#t1", "the server answers 403", HOUR / 4),
        '{"message": "not archived yet", "task": "flux-kontext#t1"}',
    )

    description = deployed.run("describe", "t1")

    attempts = [event["description"] for event in description["history"] if "archiving failed" in event["description"]]
    assert attempts == ["archiving failed: the server answers 503", "archiving failed: the server answers 403"]
    assert description["reason"].endswith("The last attempt failed: the server answers 403.")


def test_a_missing_log_is_reported_and_the_task_is_shown(deployed: Deployed) -> None:
    boto3.client("logs").delete_log_group(logGroupName=deployed.resources["ArchiveImagesLogGroup"])
    deployed.put("flux-kontext#t1", "SUCCEEDED", HOUR)

    assert deployed.run("describe", "t1")["reason"] == (
        "The provider has a result, but not all of its images are in the bucket yet."
    )
    # Without this line, the output would mean that there was no failed attempt.
    assert "Failed attempts are not shown: the log of ArchiveImages cannot be read." in deployed.stderr


# ------------------------------------------------------------------------------------------------ cost of the search


class StepFunctions:
    """A fake client. All of its executions are running, started now, and poll for another task."""

    def __init__(self, pages: int, per_page: int) -> None:
        self._pages = pages
        self._per_page = per_page
        self.calls: list[str] = []

    def list_executions(self, **arguments: Any) -> dict[str, Any]:
        self.calls.append("list")
        page = int(arguments.get("nextToken", 0))
        arns = [f"{page}-{number}" for number in range(self._per_page)]
        more = {"nextToken": str(page + 1)} if page + 1 < self._pages else {}
        now = utc_now()
        return {"executions": [{"executionArn": arn, "name": arn, "startDate": now} for arn in arns], **more}

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        self.calls.append("describe")
        return {"input": '{"tasks": ["flux-kontext#other"]}'}


@pytest.mark.parametrize(
    ("pages", "per_page", "is_started_now", "lists", "describes", "is_exhaustive"),
    [
        (1, 3, True, 1, 3, True),
        (1, 100, True, 1, 25, False),
        (1, 100, False, 1, 0, True),
        (20, 1, False, 5, 0, False),
    ],
)
def test_the_search_for_executions_is_bounded(
    pages: int, per_page: int, is_started_now: bool, lists: int, describes: int, is_exhaustive: bool
) -> None:
    client: Any = StepFunctions(pages, per_page)
    cause: datetime = utc_now() if is_started_now else utc_now() - HOUR

    search = find_executions(client, "machine", "flux-kontext#t1", changed_at=[cause], first_poll_after=2 * MINUTE)

    assert (client.calls.count("list"), client.calls.count("describe")) == (lists, describes)
    assert (search.executions, search.is_exhaustive) == ((), is_exhaustive)


def test_describe_does_not_change_the_table(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "SUCCEEDED", 2 * HOUR, updatedAt=iso(utc_now() - 2 * HOUR))
    before = deployed.store.items()

    assert "It has waited for archiving for 2 h" in deployed.run("describe", "t1")["nextStep"]

    assert deployed.store.items() == before

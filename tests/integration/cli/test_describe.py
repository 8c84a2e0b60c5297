"""`catchlight describe` shows everything that the deployed stack has about a task, and changes nothing."""

import json
from datetime import datetime, timedelta
from typing import Any

import boto3
import pytest

from catchlight.models import iso, utc_now
from catchlight_cli.health.polling_executions import find_executions
from tests.integration.cli.conftest import Deployed

HOUR = timedelta(hours=1)


def poll(deployed: Deployed, name: str, *tasks: str) -> None:
    """An execution that polls for these tasks."""
    deployed.step_functions.start_execution(
        stateMachineArn=deployed.resources["PollTasksStateMachine"],
        name=name,
        input=json.dumps({"tasks": tasks, "waitSeconds": 60, "waitedSeconds": 0}),
    )


def test_a_task_and_its_history(deployed: Deployed) -> None:
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

    explained = deployed.run("describe", "task12345")

    assert [event["description"] for event in explained["history"]] == [
        "registered",
        "poll reported a result of 1 image",
        "result image archived as images/flux-kontext/task12345/result-0.png",
        "archiving finished",
        "callback reported a failure, INTERNAL: a contradiction, not applied",
    ]
    assert explained["reason"] == "Every image is in the bucket and validated."
    assert explained["nextStep"] == "None: the task is done."
    page = deployed.show("describe", "flux-kontext/task12345")
    assert "flux-kontext/task12345 ARCHIVED" in page
    assert "10 x 20, 1,000 bytes" in page


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["flux-kontext#t1", "flux-kontext/t1", "t1"])
def test_the_ways_to_name_a_task(deployed: Deployed, name: str) -> None:
    deployed.put("flux-kontext#t1", "PENDING")

    assert deployed.run("describe", name)["task"]["task"] == "flux-kontext#t1"


def test_a_bare_id_of_several_tasks(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING")
    deployed.put("acedata#t1", "PENDING")

    assert deployed.run("describe", "t1", expect=2) is None

    assert "is the id of several tasks: acedata/t1, flux-kontext/t1" in deployed.said


@pytest.mark.parametrize("name", ["a b", "flux-kontext#", "#t1", "flux-kontext/a/b", ""])
def test_a_name_of_no_task(deployed: Deployed, name: str) -> None:
    assert deployed.run("describe", name, expect=2) is None


def test_a_task_that_is_not_there(deployed: Deployed) -> None:
    assert deployed.run("describe", "t1", expect=1) is None
    assert "There is no task t1 of any provider" in deployed.said
    assert "Tasks of further accounts need their provider: apikley-2/t1." in deployed.said
    assert deployed.run("describe", "flux-kontext#t1", expect=1) is None

    assert "There is no task flux-kontext/t1" in deployed.said
    assert "further accounts" not in deployed.said


# ------------------------------------------------------------------------------------------------ what happens next


def test_who_polls_for_it_and_when(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING")
    poll(deployed, "other", "flux-kontext#t2")
    poll(deployed, "its-own", "flux-kontext#t2", "flux-kontext#t1")

    explained = deployed.run("describe", "t1")

    (execution,) = explained["polling"]["executions"]
    assert execution["name"] == "its-own"
    assert explained["polling"]["isExhaustive"]
    assert "Execution its-own" in explained["nextStep"]


def test_an_execution_that_ended_polls_for_nothing(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING")
    poll(deployed, "stopped", "flux-kontext#t1")
    machine = deployed.resources["PollTasksStateMachine"]
    (execution,) = deployed.step_functions.list_executions(stateMachineArn=machine)["executions"]
    deployed.step_functions.stop_execution(executionArn=execution["executionArn"])

    explained = deployed.run("describe", "t1")

    assert explained["polling"]["executions"] == []
    assert explained["nextStep"].startswith("No running execution polls for it,")


def test_a_task_without_an_execution(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "PENDING", 8 * HOUR)

    assert "`catchlight reconcile`" in deployed.run("describe", "t1")["nextStep"]


def test_a_task_with_a_dead_letter(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "SUCCEEDED")
    for task in ("flux-kontext#t2", "flux-kontext#t1", "flux-kontext#t3"):
        deployed.send("ArchiveDeadLetters", {"task": task})

    explained = deployed.run("describe", "t1")

    assert len(explained["deadLetters"]) == 1
    assert "is in ArchiveDeadLetters" in explained["nextStep"]
    # The messages were read, and stay in the queue.
    assert deployed.count("ArchiveDeadLetters") == 3


def log(deployed: Deployed, *lines: Any) -> None:
    """Lines of the archiver's log."""
    logs, group = boto3.client("logs"), deployed.resources["ArchiveImagesLogGroup"]
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    now = int(utc_now().timestamp() * 1000)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    logs.put_log_events(
        logGroupName=group, logStreamName="one", logEvents=[{"timestamp": now, "message": text} for text in texts]
    )


def failed_try(task: str, reason: str, age: timedelta = timedelta(0), message: str = "not archived yet") -> Any:
    written = (utc_now() - age).strftime("%Y-%m-%d %H:%M:%S,") + "123+0000"
    return {"level": "WARNING", "message": message, "timestamp": written, "task": task, "reason": reason}


def test_why_archiving_failed_is_read_from_its_log(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "SUCCEEDED", HOUR, reportedAt=iso(utc_now() - HOUR))
    log(
        deployed,
        "START RequestId: 1 flux-kontext#t1",
        failed_try("flux-kontext#t1", "of another life", 3 * HOUR),
        failed_try("flux-kontext#t1", "the server answers 503", HOUR / 2),
        failed_try("flux-kontext#t12", "of another task"),
        failed_try("flux-kontext#t1", "of another message", message="archive run"),
        failed_try("flux-kontext#t1", "the server answers 403", HOUR / 4),
        '{"message": "not archived yet", "task": "flux-kontext#t1"}',
    )

    explained = deployed.run("describe", "t1")

    tried = [event["description"] for event in explained["history"] if "archiving failed" in event["description"]]
    assert tried == ["archiving failed: the server answers 503", "archiving failed: the server answers 403"]
    assert explained["reason"].endswith("The last attempt failed: the server answers 403.")


def test_without_a_log_the_rest_is_shown(deployed: Deployed) -> None:
    boto3.client("logs").delete_log_group(logGroupName=deployed.resources["ArchiveImagesLogGroup"])
    deployed.put("flux-kontext#t1", "SUCCEEDED", HOUR)

    assert deployed.run("describe", "t1")["reason"] == (
        "The provider has a result, but not all of its images are in the bucket yet."
    )
    # Without this line, the output would mean that there was no failed attempt.
    assert "Failed attempts are not shown: the log of ArchiveImages cannot be read." in deployed.said


# ------------------------------------------------------------------------------------------------ what a look costs


class StepFunctions:
    """Running executions, all of which started now and poll for another task."""

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
    ("pages", "per_page", "near", "lists", "describes", "is_exhaustive"),
    [
        (1, 3, True, 1, 3, True),
        (1, 100, True, 1, 25, False),
        (1, 100, False, 1, 0, True),
        (20, 1, False, 5, 0, False),
    ],
)
def test_a_look_at_executions_is_bounded(
    pages: int, per_page: int, near: bool, lists: int, describes: int, is_exhaustive: bool
) -> None:
    client: Any = StepFunctions(pages, per_page)
    cause: datetime = utc_now() if near else utc_now() - HOUR

    search = find_executions(client, "machine", "flux-kontext#t1", started_near=[cause])

    assert (client.calls.count("list"), client.calls.count("describe")) == (lists, describes)
    assert (search.executions, search.is_exhaustive) == ((), is_exhaustive)


def test_nothing_is_changed(deployed: Deployed) -> None:
    deployed.put("flux-kontext#t1", "SUCCEEDED", 2 * HOUR, updatedAt=iso(utc_now() - 2 * HOUR))
    before = deployed.store.items()

    assert "It has waited for archiving for 2 h" in deployed.run("describe", "t1")["nextStep"]

    assert deployed.store.items() == before

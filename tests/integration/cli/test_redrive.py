"""`catchlight redrive` restarts stuck tasks, and deletes a dead letter only after its task has been redriven."""

import json
from datetime import timedelta
from typing import Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from catchlight.client.stack import Stack
from catchlight.dispatch import Dispatcher
from catchlight.models import iso, utc_now
from catchlight.tasks.table import TasksTable
from catchlight_cli.repair.redriving import _VISIBILITY_TIMEOUT_SECONDS
from tests.canary_secrets import URL_QUERY
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.integration.providers import FLUX_PATH, Providers, json_response, record, unreachable

HOUR = timedelta(hours=1)
OLD_URL = f"https://tempfile.aiquickdraw.com/r/old.png?{URL_QUERY}"
NEW_URL = f"https://tempfile.aiquickdraw.com/r/new.png?{URL_QUERY}"


def image(state: str = "PENDING", url: str = OLD_URL, **more: str) -> dict[str, Any]:
    return {"kind": "result", "url": url, "expiresAt": "2026-01-01T00:00:00.000Z", "state": state, **more}


def record_with_a_fresh_url(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=1, response={"resultImageUrl": NEW_URL})


def record_with_the_old_url(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=1, response={"resultImageUrl": OLD_URL})


@pytest.fixture(autouse=True)
def fake_providers(providers: Providers) -> Providers:
    """Providers that return the record of a successful task with a fresh URL."""
    providers.answers[FLUX_PATH] = record_with_a_fresh_url
    return providers


def outcomes(result: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Returns each task's step, and whether it failed."""
    return {task["outcome"]["task"]: (task["outcome"]["step"], task["outcome"]["isFailed"]) for task in result["tasks"]}


# ------------------------------------------------------------------------------------------------ dead letters


def test_the_task_of_a_dead_letter_is_queued_with_fresh_urls_and_a_nonce(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    result = deployed.run("redrive", "--all")

    assert outcomes(result) == {"flux-kontext#1": ("archive", False)}
    assert result["deadLetters"] == {"deleted": 1, "kept": 0, "unreadable": 0}
    assert result["tasks"][0]["outcome"]["freshUrls"] == 1
    (message,) = deployed.messages("ArchiveQueue")
    assert message["task"] == "flux-kontext#1"
    assert message["nonce"].startswith("redrive-")
    assert deployed.count("ArchiveDeadLetters") == 0
    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert item["images"][0]["url"] == NEW_URL


def test_expired_images_become_pending_with_the_others(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image("EXPIRED", reason="gone", kind="origin"), image()])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    deployed.run("redrive", "--all")

    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert [found["state"] for found in item["images"]] == ["PENDING", "PENDING"]
    assert "reason" not in item["images"][0]


def test_each_run_sends_messages_with_a_different_nonce(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.run("redrive", "flux-kontext#1")
    deployed.run("redrive", "flux-kontext#1")

    nonces = [message["nonce"] for message in deployed.messages("ArchiveQueue")]
    assert len(set(nonces)) == 2


@pytest.mark.parametrize("status", ["ARCHIVED", "FAILED", None])
def test_dead_letters_of_finished_or_missing_tasks_are_deleted(deployed: Deployed, status: str | None) -> None:
    if status:
        deployed.put("flux-kontext#1", status, reportedBy="poll")
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    result = deployed.run("redrive", "--all")

    assert outcomes(result) == {"flux-kontext#1": ("nothing", False)}
    assert result["deadLetters"]["deleted"] == 1
    assert deployed.messages("ArchiveQueue") == []
    assert deployed.count("ArchiveDeadLetters") == 0


def test_several_dead_letters_of_a_task_are_redriven_once(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    for _ in range(3):
        deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    result = deployed.run("redrive", "--all")

    assert (len(result["tasks"]), result["tasks"][0]["deadLetters"]) == (1, 3)
    assert len(deployed.messages("ArchiveQueue")) == 1
    assert deployed.count("ArchiveDeadLetters") == 0


def test_all_batches_of_dead_letters_are_redriven(deployed: Deployed) -> None:
    for number in range(25):
        deployed.put(f"flux-kontext#{number}", "SUCCEEDED", images=[image()])
        deployed.send("ArchiveDeadLetters", {"task": f"flux-kontext#{number}"})

    assert deployed.run("redrive", "--all")["deadLetters"]["deleted"] == 25

    queued = {message["task"] for message in deployed.messages("ArchiveQueue")}
    assert queued == {f"flux-kontext#{number}" for number in range(25)}
    assert deployed.count("ArchiveDeadLetters") == 0


@pytest.mark.parametrize("body", ["{", "[]", '{"tasks": 1}', '{"task": 7}', ""])
def test_unreadable_dead_letters_are_kept(deployed: Deployed, body: str) -> None:
    deployed.send("ArchiveDeadLetters", body or "-")

    assert deployed.run("redrive", "--all", expect=1)["deadLetters"] == {"deleted": 0, "kept": 0, "unreadable": 1}

    assert deployed.count("ArchiveDeadLetters") == 1


def test_a_dead_letter_with_an_invalid_task_key_is_deleted(deployed: Deployed) -> None:
    deployed.send("ArchiveDeadLetters", {"task": "no key"})

    assert outcomes(deployed.run("redrive", "--all")) == {"no key": ("nothing", False)}


def test_dead_letters_of_first_polls_start_polling(deployed: Deployed) -> None:
    deployed.put("flux-kontext#overdue", "PENDING")
    deployed.put("flux-kontext#done", "ARCHIVED")
    for task in ("flux-kontext#overdue", "flux-kontext#done"):
        deployed.send("PollDeadLetters", {"task": task, "change": "1"})

    result = deployed.run("redrive", "--kind", "poll-dead-letters")

    assert outcomes(result) == {"flux-kontext#overdue": ("poll", False), "flux-kontext#done": ("nothing", False)}
    assert result["deadLetters"] == {"deleted": 2, "kept": 0, "unreadable": 0}
    assert deployed.count("PollDeadLetters") == 0


def test_a_dead_letter_is_kept_if_its_task_cannot_be_queued(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        deployed.put(f"flux-kontext#{number}", "SUCCEEDED", images=[image()])
        deployed.send("ArchiveDeadLetters", {"task": f"flux-kontext#{number}"})
    queue = Dispatcher.queue_archiving

    def refuse_one(self: Dispatcher, tasks: list[str], *, nonce: str) -> None:
        if tasks == ["flux-kontext#1"]:
            self._archive_queue._url += "-deleted"
            try:
                queue(self, tasks, nonce=nonce)
            finally:
                self._archive_queue._url = self._archive_queue._url.removesuffix("-deleted")
        else:
            queue(self, tasks, nonce=nonce)

    monkeypatch.setattr(Dispatcher, "queue_archiving", refuse_one)
    monkeypatch.setattr("catchlight_cli.repair.redriving._THREADS", 1)

    result = deployed.run("redrive", "--all", expect=1)

    assert outcomes(result)["flux-kontext#1"] == ("archive", True)
    assert result["deadLetters"] == {"deleted": 2, "kept": 1, "unreadable": 0}
    (kept,) = deployed.messages("ArchiveDeadLetters")
    assert kept == {"task": "flux-kontext#1"}


def test_an_interrupted_run_makes_its_dead_letters_visible_again(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})
    deployed.send("DispatchDeadLetters", "unreadable")

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TasksTable, "get", interrupt)

    deployed.run("redrive", "--all", expect=130)

    assert "can be repeated" in deployed.stderr
    # They are visible immediately, not only after the visibility timeout.
    assert _VISIBILITY_TIMEOUT_SECONDS > 600
    assert deployed.count("ArchiveDeadLetters") == 1
    assert deployed.count("DispatchDeadLetters") == 1


# ------------------------------------------------------------------------------------------------ incomplete


def test_the_missing_images_of_an_incomplete_task_become_pending(deployed: Deployed) -> None:
    images = [
        image("ARCHIVED", key="images/flux-kontext/1/origin-0.png", kind="origin"),
        image("EXPIRED", reason="the server answers 403"),
    ]
    deployed.put("flux-kontext#1", "INCOMPLETE", images=images, archivedAt="2026-01-01T00:00:00.000Z")

    result = deployed.run("redrive", "--all")

    assert outcomes(result) == {"flux-kontext#1": ("reopen", False)}
    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert (item["status"], item["rank"]) == ("SUCCEEDED", 30)
    assert item["images"][0] == images[0]
    renewed = item["images"][1]
    assert (renewed["state"], renewed["url"]) == ("PENDING", NEW_URL)
    assert "reason" not in renewed
    assert renewed["expiresAt"] > iso(utc_now())
    assert "archivedAt" not in item
    # DispatchChanges queues it: its status has changed.
    assert deployed.messages("ArchiveQueue") == []


@pytest.mark.parametrize(
    "respond",
    [record_with_the_old_url, json_response({}, 429), unreachable],
    ids=["the old URL", "HTTP 429", "unreachable"],
)
def test_without_a_fresh_url_an_image_keeps_its_old_url(
    deployed: Deployed, fake_providers: Providers, respond: Any
) -> None:
    fake_providers.answers[FLUX_PATH] = respond
    deployed.put("flux-kontext#1", "INCOMPLETE", images=[image("REJECTED", reason="too large")])

    result = deployed.run("redrive", "--all")

    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert (item["status"], item["images"][0]["state"], item["images"][0]["url"]) == ("SUCCEEDED", "PENDING", OLD_URL)
    detail = result["tasks"][0]["outcome"]["detail"]
    assert ("could not be requested" in detail) == (respond is not record_with_the_old_url)


def test_a_task_that_changes_during_the_redrive_is_not_overwritten(
    deployed: Deployed, fake_providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.put("flux-kontext#1", "INCOMPLETE", images=[image("EXPIRED")])

    def change_task_then_respond(request: httpx.Request) -> httpx.Response:
        deployed.put("flux-kontext#1", "ARCHIVED", -HOUR)
        return record_with_a_fresh_url(request)

    fake_providers.answers[FLUX_PATH] = change_task_then_respond

    result = deployed.run("redrive", "--all", expect=1)

    assert outcomes(result) == {"flux-kontext#1": ("reopen", True)}
    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert item["status"] == "ARCHIVED"


def test_reopening_a_task_removes_its_time_of_deletion(deployed: Deployed) -> None:
    parameters: Any = [{"ParameterKey": "TaskRetentionDays", "ParameterValue": "30"}]
    boto3.client("cloudformation").update_stack(StackName=STACK_NAME, UsePreviousTemplate=True, Parameters=parameters)
    deployed.put("flux-kontext#1", "INCOMPLETE", images=[image("EXPIRED")], deleteAfter=1)

    deployed.run("redrive", "flux-kontext#1")

    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert "deleteAfter" not in item


# ------------------------------------------------------------------------------------------------ other statuses


def test_tasks_stuck_in_archiving_are_queued(deployed: Deployed) -> None:
    deployed.put("flux-kontext#stuck", "SUCCEEDED", 2 * HOUR, images=[image()])
    deployed.put("flux-kontext#young", "SUCCEEDED", HOUR / 2, images=[image()])
    # The hourly run queues a task once a day, and has done so today; the command queues it again.
    deployed.put("flux-kontext#repeated", "SUCCEEDED", 2 * HOUR, images=[image()], reconciledAt=iso(utc_now() - HOUR))

    deployed.run("redrive", "--kind", "stuck-archiving")

    queued = sorted(message["task"] for message in deployed.messages("ArchiveQueue"))
    assert queued == ["flux-kontext#repeated", "flux-kontext#stuck"]


def test_timed_out_tasks_are_restarted_only_on_request(deployed: Deployed) -> None:
    failure = {"reason": "NO_RESULT", "message": "no callback"}
    deployed.put("flux-kontext#1", "TIMED_OUT", failure=failure, reportedBy="poll", reportedAt=iso(utc_now()))

    assert deployed.run("redrive", "--all")["tasks"] == []
    result = deployed.run("redrive", "--kind", "timed-out")

    assert outcomes(result) == {"flux-kontext#1": ("restart", False)}
    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert (item["status"], item["rank"]) == ("PENDING", 0)
    assert not {"failure", "reportedBy", "reportedAt"} & item.keys()


@pytest.mark.parametrize(
    ("status", "attributes", "step"),
    [
        ("PENDING", {}, "poll"),
        ("FAILED", {"reportedBy": "callback", "reportedAt": "2026-01-01T00:00:00.000Z"}, "poll"),
        ("FAILED", {"reportedBy": "poll"}, "nothing"),
        ("ARCHIVED", {}, "nothing"),
        ("TIMED_OUT", {}, "restart"),
    ],
)
def test_the_status_determines_the_step_for_a_named_task(
    deployed: Deployed, status: str, attributes: dict[str, Any], step: str
) -> None:
    deployed.put("flux-kontext#1", status, **attributes)

    assert outcomes(deployed.run("redrive", "flux-kontext/1")) == {"flux-kontext#1": (step, False)}

    assert deployed.executions() == ([["flux-kontext#1"]] if step == "poll" else [])


def test_only_named_tasks_and_their_dead_letters_are_redriven(deployed: Deployed) -> None:
    for number in (1, 2):
        deployed.put(f"flux-kontext#{number}", "SUCCEEDED", 2 * HOUR, images=[image()])
        deployed.send("ArchiveDeadLetters", {"task": f"flux-kontext#{number}"})
    deployed.send("ArchiveDeadLetters", "unreadable")

    result = deployed.run("redrive", "flux-kontext#1", "1")

    assert outcomes(result) == {"flux-kontext#1": ("archive", False)}
    assert [message["task"] for message in deployed.messages("ArchiveQueue")] == ["flux-kontext#1"]
    assert deployed.count("ArchiveDeadLetters") == 2


# ------------------------------------------------------------------------------------------ undispatched stream records


def positions(deployed: Deployed, *, first: int, last: int, stream: str = "", arrived: str = "") -> dict[str, Any]:
    """Returns the message that Lambda sends to the dead-letter queue for stream records whose retries are exhausted."""
    table = deployed.dynamodb.describe_table(TableName=deployed.resources["TasksTable"])["Table"]
    arn = stream or table["LatestStreamArn"]
    (shard,) = boto3.client("dynamodbstreams").describe_stream(StreamArn=table["LatestStreamArn"])["StreamDescription"][
        "Shards"
    ]
    records = records_of(deployed)
    return {
        "requestContext": {"condition": "RetryAttemptsExhausted"},
        "DDBStreamBatchInfo": {
            "shardId": shard["ShardId"],
            "startSequenceNumber": records[first]["dynamodb"]["SequenceNumber"],
            "endSequenceNumber": records[last]["dynamodb"]["SequenceNumber"],
            "approximateArrivalOfLastRecord": arrived or utc_now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            "streamArn": arn,
        },
    }


def records_of(deployed: Deployed) -> list[Any]:
    """Returns all records of the table's stream."""
    streams = boto3.client("dynamodbstreams")
    arn = deployed.dynamodb.describe_table(TableName=deployed.resources["TasksTable"])["Table"]["LatestStreamArn"]
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    found: list[Any] = streams.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    return found


def test_the_tasks_of_undispatched_stream_records_are_redriven(deployed: Deployed) -> None:
    deployed.put("flux-kontext#before", "PENDING")
    deployed.put("flux-kontext#new", "PENDING")
    deployed.put("flux-kontext#done", "SUCCEEDED", images=[image()])
    deployed.put("flux-kontext#final", "ARCHIVED")
    deployed.put("flux-kontext#after", "PENDING")
    deployed.send("DispatchDeadLetters", positions(deployed, first=1, last=3))

    result = deployed.run("redrive", "--all")

    assert outcomes(result) == {"flux-kontext#new": ("poll", False), "flux-kontext#done": ("archive", False)}
    assert deployed.executions() == [["flux-kontext#new"]]
    assert [message["task"] for message in deployed.messages("ArchiveQueue")] == ["flux-kontext#done"]
    assert result["deadLetters"]["deleted"] == 1
    assert deployed.count("DispatchDeadLetters") == 0


def test_a_dispatch_dead_letter_with_a_task_key_is_redriven(deployed: Deployed) -> None:
    deployed.put("flux-kontext#done", "SUCCEEDED", images=[image()])
    deployed.send("DispatchDeadLetters", {"task": "flux-kontext#done", "change": "1"})

    result = deployed.run("redrive", "--kind", "dispatch-dead-letters")

    assert outcomes(result) == {"flux-kontext#done": ("archive", False)}
    assert deployed.count("DispatchDeadLetters") == 0


def test_tasks_of_trimmed_records_are_found_by_their_status(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = timedelta(days=3)
    deployed.put("flux-kontext#new", "PENDING", days)
    deployed.put("flux-kontext#done", "SUCCEEDED", days, images=[image()])
    deployed.put("flux-kontext#later", "PENDING", HOUR)
    deployed.put("flux-kontext#malformed", "PENDING", days, images="none")
    dead_letter = positions(deployed, first=0, last=1, arrived=(utc_now() - days).strftime("%Y-%m-%dT%H:%M:%SZ"))
    deployed.send("DispatchDeadLetters", dead_letter)
    client_of = Stack.client

    def client_with_trimmed_stream(self: Stack, service: str) -> Any:
        client = client_of(self, service)
        if service == "dynamodbstreams":

            def fail(**_: Any) -> None:
                raise ClientError({"Error": {"Code": "TrimmedDataAccessException"}}, "GetShardIterator")

            client.meta.events.register("before-call", fail)
        return client

    monkeypatch.setattr(Stack, "client", client_with_trimmed_stream)

    result = deployed.run("redrive", "--kind", "dispatch-dead-letters", expect=1)

    assert outcomes(result) == {"flux-kontext#new": ("poll", False), "flux-kontext#done": ("archive", False)}
    assert result["unreadable"] == ["flux-kontext#malformed"]
    assert deployed.count("DispatchDeadLetters") == 0


@pytest.mark.parametrize(
    ("kind", "status"), [("incomplete", "INCOMPLETE"), ("stuck-archiving", "SUCCEEDED"), ("timed-out", "TIMED_OUT")]
)
def test_malformed_items_are_skipped_and_listed(deployed: Deployed, kind: str, status: str) -> None:
    deployed.put("flux-kontext#malformed", status, timedelta(hours=2), images="none")

    result = deployed.run("redrive", "--kind", kind, expect=1)

    assert (result["tasks"], result["unreadable"]) == ([], ["flux-kontext#malformed"])
    assert "Skipped flux-kontext/malformed: its item in the table is malformed (images)." in deployed.stderr
    assert "No other task needs a redrive." in deployed.show("redrive", "--kind", kind)


@pytest.mark.parametrize("body", [{}, {"DDBStreamBatchInfo": 1}, {"DDBStreamBatchInfo": {"shardId": "s"}}])
def test_unreadable_stream_positions_are_kept(deployed: Deployed, body: Any) -> None:
    deployed.send("DispatchDeadLetters", body)

    assert deployed.run("redrive", "--all", expect=1)["deadLetters"]["unreadable"] == 1

    assert deployed.count("DispatchDeadLetters") == 1


# ------------------------------------------------------------------------------------------------ dry run, selection


def test_a_dry_run_prints_the_steps_and_changes_nothing(deployed: Deployed, fake_providers: Providers) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.put("flux-kontext#2", "INCOMPLETE", images=[image("EXPIRED")])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})
    deployed.send("ArchiveDeadLetters", "unreadable")
    before = deployed.store.items()

    result = deployed.run("redrive", "--all", "--dry-run", expect=1)

    assert result["dryRun"]
    assert outcomes(result) == {"flux-kontext#1": ("archive", False), "flux-kontext#2": ("reopen", False)}
    assert result["deadLetters"] == {"deleted": 0, "kept": 1, "unreadable": 1}
    assert fake_providers.requests == []
    assert deployed.store.items() == before
    assert (deployed.count("ArchiveDeadLetters"), deployed.messages("ArchiveQueue")) == (2, [])


def test_a_stack_without_stuck_tasks_needs_no_redrive(deployed: Deployed) -> None:
    result = deployed.run("redrive", "--all")

    assert (result["tasks"], result["deadLetters"]) == ([], {"deleted": 0, "kept": 0, "unreadable": 0})
    assert "No task needs a redrive." in deployed.show("redrive", "--all")


@pytest.mark.parametrize("arguments", [[], ["flux-kontext#1", "--all"], ["--all", "--kind", "stuck-archiving"]])
def test_tasks_all_or_kind_is_required(deployed: Deployed, arguments: list[str]) -> None:
    assert deployed.run("redrive", *arguments, expect=2) is None

    assert "Give tasks, --all, or --kind" in deployed.stderr


def test_the_limit_bounds_the_number_of_tasks(deployed: Deployed) -> None:
    for number in range(5):
        deployed.put(f"flux-kontext#{number}", "INCOMPLETE", images=[image("EXPIRED")])

    result = deployed.run("redrive", "--all", "--limit", "3")
    assert (len(result["tasks"]), result["hasMore"]) == (3, True)

    result = deployed.run("redrive", "--all", "--limit", "3")
    assert (len(result["tasks"]), result["hasMore"]) == (2, False)


def test_without_json_a_table_and_a_summary_are_printed(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.send("ArchiveDeadLetters", json.dumps({"task": "flux-kontext#1"}))

    assert "Dry run. To retry: 1 task; to leave as they are: 0; dead letters: 1." in deployed.show(
        "redrive", "--all", "--dry-run"
    )
    page = deployed.show("redrive", "--all")
    assert "flux-kontext/1 archive-dead-letters SUCCEEDED archiving queued 1 fresh URLs" in page
    assert "1 task retried, 0 left as they are, 0 failed; 1 dead letter deleted, 0 kept." in page

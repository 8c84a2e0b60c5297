"""`catchlight redrive`: restarts stuck tasks, and deletes a dead letter only once its task is handled."""

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
from tests.integration.providers import FLUX_PATH, Providers, record, saying, unreachable

HOUR = timedelta(hours=1)
OLD_URL = f"https://tempfile.aiquickdraw.com/r/old.png?{URL_QUERY}"
NEW_URL = f"https://tempfile.aiquickdraw.com/r/new.png?{URL_QUERY}"


def image(state: str = "PENDING", url: str = OLD_URL, **more: str) -> dict[str, Any]:
    return {"kind": "result", "url": url, "expiresAt": "2026-01-01T00:00:00.000Z", "state": state, **more}


def record_with_a_fresh_url(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=1, response={"resultImageUrl": NEW_URL})


def the_same(request: httpx.Request) -> httpx.Response:
    return record(request, successFlag=1, response={"resultImageUrl": OLD_URL})


@pytest.fixture(autouse=True)
def asked(providers: Providers) -> Providers:
    """Providers whose records have the result, with a fresh URL."""
    providers.answers[FLUX_PATH] = record_with_a_fresh_url
    return providers


def outcomes(result: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """Returns each task's step, and whether it failed."""
    return {task["outcome"]["task"]: (task["outcome"]["step"], task["outcome"]["isFailed"]) for task in result["tasks"]}


# ------------------------------------------------------------------------------------------------ dead letters


def test_a_dead_letter_is_sent_again_with_fresh_urls_and_a_nonce(deployed: Deployed) -> None:
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


def test_what_an_earlier_try_gave_up_is_tried_with_the_rest(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image("EXPIRED", reason="gone", kind="origin"), image()])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    deployed.run("redrive", "--all")

    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert [found["state"] for found in item["images"]] == ["PENDING", "PENDING"]
    assert "reason" not in item["images"][0]


def test_each_run_has_a_nonce_of_its_own(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.run("redrive", "flux-kontext#1")
    deployed.run("redrive", "flux-kontext#1")

    nonces = [message["nonce"] for message in deployed.messages("ArchiveQueue")]
    assert len(set(nonces)) == 2


@pytest.mark.parametrize("status", ["ARCHIVED", "FAILED", None])
def test_a_dead_letter_whose_task_needs_nothing_is_deleted(deployed: Deployed, status: str | None) -> None:
    if status:
        deployed.put("flux-kontext#1", status, reportedBy="poll")
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    result = deployed.run("redrive", "--all")

    assert outcomes(result) == {"flux-kontext#1": ("nothing", False)}
    assert result["deadLetters"]["deleted"] == 1
    assert deployed.messages("ArchiveQueue") == []
    assert deployed.count("ArchiveDeadLetters") == 0


def test_several_dead_letters_of_a_task_are_one_try(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    for _ in range(3):
        deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})

    result = deployed.run("redrive", "--all")

    assert (len(result["tasks"]), result["tasks"][0]["deadLetters"]) == (1, 3)
    assert len(deployed.messages("ArchiveQueue")) == 1
    assert deployed.count("ArchiveDeadLetters") == 0


def test_more_dead_letters_than_one_batch_are_redriven(deployed: Deployed) -> None:
    for number in range(25):
        deployed.put(f"flux-kontext#{number}", "SUCCEEDED", images=[image()])
        deployed.send("ArchiveDeadLetters", {"task": f"flux-kontext#{number}"})

    assert deployed.run("redrive", "--all")["deadLetters"]["deleted"] == 25

    queued = {message["task"] for message in deployed.messages("ArchiveQueue")}
    assert queued == {f"flux-kontext#{number}" for number in range(25)}
    assert deployed.count("ArchiveDeadLetters") == 0


@pytest.mark.parametrize("body", ["{", "[]", '{"tasks": 1}', '{"task": 7}', ""])
def test_an_unreadable_dead_letter_stays(deployed: Deployed, body: str) -> None:
    deployed.send("ArchiveDeadLetters", body or "-")

    assert deployed.run("redrive", "--all", expect=1)["deadLetters"] == {"deleted": 0, "kept": 0, "unreadable": 1}

    assert deployed.count("ArchiveDeadLetters") == 1


def test_a_dead_letter_that_names_no_task_key_is_deleted(deployed: Deployed) -> None:
    deployed.send("ArchiveDeadLetters", {"task": "no key"})

    assert outcomes(deployed.run("redrive", "--all")) == {"no key": ("nothing", False)}


def test_polling_that_could_not_be_started_is_started(deployed: Deployed) -> None:
    deployed.put("flux-kontext#overdue", "PENDING")
    deployed.put("flux-kontext#done", "ARCHIVED")
    for task in ("flux-kontext#overdue", "flux-kontext#done"):
        deployed.send("PollDeadLetters", {"task": task, "change": "1"})

    result = deployed.run("redrive", "--kind", "poll-dead-letters")

    assert outcomes(result) == {"flux-kontext#overdue": ("poll", False), "flux-kontext#done": ("nothing", False)}
    assert result["deadLetters"] == {"deleted": 2, "kept": 0, "unreadable": 0}
    assert deployed.count("PollDeadLetters") == 0


def test_a_dead_letter_whose_message_is_not_sent_stays(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        deployed.put(f"flux-kontext#{number}", "SUCCEEDED", images=[image()])
        deployed.send("ArchiveDeadLetters", {"task": f"flux-kontext#{number}"})
    queue = Dispatcher.queue_archiving

    def refuse_one(self: Dispatcher, tasks: list[str], *, nonce: str) -> None:
        if tasks == ["flux-kontext#1"]:
            self._archive_queue._url += "-that-is-gone"
            try:
                queue(self, tasks, nonce=nonce)
            finally:
                self._archive_queue._url = self._archive_queue._url.removesuffix("-that-is-gone")
        else:
            queue(self, tasks, nonce=nonce)

    monkeypatch.setattr(Dispatcher, "queue_archiving", refuse_one)
    monkeypatch.setattr("catchlight_cli.repair.redriving._THREADS", 1)

    result = deployed.run("redrive", "--all", expect=1)

    assert outcomes(result)["flux-kontext#1"] == ("archive", True)
    assert result["deadLetters"] == {"deleted": 2, "kept": 1, "unreadable": 0}
    (left,) = deployed.messages("ArchiveDeadLetters")
    assert left == {"task": "flux-kontext#1"}


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

    assert "can be repeated" in deployed.said
    # They are visible at once, not only after a quarter of an hour.
    assert _VISIBILITY_TIMEOUT_SECONDS > 600
    assert deployed.count("ArchiveDeadLetters") == 1
    assert deployed.count("DispatchDeadLetters") == 1


# ------------------------------------------------------------------------------------------------ incomplete


def test_what_was_given_up_is_pending_again(deployed: Deployed) -> None:
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
    # The stream queues it: its status has changed.
    assert deployed.messages("ArchiveQueue") == []


@pytest.mark.parametrize("answer", [the_same, saying({}, 429), unreachable], ids=["same", "busy", "unreachable"])
def test_without_a_fresh_url_the_old_one_is_tried(deployed: Deployed, asked: Providers, answer: Any) -> None:
    asked.answers[FLUX_PATH] = answer
    deployed.put("flux-kontext#1", "INCOMPLETE", images=[image("REJECTED", reason="too large")])

    result = deployed.run("redrive", "--all")

    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert (item["status"], item["images"][0]["state"], item["images"][0]["url"]) == ("SUCCEEDED", "PENDING", OLD_URL)
    remark = result["tasks"][0]["outcome"]["detail"]
    assert ("could not be requested" in remark) == (answer is not the_same)


def test_a_task_that_changes_meanwhile_is_left_alone(
    deployed: Deployed, asked: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.put("flux-kontext#1", "INCOMPLETE", images=[image("EXPIRED")])

    def answer_while_it_changes(request: httpx.Request) -> httpx.Response:
        deployed.put("flux-kontext#1", "ARCHIVED", -HOUR)
        return record_with_a_fresh_url(request)

    asked.answers[FLUX_PATH] = answer_while_it_changes

    result = deployed.run("redrive", "--all", expect=1)

    assert outcomes(result) == {"flux-kontext#1": ("reopen", True)}
    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert item["status"] == "ARCHIVED"


def test_with_retention_a_reopened_task_is_not_deleted_any_more(deployed: Deployed) -> None:
    parameters: Any = [{"ParameterKey": "TaskRetentionDays", "ParameterValue": "30"}]
    boto3.client("cloudformation").update_stack(StackName=STACK_NAME, UsePreviousTemplate=True, Parameters=parameters)
    deployed.put("flux-kontext#1", "INCOMPLETE", images=[image("EXPIRED")], deleteAfter=1)

    deployed.run("redrive", "flux-kontext#1")

    item = deployed.store.item("flux-kontext#1")
    assert item is not None
    assert "deleteAfter" not in item


# ------------------------------------------------------------------------------------------------ others


def test_a_task_that_waits_for_its_archiving_is_queued(deployed: Deployed) -> None:
    deployed.put("flux-kontext#stuck", "SUCCEEDED", 2 * HOUR, images=[image()])
    deployed.put("flux-kontext#young", "SUCCEEDED", HOUR / 2, images=[image()])
    # The hourly run has queued it today, in vain: an operator need not wait until tomorrow.
    deployed.put("flux-kontext#repeated", "SUCCEEDED", 2 * HOUR, images=[image()], reconciledAt=iso(utc_now() - HOUR))

    deployed.run("redrive", "--kind", "stuck-archiving")

    queued = sorted(message["task"] for message in deployed.messages("ArchiveQueue"))
    assert queued == ["flux-kontext#repeated", "flux-kontext#stuck"]


def test_polling_that_gave_up_is_restarted_only_on_request(deployed: Deployed) -> None:
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
def test_a_named_task_is_given_what_its_status_asks_for(
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


# ------------------------------------------------------------------------------------------------ undispatched


def positions(deployed: Deployed, *, first: int, last: int, stream: str = "", arrived: str = "") -> dict[str, Any]:
    """Returns what Lambda sends to the dead-letter queue about stream records that it has given up."""
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
    """The stream, from its beginning."""
    streams = boto3.client("dynamodbstreams")
    arn = deployed.dynamodb.describe_table(TableName=deployed.resources["TasksTable"])["Table"]["LatestStreamArn"]
    (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    iterator = streams.get_shard_iterator(StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    found: list[Any] = streams.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    return found


def test_what_was_never_dispatched_is_read_from_the_stream(deployed: Deployed) -> None:
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


def test_a_change_that_the_dispatcher_could_not_read_names_its_task(deployed: Deployed) -> None:
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

    def forgetful(self: Stack, service: str) -> Any:
        client = client_of(self, service)
        if service == "dynamodbstreams":

            def fail(**_: Any) -> None:
                raise ClientError({"Error": {"Code": "TrimmedDataAccessException"}}, "GetShardIterator")

            client.meta.events.register("before-call", fail)
        return client

    monkeypatch.setattr(Stack, "client", forgetful)

    result = deployed.run("redrive", "--kind", "dispatch-dead-letters", expect=1)

    assert outcomes(result) == {"flux-kontext#new": ("poll", False), "flux-kontext#done": ("archive", False)}
    assert result["unreadable"] == ["flux-kontext#malformed"]
    assert deployed.count("DispatchDeadLetters") == 0


@pytest.mark.parametrize(
    ("kind", "status"), [("incomplete", "INCOMPLETE"), ("stuck-archiving", "SUCCEEDED"), ("timed-out", "TIMED_OUT")]
)
def test_malformed_items_are_named(deployed: Deployed, kind: str, status: str) -> None:
    deployed.put("flux-kontext#malformed", status, timedelta(hours=2), images="none")

    result = deployed.run("redrive", "--kind", kind, expect=1)

    assert (result["tasks"], result["unreadable"]) == ([], ["flux-kontext#malformed"])
    assert "Skipped flux-kontext/malformed: its item in the table is malformed (images)." in deployed.said
    assert "No other task needs a redrive." in deployed.show("redrive", "--kind", kind)


@pytest.mark.parametrize("body", [{}, {"DDBStreamBatchInfo": 1}, {"DDBStreamBatchInfo": {"shardId": "s"}}])
def test_unreadable_positions_stay(deployed: Deployed, body: Any) -> None:
    deployed.send("DispatchDeadLetters", body)

    assert deployed.run("redrive", "--all", expect=1)["deadLetters"]["unreadable"] == 1

    assert deployed.count("DispatchDeadLetters") == 1


# ------------------------------------------------------------------------------------------------ dry run, selection


def test_a_dry_run_says_what_would_happen_and_does_nothing(deployed: Deployed, asked: Providers) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.put("flux-kontext#2", "INCOMPLETE", images=[image("EXPIRED")])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#1"})
    deployed.send("ArchiveDeadLetters", "unreadable")
    before = deployed.store.items()

    result = deployed.run("redrive", "--all", "--dry-run", expect=1)

    assert result["dryRun"]
    assert outcomes(result) == {"flux-kontext#1": ("archive", False), "flux-kontext#2": ("reopen", False)}
    assert result["deadLetters"] == {"deleted": 0, "kept": 1, "unreadable": 1}
    assert asked.requests == []
    assert deployed.store.items() == before
    assert (deployed.count("ArchiveDeadLetters"), deployed.messages("ArchiveQueue")) == (2, [])


def test_no_task_is_stuck(deployed: Deployed) -> None:
    result = deployed.run("redrive", "--all")

    assert (result["tasks"], result["deadLetters"]) == ([], {"deleted": 0, "kept": 0, "unreadable": 0})
    assert "No task needs a redrive." in deployed.show("redrive", "--all")


@pytest.mark.parametrize("arguments", [[], ["flux-kontext#1", "--all"], ["--all", "--kind", "stuck-archiving"]])
def test_what_is_to_be_redriven_has_to_be_said(deployed: Deployed, arguments: list[str]) -> None:
    assert deployed.run("redrive", *arguments, expect=2) is None

    assert "Give tasks, --all, or --kind" in deployed.said


def test_no_more_than_the_limit(deployed: Deployed) -> None:
    for number in range(5):
        deployed.put(f"flux-kontext#{number}", "INCOMPLETE", images=[image("EXPIRED")])

    result = deployed.run("redrive", "--all", "--limit", "3")
    assert (len(result["tasks"]), result["hasMore"]) == (3, True)

    result = deployed.run("redrive", "--all", "--limit", "3")
    assert (len(result["tasks"]), result["hasMore"]) == (2, False)


def test_people_see_a_table_and_a_summary(deployed: Deployed) -> None:
    deployed.put("flux-kontext#1", "SUCCEEDED", images=[image()])
    deployed.send("ArchiveDeadLetters", json.dumps({"task": "flux-kontext#1"}))

    assert "Dry run. To retry: 1 task; to leave as they are: 0; dead letters: 1." in deployed.show(
        "redrive", "--all", "--dry-run"
    )
    page = deployed.show("redrive", "--all")
    assert "flux-kontext/1 archive-dead-letters SUCCEEDED archiving queued 1 fresh URLs" in page
    assert "1 task retried, 0 left as they are, 0 failed; 1 dead letter deleted, 0 kept." in page

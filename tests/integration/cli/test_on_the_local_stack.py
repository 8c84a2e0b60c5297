"""The command line against a running local stack with simulated services."""

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from catchlight.models import iso, utc_now
from catchlight.providers import PROVIDERS
from catchlight_cli.command_line import run as run_command_line
from catchlight_cli.health.probe import ID_PREFIX
from local.artefact import Artefact
from local.stack import LOCAL_API_KEY, LocalStack
from tests.canary_secrets import WEBHOOK_KEY, find_leaks
from tests.waiting import eventually

# The first poll is sent after 3 s. An original's URL is valid for 30 s, which is long enough on a busy machine.
TIME_SCALE = 0.05


class Running:
    """A running local stack, and the client calls of its user."""

    def __init__(self, stack: LocalStack, state_dir: Path) -> None:
        self.stack = stack
        self.state_dir = state_dir
        self.table = stack.info["table"]
        self.dynamodb = stack.boto3_client("dynamodb")
        self.step_functions = stack.boto3_client("stepfunctions")

    def submit(self, task_id: str, scenario: str = "silent") -> str:
        """Submits a task to the simulated Flux Kontext, by default without a callback. Returns the task's key."""
        response = httpx.post(
            f"{self.stack.info['simulator_url']}/kie/api/v1/flux/kontext/generate",
            json={"prompt": "a lighthouse", "callBackUrl": self.stack.info["callback_urls"]["flux-kontext"]},
            headers={"Authorization": "Bearer any", "x-simulate": scenario, "x-simulate-task-id": task_id},
            trust_env=False,
        )
        assert response.json()["data"]["taskId"] == task_id, response.text
        return f"flux-kontext#{task_id}"

    def put(self, task: str, status: str, rank: int, age: timedelta = timedelta(0), **attributes: Any) -> None:
        provider, _, task_id = task.partition("#")
        changed = iso(utc_now() - age)
        times = {"registeredAt": changed, "updatedAt": changed}
        named = {"task": task, "provider": provider, "taskId": task_id, "status": status}
        texts = {name: {"S": value} for name, value in {**named, **times}.items()}
        self.dynamodb.put_item(TableName=self.table, Item={**texts, "rank": {"N": str(rank)}, **attributes})

    def item(self, task: str) -> dict[str, Any]:
        found = self.dynamodb.get_item(TableName=self.table, Key={"task": {"S": task}}, ConsistentRead=True)
        item: dict[str, Any] = found.get("Item", {})
        return item

    def status(self, task: str) -> str:
        return str(self.item(task).get("status", {}).get("S"))

    def stop_polling(self, task: str) -> None:
        """Stops the execution that polls for a task, as an operator might do by mistake."""
        machine = self.stack.info["state_machine_arn"]

        def executions() -> list[str]:
            running = self.step_functions.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
            arns = [each["executionArn"] for each in running]
            inputs = {arn: self.step_functions.describe_execution(executionArn=arn)["input"] for arn in arns}
            return [arn for arn, given in inputs.items() if task in given]

        (arn,) = eventually(executions)
        self.step_functions.stop_execution(executionArn=arn)

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> Any:
        status = run_command_line([*arguments, "--local", "--state-dir", str(self.state_dir), "--json"])
        output = capsys.readouterr()
        assert status == expect, output
        return json.loads(output.out)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None) -> Iterator[Running]:
    state_dir = tmp_path_factory.mktemp("state")
    with LocalStack(state_dir=state_dir, time_scale=TIME_SCALE, artefact=artefact) as stack:
        yield Running(stack, state_dir)


@pytest.fixture(autouse=True)
def without_long_polling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Receives without waiting: moto returns all visible messages at once."""
    monkeypatch.setattr("catchlight.recovery.dead_letters._WAIT_SECONDS", 0)


def test_the_doctor_reports_no_fault_and_deletes_its_probes(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    diagnosis = running.run(capsys, "doctor", "--samples", "20")

    assert [check for check in diagnosis["checks"] if check["status"] == "failed"] == []
    assert diagnosis["latency"]["samples"] == 24
    # Changes are processed in their order: once this task has been polled for, a probe would have been, too.
    later = running.submit("after-the-probes")
    running.put(later, "PENDING", 0)
    eventually(lambda: running.status(later) == "ARCHIVED")
    # The probes' items are deleted, no execution polled for them, and only ReceiveCallback logged their ids.
    scanned = running.dynamodb.scan(TableName=running.table)["Items"]
    assert [item for item in scanned if ID_PREFIX in item["task"]["S"]] == []
    machine = running.stack.info["state_machine_arn"]
    found = running.step_functions.list_executions(stateMachineArn=machine)["executions"]
    inputs = [running.step_functions.describe_execution(executionArn=each["executionArn"])["input"] for each in found]
    assert [text for text in inputs if ID_PREFIX in text] == []
    logs = {path.stem: path.read_text() for path in (running.state_dir / "logs").glob("*.log")}
    assert ID_PREFIX in logs["ReceiveCallbackFunction"]
    assert [name for name, log in logs.items() if ID_PREFIX in log] == ["ReceiveCallbackFunction"]
    assert list(find_leaks("".join(logs.values()), "the logs")) == []


def test_a_key_is_tried_against_the_simulated_service_and_stored(
    running: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOCAL_API_KEY.encode())))

    changed = running.run(capsys, "keys", "set", "nanobanana")

    assert (changed["trial"]["status"], changed["trial"]["credits"]) == ("valid", 1000)
    keys = running.run(capsys, "keys", "list")
    assert {key["provider"]: key["status"] for key in keys["apiKeys"]} == dict.fromkeys(PROVIDERS, "valid")


@pytest.fixture
def signed_callbacks(running: Running) -> Iterator[None]:
    """Flux Kontext signs its callbacks."""
    secrets = running.stack.boto3_client("secretsmanager")
    secret_id = running.stack.resources["ProviderKeysSecret"].ref
    before = secrets.get_secret_value(SecretId=secret_id)["SecretString"]
    keys = json.loads(before)
    keys["flux-kontext"]["webhookKey"] = WEBHOOK_KEY

    def put(value: str) -> None:
        secrets.put_secret_value(SecretId=secret_id, SecretString=value)
        function = running.stack.functions["ReceiveCallbackFunction"]
        # A process caches the secret for minutes: only new processes read the key.
        for pid in function.pids():
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not function.pids())

    put(json.dumps(keys))
    yield
    put(before)


def test_the_doctors_probes_are_signed_if_there_is_a_webhook_key(
    running: Running, signed_callbacks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {check["subject"]: check for check in running.run(capsys, "doctor")["checks"]}

    assert checks["forged signature"]["detail"] == "HTTP 401"
    assert checks["valid callback"]["detail"] == "HTTP 200"


def test_imported_tasks_are_polled_and_archived(
    running: Running, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tasks = [running.submit(f"imported-{number}") for number in range(12)]
    file = tmp_path / "tasks.csv"
    file.write_text("provider,taskId\n" + "".join(f"{task.replace('#', ',')}\n" for task in tasks))

    assert running.run(capsys, "import", str(file))["registered"] == 12
    assert running.item(tasks[0]) == {}
    assert running.run(capsys, "import", str(file), "--yes")["registered"] == 12
    assert running.run(capsys, "import", str(file), "--yes")["alreadyKnown"] == 12

    eventually(lambda: all(running.status(task) == "ARCHIVED" for task in tasks))
    status = running.run(capsys, "status")
    assert status["tasks"]["byStatus"]["ARCHIVED"] >= 12
    assert status["callbackMissRate"]["source"] == "items"
    assert status["callbackMissRate"]["byProvider"]["flux-kontext"]["byPoll"] >= 12
    history = [event["description"] for event in running.run(capsys, "describe", "imported-0")["history"]]
    assert history[:2] == ["registered", "poll reported a result of 2 images"]


def test_a_task_whose_polling_was_stopped_is_reconciled(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    task = "flux-kontext#stopped"
    running.put(task, "PENDING", 0)
    running.stop_polling(task)
    # The task is submitted only now, so that the stopped execution cannot have found it.
    running.submit("stopped")
    description = running.run(capsys, "describe", task)
    assert description["nextStep"].startswith("No running execution polls for it,")

    restarted = running.run(capsys, "reconcile", "--older-than", "1s")["pollingRestarted"]

    assert task in restarted
    eventually(lambda: running.status(task) == "ARCHIVED")


def test_the_hourly_run_restarts_stopped_polling(running: Running) -> None:
    # The schedule is tested in tests/integration/local/test_schedule.py.
    task = "flux-kontext#hourly"
    running.put(task, "PENDING", 0, timedelta(hours=8))
    running.stop_polling(task)
    running.submit("hourly")

    outcome = running.stack.invoke("ReconcileTasksFunction", {"source": "aws.scheduler"})

    assert outcome.function_error is None, outcome.payload
    assert json.loads(outcome.payload)["pollingRestarted"] == 1
    eventually(lambda: running.status(task) == "ARCHIVED")

    assert "reconciledAt" in running.item(task)


def test_tasks_are_archived_after_an_outage_of_an_image_host(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    task = running.submit("outage", "image-outage")
    eventually(lambda: running.status(task) == "ARCHIVED")

    assert dead_letters(running) == 0
    assert running.run(capsys, "status")["problems"] == []


def dead_letters(running: Running) -> int:
    found = running.stack.boto3_client("sqs").get_queue_attributes(
        QueueUrl=running.stack.info["archive_dlq_url"], AttributeNames=["ApproximateNumberOfMessages"]
    )
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def test_redrive_archives_an_incomplete_task_from_a_fresh_url(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    # The provider still has the image; in the task's item it is EXPIRED.
    task = running.submit("expired-image", "silent")
    expired = {"kind": "result", "url": "https://tempfile.aiquickdraw.com/r/expired.png", "state": "EXPIRED"}
    image = {name: {"S": value} for name, value in {**expired, "expiresAt": iso(utc_now())}.items()}
    running.put(task, "INCOMPLETE", 40, images={"L": [{"M": image}]}, reportedBy={"S": "poll"})
    eventually(lambda: result_url(running, "expired-image"))

    (redriven,) = running.run(capsys, "redrive", task)["tasks"]

    assert (redriven["outcome"]["step"], redriven["outcome"]["freshUrls"]) == ("reopen", 1)
    eventually(lambda: running.status(task) == "ARCHIVED")
    eventually(lambda: running.run(capsys, "describe", task)["reason"] == "Every image is in the bucket and validated.")


def result_url(running: Running, task_id: str) -> str | None:
    """Returns the URL of the task's result at the service, or None while the task is running."""
    response = httpx.get(
        f"{running.stack.info['simulator_url']}/kie/api/v1/flux/kontext/record-info",
        params={"taskId": task_id},
        headers={"Authorization": "Bearer any"},
        trust_env=False,
    )
    return ((response.json()["data"] or {}).get("response") or {}).get("resultImageUrl")


def test_an_unknown_task_and_a_missing_stack_are_errors(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command_line(["describe", "no-such-task", "--local", "--state-dir", str(running.state_dir)]) == 1
    assert run_command_line(["status", "--local", "--state-dir", str(tmp_path)]) == 1
    assert "Start one with `make up`" in capsys.readouterr().err

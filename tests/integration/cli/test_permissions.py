"""What the documentation says that each command may do in AWS is what it does there."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest

from catchlight.probe import Answer, Endpoint
from image_tasks.models import iso, utc_now
from image_tasks.rejected_deliveries import RejectedDeliveries, RejectedDelivery
from local.moto_patches import functions_run_by
from local.runtime_api import Outcome
from tests.integration.cli.conftest import Deployed
from tests.integration.cli.test_redrive import image, positions, said_anew
from tests.integration.providers import FLUX_PATH, Providers

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()
HOUR = timedelta(hours=1)
# What the methods of batches may do, and S3's own names for what it lists and reads.
ACTIONS = {
    "sqs:SendMessageBatch": "sqs:SendMessage",
    "sqs:DeleteMessageBatch": "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibilityBatch": "sqs:ChangeMessageVisibility",
    "s3:ListObjectsV2": "s3:ListBucket",
    "lambda:Invoke": "lambda:InvokeFunction",
}
SERVICES = {"streams.dynamodb": "dynamodb", "monitoring": "cloudwatch"}
OF_ALL = {"cloudformation:DescribeStacks", "cloudformation:ListStackResources"}


def documented(command: str) -> set[str]:
    """Actions in a command's row; a name without a service has that of the one before it."""
    (row,) = re.findall(rf"^\| `{command}\b[^|]*\|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE)
    actions, service = set(), ""
    for name in re.findall(r"`([\w:]+)`", row):
        service = name.partition(":")[0] if ":" in name else service
        actions.add(f"{service}:{name.rpartition(':')[2]}")
    return actions


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The actions that have been asked for."""
    actions: set[str] = set()
    call: Callable[..., Any] = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]

    def note(self: Any, operation: str, parameters: Any) -> Any:
        service = self.meta.service_model.signing_name
        if operation in ("GetShardIterator", "GetRecords"):
            service = "dynamodb"
        action = f"{SERVICES.get(service, service)}:{operation}"
        actions.add(ACTIONS.get(action, action))
        return call(self, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", note)
    return actions


@pytest.fixture
def busy(deployed: Deployed, providers: Providers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """A stack in which every command finds something to do."""
    providers.answers[FLUX_PATH] = said_anew
    monkeypatch.setattr(Endpoint, "call", lambda *_, **__: Answer(200, 0.1))
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("flux-kontext#stuck", "SUCCEEDED", 2 * HOUR, images=[image()], reportedAt=iso(utc_now()))
    deployed.put("flux-kontext#incomplete", "INCOMPLETE", images=[image("EXPIRED")])
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#stuck"})
    deployed.send("ArchiveDeadLetters", "unreadable")
    deployed.send("DispatchFailures", positions(deployed, first=0, last=0))
    deployed.send("PublishFailures", positions(deployed, first=0, last=0))
    deployed.send("PublishFailures", "unreadable")
    machine = deployed.resources["PollTasksStateMachine"]
    deployed.step_functions.start_execution(stateMachineArn=machine, name="x", input='{"tasks": ["flux-kontext#new"]}')
    deployed.put("flux-kontext#new", "PENDING")
    delivery = RejectedDelivery(
        "flux-kontext", utc_now(), "unknown", {}, b'{"code": 501, "data": {"taskId": "replayed"}}'
    )
    RejectedDeliveries(boto3.client("s3"), deployed.resources["ImagesBucket"]).keep(delivery)
    Path("ids.txt").write_text("flux-kontext#adopted\n")
    with functions_run_by(lambda *_: Outcome(b'{"batchItemFailures": []}')):
        yield deployed


@pytest.mark.parametrize(
    "commands",
    [
        [["status"]],
        [["explain", "new"], ["explain", "stuck"]],
        [["doctor"]],
        [["redrive", "--all"], ["redrive", "stuck"]],
        [["reconcile"]],
        [["adopt", "ids.txt", "--yes"]],
        [["replay"]],
        [["tell"]],
    ],
    ids=lambda commands: commands[0][0],
)
def test_it_does_what_is_documented_and_nothing_else(busy: Deployed, done: set[str], commands: list[list[str]]) -> None:
    done.clear()
    for command in commands:
        busy.run(*command, expect=None)

    assert done - OF_ALL == documented(commands[0][0])
    assert done >= OF_ALL

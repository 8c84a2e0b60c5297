"""Each command uses exactly the permissions and resources that docs/command-line.md lists."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest

from catchlight.models import iso, utc_now
from catchlight.recovery.deliveries import ACCEPTED_PREFIX, PREFIX, DeliveryStore, StoredDelivery
from catchlight_cli.health.probe import Endpoint, ProbeResponse
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches.execution import functions_run_by
from local.permissions.required import required_permissions
from tests.integration.cli.conftest import Deployed
from tests.integration.cli.test_redrive import image, positions, record_with_a_fresh_url
from tests.integration.conftest import REPOSITORY
from tests.integration.providers import FLUX_PATH, Providers

PAGE = (Path(__file__).parents[3] / "docs" / "command-line.md").read_text()
HOUR = timedelta(hours=1)
STACK = "arn:aws:cloudformation:us-east-1:123456789012:stack/pictures/*"
OF_EVERY_COMMAND = {("cloudformation:DescribeStacks", STACK), ("cloudformation:ListStackResources", STACK)}


def row(command: str, used: set[tuple[str, str]], resources: dict[str, str]) -> str:
    """Returns the command's row in the documentation's table."""
    actions_of: dict[str, set[str]] = {}
    for action, arn in used:
        actions_of.setdefault(named(arn, resources), set()).add(f"`{action}`")
    resources_of: dict[str, list[str]] = {}
    for resource, actions in sorted(actions_of.items()):
        resources_of.setdefault(", ".join(sorted(actions)), []).append(resource)
    lines = [f"{actions} on {', '.join(names)}" for actions, names in sorted(resources_of.items())]
    return f"| `{command}` | {'<br>'.join(lines)} |"


def named(arn: str, resources: dict[str, str]) -> str:
    """Returns an ARN in the documentation's format, with the logical id of the stack's resource."""
    if arn == "*":
        return "everything (`*`)"
    service, kind = arn.split(":")[2], arn.split(":")[5]
    physical = arn.split(":", 5)[5]
    match service:
        case "cloudwatch":
            return "`alarm:STACK-*`"
        case "states" if kind == "execution":
            return "executions of `PollTasksStateMachine`"
        case "logs":
            physical = physical.split(":")[1]
        case "dynamodb":
            physical = re.sub(r"/stream/.*", "/stream/*", physical.removeprefix("table/"))
        case "s3":
            physical = re.sub(r"/(rejected|deliveries)/.*", r"/\1/*", physical)
        case "sqs":
            physical = next(url for url in resources.values() if url.endswith(f"/{physical}"))
        case "states":
            physical = arn
        case "lambda" | "secretsmanager":
            physical = physical.split(":")[1]
    for logical_id, name in resources.items():
        if physical == name or physical.startswith(f"{name}/"):
            return f"`{logical_id}{physical.removeprefix(name)}`"
    raise AssertionError(f"{arn} is no resource of the stack")


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """Records the permissions that the test needs: actions and ARNs."""
    permissions: set[tuple[str, str]] = set()
    call: Callable[..., Any] = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]

    def record(self: Any, operation: str, parameters: Any) -> Any:
        service = self.meta.service_model.service_name
        known = parameters
        if service == "secretsmanager":  # moto's CloudFormation does not create secrets: their Ref is a name here
            known = parameters | {
                "SecretId": f"arn:aws:secretsmanager:us-east-1:123456789012:secret:{parameters['SecretId']}"
            }
        permissions.update(required_permissions(service, operation, known))
        return call(self, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", record)
    return permissions


@pytest.fixture
def busy(deployed: Deployed, providers: Providers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployed]:
    """A stack in which every command has work to do."""
    providers.answers[FLUX_PATH] = record_with_a_fresh_url
    monkeypatch.setattr(Endpoint, "call", lambda *_, **__: ProbeResponse(200, 0.1))
    deployed.put("flux-kontext#lost", "PENDING", 8 * HOUR)
    deployed.put("flux-kontext#stuck", "SUCCEEDED", 2 * HOUR, images=[image()], reportedAt=iso(utc_now()))
    deployed.put("flux-kontext#incomplete", "INCOMPLETE", images=[image("EXPIRED")])
    quarantine = {"key": "quarantine/flux-kontext/unconfirmed/result-0", "bytes": 1, "sha256": "0"}
    deployed.put(
        "flux-kontext#unconfirmed",
        "UNCONFIRMED",
        images=[image() | {"quarantine": quarantine}],
        reportedBy="callback",
        reportedAt=iso(utc_now()),
    )
    deployed.send("ArchiveDeadLetters", {"task": "flux-kontext#stuck"})
    deployed.send("ArchiveDeadLetters", "unreadable")
    deployed.send("DispatchDeadLetters", positions(deployed, first=0, last=0))
    deployed.send("DispatchDeadLetters", "unreadable")
    deployed.send("PollDeadLetters", {"task": "flux-kontext#lost", "change": "1"})
    deployed.send("PollDeadLetters", "unreadable")
    deployed.send("PublishDeadLetters", positions(deployed, first=0, last=0))
    deployed.send("PublishDeadLetters", "unreadable")
    deployed.send("WebhookDeadLetters", (REPOSITORY / "events" / "task_events" / "failed.json").read_text())
    deployed.send("WebhookDeadLetters", "unreadable")
    machine = deployed.resources["PollTasksStateMachine"]
    deployed.step_functions.start_execution(stateMachineArn=machine, name="x", input='{"tasks": ["flux-kontext#new"]}')
    deployed.put("flux-kontext#new", "PENDING")
    delivery = StoredDelivery(
        "flux-kontext", utc_now(), "unknown", {}, b'{"code": 501, "data": {"taskId": "replayed"}}'
    )
    for prefix in (PREFIX, ACCEPTED_PREFIX):
        DeliveryStore(boto3.client("s3"), deployed.resources["ImagesBucket"], prefix).keep(delivery)
    Path("ids.txt").write_text("flux-kontext#imported\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"newKeyOfTheService0123")))
    with functions_run_by(lambda *_: InvocationResult(b'{"batchItemFailures": []}')):
        yield deployed


@pytest.mark.parametrize(
    "commands",
    [
        [["status"]],
        [["describe", "new"], ["describe", "stuck"]],
        [["keys", "list"], ["keys", "set", "flux-kontext", "--no-trial"]],
        [["doctor"]],
        [["redrive", "--all"], ["redrive", "stuck"]],
        [["accept", "flux-kontext/unconfirmed"]],
        [["reconcile"]],
        [["import", "ids.txt", "--yes"]],
        [["replay"], ["replay", "--accepted"]],
        [["resend-events"]],
    ],
    ids=lambda commands: commands[0][0],
)
def test_a_command_uses_exactly_the_documented_permissions(
    busy: Deployed, used: set[tuple[str, str]], commands: list[list[str]]
) -> None:
    used.clear()
    for command in commands:
        busy.run(*command, expect=None)

    assert used >= OF_EVERY_COMMAND
    name = commands[0][0]
    documented = re.findall(rf"^\| `{name}` \| .* on .* \|$", PAGE, re.MULTILINE)
    assert documented == [row(name, used - OF_EVERY_COMMAND, busy.resources)]

"""Puts deliveries that could not be read through the current code again: `python -m local replay`.

Against a deployed stack with your own credentials, or against the local one. What can be read now is written as the
callback's function would have written it, and removed from `rejected/`; the rest stays.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from local import LocalStackError

if TYPE_CHECKING:
    from image_tasks.rejected_deliveries import RejectedDeliveries
    from image_tasks.tasks_table import TasksTable


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of one delivery."""

    key: str
    provider_id: str
    task: str | None
    outcome: str  # "applied", "duplicate", "conflict", or why it still cannot be read
    is_settled: bool


def replay(
    deliveries: "RejectedDeliveries", table: "TasksTable", *, provider_id: str | None = None, dry_run: bool = False
) -> Iterator[Replayed]:
    """Parses every kept delivery again and writes its news.

    Args:
        deliveries: those of the stack's bucket.
        table: the stack's.
        provider_id: takes the place of the one in the callback's URL, where that was the mistake.
        dry_run: says what would happen and writes nothing.
    """
    from image_tasks.errors import RequestError
    from image_tasks.providers import find_provider
    from image_tasks.verification import decode_json

    for key, delivery in deliveries:
        provider = provider_id or delivery.provider_id
        try:
            report = find_provider(provider).parse_callback(
                decode_json(delivery.body), received_at=delivery.received_at
            )
        except RequestError as exc:
            yield Replayed(key, provider, None, str(exc), is_settled=False)
            continue
        if dry_run:
            yield Replayed(key, provider, report.task, f"would be {report.status}", is_settled=False)
            continue
        outcome = table.record(report).outcome
        deliveries.remove(key)
        yield Replayed(key, provider, report.task, outcome, is_settled=True)


def main(*, stack_name: str | None, state_dir: str, provider_id: str | None, dry_run: bool) -> int:
    """Replays and prints a table. Exit status 1 if some delivery still cannot be read."""
    from image_tasks.errors import StoreUnavailableError
    from image_tasks.rejected_deliveries import RejectedDeliveries
    from image_tasks.tasks_table import TasksTable

    bucket, table_name, connection = _deployed(stack_name) if stack_name else _local(Path(state_dir))
    deliveries = RejectedDeliveries(boto3.client("s3", **connection), bucket)
    table = TasksTable(table_name, boto3.client("dynamodb", **connection))
    console = Console()
    try:
        replayed = list(
            track(
                replay(deliveries, table, provider_id=provider_id, dry_run=dry_run),
                description="Replaying",
                console=console,
                transient=True,
            )
        )
    except (ClientError, BotoCoreError, StoreUnavailableError) as exc:
        raise LocalStackError(f"AWS refused: {exc}") from exc
    _print(console, replayed)
    return 0 if dry_run or all(each.is_settled for each in replayed) else 1


def _deployed(stack_name: str) -> tuple[str, str, dict[str, Any]]:
    try:
        stack = boto3.client("cloudformation").describe_stacks(StackName=stack_name)["Stacks"][0]
    except (ClientError, BotoCoreError) as exc:
        raise LocalStackError(f"The stack {stack_name} cannot be read with your credentials: {exc}") from exc
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    return outputs["ImagesBucketName"], outputs["TasksTableName"], {}


def _local(state_dir: Path) -> tuple[str, str, dict[str, Any]]:
    try:
        info = json.loads((state_dir / "stack.json").read_text())
    except FileNotFoundError:
        raise LocalStackError(
            f"No stack has its state in {state_dir}: `make up` first, or name a deployed one with --stack-name"
        ) from None
    connection = {
        "endpoint_url": info["aws_endpoint_url"],
        "region_name": info["region"],
        "aws_access_key_id": "local",
        "aws_secret_access_key": "local",
    }
    return info["bucket"], info["table"], connection


def _print(console: Console, replayed: Iterable[Replayed]) -> None:
    table = Table()
    for column in ("Delivery", "Provider", "Task", "Outcome"):
        table.add_column(column, overflow="fold")
    for each in replayed:
        style = "green" if each.is_settled else "yellow"
        table.add_row(each.key, Text(each.provider_id), each.task or "", Text(each.outcome, style))
    if table.row_count:
        console.print(table)
    else:
        console.print("No delivery is kept: everything that came could be read.")

"""What a million tasks cost: list prices times what one task uses.

    .venv/bin/python tests/benchmarks/cost.py

Counted: requests, writes, state transitions. Assumed, and marked so: how long functions run and how much they log. The
state machine is walked, not guessed: a poll more or a state more changes the figure.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

MILLION = 1_000_000
# us-east-1, arm64, first price tier, US dollars; as published in November 2025.
PRICES = {
    "HTTP API request": 1.00 / MILLION,
    "Lambda request": 0.20 / MILLION,
    "Lambda GB-second": 0.0000133334,
    "DynamoDB write unit": 0.625 / MILLION,
    "DynamoDB read unit": 0.125 / MILLION,
    "Step Functions transition": 0.025 / 1000,
    "SQS request": 0.40 / MILLION,
    "S3 put": 0.005 / 1000,
    "CloudWatch Logs GB": 0.50,
}
# Assumed: warm durations in seconds, log bytes of an invocation.
SECONDS = {"receive": 0.03, "dispatch": 0.05, "poll": 0.3, "archive": 1.0}
LOG_BYTES = 1500


@dataclass(frozen=True)
class Load:
    """How tasks come."""

    name: str
    lost: float  # share of callbacks that never come
    tasks_per_execution: int
    tasks_per_stream_batch: int
    tasks_per_archive_batch: int
    images: int = 2  # Flux: origin and result


LOADS = (
    Load("at load, every callback arrives", 0.0, 50, 50, 5),
    Load("at load, 2 % are lost", 0.02, 50, 50, 5),
    Load("at load, all are lost", 1.0, 50, 50, 5),
    Load("one task at a time, every callback arrives", 0.0, 1, 1, 1),
)


def transitions(definition: dict[str, Any], polls: int) -> int:
    """State transitions of an execution whose last poll is number `polls`, walked through the shipped definition."""
    state, count, polled = definition["StartAt"], 1, 0
    while definition["States"][state]["Type"] != "Succeed":
        step = definition["States"][state]
        polled += step["Type"] == "Task"
        is_last = step["Type"] == "Choice" and polled >= polls
        state = step["Default"] if is_last else step["Choices"][0]["Next"] if step["Type"] == "Choice" else step["Next"]
        count += 1
    return count


def cost_per_million(load: Load, definition: dict[str, Any]) -> dict[str, float]:
    """US dollars by service."""
    # A lost callback is found by the first or the second poll; one of a batch keeps the execution going.
    second_poll = 1 - (1 - load.lost) ** load.tasks_per_execution
    moves = transitions(definition, 1) + second_poll * (transitions(definition, 2) - transitions(definition, 1))
    polls = 1 + second_poll
    received = 1 - load.lost
    invocations = {
        "receive": received,
        # Both what is new and what succeeded comes by the stream.
        "dispatch": 2 / load.tasks_per_stream_batch,
        "poll": polls / load.tasks_per_execution,
        "archive": 1 / load.tasks_per_archive_batch,
    }
    memory = {"receive": 0.5, "dispatch": 0.5, "poll": 0.5, "archive": 1.0}
    gb_seconds = sum(count * SECONDS[name] * memory[name] for name, count in invocations.items())
    requests = sum(invocations.values())
    # Registered, reported, archived; every write also moves the item in the index: delete and put.
    writes = 3 * (1 + 2)
    reads = polls + 1  # strongly consistent, below 4 KB: one unit each
    messages = ceil(1 / load.tasks_per_archive_batch * 3 * 100) / 100 + 2 / 10  # receive, delete, send in batches
    p = PRICES
    dollars = {
        "HTTP API": received * p["HTTP API request"],
        "Lambda": requests * p["Lambda request"] + gb_seconds * p["Lambda GB-second"],
        "DynamoDB": writes * p["DynamoDB write unit"] + reads * p["DynamoDB read unit"],
        "Step Functions": moves / load.tasks_per_execution * p["Step Functions transition"],
        "SQS": messages * p["SQS request"],
        "S3": load.images * p["S3 put"],
        "Logs": requests * LOG_BYTES / 1e9 * p["CloudWatch Logs GB"],
    }
    return {service: price * MILLION for service, price in dollars.items()}


def main() -> None:
    """Prints the table."""
    definition = yaml.safe_load(Path("statemachines/poll_tasks.asl.yaml").read_text())
    table = Table(title="US dollars per million tasks of two images", title_justify="left")
    table.add_column("how tasks come")
    bills = {load: cost_per_million(load, definition) for load in LOADS}
    for service in bills[LOADS[0]]:
        table.add_column(service, justify="right")
    table.add_column("all", justify="right", style="bold")
    for load, bill in bills.items():
        table.add_row(load.name, *(f"{price:.2f}" for price in bill.values()), f"{sum(bill.values()):.2f}")
    Console(width=130).print(table)


if __name__ == "__main__":
    main()

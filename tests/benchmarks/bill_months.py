"""Computes the cost of a month by its number of tasks, compared with other ways to recover missed callbacks.

Printed with the bill of a million tasks:

    .venv/bin/python -m tests.benchmarks.bill
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from statistics import mean
from typing import Literal, NamedTuple

from rich.console import Console
from rich.table import Table

from tests.benchmarks.bill import (
    ALONE_LOAD,
    LAST_IMAGE_SECONDS,
    LOADS,
    MILLION,
    SECONDS_PER_MONTH,
    Load,
    bill,
    duration,
    fixed,
    log_bytes,
    memory,
    naive_steps,
    prices,
    print_loads,
    usage_of,
)


class Month(NamedTuple):
    """A month's tasks: their number and how they arrive, with 2 % of callbacks missed."""

    tasks: int
    arrival: Literal["evenly", "in bursts"]


class MonthlyCost(NamedTuple):
    """The cost of a month in US dollars, including fixed costs: for Catchlight, and with other ways of polling.

    The other ways poll each task from its registration until its image is ready; all other costs are the same.
    """

    full: float
    essential: float  # with Monitoring=Essential
    execution_per_task: float  # polls every 30 s from the start
    cron: float  # polls all pending tasks every minute
    container: float  # polls all pending tasks every 30 s


MONTHS = tuple(
    Month(tasks, arrival) for tasks in (1_000, 100_000, MILLION, 10 * MILLION) for arrival in ("evenly", "in bursts")
)
LOST_SHARE = 0.02
# Seconds until each image of a month is ready.
READY_AFTER = LOADS[1].done_at(0)


def month_of(month: Month) -> MonthlyCost:
    """Returns the cost of a month."""
    if month.arrival == "in bursts":  # bursts of 200 tasks a second
        load = LOADS[1]
        per_million = bill(load)
    else:
        rate = month.tasks / SECONDS_PER_MONTH
        load = replace(ALONE_LOAD, tasks_per_second=rate)
        missed = bill(replace(load, lots=1, lost=1, slowest_seconds=LAST_IMAGE_SECONDS))
        per_million = {
            service: (1 - LOST_SHARE) * cost + LOST_SHARE * missed[service] for service, cost in bill(load).items()
        }
    ours = sum(per_million.values()) * month.tasks / MILLION
    without_polling = ours - polling(load, per_million) * month.tasks / MILLION
    return MonthlyCost(
        full=ours + fixed("Full"),
        essential=ours + fixed("Essential"),
        execution_per_task=without_polling + fixed("Full") + execution_per_task(month),
        cron=without_polling + fixed("Full") + cron(month),
        container=without_polling + fixed("Full") + container(month),
    )


def polling(load: Load, per_million: Mapping[str, float]) -> float:
    """Returns the part of a bill that polling costs: executions, messages in PollQueue, StartPolling and PollTasks."""
    usage, template = usage_of(load)
    price = prices()["per_unit"]
    calls = 3 * ceil(load.tasks_at_once / 10) / load.tasks_at_once * price["SQS request"]  # send, receive, delete
    functions = sum(
        price["Lambda request"]
        + duration(invocation) * memory(invocation.function, template) * price["Lambda GB-second"]
        + log_bytes(invocation) / 1e9 * price["CloudWatch Logs GB"]
        for invocation in usage.invocations
        if invocation.function in ("StartPolling", "PollTasks")
    )
    return float(per_million["Step Functions"] + (calls + functions / usage.tasks) * MILLION)


def execution_per_task(month: Month) -> float:
    """Returns the monthly cost of an execution per task in US dollars: its transitions, polls and start."""
    price, call_milliseconds = prices()["per_unit"], prices()["milliseconds"]
    transitions = mean(naive_steps(ready) for ready in READY_AFTER)
    polls = mean(ceil(ready / 30) for ready in READY_AFTER)
    poll = run_of(call_milliseconds["dynamodb"] + call_milliseconds["provider"]) + price["DynamoDB read unit"]
    start = call_milliseconds["stepfunctions"] / 1000 * 0.5 * price["Lambda GB-second"]
    return float(month.tasks * (transitions * price["Step Functions transition"] + polls * poll + start))


def cron(month: Month) -> float:
    """Returns the monthly cost in US dollars of a schedule that polls all pending tasks every minute, 25 at once."""
    price, call_milliseconds = prices()["per_unit"], prices()["milliseconds"]
    minutes = SECONDS_PER_MONTH / 60
    # On average, the number of polls of a task is its duration in minutes.
    polls = month.tasks * mean(READY_AFTER) / 60
    waits = max(polls / 25, min(polls, minutes) if month.arrival == "evenly" else 0.0)
    reads = minutes * 0.5 + polls / 14 * 0.5  # 14 new items are 4 KB; reads of an index are eventually consistent
    return float(
        minutes * (run_of(call_milliseconds["dynamodb"]) + price["EventBridge Scheduler invocation"])
        + waits * call_milliseconds["provider"] / 1000 * 0.5 * price["Lambda GB-second"]
        + reads * price["DynamoDB read unit"]
    )


def container(month: Month) -> float:
    """Returns the monthly cost in US dollars of the smallest Fargate task, which polls all pending tasks every 30 s."""
    price, hours = prices()["fargate"], SECONDS_PER_MONTH / 3600
    polls = month.tasks * mean(READY_AFTER) / 30
    reads = SECONDS_PER_MONTH / 30 * 0.5 + polls / 14 * 0.5
    task = 0.25 * price["vCPU hour"] + 0.5 * price["GB hour"] + price["public IPv4 address hour"]
    return float(hours * task + reads * prices()["per_unit"]["DynamoDB read unit"])


def run_of(milliseconds: float) -> float:
    """Returns the cost in US dollars of one invocation with 512 MB and one log line, whose calls take this long."""
    price, call_milliseconds, assumed = prices()["per_unit"], prices()["milliseconds"], prices()["assumed"]
    seconds = (call_milliseconds["handler"] + milliseconds) / 1000
    logged = assumed["platform_log_bytes"] + 4 * assumed["log_event_overhead_bytes"] + 430
    return float(
        price["Lambda request"] + seconds * 0.5 * price["Lambda GB-second"] + logged / 1e9 * price["CloudWatch Logs GB"]
    )


def in_dollars(cost: float) -> str:
    """Formats a cost for the table: with cents below 100 dollars."""
    return f"{cost:,.2f}" if cost < 100 else f"{cost:,.0f}"


def main() -> None:
    """Prints all tables."""
    console = Console(width=150)
    print_loads(console)
    table = Table(title="US dollars a month, 2 % of callbacks missed, including fixed costs", title_justify="left")
    for column in ("tasks a month", "arrival", *MonthlyCost._fields):
        table.add_column(column.replace("_", " "), justify="right")
    for month in MONTHS:
        table.add_row(f"{month.tasks:,}", month.arrival, *map(in_dollars, month_of(month)))
    console.print(table)

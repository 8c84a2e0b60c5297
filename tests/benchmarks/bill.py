"""Computes the cost of a million tasks: the counted usage of the real handlers, times list prices.

`bill_months` computes the cost of a month, by its number of tasks.

    .venv/bin/python -m tests.benchmarks.bill

- counted in runs of the handlers with an in-memory account (`bill_run`): requests, write and read units by the size of
  the real items, state transitions, objects, events, bytes of log
- read from the template: memory, filters, projections of the indexes, alarms
- assumed (`bill_prices.toml`), because it can be measured in AWS only: the duration of calls
"""

import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from catchlight.aws.secrets import CACHE_SECONDS
from catchlight.tasks.concurrent_writes import MAX_CONCURRENT_WRITES
from local.template.expand import Template, load_template
from local.template.intrinsic_functions import Resolver
from tests.benchmarks.bill_run import CountedStack, counted_stack
from tests.benchmarks.bill_units import walk
from tests.benchmarks.bill_usage import Invocation, Usage
from tests.benchmarks.figures import Figure, Goal

REPOSITORY = Path(__file__).parents[2]
MILLION = 1_000_000
SECONDS_PER_MONTH = 30 * 86400
FIRST_IMAGE_SECONDS, LAST_IMAGE_SECONDS = 8, 112  # durations of the fastest and the slowest observed task
EXPECTED_SECONDS = 55  # half of the slowest task's duration

# The highest cost of a million tasks in US dollars.
GOAL_AT_LOAD = 28.0
GOAL_ALONE = 50.0


@dataclass(frozen=True)
class Load:
    """The arrival pattern of tasks."""

    name: str
    tasks_at_once: int  # number of tasks registered within one batching window of a stream shard
    tasks_per_second: float
    lots: int = 1  # number of times that `tasks_at_once` tasks are registered
    lost: int = 0  # number of tasks in each lot whose callbacks never arrive
    slowest_seconds: float = EXPECTED_SECONDS  # from registration to the last image

    def done_at(self, lot: int) -> list[float]:
        """Returns the seconds from registration until each image of a lot is ready, evenly spread over all lots."""
        count = self.lots * self.tasks_at_once
        step = (self.slowest_seconds - FIRST_IMAGE_SECONDS) / count
        first = lot * self.tasks_at_once
        return [FIRST_IMAGE_SECONDS + step * (number + 1) for number in range(first, first + self.tasks_at_once)]


# 200 a second over the four shards of a new on-demand table: 50 in a window of one second.
AT_LOAD = {"tasks_at_once": 50, "tasks_per_second": 200.0}
# A million a month, evenly: one every 2.6 s.
ALONE = {"tasks_at_once": 1, "tasks_per_second": MILLION / SECONDS_PER_MONTH, "lots": 10}
LOADS: tuple[Load, ...] = (
    Load("at load, every callback arrives", **AT_LOAD),  # type: ignore[arg-type]
    Load("at load, 2 % of callbacks missed", **AT_LOAD, lost=1, slowest_seconds=LAST_IMAGE_SECONDS),  # type: ignore[arg-type]
    Load("at load, all callbacks missed", **AT_LOAD, lost=50, slowest_seconds=LAST_IMAGE_SECONDS),  # type: ignore[arg-type]
    Load("one task at a time", **ALONE),  # type: ignore[arg-type]
    Load("one at a time, in 8 to 112 s", **ALONE, slowest_seconds=LAST_IMAGE_SECONDS),  # type: ignore[arg-type]
)


ALONE_LOAD = LOADS[3]


@cache
def prices() -> dict[str, Any]:
    """Returns the list prices and the assumptions."""
    return tomllib.loads((Path(__file__).parent / "bill_prices.toml").read_text())


def usage_of(load: Load) -> tuple[Usage, Template]:
    """Returns the usage of a load's tasks. Loads that differ only in their rate share one cached result."""
    return _usage_at_any_rate(replace(load, name="", tasks_per_second=0.0))


@cache
def _usage_at_any_rate(load: Load) -> tuple[Usage, Template]:
    with counted_stack(CountedStack) as stack:
        for lot in range(load.lots):
            stack.run_tasks(load.done_at(lot), load.lost)
        return stack.usage, stack.template


def bill(load: Load) -> dict[str, float]:
    """Returns US dollars per million tasks, by service."""
    usage, template = usage_of(load)
    dollars = costs(usage, template, tasks_per_second=load.tasks_per_second)
    return {service: cost / usage.tasks * MILLION for service, cost in dollars.items()}


def costs(
    usage: Usage,
    template: Template,
    *,
    tasks_per_second: float,
    seconds_of: Callable[[Invocation], float] | None = None,
) -> dict[str, float]:
    """Returns the cost of a usage in US dollars, by service. `seconds_of` replaces `duration`."""
    seconds_of = seconds_of or duration
    price, assumed = prices()["per_unit"], prices()["assumed"]
    invocations = usage.invocations
    by_function = Counter(invocation.function for invocation in invocations)
    seconds = {
        function: sum(seconds_of(invocation) for invocation in invocations if invocation.function == function)
        for function in by_function
    }
    gb_seconds = sum(duration_sum * memory(function, template) for function, duration_sum in seconds.items())
    logged = sum(map(log_bytes, invocations)) + usage.callbacks * (
        assumed["access_log_bytes"] + assumed["log_event_overhead_bytes"]
    )
    traces = sum(
        count * traced_share(count / usage.tasks * tasks_per_second)
        for count in (usage.executions, *(n for function, n in by_function.items() if is_traced(function, template)))
    )
    secret_calls = sum(
        # Each sandbox reads its secrets again after CACHE_SECONDS. There is a sandbox for each concurrent invocation.
        secrets_of(function, template)
        * min(
            by_function[function] / usage.tasks * tasks_per_second,
            max(1.0, duration_sum / usage.tasks * tasks_per_second) / CACHE_SECONDS,
        )
        for function, duration_sum in seconds.items()
    )
    # Lambda receives and deletes the messages of a batch in requests of ten messages.
    received = sum(2 * ceil(messages / 10) for messages in usage.received)
    queue_requests = usage.calls("sqs:SendMessageBatch") + usage.calls("sqs:ChangeMessageVisibility") + received
    return {
        "HTTP API": usage.callbacks * price["HTTP API request"],
        "Lambda": len(invocations) * price["Lambda request"] + gb_seconds * price["Lambda GB-second"],
        "DynamoDB": usage.write_units.total() * price["DynamoDB write unit"]
        + usage.read_units * price["DynamoDB read unit"],
        "Step Functions": usage.transitions * price["Step Functions transition"],
        "SQS": queue_requests * price["SQS request"],
        "S3": usage.calls("s3:PutObject") * price["S3 put"],
        "Events": usage.events * price["EventBridge event"],
        "Logs": logged / 1e9 * price["CloudWatch Logs GB"],
        "X-Ray": traces * price["X-Ray trace"],
        "Secrets": secret_calls / tasks_per_second * usage.tasks * price["Secrets Manager call"],
    }


def memory(function: str, template: Template) -> float:
    """Returns the memory of a function in GB."""
    return float(template.resources[f"{function}Function"]["Properties"]["MemorySize"] / 1024)


def log_bytes(invocation: Invocation) -> int:
    """Returns the bytes of log that are billed for an invocation, with Lambda's own three lines."""
    assumed = prices()["assumed"]
    return int(
        invocation.log_bytes
        + assumed["platform_log_bytes"]
        + assumed["log_event_overhead_bytes"] * (invocation.log_lines + 3)
    )


def secrets_of(function: str, template: Template) -> int:
    """Returns the number of secrets that a function reads."""
    environment = template.resources[f"{function}Function"]["Properties"]["Environment"]["Variables"]
    return sum(name.endswith("_SECRET") for name in environment)


def is_traced(function: str, template: Template) -> bool:
    """Returns whether a function starts its own traces; polls belong to their execution's trace."""
    traces = "TracingConfig" in template.resources[f"{function}Function"]["Properties"]
    return function != "PollTasks" and traces and template.parameters["Tracing"] == "Active"


def duration(invocation: Invocation) -> float:
    """Returns the duration of an invocation in seconds. Concurrent calls take as long as one call."""
    call_milliseconds = prices()["milliseconds"]
    counts = Counter({"provider": invocation.provider_requests, "image": invocation.images})
    for call, count in invocation.calls.items():
        counts[call] += count
    milliseconds = call_milliseconds["handler"]
    for what, count in counts.items():
        service, _, operation = what.partition(":")
        width = concurrent_calls(invocation.function, service, operation)
        milliseconds += ceil(count / width) * call_milliseconds[service]
    return float(milliseconds) / 1000


def concurrent_calls(function: str, service: str, operation: str) -> int:
    """Returns the number of calls of a kind that a function makes concurrently."""
    match function, service:
        case "ArchiveImages", _:
            return 10  # five tasks, two images each
        case "PollTasks", "provider":
            return 25  # ten, then forty
        case "PollTasks", "dynamodb" if operation == "UpdateItem":
            return MAX_CONCURRENT_WRITES
        case _:
            return 1


def traced_share(per_second: float) -> float:
    """Returns the share of traces that X-Ray samples at this rate: one a second, and 5 % of the others."""
    if per_second <= 1:
        return 1.0
    return (1 + float(prices()["assumed"]["traced_share"]) * (per_second - 1)) / per_second


def monthly(template: Template, usage: Usage) -> dict[str, float]:
    """Returns the fixed costs of a month in US dollars, for one provider."""
    price = prices()["per_month"]
    metrics = set().union(*(invocation.metrics for invocation in usage.invocations))
    alarms = created(template, "AWS::CloudWatch::Alarm")
    alarm_metrics = sum(
        max(1, sum("MetricStat" in metric for metric in alarm.get("Metrics", [{"MetricStat": 1}]))) for alarm in alarms
    )
    queues = sum("StartingPosition" not in source for source in created(template, "AWS::Lambda::EventSourceMapping"))
    idle = queues * prices()["assumed"]["idle_queue_requests_per_month"] * prices()["per_unit"]["SQS request"]
    return {
        "secrets": len(created(template, "AWS::SecretsManager::Secret")) * price["secret"],
        f"{len(metrics)} custom metrics": len(metrics) * price["custom metric"],
        f"{len(alarms)} alarms": alarm_metrics * price["alarm metric"],
        "dashboard": len(created(template, "AWS::CloudWatch::Dashboard")) * price["dashboard"],
        f"polling of {queues} empty queues": idle,
    }


def created(template: Template, type_name: str) -> list[dict[str, Any]]:
    """Returns the properties of a type's resources that are created with the template's parameter values."""
    resolver = Resolver(template, str, lambda name, attribute: f"{name}.{attribute}")
    resources = [template.resources[name] for name in template.of_type(type_name)]
    return [
        resource["Properties"]
        for resource in resources
        if "Condition" not in resource or resolver.condition(resource["Condition"])
    ]


@cache
def fixed(monitoring: str) -> float:
    """Returns the fixed cost of a month in US dollars, by the value of the parameter `Monitoring`."""
    usage, _ = usage_of(LOADS[1])
    return sum(monthly(load_template(REPOSITORY / "template.yaml", {"Monitoring": monitoring}), usage).values())


# Naive polling: one execution per task, which polls every 30 s from the start.
NAIVE: Mapping[str, Any] = {
    "StartAt": "Wait",
    "States": {
        "Wait": {"Type": "Wait", "Seconds": 30, "Next": "Poll"},
        "Poll": {"Type": "Task", "Next": "Still running?"},
        "Still running?": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.tasks[0]", "IsPresent": True, "Next": "Wait"}],
            "Default": "Save",
        },
        "Save": {"Type": "Task", "Next": "Done"},
        "Done": {"Type": "Succeed"},
    },
}


def naive_steps(seconds: float) -> int:
    """Returns the transitions of naive polling of a task whose images take this long."""

    def poll(state: dict[str, Any], waited: float) -> dict[str, Any]:
        return {"tasks": [] if waited >= seconds else ["one"]}

    return sum(1 for _ in walk(NAIVE, {}, poll))


def naive_transitions(seconds: float) -> float:
    """Returns the cost of naive polling's transitions in US dollars per million tasks whose images take this long."""
    return float(naive_steps(seconds) * prices()["per_unit"]["Step Functions transition"] * MILLION)


def measure() -> list[Figure]:
    """Computes the cost of each load, compared with naive polling."""
    naive = naive_transitions(600)
    goals = {LOADS[1]: GOAL_AT_LOAD, LOADS[3]: GOAL_ALONE}
    figures = []
    for load in LOADS:
        dollars = sum(bill(load).values())
        goal = Goal(goals[load], of="value") if load in goals else None
        figures.append(
            Figure(f"a million tasks, {load.name}", dollars, "$", "polled from the start", naive, dollars / naive, goal)
        )
    return [
        *figures,
        Figure("fixed cost of a month", fixed("Full"), "$"),
        Figure("fixed cost of a month, Monitoring=Essential", fixed("Essential"), "$"),
    ]


def print_loads(console: Console) -> None:
    """Prints the bill of each load."""
    table = Table(title="US dollars per million tasks of two images", title_justify="left")
    table.add_column("load")
    bills = {load: bill(load) for load in LOADS}
    for service in bills[LOADS[0]]:
        table.add_column(service, justify="right")
    table.add_column("total", justify="right", style="bold")
    for load, costs in bills.items():
        table.add_row(load.name, *(f"{cost:.2f}" for cost in costs.values()), f"{sum(costs.values()):.2f}")
    console.print(table)
    usage, template = usage_of(LOADS[1])
    console.print("Fixed cost of a month:", ", ".join(f"{n} ${d:.2f}" for n, d in monthly(template, usage).items()))
    console.print(f"Naive polling for ten minutes, transitions only: ${naive_transitions(600):,.2f}")
    console.print("Bytes of an item by status:", usage.item_sizes)


if __name__ == "__main__":
    # `bill_months` imports this module as another instance, which computes and caches all figures.
    from tests.benchmarks.bill_months import main as print_all

    print_all()

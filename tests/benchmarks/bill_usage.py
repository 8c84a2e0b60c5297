"""Describes what the tasks of a bill have used: invocations with their calls and log lines, writes and messages."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of a function."""

    function: str
    calls: Counter[str]  # by service and operation
    provider_requests: int
    images: int
    log_lines: int
    log_bytes: int
    metrics: frozenset[tuple[str, ...]]  # name and dimensions


@dataclass(slots=True)
class Usage:
    """The usage of some tasks."""

    tasks: int = 0
    invocations: list[Invocation] = field(default_factory=list)
    transitions: int = 0
    executions: int = 0
    received: list[int] = field(default_factory=list)  # messages of each batch from a queue
    callbacks: int = 0
    events: int = 0
    read_units: int = 0
    write_units: Counter[str] = field(default_factory=Counter)  # by table and index
    writes: list[Counter[str]] = field(default_factory=list)  # for every write that changed an item
    item_sizes: dict[str, int] = field(default_factory=dict)  # bytes by status

    def calls(self, call: str) -> int:
        """Returns the number of such AWS calls by all functions."""
        return sum(invocation.calls[call] for invocation in self.invocations)


def logged_bytes(line: str) -> int:
    """Returns the size of a log line. Measured seconds count with six decimals, so that all runs have one result."""
    return len(re.sub(r"\.\d+(e-\d+)?(?=[],}])", ".000000", line).encode()) + 1


def metrics_in(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yields every metric that CloudWatch bills: a name with a set of dimensions and their values."""
    for line in lines:
        entry = json.loads(line)
        for described in entry.get("_aws", {}).get("CloudWatchMetrics", []):
            for dimensions in described["Dimensions"]:
                for metric in described["Metrics"]:
                    yield (metric["Name"], *(f"{name}={entry[name]}" for name in sorted(dimensions)))

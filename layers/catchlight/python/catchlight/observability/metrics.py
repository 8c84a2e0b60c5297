"""Metrics in CloudWatch's embedded metric format: a log line that CloudWatch counts.

Powertools' would be loaded by the function that somebody waits for: see `structured_log`.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from catchlight import settings


class Unit(StrEnum):
    """What is counted, in CloudWatch's words."""

    COUNT = "Count"
    SECONDS = "Seconds"
    BYTES = "Bytes"


class Metrics:
    """What is to be written together."""

    def __init__(self) -> None:
        self._units: dict[str, str] = {}
        self._values: dict[str, list[float]] = {}

    def add_metric(self, name: str, unit: Unit, value: float) -> None:
        """Adds a value; several of one name are all counted."""
        self._units[name] = unit
        self._values.setdefault(name, []).append(float(value))

    def line(self, dimensions: dict[str, str]) -> str | None:
        """The line to write, None if there is nothing to count."""
        if not self._values:
            return None
        service = {"service": settings.service_name()}
        description = {
            "Namespace": settings.metrics_namespace(),
            "Dimensions": [[*service], [*service, *dimensions]] if dimensions else [[*service]],
            "Metrics": [{"Name": name, "Unit": unit} for name, unit in self._units.items()],
        }
        head = {"Timestamp": round(time.time() * 1000), "CloudWatchMetrics": [description]}
        return json.dumps({"_aws": head, **service, **dimensions, **self._values}, separators=(",", ":"))


@contextmanager
def metrics_by(**dimension: str) -> Iterator[Metrics]:
    """Metrics that are written to the log at the end of the block, if there are any: `metrics_by(provider="acedata")`.

    Each counts twice: under the service alone, for alarms that need not know the values, and with the dimension.
    """
    # One for each block, not for the whole process: a batch may hold tasks of several providers.
    metrics = Metrics()
    try:
        yield metrics
    finally:
        line = metrics.line(dimension)
        if line:
            sys.stdout.write(line + "\n")

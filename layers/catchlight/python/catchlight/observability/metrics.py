"""Writes metrics in CloudWatch's embedded metric format: log lines from which CloudWatch extracts metrics.

Replaces Powertools' Metrics, which would lengthen ReceiveCallback's cold start: see `structured_log`.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from catchlight import settings


class Unit(StrEnum):
    """Units of metrics, as CloudWatch names them."""

    COUNT = "Count"
    SECONDS = "Seconds"
    BYTES = "Bytes"


class Metrics:
    """Collects the metrics of one log line."""

    def __init__(self) -> None:
        self._units: dict[str, str] = {}
        self._values: dict[str, list[float]] = {}

    def add_metric(self, name: str, unit: Unit, value: float) -> None:
        """Adds a value to a metric. A metric may have several values, and CloudWatch counts all of them."""
        self._units[name] = unit
        self._values.setdefault(name, []).append(float(value))

    def line(self, dimensions: dict[str, str]) -> str | None:
        """Returns the log line as JSON; None without any metric."""
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
    """Yields metrics and writes them to the log at the end of the block.

    Usage: `with metrics_by(provider="acedata") as metrics:`. Each metric is published twice: with the service as
    its only dimension, for alarms across all values of the dimension, and with the given dimension.
    """
    # One object per block instead of per process: a batch may have tasks of several providers.
    metrics = Metrics()
    try:
        yield metrics
    finally:
        line = metrics.line(dimension)
        if line:
            sys.stdout.write(line + "\n")

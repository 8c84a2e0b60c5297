"""Writes metrics in CloudWatch's embedded metric format: CloudWatch extracts them from log lines."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools.metrics import EphemeralMetrics


@contextmanager
def metrics_by(**dimension: str) -> Iterator[EphemeralMetrics]:
    """Yields metrics and writes them to the log at the end of the block, even if the block raises an exception.

    Usage: `with metrics_by(provider="acedata") as metrics:`. Each metric is published twice: with `service` as its only
    dimension, for alarms on the sum of all values, and with `service` and the given dimension.
    """
    # Not Powertools' Metrics, which has one state per process: a batch may have tasks of several providers.
    metrics = EphemeralMetrics()
    if dimension:
        metrics.add_dimensions(service=metrics.service or "", **dimension)
    try:
        yield metrics
    finally:
        if metrics.metric_set:
            # Not flush_metrics(), which writes the line and its end separately: CloudWatch may split them into two log
            # events.
            sys.stdout.write(json.dumps(metrics.serialize_metric_set(), separators=(",", ":")) + "\n")

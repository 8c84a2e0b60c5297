"""Writes metrics in CloudWatch's embedded metric format: log lines from which CloudWatch extracts metrics."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools.metrics import EphemeralMetrics


@contextmanager
def metrics_by(**dimension: str) -> Iterator[EphemeralMetrics]:
    """Yields metrics and writes them to the log at the end of the block, also if the block raises.

    Usage: `with metrics_by(provider="acedata") as metrics:`. Each metric is published twice: with the service as
    its only dimension, for alarms across all values of the dimension, and with the given dimension.
    """
    # Not Powertools' Metrics, which is one object per process: a batch may have tasks of several providers.
    metrics = EphemeralMetrics()
    if dimension:
        metrics.add_dimensions(service=metrics.service or "", **dimension)
    try:
        yield metrics
    finally:
        if metrics.metric_set:
            # Not flush_metrics(), which prints the line and its end in two writes: CloudWatch may make two log events
            # of them.
            sys.stdout.write(json.dumps(metrics.serialize_metric_set(), separators=(",", ":")) + "\n")

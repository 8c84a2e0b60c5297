"""Metrics in CloudWatch's embedded metric format."""

from collections.abc import Iterator
from contextlib import contextmanager

from aws_lambda_powertools.metrics import EphemeralMetrics


@contextmanager
def metrics_by(**dimension: str) -> Iterator[EphemeralMetrics]:
    """Metrics that are written to the log at the end of the block, if there are any: `metrics_by(provider="acedata")`.

    Each counts twice: under the service alone, for alarms that need not know the values, and with the dimension.
    """
    # Not Powertools' Metrics, which is one for the whole process: a batch may hold tasks of several providers.
    metrics = EphemeralMetrics()
    try:
        yield metrics
    finally:
        if metrics.metric_set:
            if dimension:
                metrics.add_dimensions(service=metrics.service or "", **dimension)
            metrics.flush_metrics()

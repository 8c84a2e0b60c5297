"""Computes the callback miss rate: the share of results that polling found because their callback did not arrive."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import computed_field

from catchlight.client.stack import Stack
from catchlight.models import Model, Reporter, TaskStatus
from catchlight.providers import PROVIDERS
from catchlight_cli.factories import tasks_by_status

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_cloudwatch.type_defs import DimensionFilterTypeDef, MetricDataQueryTypeDef

NAMESPACE = "Catchlight"
_METRICS = {Reporter.CALLBACK: "ResolvedByCallback", Reporter.POLL: "ResolvedByPoll"}
# CloudWatch keeps data of shorter periods for at most 63 days; longer periods would make the time span less exact.
_PERIOD_SECONDS = 3600
# One GetMetricData accepts 500 queries: two for each provider, and two for all of them.
_MAX_PROVIDERS = 249
# Statuses of tasks with a result from a callback or a poll. A task that is TIMED_OUT has none.
_RESOLVED = (
    TaskStatus.FAILED,
    TaskStatus.SUCCEEDED,
    TaskStatus.UNCONFIRMED,
    TaskStatus.INCOMPLETE,
    TaskStatus.ARCHIVED,
)


class Resolved(Model):
    """Number of results by the source that reported them first."""

    by_callback: int
    by_poll: int

    @computed_field  # type: ignore[prop-decorator] # mypy does not support decorated properties
    @property
    def miss_rate(self) -> float | None:
        """The share of results that polling found; None if there are no results."""
        total = self.by_callback + self.by_poll
        return self.by_poll / total if total else None


class CallbackMissRate(Model):
    """The callback miss rate since a point in time, in total and by provider."""

    source: Literal["metrics", "items"]  # CloudWatch metrics, or the attribute `reportedBy` of the tasks
    since: datetime
    all: Resolved
    by_provider: dict[str, Resolved]


def miss_rate(stack: Stack, *, since: datetime, now: datetime) -> CallbackMissRate:
    """Returns the callback miss rate from CloudWatch; for a local stack, which has no metrics, from its tasks."""
    return _from_items(stack, since) if stack.is_local else _from_metrics(stack, since, now)


def _from_metrics(stack: Stack, since: datetime, now: datetime) -> CallbackMissRate:
    cloudwatch = stack.client("cloudwatch")
    providers = sorted({*PROVIDERS, *_providers_with_metrics(cloudwatch, stack.name)})[:_MAX_PROVIDERS]
    keys = [(provider, reporter) for provider in (None, *providers) for reporter in Reporter]
    queries = [_query(f"m{number}", stack.name, *key) for number, key in enumerate(keys)]
    sums: Counter[tuple[str | None, Reporter]] = Counter()
    pages = cloudwatch.get_paginator("get_metric_data")
    for page in pages.paginate(MetricDataQueries=queries, StartTime=_hour(since), EndTime=now):
        for result in page["MetricDataResults"]:
            sums[keys[int(result["Id"][1:])]] += round(sum(result["Values"]))
    return _ratio("metrics", since, sums)


def _providers_with_metrics(cloudwatch: "CloudWatchClient", service: str) -> Iterator[str]:
    """Yields the providers, and the further accounts at them, that have had results in the last two weeks."""
    pages = cloudwatch.get_paginator("list_metrics")
    for name in _METRICS.values():
        dimensions: list[DimensionFilterTypeDef] = [{"Name": "service", "Value": service}, {"Name": "provider"}]
        for page in pages.paginate(Namespace=NAMESPACE, MetricName=name, Dimensions=dimensions):
            for metric in page["Metrics"]:
                values = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
                # Metrics may name a provider that only an older version of the stack had.
                if values.get("provider") in PROVIDERS:
                    yield values["provider"]


def _hour(moment: datetime) -> datetime:
    # CloudWatch returns whole periods only, and would omit the first one if it were incomplete.
    return moment.replace(minute=0, second=0, microsecond=0)


def _query(query_id: str, service: str, provider: str | None, reporter: Reporter) -> "MetricDataQueryTypeDef":
    dimensions = {"service": service} | ({"provider": provider} if provider else {})
    return {
        "Id": query_id,
        "MetricStat": {
            "Metric": {
                "Namespace": NAMESPACE,
                "MetricName": _METRICS[reporter],
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
            },
            "Period": _PERIOD_SECONDS,
            "Stat": "Sum",
        },
    }


def _from_items(stack: Stack, since: datetime) -> CallbackMissRate:
    index = tasks_by_status(stack)
    counts: Counter[tuple[str | None, Reporter]] = Counter()
    for status in _RESOLVED:
        # The index is ordered by the last change, which is never earlier than the report.
        for task in index.tasks(status, since=since):
            if task.reported_by and task.reported_time and task.reported_time >= since:
                counts[None, task.reported_by] += 1
                counts[task.task.partition("#")[0], task.reported_by] += 1
    return _ratio("items", since, counts)


def _ratio(
    source: Literal["metrics", "items"], since: datetime, counts: Mapping[tuple[str | None, Reporter], int]
) -> CallbackMissRate:
    def resolved(provider: str | None) -> Resolved:
        by_callback, by_poll = (counts.get((provider, each), 0) for each in (Reporter.CALLBACK, Reporter.POLL))
        return Resolved(by_callback=by_callback, by_poll=by_poll)

    providers = sorted({provider for (provider, _), count in counts.items() if provider and count})
    return CallbackMissRate(
        source=source, since=since, all=resolved(None), by_provider={name: resolved(name) for name in providers}
    )

"""Collects all records of a task, to diagnose violations."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from tests.searches.soak.history import History
from tests.searches.soak.plans import TaskPlan


def task_trace(plan: TaskPlan, history: History, logs: Path) -> Iterator[str]:
    """Yields the plan; then callbacks, provider reports and writes in order of time; then the functions' log lines."""
    yield f"{plan}"
    events = [
        (delivery.sent_at, f"delivery {delivery.fault} {delivery.reported}, {delivery.cut or delivery.status}")
        for delivery in history.deliveries
        if delivery.task == plan.task
    ]
    events += [
        (at, f"provider reported {reported}")
        for (task, reported), at in history.provider_reports.items()
        if task == plan.task
    ]
    events += [
        (change.at, f"{change.writer or 'a client'} wrote {change.after}")
        for change in history.changes
        if change.task == plan.task
    ]
    events += [(put.at, f"{put.writer} put {put.key}") for put in history.puts if plan.task_id in put.key]
    for at, what in sorted(events):
        yield f"  {time.strftime('%H:%M:%S', time.gmtime(at))}.{int(at % 1 * 1000):03} {what}"
    # `*.log.1` contains the earlier lines of a rotated `*.log`.
    for path in sorted(
        logs.glob("*Function.log*"), key=lambda path: (path.name.partition(".")[0], path.suffix == ".log")
    ):
        with path.open(errors="replace") as lines:
            for line in lines:
                if plan.task_id in line:
                    yield f"  {_log_line(line)}"


def _log_line(line: str) -> str:
    try:
        record = json.loads(line)
    except ValueError:
        return line.rstrip()
    fields = {name: record[name] for name in ("status", "outcome", "error", "reason", "state") if name in record}
    return f"{record.get('timestamp')} {record.get('function_name')}: {record.get('message')} {fields or ''}"

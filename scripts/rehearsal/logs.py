"""Reads the functions' logs in MiniStack, so that a denied AWS call ends the rehearsal with its message."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from scripts.rehearsal import RehearsalError
from scripts.rehearsal.emulator import MiniStack

# Also matches AccessDeniedException. It is in botocore's errors and in the functions' own log lines.
DENIED = "AccessDenied"


class FunctionLogs:
    """Reads the functions' log groups and the lengths of the dead-letter queues."""

    def __init__(self, ministack: MiniStack, resources: Mapping[str, str]) -> None:
        self._logs = ministack.client("logs")
        self._sqs = ministack.client("sqs")
        self._resources = resources

    def lines(self) -> Iterator[str]:
        """Yields every line of all log groups, prefixed with the group's name."""
        groups = [
            group for page in self._logs.get_paginator("describe_log_groups").paginate() for group in page["logGroups"]
        ]
        for group in groups:
            for page in self._logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                for event in page["events"]:
                    yield f"{group['logGroupName']}: {event['message']}"

    def raise_for_faults(self) -> None:
        """Raises RehearsalError if an AWS call was denied or a dead-letter queue has messages."""
        for line in self.lines():
            if DENIED in line:
                start = max(0, line.index(DENIED) - 300)
                raise RehearsalError(f"A role lacks a permission: {line[start : start + 700]}")
        for name, url in self._resources.items():
            if not name.endswith("DeadLetters"):
                continue
            attributes = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
            if count := int(attributes["Attributes"]["ApproximateNumberOfMessages"]):
                raise RehearsalError(f"{name} has {count} messages. The functions' logs have the reason.")

    def write(self, path: Path) -> None:
        """Writes all lines to a file, for debugging."""
        path.write_text("".join(f"{line}\n" for line in self.lines()))

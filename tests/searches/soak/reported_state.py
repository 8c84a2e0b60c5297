"""Represents the state of a task that a callback, a polled provider or the task's item reports."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# Marks items whose INSERT the simulation does not write to the table's stream: DispatchChanges does not receive them.
NOT_STREAMED = "notStreamed"


@dataclass(frozen=True, slots=True)
class ReportedState:
    """A reported state: SUCCEEDED with images, FAILED with a reason, TIMED_OUT, or PENDING (still running).

    Images are identified by the paths of their URLs: query (signature) and host do not distinguish two images.
    """

    status: str
    paths: tuple[str, ...] = ()
    reason: str | None = None

    @classmethod
    def of_urls(cls, status: str, urls: Iterable[str], reason: str | None = None) -> "ReportedState":
        return cls(status, tuple(urlsplit(url).path for url in urls), reason)

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "paths": list(self.paths), "reason": self.reason}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "ReportedState":
        return cls(document["status"], tuple(document["paths"]), document["reason"])


RUNNING = ReportedState("PENDING")

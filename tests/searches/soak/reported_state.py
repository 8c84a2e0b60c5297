"""Represents a report about a task: of a callback, of a polled provider, or of the task's own item."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# An attribute of items whose INSERT is kept off the table's stream, as if its messages had been lost.
UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class ReportedState:
    """A report: SUCCEEDED with images, FAILED with a reason, TIMED_OUT, or PENDING (still running).

    Images are identified by the paths of their URLs: an image with a newly signed URL is the same image, and the
    address of the simulated services does not matter.
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

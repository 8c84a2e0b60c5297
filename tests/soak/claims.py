"""What somebody says of a task: a callback, a provider that is asked, or the task's own item."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

RESULT_STATUSES = frozenset({"SUCCEEDED", "INCOMPLETE", "ARCHIVED"})


@dataclass(frozen=True, slots=True)
class Claim:
    """SUCCEEDED with images, FAILED with a reason, TIMED_OUT, or PENDING: still running.

    Images are named by the paths of their URLs: the same image signed anew is the same image, and where the simulated
    services listen is no matter.
    """

    status: str
    paths: tuple[str, ...] = ()
    reason: str | None = None

    @classmethod
    def of_urls(cls, status: str, urls: Iterable[str], reason: str | None = None) -> "Claim":
        return cls(status, tuple(urlsplit(url).path for url in urls), reason)

    def to_json(self) -> dict[str, Any]:
        return {"status": self.status, "paths": list(self.paths), "reason": self.reason}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Claim":
        return cls(document["status"], tuple(document["paths"]), document["reason"])


RUNNING = Claim("PENDING")

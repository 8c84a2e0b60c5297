"""Who else may post: callbacks that claim a result while the real task is still running."""

from dataclasses import dataclass
from typing import Any

import httpx

# Where a cloud hands out credentials to whoever asks from inside.
METADATA_URL = "https://169.254.169.254/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True, slots=True)
class Forgery:
    """A success that no provider has told, from somebody who knows the callback's URL, or all of it but the token."""

    title: str
    knows_token: bool
    told: str  # what became of it

    @property
    def expected_answer(self) -> int:
        """The HTTP status: with the token it is taken, as a claim."""
        return 200 if self.knows_token else 401

    def post(self, http: httpx.Client, callback_url: str, task_id: str, host_url: str) -> int:
        """Posts it in the shape of Flux Kontext's callbacks, and returns the status that it was answered."""
        address, _, token = callback_url.rpartition("/")
        url = callback_url if self.knows_token else f"{address}/{'x' * len(token)}"
        return http.post(url, json=_success(task_id, forged_urls(task_id, host_url))).status_code


def forged_urls(task_id: str, host_url: str) -> tuple[str, str]:
    """An address that must never be fetched, and one at a host that is allowed: only who asks the provider refuses it.

    `host_url` is where the provider's own images lie.
    """
    return METADATA_URL, host_url + trap_path(task_id)


def trap_path(task_id: str) -> str:
    """Path of the second one: a request for it is a failure."""
    return f"/images/stranger/{task_id}.png"


def _success(task_id: str, urls: tuple[str, str]) -> dict[str, Any]:
    info = dict(zip(("originImageUrl", "resultImageUrl"), urls, strict=True))
    return {"code": 200, "msg": "BFL image generated successfully.", "data": {"taskId": task_id, "info": info}}

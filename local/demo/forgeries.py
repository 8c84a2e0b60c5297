"""Posts forged callbacks that report a result while the real task is still running."""

from dataclasses import dataclass
from typing import Any

import httpx

# The typical target of SSRF: instance metadata services return credentials to every process on the machine.
METADATA_URL = "https://169.254.169.254/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True, slots=True)
class Forgery:
    """A forged success, posted by a sender who knows the callback URL, with or without its token."""

    title: str
    knows_token: bool
    remark: str  # outcome, for the demo's final output

    @property
    def expected_answer(self) -> int:
        """Expected HTTP status: with the token, the callback is accepted as an unconfirmed report."""
        return 200 if self.knows_token else 401

    def post(self, http: httpx.Client, callback_url: str, task_id: str, host_url: str) -> int:
        """Posts the callback in Flux Kontext's format and returns the HTTP status of the answer."""
        address, _, token = callback_url.rpartition("/")
        url = callback_url if self.knows_token else f"{address}/{'x' * len(token)}"
        return http.post(url, json=_success(task_id, forged_urls(task_id, host_url))).status_code


def forged_urls(task_id: str, host_url: str) -> tuple[str, str]:
    """Returns two forged URLs: one that the URL policy forbids, and one that only the provider's answer contradicts.

    The second one lies below `host_url`, the allowed base URL of the provider's own images.
    """
    return METADATA_URL, host_url + trap_path(task_id)


def trap_path(task_id: str) -> str:
    """Returns the path of the second URL."""
    return f"/images/forged/{task_id}.png"


def _success(task_id: str, urls: tuple[str, str]) -> dict[str, Any]:
    info = dict(zip(("originImageUrl", "resultImageUrl"), urls, strict=True))
    return {"code": 200, "msg": "BFL image generated successfully.", "data": {"taskId": task_id, "info": info}}

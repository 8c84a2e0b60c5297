"""Posts forged callbacks that report a result while the real task is still running."""

from dataclasses import dataclass
from typing import Any

import httpx

# The typical target of SSRF: the instance metadata service returns credentials to every process on the machine.
METADATA_URL = "https://169.254.169.254/latest/meta-data/iam/security-credentials/"


@dataclass(frozen=True, slots=True)
class Forgery:
    """A forged success, posted to the callback URL with the right token or a wrong one."""

    title: str
    has_token: bool
    remark: str  # outcome, for the demo's final output

    @property
    def expected_status(self) -> int:
        """Expected HTTP status: with the token, the callback is accepted as an unconfirmed report."""
        return 200 if self.has_token else 401

    def post(self, http: httpx.Client, callback_url: str, task_id: str, host_url: str) -> int:
        """Posts the callback in Flux Kontext's format and returns the HTTP status of the response."""
        address, _, token = callback_url.rpartition("/")
        url = callback_url if self.has_token else f"{address}/{'x' * len(token)}"
        return http.post(url, json=_success(task_id, forged_urls(task_id, host_url))).status_code


def forged_urls(task_id: str, host_url: str) -> tuple[str, str]:
    """Returns two forged URLs: one that the URL policy forbids, and one that it allows.

    The second one is below `host_url`, the base URL of the provider's own images: only a poll contradicts it.
    """
    return METADATA_URL, host_url + forged_path(task_id)


def forged_path(task_id: str) -> str:
    """Returns the path of the second forged URL."""
    return f"/images/forged/{task_id}.png"


def _success(task_id: str, urls: tuple[str, str]) -> dict[str, Any]:
    info = dict(zip(("originImageUrl", "resultImageUrl"), urls, strict=True))
    return {"code": 200, "msg": "BFL image generated successfully.", "data": {"taskId": task_id, "info": info}}

"""Sends test callbacks to the live callback endpoint, as a provider does, for a temporary probe item.

The item starts with PROBE_STATUS, which no task has. Its first callback changes it to FAILED; this change triggers
neither polling nor archiving nor an event. Until the item is deleted, queries by status FAILED include it; the feed of
all tasks does not. If the deletion fails, DynamoDB deletes the item after a day, provided that the table has a TTL.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from catchlight.client.http_client import http_client
from catchlight.models import PROBE_STATUS, TaskStatus, iso, task_key
from catchlight.providers import flux_kontext
from catchlight.providers.kie import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

PROVIDER = flux_kontext.PROVIDER.id
ID_PREFIX = "doctor-"
# How long a provider waits for the response to a callback.
PROVIDER_TIMEOUT_SECONDS = 15.0
_TIMEOUT_SECONDS = 20.0
_DELETED_AFTER = timedelta(days=1)
JSON_TYPE = "application/json"
# HTTP APIs pass bodies of this type to Lambda in base64.
BINARY_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class ProbeResponse:
    """The endpoint's HTTP status, and the seconds from opening the connection to the end of the response."""

    status: int
    seconds: float


@dataclass(frozen=True)
class Endpoint:
    """The callback endpoint of a stack, with the secrets that authenticate callbacks."""

    api_url: str
    token: str = field(repr=False)
    webhook_key: str | None = field(repr=False)  # None: callbacks are not signed
    is_local: bool = False

    def call(
        self,
        task_id: str,
        *,
        token: str | None = None,
        slash: str = "",
        content_type: str = JSON_TYPE,
        method: str = "POST",
        padding: int = 0,
        webhook_key: str | None = None,
    ) -> ProbeResponse:
        """Sends a callback that reports a failure. Each keyword argument changes one aspect of the request.

        Raises:
            httpx.HTTPError: the endpoint does not respond.
            CatchlightError: the HTTP client cannot be created.
        """
        body = {"code": 501, "msg": "catchlight doctor" + padding * ".", "data": {"taskId": task_id, "info": None}}
        headers = {"Content-Type": content_type, "User-Agent": "catchlight-doctor"}
        if key := webhook_key if webhook_key is not None else self.webhook_key:
            headers |= signed(task_id, key, datetime.now(UTC))
        url = f"{self.api_url}/callbacks/{PROVIDER}/{self.token if token is None else token}{slash}"
        # A new connection for each call, because providers have no open one. A local stack is called without a proxy.
        settings = {"timeout": _TIMEOUT_SECONDS, "follow_redirects": False}
        with http_client(httpx.Client, trust_environment=not self.is_local, **settings) as client:
            started_at = time.perf_counter()
            response = client.request(
                method, url, content=json.dumps(body) if method == "POST" else None, headers=headers
            )
            return ProbeResponse(response.status_code, time.perf_counter() - started_at)


def signed(task_id: str, key: str, now: datetime) -> Mapping[str, str]:
    """Returns the headers with which kie.ai signs a callback: timestamp and HMAC-SHA256 signature."""
    timestamp = str(int(now.timestamp()))
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: sign(key, task_id, timestamp)}


class ProbeItem:
    """The probe item that test callbacks refer to. It is in the tasks table while the block of `put` runs.

    Raises:
        BotoCoreError, ClientError: in every method, if the call to DynamoDB failed.
    """

    def __init__(self, dynamodb: "DynamoDBClient", table: str, task_id: str) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self.task_id = task_id
        self._key: Any = {"task": {"S": task_key(PROVIDER, task_id)}}

    @classmethod
    @contextmanager
    def put(cls, dynamodb: "DynamoDBClient", table: str, now: datetime) -> Iterator["ProbeItem"]:
        """Creates the item, and deletes it at the end of the block, even after an exception."""
        item = cls(dynamodb, table, f"{ID_PREFIX}{uuid.uuid4().hex}")
        attributes: dict[str, Any] = {
            "provider": {"S": PROVIDER},
            "taskId": {"S": item.task_id},
            "status": {"S": PROBE_STATUS},
            "rank": {"N": str(TaskStatus.PENDING.rank)},
            "updatedAt": {"S": iso(now)},
            # Without these, the first callback would add the item to the feed of all tasks.
            "feed": {"S": "probes"},
            "arrivedAt": {"S": iso(now)},
            "deleteAfter": {"N": str(int((now + _DELETED_AFTER).timestamp()))},
        }
        try:
            dynamodb.put_item(TableName=table, Item=item._key | attributes)
            yield item
        finally:
            dynamodb.delete_item(TableName=table, Key=item._key)

    def status(self) -> str | None:
        """Returns the item's status, read consistently; None if there is no item."""
        item = self._dynamodb.get_item(TableName=self._table, Key=self._key, ConsistentRead=True).get("Item", {})
        return item.get("status", {}).get("S")

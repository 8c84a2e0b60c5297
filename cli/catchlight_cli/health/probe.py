"""Calls the live callback endpoint as a provider does, and leaves no trace.

What it calls about is an item of its own, whose status is none of a task's: nothing follows from its callback, nobody
is told of it, and no list shows it. It is deleted in the end; should that not come about, DynamoDB deletes it after a
day where the stack lets it.
"""

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from catchlight.callbacks.verification import SIGNATURE_HEADER, TIMESTAMP_HEADER
from catchlight.client.http_client import http_client
from catchlight.models import PROBE_STATUS, TaskStatus, iso, task_key
from catchlight.providers import flux_kontext

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

PROVIDER = flux_kontext.PROVIDER.id
ID_PREFIX = "doctor-"
# What a provider waits for an answer.
PROVIDER_TIMEOUT_SECONDS = 15.0
_TIMEOUT_SECONDS = 20.0
_DELETED_AFTER = timedelta(days=1)
JSON_TYPE = "application/json"
# HTTP APIs hand over what is no text in base64.
BINARY_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint answered, and after how long: from the first packet of a new connection to the last."""

    status: int
    seconds: float


@dataclass(frozen=True)
class Endpoint:
    """The callback endpoint, and the secrets that open it."""

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
    ) -> Answer:
        """One call about a task that has failed, as a provider makes it but for what is told.

        Raises:
            httpx.HTTPError: nobody answers.
            CatchlightError: the client cannot be made.
        """
        body = {"code": 501, "msg": "catchlight doctor" + padding * ".", "data": {"taskId": task_id, "info": None}}
        headers = {"Content-Type": content_type, "User-Agent": "catchlight-doctor"}
        if key := webhook_key if webhook_key is not None else self.webhook_key:
            headers |= signed(task_id, key, datetime.now(UTC))
        url = f"{self.api_url}/callbacks/{PROVIDER}/{self.token if token is None else token}{slash}"
        # A connection each: a provider has none open either. No proxy for loopback.
        settings = {"timeout": _TIMEOUT_SECONDS, "follow_redirects": False}
        with http_client(trust_environment=not self.is_local, **settings) as client:
            started_at = time.perf_counter()
            response = client.request(
                method, url, content=json.dumps(body) if method == "POST" else None, headers=headers
            )
            return Answer(response.status_code, time.perf_counter() - started_at)


def signed(task_id: str, key: str, now: datetime) -> Mapping[str, str]:
    """The headers with which kie.ai signs a callback."""
    timestamp = str(int(now.timestamp()))
    digest = hmac.new(key.encode(), f"{task_id}.{timestamp}".encode(), hashlib.sha256).digest()
    return {TIMESTAMP_HEADER: timestamp, SIGNATURE_HEADER: base64.b64encode(digest).decode()}


class ProbeItem:
    """The item that calls are about, in the tasks table for as long as the block lasts.

    Raises whatever boto3 raises.
    """

    def __init__(self, dynamodb: "DynamoDBClient", table: str, task_id: str) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self.task_id = task_id
        self._key: Any = {"task": {"S": task_key(PROVIDER, task_id)}}

    @classmethod
    @contextmanager
    def put(cls, dynamodb: "DynamoDBClient", table: str, now: datetime) -> Iterator["ProbeItem"]:
        """Puts the item, and deletes it however the block ends."""
        item = cls(dynamodb, table, f"{ID_PREFIX}{uuid.uuid4().hex}")
        attributes: dict[str, Any] = {
            "provider": {"S": PROVIDER},
            "taskId": {"S": item.task_id},
            "status": {"S": PROBE_STATUS},
            "rank": {"N": str(TaskStatus.PENDING.rank)},
            "updatedAt": {"S": iso(now)},
            # Not the feed of tasks: the first callback would put it there.
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
        """What the table says of it."""
        item = self._dynamodb.get_item(TableName=self._table, Key=self._key, ConsistentRead=True).get("Item", {})
        return item.get("status", {}).get("S")

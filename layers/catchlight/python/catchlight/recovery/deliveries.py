"""Stores deliveries that had a valid token but could not be parsed, so that a later version can process them.

They are stored in the bucket as `rejected/{date}/{digest}.json`. A delivery that is repeated on the same day is stored
once, as one version of one object. PollTasks also stores a poll's answer there that reports a success without a
readable image URL, as the body of a callback. If the stack's parameter KeepDeliveries is not 0, accepted deliveries are
stored in the same form, under `deliveries/`.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from catchlight.errors import StoreUnavailableError
from catchlight.models import iso

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

PREFIX = "rejected/"
ACCEPTED_PREFIX = "deliveries/"
# Headers that help to analyse a delivery. Signatures, cookies and other credentials are not stored.
KEPT_HEADERS = ("content-type", "content-length", "date", "user-agent", "x-webhook-timestamp")
# Longer than the timeout of the functions that store deliveries.
MAX_STORING_TIME = timedelta(minutes=2)
_LAST_MODIFIED_RESOLUTION = timedelta(seconds=1)
# The maximum numbers of objects that one search lists and reads.
MAX_LISTED = 10_000
MAX_READ = 100
# S3's error code of a PutObject with IfNoneMatch whose key exists.
_EXISTS = "PreconditionFailed"


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """A delivery as it was received, without secrets. For an accepted one, `reason` is the outcome of its report."""

    provider_id: str  # as in the URL; may be unknown, which may be the reason for the rejection
    received_at: datetime
    reason: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class DeliveryStore:
    """Writes, reads and removes the deliveries below one prefix of a bucket."""

    def __init__(self, s3: "S3Client", bucket: str, prefix: str = PREFIX) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix

    def keep(self, delivery: StoredDelivery) -> str:
        """Stores a delivery, unless it is stored already, and returns its key.

        Raises:
            StoreUnavailableError: the call to S3 failed. The delivery may not be stored; the provider should repeat it.
        """
        digest = hashlib.sha256(delivery.provider_id.encode(errors="replace") + b"\0" + delivery.body).hexdigest()
        key = f"{self._prefix}{delivery.received_at:%Y-%m-%d}/{digest[:32]}.json"
        document = {
            "provider": delivery.provider_id,
            "receivedAt": iso(delivery.received_at),
            "reason": delivery.reason,
            "headers": {name: delivery.headers[name] for name in KEPT_HEADERS if name in delivery.headers},
            "body": base64.b64encode(delivery.body).decode(),
        }
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=json.dumps(document).encode(),
                ContentType="application/json",
                # The bucket is versioned: without this condition, each repetition would be stored and paid for.
                IfNoneMatch="*",
            )
        except (ClientError, BotoCoreError) as exc:
            if not (isinstance(exc, ClientError) and exc.response["Error"]["Code"] == _EXISTS):
                raise StoreUnavailableError(f"S3 did not store a delivery: {type(exc).__name__}") from exc
        return key

    def __iter__(self) -> Iterator[tuple[str, StoredDelivery]]:
        """Yields every stored delivery with its key, oldest day first."""
        for page in self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix):
            for entry in page.get("Contents", []):
                yield entry["Key"], self._read(entry["Key"])

    def received_about(self, moment: datetime) -> Iterator[tuple[str, StoredDelivery]]:
        """Yields deliveries that were stored at a time or at most MAX_STORING_TIME after it; at most MAX_READ.

        Keys contain the day and a hash, so the objects of the day are listed, at most MAX_LISTED: ten requests.
        """
        listed = self._s3.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket,
            Prefix=f"{self._prefix}{moment.astimezone(UTC):%Y-%m-%d}/",
            PaginationConfig={"MaxItems": MAX_LISTED},
        )
        first, last = moment - _LAST_MODIFIED_RESOLUTION, moment + MAX_STORING_TIME
        entries = (entry for page in listed for entry in page.get("Contents", []))
        found = (entry["Key"] for entry in entries if first <= entry["LastModified"] <= last)
        for key in islice(found, MAX_READ):
            yield key, self._read(key)

    def _read(self, key: str) -> StoredDelivery:
        document = json.loads(self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read())
        return StoredDelivery(
            provider_id=document["provider"],
            received_at=datetime.fromisoformat(document["receivedAt"]),
            reason=document["reason"],
            headers=document["headers"],
            body=base64.b64decode(document["body"]),
        )

    def remove(self, key: str) -> None:
        """Deletes a delivery that has been processed. The bucket keeps its noncurrent version for a while."""
        self._s3.delete_object(Bucket=self._bucket, Key=key)

"""Publishes task events again, by passing stream records to the function PublishEvents."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from botocore.config import Config

# PublishEvents repeats its calls for up to five minutes during an outage of EventBridge. The invocation itself is not
# repeated, because that would publish the events twice.
INVOKE_CONFIG = Config(read_timeout=310, retries={"total_max_attempts": 1})


def publish(client: Any, function: str, records: Sequence[dict[str, Any]]) -> bool:
    """Invokes PublishEvents with stream records. Returns whether it has published all of their events.

    Args:
        client: a client of Lambda.
        function: the name of PublishEvents.
        records: as a client of DynamoDB's streams returns them.

    Raises:
        ClientError, BotoCoreError: the call failed.
    """
    # The event format of Lambda. No event source filter applies here: the function itself skips records for which
    # there is no event.
    payload = json.dumps({"Records": records}, default=datetime.timestamp)
    result = json.load(client.invoke(FunctionName=function, Payload=payload)["Payload"])
    # The list must exist and be empty: the payload of a function error has no such member.
    return isinstance(result, dict) and result.get("batchItemFailures") == []

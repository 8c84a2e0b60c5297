import json
import os
import time
from typing import Any


def handler(event: dict[str, Any], context: object) -> Any:
    """Responds as the body says: {"result": ...}, {"sleep": s}, {"raise": "message"}; otherwise with the event."""
    try:
        order = json.loads(event.get("body") or "{}")
    except ValueError:
        order = {}
    if not isinstance(order, dict):
        order = {}
    time.sleep(order.get("sleep", 0))
    if "raise" in order:
        raise RuntimeError(order["raise"])
    if "exit" in order:
        os._exit(order["exit"])
    if "result" in order:
        return order["result"]
    return {"statusCode": 200, "body": json.dumps(event)}

import json
import os
import time
from typing import Any


def handler(event: dict[str, Any], context: object) -> Any:
    """Returns the event as a response, unless the body has other instructions.

    {"sleep": seconds} waits first; {"raise": message} raises an error; {"exit": status} ends the process;
    {"result": value} returns the value.
    """
    try:
        instructions = json.loads(event.get("body") or "{}")
    except ValueError:
        instructions = {}
    if not isinstance(instructions, dict):
        instructions = {}
    time.sleep(instructions.get("sleep", 0))
    if "raise" in instructions:
        raise RuntimeError(instructions["raise"])
    if "exit" in instructions:
        os._exit(instructions["exit"])
    if "result" in instructions:
        return instructions["result"]
    return {"statusCode": 200, "body": json.dumps(event)}

import os
import time
from typing import Any

from notes import note  # type: ignore[import-not-found] # the layer's


class OnceMoreError(Exception):
    pass


def handler(event: dict[str, Any], context: object) -> Any:
    note(event)
    order = event.get("order")
    if order == "raise once" and not os.environ.get("RAISED"):
        os.environ["RAISED"] = "yes"
        raise OnceMoreError("this time only")
    if order == "raise":
        raise ValueError("never")
    if order == "sleep":
        time.sleep(30)
    if order == "exit":
        os._exit(3)
    return {"done": event}

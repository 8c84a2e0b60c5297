import os
import time
from typing import Any

from notes import note  # type: ignore[import-not-found] # the layer's


class OnceMoreError(Exception):
    pass


def handler(event: dict[str, Any], context: object) -> Any:
    """Returns the event. Fails before if the event names a fault: "raise once", "raise", "sleep" or "exit"."""
    note(event)
    fault = event.get("fault")
    if fault == "raise once" and not os.environ.get("RAISED"):
        os.environ["RAISED"] = "yes"
        raise OnceMoreError("this time only")
    if fault == "raise":
        raise ValueError("never")
    if fault == "sleep":
        time.sleep(30)
    if fault == "exit":
        os._exit(3)
    return {"done": event}

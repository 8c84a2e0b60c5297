import os
import time

from notes import note


class OnceMoreError(Exception):
    pass


def handler(event, context):
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

"""Decides when a webhook that the receiver did not accept is sent again.

The schedule is that of the Standard Webhooks specification, up to the seventh retry. A retry is due at a time after the
webhook was queued. Tries are not counted, because SQS also counts receives that Lambda throttled. The times have no
jitter: the event source limits the webhooks that are sent at the same time to 20.
"""

import math
from datetime import datetime

# Seconds after the webhook was queued. Between two tries: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h.
RETRIES_AT_SECONDS = (5, 305, 2_105, 9_305, 27_305, 63_305, 99_305)
# Maximum Retry-After of a receiver's response: otherwise a single response could use up the whole schedule.
MAX_RETRY_AFTER_SECONDS = 3600


def retry_after_seconds(now: datetime, *, queued_at: datetime, retry_after: int | None = None) -> int | None:
    """Returns the seconds until the next try, at least 1; None if no retry is left in the schedule.

    `retry_after`: the Retry-After of the receiver's response in seconds. It can delay the next try.
    """
    age = (now - queued_at).total_seconds()
    for planned in RETRIES_AT_SECONDS:
        if planned > age:
            delay = min(retry_after or 0, MAX_RETRY_AFTER_SECONDS)
            return max(1, math.ceil(planned - age), delay)
    return None

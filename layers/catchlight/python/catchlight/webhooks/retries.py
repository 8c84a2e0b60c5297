"""Decides when a webhook that the receiver did not accept is sent again.

The schedule is the specification's, as far as the seventh retry. It counts from the moment at which the webhook was
queued, not the tries: SQS also counts receives that Lambda throttled. The times have no random part: however many
retries are due at a moment, the event source sends 20 at once at most.
"""

import math
from datetime import datetime

# Seconds after the webhook was queued: 5 s, 5 min, 30 min, 2 h, 5 h and twice 10 h after the respective try before.
RETRIES_AT_SECONDS = (5, 305, 2_105, 9_305, 27_305, 63_305, 99_305)
# What a receiver may ask for with Retry-After, at most: otherwise a single answer could use up the whole schedule.
MAX_RETRY_AFTER_SECONDS = 3600


def retry_after_seconds(now: datetime, *, queued_at: datetime, asked_for: int | None = None) -> int | None:
    """Returns the seconds until the next try, at least 1; None if all retries of the schedule are over.

    `asked_for`: the Retry-After of the receiver's response in seconds, which can delay the next try.
    """
    age = (now - queued_at).total_seconds()
    for planned in RETRIES_AT_SECONDS:
        if planned > age:
            wished = min(asked_for or 0, MAX_RETRY_AFTER_SECONDS)
            return max(1, math.ceil(planned - age), wished)
    return None

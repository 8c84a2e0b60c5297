"""Computes retry delays of archive messages and the longest poll interval from the lifetimes of image URLs."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from catchlight.providers import PROVIDERS

# Seconds until a failed archive message is received again, by its number of tries. They cover a momentary fault, a
# deployment, and a service outage of a quarter of an hour.
RETRY_AFTER_SECONDS = (5, 15, 45, 900)
# The archive queue's maxReceiveCount.
MAX_ARCHIVE_TRIES = len(RETRY_AFTER_SECONDS) + 1
# A wait takes at most 1/4 of the time until the URLs expire: after four such waits a third of that time is left.
MAX_SHARE_OF_TIME_LEFT = 4
# The longest wait if the URLs have expired already or their expiry is unknown. A quick retry does no harm then.
RETRY_WITHOUT_DEADLINE_SECONDS = 45


def retry_after_seconds(tries: int, *, urls_expire_at: datetime | None, now: datetime) -> int:
    """Returns the seconds until an archive message that failed `tries` times is received again.

    `urls_expire_at`: when the first URL of the task's images expires; None if unknown. After the last try the result is
    0: SQS moves the message to the dead-letter queue at once, whose alarm operators see while the URLs may still work.
    """
    if tries >= MAX_ARCHIVE_TRIES:
        return 0
    planned = RETRY_AFTER_SECONDS[max(tries, 1) - 1]
    if urls_expire_at is None or urls_expire_at <= now:
        return min(planned, RETRY_WITHOUT_DEADLINE_SECONDS)
    left = (urls_expire_at - now).total_seconds()
    return max(1, min(planned, int(left / MAX_SHARE_OF_TIME_LEFT)))


def longest_poll_gap_seconds(provider_ids: Iterable[str]) -> int | None:
    """Returns the most seconds between two polls: 1/4 of the shortest URL lifetime of these providers.

    A missed callback is then found while most of its URLs' lifetime is left. Returns None if none of the providers is
    known: tasks of unknown providers cannot be polled.
    """
    lifetimes = [
        lifetime
        for provider_id in provider_ids
        if provider_id in PROVIDERS
        for lifetime in PROVIDERS[provider_id].url_lifetimes.values()
    ]
    return int(min(lifetimes) / timedelta(seconds=MAX_SHARE_OF_TIME_LEFT)) if lifetimes else None

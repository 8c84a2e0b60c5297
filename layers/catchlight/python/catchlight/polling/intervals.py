"""How long there is time: what waiting and polling allow themselves, by how long the images' URLs live."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from catchlight.providers import PROVIDERS

# Seconds until an archive message that failed comes back, by its number of tries: a fault of a moment, of a deployment,
# of a service for a quarter of an hour.
RETRY_AFTER_SECONDS = (5, 15, 45, 900)
# The archive queue's maxReceiveCount.
MAX_ARCHIVE_TRIES = len(RETRY_AFTER_SECONDS) + 1
# Nobody waits longer than this part of what is left: after four such waits a third of the time is still there.
MAX_SHARE_OF_TIME_LEFT = 4
# Where all is too late, or nobody knows when it will be: what is dead does not die sooner for it.
RETRY_WITHOUT_DEADLINE_SECONDS = 45


def retry_after_seconds(tries: int, *, urls_die_at: datetime | None, now: datetime) -> int:
    """Seconds until a message that has failed so often is to come back; `urls_die_at`: the first of its images'.

    After the last try it is 0: it comes among the dead letters at once, where people hear of it while there is time.
    """
    if tries >= MAX_ARCHIVE_TRIES:
        return 0
    planned = RETRY_AFTER_SECONDS[max(tries, 1) - 1]
    if urls_die_at is None or urls_die_at <= now:
        return min(planned, RETRY_WITHOUT_DEADLINE_SECONDS)
    left = (urls_die_at - now).total_seconds()
    return max(1, min(planned, int(left / MAX_SHARE_OF_TIME_LEFT)))


def longest_poll_gap_seconds(provider_ids: Iterable[str]) -> int | None:
    """Seconds that may lie between two polls: a lost callback is noticed while most of its URLs' life is left.

    None where no provider is known: nobody can be asked about such tasks anyway.
    """
    lifetimes = [
        lifetime
        for provider_id in provider_ids
        if provider_id in PROVIDERS
        for lifetime in PROVIDERS[provider_id].url_lifetimes.values()
    ]
    return int(min(lifetimes) / timedelta(seconds=MAX_SHARE_OF_TIME_LEFT)) if lifetimes else None

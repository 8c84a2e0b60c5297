"""Computes retry delays of archive messages and the longest poll interval from the lifetimes of image URLs."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from catchlight.providers import PROVIDERS

# Seconds until a failed archive message is received again, by the number of tries: a short fault delays it by seconds.
RETRY_AFTER_SECONDS = (5, 15, 45)
# The longest wait in the first hour: within it, an image is tried again at most a minute after an outage has ended.
LONGEST_WAIT_SECONDS = 60
# After an hour of such waits, each wait is 1/60 longer than the one before: an image is tried again within 1/60 of an
# outage's length. An image whose URL is valid for fourteen days is tried about 420 times.
WAITS_OF_EQUAL_LENGTH = 60
WAIT_GROWTH = 1 + 1 / 60
# A wait takes at most the time until the first URL expires, divided by this.
TIME_LEFT_DIVISOR = 4
# From this try on, two minutes after the first, negative answers are final: the image is gone and its provider returns
# no other URL, the body is truncated, or the provider does not have the result that a callback reported. Failures by
# outages have no such limit. Answers of an image's host are final only if this many tries had a negative one, because
# the first answer after an outage is unreliable.
MAX_ARCHIVE_TRIES = 5
# A task that cannot be read, because of an outage of DynamoDB or because its item is malformed, has no known expiry.
# Its message becomes a dead letter after a day, long before the queue would delete it.
UNREADABLE_TASK_LIFETIME = timedelta(days=1)


def retry_after_seconds(tries: int, *, urls_expire_at: datetime | None, now: datetime) -> int:
    """Returns the seconds until an archive message whose task was tried `tries` times is received again.

    `urls_expire_at`: when the first URL of the task's images that has not expired yet expires; None if unknown.
    """
    if tries <= len(RETRY_AFTER_SECONDS):
        planned = float(RETRY_AFTER_SECONDS[max(tries, 1) - 1])
    else:
        # SQS counts no more than 1,000 receives.
        growths = max(0, min(tries, 1000) - len(RETRY_AFTER_SECONDS) - WAITS_OF_EQUAL_LENGTH)
        planned = LONGEST_WAIT_SECONDS * WAIT_GROWTH**growths
    if urls_expire_at is None or urls_expire_at <= now:
        return int(min(planned, LONGEST_WAIT_SECONDS))
    left = (urls_expire_at - now).total_seconds()
    return max(1, int(min(planned, left / TIME_LEFT_DIVISOR)))


def count_of_tries(receives: int, *, failed: int) -> int:
    """Returns how often the archiving of a task was tried, the current try included.

    `receives` counts the deliveries of the task's message, also those that Lambda throttled, and `failed` the tries of
    all messages of the task that have ended. Throttled deliveries do not count as tries up to MAX_ARCHIVE_TRIES. After
    that they do, because the number then determines only the length of the waits.
    """
    return receives if failed + 1 >= MAX_ARCHIVE_TRIES else min(receives, failed + 1)


def are_negative_answers_final(tries: int, *, negative: int) -> bool:
    """Decides whether a negative answer of an image's host is final for the image.

    `tries` counts the current try, `negative` the earlier tries in which the host gave a negative answer.
    """
    return tries >= MAX_ARCHIVE_TRIES and negative + 1 >= MAX_ARCHIVE_TRIES


def longest_poll_gap_seconds(provider_ids: Iterable[str]) -> int | None:
    """Returns the maximum seconds between two polls: 1/4 of the shortest URL lifetime of these providers.

    A missed callback is then found while most of its URLs' lifetime is left. Returns None if none of the providers is
    known: tasks of unknown providers cannot be polled.
    """
    lifetimes = [
        lifetime
        for provider_id in provider_ids
        if provider_id in PROVIDERS
        for lifetime in PROVIDERS[provider_id].url_lifetimes.values()
    ]
    return int(min(lifetimes) / timedelta(seconds=TIME_LEFT_DIVISOR)) if lifetimes else None

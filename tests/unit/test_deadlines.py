"""Waits between archiving tries and between polls are derived from the lifetime of the images' URLs."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from catchlight.polling.intervals import (
    longest_poll_gap_seconds,
    retry_after_seconds,
)
from catchlight.providers import PROVIDERS
from tests.unit.template.expanded import QUEUES

NOW = datetime(2026, 1, 6, tzinfo=UTC)


def tries_of(lifetime: timedelta) -> list[int]:
    """Returns the times of the tries in seconds, if the first URL has this lifetime and a try takes no time."""
    expires_at, found = NOW + lifetime, [0]
    while found[-1] < lifetime.total_seconds():
        now = NOW + timedelta(seconds=found[-1])
        found.append(found[-1] + retry_after_seconds(len(found), urls_expire_at=expires_at, now=now))
    return found


def test_the_first_tries_have_short_waits() -> None:
    assert tries_of(timedelta(days=14))[:7] == [0, 5, 20, 65, 125, 185, 245]


@pytest.mark.parametrize("seconds", [10, 30, 60, 120, 300, 600, 3600, 86_400, 14 * 86_400])
def test_waits_are_at_most_a_quarter_of_the_remaining_lifetime_and_continue_to_its_end(seconds: int) -> None:
    tries = tries_of(timedelta(seconds=seconds))

    assert all(later - now <= max(1, (seconds - now) / 4) for now, later in pairwise(tries))
    assert tries[-2] >= seconds - 1


@pytest.mark.parametrize("lifetime", [timedelta(minutes=10), timedelta(days=1), timedelta(days=14)])
def test_waits_are_at_most_a_minute_or_a_small_part_of_the_time_since_the_first_try(lifetime: timedelta) -> None:
    assert all(later - now <= max(60, later / 55) for now, later in pairwise(tries_of(lifetime)))


def test_the_queues_receive_count_is_far_above_the_number_of_tries() -> None:
    assert len(tries_of(timedelta(days=14))) < QUEUES["ArchiveQueue"]["RedrivePolicy"]["maxReceiveCount"] / 2


def test_waits_after_the_expiry_have_the_same_lengths() -> None:
    expired = [retry_after_seconds(tries, urls_expire_at=NOW, now=NOW) for tries in (1, 2, 3, 4, 900)]
    assert expired == [5, 15, 45, 60, 60]


def test_a_task_that_could_not_be_read_is_retried_with_the_same_waits() -> None:
    unknown = [retry_after_seconds(tries, urls_expire_at=None, now=NOW) for tries in (0, 1, 2, 3, 4, 900)]
    assert unknown == [5, 5, 15, 45, 60, 60]


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_at_least_four_polls_fit_into_the_shortest_url_lifetime(provider_id: str) -> None:
    gap = longest_poll_gap_seconds(["unknown", provider_id])

    assert gap is not None
    assert 4 * timedelta(seconds=gap) <= min(PROVIDERS[provider_id].url_lifetimes.values())


def test_unknown_providers_have_no_poll_interval() -> None:
    assert longest_poll_gap_seconds(["unknown"]) is None

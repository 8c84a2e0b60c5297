"""Waits are derived from the lifetime of the images' URLs."""

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
    """Returns the seconds at which a message is tried whose first URL has this lifetime; tries take no time."""
    expires_at, found = NOW + lifetime, [0]
    while found[-1] < lifetime.total_seconds():
        now = NOW + timedelta(seconds=found[-1])
        found.append(found[-1] + retry_after_seconds(len(found), urls_expire_at=expires_at, now=now))
    return found


def test_the_first_tries_follow_closely() -> None:
    assert tries_of(timedelta(days=14))[:7] == [0, 5, 20, 65, 125, 185, 245]


@pytest.mark.parametrize("seconds", [10, 30, 60, 120, 300, 600, 3600, 86_400, 14 * 86_400])
def test_no_wait_takes_more_than_a_quarter_of_what_is_left_and_they_go_on_until_the_end(seconds: int) -> None:
    tries = tries_of(timedelta(seconds=seconds))

    assert all(later - now <= max(1, (seconds - now) / 4) for now, later in pairwise(tries))
    assert tries[-2] >= seconds - 1


@pytest.mark.parametrize("lifetime", [timedelta(minutes=10), timedelta(days=1), timedelta(days=14)])
def test_what_waits_is_tried_within_a_minute_of_an_outages_end_or_a_sixtieth_of_its_length(lifetime: timedelta) -> None:
    assert all(later - now <= max(60, later / 55) for now, later in pairwise(tries_of(lifetime)))


def test_the_queues_receive_count_is_a_backstop_far_above() -> None:
    assert len(tries_of(timedelta(days=14))) < QUEUES["ArchiveQueue"]["RedrivePolicy"]["maxReceiveCount"] / 2


def test_what_is_expired_is_tried_as_often() -> None:
    expired = [retry_after_seconds(tries, urls_expire_at=NOW, now=NOW) for tries in (1, 2, 3, 4, 900)]
    assert expired == [5, 15, 45, 60, 60]


def test_a_task_that_could_not_be_read_comes_back_soon() -> None:
    unknown = [retry_after_seconds(tries, urls_expire_at=None, now=NOW) for tries in (0, 1, 2, 3, 4, 900)]
    assert unknown == [5, 5, 15, 45, 60, 60]


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_polls_are_close_enough_to_save_what_dies_first(provider_id: str) -> None:
    gap = longest_poll_gap_seconds(["unheard-of", provider_id])

    assert gap is not None
    assert 4 * timedelta(seconds=gap) <= min(PROVIDERS[provider_id].url_lifetimes.values())


def test_tasks_of_unknown_providers_are_not_polled_for() -> None:
    assert longest_poll_gap_seconds(["unheard-of"]) is None

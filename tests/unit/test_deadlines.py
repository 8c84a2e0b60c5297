"""Waits that follow from how long the images' URLs live."""

from datetime import UTC, datetime, timedelta

import pytest

from catchlight.polling.intervals import (
    MAX_ARCHIVE_TRIES,
    RETRY_AFTER_SECONDS,
    longest_poll_gap_seconds,
    retry_after_seconds,
)
from catchlight.providers import PROVIDERS

NOW = datetime(2026, 1, 6, tzinfo=UTC)


def waits(lifetime: timedelta) -> list[int]:
    """The waits between the tries of a message whose first URL lives that long from now."""
    now, found = NOW, []
    for tries in range(1, MAX_ARCHIVE_TRIES):
        found.append(retry_after_seconds(tries, urls_expire_at=NOW + lifetime, now=now))
        now += timedelta(seconds=found[-1])
    return found


def test_an_image_that_lives_long_may_wait_for_a_service_to_recover() -> None:
    assert waits(timedelta(days=14)) == list(RETRY_AFTER_SECONDS)


def test_an_origin_image_is_tried_five_times_and_is_still_alive() -> None:
    assert waits(timedelta(minutes=10)) == [5, 15, 45, 133]


@pytest.mark.parametrize("seconds", [10, 30, 60, 120, 300, 600, 3600])
def test_a_quarter_of_the_time_is_left_after_all_tries(seconds: int) -> None:
    assert sum(waits(timedelta(seconds=seconds))) <= seconds * 3 // 4


def test_what_is_dead_does_not_die_sooner_by_waiting_for_the_provider() -> None:
    assert waits(timedelta(seconds=-1)) == [5, 15, 45, 45]


def test_a_task_that_could_not_be_read_comes_back_soon() -> None:
    assert [retry_after_seconds(tries, urls_expire_at=None, now=NOW) for tries in (0, 1, 2, 3, 4)] == [5, 5, 15, 45, 45]


def test_after_the_last_try_people_hear_of_it_at_once() -> None:
    assert retry_after_seconds(MAX_ARCHIVE_TRIES, urls_expire_at=NOW + timedelta(days=1), now=NOW) == 0


@pytest.mark.parametrize("provider_id", PROVIDERS)
def test_polls_are_close_enough_to_save_what_dies_first(provider_id: str) -> None:
    gap = longest_poll_gap_seconds(["unheard-of", provider_id])

    assert gap is not None
    assert 4 * timedelta(seconds=gap) <= min(PROVIDERS[provider_id].url_lifetimes.values())


def test_nobody_polls_for_providers_that_nobody_knows() -> None:
    assert longest_poll_gap_seconds(["unheard-of"]) is None

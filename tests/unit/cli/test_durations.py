"""Durations and times, as people write and read them."""

import argparse
from datetime import UTC, datetime, timedelta

import pytest

from catchlight.models import parse_time
from catchlight_cli.durations import duration, format_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h30m", 9000), ("7d", 604_800), ("1w1d", 691_200), ("0s", 0)]
)
def test_valid_durations(text: str, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5h", "1 d", "1y", "x1d", "1d!", "9" * 12 + "w"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (0.4, "less than a second"),
        (1, "1 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3601, "1 h"),
        (11_520, "3 h 12 min"),
        (timedelta(days=2, hours=3, minutes=4), "2 d 3 h"),
        (timedelta(days=400), "400 d"),
    ],
)
def test_format_duration(span: float | timedelta, words: str) -> None:
    assert format_duration(span) == words


def test_a_valid_time() -> None:
    assert parse_time("2026-01-06T00:17:05.000Z") == datetime(2026, 1, 6, 0, 17, 5, tzinfo=UTC)


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-01-06", "2026-01-06T00:17:05"])
def test_invalid_times(text: str | None) -> None:
    assert parse_time(text) is None

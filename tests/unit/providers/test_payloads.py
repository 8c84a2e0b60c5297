"""Times and integers in the providers' formats."""

from datetime import UTC, datetime
from typing import Any

import pytest

from catchlight.providers.payloads import integer_or_none, time_or_none

HALF_PAST_TEN = datetime(2024, 3, 20, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2024-03-20T10:30:00Z",
        "2024-03-20T10:30:00.000Z",
        "2024-03-20T18:30:00+08:00",
        "2024-03-20 18:30:00",  # naive: Beijing
        1710930600000,
        "1710930600000",
        1710930600,
        1710930600.0,
    ],
)
def test_a_time_is_read(value: Any) -> None:
    assert time_or_none(value) == HALF_PAST_TEN


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "2024-03-20 24:30:00",
        "2024-02-30 10:00:00",
        "2024-03-20T10:30:00",  # naive, and in none of the recorded formats: its time zone is unknown
        "2024-03-20",
        "0001-01-01T00:00:00+14:00",
        "1970-01-01T00:00:00Z",
        0,
        -1,
        -(10**30),
        True,
        10**30,
        "9" * 5000,
        "²",
        float("nan"),
        float("inf"),
        float("-inf"),
        [],
        {},
    ],
    ids=repr,
)
def test_an_invalid_time_is_none(value: Any) -> None:
    assert time_or_none(value) is None


@pytest.mark.parametrize(("value", "integer"), [(200, 200), ("200", 200), (" 501 ", 501), (-1, -1), ("-1", -1), (0, 0)])
def test_an_integer_is_read(value: Any, integer: int) -> None:
    assert integer_or_none(value) == integer


@pytest.mark.parametrize("value", [None, True, False, 1.0, "1.0", "", "٣", "1_0", "0x1", 10**30, "9" * 5000, [1], {}])
def test_an_invalid_integer_is_none(value: Any) -> None:
    assert integer_or_none(value) is None

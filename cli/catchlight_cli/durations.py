"""Parses and formats durations such as `90s`, `2h30m` and `7d`."""

import argparse
import re
from datetime import timedelta

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PARTS = re.compile(r"(\d+)([smhdw])")


def duration(text: str) -> timedelta:
    """Parses a duration such as `90s`, `2h30m` or `7d`. An argparse type: raises ArgumentTypeError if it is invalid."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; valid durations are 90s, 2h30m and 7d")
    try:
        return timedelta(seconds=sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text} is too long") from None


def format_duration(value: timedelta | float) -> str:
    """Formats a duration, or a number of seconds, with its two largest units: `3 h 12 min`."""
    seconds = round(value.total_seconds() if isinstance(value, timedelta) else value)
    if seconds < 1:
        return "less than a second"
    parts = []
    for name, size in (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {name}")
        if parts and (len(parts) == 2 or not count):
            break
    return " ".join(parts)

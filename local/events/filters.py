"""Evaluates filter patterns of event source mappings with the same semantics as AWS.

https://docs.aws.amazon.com/lambda/latest/dg/invocation-eventfiltering.html#filtering-syntax
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moto.events.models import EventPattern

from local import LocalStackError, UnsupportedError

# The operators that moto implements. It treats an unknown operator as a match.
_OPERATORS = {"anything-but", "equals-ignore-case", "exists", "numeric", "prefix", "suffix"}


class EventFilter:
    """Selects the records with which a function is invoked: those that match a pattern; all if there are no patterns.

    Raises LocalStackError for a pattern or an operator that moto evaluates differently from AWS.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = []
        for text in patterns:
            try:
                pattern = json.loads(text)
            except ValueError as exc:
                raise LocalStackError(f"Filter pattern {text!r} is not JSON: {exc}") from exc
            _check(pattern, text)
            self._patterns.append(EventPattern.load(text))

    def matches(self, record: Mapping[str, Any]) -> bool:
        return not self._patterns or any(pattern.matches_event(dict(record)) for pattern in self._patterns)


def _check(pattern: Any, text: str) -> None:
    if not isinstance(pattern, dict):
        raise LocalStackError(f"Filter pattern {text!r}: a key must hold an object or a list of values.")
    for key, value in pattern.items():
        if key == "$or":
            for alternative in value:
                _check(alternative, text)
        elif isinstance(value, list):
            if not value:
                raise LocalStackError(f"Filter pattern {text!r}: the list of {key!r} is empty.")
            for item in value:
                _check_rule(item, text)
        else:
            _check(value, text)


def _check_rule(rule: Any, text: str) -> None:
    if isinstance(rule, list):
        raise LocalStackError(f"Filter pattern {text!r}: a list of values must not hold another list.")
    if not isinstance(rule, dict):
        return
    unknown = set(rule) - _OPERATORS
    if unknown or len(rule) != 1:
        raise UnsupportedError(f"Filter pattern {text!r}: {sorted(unknown) or rule}", "local/events/filters.py")
    [(operator, argument)] = rule.items()
    if operator == "anything-but" and isinstance(argument, dict):
        _check_rule(argument, text)

"""Filter patterns have the same meaning as in AWS; unsupported ones stop the start."""

import json
from typing import Any

import pytest

from local import LocalStackError
from local.events.event_source import failed_identifiers
from local.events.filters import EventFilter
from local.lambda_.runtime_api import Outcome


@pytest.mark.parametrize(
    ("rules", "matching", "others"),
    [
        (["a", "b"], ["a", "b"], ["c", "", 1]),
        ([{"anything-but": ["a"]}], ["b"], ["a"]),
        ([{"anything-but": "a"}], ["b"], ["a"]),
        ([{"anything-but": {"prefix": "a"}}], ["b"], ["ab"]),
        ([{"prefix": "a"}], ["ab", "a"], ["ba"]),
        ([{"suffix": "a"}], ["ba"], ["ab"]),
        ([{"equals-ignore-case": "aB"}], ["Ab"], ["abc"]),
        ([{"numeric": [">", 1, "<=", 3]}], [2, 3], [1, 4, "2"]),
        ([None], [None], ["null"]),
        (["a", {"prefix": "b"}], ["a", "bc"], ["ab"]),
    ],
)
def test_operators(rules: list[Any], matching: list[Any], others: list[Any]) -> None:
    event_filter = EventFilter([json.dumps({"outer": {"key": rules}})])

    assert all(event_filter.matches({"outer": {"key": value}}) for value in matching)
    assert not any(event_filter.matches({"outer": {"key": value}}) for value in others)
    assert not event_filter.matches({"outer": {}})


def test_exists_matches_the_key() -> None:
    there, missing = (EventFilter([json.dumps({"key": [{"exists": exists}]})]) for exists in (True, False))

    assert there.matches({"key": "x"})
    assert not there.matches({})
    assert missing.matches({})
    assert not missing.matches({"key": "x"})


def test_all_keys_of_a_pattern_must_match_but_only_one_of_the_patterns() -> None:
    event_filter = EventFilter(['{"a": [1], "b": [2]}', '{"c": [3]}'])

    assert event_filter.matches({"a": 1, "b": 2})
    assert event_filter.matches({"c": 3})
    assert not event_filter.matches({"a": 1, "b": 3})


def test_without_patterns_everything_matches() -> None:
    assert EventFilter([]).matches({"any": "thing"})


@pytest.mark.parametrize(
    "pattern",
    [
        "not JSON",
        '["a"]',
        '{"key": "not in a list"}',
        '{"key": []}',
        '{"key": [["a"]]}',
        '{"key": [{"cidr": "10.0.0.0/8"}]}',
        '{"key": [{"wildcard": "a*"}]}',
        '{"key": [{"anything-but": {"nonsense": "a"}}]}',
        '{"$or": [{"key": [{"nonsense": 1}]}]}',
    ],
)
def test_a_pattern_that_is_wrong_or_unknown_stops_the_start(pattern: str) -> None:
    with pytest.raises(LocalStackError, match="Filter pattern"):
        EventFilter([pattern])


@pytest.mark.parametrize(
    ("payload", "failed"),
    [
        (None, set()),
        ("", set()),
        ({}, set()),
        ({"batchItemFailures": []}, set()),
        ({"batchItemFailures": None}, set()),
        ({"batchItemFailures": [{"itemIdentifier": "b"}]}, {"b"}),
        ({"batchItemFailures": [{"itemIdentifier": "unknown"}]}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, {"a", "b"}),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, {"a", "b"}),
        ({"batchItemFailures": [{"wrongKey": "b"}]}, {"a", "b"}),
        ("some text", {"a", "b"}),
    ],
)
def test_batch_item_failures(payload: Any, failed: set[str]) -> None:
    assert failed_identifiers(Outcome(json.dumps(payload).encode()), ["a", "b"], True) == failed


def test_a_failed_function_fails_its_batch() -> None:
    assert failed_identifiers(Outcome(b"{}", "Unhandled"), ["a"], True) == {"a"}
    assert failed_identifiers(Outcome(b"nonsense"), ["a"], False) == set()

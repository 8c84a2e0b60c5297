"""Filter patterns have the same meaning as in AWS; unsupported ones prevent the start."""

import json
from typing import Any

import pytest

from local import LocalStackError
from local.events.event_source import failed_identifiers
from local.events.filters import EventFilter
from local.lambda_.runtime_api import InvocationResult


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
def test_each_operator_matches_as_in_aws(rules: list[Any], matching: list[Any], others: list[Any]) -> None:
    event_filter = EventFilter([json.dumps({"outer": {"key": rules}})])

    assert all(event_filter.matches({"outer": {"key": value}}) for value in matching)
    assert not any(event_filter.matches({"outer": {"key": value}}) for value in others)
    assert not event_filter.matches({"outer": {}})


def test_exists_matches_by_the_presence_of_the_key() -> None:
    present, absent = (EventFilter([json.dumps({"key": [{"exists": exists}]})]) for exists in (True, False))

    assert present.matches({"key": "x"})
    assert not present.matches({})
    assert absent.matches({})
    assert not absent.matches({"key": "x"})


def test_an_event_must_match_all_keys_of_at_least_one_pattern() -> None:
    event_filter = EventFilter(['{"a": [1], "b": [2]}', '{"c": [3]}'])

    assert event_filter.matches({"a": 1, "b": 2})
    assert event_filter.matches({"c": 3})
    assert not event_filter.matches({"a": 1, "b": 3})


def test_without_patterns_every_event_matches() -> None:
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
def test_a_malformed_or_unsupported_pattern_prevents_the_start(pattern: str) -> None:
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
def test_batch_item_failures_are_interpreted_as_in_lambda(payload: Any, failed: set[str]) -> None:
    assert failed_identifiers(InvocationResult(json.dumps(payload).encode()), ["a", "b"], True) == failed


def test_a_failed_function_fails_its_batch() -> None:
    assert failed_identifiers(InvocationResult(b"{}", "Unhandled"), ["a"], True) == {"a"}
    assert failed_identifiers(InvocationResult(b"nonsense"), ["a"], False) == set()

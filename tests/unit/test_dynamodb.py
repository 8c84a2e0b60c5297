"""Conversion of values to and from DynamoDB's format: the same as by boto3."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from hypothesis import given
from hypothesis import strategies as st

from catchlight.aws.dynamodb import from_attribute, to_attribute

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**20), max_value=10**20)
numbers = st.integers(-(10**37), 10**37) | decimals
scalars = st.none() | st.booleans() | st.text() | numbers
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)
strings, binaries = st.text(min_size=1), st.binary(min_size=1)
sets_and_binaries = (
    st.sets(strings, min_size=1) | st.sets(numbers, min_size=1) | st.sets(binaries, min_size=1) | binaries
)


@given(value=values)
def test_values_are_serialized_as_by_boto3(value: Any) -> None:
    assert to_attribute(value) == TypeSerializer().serialize(value)


@given(value=values | sets_and_binaries | st.lists(sets_and_binaries))
def test_attributes_are_deserialized_as_by_boto3(value: Any) -> None:
    attribute = TypeSerializer().serialize(value)

    assert from_attribute(attribute) == TypeDeserializer().deserialize(attribute)


@pytest.mark.parametrize("number", [0, -7, 10**20])
def test_whole_numbers_are_integers(number: int) -> None:
    assert from_attribute({"N": str(number)}) == number
    assert type(from_attribute({"N": str(number)})) is int
    assert from_attribute({"N": "1.5"}) == Decimal("1.5")


def test_tuples_become_lists_and_times_become_text() -> None:
    moment = datetime(2026, 1, 6, 0, 17, 5, 120_000, tzinfo=UTC)

    assert to_attribute((moment,)) == {"L": [{"S": "2026-01-06T00:17:05.120Z"}]}


@pytest.mark.parametrize("value", [1.5, b"x", {1, 2}, object()])
def test_types_that_no_item_has_are_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        to_attribute({"x": [value]})

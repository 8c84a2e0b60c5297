"""moto returns the same responses with and without the fast paths."""

import copy
from typing import Any

import pytest
from moto.core.serialize import ResponseSerializer
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.parsing import validators
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node
from moto.dynamodb.parsing.expressions import UpdateExpressionParser

from local.moto import fast_paths
from tests.integration.conftest import TABLE_NAME, Store

# A value of each type of DynamoDB.
VALUES: dict[str, Any] = {
    "aText": {"S": "é"},
    "aNumber": {"N": "1.50"},
    "someBytes": {"B": b"\x00\xff"},
    "aTruth": {"BOOL": False},
    "aNull": {"NULL": True},
    "anEmptyMap": {"M": {}},
    "someTexts": {"SS": ["a", "b"]},
    "someNumbers": {"NS": ["1", "2"]},
    "someParts": {"BS": [b"a", b"b"]},
    "aMap": {"M": {"S": {"S": "a key like a type"}, "list": {"L": [{"N": "0"}, {"S": ""}, {"L": []}]}}},
}


def responses(store: Store, task: str) -> list[Any]:
    """Writes, changes and reads an item. Returns moto's responses."""
    key = {"task": {"S": task}}
    store.client.put_item(TableName=TABLE_NAME, Item=key | VALUES)
    changed = store.client.update_item(
        TableName=TABLE_NAME,
        Key=key,
        UpdateExpression="SET #n.#l[1] = if_not_exists(isAbsent, :one), aNumber = aNumber + :one,"
        " isNew = list_append(:l, :l) REMOVE #n.#l[0], aTruth ADD someNumbers :set DELETE someTexts :texts",
        ConditionExpression="attribute_exists(task) AND #n.#l[0] = :zero",
        ExpressionAttributeNames={"#n": "aMap", "#l": "list"},
        ExpressionAttributeValues={
            ":one": {"N": "1"},
            ":zero": {"N": "0"},
            ":l": {"L": [{"NULL": True}]},
            ":set": {"NS": ["3"]},
            ":texts": {"SS": ["a"]},
        },
        ReturnValues="ALL_OLD",
    )
    read = store.client.get_item(TableName=TABLE_NAME, Key=key)
    with pytest.raises(store.client.exceptions.ConditionalCheckFailedException) as refused:
        store.client.update_item(
            TableName=TABLE_NAME,
            Key=key,
            UpdateExpression="SET isNew = :new",
            ConditionExpression="attribute_not_exists(task)",
            ExpressionAttributeValues={":new": {"S": "x"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    response: Any = refused.value.response
    return [changed["Attributes"], read["Item"], response["Item"]]


def test_responses_are_the_same_with_and_without_the_fast_paths(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = responses(store, "t1")
    owners = {
        "_lex_condition_expression": ConditionExpressionParser,
        "_serialize_type_structure": ResponseSerializer,
        "traverse": DepthFirstTraverser,
        "find_clauses": Node,
        "make": UpdateExpressionParser,
    }
    assert owners.keys() == fast_paths.ORIGINALS.keys()
    for name, owner in owners.items():
        monkeypatch.setattr(owner, name, fast_paths.ORIGINALS[name])
    monkeypatch.setattr(validators, "deepcopy", copy.deepcopy)
    store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": "t1"}})
    slow = responses(store, "t1")

    assert fast == slow
    assert fast[0] == {"task": {"S": "t1"}, **VALUES}

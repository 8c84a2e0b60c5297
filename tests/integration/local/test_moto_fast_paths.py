"""moto's answers with the fast paths are those that it gives without them."""

import copy
from typing import Any

import pytest
from moto.core.serialize import AttributePicker, ResponseSerializer, XFormedAttributePicker
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.models.dynamo_type import DynamoType
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


def answers(store: Store, task: str) -> list[Any]:
    """Writes, changes and reads an item. Returns what moto answers."""
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


def test_answers_are_the_same_with_and_without_shortcuts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = answers(store, "t1")
    for owner, name in (
        (ConditionExpressionParser, "_lex_condition_expression"),
        (DynamoType, "__deepcopy__"),
        (ResponseSerializer, "_serialize_type_structure"),
        (DepthFirstTraverser, "traverse"),
        (Node, "find_clauses"),
        (UpdateExpressionParser, "make"),
    ):
        monkeypatch.setattr(owner, name, fast_paths.ORIGINALS[name])
    monkeypatch.setattr(validators, "deepcopy", copy.deepcopy)
    for picker in (AttributePicker, XFormedAttributePicker):
        monkeypatch.setattr(picker, "get_possible_keys", picker.__dict__["get_possible_keys"].compute)
    store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": "t1"}})
    slow = answers(store, "t1")

    assert fast == slow
    assert fast[0] == {"task": {"S": "t1"}, **VALUES}

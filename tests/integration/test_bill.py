"""What a million tasks cost has a ceiling: a change that makes them dearer has to say so here."""

from collections import Counter
from typing import Any

import pytest

from tests.benchmarks.bill import (
    GOAL_ALONE,
    GOAL_AT_LOAD,
    LOADS,
    NAIVE,
    Load,
    bill,
    monthly,
    naive_transitions,
    traced_share,
    usage_of,
)
from tests.benchmarks.bill_units import BASE_TABLE, item_size, read_units, walk, write_units

_ALL_ARRIVE, TWO_PERCENT_LOST, _ALL_LOST, ALONE, _ALONE_AND_SLOW = LOADS

# Cents above what it was when this was written.
CEILINGS = {TWO_PERCENT_LOST: 35.75, ALONE: 160.00}
CEILING_A_MONTH = 15.10

TABLE: dict[str, Any] = {
    "KeySchema": [{"AttributeName": "task", "KeyType": "HASH"}],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "byStatus",
            "KeySchema": [{"AttributeName": "status"}, {"AttributeName": "updatedAt"}],
            "Projection": {"ProjectionType": "ALL"},
        },
        {
            "IndexName": "byArrival",
            "KeySchema": [{"AttributeName": "feed"}],
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["provider"]},
        },
    ],
}


def an_item(status: str, updated_at: str = "1", size: int = 0) -> dict[str, Any]:
    values = {"task": "t", "status": status, "updatedAt": updated_at, "feed": "f", "words": "w" * size}
    return {name: {"S": value} for name, value in values.items()}


# ------------------------------------------------------------------------------------------------ the bill


@pytest.mark.parametrize("load", CEILINGS, ids=lambda load: load.name)
def test_a_million_tasks_cost_no_more_than_they_did(load: Load) -> None:
    costs = bill(load)

    assert sum(costs.values()) <= CEILINGS[load], costs


def test_tasks_cost_what_was_aimed_at() -> None:
    assert sum(bill(TWO_PERCENT_LOST).values()) <= GOAL_AT_LOAD
    assert sum(bill(ALONE).values()) <= GOAL_ALONE


def test_a_month_without_tasks_costs_no_more_than_it_did() -> None:
    usage, template = usage_of(TWO_PERCENT_LOST)

    fixed = monthly(template, usage)

    assert sum(fixed.values()) <= CEILING_A_MONTH, fixed


def test_every_task_is_archived_with_the_fewest_calls() -> None:
    usage, _ = usage_of(TWO_PERCENT_LOST)
    calls = Counter[str]()
    for invocation in usage.invocations:
        calls += Counter({f"{invocation.function} {call}": count for call, count in invocation.calls.items()})
    secrets = {name: count for name, count in calls.items() if "GetSecretValue" in name}

    assert usage.item_sizes.keys() == {"PENDING", "SUCCEEDED", "ARCHIVED"}
    assert (usage.tasks, usage.callbacks, usage.events) == (50, 49, 50)
    assert calls - Counter(secrets) == {
        # One execution, and a message for each task, ten to a call: of 25 until the first poll, then 14, 10 and one.
        "DispatchChanges stepfunctions:StartExecution": 1,
        "DispatchChanges sqs:SendMessageBatch": 7,
        "ReceiveCallback dynamodb:UpdateItem": 49,
        # Three rounds look who is still running, one finds news.
        "PollTasks dynamodb:BatchGetItem": 3,
        "PollTasks dynamodb:UpdateItem": 1,
        # Each task: read, two images and what was asked, written.
        "ArchiveImages dynamodb:GetItem": 50,
        "ArchiveImages s3:PutObject": 150,
        "ArchiveImages dynamodb:UpdateItem": 50,
        "PublishEvents events:PutEvents": 7,
    }
    # Nobody is asked about a task whose news has come, but to confirm it, once.
    asked = Counter[str]()
    for invocation in usage.invocations:
        asked[invocation.function] += invocation.provider_requests
    assert +asked == {"ArchiveImages": 49, "PollTasks": 25 + 11 + 1}


def test_the_naive_way_is_dearer_by_transitions_alone() -> None:
    assert naive_transitions(600) == pytest.approx(1550)
    assert bill(ALONE)["Step Functions"] == pytest.approx(100)


# ------------------------------------------------------------------------------------------------ units


def test_the_size_of_an_item_is_that_of_its_names_and_values() -> None:
    assert item_size({"task": {"S": "größe"}}) == 4 + 7
    assert item_size({"n": {"N": "1000"}, "m": {"N": "-123"}}) == 1 + 2 + 1 + 4
    assert item_size({"b": {"BOOL": True}, "l": {"L": [{"NULL": True}]}}) == 1 + 1 + 1 + 3 + 2
    assert item_size({"m": {"M": {"ab": {"S": "cd"}}}}) == 1 + 3 + 1 + 2 + 2


def test_an_entry_under_another_key_is_two_writes_of_the_index() -> None:
    assert write_units(TABLE, None, an_item("PENDING")) == {BASE_TABLE: 1, "byStatus": 1, "byArrival": 1}
    assert write_units(TABLE, an_item("PENDING"), an_item("FAILED")) == {BASE_TABLE: 1, "byStatus": 2}
    assert write_units(TABLE, an_item("PENDING"), an_item("PENDING", size=1024)) == {BASE_TABLE: 2, "byStatus": 2}
    assert write_units(TABLE, an_item("PENDING", size=1024), an_item("PENDING", "2")) == {BASE_TABLE: 2, "byStatus": 3}
    assert write_units(TABLE, an_item("PENDING"), None) == {BASE_TABLE: 1, "byStatus": 1, "byArrival": 1}


def test_a_read_of_nothing_costs_a_unit() -> None:
    assert [read_units(item) for item in (None, an_item("PENDING"), an_item("PENDING", size=4096))] == [1, 1, 2]


def test_every_step_of_an_execution_is_a_transition() -> None:
    rounds = iter([["one"], []])

    steps = list(walk(NAIVE, {}, lambda state, seconds: {"tasks": next(rounds, [])}))

    assert steps == ["Wait", "Ask", "Still running?"] * 2 + ["Save", "Done"]


def test_x_ray_takes_one_a_second_and_a_twentieth_of_the_others() -> None:
    assert traced_share(0.4) == 1
    assert traced_share(201) == pytest.approx(11 / 201)

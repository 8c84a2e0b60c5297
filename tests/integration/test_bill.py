"""The cost of a million tasks has a ceiling: a change that raises the cost must raise it here."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.benchmarks.bill import (
    GOAL_ALONE,
    GOAL_AT_LOAD,
    LOADS,
    MILLION,
    NAIVE,
    Load,
    bill,
    fixed,
    naive_transitions,
    traced_share,
    usage_of,
)
from tests.benchmarks.bill_months import MONTHS, Month, in_dollars, month_of
from tests.benchmarks.bill_units import BASE_TABLE, item_size, read_units, walk, write_units
from tests.e2e.test_readme import rows

ALL_ARRIVE, TWO_PERCENT_LOST, _ALL_LOST, ALONE, ALONE_AND_SLOW = LOADS

# In US dollars: a few cents above the measured cost.
CEILINGS = {TWO_PERCENT_LOST: 26.80, ALONE: 46.00}
CEILINGS_A_MONTH = {"Full": 16.40, "Essential": 9.00}
# With the fixed cost of full monitoring, by the number of tasks: arriving evenly, and in bursts.
CEILINGS_OF_MONTHS = {1_000: (16.45, 16.45), 100_000: (21.30, 19.10), 1_000_000: (64.00, 43.20), 10_000_000: (456, 285)}

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
def test_the_cost_of_a_million_tasks_is_below_its_ceiling(load: Load) -> None:
    costs = bill(load)

    assert sum(costs.values()) <= CEILINGS[load], costs


def test_the_cost_of_a_million_tasks_is_within_the_goals() -> None:
    assert sum(bill(TWO_PERCENT_LOST).values()) <= GOAL_AT_LOAD
    assert sum(bill(ALONE).values()) <= GOAL_ALONE


@pytest.mark.parametrize("monitoring", CEILINGS_A_MONTH)
def test_the_cost_of_a_month_without_tasks_is_below_its_ceiling(monitoring: str) -> None:
    assert 0 < fixed(monitoring) <= CEILINGS_A_MONTH[monitoring]


@pytest.mark.parametrize("month", MONTHS, ids=lambda month: f"{month.tasks} {month.arrival}")
def test_the_cost_of_a_month_is_below_its_ceiling(month: Month) -> None:
    cost = month_of(month)

    assert cost.full <= CEILINGS_OF_MONTHS[month.tasks][month.arrival == "in bursts"]
    assert cost.full - cost.essential == pytest.approx(fixed("Full") - fixed("Essential"))
    assert cost.full < cost.execution_per_task


def test_the_cost_of_a_million_tasks_in_a_month_is_within_the_goals() -> None:
    """Without the fixed cost; 2 % of callbacks are missed."""
    costs = {month.arrival: month_of(month).full - fixed("Full") for month in MONTHS if month.tasks == MILLION}

    assert costs["evenly"] <= GOAL_ALONE
    assert costs["in bursts"] <= GOAL_AT_LOAD


def test_the_costs_in_the_readme_are_those_that_the_bill_computes() -> None:
    for load, cells in zip(LOADS, rows("What it costs"), strict=True):
        costs = bill(load)
        figures = [f"{price:.2f}" for price in (*costs.values(), sum(costs.values()))]
        assert [cell.strip("*") for cell in cells] == [load.name, *figures]


def test_the_costs_of_a_month_in_the_readme_are_those_that_the_bill_computes() -> None:
    for month, cells in zip(MONTHS, rows("A month, by the number of tasks"), strict=True):
        figures = map(in_dollars, month_of(month))
        assert [cell.strip("*") for cell in cells] == [f"{month.tasks:,}", month.arrival, *figures]


def test_secrets_are_not_read_more_often_than_functions_run() -> None:
    rare = replace(ALONE, tasks_per_second=1 / 86400)

    # At most one read for each invocation of each of the two functions, which read three secrets in all.
    assert bill(rare)["Secrets"] == pytest.approx(3 * 5.0)


def test_every_task_is_archived_with_the_fewest_calls() -> None:
    usage, _ = usage_of(TWO_PERCENT_LOST)
    calls = Counter[str]()
    for invocation in usage.invocations:
        calls += Counter({f"{invocation.function} {call}": count for call, count in invocation.calls.items()})
    secrets = {name: count for name, count in calls.items() if "GetSecretValue" in name}

    assert usage.item_sizes.keys() == {"PENDING", "SUCCEEDED", "ARCHIVED"}
    assert (usage.tasks, usage.callbacks, usage.events) == (50, 49, 50)
    assert calls - Counter(secrets) == {
        # One message for each first poll and one for each task to archive, ten per call: the tasks with a callback,
        # then the task whose callback is lost.
        "DispatchChanges sqs:SendMessageBatch": 5 + 5 + 1,
        # All tasks are read once. One has no result: an execution is started, and its start noted in the item.
        "StartPolling dynamodb:BatchGetItem": 1,
        "StartPolling stepfunctions:StartExecution": 1,
        "StartPolling dynamodb:UpdateItem": 1,
        "ReceiveCallback dynamodb:UpdateItem": 49,
        "PollTasks dynamodb:BatchGetItem": 1,
        "PollTasks dynamodb:UpdateItem": 1,
        # Each item is read once and written once, with two images. The request is in the images' metadata.
        "ArchiveImages dynamodb:GetItem": 50,
        "ArchiveImages s3:PutObject": 100,
        "ArchiveImages dynamodb:UpdateItem": 50,
        "PublishEvents events:PutEvents": 6,
    }
    # One request to the provider confirms each callback. The poll of the other task needs no confirmation.
    provider_requests = Counter[str]()
    for invocation in usage.invocations:
        provider_requests[invocation.function] += invocation.provider_requests
    assert +provider_requests == {"ArchiveImages": 49, "PollTasks": 1}


@pytest.mark.parametrize("load", [ALONE, ALONE_AND_SLOW, ALL_ARRIVE], ids=lambda load: load.name)
def test_a_task_whose_callback_comes_in_time_costs_no_execution_and_no_poll(load: Load) -> None:
    usage, _ = usage_of(load)
    by_function = Counter(invocation.function for invocation in usage.invocations)

    assert usage.callbacks == usage.tasks > 0
    assert (usage.executions, usage.transitions, by_function["PollTasks"]) == (0, 0, 0)
    assert bill(load)["Step Functions"] == 0


def test_only_tasks_whose_callbacks_are_lost_are_polled() -> None:
    usage, _ = usage_of(TWO_PERCENT_LOST)

    # One of 50 tasks, with three transitions: poll, choice, end.
    assert (usage.tasks - usage.callbacks, usage.executions, usage.transitions) == (1, 1, 3)


def test_the_state_transitions_of_naive_polling_alone_cost_more_than_catchlight() -> None:
    naive = naive_transitions(600)

    assert naive == pytest.approx(1550)
    assert naive > max(sum(bill(load).values()) for load in CEILINGS)


# ------------------------------------------------------------------------------------------------ units


def test_the_size_of_an_item_is_that_of_its_names_and_values() -> None:
    assert item_size({"task": {"S": "größe"}}) == 4 + 7
    assert item_size({"n": {"N": "1000"}, "m": {"N": "-123"}}) == 1 + 2 + 1 + 4
    assert item_size({"b": {"BOOL": True}, "l": {"L": [{"NULL": True}]}}) == 1 + 1 + 1 + 3 + 2
    assert item_size({"m": {"M": {"ab": {"S": "cd"}}}}) == 1 + 3 + 1 + 2 + 2


def test_a_changed_index_key_costs_two_writes_of_the_index() -> None:
    assert write_units(TABLE, None, an_item("PENDING")) == {BASE_TABLE: 1, "byStatus": 1, "byArrival": 1}
    assert write_units(TABLE, an_item("PENDING"), an_item("FAILED")) == {BASE_TABLE: 1, "byStatus": 2}
    assert write_units(TABLE, an_item("PENDING"), an_item("PENDING", size=1024)) == {BASE_TABLE: 2, "byStatus": 2}
    assert write_units(TABLE, an_item("PENDING", size=1024), an_item("PENDING", "2")) == {BASE_TABLE: 2, "byStatus": 3}
    assert write_units(TABLE, an_item("PENDING"), None) == {BASE_TABLE: 1, "byStatus": 1, "byArrival": 1}


def test_reading_a_missing_item_costs_one_unit() -> None:
    assert [read_units(item) for item in (None, an_item("PENDING"), an_item("PENDING", size=4096))] == [1, 1, 2]


def test_every_step_of_an_execution_is_a_transition() -> None:
    rounds = iter([["one"], []])

    steps = list(walk(NAIVE, {}, lambda state, seconds: {"tasks": next(rounds, [])}))

    assert steps == ["Wait", "Poll", "Still running?"] * 2 + ["Save", "Done"]


def test_x_ray_traces_one_request_per_second_and_a_twentieth_of_the_others() -> None:
    assert traced_share(0.4) == 1
    assert traced_share(201) == pytest.approx(11 / 201)

"""Computes billing units: DynamoDB's write units of a changed item, Step Functions' transitions of an execution."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil
from typing import Any

Item = Mapping[str, Any]  # in DynamoDB's JSON
BASE_TABLE = "table"


def item_size(item: Item) -> int:
    """Returns the bytes of an item, as DynamoDB counts them.

    https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(str(content).encode())
        case "N":
            digits = content.lstrip("-").replace(".", "").strip("0")
            return ceil(len(digits) / 2) + 1 + int(content.startswith("-"))
        case "BOOL" | "NULL":
            return 1
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(part) for name, part in content.items())
        case "L":
            return 3 + sum(1 + _value_size(part) for part in content)
    raise ValueError(f"no size is known for {kind}")


def write_units(table: Mapping[str, Any], old: Item | None, new: Item | None) -> Counter[str]:
    """Returns the write units of one write, by the table (`BASE_TABLE`) and its indexes.

    Args:
        table: properties of the AWS::DynamoDB::Table.
        old: the item before, None if there was none.
        new: the item after, None if it was deleted.
    """
    units = Counter({BASE_TABLE: max(_units(old), _units(new))})
    for index in table["GlobalSecondaryIndexes"]:
        before, after = (_entry(table, index, item) for item in (old, new))
        if before == after:
            continue
        names = [key["AttributeName"] for key in index["KeySchema"]]
        moves = before and after and any(before[name] != after[name] for name in names)
        # A changed key deletes the old entry and writes a new one.
        units[index["IndexName"]] += _units(before) + _units(after) if moves else max(_units(before), _units(after))
    return units


def read_units(item: Item | None) -> int:
    """Returns the read units of a strongly consistent read; a missing item counts one."""
    return max(1, ceil(item_size(item or {}) / 4096))


def _units(item: Item | None) -> int:
    return ceil(item_size(item) / 1024) if item else 0


def _entry(table: Mapping[str, Any], index: Mapping[str, Any], item: Item | None) -> Item | None:
    """Returns the entry of an item in an index, or None if it lacks one of the index's keys."""
    names = [key["AttributeName"] for key in index["KeySchema"]]
    if item is None or not all(name in item for name in names):
        return None
    projection = index["Projection"]
    if projection["ProjectionType"] == "ALL":
        return item
    kept = {*names, *(key["AttributeName"] for key in table["KeySchema"]), *projection.get("NonKeyAttributes", [])}
    return {name: value for name, value in item.items() if name in kept}


def walk(
    definition: Mapping[str, Any], state: dict[str, Any], work: Callable[[dict[str, Any], float], dict[str, Any]]
) -> Iterator[str]:
    """Yields the names of the states that an execution enters; each is a billed transition.

    https://aws.amazon.com/step-functions/pricing/: "Step Functions counts a state transition each time a step of your
    workflow is executed", including retries.

    Args:
        definition: of the machine, with states of the types Wait, Task, Choice and Succeed.
        state: the execution's input.
        work: replaces the functions of Task states: receives the state and the seconds waited so far, and returns the
            next state.
    """
    name, seconds = definition["StartAt"], 0.0
    while True:
        yield name
        step = definition["States"][name]
        match step["Type"]:
            case "Succeed":
                return
            case "Wait":
                seconds += step["Seconds"] if "Seconds" in step else state[step["SecondsPath"].removeprefix("$.")]
                name = step["Next"]
            case "Task":
                state = work(state, seconds)
                if step.get("End"):
                    return
                name = step["Next"]
            case "Choice":
                name = next((rule["Next"] for rule in step["Choices"] if _holds(rule, state)), step["Default"])
            case other:
                raise ValueError(f"a state of type {other} cannot be walked yet")


def _holds(rule: Mapping[str, Any], state: Mapping[str, Any]) -> bool:
    name, _, position = rule["Variable"].removeprefix("$.").removesuffix("]").partition("[")
    if set(rule) != {"Variable", "IsPresent", "Next"}:
        raise ValueError(f"the rule {rule} cannot be walked yet")
    found: Sequence[Any] = state.get(name, [])
    return rule["IsPresent"] is (int(position) < len(found))

"""The estimated cost of a count is printed before it, unless the table is small."""

from typing import Any

import pytest

from catchlight_cli.health.task_counts import cost_of_counting


class Stack:
    """A stack whose table is of this size."""

    table = "tasks"

    def __init__(self, items: int, size: int) -> None:
        self._described = {"ItemCount": items, "TableSizeBytes": size}

    def client(self, _: str) -> "Stack":
        return self

    def describe_table(self, TableName: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        return {"Table": self._described}


@pytest.mark.parametrize(
    ("items", "size", "text"),
    [
        (0, 0, None),
        (99_999, 200_000_000, None),
        (1_000_000, 2**30, "about 1,000,000 tasks, 262,144 read units, $0.03. With --since 1d"),
    ],
)
def test_the_cost_of_a_count(items: int, size: int, text: str | None) -> None:
    stack: Any = Stack(items, size)
    price = cost_of_counting(stack)

    assert (price is None) if text is None else (price is not None and text in price)

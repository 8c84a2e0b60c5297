"""docs/conformance.md names an existing test for every statement of the services' documentation."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (\d+) \| .*\|$", (REPOSITORY / "docs" / "conformance.md").read_text(), re.MULTILINE)
TESTS = re.findall(
    r"^\| (\d+) \| .+ \| .+ \| `([\w/]+\.py)::(\w+)` \|$",
    (REPOSITORY / "docs" / "conformance.md").read_text(),
    re.MULTILINE,
)


@cache
def functions_in(path: str) -> set[str]:
    module = ast.parse((REPOSITORY / path).read_text())
    return {node.name for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}


def test_every_statement_is_numbered_and_has_a_test() -> None:
    assert [int(number) for number in ROWS] == list(range(1, 86))
    assert [number for number, _, _ in TESTS] == ROWS


@pytest.mark.parametrize(("number", "path", "name"), TESTS)
def test_the_test_exists(number: str, path: str, name: str) -> None:
    assert name.startswith("test_"), number
    assert name in functions_in(path)

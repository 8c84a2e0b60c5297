"""Extracts the metrics that the functions emit from their code."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from catchlight.models import ImageState
from catchlight.tasks.reports import ReportOutcome
from tests.unit.template.expanded import REPOSITORY

# f"Images{image.state.title()}": the values in the braces. A pending image is not counted.
NAME_FAMILIES = {
    "Callbacks": [outcome.title() for outcome in ReportOutcome],
    "Images": [state.title() for state in ImageState if state is not ImageState.PENDING],
}


@cache
def emitted_metrics() -> dict[str, set[str]]:
    """Returns the dimensions of each metric besides `service`.

    For example: {"ResolvedByPoll": {"provider"}, "RejectedDeliveries": set()}.
    """
    found: dict[str, set[str]] = {}
    shared = REPOSITORY / "layers/catchlight/python/catchlight/observability/failures.py"
    for module in (*sorted((REPOSITORY / "functions").glob("*/app.py")), shared):
        for name, dimensions in _metrics_of(module):
            found.setdefault(name, set()).update(dimensions)
    return found


def _metrics_of(path: Path) -> Iterator[tuple[str, set[str]]]:
    module = ast.parse(path.read_text())
    for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
        for block in (node for node in ast.walk(function) if isinstance(node, ast.With)):
            opened = block.items[0].context_expr
            if not (isinstance(opened, ast.Call) and ast.unparse(opened.func) == "metrics_by"):
                continue
            dimensions = {str(keyword.arg) for keyword in opened.keywords}
            for call in (node for node in ast.walk(block) if isinstance(node, ast.Call)):
                if ast.unparse(call.func).endswith(".add_metric"):
                    yield from ((name, dimensions) for name in _names(call.args[0], function, module))


def _names(name: ast.expr, function: ast.FunctionDef, module: ast.Module) -> list[str]:
    """Returns the possible values of a metric's name."""
    if isinstance(name, ast.JoinedStr):
        (prefix,) = _texts(name.values[:1])
        return [prefix + rest for rest in NAME_FAMILIES[prefix]]
    if not isinstance(name, ast.Name):
        return list(_texts([name]))
    parameters = [parameter.arg for parameter in function.args.args]
    if name.id in parameters:  # its values are the arguments of the function's calls
        calls = (node for node in ast.walk(module) if isinstance(node, ast.Call))
        return list(
            _texts(call.args[parameters.index(name.id)] for call in calls if ast.unparse(call.func) == function.name)
        )
    # `for name, value in counts.items()`
    return list(_texts(key for node in ast.walk(function) if isinstance(node, ast.Dict) for key in node.keys if key))


def _texts(nodes: Iterable[ast.expr]) -> Iterator[str]:
    for node in nodes:
        assert isinstance(node, ast.Constant), f"{ast.unparse(node)}: this function cannot read the metric's name"
        assert isinstance(node.value, str)
        yield node.value

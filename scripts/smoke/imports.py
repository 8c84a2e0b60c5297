"""Imports the package's modules from the layer, and all modules that these import, including imports in functions."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "catchlight"
# Runs in a separate process, with only the layer and the standard library on the path.
_IMPORT = """
import importlib, json, sys, traceback
layer, *names = json.load(sys.stdin)
sys.path.insert(0, layer)
for name in names:
    try:
        importlib.import_module(name)
    except BaseException:
        print(json.dumps(f"{name} cannot be imported from the layer: {traceback.format_exc()}"))
"""


def check_imports(layer: Path) -> Iterator[str]:
    """Yields a problem with the traceback for each module that cannot be imported."""
    modules = sorted(_modules(layer))
    ended = subprocess.run(
        # -I -S: nothing from the user or this environment. -B: writes no bytecode into the artefact.
        [sys.executable, "-I", "-S", "-B", "-c", _IMPORT],
        input=json.dumps([str(layer), *modules]),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        yield f"Python ended with {ended.returncode}: {ended.stderr}"
    yield from map(json.loads, ended.stdout.splitlines())


def _modules(layer: Path) -> set[str]:
    """Returns the package's own modules and the modules that it imports, including imports inside functions."""
    modules = set()
    for path in (layer / PACKAGE).rglob("*.py"):
        name = ".".join(path.relative_to(layer).with_suffix("").parts).removesuffix(".__init__")
        modules |= {name, *_imported(ast.parse(path.read_text()))}
    return modules


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        # Modules imported for type checkers only are not deployed.
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        yield from _imported(node)

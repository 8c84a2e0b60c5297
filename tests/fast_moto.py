"""Makes moto faster, which takes most of the time of the integration tests. What it answers stays the same.

Each part is a cache, or does the same in fewer steps. An UpdateItem takes a third of its time with them.
"""

import copy
import functools
import pickle
from collections.abc import Iterator
from typing import Any

from moto.core import responses
from moto.core.serialize import AttributePicker, AttributePickerContext, XFormedAttributePicker
from moto.dynamodb.parsing import validators
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Node
from moto.dynamodb.parsing.expressions import UpdateExpressionParser


def install() -> None:
    """Replaces functions of moto for the rest of this process."""
    responses.method_names_from_class = functools.cache(responses.method_names_from_class)
    # Parsed twice by each UpdateItem. The tree is only read: validators work on a copy.
    UpdateExpressionParser.make = functools.cache(UpdateExpressionParser.make)
    validators.deepcopy = _copied
    DepthFirstTraverser.traverse = _traverse
    for picker in (AttributePicker, XFormedAttributePicker):
        picker.get_possible_keys = _PossibleKeys(picker.get_possible_keys)


# ------------------------------------------------------------------------------------------------ update expressions


def _copied(value: Any) -> Any:
    """Copies a tree with pickle, which is written in C and needs to read the tree only once."""
    return pickle.loads(_pickled(value)) if isinstance(value, Node) else copy.deepcopy(value)


@functools.cache
def _pickled(tree: Any) -> bytes:
    return pickle.dumps(tree)


@functools.cache
def _is_one_of(kind: Any, kinds: Any) -> bool:
    # The classes of nodes are abstract base classes, for which isinstance() is slow.
    return issubclass(kind, kinds)


def _traverse(traverser: DepthFirstTraverser, root: Node) -> Node:
    """Replaces nodes as `traverse_node_recursively` does, which asks anew at each node which ones to replace."""
    kinds = traverser.nodes_to_be_processed()

    def visit(node: Any, child_id: int) -> Any:
        kind: Any = type(node)
        if not _is_one_of(kind, (Node,)):
            return node
        parent = node.parent
        for number, child in enumerate(node.children or ()):
            traverser.pre_processing_of_child(node, number)
            visit(child, number)
        if _is_one_of(kind, kinds):
            node = traverser.process(node)
            node.parent = parent
            if parent:
                parent.children[child_id] = node
        return node

    return visit(root, -1)


# ------------------------------------------------------------------------------------------------ responses


class _PossibleKeys:
    """Remembers under which names a value of a response may be found: they depend on its class and its place only."""

    def __init__(self, compute: Any) -> None:
        self._compute = compute
        self._known: dict[Any, tuple[str, ...]] = {}

    def __get__(self, picker: Any, _: type) -> Any:
        return functools.partial(self._keys, picker)

    def _keys(self, picker: Any, context: AttributePickerContext) -> Iterator[str]:
        place = (context.key, context.shape, type(context.obj), *picker.alias_providers)
        if place not in self._known:
            self._known[place] = tuple(self._compute(picker, context))
        return iter(self._known[place])

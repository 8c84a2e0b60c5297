"""Makes moto faster, which takes most of the time of a local stack and of the tests. What it answers stays the same.

Each part is a cache, or does the same in fewer steps. An UpdateItem takes a third of its time with them. The caches do
not grow with the number of requests: expressions name their values by placeholders, so a stack has few different ones.
"""

import copy
import functools
import pickle
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from botocore import useragent
from moto.core import responses
from moto.core.serialize import AttributePicker, AttributePickerContext, ResponseSerializer, XFormedAttributePicker
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.parsing import validators
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Expression, Node, UpdateExpressionFunction
from moto.dynamodb.parsing.expressions import UpdateExpressionParser
from moto.sqs import models as sqs_models

# The functions of moto that this module reimplements, by name.
ORIGINALS: dict[str, Any] = {
    "make": UpdateExpressionParser.make,
    "traverse": DepthFirstTraverser.traverse,
    "find_clauses": Node.find_clauses,
    "_serialize_type_structure": ResponseSerializer._serialize_type_structure,
    "_lex_condition_expression": ConditionExpressionParser._lex_condition_expression,
    "__deepcopy__": DynamoType.__deepcopy__,
}


@functools.cache
def install() -> None:
    """Replaces functions of moto for the rest of this process; a second call does nothing."""
    responses.method_names_from_class = functools.cache(responses.method_names_from_class)
    for module in (responses, sqs_models):
        module.camelcase_to_underscores = functools.cache(module.camelcase_to_underscores)
    # Each request names the same libraries and versions.
    useragent.sanitize_user_agent_string_component = functools.cache(useragent.sanitize_user_agent_string_component)
    # Parsed twice by each UpdateItem. The tree is only read: validators work on a copy.
    UpdateExpressionParser.make = _parse
    ConditionExpressionParser._lex_condition_expression = _lex
    DynamoType.__deepcopy__ = _copied_value
    validators.deepcopy = _copied
    DepthFirstTraverser.traverse = _traverse
    Node.find_clauses = _find_clauses
    ResponseSerializer._serialize_type_structure = _serialize_structure
    for picker in (AttributePicker, XFormedAttributePicker):
        picker.get_possible_keys = _PossibleKeys(picker.get_possible_keys)


# ------------------------------------------------------------------------------------------------ update expressions


_parsed: set[Node] = set()


@functools.cache
def _parse(expression: str) -> Node:
    tree: Node = ORIGINALS["make"](expression)
    _parsed.add(tree)
    return tree


def _copied(value: Any) -> Any:
    """Copies a tree with pickle, which is written in C and needs to read the tree, moto's own, only once."""
    return pickle.loads(_pickled(value)) if isinstance(value, Node) else copy.deepcopy(value)  # nosec B301


@functools.cache
def _pickled(tree: Any) -> bytes:
    return pickle.dumps(tree)


# The classes of nodes are abstract base classes, for which isinstance() is slow.
_is_subclass: Any = functools.cache(issubclass)


def _traverse(traverser: DepthFirstTraverser, root: Node) -> Node:
    """Replaces nodes as `traverse_node_recursively` does, which decides again at each node which ones to replace."""
    processors = traverser._processing_map()
    prepare = traverser.pre_processing_of_child
    if prepare.__func__ is DepthFirstTraverser.pre_processing_of_child:  # which does nothing
        prepare = None
    # The processor of each class of nodes, None for those that stay. What is no node is left out.
    known: dict[type, Any] = {}

    def visit(node: Any, child_id: int) -> Any:
        kind = type(node)
        if kind not in known:
            if not _is_subclass(kind, Node):
                return node
            known[kind] = next((processors[each] for each in processors if _is_subclass(kind, each)), None)
        parent = node.parent
        for number, child in enumerate(node.children or ()):
            if prepare:
                prepare(node, number)
            visit(child, number)
        if process := known[kind]:
            node = process(node)
            node.parent = parent
            if parent:
                parent.children[child_id] = node
        return node

    return visit(root, -1)


def _find_clauses(node: Node, kinds: Iterable[type]) -> list[Node]:
    """Returns the nodes of these classes, without looking into them, as `Node.find_clauses` does."""
    # What was parsed is only read.
    return list(_known_clauses(node, tuple(kinds))) if node in _parsed else _clauses(node, tuple(kinds))


@functools.cache
def _known_clauses(node: Node, kinds: tuple[type, ...]) -> list[Node]:
    return _clauses(node, kinds)


def _clauses(node: Node, kinds: tuple[type, ...]) -> list[Node]:
    found = []
    for child in node.children or ():
        kind = type(child)
        if kind in kinds:
            found.append(child)
        elif _is_subclass(kind, Expression) or _is_subclass(kind, UpdateExpressionFunction):
            found += _clauses(child, kinds)
    return found


# ------------------------------------------------------------------------------------------------ items and conditions


def _lex(parser: ConditionExpressionParser) -> deque[Any]:
    return deque(_tokens(parser.condition_expression))


@functools.cache
def _tokens(expression: str) -> tuple[Any, ...]:
    """Returns the tokens of a condition. Each UpdateItem parses it twice, and they depend on its text only."""
    return tuple(ORIGINALS["_lex_condition_expression"](ConditionExpressionParser(expression, None, None)))


def _copied_value(value: DynamoType, _: Any = None) -> DynamoType:
    """Copies a value as `DynamoType.__deepcopy__` does, which looks up each part in a table of what was copied."""
    copied = DynamoType.__new__(DynamoType)
    copied.type = value.type
    if value.type == "L":
        copied.value = [_copied_part(each) for each in value.value]
    elif value.type == "M":
        copied.value = {name: _copied_part(each) for name, each in value.value.items()}
    else:
        copied.value = list(value.value) if value.is_set() else value.value
    return copied


def _copied_part(part: Any) -> Any:
    return _copied_value(part) if type(part) is DynamoType else copy.deepcopy(part)


# ------------------------------------------------------------------------------------------------ responses


def _serialize_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    """Serializes what a value of DynamoDB has: one of ten members. moto looks for each of them under two names."""
    if shape.name == "AttributeValue" and key and type(value) is dict and value.keys() <= shape.members.keys():
        wrapper = serializer.MAP_TYPE()
        for name, each in value.items():
            member = shape.members[name]
            member.parent = shape
            if each is not None:
                serializer._serialize(wrapper, each, member, name)
        serializer._default_serialize(serialized, wrapper, shape, key)
    else:
        ORIGINALS["_serialize_type_structure"](serializer, serialized, value, shape, key)


class _PossibleKeys:
    """Remembers under which names a value of a response may be found: they depend on its class and its place only."""

    def __init__(self, compute: Any) -> None:
        self.compute = compute
        self._known: dict[Any, tuple[str, ...]] = {}

    def __get__(self, picker: Any, _: type) -> Any:
        return functools.partial(self._keys, picker)

    def _keys(self, picker: Any, context: AttributePickerContext) -> Iterator[str]:
        place = (context.key, context.shape, type(context.obj), *picker.alias_providers)
        if place not in self._known:
            self._known[place] = tuple(self.compute(picker, context))
        return iter(self._known[place])

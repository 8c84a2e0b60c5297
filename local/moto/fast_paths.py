"""Replaces slow functions of moto, which needs most of the CPU time of a local stack and of the tests.

Each replacement returns the same as moto's function, from a cache or in fewer steps. With all of them, an UpdateItem
takes a third of the time. The caches do not grow with the number of requests: expressions have placeholders for their
values, so a stack has few different expressions.
"""

import copy
import functools
import pickle
from collections import deque
from collections.abc import Collection
from typing import Any

from botocore import useragent
from moto.core import responses
from moto.core.serialize import ResponseSerializer
from moto.dynamodb.comparisons import ConditionExpressionParser
from moto.dynamodb.parsing import validators
from moto.dynamodb.parsing.ast_nodes import DepthFirstTraverser, Expression, Node, UpdateExpressionFunction
from moto.dynamodb.parsing.expressions import UpdateExpressionParser
from moto.sqs import models as sqs_models

# The functions of moto that this module implements again, by name.
ORIGINALS: dict[str, Any] = {
    "make": UpdateExpressionParser.make,
    "traverse": DepthFirstTraverser.traverse,
    "find_clauses": Node.find_clauses,
    "_serialize_type_structure": ResponseSerializer._serialize_type_structure,
    "_lex_condition_expression": ConditionExpressionParser._lex_condition_expression,
}


@functools.cache
def install() -> None:
    """Replaces functions of moto for the rest of this process; a second call does nothing."""
    responses.method_names_from_class = functools.cache(responses.method_names_from_class)
    for module in (responses, sqs_models):
        module.camelcase_to_underscores = functools.cache(module.camelcase_to_underscores)
    # The user agent of each request has the same names and versions of libraries.
    useragent.sanitize_user_agent_string_component = functools.cache(useragent.sanitize_user_agent_string_component)
    # Each UpdateItem parses its expression twice. The cached tree is never changed: validators change a copy.
    UpdateExpressionParser.make = functools.cache(ORIGINALS["make"])
    ConditionExpressionParser._lex_condition_expression = _lex
    validators.deepcopy = _copied
    DepthFirstTraverser.traverse = _traverse
    Node.find_clauses = _find_clauses
    ResponseSerializer._serialize_type_structure = _serialize_structure


# ------------------------------------------------------------------------------------------------ update expressions


def _copied(value: Any) -> Any:
    """Copies a syntax tree, which moto itself made, with pickle: it is written in C, and each tree is pickled once."""
    return pickle.loads(_pickled(value)) if isinstance(value, Node) else copy.deepcopy(value)  # nosec B301


@functools.cache
def _pickled(tree: Any) -> bytes:
    return pickle.dumps(tree)


# The classes of nodes are abstract base classes, for which isinstance() is slow.
_is_subclass: Any = functools.cache(issubclass)


def _traverse(traverser: DepthFirstTraverser, root: Node) -> Node:
    """Replaces nodes as moto's `traverse_node_recursively` does, but selects the function once per class of nodes."""
    processors = traverser._processing_map()
    prepare = traverser.pre_processing_of_child
    if prepare.__func__ is DepthFirstTraverser.pre_processing_of_child:  # it does nothing
        prepare = None
    # The function that replaces nodes of a class; None for classes whose nodes stay. Other classes than those of nodes
    # are not included.
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


def _find_clauses(node: Node, kinds: Collection[type]) -> list[Node]:
    """Returns the nodes of these classes as `Node.find_clauses` does, without the nodes inside of them."""
    found = []
    for child in node.children or ():
        kind = type(child)
        if kind in kinds:
            found.append(child)
        elif _is_subclass(kind, Expression) or _is_subclass(kind, UpdateExpressionFunction):
            found += _find_clauses(child, kinds)
    return found


# ------------------------------------------------------------------------------------------------ conditions


def _lex(parser: ConditionExpressionParser) -> deque[Any]:
    return deque(_tokens(parser.condition_expression))


@functools.cache
def _tokens(expression: str) -> tuple[Any, ...]:
    """Returns the tokens of a condition, which depend on its text only. Each UpdateItem parses its condition twice."""
    return tuple(ORIGINALS["_lex_condition_expression"](ConditionExpressionParser(expression, None, None)))


# ------------------------------------------------------------------------------------------------ responses


def _serialize_structure(serializer: Any, serialized: Any, value: Any, shape: Any, key: str) -> None:
    """Serializes only the member that a DynamoDB value has. moto looks for all ten members, each under two names."""
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

"""Parses CloudFormation's YAML: `!Ref` and the other short forms become the functions' full names."""

from typing import Any

import yaml


class _TemplateLoader(yaml.CSafeLoader):
    """Parses dates as text, as CloudFormation does: `2012-10-17` is the version of a policy.

    SAM's own yaml_parse() is implemented in Python and takes ten times as long.
    """


def _construct_function(loader: _TemplateLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        if name == "GetAtt":
            value = value.split(".", 1)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)  # type: ignore[arg-type] # the third kind of node
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


def _construct_text(loader: _TemplateLoader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


_TemplateLoader.add_constructor("tag:yaml.org,2002:timestamp", _construct_text)
_TemplateLoader.add_multi_constructor("!", _construct_function)


def read_template(text: str) -> dict[str, Any]:
    """Returns the content of a template in YAML, unexpanded.

    Raises:
        yaml.YAMLError: the text is not YAML.
    """
    content: dict[str, Any] = yaml.load(text, _TemplateLoader)  # nosec B506 - a safe loader
    return content

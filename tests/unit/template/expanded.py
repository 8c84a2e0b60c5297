"""Provides the template as written, and as CloudFormation receives it."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from catchlight import settings
from local.template.expand import load_template
from local.template.intrinsic_functions import Resolver
from tests.project_template import project_template

REPOSITORY = Path(__file__).parents[3]
EXPANDED = project_template()
RESOURCES = EXPANDED.resources


class _RawLoader(yaml.CSafeLoader):
    """Reads the template without resolving short forms."""


_RawLoader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")
RAW: dict[str, Any] = yaml.load((REPOSITORY / "template.yaml").read_text(), _RawLoader)


def of_type(type_name: str) -> dict[str, dict[str, Any]]:
    """Returns the properties of all resources of a type, by logical id."""
    found = {name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == type_name}
    assert found
    return found


WEBHOOKS = {"WebhookUrl": "https://hooks.example.com/catchlight"}


@cache
def resolver_with(**parameters: str) -> Resolver:
    """Returns a resolver of the template expanded with these values; with webhooks, unless the values disable them.

    A Ref is the logical id, an attribute `ID.NAME`.
    """
    template = load_template(REPOSITORY / "template.yaml", WEBHOOKS | parameters)
    return Resolver(template, str, lambda name, attribute: f"{name}.{attribute}")


@cache
def deployed(**parameters: str) -> dict[str, dict[str, Any]]:
    """Returns the properties of all resources with these parameter values."""
    resolver = resolver_with(**parameters)
    return {
        name: resolver.resolve(resource.get("Properties", {}))
        for name, resource in resolver.template.resources.items()
        if "Condition" not in resource or resolver.condition(resource["Condition"])
    }


def referred(value: Any) -> str:
    """Returns the logical id that a Ref or GetAtt names."""
    (target,) = value.values()
    return str(target[0] if isinstance(target, list) else target)


def as_list(value: Any) -> list[Any]:
    """Returns a value that may be single or a list, as a list."""
    return value if isinstance(value, list) else [value]


FUNCTIONS = of_type("AWS::Lambda::Function")
SETTINGS: dict[str, type[settings.Settings]] = {
    name: getattr(settings, f"{name.removesuffix('Function')}Settings") for name in FUNCTIONS
}
EVENT_SOURCES = of_type("AWS::Lambda::EventSourceMapping")
STREAM_SOURCES = {name: source for name, source in EVENT_SOURCES.items() if "StartingPosition" in source}
QUEUE_SOURCES = {name: source for name, source in EVENT_SOURCES.items() if "StartingPosition" not in source}
QUEUES = of_type("AWS::SQS::Queue")
STATE_MACHINES = of_type("AWS::StepFunctions::StateMachine")


def definition(state_machine: str) -> dict[str, Any]:
    """Returns a state machine's definition in Amazon States Language."""
    location = STATE_MACHINES[state_machine]["DefinitionS3Location"]
    found: dict[str, Any] = yaml.safe_load(EXPANDED.path_of(location).read_text())
    return found

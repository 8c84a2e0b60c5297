"""Creates the resources of an expanded template, each one before the resources that refer to it.

Raises UnsupportedError for a resource type or property that local/template/resource_types.py does not define.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import LocalStackError, UnsupportedError
from local.account import STACK_NAME, local_arn
from local.events.queue import QueueMapping
from local.events.schedule import Schedule
from local.events.stream import StreamMapping
from local.http.api import Route, Stage
from local.lambda_.configuration import FunctionConfiguration
from local.template.expand import Template
from local.template.intrinsic_functions import Resolver

# The file that defines all resource types and properties, including those that have no effect on one machine.
_RESOURCE_TYPES = "local/template/resource_types.py"
# These properties describe a resource of any type to people.
_WITHOUT_EFFECT = {"Description", "Tags"}


class Properties:
    """Holds a resource's resolved properties, each of which the code that creates the resource takes once.

    `check_all_taken` raises UnsupportedError for the remaining ones: they would have no effect here.
    """

    def __init__(self, logical_id: str, type_name: str, values: dict[str, Any]) -> None:
        self.logical_id = logical_id
        self._type = type_name
        self._values = dict(values)

    def take(self, name: str, default: Any = None) -> Any:
        return self._values.pop(name, default)

    def take_given(self, *names: str) -> dict[str, Any]:
        """Takes those of the properties that the resource has."""
        return {name: value for name in names if (value := self.take(name)) is not None}

    def take_group(self, name: str, *members: str) -> dict[str, Any]:
        """Takes a property that is an object. Raises UnsupportedError for members other than these."""
        group: dict[str, Any] = self.take(name) or {}
        if unknown := set(group) - set(members):
            self._refuse(", ".join(f"{name}.{member}" for member in sorted(unknown)))
        return group

    def check_all_taken(self) -> None:
        if self._values:
            self._refuse(", ".join(sorted(self._values)))

    def _refuse(self, names: str) -> None:
        raise UnsupportedError(f"{self.logical_id} ({self._type}): {names}", _RESOURCE_TYPES)


@dataclass(frozen=True)
class Resource:
    """The values of Ref and GetAtt for a resource."""

    ref: str
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass
class DeployedApi:
    """An HTTP API: its URL, its routes and the settings of its stage."""

    url: str
    routes: list[Route] = field(default_factory=list)
    stage: Stage = field(default_factory=Stage)


@dataclass
class Deployment:
    """A deployed template: `resources` by logical id, and the settings of everything that moto does not run.

    `client(service)` returns a boto3 client, `api_url(logical id)` the URL at which the stack will serve an HTTP API.
    `overrides` replaces properties: {logical id: {property: value}}.
    """

    template: Template
    types: "Mapping[str, ResourceType]"
    client: Callable[[str], Any]
    api_url: Callable[[str], str]
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    functions: dict[str, FunctionConfiguration] = field(default_factory=dict)
    stream_mappings: list[tuple[str, StreamMapping]] = field(default_factory=list)
    queue_mappings: list[tuple[str, QueueMapping]] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)
    apis: dict[str, DeployedApi] = field(default_factory=dict)
    layers: dict[str, Path] = field(default_factory=dict)
    _in_progress: list[str] = field(default_factory=list)

    def deploy(self) -> None:
        """Creates every resource, after the resources that it refers to.

        Raises LocalStackError for features that cannot run locally.
        """
        self.resolver = Resolver(self.template, lambda name: self._resource(name).ref, self._attribute)
        for logical_id, resource in self.template.resources.items():
            if "Condition" not in resource or self.resolver.condition(resource["Condition"]):
                self._resource(logical_id)

    def queue_url(self, arn: str) -> str:
        return next(resource.ref for resource in self.resources.values() if resource.attributes.get("Arn") == arn)

    def _resource(self, logical_id: str) -> Resource:
        """Returns a resource, after creating it if it does not exist yet."""
        if logical_id in self.resources:
            return self.resources[logical_id]
        if logical_id not in self.template.resources:
            raise LocalStackError(f"The template refers to {logical_id}, which is neither parameter nor resource.")
        if logical_id in self._in_progress:
            raise LocalStackError(f"Circular dependency between resources: {' -> '.join(self._in_progress)}.")
        self._in_progress.append(logical_id)
        self.resources[logical_id] = self._make(logical_id, self.template.resources[logical_id])
        self._in_progress.pop()
        return self.resources[logical_id]

    def _make(self, logical_id: str, resource: dict[str, Any]) -> Resource:
        type_name = resource["Type"]
        if type_name not in self.types:
            raise UnsupportedError(f"{logical_id}: resource type {type_name}", _RESOURCE_TYPES)
        resource_type = self.types[type_name]
        if resource_type.make is None:
            name = f"{STACK_NAME}-{logical_id}"
            return Resource(name, {"Arn": local_arn(type_name.split("::")[1].lower(), name)})
        given = resource.get("Properties", {}) | self.overrides.get(logical_id, {})
        ignored = resource_type.without_effect.keys() | _WITHOUT_EFFECT
        values = {name: value for name, value in given.items() if name not in ignored}
        properties = Properties(logical_id, type_name, self.resolver.resolve(values))
        made = resource_type.make(self, properties)
        properties.check_all_taken()
        return made

    def _attribute(self, logical_id: str, name: str) -> str:
        attributes = self._resource(logical_id).attributes
        if name not in attributes:
            raise LocalStackError(
                f"{logical_id}.{name} is not supported by the local stack, which supports {sorted(attributes)}."
            )
        return attributes[name]


@dataclass(frozen=True)
class ResourceType:
    """Defines how a resource type is created.

    If `make` is None, resources of the type are not created, and `why` states why they are not needed on one machine.
    `without_effect` has the properties that have no effect on one machine, with the reason where it is not obvious. The
    description and the tags of any resource have none either.
    """

    make: Callable[[Deployment, Properties], Resource] | None
    why: str = ""
    without_effect: Mapping[str, str] = field(default_factory=dict)

"""Reads the resources of a deployed template, with all references resolved to names and ARNs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from local import LocalStackError
from local.permissions.required import function_arn
from local.template.deployment import Deployment

# The property that holds each type's role, and the service that must be allowed to assume it.
_ROLE_PROPERTIES = {
    "AWS::Lambda::Function": (("Role",), "lambda.amazonaws.com"),
    "AWS::StepFunctions::StateMachine": (("RoleArn",), "states.amazonaws.com"),
    "AWS::Scheduler::Schedule": (("Target", "RoleArn"), "scheduler.amazonaws.com"),
}


@dataclass(frozen=True, slots=True)
class Actor:
    """A resource that calls AWS with a role of the template."""

    logical_id: str
    service: str  # the service that assumes the role
    role: str  # the role's logical id


class DeployedResources:
    """Gives access to the resources of one deployment and their properties."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def of_type(self, type_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields logical ids and properties of the deployed resources of a type."""
        for logical_id, resource in self._deployment.template.resources.items():
            if resource["Type"] == type_name and logical_id in self._deployment.resources:
                yield logical_id, self._deployment.resolver.resolve(resource.get("Properties", {}))

    def actors(self) -> Iterator[Actor]:
        """Yields every function, state machine and schedule with its role."""
        roles = {self.attribute(role, "Arn"): role for role, _ in self.of_type("AWS::IAM::Role")}
        for type_name, (path, service) in _ROLE_PROPERTIES.items():
            for logical_id, properties in self.of_type(type_name):
                arn: Any = properties
                for name in path:
                    arn = arn[name]
                if arn not in roles:
                    raise LocalStackError(
                        f"{logical_id}: the template does not define the role {arn}. Define it there: the local stack "
                        "cannot read the permissions of other roles."
                    )
                yield Actor(logical_id, service, roles[arn])

    def attribute(self, logical_id: str, name: str) -> str:
        """Returns the value of GetAtt for a resource."""
        return self._deployment.resources[logical_id].attributes[name]

    def function_of(self, name_or_arn: str) -> str:
        """Returns the logical id of a function, by its name or by the ARN of the function, an alias or a version."""
        arn = ":".join(function_arn(name_or_arn).split(":")[:7])
        return next(
            logical_id
            for logical_id, _ in self.of_type("AWS::Lambda::Function")
            if self.attribute(logical_id, "Arn") == arn
        )

"""moto's CloudFormation with what a deployment's rehearsal needs: SAM's transform, and change sets that tell the truth.

moto has no transform, compares templates as text, and fails on resources that it does not know. Here a change set says
which resources the expanded template adds, modifies and removes, with all parameters filled in. Executed it makes no
resource: that is the local stack's part, and in the end AWS's.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Change, ChangeSet, CloudFormationBackend
from moto.cloudformation.responses import CloudFormationResponse
from moto.s3.models import s3_backends

from local import LocalStackError
from local.intrinsic_functions import Resolver
from local.template import load_template

NO_CHANGES = "The submitted information didn't contain changes. Submit different information to create a change set."
Resources = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class RehearsedChange:
    """What a change set does to one resource; `properties` are the names of those that a modification changes."""

    action: str  # Add, Modify or Remove
    logical_id: str
    type_name: str
    properties: tuple[str, ...] = ()


@dataclass
class Rehearsal:
    """What was deployed, by stack name: resources with everything filled in, parameters, changes of the last time."""

    resources: dict[str, Resources] = field(default_factory=dict)
    parameters: dict[str, dict[str, str]] = field(default_factory=dict)
    changes: dict[str, list[RehearsedChange]] = field(default_factory=dict)

    def changes_of(self, change_set: ChangeSet) -> list[RehearsedChange]:
        """What a change set does, which becomes the stack's last changes.

        Raises:
            ValidationError: CloudFormation, too, would refuse the template or a parameter.
        """
        new, parameters = _expanded(change_set.template, change_set.parameters)
        old = self.resources.get(change_set.stack_name, {})
        changes = self.changes[change_set.stack_name] = list(_changes(old, new))
        change_set.rehearsed = new, parameters
        return changes

    def execute(self, change_set: ChangeSet) -> None:
        """Takes a change set's resources for deployed."""
        resources, parameters = change_set.rehearsed
        self.resources[change_set.stack_name] = resources
        self.parameters[change_set.stack_name] = parameters
        # What "use the previous value" means next time.
        change_set.stack.resource_map.resolved_parameters = parameters


@contextmanager
def rehearsed_cloudformation() -> Iterator[Rehearsal]:
    """Within it moto's CloudFormation rehearses stacks instead of making them."""
    rehearsal = Rehearsal()
    create = CloudFormationBackend.create_change_set

    def create_change_set(backend: CloudFormationBackend, *args: Any, **kwargs: Any) -> tuple[str, str]:
        change_set_id, stack_id = create(backend, *args, **kwargs)
        change_set = backend.change_sets[change_set_id]
        if change_set.changes:
            change_set.status, change_set.execution_status = "CREATE_COMPLETE", "AVAILABLE"
        else:
            change_set.status, change_set.execution_status = "FAILED", "UNAVAILABLE"
            change_set.status_reason = NO_CHANGES
        return change_set_id, stack_id

    def diff(change_set: ChangeSet) -> list[Change]:
        return [Change(c.action, c.logical_id, c.type_name) for c in rehearsal.changes_of(change_set)]

    def apply(change_set: ChangeSet) -> None:
        rehearsal.execute(change_set)

    with (
        mock.patch.object(CloudFormationBackend, "create_change_set", create_change_set),
        mock.patch.object(ChangeSet, "diff", diff),
        mock.patch.object(ChangeSet, "apply", apply),
        mock.patch.object(CloudFormationResponse, "_get_stack_from_s3_url", _template_from_s3),
    ):
        yield rehearsal


def _template_from_s3(response: CloudFormationResponse, url: str) -> str:
    # moto takes the loopback address for a bucket's name.
    bucket, _, key = urlsplit(url).path.lstrip("/").partition("/")
    backend = s3_backends[response.current_account][response.partition]
    text: str = backend.get_object(bucket, key).value.decode()
    return text


def _expanded(template: str, parameters: dict[str, str]) -> tuple[Resources, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.yaml"
        path.write_text(template)
        try:
            expanded = load_template(path, parameters)
        except LocalStackError as exc:
            raise ValidationError(message=str(exc)) from exc
    resolver = Resolver(expanded, str, lambda name, attribute: f"{name}.{attribute}")
    resources = {
        name: {"Type": resource["Type"], "Properties": resolver.resolve(resource.get("Properties", {}))}
        for name, resource in expanded.resources.items()
        if "Condition" not in resource or resolver.condition(resource["Condition"])
    }
    return resources, dict(expanded.parameters)


def _changes(old: Resources, new: Resources) -> Iterator[RehearsedChange]:
    for name in old.keys() - new.keys():
        yield RehearsedChange("Remove", name, old[name]["Type"])
    for name, resource in new.items():
        if name not in old:
            yield RehearsedChange("Add", name, resource["Type"])
            continue
        before, after = old[name]["Properties"], resource["Properties"]
        if changed := tuple(sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))):
            yield RehearsedChange("Modify", name, resource["Type"], changed)

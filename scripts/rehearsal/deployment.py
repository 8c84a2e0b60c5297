"""Deploys an artefact with the real `sam deploy`, and reads the deployed state from the AWS APIs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local import REPOSITORY
from local.account import REGION, STACK_NAME
from local.artefact import Artefact, run_sam
from local.template.parse import read_template
from scripts.rehearsal import RehearsalError
from scripts.rehearsal.emulator import MiniStack
from scripts.rehearsal.ministack_gaps import make_routes, rehearsed_template

# By logical id: the physical id, and other properties that show whether a resource has changed.
State = dict[str, dict[str, Any]]


@dataclass
class Deployment:
    """The stack in MiniStack: deploys and deletes it, and reads its resources, outputs and state."""

    ministack: MiniStack
    folder: Path
    without_grant: str | None = None

    def deploy(self, artefact: Artefact, **parameters: str) -> None:
        """Runs `sam deploy` with samconfig.toml. The values of other parameters are not changed.

        Raises:
            LocalStackError: the deployment failed; the message contains SAM's output.
        """
        template = rehearsed_template(read_template(artefact.template.read_text()), artefact.folder, self.folder)
        if self.without_grant:
            remove_grant(template, self.without_grant)
        copy = self.folder / "template.json"
        copy.write_text(json.dumps(template, indent=1))
        arguments = ["deploy", "--template-file", str(copy), "--no-confirm-changeset", "--no-progressbar"]
        arguments += ["--config-file", str(REPOSITORY / "samconfig.toml")]
        if parameters:
            arguments += ["--parameter-overrides", *(f"{name}={value}" for name, value in parameters.items())]
        run_sam(arguments, self.ministack.root_settings)
        make_routes(self.ministack, copy, self.resources())

    def delete(self) -> None:
        """Runs `sam delete` for the stack that samconfig.toml names."""
        arguments = ["delete", "--stack-name", STACK_NAME, "--region", REGION, "--no-prompts"]
        run_sam(arguments, self.ministack.root_settings)

    def resources(self) -> dict[str, str]:
        """Returns the physical ids of all resources by logical id."""
        pages = self.ministack.client("cloudformation").get_paginator("list_stack_resources")
        return {
            resource["LogicalResourceId"]: resource["PhysicalResourceId"]
            for page in pages.paginate(StackName=STACK_NAME)
            for resource in page["StackResourceSummaries"]
        }

    def outputs(self) -> dict[str, str]:
        """Returns the stack's outputs by name."""
        (stack,) = self.ministack.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def state(self) -> State:
        """Returns the deployed state: parameters, resources, the functions' code and configuration, the aliases."""
        client = self.ministack.client("lambda")
        (stack,) = self.ministack.client("cloudformation").describe_stacks(StackName=STACK_NAME)["Stacks"]
        parameters = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
        state: State = {"Parameters": parameters}
        for name, physical_id in self.resources().items():
            state[name] = {"PhysicalId": physical_id}
            if name.endswith("Function"):
                configuration = client.get_function_configuration(FunctionName=physical_id)
                keys = ("CodeSha256", "Environment", "Timeout", "MemorySize", "Role")
                state[name] |= {key: configuration.get(key) for key in keys}
                state[name]["Layers"] = [layer["Arn"] for layer in configuration["Layers"]]
                # Without OptimizationStatus, which depends on invocations and not on deployments.
                state[name]["SnapStart"] = (configuration.get("SnapStart") or {}).get("ApplyOn")
            elif name.endswith("Aliaslive"):
                function, alias = physical_id.rsplit(":", 1)
                state[name]["Version"] = client.get_alias(FunctionName=function, Name=alias)["FunctionVersion"]
        return state


def remove_grant(template: dict[str, Any], sid: str) -> None:
    """Removes the IAM statements with this Sid from all policies, after which the rehearsal must fail.

    Raises:
        RehearsalError: no statement has this Sid; the message lists all Sids.
    """
    seen = []
    for resource in template["Resources"].values():
        for policy in resource.get("Properties", {}).get("Policies", []):
            seen += [statement.get("Sid") for statement in policy["Statement"]]
            policy["Statement"] = [each for each in policy["Statement"] if each.get("Sid") != sid]
    if sid not in seen:
        known = ", ".join(each for each in seen if each)
        raise RehearsalError(f"The template has no statement with the Sid {sid}. It has: {known}.")


def changes(before: State, after: State) -> dict[str, set[str]]:
    """Returns the changed properties by logical id; {"added"} or {"removed"} for a resource in only one state."""
    found = {name: {"removed"} for name in before.keys() - after.keys()}
    found |= {name: {"added"} for name in after.keys() - before.keys()}
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        if differ := {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}:
            found[name] = differ
    return found

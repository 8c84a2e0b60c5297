"""Reads a SAM template, expands it as CloudFormation does, and resolves what in it refers to something else."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from samtranslator.translator.managed_policy_translator import ManagedPolicyLoader
from samtranslator.translator.transform import transform

from local import LocalStackError

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
STACK_NAME = "catchlight"

# What samtranslator puts in place of a local folder: the bucket stands for the template's own folder.
_FOLDER_BUCKET = "template-folder"
_FOLDER_PROPERTIES = ("CodeUri", "ContentUri", "DefinitionUri")

_SECTIONS = {
    *("AWSTemplateFormatVersion", "Transform", "Description", "Metadata", "Globals"),
    *("Parameters", "Conditions", "Resources", "Outputs"),
}

PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK_NAME,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT_ID}:stack/{STACK_NAME}/local",
    "AWS::URLSuffix": "amazonaws.com",
}

# {"Ref": "AWS::NoValue"} takes away the property it stands for.
_NO_VALUE = object()


@dataclass(frozen=True)
class Template:
    """An expanded template: only plain CloudFormation resources, and a value for each parameter."""

    folder: Path
    resources: dict[str, dict[str, Any]]
    conditions: dict[str, Any]
    parameters: dict[str, str]

    def path_of(self, location: Mapping[str, str]) -> Path:
        """The local folder or file that a Code, Content or DefinitionS3Location property stands for."""
        bucket = location.get("S3Bucket") or location.get("Bucket")
        key = location.get("S3Key") or location.get("Key")
        if bucket != _FOLDER_BUCKET or not key:
            raise LocalStackError(f"Only code in folders beside the template runs locally, not {dict(location)}.")
        path = self.folder / key
        if not path.exists():
            raise LocalStackError(f"The template names {key}, but {path} does not exist.")
        return path


class _TemplateLoader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms (!Ref, !Sub, ...); dates stay the strings they are in AWS."""


_TemplateLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _short_form(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    if name == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


_TemplateLoader.add_multi_constructor("!", _short_form)


class _NoManagedPolicies(ManagedPolicyLoader):  # type: ignore[misc]
    """samtranslator asks IAM for the names of managed policies; locally policies have no effect."""

    def __init__(self) -> None:
        pass

    def load(self) -> dict[str, str]:
        return {}


def load_template(path: Path, parameters: Mapping[str, str], unchecked: Mapping[str, str] | None = None) -> Template:
    """The template expanded with these parameter values and the defaults of the others.

    `unchecked` are values that skip the parameter's AllowedPattern: a simulator has no https.
    Raises LocalStackError for whatever cannot be run as it is in AWS.
    """
    try:
        raw = yaml.load(path.read_text(), _TemplateLoader)
    except (OSError, yaml.YAMLError) as exc:
        raise LocalStackError(f"The template cannot be read: {exc}") from exc
    if unknown := set(raw) - _SECTIONS:
        raise LocalStackError(
            f"Template sections {sorted(unknown)} are unknown to the local stack: teach local/template.py."
        )
    if raw.get("Transform") not in (None, "AWS::Serverless-2016-10-31"):
        raise _unknown(f"Transform {raw['Transform']}")

    values = _parameter_values(raw.get("Parameters", {}), parameters, unchecked or {})
    for resource in raw["Resources"].values():
        properties = resource.get("Properties", {})
        for name in _FOLDER_PROPERTIES:
            if isinstance(properties.get(name), str):
                # samtranslator takes nothing but s3:// here: `sam package` uploads the folders first.
                properties[name] = f"s3://{_FOLDER_BUCKET}/{properties[name]}"
    # samtranslator asks boto3 for the region; the one of whoever runs this must not leak in.
    with mock.patch.dict(os.environ, {"AWS_DEFAULT_REGION": REGION}):
        try:
            expanded = transform(raw, dict(values), _NoManagedPolicies())
        except Exception as exc:
            raise LocalStackError(f"SAM cannot expand {path.name}: {getattr(exc, 'message', exc)}") from exc
    return Template(path.parent, expanded["Resources"], expanded.get("Conditions", {}), values)


def _unknown(what: str) -> LocalStackError:
    return LocalStackError(f"{what} is unknown to the local stack: teach local/template.py.")


def _parameter_values(
    declared: Mapping[str, dict[str, Any]], given: Mapping[str, str], unchecked: Mapping[str, str]
) -> dict[str, str]:
    if unknown := (set(given) | set(unchecked)) - set(declared):
        raise LocalStackError(f"The template has no parameter {sorted(unknown)}; it has {sorted(declared)}.")
    values = {}
    for name, declaration in declared.items():
        if declaration["Type"] not in ("String", "Number"):
            raise _unknown(f"Parameter {name}: type {declaration['Type']}")
        value = unchecked.get(name, given.get(name, declaration.get("Default")))
        if value is None:
            raise LocalStackError(f"Parameter {name} has no default: give it with --parameter {name}=VALUE.")
        if name not in unchecked:
            _check_parameter(name, str(value), declaration)
        values[name] = str(value)
    return values


def _check_parameter(name: str, value: str, declaration: Mapping[str, Any]) -> None:
    constraint = None
    if "AllowedPattern" in declaration and not re.fullmatch(declaration["AllowedPattern"], value):
        constraint = declaration.get("ConstraintDescription") or declaration["AllowedPattern"]
    elif "AllowedValues" in declaration and value not in map(str, declaration["AllowedValues"]):
        constraint = f"one of {declaration['AllowedValues']}"
    elif declaration["Type"] == "Number":
        lowest, highest = declaration.get("MinValue", "-inf"), declaration.get("MaxValue", "inf")
        try:
            in_bounds = float(lowest) <= float(value) <= float(highest)
        except ValueError:
            in_bounds = False
        if not in_bounds:
            constraint = f"a number from {lowest} to {highest}"
    if constraint:
        raise LocalStackError(f"Parameter {name}: {value!r} is not {constraint}.")


@dataclass(frozen=True)
class Resolver:
    """Replaces intrinsic functions by what they stand for; an unknown one is an error, never left in place."""

    template: Template
    ref: Callable[[str], str]
    get_att: Callable[[str, str], str]

    def resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            if name == "Ref":
                return self._ref(argument)
            if name.startswith("Fn::"):
                return self._function(name, argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not _NO_VALUE}

    def condition(self, name: str) -> bool:
        """Whether the template's condition of this name holds."""
        if name not in self.template.conditions:
            raise LocalStackError(f"The template has no condition {name}.")
        return self._holds(self.template.conditions[name])

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        known = PSEUDO_PARAMETERS.get(name, self.template.parameters.get(name))
        return self.ref(name) if known is None else known

    def _function(self, name: str, argument: Any) -> Any:
        match name:
            case "Fn::GetAtt":
                return self.get_att(argument[0], argument[1])
            case "Fn::Sub":
                return self._sub(argument)
            case "Fn::Join":
                return argument[0].join(map(str, self.resolve(argument[1])))
            case "Fn::Select":
                return self.resolve(argument[1])[int(argument[0])]
            case "Fn::Split":
                return str(self.resolve(argument[1])).split(argument[0])
            case "Fn::If":
                return self.resolve(argument[1] if self.condition(argument[0]) else argument[2])
            case _:
                raise LocalStackError(
                    f"Intrinsic function {name} is unknown to the local stack: teach local/template.py."
                )

    def _sub(self, argument: Any) -> str:
        text, variables = argument if isinstance(argument, list) else (argument, {})

        def value_of(match: re.Match[str]) -> str:
            name = match.group(1).strip()
            if name.startswith("!"):  # ${!Literal} stays ${Literal}
                return f"${{{name[1:]}}}"
            if name in variables:
                return str(self.resolve(variables[name]))
            if "." in name:
                return self.get_att(*name.split(".", 1))
            return str(self._ref(name))

        return re.sub(r"\$\{([^}]*)\}", value_of, text)

    def _holds(self, condition: Any) -> bool:
        [(name, argument)] = condition.items()
        match name:
            case "Condition":
                return self.condition(argument)
            case "Fn::Equals":
                left, right = self.resolve(argument)
                return str(left) == str(right)
            case "Fn::Not":
                return not self._holds(argument[0])
            case "Fn::And":
                return all(self._holds(item) for item in argument)
            case "Fn::Or":
                return any(self._holds(item) for item in argument)
            case _:
                raise LocalStackError(
                    f"Condition function {name} is unknown to the local stack: teach local/template.py."
                )


def state_machine_definition(path: Path, substitutions: Mapping[str, Any]) -> str:
    """The JSON text of a state machine kept in a YAML or JSON file, its ${Substitutions} filled in.

    Raises LocalStackError for a ${name} without a value: CloudFormation would leave it in the text.
    """

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{(\w+)\}", value_of, value)
        if isinstance(value, list):
            return [fill(item) for item in value]
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        return value

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in substitutions:
            raise LocalStackError(
                f"{path.name} uses ${{{name}}}: add it to the state machine's DefinitionSubstitutions."
            )
        return str(substitutions[name])

    return json.dumps(fill(yaml.safe_load(path.read_text())))

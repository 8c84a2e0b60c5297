"""Reads a SAM template and expands it as CloudFormation does."""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import yaml
from samtranslator.translator.transform import transform

from local import LocalStackError, UnsupportedError
from local.account import REGION
from local.environment import without_user_settings
from local.template.parse import read_template

# samtranslator collects metrics and warns that no collector for them is configured.
logging.getLogger("samtranslator.metrics").setLevel(logging.ERROR)

# The bucket name that represents the template's own folder in samtranslator's input and output.
_FOLDER_BUCKET = "template-folder"
_FOLDER_PROPERTIES = ("CodeUri", "ContentUri", "DefinitionUri")

# Replaces samtranslator's loader, which reads the list of managed policies from IAM: the template does not need it.
_NO_MANAGED_POLICIES = SimpleNamespace(load=dict)

_SECTIONS = {
    *("AWSTemplateFormatVersion", "Transform", "Description", "Metadata", "Globals"),
    *("Parameters", "Conditions", "Resources", "Outputs"),
}


@dataclass(frozen=True)
class Template:
    """An expanded template: it has no resources of SAM, only of CloudFormation, and a value for each parameter."""

    folder: Path
    resources: dict[str, dict[str, Any]]
    conditions: dict[str, Any]
    parameters: dict[str, str]

    def of_type(self, type_name: str) -> list[str]:
        """Returns the logical ids of this type's resources."""
        return [name for name, resource in self.resources.items() if resource["Type"] == type_name]

    def path_of(self, location: Mapping[str, str]) -> Path:
        """Returns the local folder or file that a Code, Content or DefinitionS3Location property refers to."""
        bucket = location.get("S3Bucket") or location.get("Bucket")
        key = location.get("S3Key") or location.get("Key")
        if bucket != _FOLDER_BUCKET or not key:
            raise LocalStackError(f"Only code in folders beside the template runs locally, not {dict(location)}.")
        path = self.folder / key
        if not path.exists():
            raise LocalStackError(f"The template names {key}, but {path} does not exist.")
        return path


def load_template(path: Path, parameters: Mapping[str, str], unchecked: Mapping[str, str] | None = None) -> Template:
    """Returns the template expanded with these parameter values and the defaults of the others.

    `unchecked` has parameter values that are not checked against the parameter's constraints, such as http URLs of the
    simulator, where the template requires https.

    Raises LocalStackError for features that the local stack does not support.
    """
    try:
        raw = read_template(path.read_text())
    except (OSError, yaml.YAMLError) as exc:
        raise LocalStackError(f"The template cannot be read: {exc}") from exc
    if unknown := set(raw) - _SECTIONS:
        raise _unsupported(f"Template section {', '.join(sorted(unknown))}")
    if raw.get("Transform") not in (None, "AWS::Serverless-2016-10-31"):
        raise _unsupported(f"Transform {raw['Transform']}")

    original_order = list(raw["Resources"])  # samtranslator changes the order
    values = _parameter_values(raw.get("Parameters", {}), parameters, unchecked or {})
    for resource in raw["Resources"].values():
        properties = resource.get("Properties", {})
        for name in _FOLDER_PROPERTIES:
            if isinstance(properties.get(name), str) and not properties[name].startswith("s3://"):
                # samtranslator accepts only s3:// here: `sam package` uploads the folders first.
                properties[name] = f"s3://{_FOLDER_BUCKET}/{properties[name]}"
    # samtranslator reads the region from boto3, which must use neither the user's region nor the user's profile.
    environment = without_user_settings(os.environ) | {"AWS_DEFAULT_REGION": REGION}
    with mock.patch.dict(os.environ, environment, clear=True):
        try:
            expanded = transform(raw, dict(values), _NO_MANAGED_POLICIES)
        except Exception as exc:
            raise LocalStackError(f"SAM cannot expand {path.name}: {getattr(exc, 'message', exc)}") from exc
    resources = expanded["Resources"]
    ordered = {name: resources[name] for name in original_order if name in resources} | resources
    return Template(path.parent, ordered, expanded.get("Conditions", {}), values)


def _unsupported(feature: str) -> UnsupportedError:
    return UnsupportedError(feature, "local/template/expand.py")


def _parameter_values(
    declared: Mapping[str, dict[str, Any]], given: Mapping[str, str], unchecked: Mapping[str, str]
) -> dict[str, str]:
    if unknown := (set(given) | set(unchecked)) - set(declared):
        names, known = ", ".join(sorted(unknown)), ", ".join(sorted(declared))
        raise LocalStackError(f"The template has no parameter {names}. Its parameters are {known}.")
    values = {}
    for name, declaration in declared.items():
        if declaration["Type"] not in ("String", "Number"):
            raise _unsupported(f"Parameter {name}: type {declaration['Type']}")
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
        constraint = f"one of {', '.join(map(str, declaration['AllowedValues']))}"
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

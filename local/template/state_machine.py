"""Reads a state machine's definition in the form in which CloudFormation passes it to Step Functions."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from local import LocalStackError


def state_machine_definition(path: Path, substitutions: Mapping[str, Any]) -> str:
    """Returns a state machine's definition from a YAML or JSON file as JSON text, with substitutions for each ${name}.

    Raises LocalStackError for a ${name} without a substitution, which CloudFormation would leave in the text.
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

    return json.dumps(fill(yaml.load(path.read_text(), yaml.CSafeLoader)))

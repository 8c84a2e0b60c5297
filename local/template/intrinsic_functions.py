"""Replaces references to parameters, resources and conditions in a template by their values.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local import LocalStackError, UnsupportedError
from local.account import ACCOUNT_ID, REGION, STACK_NAME, local_arn
from local.template.expand import Template

PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackName": STACK_NAME,
    "AWS::StackId": local_arn("cloudformation", f"stack/{STACK_NAME}/local"),
    "AWS::URLSuffix": "amazonaws.com",
}

# The value of {"Ref": "AWS::NoValue"}: properties with this value are removed.
_NO_VALUE = object()


@dataclass(frozen=True)
class Resolver:
    """Replaces intrinsic functions by their values. Raises UnsupportedError for an unknown function."""

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
        """Returns whether the template's condition of this name holds."""
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
                raise _unsupported(f"Intrinsic function {name}")

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
                raise _unsupported(f"Condition function {name}")


def _unsupported(function: str) -> UnsupportedError:
    return UnsupportedError(function, "local/template/intrinsic_functions.py")

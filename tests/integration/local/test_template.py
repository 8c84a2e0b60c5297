"""Templates are expanded; unsupported features prevent the start."""

from pathlib import Path
from typing import Any

import pytest

from local import REPOSITORY, LocalStackError
from local.template.expand import Template, load_template
from local.template.intrinsic_functions import Resolver
from local.template.state_machine import state_machine_definition

MINIMAL = "Resources: {Queue: {Type: AWS::SQS::Queue}}"


def write(folder: Path, text: str) -> Path:
    path = folder / "template.yaml"
    path.write_text(text)
    return path


def resolver(conditions: dict[str, Any] | None = None, **parameters: str) -> Resolver:
    template = Template(Path(), {}, conditions or {}, parameters)
    return Resolver(template, lambda name: f"ref of {name}", lambda name, attribute: f"{attribute} of {name}")


def test_functions_of_the_project_become_lambda_functions_with_their_globals() -> None:
    template = load_template(REPOSITORY / "template.yaml", {})

    function = template.resources["ReceiveCallbackFunction"]
    assert function["Type"] == "AWS::Lambda::Function"
    assert function["Properties"]["Runtime"].startswith("python3.")
    assert template.path_of(function["Properties"]["Code"]) == REPOSITORY / "functions" / "receive_callback"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Mappings: {}\n" + MINIMAL, "Mappings"),
        ("Transform: AWS::LanguageExtensions\n" + MINIMAL, "AWS::LanguageExtensions"),
        ("Parameters: {Size: {Type: 'AWS::SSM::Parameter::Value<String>'}}\n" + MINIMAL, "Size"),
        ("Parameters: {Size: {Type: Number}}\n" + MINIMAL, "--parameter Size=VALUE"),
        ("Resources: [", "cannot be read"),
        (
            (
                "Transform: AWS::Serverless-2016-10-31\n"
                "Resources: {F: {Type: AWS::Serverless::Function, Properties: {Nonsense: 1}}}"
            ),
            "SAM cannot expand",
        ),
    ],
)
def test_unsupported_features_prevent_the_start(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LocalStackError, match=message):
        load_template(write(tmp_path, text), {})


@pytest.mark.parametrize(
    ("declaration", "value"),
    [
        ("{Type: String, AllowedPattern: '[a-z]+'}", "a1"),
        ("{Type: String, AllowedValues: [a, b]}", "c"),
        ("{Type: Number, MinValue: 1, MaxValue: 5}", "6"),
        ("{Type: Number}", "many"),
    ],
)
def test_a_parameter_must_meet_its_constraints(tmp_path: Path, declaration: str, value: str) -> None:
    path = write(tmp_path, f"Parameters: {{Size: {declaration}}}\n{MINIMAL}")

    with pytest.raises(LocalStackError, match="Size"):
        load_template(path, {"Size": value})
    assert load_template(path, {}, unchecked={"Size": value}).parameters == {"Size": value}


def test_an_unknown_parameter_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="no parameter"):
        load_template(write(tmp_path, MINIMAL), {"Size": "1"})


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ({"Ref": "Queue"}, "ref of Queue"),
        ({"Ref": "Size"}, "5"),
        ({"Ref": "AWS::Region"}, "us-east-1"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, "Arn of Queue"),
        ({"Fn::Sub": "${Queue.Arn}/${Size}/${!Kept}"}, "Arn of Queue/5/${Kept}"),
        ({"Fn::Sub": ["${a}-${Size}", {"a": {"Ref": "Queue"}}]}, "ref of Queue-5"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Size"}]]}, "a-5"),
        ({"Fn::Select": [1, {"Fn::Split": [",", "a,b"]}]}, "b"),
        ({"Fn::If": ["Large", "yes", "no"]}, "yes"),
        ({"Kept": 1, "Gone": {"Ref": "AWS::NoValue"}}, {"Kept": 1}),
        ([{"Ref": "AWS::NoValue"}, 1], [1]),
    ],
)
def test_intrinsic_functions_are_resolved(value: Any, resolved: Any) -> None:
    conditions = {"Large": {"Fn::And": [{"Fn::Equals": [{"Ref": "Size"}, 5]}, {"Fn::Not": [{"Condition": "Small"}]}]}}
    conditions["Small"] = {"Fn::Or": [{"Fn::Equals": [{"Ref": "Size"}, "1"]}]}

    assert resolver(conditions, Size="5").resolve(value) == resolved


def test_an_unknown_intrinsic_function_prevents_the_start() -> None:
    with pytest.raises(LocalStackError, match="Fn::ImportValue"):
        resolver().resolve({"Name": {"Fn::ImportValue": "x"}})


def test_a_substitution_without_a_value_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "machine.asl.yaml"
    path.write_text("States: {A: {Resource: '${FunctionArn}'}}")

    assert "arn:x" in state_machine_definition(path, {"FunctionArn": "arn:x"})
    with pytest.raises(LocalStackError, match="FunctionArn"):
        state_machine_definition(path, {})

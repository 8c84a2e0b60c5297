"""Resources: an unsupported type or property prevents the start, and the error message names it."""

from pathlib import Path
from typing import Any

import pytest

from local import LocalStackError
from local.template.deployment import Deployment
from local.template.expand import Template, load_template
from local.template.resource_types import RESOURCE_TYPES
from tests.project_template import project_template


def deploy(resources: dict[str, Any]) -> Deployment:
    def no_client(service: str) -> Any:
        raise AssertionError(f"a client of {service} was created before the error")

    deployment = Deployment(
        Template(Path(), resources, {}, {}), RESOURCE_TYPES, no_client, lambda name: "http://127.0.0.1:1"
    )
    deployment.deploy()
    return deployment


def an_api(paths: dict[str, Any]) -> dict[str, Any]:
    return {"Type": "AWS::ApiGatewayV2::Api", "Properties": {"Body": {"paths": paths}}}


def test_an_unknown_type_prevents_the_start() -> None:
    with pytest.raises(
        LocalStackError, match=r"Records: resource type AWS::Kinesis::Stream is not supported .*resource_types"
    ):
        deploy({"Records": {"Type": "AWS::Kinesis::Stream"}})


@pytest.mark.parametrize(
    ("type_name", "properties", "names"),
    [
        (
            "AWS::ApiGatewayV2::Stage",
            {"ApiId": {"Ref": "Api"}, "StageName": "$default", "StageVariables": {}},
            "StageVariables",
        ),
        (
            "AWS::ApiGatewayV2::Stage",
            {"ApiId": {"Ref": "Api"}, "StageName": "$default", "DefaultRouteSettings": {"DataTraceEnabled": 1}},
            "DataTrace",
        ),
        ("AWS::ApiGatewayV2::Stage", {"StageName": "prod"}, "prod"),
        ("AWS::Lambda::EventSourceMapping", {"EventSourceArn": "arn:aws:kinesis:::x", "FunctionName": "F"}, "kinesis"),
        ("AWS::Events::Rule", {"Targets": [{"Id": "target", "Arn": "arn:aws:lambda:::function:F"}]}, "not a queue"),
        ("AWS::Events::Rule", {"Targets": [{"Id": "target", "Arn": "arn:aws:sqs:::q", "InputPath": "$"}]}, "InputPath"),
    ],
)
def test_an_unknown_property_prevents_the_start(type_name: str, properties: dict[str, Any], names: str) -> None:
    with pytest.raises(LocalStackError, match=names):
        deploy({"Api": an_api({}), "Tested": {"Type": type_name, "Properties": properties}})


@pytest.mark.parametrize(
    ("integration", "security"),
    [
        ({"type": "http_proxy", "payloadFormatVersion": "1.0"}, []),
        ({"type": "aws_proxy", "payloadFormatVersion": "1.0"}, []),
        ({"type": "aws_proxy", "payloadFormatVersion": "2.0"}, [{"SomeJwtAuthorizer": []}]),
        ({"type": "aws_proxy", "payloadFormatVersion": "2.0"}, [{"AWS_IAM": []}, {"Other": []}]),
    ],
)
def test_an_unsupported_route_prevents_the_start(integration: dict[str, str], security: list[dict[str, Any]]) -> None:
    operation = {"x-amazon-apigateway-integration": integration, "security": security}

    with pytest.raises(LocalStackError, match="GET /things"):
        deploy({"Api": an_api({"/things": {"get": operation}})})


ALIAS = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Shown:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: .
      Handler: app.handler
      Runtime: python3.13
      AutoPublishAlias: live
      Events:
        Get: { Type: HttpApi, Properties: { Method: GET, Path: /things } }
"""


def test_a_route_to_an_alias_calls_its_function(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(ALIAS)

    template = load_template(tmp_path / "template.yaml", {})
    deployment = Deployment(template, RESOURCE_TYPES, lambda service: None, lambda name: "http://127.0.0.1:1")
    deployment.deploy()

    assert [route.function for api in deployment.apis.values() for route in api.routes] == ["Shown"]
    assert deployment.resources["ShownAliaslive"].ref == f"{deployment.functions['Shown'].arn}:live"


def test_an_alias_of_another_version_prevents_the_start(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(ALIAS)
    template = load_template(tmp_path / "template.yaml", {})
    template.resources["ShownAliaslive"]["Properties"]["FunctionVersion"] = "7"

    with pytest.raises(LocalStackError, match=r"ShownAliaslive: .* one version"):
        Deployment(template, RESOURCE_TYPES, lambda service: None, lambda name: "http://127.0.0.1:1").deploy()


def test_unknown_settings_of_a_stream_mapping_prevent_the_start() -> None:
    properties = {
        "EventSourceArn": "arn:aws:dynamodb:us-east-1:1:table/T/stream/1",
        "FunctionName": "F",
        "StartingPosition": "TRIM_HORIZON",
        "ParallelizationFactor": 2,
    }

    with pytest.raises(LocalStackError, match="ParallelizationFactor"):
        deploy({"Mapping": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties}})


@pytest.mark.parametrize(
    ("enabled", "is_enabled"), [(True, True), ("true", True), ("True", True), (False, False), ("false", False)]
)
@pytest.mark.parametrize(
    "source",
    [
        {"EventSourceArn": "arn:aws:dynamodb:us-east-1:1:table/T/stream/1", "StartingPosition": "TRIM_HORIZON"},
        {"EventSourceArn": "arn:aws:sqs:us-east-1:1:queue"},
    ],
    ids=["stream", "queue"],
)
def test_a_disabled_mapping_invokes_nothing(
    monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], enabled: bool | str, is_enabled: bool
) -> None:
    monkeypatch.setattr(Deployment, "queue_url", lambda self, arn: "http://127.0.0.1:1/queue")
    properties = {"FunctionName": "F", "Enabled": enabled, **source}

    deployment = deploy({"Mapping": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": properties}})

    assert len(deployment.stream_mappings) + len(deployment.queue_mappings) == is_enabled


def test_circular_references_are_an_error() -> None:
    def stage(other: str) -> dict[str, Any]:
        return {"Type": "AWS::ApiGatewayV2::Stage", "Properties": {"StageName": {"Ref": other}}}

    with pytest.raises(LocalStackError, match="Circular dependency"):
        deploy({"A": stage("B"), "B": stage("A")})


def test_a_resource_whose_condition_is_false_is_not_created() -> None:
    template = Template(
        Path(),
        {"Role": {"Type": "AWS::IAM::Role", "Condition": "Never"}, "Other": {"Type": "AWS::IAM::Role"}},
        {"Never": {"Fn::Equals": ["a", "b"]}},
        {},
    )
    deployment = Deployment(template, RESOURCE_TYPES, lambda service: None, lambda name: "http://127.0.0.1:1")
    deployment.deploy()

    assert set(deployment.resources) == {"Other"}


def test_every_type_in_the_projects_template_is_supported() -> None:
    types = {resource["Type"] for resource in project_template().resources.values()}

    assert types <= set(RESOURCE_TYPES)


def test_every_type_that_is_not_created_has_a_reason() -> None:
    assert all(resource_type.make or resource_type.why for resource_type in RESOURCE_TYPES.values())

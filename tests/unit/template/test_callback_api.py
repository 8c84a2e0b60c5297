"""The callback API: it responds before the provider's timeout, is throttled, and logs no token."""

import json
import re
from typing import Any

import pytest

from catchlight.aws import clients
from catchlight.aws.secrets import TOKEN_PATTERN
from tests.unit.template.expanded import FUNCTIONS, RESOURCES, deployed, of_type
from tests.unit.template.expanded import referred as referred_to

PROVIDER_TIMEOUT_SECONDS = 15
APIS = of_type("AWS::ApiGatewayV2::Api")
STAGES = of_type("AWS::ApiGatewayV2::Stage")
CALLBACK_PATH = "/callbacks/{provider}/{token+}"


def callback_integration() -> dict[str, Any]:
    operations = APIS["CallbackApi"]["Body"]["paths"][CALLBACK_PATH]
    assert operations.keys() == {"post", "get", "head"}
    integration: dict[str, Any] = operations["post"]["x-amazon-apigateway-integration"]
    return integration


def test_the_timeouts_are_shorter_than_the_providers() -> None:
    integration = callback_integration()
    timeout = FUNCTIONS["ReceiveCallbackFunction"]["Timeout"]

    assert integration["payloadFormatVersion"] == "2.0"
    assert timeout * 1000 < integration["timeoutInMillis"] < PROVIDER_TIMEOUT_SECONDS * 1000


def test_the_slowest_call_to_dynamodb_fits_into_the_functions_timeout() -> None:
    config = clients.CLIENT_CONFIG
    tries = config.retries["total_max_attempts"]  # type: ignore[attr-defined]
    slowest = tries * (config.connect_timeout + config.read_timeout)  # type: ignore[attr-defined]

    assert slowest < FUNCTIONS["ReceiveCallbackFunction"]["Timeout"]


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_is_throttled(name: str) -> None:
    assert STAGES[name]["DefaultRouteSettings"].keys() >= {"ThrottlingRateLimit", "ThrottlingBurstLimit"}


def test_the_callback_rate_is_a_parameter() -> None:
    assert STAGES["CallbackApiApiGatewayDefaultStage"]["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "CallbackRateLimit"},
        "ThrottlingBurstLimit": {"Ref": "CallbackBurstLimit"},
    }


@pytest.mark.parametrize("name", STAGES)
def test_the_access_log_contains_no_path(name: str) -> None:
    log = STAGES[name]["AccessLogSettings"]
    variables = set(re.findall(r"\$context\.[A-Za-z.]+", log["Format"]))

    assert "$context.routeKey" in variables
    assert not [found for found in variables if re.search("path|query|resource|protocol|header", found, re.IGNORECASE)]
    json.loads(log["Format"])
    assert RESOURCES[referred_to(log["DestinationArn"])]["Type"] == "AWS::Logs::LogGroup"


def test_access_logs_are_in_log_groups_that_need_no_resource_policy() -> None:
    """https://docs.aws.amazon.com/step-functions/latest/dg/bp-cwl.html: a policy has at most 5,120 characters."""
    groups = {referred_to(stage["AccessLogSettings"]["DestinationArn"]) for stage in STAGES.values()}
    names = {deployed()[group]["LogGroupName"] for group in groups}

    assert names == {"/aws/vendedlogs/catchlight/callback-api", "/aws/vendedlogs/catchlight/tasks-api"}
    # Lambda writes to the other log groups with the roles of the functions. CloudFormation chooses their names.
    assert {name for name, group in of_type("AWS::Logs::LogGroup").items() if "LogGroupName" in group} == groups


@pytest.mark.parametrize("name", APIS)
def test_warnings_of_api_gateway_do_not_fail_a_deployment(name: str) -> None:
    """SAM has generated definitions that API Gateway warns about: https://github.com/aws/serverless-application-model/issues/2297"""
    assert "FailOnWarnings" not in APIS[name]


def test_no_page_in_a_browser_may_call_the_callback_api() -> None:
    assert "CorsConfiguration" not in APIS["CallbackApi"]
    assert "x-amazon-apigateway-cors" not in APIS["CallbackApi"]["Body"]


def test_the_callback_token_is_long_and_matches_its_pattern() -> None:
    generated = RESOURCES["CallbackTokenSecret"]["Properties"]["GenerateSecretString"]

    assert generated == {"PasswordLength": 48, "ExcludePunctuation": True}
    assert TOKEN_PATTERN.fullmatch("aZ0" * 16)

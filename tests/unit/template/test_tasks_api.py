"""The tasks API: accepts signed requests only, answers in time, and has an index for its pages."""

from typing import Any

import pytest

from catchlight.api import queries, request_models, submission_client
from catchlight.tasks import table
from local.template.intrinsic_functions import Resolver
from tests.unit.template.expanded import EXPANDED, FUNCTIONS, RESOURCES, of_type

# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
MAX_INTEGRATION_TIMEOUT_SECONDS = 30
BODY = of_type("AWS::ApiGatewayV2::Api")["TasksApi"]["Body"]
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in BODY["paths"].items()
    for method, operation in methods.items()
}


def indexes() -> dict[str, dict[str, Any]]:
    return {index["IndexName"]: index for index in RESOURCES["TasksTable"]["Properties"]["GlobalSecondaryIndexes"]}


@pytest.mark.parametrize("route", OPERATIONS)
def test_every_route_asks_for_a_signature(route: str) -> None:
    assert OPERATIONS[route]["security"] == [{"AWS_IAM": []}]
    assert BODY["components"]["securitySchemes"]["AWS_IAM"]["x-amazon-apigateway-authtype"] == "awsSigv4"


@pytest.mark.parametrize("route", OPERATIONS)
def test_the_function_ends_before_api_gateway_hangs_up(route: str) -> None:
    integration = OPERATIONS[route]["x-amazon-apigateway-integration"]
    timeout = FUNCTIONS["ServeTasksApiFunction"]["Timeout"]

    assert integration["payloadFormatVersion"] == "2.0"
    # As long as API Gateway waits at all: what ends earlier is the function, which says why.
    assert timeout * 1000 < integration["timeoutInMillis"] == MAX_INTEGRATION_TIMEOUT_SECONDS * 1000


def test_a_provider_that_takes_long_is_answered_for_in_time() -> None:
    # The rest of the time is for reading secrets and writing to DynamoDB.
    assert FUNCTIONS["ServeTasksApiFunction"]["Timeout"] > submission_client.ANSWER_TIMEOUT_SECONDS + 8
    assert FUNCTIONS["ServeTasksApiFunction"]["Timeout"] > request_models.MAX_WAIT_SECONDS + 5


def test_the_tasks_api_does_not_use_the_callbacks_rate() -> None:
    stages = of_type("AWS::ApiGatewayV2::Stage")

    assert stages["TasksApiApiGatewayDefaultStage"]["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "TasksApiRateLimit"},
        "ThrottlingBurstLimit": {"Ref": "TasksApiBurstLimit"},
    }


def test_no_page_in_a_browser_may_call_the_tasks_api() -> None:
    assert "CorsConfiguration" not in of_type("AWS::ApiGatewayV2::Api")["TasksApi"]
    assert "x-amazon-apigateway-cors" not in BODY


def test_callbacks_are_asked_for_where_they_are_received() -> None:
    url = FUNCTIONS["ServeTasksApiFunction"]["Environment"]["Variables"]["CALLBACK_BASE_URL"]
    resolver = Resolver(EXPANDED, str, lambda name, attribute: f"https://{name}.{attribute}")

    assert resolver.resolve(url) == "https://CallbackApi.ApiEndpoint"


@pytest.mark.parametrize("index", [queries._BY_ARRIVAL, queries._BY_STATUS])
def test_pages_are_read_from_indexes_that_there_are(index: queries._Index) -> None:
    schema = {key["KeyType"]: key["AttributeName"] for key in indexes()[index.name]["KeySchema"]}

    assert schema == {"HASH": index.partition, "RANGE": index.order}


def test_the_feed_holds_what_a_page_is_filtered_by_and_nothing_that_changes() -> None:
    feed = indexes()["byArrival"]

    assert feed["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["provider"]}
    assert table.FEED


def test_nothing_but_its_own_idempotency_keys_and_tasks_is_written() -> None:
    role = of_type("AWS::IAM::Role")["ServeTasksApiFunctionRole"]
    actions = {
        action
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in (statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]])
    }

    assert actions == {
        "dynamodb:GetItem",
        "dynamodb:BatchGetItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
        "secretsmanager:GetSecretValue",
        "s3:GetObject",
    }

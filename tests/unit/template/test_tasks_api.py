"""The tasks API: it accepts signed requests only, responds in time, and has indexes for its pages."""

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
def test_every_route_requires_a_signature(route: str) -> None:
    assert OPERATIONS[route]["security"] == [{"AWS_IAM": []}]
    assert BODY["components"]["securitySchemes"]["AWS_IAM"]["x-amazon-apigateway-authtype"] == "awsSigv4"


@pytest.mark.parametrize("route", OPERATIONS)
def test_the_functions_timeout_is_shorter_than_api_gateways(route: str) -> None:
    integration = OPERATIONS[route]["x-amazon-apigateway-integration"]
    timeout = FUNCTIONS["ServeTasksApiFunction"]["Timeout"]

    assert integration["payloadFormatVersion"] == "2.0"
    # The maximum of API Gateway. The function times out earlier, and its log shows why.
    assert timeout * 1000 < integration["timeoutInMillis"] == MAX_INTEGRATION_TIMEOUT_SECONDS * 1000


def test_the_functions_timeout_covers_the_slowest_provider_and_the_longest_wait() -> None:
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


def test_the_callback_url_of_submissions_is_that_of_the_callback_api() -> None:
    url = FUNCTIONS["ServeTasksApiFunction"]["Environment"]["Variables"]["CALLBACK_BASE_URL"]
    resolver = Resolver(EXPANDED, str, lambda name, attribute: f"https://{name}.{attribute}")

    assert resolver.resolve(url) == "https://CallbackApi.ApiEndpoint"


@pytest.mark.parametrize("index", [queries._BY_ARRIVAL, queries._BY_STATUS])
def test_the_indexes_for_pages_exist(index: queries._Index) -> None:
    schema = {key["KeyType"]: key["AttributeName"] for key in indexes()[index.name]["KeySchema"]}

    assert schema == {"HASH": index.partition, "RANGE": index.order}


def test_the_feed_index_contains_only_keys_and_provider() -> None:
    feed = indexes()["byArrival"]

    assert feed["Projection"] == {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["provider"]}
    assert table.FEED


def test_the_function_writes_only_items_of_the_table() -> None:
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

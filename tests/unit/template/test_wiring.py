"""References between resources: derived from names where possible, otherwise compared with a list."""

import pytest

from catchlight.api import queries
from catchlight.tasks.by_status import INDEX_NAME
from tests.unit.template.expanded import (
    FUNCTIONS,
    QUEUES,
    RAW,
    RESOURCES,
    STREAM_SOURCES,
    deployed,
    of_type,
)
from tests.unit.template.expanded import referred as referred_to

# A variable is named after the parameter or resource that it refers to, with these exceptions.
OTHER_NAMES = {
    "ARCHIVE_DEAD_LETTERS_URL": "ArchiveDeadLetters",
    "ARCHIVE_QUEUE_URL": "ArchiveQueue",
    "POLL_QUEUE_URL": "PollQueue",
    "DISPATCH_DEAD_LETTERS_URL": "DispatchDeadLetters",
    "POLL_DEAD_LETTERS_URL": "PollDeadLetters",
    "PUBLISH_DEAD_LETTERS_URL": "PublishDeadLetters",
    "WEBHOOK_QUEUE_URL": "WebhookQueue",
    "WEBHOOK_DEAD_LETTERS_URL": "WebhookDeadLetters",
    "PUBLISH_EVENTS_FUNCTION": "PublishesEvents",  # without events, it is empty
    "CALLBACK_BASE_URL": "HasCallbackDomain",  # both values: see test_callback_domain.py
    "EVENT_BUS": "TaskEventBus",
    "POWERTOOLS_LOG_LEVEL": "LogLevel",
    "POWERTOOLS_SERVICE_NAME": "AWS::StackName",
}
LITERALS = {"POWERTOOLS_METRICS_NAMESPACE": "Catchlight", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
# The dead-letter queues, by the name of the event source, schedule, queue or rule.
DEAD_LETTERS = {
    "DispatchChangesFunctionTasksTableStream": "DispatchDeadLetters",
    "PublishEventsFunctionTasksTableStream": "PublishDeadLetters",
    "ReconcileTasksFunctionHourly": "ReconcileDeadLetters",
    "ArchiveQueue": "ArchiveDeadLetters",
    "PollQueue": "PollDeadLetters",
    "WebhookQueue": "WebhookDeadLetters",
    "WebhookRule": "WebhookDeadLetters",
}
ROUTES = {
    "CallbackApi": dict.fromkeys(
        [f"{method} /callbacks/{{provider}}/{{token+}}" for method in ("POST", "GET", "HEAD")],
        "ReceiveCallbackFunctionAliaslive",
    ),
    "TasksApi": dict.fromkeys(
        [
            "POST /tasks",
            "POST /submissions",
            "GET /tasks",
            "GET /tasks/{provider}/{taskId}",
            "GET /tasks/{provider}/{taskId}/images/{image}",
            "DELETE /submissions/{key}",
        ],
        "ServeTasksApiFunction.Arn",
    ),
}
OUTPUTS = {
    "ReadCallbackToken": "!Sub aws secretsmanager get-secret-value --region ${AWS::Region} "
    "--secret-id ${CallbackTokenSecret} --query SecretString --output text",
    "TasksApiUrl": "!GetAtt TasksApi.ApiEndpoint",
    "ProviderKeysSecretArn": "!Ref ProviderKeysSecret",
    "TasksTableName": "!Ref TasksTable",
    "ImagesBucketName": "!Ref ImagesBucket",
    "PollTasksStateMachineArn": "!Ref PollTasksStateMachine",
    "ArchiveDeadLettersUrl": "!Ref ArchiveDeadLetters",
    "TaskEventBusName": "!Ref TaskEventBus",
    "ReadWebhookSecret": "!Sub aws secretsmanager get-secret-value --region ${AWS::Region} "
    "--secret-id ${WebhookSecret} --query SecretString --output text",
    "DashboardUrl": "!Sub https://${AWS::Region}.console.aws.amazon.com/cloudwatch/home"
    "?region=${AWS::Region}#dashboards/dashboard/${Dashboard}",
}


def in_capitals(name: str) -> str:
    """Converts `FirstPollAfterSeconds` to `FIRST_POLL_AFTER_SECONDS`."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).lstrip("_").upper()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_variable_refers_to_the_parameter_or_resource_of_its_name(name: str) -> None:
    for variable, value in FUNCTIONS[name]["Environment"]["Variables"].items():
        if variable in LITERALS:
            assert value == LITERALS[variable]
        else:
            held = referred_to(value)
            assert OTHER_NAMES.get(variable, variable) in (held, in_capitals(held)), variable


@pytest.mark.parametrize(("events", "function"), [("Enabled", "PublishEventsFunction"), ("Disabled", "")])
def test_the_repair_republishes_events_only_if_they_are_enabled(events: str, function: str) -> None:
    variables = deployed(TaskEvents=events, WebhookUrl="")["ReconcileTasksFunction"]["Environment"]["Variables"]

    assert variables["PUBLISH_EVENTS_FUNCTION"] == function


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_writes_to_its_own_log_group(name: str) -> None:
    assert FUNCTIONS[name]["LoggingConfig"] == {"LogGroup": {"Ref": f"{name.removesuffix('Function')}LogGroup"}}


def test_an_api_writes_to_its_own_access_log() -> None:
    for stage in of_type("AWS::ApiGatewayV2::Stage").values():
        api = stage["ApiId"]["Ref"]
        assert referred_to(stage["AccessLogSettings"]["DestinationArn"]) == f"{api}LogGroup"


def test_each_source_has_its_dead_letter_queue() -> None:
    found = {name: source["DestinationConfig"]["OnFailure"]["Destination"] for name, source in STREAM_SOURCES.items()}
    found |= {
        name: schedule["Target"]["DeadLetterConfig"]["Arn"]
        for name, schedule in of_type("AWS::Scheduler::Schedule").items()
    }
    found |= {
        name: queue["RedrivePolicy"]["deadLetterTargetArn"]
        for name, queue in QUEUES.items()
        if "RedrivePolicy" in queue
    }
    found |= {
        name: target["DeadLetterConfig"]["Arn"]
        for name, rule in of_type("AWS::Events::Rule").items()
        for target in rule["Targets"]
    }

    assert {name: referred_to(arn) for name, arn in found.items()} == DEAD_LETTERS
    assert set(DEAD_LETTERS.values()) == QUEUES.keys() - {"ArchiveQueue", "PollQueue", "WebhookQueue"}


def test_event_sources_read_the_tables_stream_and_the_work_queues() -> None:
    sources = {
        name: referred_to(source["EventSourceArn"])
        for name, source in of_type("AWS::Lambda::EventSourceMapping").items()
    }

    assert sources == {
        "DispatchChangesFunctionTasksTableStream": "TasksTable",
        "PublishEventsFunctionTasksTableStream": "TasksTable",
        "ArchiveImagesFunctionArchiveQueue": "ArchiveQueue",
        "StartPollingFunctionPollQueue": "PollQueue",
        "SendWebhooksFunctionWebhookQueue": "WebhookQueue",
    }


@pytest.mark.parametrize("api", of_type("AWS::ApiGatewayV2::Api"))
def test_an_api_has_these_routes(api: str) -> None:
    found = {
        f"{method.upper()} {path}": str(operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"])
        for path, methods in of_type("AWS::ApiGatewayV2::Api")[api]["Body"]["paths"].items()
        for method, operation in methods.items()
    }

    assert {route: uri.rpartition("/functions/")[2] for route, uri in found.items()} == {
        route: f"${{{function}}}/invocations" for route, function in ROUTES[api].items()
    }


def test_an_output_has_this_value() -> None:
    # test_callback_domain.py tests the outputs of CallbackDomain, test_webhooks.py the receiver of webhooks.
    others = RAW["Outputs"].keys() - {"CallbackUrlPattern", "CallbackDomainTarget", "WebhookReceiver"}

    assert {name: RAW["Outputs"][name]["Value"] for name in others} == OUTPUTS


def test_table_and_indexes_have_the_keys_that_the_code_reads() -> None:
    table = RESOURCES["TasksTable"]["Properties"]
    by_name = {index["IndexName"]: index for index in table["GlobalSecondaryIndexes"]}

    assert table["KeySchema"] == [{"AttributeName": "task", "KeyType": "HASH"}]
    assert by_name.keys() == {queries._BY_ARRIVAL.name, INDEX_NAME}
    # With all attributes: the hourly run reads items only from the index.
    assert by_name[INDEX_NAME]["Projection"] == {"ProjectionType": "ALL"}
    assert [key["AttributeName"] for key in by_name[INDEX_NAME]["KeySchema"]] == ["status", "updatedAt"]
    keys = {key["AttributeName"] for schema in (table, *by_name.values()) for key in schema["KeySchema"]}
    # CloudFormation refuses a definition of an attribute that is in no key. All keys are strings.
    assert sorted(table["AttributeDefinitions"], key=str) == sorted(
        ({"AttributeName": name, "AttributeType": "S"} for name in keys), key=str
    )


def test_the_repair_runs_every_hour_and_its_start_is_retried_for_half_an_hour() -> None:
    (schedule,) = of_type("AWS::Scheduler::Schedule").values()

    assert schedule["ScheduleExpression"] == "rate(1 hour)"
    # Retries of a refused start end before the next run.
    assert schedule["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] == 3600 / 2
    assert schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 5
    # A fixed name could exist only once in an account.
    assert "Name" not in schedule


def test_names_that_are_unique_in_an_account_contain_the_stacks_name() -> None:
    named = {name: found["Name"] for name, found in deployed().items() if "Name" in found}

    # An alias belongs to its function.
    assert named == {"TaskEventBus": "catchlight-tasks", "ReceiveCallbackFunctionAliaslive": "live"}

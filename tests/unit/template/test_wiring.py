"""References between resources: derived from names where possible, spelt out where not."""

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

# A variable is named after the parameter or resource that it holds, with these exceptions.
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
LITERAL = {"POWERTOOLS_METRICS_NAMESPACE": "Catchlight", "PYDANTIC_DISABLE_PLUGINS": "__all__"}
# The queues for what could not be handled, by the name of the event source or the schedule.
PUT_ASIDE = {
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
    """`FirstPollAfterSeconds` as `FIRST_POLL_AFTER_SECONDS`."""
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in name).lstrip("_").upper()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_variable_holds_what_it_is_named_after(name: str) -> None:
    for variable, value in FUNCTIONS[name]["Environment"]["Variables"].items():
        if variable in LITERAL:
            assert value == LITERAL[variable]
        else:
            held = referred_to(value)
            assert OTHER_NAMES.get(variable, variable) in (held, in_capitals(held)), variable


@pytest.mark.parametrize(("events", "function"), [("Enabled", "PublishEventsFunction"), ("Disabled", "")])
def test_events_are_published_again_if_they_are_enabled(events: str, function: str) -> None:
    variables = deployed(TaskEvents=events, WebhookUrl="")["ReconcileTasksFunction"]["Environment"]["Variables"]

    assert variables["PUBLISH_EVENTS_FUNCTION"] == function


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_log_group_is_its_functions(name: str) -> None:
    assert FUNCTIONS[name]["LoggingConfig"] == {"LogGroup": {"Ref": f"{name.removesuffix('Function')}LogGroup"}}


def test_an_access_log_is_its_apis() -> None:
    for stage in of_type("AWS::ApiGatewayV2::Stage").values():
        api = stage["ApiId"]["Ref"]
        assert referred_to(stage["AccessLogSettings"]["DestinationArn"]) == f"{api}LogGroup"


def test_what_cannot_be_handled_is_put_aside_where_its_alarm_looks() -> None:
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

    assert {name: referred_to(arn) for name, arn in found.items()} == PUT_ASIDE
    assert set(PUT_ASIDE.values()) == QUEUES.keys() - {"ArchiveQueue", "PollQueue", "WebhookQueue"}


def test_streams_are_the_tables_and_messages_of_the_work_queues() -> None:
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


def test_an_output_is_what_it_says() -> None:
    # Those of CallbackDomain are in test_callback_domain.py, the receiver of webhooks is in test_webhooks.py.
    others = RAW["Outputs"].keys() - {"CallbackUrlPattern", "CallbackDomainTarget", "WebhookReceiver"}

    assert {name: RAW["Outputs"][name]["Value"] for name in others} == OUTPUTS


def test_the_table_is_keyed_as_the_code_reads_it() -> None:
    table = RESOURCES["TasksTable"]["Properties"]
    by_name = {index["IndexName"]: index for index in table["GlobalSecondaryIndexes"]}

    assert table["KeySchema"] == [{"AttributeName": "task", "KeyType": "HASH"}]
    assert by_name.keys() == {queries._BY_ARRIVAL.name, INDEX_NAME}
    # Whole items: the hourly run reads them from the index only.
    assert by_name[INDEX_NAME]["Projection"] == {"ProjectionType": "ALL"}
    assert [key["AttributeName"] for key in by_name[INDEX_NAME]["KeySchema"]] == ["status", "updatedAt"]
    keys = {key["AttributeName"] for schema in (table, *by_name.values()) for key in schema["KeySchema"]}
    # CloudFormation refuses an attribute that is defined and in no key. All are ISO 8601 or names.
    assert sorted(table["AttributeDefinitions"], key=str) == sorted(
        ({"AttributeName": name, "AttributeType": "S"} for name in keys), key=str
    )


def test_the_repair_runs_every_hour_and_is_not_started_for_long() -> None:
    (schedule,) = of_type("AWS::Scheduler::Schedule").values()

    assert schedule["ScheduleExpression"] == "rate(1 hour)"
    # Refused starts end before the next run is due.
    assert schedule["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] == 3600 / 2
    assert schedule["Target"]["RetryPolicy"]["MaximumRetryAttempts"] == 5
    # A fixed name could exist only once in an account.
    assert "Name" not in schedule


def test_a_name_that_an_account_has_once_holds_the_stacks() -> None:
    named = {name: found["Name"] for name, found in deployed().items() if "Name" in found}

    # An alias belongs to its function.
    assert named == {"TaskEventBus": "catchlight-tasks", "ReceiveCallbackFunctionAliaslive": "live"}

"""What the template promises: limits that fit each other, settings that arrive, permissions without excess."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from functions.archive_images import app as archive_images
from functions.dispatch_changes import app as dispatch_changes
from functions.poll_tasks import app as poll_tasks
from image_tasks import image_fetching, provider_client, rejected_deliveries, settings, tasks_table
from image_tasks.deadlines import MAX_ARCHIVE_TRIES
from image_tasks.models import Reporter, TaskStatus
from image_tasks.verification import TOKEN_PATTERN
from local.event_filters import EventFilter
from local.template import load_template

REPOSITORY = Path(__file__).parents[2]
EXPANDED = load_template(REPOSITORY / "template.yaml", {})
RESOURCES = EXPANDED.resources


class _RawLoader(yaml.SafeLoader):
    """The template as it is written; short forms are left out of what is read."""


_RawLoader.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix} {node.value}")
RAW: dict[str, Any] = yaml.load((REPOSITORY / "template.yaml").read_text(), _RawLoader)


def of_type(type_name: str) -> dict[str, dict[str, Any]]:
    """Properties of all resources of a type, by logical id."""
    found = {name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == type_name}
    assert found
    return found


FUNCTIONS = of_type("AWS::Lambda::Function")
(STREAM_SOURCE,) = (
    source for source in of_type("AWS::Lambda::EventSourceMapping").values() if "StartingPosition" in source
)
(QUEUE_SOURCE,) = (
    source for source in of_type("AWS::Lambda::EventSourceMapping").values() if "StartingPosition" not in source
)
SETTINGS: dict[str, type[settings.Settings]] = {
    "ReceiveCallbackFunction": settings.ReceiveCallbackSettings,
    "DispatchChangesFunction": settings.DispatchChangesSettings,
    "PollTasksFunction": settings.PollTasksSettings,
    "ArchiveImagesFunction": settings.ArchiveImagesSettings,
    "ReconcileTasksFunction": settings.ReconcileTasksSettings,
}


def referred(value: Any) -> str:
    """The logical id that a Ref or GetAtt names."""
    (target,) = value.values()
    return str(target[0] if isinstance(target, list) else target)


# ------------------------------------------------------------------------------------------------ functions


def test_every_function_has_its_settings() -> None:
    assert FUNCTIONS.keys() == SETTINGS.keys()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_run_where_their_layer_was_built_for(name: str) -> None:
    function = FUNCTIONS[name]

    assert (function["Runtime"], function["Architectures"]) == ("python3.13", ["arm64"])
    (layer,) = function["Layers"]
    built = RESOURCES[referred(layer)]
    assert built["Properties"]["CompatibleRuntimes"] == ["python3.13"]
    assert built["Properties"]["CompatibleArchitectures"] == ["arm64"]
    assert RAW["Resources"]["ImageTasksLayer"]["Metadata"]["BuildArchitecture"] == "arm64"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_lies_where_its_name_says(name: str) -> None:
    folder = re.sub(r"(?<!^)(?=[A-Z])", "_", name.removesuffix("Function")).lower()

    assert EXPANDED.path_of(FUNCTIONS[name]["Code"]) == REPOSITORY / "functions" / folder
    assert FUNCTIONS[name]["Handler"] == "app.handler"
    assert (REPOSITORY / "functions" / folder / "app.py").is_file()


def test_every_function_has_a_role_of_its_own() -> None:
    assert len({referred(function["Role"]) for function in FUNCTIONS.values()}) == len(FUNCTIONS)


def test_every_function_has_a_log_group_of_its_own_that_forgets() -> None:
    groups = {name: referred(function["LoggingConfig"]["LogGroup"]) for name, function in FUNCTIONS.items()}

    assert len(set(groups.values())) == len(FUNCTIONS)
    for group in of_type("AWS::Logs::LogGroup").values():
        assert group["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_function_is_told_all_its_settings_and_nothing_else(name: str) -> None:
    told = FUNCTIONS[name]["Environment"]["Variables"].keys()
    # The table's name is in Globals; DispatchChanges gets its tasks from the stream.
    ours = {variable for variable in told if not variable.startswith("POWERTOOLS_")}
    read = {field.upper() for field in SETTINGS[name].model_fields}

    assert ours - {"TASKS_TABLE"} == read - {"TASKS_TABLE"}
    assert read <= ours


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_secret_lies_in_an_environment(name: str) -> None:
    for variable, value in FUNCTIONS[name]["Environment"]["Variables"].items():
        if "SECRET" in variable:
            assert RESOURCES[referred(value)]["Type"] == "AWS::SecretsManager::Secret"  # its ARN
        assert "resolve:secretsmanager" not in json.dumps(value)


# ------------------------------------------------------------------------------------------------ limits


def test_callbacks_are_answered_before_the_provider_hangs_up() -> None:
    ((_, path),) = RESOURCES["CallbackApi"]["Properties"]["Body"]["paths"].items()
    integration = path["post"]["x-amazon-apigateway-integration"]

    assert path.keys() == {"post"}
    assert integration["payloadFormatVersion"] == "2.0"
    assert FUNCTIONS["ReceiveCallbackFunction"]["Timeout"] * 1000 < integration["timeoutInMillis"] < 15_000


def test_a_function_outlives_its_slowest_calls_to_dynamodb() -> None:
    config = tasks_table.CLIENT_CONFIG
    tries = config.retries["total_max_attempts"]  # type: ignore[attr-defined]
    slowest = tries * (config.connect_timeout + config.read_timeout)  # type: ignore[attr-defined]

    assert slowest < FUNCTIONS["ReceiveCallbackFunction"]["Timeout"]


def test_a_confirmation_an_image_and_its_storage_fit_into_the_archivers_time() -> None:
    timeout = FUNCTIONS["ArchiveImagesFunction"]["Timeout"]

    assert timeout > 2 * image_fetching.FETCH_DEADLINE_SECONDS
    assert timeout > archive_images.CONFIRMATION_TIMEOUT_SECONDS + 1.5 * image_fetching.FETCH_DEADLINE_SECONDS


def test_a_poll_has_time_for_requests_and_for_writing_their_news() -> None:
    timeout = FUNCTIONS["PollTasksFunction"]["Timeout"]
    assert provider_client.REQUEST_TIMEOUT_SECONDS < poll_tasks.RESERVED_SECONDS < timeout / 2


def test_a_message_is_not_received_twice_while_it_is_worked_on() -> None:
    queue = RESOURCES["ArchiveQueue"]["Properties"]

    assert referred(QUEUE_SOURCE["EventSourceArn"]) == "ArchiveQueue"
    assert queue["VisibilityTimeout"] >= 6 * FUNCTIONS["ArchiveImagesFunction"]["Timeout"]


def test_the_last_try_that_the_function_knows_is_the_queues_last() -> None:
    redrive = RESOURCES["ArchiveQueue"]["Properties"]["RedrivePolicy"]

    assert redrive["maxReceiveCount"] == MAX_ARCHIVE_TRIES
    assert referred(redrive["deadLetterTargetArn"]) == "ArchiveDeadLetters"
    assert RESOURCES["ArchiveDeadLetters"]["Properties"]["MessageRetentionPeriod"] == 14 * 86_400


def test_a_batch_of_messages_has_a_thread_each() -> None:
    assert QUEUE_SOURCE["BatchSize"] == archive_images.MAX_MESSAGES


def test_messages_of_a_batch_fail_one_by_one() -> None:
    assert QUEUE_SOURCE["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert STREAM_SOURCE["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_record_that_cannot_be_dispatched_does_not_block_the_stream() -> None:
    assert STREAM_SOURCE["BisectBatchOnFunctionError"] is True
    assert 0 < STREAM_SOURCE["MaximumRetryAttempts"] <= 10
    assert 0 < STREAM_SOURCE["MaximumRecordAgeInSeconds"] <= 86_400
    failures = referred(STREAM_SOURCE["DestinationConfig"]["OnFailure"]["Destination"])
    assert RESOURCES[failures]["Properties"]["MessageRetentionPeriod"] == 14 * 86_400


def test_no_change_is_lost_while_the_stream_is_connected() -> None:
    assert STREAM_SOURCE["StartingPosition"] == "TRIM_HORIZON"
    assert RESOURCES["TasksTable"]["Properties"]["StreamSpecification"]["StreamViewType"] == "NEW_AND_OLD_IMAGES"


def test_a_batch_of_changes_fits_into_the_dispatchers_time() -> None:
    calls = STREAM_SOURCE["BatchSize"] / dispatch_changes.MAX_MESSAGES_PER_CALL

    assert calls <= FUNCTIONS["DispatchChangesFunction"]["Timeout"]


def test_the_state_machine_outlives_its_tasks_and_its_function() -> None:
    definition = yaml.safe_load(EXPANDED.path_of(machine()["DefinitionS3Location"]).read_text())

    assert definition["TimeoutSeconds"] > RAW["Parameters"]["GiveUpAfterSeconds"]["MaxValue"]
    assert definition["States"]["Poll tasks"]["TimeoutSeconds"] > FUNCTIONS["PollTasksFunction"]["Timeout"]
    assert machine()["StateMachineType"] == "STANDARD"


def test_the_state_machine_runs_the_poller() -> None:
    assert {name: referred(value) for name, value in machine()["DefinitionSubstitutions"].items()} == {
        "PollTasksFunctionArn": "PollTasksFunction"
    }


def machine() -> dict[str, Any]:
    (found,) = of_type("AWS::StepFunctions::StateMachine").values()
    return found


# ------------------------------------------------------------------------------------------------ the stream's filter

STATUSES = [None, "", *TaskStatus, "NEW"]  # no image; an item without status; one that is none of ours


def a_change(old: str | None, new: str | None, reported_by: str | None) -> dict[str, Any]:
    def image(status: str | None) -> dict[str, Any]:
        attributes = {"task": "flux-kontext#1", "status": status, "reportedBy": reported_by}
        return {name: {"S": value} for name, value in attributes.items() if value}

    images = {name: image(status) for name, status in (("OldImage", old), ("NewImage", new)) if status is not None}
    event = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
    change = {"Keys": {"task": {"S": "flux-kontext#1"}}, "SequenceNumber": "1", **images}
    return {"eventName": event, "eventSource": "aws:dynamodb", "dynamodb": change}


@pytest.mark.parametrize("reported_by", [None, *Reporter])
@pytest.mark.parametrize(
    ("old", "new"),
    [(old, new) for old, new in product(STATUSES, STATUSES) if (old, new) != (None, None)],
)
def test_the_filter_lets_through_what_is_handled_and_nothing_else(
    old: str | None, new: str | None, reported_by: str | None
) -> None:
    record = a_change(old, new, reported_by)
    patterns = [found["Pattern"] for found in STREAM_SOURCE["FilterCriteria"]["Filters"]]

    assert EventFilter(patterns).matches(record) == bool(list(dispatch_changes.read_changes([record])))


# ------------------------------------------------------------------------------------------------ what stays


@pytest.mark.parametrize("name", ["TasksTable", "ImagesBucket"])
def test_what_was_paid_for_outlives_the_stack(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == "Retain"
    assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_the_table_can_be_brought_back() -> None:
    table = RESOURCES["TasksTable"]["Properties"]

    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["DeletionProtectionEnabled"] is True
    assert table["BillingMode"] == "PAY_PER_REQUEST"


# ------------------------------------------------------------------------------------------------ who may do what


def test_the_bucket_is_private() -> None:
    bucket = RESOURCES["ImagesBucket"]["Properties"]

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]


def test_the_bucket_is_spoken_to_over_tls_only() -> None:
    policy = RESOURCES["ImagesBucketPolicy"]["Properties"]
    (statement,) = policy["PolicyDocument"]["Statement"]

    assert referred(policy["Bucket"]) == "ImagesBucket"
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert statement["Resource"] == [
        {"Fn::GetAtt": ["ImagesBucket", "Arn"]},
        {"Fn::Sub": "${ImagesBucket.Arn}/*"},
    ]


def test_kept_deliveries_are_forgotten_and_images_are_not() -> None:
    (rule,) = RESOURCES["ImagesBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]

    assert (rule["Status"], rule["Prefix"]) == ("Enabled", rejected_deliveries.PREFIX)
    assert rule["ExpirationInDays"] == {"Ref": "RejectedRetentionDays"}
    # The bucket is versioned: what has expired, or was replayed, is still there until this.
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 7}


def test_the_callbacks_function_can_keep_deliveries_and_touch_no_image() -> None:
    to_s3 = [
        (role, statement["Action"], statement["Resource"])
        for role, statement in own_statements()
        if "s3:" in str(statement["Action"])
    ]

    assert to_s3 == [
        ("ReceiveCallbackFunctionRole", "s3:PutObject", {"Fn::Sub": "${ImagesBucket.Arn}/rejected/*"}),
        (
            "ArchiveImagesFunctionRole",
            ["s3:PutObject", "s3:GetObject"],
            {"Fn::Sub": "${ImagesBucket.Arn}/images/*"},
        ),
    ]


def test_api_keys_are_read_by_those_who_ask_providers() -> None:
    readers = {
        role
        for role, statement in own_statements()
        if statement["Action"] == "secretsmanager:GetSecretValue" and "ProviderKeysSecret" in str(statement["Resource"])
    }

    # The callback's function reads the webhook keys, which lie in the same secret.
    assert readers == {"ReceiveCallbackFunctionRole", "PollTasksFunctionRole", "ArchiveImagesFunctionRole"}


def test_queues_are_encrypted() -> None:
    for queue in of_type("AWS::SQS::Queue").values():
        assert queue["SqsManagedSseEnabled"] is True


def own_statements() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, statement)
        for name, role in of_type("AWS::IAM::Role").items()
        for policy in role.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
    ]


@pytest.mark.parametrize(("role", "statement"), own_statements())
def test_no_statement_allows_more_than_one_thing_on_named_resources(role: str, statement: dict[str, Any]) -> None:
    actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]

    assert statement["Effect"] == "Allow"
    assert not [action for action in actions if "*" in action]
    assert len({action.partition(":")[0] for action in actions}) == 1
    for resource in resources:
        assert resource != "*"
        (function, value), *rest = resource.items()
        assert not rest
        if value == "${TasksTable.Arn}/index/byStatus":
            assert actions == ["dynamodb:Query"]
        elif function == "Fn::Sub":
            # The only objects there are, and each prefix has one function that writes it.
            prefix = {"ArchiveImagesFunctionRole": "images", "ReceiveCallbackFunctionRole": "rejected"}[role]
            assert value == f"${{ImagesBucket.Arn}}/{prefix}/*"
        else:
            assert referred(resource) in RESOURCES


def test_statements_of_the_template_have_names() -> None:
    names = [statement.get("Sid") for _, statement in own_statements() if "Sid" in statement]

    # SAM makes one more for the queue of what could not be dispatched.
    assert len(names) == len(own_statements()) - 1
    assert len(names) == len(set(names))


def test_only_the_api_and_the_state_machine_may_call_functions() -> None:
    ((_, permission),) = of_type("AWS::Lambda::Permission").items()

    assert (permission["Principal"], referred(permission["FunctionName"])) == (
        "apigateway.amazonaws.com",
        "ReceiveCallbackFunction",
    )
    assert "CallbackApi" in json.dumps(permission["SourceArn"])


# ------------------------------------------------------------------------------------------------ what strangers can do


def test_what_strangers_can_cost_is_bounded() -> None:
    stage = RESOURCES["CallbackApiApiGatewayDefaultStage"]["Properties"]

    assert stage["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "CallbackRateLimit"},
        "ThrottlingBurstLimit": {"Ref": "CallbackBurstLimit"},
    }


def test_the_access_log_holds_no_token() -> None:
    stage = RESOURCES["CallbackApiApiGatewayDefaultStage"]["Properties"]
    variables = set(re.findall(r"\$context\.[A-Za-z.]+", stage["AccessLogSettings"]["Format"]))

    assert "$context.routeKey" in variables
    assert not [name for name in variables if re.search("path|query|resource|protocol|header", name, re.IGNORECASE)]
    json.loads(stage["AccessLogSettings"]["Format"])


def test_the_callback_token_is_long_and_fits_its_pattern() -> None:
    generated = RESOURCES["CallbackTokenSecret"]["Properties"]["GenerateSecretString"]

    assert generated == {"PasswordLength": 48, "ExcludePunctuation": True}
    assert TOKEN_PATTERN.fullmatch("aZ0" * 16)


# ------------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("name", RAW["Parameters"])
def test_a_parameter_is_described_bounded_and_has_a_default(name: str) -> None:
    parameter = RAW["Parameters"][name]

    assert len(parameter["Description"]) > 20
    if parameter["Type"] == "Number" and "AllowedValues" not in parameter:
        assert parameter["MinValue"] <= parameter["Default"] <= parameter["MaxValue"]
    elif "AllowedPattern" in parameter:
        assert re.fullmatch(parameter["AllowedPattern"], parameter["Default"])
        assert parameter["ConstraintDescription"]
    else:
        assert parameter["Default"] in parameter["AllowedValues"]


def test_every_parameter_is_used_and_shown_in_one_group() -> None:
    text = json.dumps(RESOURCES)
    groups = RAW["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    shown = [name for group in groups for name in group["Parameters"]]

    assert sorted(shown) == sorted(RAW["Parameters"])
    assert [name for name in RAW["Parameters"] if f'{{"Ref": "{name}"}}' not in text] == []


@pytest.mark.parametrize(
    "value", ["flux-kontext=https://api.apikley.ru", "a=https://a.example,b=https://b.example:8443", ""]
)
def test_base_urls_that_the_function_takes(value: str) -> None:
    assert re.fullmatch(RAW["Parameters"]["ProviderBaseUrls"]["AllowedPattern"], value)
    assert settings.PollTasksSettings.from_environment(poll_environment(value)).provider_base_urls.keys() == {
        pair.partition("=")[0] for pair in value.split(",") if pair
    }


@pytest.mark.parametrize(
    "value", ["https://api.apikley.ru", "flux-kontext=http://x.example", "flux-kontext=", "a=https://"]
)
def test_base_urls_that_could_leak_a_key_or_mean_nothing(value: str) -> None:
    assert not re.fullmatch(RAW["Parameters"]["ProviderBaseUrls"]["AllowedPattern"], value)


def poll_environment(base_urls: str) -> dict[str, str]:
    environment = {name.upper(): "1" for name in settings.PollTasksSettings.model_fields}
    return environment | {"PROVIDER_BASE_URLS": base_urls}


@pytest.mark.parametrize("value", ["", "*", "images.example", "*.cdn.example,images.example"])
def test_image_hosts_that_the_function_takes(value: str) -> None:
    assert re.fullmatch(RAW["Parameters"]["AdditionalImageHosts"]["AllowedPattern"], value)


@pytest.mark.parametrize(
    "value", ["https://images.example", "images.example/", "*images.example", "a.example, b.example", "*,*"]
)
def test_image_hosts_that_would_match_nothing(value: str) -> None:
    assert not re.fullmatch(RAW["Parameters"]["AdditionalImageHosts"]["AllowedPattern"], value)


@pytest.mark.parametrize("name", RAW["Outputs"])
def test_an_output_says_what_it_is(name: str) -> None:
    assert len(RAW["Outputs"][name]["Description"]) > 20


# ------------------------------------------------------------------------------------------------ alarms


@pytest.mark.parametrize("name", of_type("AWS::CloudWatch::Alarm"))
def test_an_alarm_says_what_to_do_and_is_silent_where_nothing_happens(name: str) -> None:
    alarm = of_type("AWS::CloudWatch::Alarm")[name]

    assert alarm["AlarmDescription"].endswith(".")
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarm["AlarmActions"] == {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}


def test_alarms_watch_every_queue_that_has_to_be_empty_and_what_functions_count() -> None:
    alarms = of_type("AWS::CloudWatch::Alarm").values()

    queues = {referred(a["Dimensions"][0]["Value"]) for a in alarms if a["Namespace"] == "AWS/SQS"}
    assert queues == {"ArchiveDeadLetters", "DispatchFailures"}
    environment = FUNCTIONS["ReceiveCallbackFunction"]["Environment"]["Variables"]
    ours = [alarm for alarm in alarms if alarm["Namespace"] == environment["POWERTOOLS_METRICS_NAMESPACE"]]
    assert {alarm["MetricName"] for alarm in ours} == {"CallbacksRefuted", "DeliveriesKept"}
    for alarm in ours:
        assert alarm["Dimensions"] == [{"Name": "service", "Value": environment["POWERTOOLS_SERVICE_NAME"]}]

"""Defines the resource types and properties that the local stack supports, and how it creates each resource.

The local stack does not start if the template has other types or properties: ignored ones would differ from AWS.
"""

import json
from typing import Any

from local import LocalStackError
from local.account import ACCOUNT_ID, STACK_NAME, local_arn
from local.events.filters import EventFilter
from local.events.queue import MAX_MESSAGES_PER_CALL, QueueMapping
from local.events.schedule import DEFAULT_MAX_RETRIES, Schedule, rate_seconds
from local.events.stream import StreamMapping
from local.http.api import DEFAULT_INTEGRATION_TIMEOUT_SECONDS, Route, Stage
from local.lambda_.configuration import FunctionConfiguration
from local.template.deployment import DeployedApi, Deployment, Properties, Resource, ResourceType
from local.template.state_machine import state_machine_definition

# ------------------------------------------------------------------------------------------------ storage and events


def _make_table(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("TableName", f"{STACK_NAME}-{properties.logical_id}")
    request = properties.take_given(
        *("AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes", "LocalSecondaryIndexes"),
        *("ProvisionedThroughput", "DeletionProtectionEnabled"),
    )
    if stream := properties.take_group("StreamSpecification", "StreamViewType"):
        request["StreamSpecification"] = {"StreamEnabled": True, **stream}
    table = deployment.client("dynamodb").create_table(TableName=name, **request)["TableDescription"]
    attributes = {"Arn": table["TableArn"]}
    if stream:
        attributes["StreamArn"] = table["LatestStreamArn"]
    return Resource(name, attributes)


def _make_queue(deployment: Deployment, properties: Properties) -> Resource:
    sqs = deployment.client("sqs")
    name = properties.take("QueueName", f"{STACK_NAME}-{properties.logical_id}")
    given = properties.take_given(
        *("DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds"),
        *("RedrivePolicy", "SqsManagedSseEnabled", "VisibilityTimeout"),
    )
    attributes = {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return Resource(url, {"Arn": arn, "QueueName": name, "QueueUrl": url})


def _make_bucket(deployment: Deployment, properties: Properties) -> Resource:
    s3 = deployment.client("s3")
    name = properties.take("BucketName", f"{STACK_NAME}-{properties.logical_id}".lower())
    s3.create_bucket(Bucket=name)
    if versioning := properties.take_group("VersioningConfiguration", "Status"):
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
    if encryption := properties.take_group("BucketEncryption", "ServerSideEncryptionConfiguration"):
        rules = [
            {"ApplyServerSideEncryptionByDefault": rule["ServerSideEncryptionByDefault"]}
            for rule in encryption["ServerSideEncryptionConfiguration"]
        ]
        s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": rules})
    domain = f"{name}.s3.amazonaws.com"
    return Resource(name, {"Arn": f"arn:aws:s3:::{name}", "DomainName": domain, "RegionalDomainName": domain})


def _make_secret(deployment: Deployment, properties: Properties) -> Resource:
    secrets = deployment.client("secretsmanager")
    name = properties.take("Name", f"{STACK_NAME}-{properties.logical_id}")
    value = properties.take("SecretString")
    generate = properties.take("GenerateSecretString")
    if value is None and generate is not None:
        template, key = generate.pop("SecretStringTemplate", None), generate.pop("GenerateStringKey", None)
        value = secrets.get_random_password(**generate)["RandomPassword"]
        if key is not None:
            value = json.dumps({**json.loads(template or "{}"), key: value})
    arn = secrets.create_secret(Name=name, SecretString=value or "")["ARN"]
    return Resource(arn, {"Id": arn})


def _make_event_bus(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("Name")
    arn = deployment.client("events").create_event_bus(Name=name)["EventBusArn"]
    return Resource(name, {"Arn": arn, "Name": name})


def _make_rule(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("Name", f"{STACK_NAME}-{properties.logical_id}")
    bus = {"EventBusName": properties.take("EventBusName", "default")}
    pattern = properties.take("EventPattern")
    targets = properties.take("Targets", [])
    for target in targets:
        if unknown := sorted(target.keys() - {"Id", "Arn", "DeadLetterConfig"}):
            raise LocalStackError(f"{name}: {', '.join(unknown)} of a target is not supported by the local stack.")
        if target["Arn"].split(":")[2] != "sqs":
            raise LocalStackError(f"{name}: a target that is not a queue is not supported by the local stack.")
    events = deployment.client("events")
    arn = events.put_rule(Name=name, EventPattern=json.dumps(pattern), **bus)["RuleArn"]
    events.put_targets(Rule=name, Targets=targets, **bus)
    return Resource(name, {"Arn": arn})


# ------------------------------------------------------------------------------------------------ functions


def _make_layer(deployment: Deployment, properties: Properties) -> Resource:
    folder = deployment.template.path_of(properties.take("Content"))
    layer_arn = local_arn("lambda", f"layer:{properties.logical_id}:1")
    # A built layer contains python/. The folder of an unbuilt layer has the content of python/; functions import the
    # packages in its requirements.txt from the environment that runs the local stack.
    deployment.layers[layer_arn] = folder / "python" if (folder / "python").is_dir() else folder
    return Resource(layer_arn)


def _make_function(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("FunctionName", properties.logical_id)
    runtime = properties.take("Runtime", "")
    if not runtime.startswith("python"):
        raise LocalStackError(f"{name}: the local stack runs Python only, not {runtime!r}.")
    environment = properties.take_group("Environment", "Variables").get("Variables", {})
    logging = properties.take_group("LoggingConfig", "LogGroup")
    configuration = FunctionConfiguration(
        name=name,
        handler=properties.take("Handler"),
        folder=deployment.template.path_of(properties.take("Code")),
        runtime=runtime,
        layers=tuple(deployment.layers[arn] for arn in properties.take("Layers", [])),
        environment={key: _as_text(value) for key, value in environment.items()},
        timeout_seconds=float(properties.take("Timeout", 3)),
        memory_mb=int(properties.take("MemorySize", 128)),
        log_group=logging.get("LogGroup", f"/aws/lambda/{name}"),
    )
    deployment.functions[name] = configuration
    return Resource(name, {"Arn": configuration.arn})


def _make_version(deployment: Deployment, properties: Properties) -> Resource:
    function = deployment.functions[properties.take("FunctionName")]
    return Resource(f"{function.arn}:1", {"Version": "1", "FunctionArn": f"{function.arn}:1"})


def _make_alias(deployment: Deployment, properties: Properties) -> Resource:
    function = deployment.functions[properties.take("FunctionName")]
    if (version := properties.take("FunctionVersion")) != "1":
        raise LocalStackError(f"{properties.logical_id}: the local stack has one version of a function, not {version}.")
    arn = f"{function.arn}:{properties.take('Name')}"
    return Resource(arn, {"AliasArn": arn})


def _function_name(arn: str) -> str:
    # arn:aws:lambda:REGION:ACCOUNT:function:NAME, followed by :QUALIFIER for an alias or a version.
    return arn.split(":")[6]


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _make_event_source_mapping(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.logical_id
    arn = properties.take("EventSourceArn")
    function = properties.take("FunctionName").rpartition(":")[2]
    service = arn.split(":")[2]
    reports = properties.take("FunctionResponseTypes", []) == ["ReportBatchItemFailures"]
    is_enabled = properties.take("Enabled", True) not in (False, "false")
    if service == "sqs":
        batch_size = int(properties.take("BatchSize", 10))
        window = float(properties.take("MaximumBatchingWindowInSeconds", 0))
        if batch_size > MAX_MESSAGES_PER_CALL and not window:
            raise LocalStackError(f"{name}: Lambda requires a batching window for batches of more than 10 messages.")
        scaling = properties.take_group("ScalingConfig", "MaximumConcurrency")
        concurrency = int(scaling["MaximumConcurrency"]) if scaling else None
        mapping = QueueMapping(name, arn, deployment.queue_url(arn), batch_size, window, reports, concurrency)
        if is_enabled:
            deployment.queue_mappings.append((function, mapping))
        return Resource(name)
    if service != "dynamodb":
        raise LocalStackError(f"{name}: event source {arn} is not supported by the local stack.")
    filters = properties.take_group("FilterCriteria", "Filters").get("Filters", [])
    on_failure = properties.take_group("DestinationConfig", "OnFailure").get("OnFailure", {}).get("Destination")
    starting_position = properties.take("StartingPosition")
    if starting_position not in ("TRIM_HORIZON", "LATEST"):
        raise LocalStackError(f"{name}: StartingPosition must be TRIM_HORIZON or LATEST, not {starting_position}.")
    stream_mapping = StreamMapping(
        name=name,
        stream_arn=arn,
        filter=EventFilter([item["Pattern"] for item in filters]),
        starting_position=starting_position,
        batch_size=int(properties.take("BatchSize", 100)),
        batching_window_seconds=float(properties.take("MaximumBatchingWindowInSeconds", 0)),
        bisects_on_error=properties.take("BisectBatchOnFunctionError", False) in (True, "true"),
        max_retries=int(properties.take("MaximumRetryAttempts", -1)),
        max_record_age_seconds=float(properties.take("MaximumRecordAgeInSeconds", -1)),
        reports_item_failures=reports,
        on_failure_queue_url=deployment.queue_url(on_failure) if on_failure else None,
    )
    if is_enabled:
        deployment.stream_mappings.append((function, stream_mapping))
    return Resource(name)


def _make_schedule(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.logical_id
    target = properties.take_group("Target", "Arn", "RoleArn", "Input", "RetryPolicy", "DeadLetterConfig")
    function = target["Arn"].rpartition(":")[2]
    if function not in deployment.functions:
        raise LocalStackError(f"{name}: a schedule whose target is not a function is not supported by the local stack.")
    dead_letters = target.get("DeadLetterConfig", {}).get("Arn")
    schedule = Schedule(
        name=name,
        function=function,
        rate_seconds=rate_seconds(name, properties.take("ScheduleExpression")),
        input=target.get("Input"),
        max_retries=int(target.get("RetryPolicy", {}).get("MaximumRetryAttempts", DEFAULT_MAX_RETRIES)),
        dead_letter_queue_url=deployment.queue_url(dead_letters) if dead_letters else None,
    )
    if properties.take("State", "ENABLED") == "ENABLED":
        deployment.schedules.append(schedule)
    return Resource(name, {"Arn": local_arn("scheduler", f"schedule/default/{name}")})


# ------------------------------------------------------------------------------------------------ API, state machine


def _make_api(deployment: Deployment, properties: Properties) -> Resource:
    api = DeployedApi(deployment.api_url(properties.logical_id))
    for path, operations in properties.take("Body")["paths"].items():
        for method, operation in operations.items():
            integration = operation["x-amazon-apigateway-integration"]
            kind = integration["type"], integration["payloadFormatVersion"]
            security = operation.get("security", [])
            if kind != ("aws_proxy", "2.0") or security not in ([], [{"AWS_IAM": []}]):
                raise LocalStackError(
                    f"{method.upper()} {path}: the local stack supports only Lambda routes with payload format 2.0, "
                    "without authorization or with AWS_IAM."
                )
            # ...:lambda:path/2015-03-31/functions/ARN/invocations
            function = _function_name(integration["uri"].split("/functions/")[1].split("/")[0])
            seconds = float(integration.get("timeoutInMillis", DEFAULT_INTEGRATION_TIMEOUT_SECONDS * 1000)) / 1000
            route_method = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
            api.routes.append(Route(route_method, path, function, seconds, is_signed=bool(security)))
    deployment.apis[properties.logical_id] = api
    return Resource(properties.logical_id, {"ApiEndpoint": api.url, "ApiId": properties.logical_id})


def _make_stage(deployment: Deployment, properties: Properties) -> Resource:
    if (name := properties.take("StageName")) != "$default":
        raise LocalStackError(f"Stage {name} is not supported by the local stack, which supports $default only.")
    limits = properties.take_group("DefaultRouteSettings", "ThrottlingRateLimit", "ThrottlingBurstLimit")
    access_log = properties.take_group("AccessLogSettings", "DestinationArn", "Format")
    deployment.apis[properties.take("ApiId")].stage = Stage(
        rate_limit=float(limits["ThrottlingRateLimit"]) if "ThrottlingRateLimit" in limits else None,
        burst_limit=int(limits["ThrottlingBurstLimit"]) if "ThrottlingBurstLimit" in limits else None,
        access_log_format=access_log.get("Format", ""),
    )
    return Resource(name)


def _make_state_machine(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("StateMachineName", f"{STACK_NAME}-{properties.logical_id}")
    substitutions = properties.take("DefinitionSubstitutions", {})
    path = deployment.template.path_of(properties.take("DefinitionS3Location"))
    arn = deployment.client("stepfunctions").create_state_machine(
        name=name,
        definition=state_machine_definition(path, substitutions),
        roleArn=f"arn:aws:iam::{ACCOUNT_ID}:role/{name}",
        type=properties.take("StateMachineType", "STANDARD"),
    )["stateMachineArn"]
    return Resource(arn, {"Arn": arn, "Name": name})


# ------------------------------------------------------------------------------------------------ all types

_PERMISSIONS = "local/permissions reads it from the template"
_NO_METRICS = "metrics are not collected locally"
_NO_TRACES = "traces are not collected locally"
_NO_DOMAIN = "the local APIs have addresses of this machine"
_NO_STORAGE = "all data is deleted when the stack stops"
_ARCHITECTURE = "sandboxes have the architecture of this machine"

RESOURCE_TYPES = {
    "AWS::ApiGatewayV2::Api": ResourceType(_make_api),
    "AWS::ApiGatewayV2::Stage": ResourceType(_make_stage, without_effect={"AutoDeploy": "there is one deployment"}),
    "AWS::ApiGatewayV2::DomainName": ResourceType(None, _NO_DOMAIN),
    "AWS::ApiGatewayV2::ApiMapping": ResourceType(None, _NO_DOMAIN),
    "AWS::Route53::RecordSet": ResourceType(None, _NO_DOMAIN),
    "AWS::CloudWatch::Alarm": ResourceType(None, _NO_METRICS),
    "AWS::CloudWatch::Dashboard": ResourceType(None, _NO_METRICS),
    "AWS::SNS::Topic": ResourceType(None, _NO_METRICS),
    "AWS::DynamoDB::Table": ResourceType(
        _make_table,
        without_effect={
            "ContributorInsightsSpecification": _NO_METRICS,
            "PointInTimeRecoverySpecification": _NO_STORAGE,
            "SSESpecification": "items are not written to disk",
            "TimeToLiveSpecification": "moto does not delete expired items; AWS deletes them within days",
        },
    ),
    "AWS::Events::EventBus": ResourceType(_make_event_bus),
    "AWS::Events::Rule": ResourceType(_make_rule),
    "AWS::IAM::Role": ResourceType(None, _PERMISSIONS),
    "AWS::Lambda::Alias": ResourceType(_make_alias),
    "AWS::Lambda::EventSourceMapping": ResourceType(_make_event_source_mapping),
    "AWS::Lambda::Function": ResourceType(
        _make_function,
        without_effect={
            "Architectures": _ARCHITECTURE,
            "EphemeralStorage": "sandboxes use the temporary folder of this machine",
            "ReservedConcurrentExecutions": "each function has its own sandboxes",
            "Role": _PERMISSIONS,
            "SnapStart": "every sandbox has a cold start",
            "TracingConfig": _NO_TRACES,
        },
    ),
    "AWS::Lambda::LayerVersion": ResourceType(
        _make_layer,
        without_effect={
            "CompatibleArchitectures": _ARCHITECTURE,
            "CompatibleRuntimes": "sandboxes run the interpreter of the local stack",
            "LayerName": "",
        },
    ),
    "AWS::Lambda::Permission": ResourceType(None, _PERMISSIONS),
    "AWS::Lambda::Version": ResourceType(_make_version),
    "AWS::Logs::LogGroup": ResourceType(None, "logs are files below the state folder, kept until the next start"),
    "AWS::Logs::MetricFilter": ResourceType(None, _NO_METRICS),
    "AWS::S3::Bucket": ResourceType(
        _make_bucket,
        without_effect={
            "LifecycleConfiguration": _NO_STORAGE,
            "LoggingConfiguration": "access logs of the bucket are not written locally",
            "OwnershipControls": "there is one account",
            "PublicAccessBlockConfiguration": "the template's bucket policy grants no access",
        },
    ),
    "AWS::S3::BucketPolicy": ResourceType(None, _PERMISSIONS),
    "AWS::Scheduler::Schedule": ResourceType(
        _make_schedule,
        without_effect={
            "FlexibleTimeWindow": "schedules run on time",
            "Name": "",
        },
    ),
    "AWS::SecretsManager::Secret": ResourceType(_make_secret),
    "AWS::SQS::Queue": ResourceType(_make_queue),
    "AWS::SQS::QueuePolicy": ResourceType(None, _PERMISSIONS),
    "AWS::StepFunctions::StateMachine": ResourceType(
        _make_state_machine,
        without_effect={
            "LoggingConfiguration": "moto's Step Functions has the history of each execution",
            "RoleArn": _PERMISSIONS,
            "TracingConfiguration": _NO_TRACES,
        },
    ),
}

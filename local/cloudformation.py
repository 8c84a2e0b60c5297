"""Makes the resources of an expanded template: what moto can hold in moto, functions and APIs for the stack to run.

Stops on a resource type or a property that it doesn't know. What has no effect on one machine is listed, and why.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import LocalStackError
from local.event_filters import EventFilter
from local.http_api import DEFAULT_INTEGRATION_TIMEOUT_SECONDS, Route, Stage
from local.lambda_runtime import FunctionConfiguration
from local.queue_event_source import QueueMapping
from local.stream_event_source import StreamMapping
from local.template import ACCOUNT_ID, REGION, STACK_NAME, Resolver, Template, state_machine_definition

TYPES_WITHOUT_EFFECT = {
    "AWS::CloudWatch::Alarm": "metrics are not collected locally",
    "AWS::CloudWatch::Dashboard": "metrics are not collected locally",
    "AWS::IAM::Role": "permissions are not checked locally",
    "AWS::IAM::ManagedPolicy": "permissions are not checked locally",
    "AWS::Lambda::Permission": "permissions are not checked locally",
    "AWS::Logs::LogGroup": "logs are files below the state folder, kept until the next start",
    "AWS::Logs::MetricFilter": "metrics are not collected locally",
    "AWS::S3::BucketPolicy": "moto refuses by a policy without looking at its conditions, as at TlsOnly's",
    "AWS::SQS::QueuePolicy": "permissions are not checked locally",
}

PROPERTIES_WITHOUT_EFFECT = {
    "AWS::ApiGatewayV2::Api": {"FailOnWarnings": "an unknown property stops the start in any case"},
    "AWS::ApiGatewayV2::Stage": {"AutoDeploy": "there is one deployment", "Tags": "", "ApiId": "there is one API"},
    "AWS::DynamoDB::Table": {
        "PointInTimeRecoverySpecification": "nothing outlives the process",
        "SSESpecification": "nothing is written to disk",
        "TimeToLiveSpecification": "moto never deletes what expired, and AWS may take days",
        "ContributorInsightsSpecification": "metrics are not collected locally",
        "Tags": "",
    },
    "AWS::Lambda::Function": {
        "Architectures": "the sandbox runs on this machine's",
        "Description": "",
        "Role": "permissions are not checked locally",
        "Tags": "",
        "TracingConfig": "traces are not collected locally",
    },
    "AWS::Lambda::LayerVersion": {
        "CompatibleArchitectures": "the sandbox runs on this machine's",
        "CompatibleRuntimes": "the sandbox runs on this machine's Python",
        "Description": "",
        "LayerName": "",
    },
    "AWS::S3::Bucket": {
        "LifecycleConfiguration": "nothing outlives the process",
        "OwnershipControls": "permissions are not checked locally",
        "PublicAccessBlockConfiguration": "permissions are not checked locally",
        "Tags": "",
    },
    "AWS::SecretsManager::Secret": {"Tags": ""},
    "AWS::SQS::Queue": {"Tags": ""},
    "AWS::StepFunctions::StateMachine": {
        "LoggingConfiguration": "the history of an execution can be asked of Step Functions",
        "RoleArn": "permissions are not checked locally",
        "Tags": "",
        "TracingConfiguration": "traces are not collected locally",
    },
}


class Properties:
    """A resource's resolved properties. What nobody has taken in the end is unknown, and stops the start."""

    def __init__(self, logical_id: str, type_name: str, values: dict[str, Any]) -> None:
        self.logical_id = logical_id
        self._type = type_name
        ignored = PROPERTIES_WITHOUT_EFFECT.get(type_name, {})
        self._values = {name: value for name, value in values.items() if name not in ignored}

    def take(self, name: str, default: Any = None) -> Any:
        return self._values.pop(name, default)

    def take_group(self, name: str, *members: str) -> dict[str, Any]:
        """An object of which only these members are known."""
        group: dict[str, Any] = self.take(name) or {}
        if unknown := set(group) - set(members):
            self._refuse(", ".join(f"{name}.{member}" for member in sorted(unknown)))
        return group

    def take_rest(self) -> dict[str, Any]:
        rest, self._values = self._values, {}
        return rest

    def check_all_taken(self) -> None:
        if self._values:
            self._refuse(", ".join(sorted(self._values)))

    def _refuse(self, names: str) -> None:
        raise LocalStackError(
            f"{self.logical_id} ({self._type}): {names} is unknown to the local stack. Teach local/cloudformation.py "
            "what it does, or list it there as without effect."
        )


@dataclass(frozen=True)
class Resource:
    """What Ref and GetAtt give for a resource."""

    ref: str
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass
class Deployment:
    """A template turned into resources: `resources` by logical id, and what the stack has to run itself.

    `client(service)` gives a boto3 client. `overrides` replaces properties: {logical id: {property: value}}.
    """

    template: Template
    client: Callable[[str], Any]
    api_url: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    functions: dict[str, FunctionConfiguration] = field(default_factory=dict)
    stream_mappings: list[tuple[str, StreamMapping]] = field(default_factory=list)
    queue_mappings: list[tuple[str, QueueMapping]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    stage: Stage = field(default_factory=Stage)
    layers: dict[str, Path] = field(default_factory=dict)
    _under_way: list[str] = field(default_factory=list)

    def deploy(self) -> None:
        """Makes every resource; what one refers to is made before it.

        Raises LocalStackError for what cannot run locally.
        """
        self.resolver = Resolver(self.template, lambda name: self._made(name).ref, self._attribute)
        for logical_id, resource in self.template.resources.items():
            if "Condition" not in resource or self.resolver.condition(resource["Condition"]):
                self._made(logical_id)

    def of_type(self, type_name: str) -> list[str]:
        """The logical ids of this type's resources."""
        return [name for name, resource in self.template.resources.items() if resource["Type"] == type_name]

    def queue_url(self, arn: str) -> str:
        return next(resource.ref for resource in self.resources.values() if resource.attributes.get("Arn") == arn)

    def _made(self, logical_id: str) -> Resource:
        if logical_id in self.resources:
            return self.resources[logical_id]
        if logical_id not in self.template.resources:
            raise LocalStackError(f"The template refers to {logical_id}, which is neither parameter nor resource.")
        if logical_id in self._under_way:
            raise LocalStackError(f"Resources refer to each other in a circle: {' -> '.join(self._under_way)}.")
        self._under_way.append(logical_id)
        self.resources[logical_id] = self._make(logical_id, self.template.resources[logical_id])
        self._under_way.pop()
        return self.resources[logical_id]

    def _make(self, logical_id: str, resource: dict[str, Any]) -> Resource:
        type_name = resource["Type"]
        if type_name in TYPES_WITHOUT_EFFECT:
            name = f"{STACK_NAME}-{logical_id}"
            return Resource(name, {"Arn": f"arn:aws:{type_name.split('::')[1].lower()}:{REGION}:{ACCOUNT_ID}:{name}"})
        if type_name not in _MAKERS:
            raise LocalStackError(
                f"{logical_id}: resource type {type_name} is unknown to the local stack. Teach local/cloudformation.py "
                "to make it, or list it there as without effect."
            )
        values = self.resolver.resolve(resource.get("Properties", {}) | self.overrides.get(logical_id, {}))
        properties = Properties(logical_id, type_name, values)
        made = _MAKERS[type_name](self, properties)
        properties.check_all_taken()
        return made

    def _attribute(self, logical_id: str, name: str) -> str:
        attributes = self._made(logical_id).attributes
        if name not in attributes:
            raise LocalStackError(f"{logical_id}.{name} is unknown to the local stack; known are {sorted(attributes)}.")
        return attributes[name]


# ------------------------------------------------------------------------------------------------ data


def _make_table(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("TableName", f"{STACK_NAME}-{properties.logical_id}")
    request = {
        key: value
        for key in (
            *("AttributeDefinitions", "KeySchema", "BillingMode", "GlobalSecondaryIndexes", "LocalSecondaryIndexes"),
            *("ProvisionedThroughput", "DeletionProtectionEnabled"),
        )
        if (value := properties.take(key)) is not None
    }
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
    attributes = {}
    for key in (
        *("DelaySeconds", "MaximumMessageSize", "MessageRetentionPeriod", "ReceiveMessageWaitTimeSeconds"),
        *("RedrivePolicy", "SqsManagedSseEnabled", "VisibilityTimeout"),
    ):
        if (value := properties.take(key)) is not None:
            attributes[key] = value if isinstance(value, str) else json.dumps(value)
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
    arn = secrets.create_secret(Name=name, Description=properties.take("Description", ""), SecretString=value or "")[
        "ARN"
    ]
    return Resource(arn, {"Id": arn})


# ------------------------------------------------------------------------------------------------ functions


def _make_layer(deployment: Deployment, properties: Properties) -> Resource:
    folder = deployment.template.path_of(properties.take("Content"))
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:layer:{properties.logical_id}:1"
    # A layer that is built has python/ inside; the source that it is built from is what would come in there. What the
    # layer's requirements.txt installs comes from the environment that runs the local stack.
    deployment.layers[arn] = folder / "python" if (folder / "python").is_dir() else folder
    return Resource(arn)


def _make_function(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.take("FunctionName", properties.logical_id)
    runtime = properties.take("Runtime", "")
    if not runtime.startswith("python"):
        raise LocalStackError(f"{name}: runtime {runtime!r} is unknown to the local stack, which runs Python only.")
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


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _make_event_source_mapping(deployment: Deployment, properties: Properties) -> Resource:
    name = properties.logical_id
    arn = properties.take("EventSourceArn")
    function = properties.take("FunctionName").rpartition(":")[2]
    service = arn.split(":")[2]
    reports = properties.take("FunctionResponseTypes", []) == ["ReportBatchItemFailures"]
    if properties.take("Enabled", True) in (False, "false"):
        properties.take_rest()
        return Resource(name)
    if service == "sqs":
        batch_size = int(properties.take("BatchSize", 10))
        if batch_size > 10:
            raise LocalStackError(f"{name}: batches of more than 10 messages are unknown to the local stack.")
        scaling = properties.take_group("ScalingConfig", "MaximumConcurrency")
        concurrency = int(scaling["MaximumConcurrency"]) if scaling else None
        mapping = QueueMapping(name, arn, deployment.queue_url(arn), batch_size, reports, concurrency)
        deployment.queue_mappings.append((function, mapping))
        return Resource(name)
    if service != "dynamodb":
        raise LocalStackError(f"{name}: event source {arn} is unknown to the local stack.")
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
    deployment.stream_mappings.append((function, stream_mapping))
    return Resource(name)


# ------------------------------------------------------------------------------------------------ API, state machine


def _make_api(deployment: Deployment, properties: Properties) -> Resource:
    if deployment.routes:
        raise LocalStackError("The local stack has one HTTP API; the template has several.")
    for path, operations in properties.take("Body")["paths"].items():
        for method, operation in operations.items():
            integration = operation["x-amazon-apigateway-integration"]
            kind = integration["type"], integration["payloadFormatVersion"]
            if kind != ("aws_proxy", "2.0") or operation.get("security"):
                raise LocalStackError(
                    f"{method.upper()} {path}: only open Lambda routes of payload format 2.0 run locally."
                )
            # ...:lambda:path/2015-03-31/functions/ARN/invocations
            function = integration["uri"].split("/functions/")[1].split("/")[0].rpartition(":")[2]
            seconds = float(integration.get("timeoutInMillis", DEFAULT_INTEGRATION_TIMEOUT_SECONDS * 1000)) / 1000
            route_method = "ANY" if method == "x-amazon-apigateway-any-method" else method.upper()
            deployment.routes.append(Route(route_method, path, function, seconds))
    return Resource("local", {"ApiEndpoint": deployment.api_url, "ApiId": "local"})


def _make_stage(deployment: Deployment, properties: Properties) -> Resource:
    if (name := properties.take("StageName")) != "$default":
        raise LocalStackError(f"Stage {name} is unknown to the local stack, which has $default only.")
    limits = properties.take_group("DefaultRouteSettings", "ThrottlingRateLimit", "ThrottlingBurstLimit")
    access_log = properties.take_group("AccessLogSettings", "DestinationArn", "Format")
    deployment.stage = Stage(
        rate_limit=float(limits["ThrottlingRateLimit"]) if "ThrottlingRateLimit" in limits else None,
        burst_limit=int(limits["ThrottlingBurstLimit"]) if "ThrottlingBurstLimit" in limits else None,
        access_log_name=access_log["DestinationArn"].rpartition("-")[2] if access_log else None,
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


_MAKERS: dict[str, Callable[[Deployment, Properties], Resource]] = {
    "AWS::ApiGatewayV2::Api": _make_api,
    "AWS::ApiGatewayV2::Stage": _make_stage,
    "AWS::DynamoDB::Table": _make_table,
    "AWS::Lambda::EventSourceMapping": _make_event_source_mapping,
    "AWS::Lambda::Function": _make_function,
    "AWS::Lambda::LayerVersion": _make_layer,
    "AWS::S3::Bucket": _make_bucket,
    "AWS::SecretsManager::Secret": _make_secret,
    "AWS::SQS::Queue": _make_queue,
    "AWS::StepFunctions::StateMachine": _make_state_machine,
}

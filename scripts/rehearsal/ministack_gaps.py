"""Works around the differences between MiniStack and AWS, one function for each.

Changes are made to a copy of the built template, or by API calls after the deployment. Functions and layer remain as
built. A test checks that the copy differs in these changes only.
"""

import copy
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from local.account import ACCOUNT_ID, REGION
from local.template.expand import load_template
from local.template.intrinsic_functions import Resolver
from scripts.rehearsal.emulator import MiniStack
from scripts.rehearsal.receiver import SECRET

Template = dict[str, Any]


def rehearsed_template(template: Template, folder: Path, state_machines: Path) -> Template:
    """Returns a copy of a built template that MiniStack can deploy. `folder` is the folder of the built template.

    Writes the state machines' definitions as JSON to the folder `state_machines`.
    """
    changed = copy.deepcopy(template)
    _absolute_paths(changed, folder)
    _json_definitions(changed, state_machines)
    _no_metric_math(changed)
    _numeric_concurrency(changed)
    _secrets_by_arn(changed)
    _batches_of_messages(changed)
    _without_tls(changed)
    return changed


def _resources(template: Template, type_name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, resource in template["Resources"].items():
        if resource["Type"] == type_name:
            yield name, resource.get("Properties", {})


def _absolute_paths(template: Template, folder: Path) -> None:
    """Makes paths absolute, because the copy is in another folder. AWS would require this, too."""
    for type_name, location in (
        ("AWS::Serverless::Function", "CodeUri"),
        ("AWS::Serverless::LayerVersion", "ContentUri"),
        ("AWS::Serverless::StateMachine", "DefinitionUri"),
    ):
        for _, properties in _resources(template, type_name):
            properties[location] = str((folder / properties[location]).resolve())


def _json_definitions(template: Template, folder: Path) -> None:
    """Converts state machines to JSON: MiniStack does not parse a DefinitionS3Location in YAML."""
    for name, properties in _resources(template, "AWS::Serverless::StateMachine"):
        definition = yaml.safe_load(Path(properties["DefinitionUri"]).read_text())
        path = folder / f"{name}.asl.json"
        path.write_text(json.dumps(definition))
        properties["DefinitionUri"] = str(path)


def _no_metric_math(template: Template) -> None:
    """Removes alarms with `Metrics`, which MiniStack rejects."""
    for name, properties in [*_resources(template, "AWS::CloudWatch::Alarm")]:
        if "Metrics" in properties:
            del template["Resources"][name]


def _numeric_concurrency(template: Template) -> None:
    """Replaces MaximumConcurrency by its parameter's default as a number: a string stops MiniStack's queue poller."""
    for _, properties in _resources(template, "AWS::Serverless::Function"):
        for event in properties.get("Events", {}).values():
            scaling = event["Properties"].get("ScalingConfig", {})
            if isinstance(reference := scaling.get("MaximumConcurrency"), dict):
                scaling["MaximumConcurrency"] = int(template["Parameters"][reference["Ref"]]["Default"])


def _secrets_by_arn(template: Template) -> None:
    """Replaces `Ref` of secrets in IAM statements by GetAtt Id, an ARN in AWS too: MiniStack's `Ref` is the name."""
    secrets = {name for name, _ in _resources(template, "AWS::SecretsManager::Secret")}

    def by_arn(value: Any) -> Any:
        if isinstance(value, list):
            return [by_arn(each) for each in value]
        if isinstance(value, dict) and value.get("Ref") in secrets:
            return {"Fn::GetAtt": [value["Ref"], "Id"]}
        return value

    for statement in _statements(template):
        statement["Resource"] = by_arn(statement["Resource"])


def _batches_of_messages(template: Template) -> None:
    """Adds sqs:SendMessageBatch to sqs:SendMessage: MiniStack, unlike AWS, requires a permission for batches."""
    for statement in _statements(template):
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if "sqs:SendMessage" in actions:
            statement["Action"] = [*actions, "sqs:SendMessageBatch"]


def _without_tls(template: Template) -> None:
    """Allows plain HTTP, which all services on this machine use.

    Removes the bucket policy, which denies plain HTTP, and the patterns of ProviderBaseUrls and WebhookUrl, which
    require https://.
    """
    for name, _ in [*_resources(template, "AWS::S3::BucketPolicy")]:
        del template["Resources"][name]
    for parameter in ("ProviderBaseUrls", "WebhookUrl"):
        del template["Parameters"][parameter]["AllowedPattern"]


def _statements(template: Template) -> Iterator[dict[str, Any]]:
    for type_name in ("AWS::Serverless::Function", "AWS::Serverless::StateMachine"):
        for _, properties in _resources(template, type_name):
            for policy in properties.get("Policies", []):
                for statement in policy["Statement"]:
                    # An !If contains the statement and its alternative.
                    choices = statement.get("Fn::If", [None, statement])[1:]
                    yield from (choice for choice in choices if "Action" in choice)


def make_routes(ministack: MiniStack, template: Path, resources: Mapping[str, str]) -> None:
    """Creates the routes of the HTTP APIs once, from the expanded template: MiniStack ignores the `Body` of an API."""
    expanded = load_template(template, {})
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:"
    resolver = Resolver(expanded, lambda name: resources[name], lambda name, _: arn + resources[name])
    client = ministack.client("apigatewayv2")
    for name in expanded.of_type("AWS::ApiGatewayV2::Api"):
        api = resources[name]
        if client.get_routes(ApiId=api)["Items"]:
            continue
        body = resolver.resolve(expanded.resources[name]["Properties"]["Body"])
        for path, methods in body["paths"].items():
            for method, operation in methods.items():
                integration = operation["x-amazon-apigateway-integration"]
                created = client.create_integration(
                    ApiId=api,
                    IntegrationType="AWS_PROXY",
                    IntegrationUri=integration["uri"],
                    PayloadFormatVersion=integration["payloadFormatVersion"],
                    TimeoutInMillis=integration["timeoutInMillis"],
                )
                client.create_route(
                    ApiId=api,
                    RouteKey=f"{method.upper()} {path}",
                    Target=f"integrations/{created['IntegrationId']}",
                    AuthorizationType="AWS_IAM" if operation.get("security") == [{"AWS_IAM": []}] else "NONE",
                )


def put_secrets(ministack: MiniStack, resources: Mapping[str, str]) -> str:
    """Stores a callback token and the receiver's webhook secret, and returns the token.

    MiniStack ignores ExcludePunctuation when it generates secrets, and punctuation is neither safe in a URL's path nor
    base64.
    """
    token = "rehearsal" * 5
    client = ministack.client("secretsmanager")
    client.put_secret_value(SecretId=resources["CallbackTokenSecret"], SecretString=token)
    if "WebhookSecret" in resources:  # if the stack sends webhooks
        client.put_secret_value(SecretId=resources["WebhookSecret"], SecretString=SECRET)
    return token


@contextmanager
def names_below_localhost() -> Iterator[None]:
    """Resolves names below .localhost to 127.0.0.1 in this process, until the end of the block.

    MiniStack serves APIs at ID.execute-api.localhost, which not every system resolves.
    """
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        is_below = isinstance(host, str) and host.endswith(".localhost")
        return resolve("127.0.0.1" if is_below else host, *args, **kwargs)

    with mock.patch.object(socket, "getaddrinfo", getaddrinfo):
        yield

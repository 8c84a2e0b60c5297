"""The callback function's version: each change of the function publishes one, and no other change does.

The API calls the alias of a published version. With too few versions, callbacks would be received with old settings.
With one too many, the deployment fails: Lambda refuses to publish a version without changes.
"""

import json
import re
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local.template.expand import load_template
from local.template.intrinsic_functions import Resolver
from local.template.parse import read_template
from tests.unit.template.expanded import FUNCTIONS, RAW, REPOSITORY, RESOURCES, of_type
from tests.unit.template.expanded import referred as referred_to
from tests.unit.template.resource_schemas import resource_schema

FUNCTION = "ReceiveCallbackFunction"
TEXT = (REPOSITORY / "template.yaml").read_text()
# These properties belong to the function and not to its versions: a change of them publishes none.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-versions.html
UNVERSIONED = {"ReservedConcurrentExecutions", "Tags"}
# Values of the parameters that have a pattern: their bounds do not give a valid value.
VALUES = {
    "WebhookUrl": ["https://hooks.example.com/catchlight"],
    "ProviderBaseUrls": ["flux-kontext=https://api.apikley.ru"],
    "AdditionalImageHosts": ["*", "images.example"],
    "CallbackDomain": ["callbacks.example.com"],
    "CallbackCertificateArn": ["arn:aws:acm:us-east-1:123456789012:certificate/0-1"],
    "CallbackHostedZoneId": ["Z0123456789ABC"],
    "AlarmEmail": ["operators@example.com"],
    "AlarmTopicArn": ["arn:aws:sns:us-east-1:123456789012:operators"],
    "AccessLogBucket": ["access-logs.example"],
}
LONGEST_DESCRIPTION = 256  # Lambda's
(VERSION,) = of_type("AWS::Lambda::Version")
(ALIAS,) = of_type("AWS::Lambda::Alias")


class Deployed(NamedTuple):
    """The resolved properties that CloudFormation compares with those of the deployed stack. A Ref is a logical id."""

    function: dict[str, Any]  # the properties that are part of a version
    version: tuple[str, dict[str, Any]]  # its logical id, its properties


@cache
def function_alone(text: str) -> str:
    """Returns the template as JSON, reduced to what the function depends on: it expands ten times faster."""
    raw = read_template(text)
    del raw["Outputs"]
    raw["Resources"] = {name: raw["Resources"][name] for name in (FUNCTION, "CallbackApi", "CatchlightLayer")}
    return json.dumps(raw)


@cache
def deployed(text: str = TEXT, *, is_whole: bool = False, **parameters: str) -> Deployed:
    """Returns the function and its version with these parameters. `is_whole` expands all resources of the template."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.yaml"
        path.write_text(text if is_whole else function_alone(text))
        template = load_template(path, parameters)
    resolver = Resolver(template, str, lambda name, attribute: f"{name}.{attribute}")
    function = resolver.resolve(template.resources[FUNCTION]["Properties"])
    (version,) = template.of_type("AWS::Lambda::Version")
    return Deployed(
        {name: value for name, value in function.items() if name not in UNVERSIONED},
        (version, resolver.resolve(template.resources[version]["Properties"])),
    )


def edited(old: str, new: str, text: str = TEXT) -> str:
    """Returns the template with one change."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def other_values(name: str) -> Iterator[str]:
    """Yields values of a parameter other than its default: all allowed values, or its bounds."""
    parameter = RAW["Parameters"][name]
    if "AllowedValues" in parameter:
        values = parameter["AllowedValues"]
    elif parameter["Type"] == "Number":
        values = [parameter["MinValue"], parameter["MaxValue"]]
    else:
        values = VALUES[name]
    return (str(value) for value in values if value != parameter["Default"])


CHANGES = [(name, value) for name in RAW["Parameters"] for value in other_values(name)]


@pytest.mark.parametrize(("name", "value"), CHANGES)
def test_a_parameter_publishes_a_version_exactly_if_the_function_changes(name: str, value: str) -> None:
    before, after = deployed(), deployed(**{name: value})

    assert (after.version != before.version) == (after.function != before.function)


def test_there_are_parameters_that_change_the_function() -> None:
    changing = {name for name, value in CHANGES if deployed(**{name: value}).function != deployed().function}

    assert changing >= {"LogLevel", "SnapStart", "TaskRetentionDays", "Tracing"}


def test_without_the_description_a_parameter_publishes_no_version() -> None:
    # The test above can fail: https://github.com/aws/serverless-application-model/issues/3820
    described = re.search(r" +VersionDescription: .*\n.*\n", TEXT)
    assert described
    undescribed = edited(described[0], "")
    before, after = deployed(undescribed), deployed(undescribed, LogLevel="DEBUG")

    assert after.function != before.function
    assert after.version == before.version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # `sam deploy` replaces this path by the location of the uploaded code. Other code has another location.
        ("CodeUri: functions/receive_callback", "CodeUri: s3://artifacts/another"),
        ("ContentUri: layers/catchlight/python", "ContentUri: s3://artifacts/another"),
        ("Description: The catchlight package and its dependencies", "Description: Another"),
        ("Timeout: 10\n", "Timeout: 11\n"),
        ("MemorySize: 512", "MemorySize: 1024"),
        ("Runtime: python3.13", "Runtime: python3.14"),
        ("Handler: app.handler", "Handler: app.another"),
        ("    Architectures: [arm64]", "    Architectures: [x86_64]"),
        ("Layers: [!Ref CatchlightLayer]", "Layers: [!Ref CatchlightLayer, arn:aws:lambda:us-east-1:1:layer:x:1]"),
        ("TASKS_TABLE: !Ref TasksTable\n        POWERTOOLS", "TASKS_TABLE: another\n        POWERTOOLS"),
        ("POWERTOOLS_LOG_LEVEL: !Ref LogLevel", "POWERTOOLS_LOG_LEVEL: ERROR"),
        ("LogGroup: !Ref ReceiveCallbackLogGroup", "LogGroup: another"),
        ("SnapStart: { ApplyOn: !Ref SnapStart }", "SnapStart: { ApplyOn: PublishedVersions }"),
        ("Description: Verifies a callback and writes its report", "Description: Another"),
    ],
)
def test_a_changed_function_in_the_template_publishes_a_version(old: str, new: str) -> None:
    before, after = deployed(), deployed(edited(old, new))

    assert after.function != before.function
    assert after.version != before.version


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("CodeUri: functions/poll_tasks", "CodeUri: s3://artifacts/another"),
        ("Sid: WriteReport # with one conditional write", "Sid: Write"),
        ("Description: Receives callbacks of image generation services", "Description: Another"),
        (
            "    MaxValue: 3650\n    Description: Days after which DynamoDB",
            "    Description: Days after which DynamoDB",
        ),
    ],
)
def test_other_changes_of_the_template_publish_no_version(old: str, new: str) -> None:
    assert deployed(edited(old, new), is_whole=True) == deployed()


def replacing_properties(type_name: str) -> set[str]:
    """Returns the properties of a type that CloudFormation cannot change without replacing the resource."""
    schema = resource_schema(type_name)
    names = [*schema.get("createOnlyProperties", ()), *schema.get("conditionalCreateOnlyProperties", ())]
    return {name.removeprefix("/properties/").partition("/")[0] for name in names}


def test_a_changed_description_replaces_the_version_that_the_alias_refers_to() -> None:
    assert "Description" in replacing_properties("AWS::Lambda::Version")
    assert RESOURCES[ALIAS]["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [VERSION, "Version"]}


def test_no_resource_in_the_functions_environment_is_replaced_without_a_version() -> None:
    # If CloudFormation replaced the table, it would get another name under the same logical id. The template's text and
    # parameters would be the same. The description cannot show it: its 256 characters are too few for all names.
    function = json.dumps(FUNCTIONS[FUNCTION])
    named = set(re.findall(r'"(?:Ref|Fn::GetAtt)": \[?"(\w+)"', function)) & RESOURCES.keys()
    described = {name for name in named if f"${{{name}}}" in json.dumps(RESOURCES[VERSION])}

    replaceable = {
        (name, key)
        for name in named - described
        for key in RESOURCES[name]["Properties"].keys() & replacing_properties(RESOURCES[name]["Type"])
    }

    assert {RESOURCES[name]["Type"] for name in described} == {"AWS::Lambda::LayerVersion"}
    assert len(named) >= 7
    # The table's key has its own test: a change of it would delete all tasks.
    assert replaceable == {("TasksTable", "KeySchema")}
    assert "{{resolve:" not in function


def test_the_description_is_never_too_long() -> None:
    description = RESOURCES[VERSION]["Properties"]["Description"]["Fn::Sub"]
    ((layer, properties),) = of_type("AWS::Lambda::LayerVersion").items()
    longest = {name: max([*other_values(name), str(it["Default"])], key=len) for name, it in RAW["Parameters"].items()}
    longest[layer] = f"arn:aws-us-gov:lambda:ap-southeast-99:123456789012:layer:{properties['LayerName']}:1000000"

    filled = re.sub(r"\$\{(\w+)\}", lambda match: longest[match[1]], description)

    assert "${" not in filled
    assert len(filled) <= LONGEST_DESCRIPTION


def test_the_api_calls_the_alias_and_has_permission() -> None:
    (path,) = of_type("AWS::ApiGatewayV2::Api")["CallbackApi"]["Body"]["paths"].values()
    uri = path["post"]["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]

    assert f"/functions/${{{ALIAS}}}/invocations" in uri
    assert referred_to(of_type("AWS::Lambda::Permission")[f"{FUNCTION}CallbackPermission"]["FunctionName"]) == ALIAS


def test_an_old_version_is_deleted() -> None:
    # A snapshot costs 2 dollars a month. A version that is kept after a failed deployment would make the next one fail.
    assert RESOURCES[VERSION]["DeletionPolicy"] == "Delete"
    assert "UpdateReplacePolicy" not in RESOURCES[VERSION]


def test_snapstart_is_off_by_default() -> None:
    assert deployed().function["SnapStart"] == {"ApplyOn": "None"}
    assert deployed(SnapStart="PublishedVersions").function["SnapStart"] == {"ApplyOn": "PublishedVersions"}

"""Provides an in-memory AWS account with a stack that the command line finds through CloudFormation."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from catchlight.aws.clients import CLIENT_CONFIG
from catchlight.models import TaskStatus, iso, utc_now
from catchlight.polling.provider_client import ProviderClient
from catchlight_cli import factories
from catchlight_cli.command_line import run as run_command_line
from local.template.expand import Template
from tests.canary_secrets import CALLBACK_TOKEN
from tests.fake_http import FakeHttp
from tests.integration.conftest import TABLE_NAME, Store, an_account
from tests.integration.functions import PROVIDER_KEYS
from tests.integration.providers import Providers

STACK_NAME = "pictures"
MACHINE = {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}}}
API_URL = "https://api.example"
ALARM = "ArchiveDeadLettersAlarm"

_SECRETS = {"CallbackTokenSecret": CALLBACK_TOKEN, "ProviderKeysSecret": json.dumps(PROVIDER_KEYS)}


def _substitute(name: str) -> dict[str, Any]:
    """Returns a resource whose Ref is this name, in place of one that moto's CloudFormation cannot create."""
    return {"Type": "AWS::SSM::Parameter", "Properties": {"Name": name, "Type": "String", "Value": "elsewhere"}}


def a_template(template: Template) -> dict[str, Any]:
    """Returns the part of the real template that the command line reads and moto's CloudFormation can create."""
    table = template.resources["TasksTable"]["Properties"]
    properties = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode", "StreamSpecification")
    role = "arn:aws:iam::123456789012:role/poll"
    return {
        "Parameters": {
            "FirstPollAfterSeconds": {"Type": "Number", "Default": 120},
            "GiveUpAfterSeconds": {"Type": "Number", "Default": 21600},
            "TaskRetentionDays": {"Type": "Number", "Default": 0},
            "ProviderBaseUrls": {"Type": "String", "Default": ""},
            "AlarmEmail": {"Type": "String", "Default": ""},
            "AlarmTopicArn": {"Type": "String", "Default": ""},
            "WebhookUrl": {"Type": "String", "Default": "https://hooks.example.com/catchlight?token=in-the-query"},
        },
        "Resources": {
            "TasksTable": {
                "Type": "AWS::DynamoDB::Table",
                "Properties": {"TableName": TABLE_NAME, **{name: table[name] for name in properties}},
            },
            "ImagesBucket": {"Type": "AWS::S3::Bucket"},
            "AlarmTopic": {"Type": "AWS::SNS::Topic"},
            "ArchiveQueue": {"Type": "AWS::SQS::Queue"},
            "ArchiveDeadLetters": {"Type": "AWS::SQS::Queue"},
            "DispatchDeadLetters": {"Type": "AWS::SQS::Queue"},
            "PollQueue": {"Type": "AWS::SQS::Queue"},
            "PollDeadLetters": {"Type": "AWS::SQS::Queue"},
            "PublishDeadLetters": {"Type": "AWS::SQS::Queue"},
            "ReconcileDeadLetters": {"Type": "AWS::SQS::Queue"},
            "WebhookQueue": {"Type": "AWS::SQS::Queue"},
            "WebhookDeadLetters": {"Type": "AWS::SQS::Queue"},
            "ArchiveImagesLogGroup": {"Type": "AWS::Logs::LogGroup"},
            # A function would need Docker. Secrets are created by the fixture `deployed`, the alarm by its tests.
            **{name: _substitute(name) for name in (*_SECRETS, ALARM, "PublishEventsFunction")},
            "PollTasksStateMachine": {
                "Type": "AWS::StepFunctions::StateMachine",
                "Properties": {"StateMachineName": "poll", "DefinitionString": json.dumps(MACHINE), "RoleArn": role},
            },
        },
        "Outputs": {"CallbackUrlPattern": {"Value": f"{API_URL}/callbacks/PROVIDER/TOKEN"}},
    }


class Deployed:
    """A deployed stack: its resources, and the command line that uses it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = boto3.client("cloudformation").list_stack_resources(StackName=STACK_NAME)["StackResourceSummaries"]
        self.resources = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in found}
        self.dynamodb = boto3.client("dynamodb", config=CLIENT_CONFIG)
        self.store = Store(self.dynamodb)
        self.sqs = boto3.client("sqs")
        self.step_functions = boto3.client("stepfunctions")
        self._capsys = capsys

    def put(self, task: str, status: str, age: timedelta = timedelta(0), **attributes: Any) -> None:
        """Stores a task that reached this status the given time ago."""
        provider, _, task_id = task.partition("#")
        changed = iso(utc_now() - age)
        known = {"provider": provider, "taskId": task_id, "status": status, "rank": TaskStatus(status).rank}
        times = {"registeredAt": changed, "updatedAt": changed}
        self.store.put(task, **{**known, **times, **attributes})

    def send(self, queue: str, body: Any) -> None:
        """Sends a message: text as it is, any other body as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.sqs.send_message(QueueUrl=self.resources[queue], MessageBody=text)

    def count(self, queue: str) -> int:
        """Returns the number of messages that are available now."""
        found = self.sqs.get_queue_attributes(QueueUrl=self.resources[queue], AttributeNames=["All"])["Attributes"]
        assert found["ApproximateNumberOfMessagesNotVisible"] == "0"
        return int(found["ApproximateNumberOfMessages"])

    def messages(self, queue: str) -> list[dict[str, Any]]:
        """Receives all visible messages and returns their bodies. A later call returns only later messages."""
        bodies = []
        while batch := self.sqs.receive_message(QueueUrl=self.resources[queue], MaxNumberOfMessages=10).get("Messages"):
            bodies += [json.loads(message["Body"]) for message in batch]
        return bodies

    def executions(self) -> list[list[str]]:
        """Returns the tasks of each execution, sorted."""
        machine = self.resources["PollTasksStateMachine"]
        found = self.step_functions.list_executions(stateMachineArn=machine)["executions"]
        inputs = [self.step_functions.describe_execution(executionArn=each["executionArn"])["input"] for each in found]
        return sorted(json.loads(text)["tasks"] for text in inputs)

    def run(self, *arguments: str, expect: int | None = 0) -> Any:
        """Returns the JSON document that a command prints, or None if it prints none."""
        try:
            status = run_command_line([*arguments, "--stack-name", STACK_NAME, "--json"])
        except SystemExit as exc:  # invalid arguments
            status = int(str(exc.code))
        output = self._capsys.readouterr()
        self.stderr = output.err
        assert expect is None or status == expect, output
        return json.loads(output.out) if output.out else None

    def show(self, *arguments: str) -> str:
        """Returns the text that a command prints without --json, joined to one line."""
        run_command_line([*arguments, "--stack-name", STACK_NAME])
        output = self._capsys.readouterr()
        self.stderr = output.err
        return " ".join(output.out.split())


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Provides an empty account, and a working directory without samconfig.toml and without a local stack."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")  # lines are not wrapped
    # moto returns all visible messages at once, so an empty response means an empty queue.
    monkeypatch.setattr("catchlight.recovery.dead_letters._WAIT_SECONDS", 0)
    with an_account():
        yield


@pytest.fixture
def deployed(cloud: None, template: Template, capsys: pytest.CaptureFixture[str]) -> Deployed:
    for name, value in _SECRETS.items():
        boto3.client("secretsmanager").create_secret(Name=name, SecretString=value)
    boto3.client("cloudformation").create_stack(StackName=STACK_NAME, TemplateBody=json.dumps(a_template(template)))
    return Deployed(capsys)


@pytest.fixture
def providers(monkeypatch: pytest.MonkeyPatch) -> Providers:
    """Responds to the requests to providers, and records them."""
    fake = Providers()
    make: Callable[..., ProviderClient] = ProviderClient
    monkeypatch.setattr(factories, "ProviderClient", lambda base_urls: make(base_urls, http=FakeHttp(fake)))
    return fake

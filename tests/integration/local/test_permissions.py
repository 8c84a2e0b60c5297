"""Every call that the functions make is allowed by their roles, and every grant of the template is needed by a call.

One run of the local stack needs every grant. Its recorded calls are then decided again, without a stack.
"""

import ast
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import groupby
from typing import Any

import botocore.session
import httpx
import pytest
from botocore import xform_name
from botocore.credentials import Credentials

from catchlight.client.signing import SignedRequests
from catchlight.models import iso, utc_now
from local import REPOSITORY
from local.permissions.decision import Grant, PermissionRequest, decide
from local.permissions.required import function_arn
from local.stack import LocalStack
from tests.waiting import TIMEOUT_SECONDS, eventually
from tests.webhook_receiver import webhook_receiver

SERVICES = ("dynamodb", "dynamodbstreams", "events", "lambda", "s3", "secretsmanager", "sqs", "stepfunctions")

# Operations that `catchlight replay` and `redrive` call with the credentials of their user.
BY_COMMANDS = {"delete_object", "change_message_visibility_batch"}
# Grants that SAM adds although other grants include them.
BY_SAM = {
    # Every function has the policy for logs, although the policy for its event source has the same actions.
    *(
        f"AWSLambdaBasicExecutionRole of {name}FunctionRole"
        for name in ("ArchiveImages", "DispatchChanges", "PublishEvents", "SendWebhooks", "StartPolling")
    ),
    # Every route has a permission, although the wildcard of another permission also matches the slashes of its path.
    f"ServeTasksApiFunctionGetImagePermission: lambda:InvokeFunction on {function_arn('ServeTasksApiFunction')}",
}


@dataclass
class Scenario:
    """A stack, and requests that make its functions use each of their permissions."""

    stack: LocalStack
    link_statuses: list[int] = field(default_factory=list)  # of links to an existing and to a missing object

    def run(self) -> None:
        self.rotate_the_token()
        self.dynamodb = self.stack.boto3_client("dynamodb")
        signed = SignedRequests(Credentials("local", "local"), "us-east-1")
        with httpx.Client(base_url=self.stack.info["tasks_api_url"], auth=signed, trust_env=False, timeout=60) as api:
            location = self.submit(api)
            self.list(api)
        self.wait_until_done(location)
        self.follow_link(location)
        self.archive_again(location)
        self.poll_for_a_lost_callback()
        self.retry_an_image()
        self.follow_link_into_quarantine()
        self.generate("origin-gone", "gone")  # ArchiveImages also looks for its bytes in quarantine
        self.deliver_unreadable_callbacks()
        self.dispatch_unreadable_records()
        self.reconcile()

    def rotate_the_token(self) -> None:
        """Callback URLs in stack.json keep the previous token, those in submissions have the new one."""
        secret = self.stack.resources["CallbackTokenSecret"].ref
        self.stack.boto3_client("secretsmanager").put_secret_value(SecretId=secret, SecretString="T" * 48)

    def submit(self, api: httpx.Client) -> str:
        """Submits a request twice with one idempotency key, and tries to release it. A callback reports the result."""
        body = {"provider": "flux-kontext", "request": {"prompt": "a lighthouse"}}
        response = api.post("/submissions", json=body, headers={"Idempotency-Key": "submitted-once"})
        again = api.post("/submissions", json=body, headers={"Idempotency-Key": "submitted-once"})
        assert (response.status_code, again.status_code) == (201, 201), response.text
        assert api.delete("/submissions/submitted-once").status_code in range(200, 500)
        return str(response.headers["location"])

    def list(self, api: httpx.Client) -> None:
        for parameters in ({}, {"status": "PENDING"}):
            assert api.get("/tasks", params=parameters).status_code == 200
        registered = {"provider": "acedata", "taskIds": ["registered"]}
        assert api.post("/tasks", json=registered).status_code == 200

    def follow_link(self, location: str) -> None:
        signed = SignedRequests(Credentials("local", "local"), "us-east-1")
        with httpx.Client(base_url=self.stack.info["tasks_api_url"], auth=signed, trust_env=False, timeout=60) as api:
            task = api.get(location).json()
            image = result_of(task["images"])
            redirect = api.get(f"{location}/images/{image['kind']}-{image['index']}")
        assert redirect.status_code == 302
        link = redirect.headers["location"]
        self.link_statuses = [
            httpx.get(url, trust_env=False).status_code for url in (link, link.replace("/images/", "/images/missing/"))
        ]

    def archive_again(self, location: str) -> None:
        """Archives a task whose objects exist: PutObject returns 412, and HeadObject the checksum to compare.

        The item has the mark of an earlier attempt, as after a killed process: the task is archived alone, and its
        message is deleted before the batch ends.
        """
        _, provider, task_id = location.strip("/").split("/")
        key = {"task": {"S": f"{provider}#{task_id}"}}
        item = self.dynamodb.get_item(TableName=self.stack.info["table"], Key=key)["Item"]
        # The result, whose URL is valid for long: on a busy machine, the original's URL may have expired.
        result = result_of([image["M"] for image in item["images"]["L"]], {"S": "result"})
        result["state"] = {"S": "PENDING"}
        changed, began = (iso(utc_now() - timedelta(hours=hours)) for hours in (2, 1))
        again = {"status": {"S": "SUCCEEDED"}, "rank": {"N": "30"}}
        again |= {"updatedAt": {"S": changed}, "archivingSince": {"S": began}}
        self.dynamodb.put_item(TableName=self.stack.info["table"], Item=item | again)
        self.wait_for_call("s3", "HeadObject")
        self.wait_for_call("sqs", "DeleteMessage")

    def poll_for_a_lost_callback(self) -> None:
        self.wait_until_done(self.generate("silent", "lost"))
        self.wait_until_done(self.generate("unreadable-result", "unreadable"))

    def retry_an_image(self) -> None:
        """An image whose host does not exist is retried; a message without a task becomes a dead letter."""
        now = utc_now()
        image = {
            "kind": "result",
            "url": "https://no-such-host.invalid/a.png",
            "state": "PENDING",
            "expiresAt": iso(now + timedelta(days=1)),
        }
        texts = {
            "task": "flux-kontext#outage",
            "provider": "flux-kontext",
            "taskId": "outage",
            "status": "SUCCEEDED",
            "reportedBy": "poll",
            "reportedAt": iso(now),
            "updatedAt": iso(now),
        }
        item: Any = {name: {"S": value} for name, value in texts.items()} | {"rank": {"N": "30"}}
        item["images"] = {"L": [{"M": {name: {"S": value} for name, value in image.items()}}]}
        self.dynamodb.put_item(TableName=self.stack.info["table"], Item=item)
        self.wait_for_call("sqs", "ChangeMessageVisibility")
        sqs, dead_letters = self.stack.boto3_client("sqs"), self.stack.info["archive_dlq_url"]

        def is_dead_letter() -> bool:
            found = sqs.get_queue_attributes(QueueUrl=dead_letters, AttributeNames=["ApproximateNumberOfMessages"])
            return int(found["Attributes"]["ApproximateNumberOfMessages"]) > 0

        sqs.send_message(QueueUrl=self.stack.info["archive_queue_url"], MessageBody="no JSON")
        eventually(is_dead_letter)

    def follow_link_into_quarantine(self) -> None:
        location = self.generate("heic", "refused")
        self.wait_until_done(location)
        signed = SignedRequests(Credentials("local", "local"), "us-east-1")
        with httpx.Client(base_url=self.stack.info["tasks_api_url"], auth=signed, trust_env=False, timeout=60) as api:
            redirect = api.get(f"{location}/images/result-0", params={"quarantined": "true"})
        assert redirect.status_code == 302, redirect.text
        assert httpx.get(redirect.headers["location"], trust_env=False).status_code == 200

    def deliver_unreadable_callbacks(self) -> None:
        assert post(self.stack.info["callback_urls"]["flux-kontext"], {"code": "?", "data": "unreadable"}) == 422

    def dispatch_unreadable_records(self) -> None:
        record = {"eventName": "INSERT", "dynamodb": {"Keys": {}, "NewImage": {}, "SequenceNumber": "1"}}
        outcome = self.stack.invoke("DispatchChangesFunction", {"Records": [record]})
        assert outcome.payload == b'{"batchItemFailures": []}', outcome.payload

    def reconcile(self) -> None:
        """Reconciles a task without an execution that polls for it, and one whose archiving has failed for hours."""
        old = {"S": iso(utc_now() - timedelta(hours=8))}
        texts = {
            "task": "flux-kontext#stuck",
            "provider": "flux-kontext",
            "taskId": "stuck",
            "status": "PENDING",
        }
        item = {name: {"S": value} for name, value in texts.items()}
        times = {"registeredAt": old, "updatedAt": old}
        self.dynamodb.put_item(TableName=self.stack.info["table"], Item={**item, **times, "rank": {"N": "0"}})
        self.dynamodb.update_item(
            TableName=self.stack.info["table"],
            Key={"task": {"S": "flux-kontext#outage"}},
            UpdateExpression="SET updatedAt = :old",
            ExpressionAttributeValues={":old": old},
        )
        self.send_dead_letters("flux-kontext#stuck")
        outcome = self.stack.invoke("ReconcileTasksFunction", {"source": "aws.scheduler"})
        assert outcome.function_error is None, outcome.payload

    def send_dead_letters(self, task: str) -> None:
        """Sends the messages that the hourly run redrives: two name a task, one a position in the table's stream."""
        streams = self.stack.boto3_client("dynamodbstreams")
        (stream,) = streams.list_streams(TableName=self.stack.info["table"])["Streams"]
        (shard,) = streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]["Shards"]
        position = {"StreamArn": stream["StreamArn"], "ShardId": shard["ShardId"]}
        iterator = streams.get_shard_iterator(**position, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
        number = streams.get_records(ShardIterator=iterator)["Records"][0]["dynamodb"]["SequenceNumber"]
        info = {"streamArn": stream["StreamArn"], "shardId": shard["ShardId"]}
        positions = info | {"startSequenceNumber": number, "endSequenceNumber": number}
        messages: dict[str, Any] = {
            "DispatchDeadLetters": {"task": task, "change": "1"},
            "PollDeadLetters": {"task": task, "change": "1"},
            "PublishDeadLetters": {"DDBStreamBatchInfo": positions},
        }
        for queue, body in messages.items():
            url = self.stack.resources[queue].ref
            self.stack.boto3_client("sqs").send_message(QueueUrl=url, MessageBody=json.dumps(body))

    def generate(self, scenario: str, task_id: str) -> str:
        """Submits a task to the simulated Flux Kontext, and registers it as users do."""
        response = httpx.post(
            f"{self.stack.info['simulator_url']}/kie/api/v1/flux/kontext/generate",
            json={"prompt": "a lighthouse", "callBackUrl": self.stack.info["callback_urls"]["flux-kontext"]},
            headers={"Authorization": "Bearer any", "x-simulate": scenario, "x-simulate-task-id": task_id},
            trust_env=False,
        )
        assert response.json()["data"]["taskId"] == task_id, response.text
        now = iso(utc_now())
        texts = {"task": f"flux-kontext#{task_id}", "provider": "flux-kontext", "taskId": task_id, "status": "PENDING"}
        item = {name: {"S": value} for name, value in {**texts, "registeredAt": now, "updatedAt": now}.items()}
        self.dynamodb.put_item(TableName=self.stack.info["table"], Item={**item, "rank": {"N": "0"}})
        return f"/tasks/flux-kontext/{task_id}"

    def wait_until_done(self, location: str) -> None:
        _, provider, task_id = location.strip("/").split("/")
        key = {"task": {"S": f"{provider}#{task_id}"}}

        def is_done() -> bool:
            found = self.dynamodb.get_item(TableName=self.stack.info["table"], Key=key, ConsistentRead=True)
            return found["Item"]["status"]["S"] in ("ARCHIVED", "INCOMPLETE", "FAILED")

        eventually(is_done)

    def wait_for_call(self, service: str, operation: str) -> None:
        eventually(lambda: (service, operation) in {call[:2] for call in self.stack.permissions.recorded})


def result_of(images: list[dict[str, Any]], kind: Any = "result") -> dict[str, Any]:
    return next(image for image in images if image["kind"] == kind)


def post(url: str, body: dict[str, Any]) -> int:
    return httpx.post(url, json=body, trust_env=False, timeout=60).status_code


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    parameters = {"KeepDeliveries": "1"}  # with it, ReceiveCallback has one more grant
    state_dir = tmp_path_factory.mktemp("state")
    # 503, then 410: a webhook is sent again, and then becomes a dead letter.
    with (
        webhook_receiver([503, 410]) as receiver,
        LocalStack(state_dir=state_dir, time_scale=0.02, parameters=parameters, webhook_url=receiver.url) as stack,
    ):
        scenario = Scenario(stack)
        scenario.run()
        # The last calls of the scenario: the events of tasks, and the work for the repaired tasks.
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while superfluous_grants(stack.permissions.grants, requests(stack)) != BY_SAM and time.monotonic() < deadline:
            time.sleep(1)
        yield scenario


def requests(stack: LocalStack) -> list[PermissionRequest]:
    return [request for _, _, request in stack.permissions.recorded]


def superfluous_grants(grants: tuple[Grant, ...], recorded: list[PermissionRequest]) -> set[str]:
    """Returns the grants of which each one could be removed alone, without a denial of any recorded call.

    All actions of an AWS managed policy are removed together, because it can only be attached or detached as a whole.
    """
    superfluous = set()
    for name, removed in groupby(
        (grant for grant in grants if not grant.denies),
        lambda grant: grant.policy if " of " in grant.policy else f"{grant.policy}: {grant.action} on {grant.resource}",
    ):
        remaining = set(grants) - set(removed)
        if all(decide(request, remaining) for request in recorded):
            superfluous.add(name)
    return superfluous


def test_no_call_is_denied(finished: Scenario) -> None:
    assert finished.stack.permissions.denied == []


def test_every_grant_is_needed_by_a_call(finished: Scenario) -> None:
    grants, recorded = finished.stack.permissions.grants, requests(finished.stack)

    assert len(grants) > 40
    assert superfluous_grants(grants, recorded) == BY_SAM


@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("s3:DeleteObject", "ImagesBucket"),
        ("dynamodb:UpdateItem", "ArchiveQueue"),
        ("sqs:SendMessage", "PublishDeadLetters"),
    ],
)
def test_a_grant_that_no_call_needs_is_found(finished: Scenario, action: str, resource: str) -> None:
    arn = finished.stack.resources[resource].attributes["Arn"]
    extra = Grant("ArchiveImagesFunctionRole", "ArchiveImagesFunction", action, arn)

    found = superfluous_grants((*finished.stack.permissions.grants, extra), requests(finished.stack))

    assert found - BY_SAM == {f"ArchiveImagesFunctionRole: {action} on {arn}"}


def test_the_bucket_policy_denies_requests_without_tls(finished: Scenario) -> None:
    grants = finished.stack.permissions.grants
    plain = [
        replace(request, context=(("aws:SecureTransport", "false"),))
        for request in requests(finished.stack)
        if request.action.startswith("s3:")
    ]

    assert {request.action for request in plain} == {"s3:GetObject", "s3:PutObject"}
    assert [request for request in plain if decide(request, grants)] == []
    assert all(decide(request, [grant for grant in grants if not grant.denies]) for request in plain)


def test_rare_calls_are_recorded(finished: Scenario) -> None:
    recorded = finished.stack.permissions.recorded
    operations = {(request.principal, operation) for _, operation, request in recorded}
    stages = {value for *_, request in recorded for key, value in request.context if key.endswith("VersionStage")}

    assert ("ArchiveImagesFunction", "HeadObject") in operations
    assert ("ServeTasksApiFunction", "TransactWriteItems") in operations
    assert ("ServeTasksApiFunction", "GetObject") in operations  # by the link that it signed
    assert stages == {"AWSCURRENT", "AWSPREVIOUS"}


def test_a_missing_object_is_reported_as_denied(finished: Scenario) -> None:
    # S3 returns 403 for a missing object if the role lacks s3:ListBucket.
    assert finished.link_statuses == [200, 403]


def _is_of_socket(function: ast.Attribute) -> bool:
    return isinstance(function.value, ast.Name) and function.value.id == "socket"


def test_every_operation_in_the_code_is_recorded(finished: Scenario) -> None:
    """Tests that run handlers without a stack do not check permissions: this test covers their calls, too."""
    session = botocore.session.get_session()
    known = {xform_name(name) for service in SERVICES for name in session.get_service_model(service).operation_names}
    in_code = set()
    for folder in ("functions", "layers/catchlight/python/catchlight"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            if "client" in path.parts:  # for programs outside Lambda
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                # EventBridge has an operation with the same name as socket.create_connection.
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not _is_of_socket(node.func):
                    in_code.add(node.func.attr)

    recorded = {xform_name(operation) for service, operation, _ in finished.stack.permissions.recorded if service}

    assert in_code & known - BY_COMMANDS == recorded

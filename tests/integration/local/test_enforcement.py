"""Calls without permission fail with the error of the service that is called."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local import LocalStackError
from local.account import REGION
from local.moto.server import MotoServer
from local.permissions.decision import Grant
from local.permissions.enforcement import Permissions
from local.stack import LocalStack
from tests.integration.local.running_example import EXAMPLE

OBJECTS = "arn:aws:s3:::pictures/images/*"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:archive"
GRANTS = [
    Grant("Role", "Archiver", "s3:GetObject", OBJECTS),
    Grant("Role", "Archiver", "s3:PutObject", OBJECTS),
    Grant("Role", "Archiver", "sqs:SendMessage", QUEUE),
]


class Account:
    """An account in memory with enforced permissions. The names of its functions and users are their access keys."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.permissions = Permissions(lambda *entry: self.log.append(entry))
        self.server = MotoServer(0, self.permissions.around)
        self._clients: dict[tuple[str, str], Any] = {}

    def client(self, service: str, name: str = "Archiver") -> Any:
        """Returns a client with this access key, by default that of the function."""
        if (service, name) not in self._clients:
            session: Any = boto3.Session(
                aws_access_key_id=name,
                aws_secret_access_key="local",
                aws_session_token="Archiver-1",
                region_name=REGION,
            )
            config = Config(
                retries={"total_max_attempts": 1}, proxies={}, signature_version="v4" if service != "s3" else "s3v4"
            )
            self._clients[service, name] = session.client(service, endpoint_url=self.server.url, config=config)
        return self._clients[service, name]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account()
    account.server.start()
    account.server.client("s3").create_bucket(Bucket="pictures")
    account.server.client("sqs").create_queue(QueueName="archive")
    account.permissions.decide_by(GRANTS, {"Archiver": "Archiver"})
    yield account
    account.close()
    account.server.stop()


MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:poll"
SECRET = "arn:aws:secretsmanager:us-east-1:123456789012:secret:keys-AbCdEf"
KEY = {"task": {"S": "x"}}
DENIED: list[tuple[str, str, dict[str, Any], str, int]] = [
    ("dynamodb", "get_item", {"TableName": "tasks", "Key": KEY}, "AccessDeniedException", 400),
    ("events", "put_events", {"Entries": [{"EventBusName": "tasks"}]}, "AccessDeniedException", 400),
    ("s3", "delete_object", {"Bucket": "pictures", "Key": "images/a"}, "AccessDenied", 403),
    ("s3", "put_object", {"Bucket": "pictures", "Key": "other/a", "Body": b"bytes" * 100_000}, "AccessDenied", 403),
    ("s3", "head_object", {"Bucket": "pictures", "Key": "other/a"}, "403", 403),
    ("s3", "get_object_tagging", {"Bucket": "pictures", "Key": "images/a"}, "AccessDenied", 403),
    (
        "s3",
        "copy_object",
        {"Bucket": "pictures", "Key": "images/a", "CopySource": {"Bucket": "pictures", "Key": "other/a"}},
        "AccessDenied",
        403,
    ),
    ("secretsmanager", "get_secret_value", {"SecretId": SECRET}, "AccessDeniedException", 400),
    ("sqs", "receive_message", {"QueueUrl": "http://x/123456789012/archive"}, "AccessDenied", 403),
    ("stepfunctions", "start_execution", {"stateMachineArn": MACHINE}, "AccessDeniedException", 400),
]


@pytest.mark.parametrize(("service", "method", "parameters", "code", "status"), DENIED)
def test_a_call_without_a_grant_is_denied(
    account: Account, service: str, method: str, parameters: dict[str, Any], code: str, status: int
) -> None:
    with pytest.raises(ClientError) as raised:
        getattr(account.client(service), method)(**parameters)

    response = raised.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    ((function, message),) = account.log
    assert function == "Archiver"
    assert message.startswith("AccessDenied: ")
    assert account.permissions.recorded == ()


def test_a_granted_call_is_processed_and_recorded(account: Account) -> None:
    s3 = account.client("s3")

    s3.put_object(Bucket="pictures", Key="images/a b.png", Body=b"bytes")
    assert s3.get_object(Bucket="pictures", Key="images/a b.png")["Body"].read() == b"bytes"
    assert s3.head_object(Bucket="pictures", Key="images/a b.png")["ContentLength"] == 5
    entries = [{"Id": "1", "MessageBody": "a"}]
    url = f"{account.server.url}/123456789012/archive"
    assert account.client("sqs").send_message_batch(QueueUrl=url, Entries=entries)["Successful"]

    assert account.log == []
    recorded = [(operation, request.action) for _, operation, request in account.permissions.recorded]
    assert recorded == [
        ("PutObject", "s3:PutObject"),
        ("GetObject", "s3:GetObject"),
        ("HeadObject", "s3:GetObject"),
        ("SendMessageBatch", "sqs:SendMessage"),
    ]


def test_calls_that_the_same_grants_allow_are_recorded_once(account: Account) -> None:
    for key in ("images/a", "images/b"):
        account.client("s3").put_object(Bucket="pictures", Key=key, Body=b"bytes")

    assert len(account.permissions.recorded) == 1


def test_a_denied_call_changes_nothing_and_keeps_the_connection(account: Account) -> None:
    s3 = account.client("s3")
    for _ in range(2):
        with pytest.raises(ClientError):
            s3.put_object(Bucket="pictures", Key="other/a", Body=b"bytes" * 100_000)
    s3.put_object(Bucket="pictures", Key="images/a", Body=b"bytes")

    found = account.server.client("s3").list_objects_v2(Bucket="pictures")["Contents"]
    assert [entry["Key"] for entry in found] == ["images/a"]


def test_without_s3_list_bucket_a_missing_object_is_403(account: Account) -> None:
    with pytest.raises(ClientError) as raised:
        account.client("s3").head_object(Bucket="pictures", Key="images/missing")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403

    account.permissions.decide_by(
        [*GRANTS, Grant("Role", "Archiver", "s3:ListBucket", "arn:aws:s3:::pictures")], {"Archiver": "Archiver"}
    )
    with pytest.raises(ClientError) as raised:
        account.client("s3").head_object(Bucket="pictures", Key="images/missing")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404


@pytest.mark.parametrize(("key", "status"), [("images/a", 200), ("other/a", 403)])
def test_a_presigned_link_has_the_permissions_of_its_function(account: Account, key: str, status: int) -> None:
    account.server.client("s3").put_object(Bucket="pictures", Key=key, Body=b"bytes")

    link = account.client("s3").generate_presigned_url("get_object", {"Bucket": "pictures", "Key": key})

    assert httpx.get(link, trust_env=False).status_code == status


def test_users_and_unknown_keys_are_not_restricted(account: Account) -> None:
    account.server.client("s3").put_object(Bucket="pictures", Key="other/a", Body=b"bytes")
    account.client("s3", "UnknownKey").delete_object(Bucket="pictures", Key="other/a")

    assert account.log == []


# ------------------------------------------------------------------------------------------------ the whole stack


def an_example(tmp_path: Path, old: str, new: str) -> Path:
    """Copies the example's template with one change, and links the folders that it names. Returns its path."""
    text = EXAMPLE.read_text()
    assert old in text
    for name in ("functions", "layer", "machine.asl.yaml"):
        (tmp_path / name).symlink_to(EXAMPLE.parent / name)
    path = tmp_path / "template.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_a_stack_whose_state_machine_may_not_invoke_its_function_does_not_start(tmp_path: Path) -> None:
    template = an_example(tmp_path, "lambda:InvokeFunction", "lambda:GetFunction")
    stack = LocalStack(
        state_dir=tmp_path / "state",
        template=template,
        simulator=False,
        parameters={"NotesFolder": str(tmp_path)},
    )

    with (
        pytest.raises(
            LocalStackError, match=r"Machine may not lambda:InvokeFunction on .*:function:WorkFunction\. Grant"
        ),
        stack,
    ):
        pass


def test_an_unsupported_condition_in_a_policy_prevents_the_start(tmp_path: Path) -> None:
    template = an_example(
        tmp_path,
        "Effect: Allow, Action: sqs:",
        "Effect: Allow, Condition: { IpAddress: { aws:SourceIp: 10.0.0.0/8 } }, Action: sqs:",
    )
    stack = LocalStack(
        state_dir=tmp_path / "state",
        template=template,
        simulator=False,
        parameters={"NotesFolder": str(tmp_path)},
    )

    with (
        pytest.raises(
            LocalStackError,
            match=r"ProcessMessagesFunctionRole: IpAddress is not supported .* to local/permissions",
        ),
        stack,
    ):
        pass

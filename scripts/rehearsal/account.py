"""Creates resources that users of the stack have in its account: a caller of the tasks API, a queue for its events."""

import json
from collections.abc import Iterator

from botocore.credentials import Credentials

from catchlight.models import task_key
from local.account import ACCOUNT_ID, REGION
from scripts.rehearsal.emulator import MiniStack


def make_caller(ministack: MiniStack, api: str, name: str) -> Credentials:
    """Creates an IAM user who may only call this API, and returns its credentials."""
    iam = ministack.client("iam")
    arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:{api}/*"
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="caller", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


class EventQueue:
    """A queue that receives all events of the stack's bus through a rule."""

    def __init__(self, ministack: MiniStack, bus: str, name: str) -> None:
        self._sqs = ministack.client("sqs")
        self._url: str = self._sqs.create_queue(QueueName=name)["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        events = ministack.client("events")
        events.put_rule(Name="ended", EventBusName=bus, EventPattern=json.dumps({"source": [{"prefix": ""}]}))
        events.put_targets(Rule="ended", EventBusName=bus, Targets=[{"Id": "queue", "Arn": attributes["QueueArn"]}])

    def received(self) -> Iterator[str]:
        """Yields the task keys of up to ten received events, and deletes their messages."""
        messages = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            detail = json.loads(message["Body"])["detail"]
            yield task_key(detail["provider"], detail["taskId"])
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])

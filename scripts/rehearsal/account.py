"""What others have in the account of the stack: a caller of the tasks API, a listener on the event bus."""

import json
from collections.abc import Iterator

from botocore.credentials import Credentials

from catchlight.models import task_key
from local.template.expand import ACCOUNT_ID, REGION
from scripts.rehearsal.emulator import MiniStack


def make_caller(ministack: MiniStack, api: str) -> Credentials:
    """The credentials of a new user who may call this API and nothing else."""
    iam = ministack.client("iam")
    arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT_ID}:{api}/*"
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": arn}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.create_user(UserName="caller")
    iam.put_user_policy(UserName="caller", PolicyName="caller", PolicyDocument=policy)
    key = iam.create_access_key(UserName="caller")["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


class EventQueue:
    """A queue that a rule sends all events of the stack's bus to."""

    def __init__(self, ministack: MiniStack, bus: str) -> None:
        self._sqs = ministack.client("sqs")
        self._url: str = self._sqs.create_queue(QueueName="ended-tasks")["QueueUrl"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["QueueArn"])["Attributes"]
        events = ministack.client("events")
        events.put_rule(Name="ended", EventBusName=bus, EventPattern=json.dumps({"source": [{"prefix": ""}]}))
        events.put_targets(Rule="ended", EventBusName=bus, Targets=[{"Id": "queue", "Arn": attributes["QueueArn"]}])

    def received(self) -> Iterator[str]:
        """The keys of the tasks that the next messages are about."""
        messages = self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            detail = json.loads(message["Body"])["detail"]
            yield task_key(detail["provider"], detail["taskId"])
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])

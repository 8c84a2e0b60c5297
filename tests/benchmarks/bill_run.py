"""Runs tasks through the real handlers in an in-memory account, and counts everything that is billed."""

import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from unittest import mock

import boto3
import httpx
import yaml
from botocore.client import BaseClient

from catchlight.images.stream import ImageStream
from catchlight.models import task_key
from catchlight.polling.provider_client import ProviderClient
from catchlight.tasks.registration import Registry
from catchlight.tasks.table import TasksTable
from local.events.filters import EventFilter
from local.moto.patches.dynamodb import stream_without_idle_writes
from local.moto.patches.s3 import put_object_as_s3_does
from local.moto.patches.sqs import scaled_delays
from local.template.expand import Template
from tests.benchmarks.bill_units import item_size, read_units, walk, write_units
from tests.benchmarks.bill_usage import Invocation, Usage, logged_bytes, metrics_in
from tests.canary_secrets import API_KEYS, CALLBACK_TOKEN
from tests.conftest import FakeLambdaContext
from tests.fake_http import FakeHttp
from tests.image_server import picture
from tests.integration.conftest import an_account
from tests.project_template import project_template

REPOSITORY = Path(__file__).parents[2]
PROVIDER = "flux-kontext"
# Imported after tests.conftest has set the environment variables that Powertools reads.
FUNCTIONS: Mapping[str, Any] = {
    name: import_module(f"functions.{folder}.app")
    for name, folder in {
        "ReceiveCallback": "receive_callback",
        "DispatchChanges": "dispatch_changes",
        "StartPolling": "start_polling",
        "PollTasks": "poll_tasks",
        "ArchiveImages": "archive_images",
        "PublishEvents": "publish_events",
    }.items()
}
# With the typical length of prompts, and of Lambda's trace headers.
PROMPT = (
    "A serene mountain lake at dawn, mist over the water, a small red boat, soft light, highly detailed, 35 mm photo"
)
TRACE = "Root=1-695c53c1-2f1a4f6b7c8d9e0f1a2b3c4d;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=1:a87bd80c:0"


class Pictures:
    """Returns images without downloading them."""

    def __init__(self) -> None:
        self.fetched = 0
        self._lock = Lock()

    def fetch(self, url: str, allowed_hosts: object) -> ImageStream:
        """Returns a small picture for any URL."""
        with self._lock:
            self.fetched += 1
        body = picture()
        return ImageStream(iter([body]), len(body), httpx.URL(url).host)


class CountedStack:
    """The functions with their queue, table, bucket and bus; counts their usage."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.usage = Usage()
        self.definition = yaml.safe_load((REPOSITORY / "statemachines" / "poll_tasks.asl.yaml").read_text())
        self.pictures = Pictures()
        self._lock = Lock()
        self._calls: Counter[str] = Counter()
        self._provider_requests = 0
        self._executions: list[dict[str, Any]] = []
        self._done_at: dict[str, float] = {}
        self._clock = 0.0
        # Only calls of the functions are counted; these clients are the benchmark's own.
        self._observer = boto3.Session()
        self._table = template.resources["TasksTable"]["Properties"]
        self._dynamodb = self._observer.client("dynamodb")
        described = {name: value for name, value in self._table.items() if name in _TABLE_PROPERTIES}
        described["StreamSpecification"] = {"StreamEnabled": True, **self._table["StreamSpecification"]}
        made = self._dynamodb.create_table(TableName="tasks", **described)["TableDescription"]
        self._streams = self._observer.client("dynamodbstreams")
        stream = made["LatestStreamArn"]
        (shard,) = self._streams.describe_stream(StreamArn=stream)["StreamDescription"]["Shards"]
        self._iterator = self._streams.get_shard_iterator(
            StreamArn=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        self._sqs = self._observer.client("sqs")
        self._queue = self._sqs.create_queue(QueueName="archive")["QueueUrl"]
        self._poll_queue = self._sqs.create_queue(QueueName="poll")["QueueUrl"]
        self._observer.client("s3").create_bucket(Bucket="images-bucket")
        self._observer.client("events").create_event_bus(Name="tasks")
        machine = self._observer.client("stepfunctions").create_state_machine(
            name="poll", definition=json.dumps(self.definition), roleArn="arn:aws:iam::123456789012:role/poll"
        )
        secrets = self._observer.client("secretsmanager")
        keys = {provider: {"apiKey": key} for provider, key in API_KEYS.items()}
        parameters = template.parameters
        self.environment = {
            "TASKS_TABLE": "tasks",
            "IMAGES_BUCKET": "images-bucket",
            "ARCHIVE_QUEUE_URL": self._queue,
            "ARCHIVE_DEAD_LETTERS_URL": f"{self._queue}-dead-letters",  # never used: every image is archived
            "POLL_QUEUE_URL": self._poll_queue,
            "DISPATCH_DEAD_LETTERS_URL": f"{self._queue}-dead-letters",  # never used: every record can be read
            "EVENT_BUS": "tasks",
            "POLL_TASKS_STATE_MACHINE": machine["stateMachineArn"],
            "CALLBACK_TOKEN_SECRET": secrets.create_secret(Name="token", SecretString=CALLBACK_TOKEN)["ARN"],
            "PROVIDER_KEYS_SECRET": secrets.create_secret(Name="keys", SecretString=json.dumps(keys))["ARN"],
            "FIRST_POLL_AFTER_SECONDS": str(parameters["FirstPollAfterSeconds"]),
            "POLL_INTERVAL_SECONDS": str(parameters["PollIntervalSeconds"]),
            "SLOW_POLL_AFTER_SECONDS": str(parameters["SlowPollAfterSeconds"]),
            "SLOW_POLL_INTERVAL_SECONDS": str(parameters["SlowPollIntervalSeconds"]),
            "GIVE_UP_AFTER_SECONDS": str(parameters["GiveUpAfterSeconds"]),
            "_X_AMZN_TRACE_ID": TRACE,
        }
        self._filters = {name: EventFilter(_patterns(template, name)) for name in ("DispatchChanges", "PublishEvents")}

    def run_tasks(self, done_at: Sequence[float], lost: int) -> None:
        """Runs tasks whose images are ready after these seconds. The last `lost` tasks get no callback."""
        first = self.usage.tasks
        tasks = [f"{number:032x}" for number in range(first, first + len(done_at))]
        self._done_at |= dict(zip(tasks, done_at, strict=True))
        self._clock = 0.0
        pending_callbacks = dict(
            sorted(zip(tasks[: len(tasks) - lost], done_at, strict=False), key=lambda item: item[1])
        )
        Registry(TasksTable("tasks", self._dynamodb)).register(PROVIDER, tasks, now=datetime.now(UTC))
        self.usage.tasks += len(tasks)
        self._deliver_changes()
        # The first polls of these tasks are due at the same time: their messages are received in one batch.
        overdue = {"Records": [_as_record(message) for message in self._received(self._poll_queue, 50)]}
        first_poll = float(self.template.parameters["FirstPollAfterSeconds"])

        def callbacks_until(moment: float) -> None:
            arrived = [task for task, seconds in pending_callbacks.items() if seconds <= moment]
            for task in arrived:
                self._invoke("ReceiveCallback", _callback(task))
                self.usage.callbacks += 1
                del pending_callbacks[task]
            self._deliver_changes()

        def poll(state: dict[str, Any], seconds: float) -> dict[str, Any]:
            callbacks_until(first_poll + seconds)
            self._clock = first_poll + seconds
            next_state: dict[str, Any] = self._invoke("PollTasks", state)
            self._deliver_changes()
            return next_state

        callbacks_until(first_poll)
        self._invoke("StartPolling", overdue)
        executions, self._executions = self._executions, []
        for state in executions:
            self.usage.executions += 1
            self.usage.transitions += sum(1 for _ in walk(self.definition, state, poll))
        callbacks_until(float("inf"))

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Responds as the provider, with a task that is completed or still running."""
        with self._lock:
            self._provider_requests += 1
        task = request.url.params["taskId"]
        is_done = self._done_at[task] <= self._clock or self._clock == 0.0 or self._is_reported(task)
        record = json.loads((REPOSITORY / "events/polls/flux-kontext/success.json").read_text())
        record["data"] |= {
            "taskId": task,
            "paramJson": json.dumps({"prompt": PROMPT, "aspectRatio": "16:9", "model": "flux-kontext-pro"}),
            "successFlag": int(is_done),
            "response": _urls(task) if is_done else None,
        }
        return httpx.Response(200, json=record)

    def count(self, service: str, operation: str, params: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """Counts a call of a function."""
        items = [answer.get("Item")] if operation == "GetItem" else answer.get("Responses", {}).get("tasks", [])
        with self._lock:
            self._calls[f"{service}:{operation}"] += 1
            self.usage.read_units += sum(map(read_units, items))
            if operation == "StartExecution":
                self._executions.append(json.loads(params["input"]))
            if operation == "PutEvents":
                self.usage.events += len(params["Entries"])

    def is_observer(self, client: BaseClient) -> bool:
        """Returns whether a client is one of the benchmark's own."""
        return client in (self._dynamodb, self._streams, self._sqs)

    def _is_reported(self, task: str) -> bool:
        key = {"task": {"S": task_key(PROVIDER, task)}}
        return self._dynamodb.get_item(TableName="tasks", Key=key)["Item"]["status"]["S"] != "PENDING"

    def _archive(self) -> None:
        """Delivers the messages of the archive queue until it is empty."""
        while messages := self._received(self._queue, 5):
            answer = self._invoke("ArchiveImages", {"Records": [_as_record(message) for message in messages]})
            assert answer == {"batchItemFailures": []}, answer

    def _deliver_changes(self) -> None:
        """Delivers the changes in the stream and the messages in the queue until both are empty."""
        while records := self._new_records():
            for function, event_filter in self._filters.items():
                passed = [record for record in records if event_filter.matches(record)]
                if passed:
                    self._invoke(function, {"Records": passed})
            self._archive()

    def _received(self, queue: str, at_most: int) -> list[Mapping[str, Any]]:
        """Receives a batch and deletes its messages."""
        batch: list[Mapping[str, Any]] = []
        while len(batch) < at_most:
            count = min(10, at_most - len(batch))
            messages = self._sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=count).get("Messages", [])
            if not messages:
                break
            for message in messages:
                self._sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            batch += messages
        if batch:
            self.usage.received.append(len(batch))
        return batch

    def _new_records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        while True:
            answer = self._streams.get_records(ShardIterator=self._iterator)
            self._iterator = answer["NextShardIterator"]
            if not answer["Records"]:
                break
            records += [json.loads(json.dumps(record, default=_epoch)) for record in answer["Records"]]
        records = list(_without_halves(records))
        for record in records:
            old, new = record["dynamodb"].get("OldImage"), record["dynamodb"].get("NewImage")
            units = write_units(self._table, old, new)
            self.usage.writes.append(units)
            self.usage.write_units += units
            if new:
                self.usage.item_sizes[new["status"]["S"]] = item_size(new)
        return records

    def _invoke(self, function: str, event: dict[str, Any]) -> Any:
        app = FUNCTIONS[function]
        self._calls, self._provider_requests, fetched = Counter(), 0, self.pictures.fetched
        log = io.StringIO()
        with ExitStack() as captured:
            captured.enter_context(redirect_stdout(log))
            # Powertools' handler keeps the standard output of its creation.
            if handler := getattr(app.logger, "registered_handler", None):
                captured.callback(handler.setStream, handler.setStream(log))
            answer = app.handler(event, FakeLambdaContext())
        lines = log.getvalue().splitlines()
        self.usage.invocations.append(
            Invocation(
                function,
                self._calls,
                self._provider_requests,
                self.pictures.fetched - fetched,
                len(lines),
                sum(logged_bytes(line) for line in lines),
                frozenset(metrics_in(lines)),
            )
        )
        return answer


_TABLE_PROPERTIES = {
    "AttributeDefinitions",
    "KeySchema",
    "GlobalSecondaryIndexes",
    "BillingMode",
}


def _patterns(template: Template, function: str) -> list[str]:
    """Returns the filter patterns of the function's event source."""
    (mapping,) = (
        resource["Properties"]
        for resource in template.resources.values()
        if resource["Type"] == "AWS::Lambda::EventSourceMapping"
        and resource["Properties"]["FunctionName"] == {"Ref": f"{function}Function"}
    )
    return [described["Pattern"] for described in mapping["FilterCriteria"]["Filters"]]


def _urls(task: str) -> dict[str, str]:
    """Returns URLs of realistic length, on a known image host."""
    base = f"https://tempfile.aiquickdraw.com/f/{task}_17676586"
    return {"originImageUrl": f"{base}25.png", "resultImageUrl": f"{base}31.png"}


def _callback(task: str) -> dict[str, Any]:
    """Returns the event of a successful callback."""
    event: dict[str, Any] = json.loads((REPOSITORY / "events/callbacks/flux-kontext/success.json").read_text())
    event["pathParameters"] = {"provider": PROVIDER, "token": CALLBACK_TOKEN}
    body = {"code": 200, "msg": "BFL image generated successfully.", "data": {"taskId": task, "info": _urls(task)}}
    return event | {"body": json.dumps(body)}


def _as_record(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message as the event source delivers it."""
    record: dict[str, Any] = json.loads((REPOSITORY / "events/sqs_archive.json").read_text())["Records"][0]
    named = {"messageId": "MessageId", "receiptHandle": "ReceiptHandle", "body": "Body"}
    return record | {name: message[key] for name, key in named.items()}


def _epoch(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp())
    raise TypeError(f"{type(value)} in a stream record")


def _without_halves(records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Merges moto's two stream records of an UpdateItem that creates an item into one, as in AWS.

    moto's first record has only the key, the second one the complete item.
    """
    for record in records:
        change = record["dynamodb"]
        if change.get("NewImage") == change["Keys"]:
            continue
        if change.get("OldImage") == change["Keys"]:
            del change["OldImage"]
            record["eventName"] = "INSERT"
        yield record


@contextmanager
def _counting_calls(stack: CountedStack) -> Iterator[None]:
    """Passes the client calls of all sessions to `stack.count`, except those of the benchmark's own clients."""
    call: Callable[[BaseClient, str, dict[str, Any]], dict[str, Any]] = BaseClient._make_api_call  # type: ignore[attr-defined]

    def counted(client: BaseClient, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = call(client, operation, params)
        if not stack.is_observer(client):
            stack.count(client.meta.service_model.service_name, operation, params, answer)
        return answer

    with mock.patch.object(BaseClient, "_make_api_call", counted):
        yield


AnyStack = TypeVar("AnyStack", bound=CountedStack)


@contextmanager
def counted_stack(kind: type[AnyStack]) -> Iterator[AnyStack]:
    """Yields a stack in memory until the end of the block."""
    template = project_template()
    with ExitStack() as stack:
        stack.enter_context(an_account())
        stack.enter_context(stream_without_idle_writes())
        stack.enter_context(put_object_as_s3_does())
        stack.enter_context(scaled_delays(0))  # the load determines when a message is received
        counted = kind(template)
        stack.enter_context(mock.patch.dict(os.environ, counted.environment))
        stack.enter_context(_counting_calls(counted))
        client: Callable[..., ProviderClient] = lambda urls, **more: ProviderClient(  # noqa: E731
            urls, http=FakeHttp(counted.answer), **more
        )
        archive_images = FUNCTIONS["ArchiveImages"]
        for app in (FUNCTIONS["PollTasks"], archive_images):
            stack.enter_context(mock.patch.object(app, "ProviderClient", client))
        stack.enter_context(mock.patch.object(archive_images, "ImageFetcher", return_value=counted.pictures))
        for app in FUNCTIONS.values():
            app.dependencies.cache_clear()
            stack.callback(app.dependencies.cache_clear)
        yield counted
        archive_images.dependencies().messages.shutdown()
        archive_images.dependencies().images.shutdown()

"""Runs a fresh interpreter with the environment of a Lambda sandbox."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.benchmarks.aws_stand_in import Answers, Refusal, StandIn
from tests.benchmarks.deployed import REPOSITORY

TOKEN = "t" * 48
# A completed task with archived images: it causes no provider request and no download.
ITEM = {"task": {"S": "flux-kontext#task12345"}, "status": {"S": "ARCHIVED"}, "rank": {"N": "50"}}
REPEATED = "repeated"  # the id of a task that already has a result
SECRETS = {"token": TOKEN, "keys": '{"flux-kontext": {"apiKey": "measured"}}'}
ENVIRONMENT = {
    "TASKS_TABLE": "tasks",
    "CALLBACK_TOKEN_SECRET": "token",
    "PROVIDER_KEYS_SECRET": "keys",
    "IMAGES_BUCKET": "images",
    "ARCHIVE_QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/archive",
    "ARCHIVE_DEAD_LETTERS_URL": "https://sqs.us-east-1.amazonaws.com/123456789012/archive-dead-letters",
    "POLL_INTERVAL_SECONDS": "30",
    "SLOW_POLL_AFTER_SECONDS": "900",
    "SLOW_POLL_INTERVAL_SECONDS": "120",
    "GIVE_UP_AFTER_SECONDS": "21600",
    "POWERTOOLS_SERVICE_NAME": "catchlight",
    "POWERTOOLS_METRICS_NAMESPACE": "Catchlight",
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    # Variables that Lambda adds.
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "ASIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "s" * 40,
    "AWS_SESSION_TOKEN": "x" * 400,
    "AWS_LAMBDA_FUNCTION_NAME": "measured",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
    "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0",
    "LANG": "en_US.UTF-8",
}


def _update(request: Mapping[str, Any]) -> Any:
    if not request["Key"].get("task", {}).get("S", "").endswith(REPEATED):
        return {}
    values = request["ExpressionAttributeValues"]
    item = {"status": {"S": "SUCCEEDED"}, "rank": {"N": "30"}, "images": values[":images"]}
    return Refusal(
        {
            "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
            "Item": {**request["Key"], **item},
        }
    )


ANSWERS: Answers = {
    "GetSecretValue": lambda request: {"SecretString": SECRETS[request["SecretId"]]},
    "PutItem": lambda _: {},
    "UpdateItem": _update,
    "GetItem": lambda _: {"Item": ITEM},
    "BatchGetItem": lambda _: {"Responses": {"tasks": [ITEM]}, "UnprocessedKeys": {}},
}


def an_event(path: str) -> dict[str, Any]:
    """Reads an event from a file in `events/`."""
    event: dict[str, Any] = json.loads((REPOSITORY / "events" / path).read_text())
    return event


def a_callback(task_id: str = "task12345") -> dict[str, Any]:
    """Returns a successful Flux Kontext callback with two images and the token."""
    event = an_event("callbacks/flux-kontext/success.json")
    event["pathParameters"]["token"] = TOKEN
    event["body"] = event["body"].replace("task12345", task_id)
    return event


class WarmFunction:
    """A running function that has handled its first event."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def cpu_seconds(self, callbacks: int) -> float:
        """Returns the CPU time per callback, over this number of further callbacks."""
        _not_none(self._process.stdin).write(f"{callbacks}\n")
        _not_none(self._process.stdin).flush()
        cpu: float = json.loads(_not_none(self._process.stderr).readline())["cpu"]
        return cpu / callbacks


@dataclass(frozen=True)
class Sandbox:
    """The paths of the function and its packages, and the event to handle."""

    paths: Sequence[str]
    event: Mapping[str, Any]

    def start(self, aws: StandIn, runtime: str, *options: str) -> tuple[dict[str, Any], str]:
        """Returns the measurements up to the first response, and the complete standard error."""
        process = subprocess.run(
            self._command(aws, runtime, *options),
            env=_environment(aws),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            raise RuntimeError(f"{self.paths[0]} did not respond:\n{process.stderr[-4000:]}")
        measurements = next(line for line in reversed(process.stderr.splitlines()) if line.startswith("{"))
        measured: dict[str, Any] = json.loads(measurements)
        return measured, process.stderr

    @contextmanager
    def warm(self, aws: StandIn, runtime: str) -> Iterator[WarmFunction]:
        """Yields the function after its first event."""
        with subprocess.Popen(
            self._command(aws, runtime),
            env=_environment(aws),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            first = _not_none(process.stderr).readline()
            if not first.startswith("{"):
                process.kill()
                raise RuntimeError(f"{self.paths[0]} did not respond:\n{first}{_not_none(process.stderr).read()}")
            try:
                yield WarmFunction(process)
            finally:
                _not_none(process.stdin).close()

    def _command(self, aws: StandIn, runtime: str, *options: str) -> list[str]:
        arguments = {"paths": self.paths, "event": self.event, "runtime": runtime, "port": aws.port}
        child = str(Path(__file__).with_name("sandbox_child.py"))
        return [sys.executable, "-I", "-S", "-B", *options, child, json.dumps(arguments)]


def _environment(aws: StandIn) -> dict[str, str]:
    return {**ENVIRONMENT, "AWS_CA_BUNDLE": str(aws.bundle), "PATH": os.defpath}


def _not_none(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream

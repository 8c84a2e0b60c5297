"""Runs the callback endpoint without sockets: converts requests to API Gateway's events, and results to responses."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from functions.receive_callback import app
from local.http.api import Route
from local.http.events import HttpRequest, HttpResponse, function_response, message_response, request_event
from local.lambda_.runtime_api import InvocationResult
from tests.conftest import FakeLambdaContext
from tests.hostile.hostile_callbacks import KEYS, NOW, OLD_TOKEN, PREVIOUS_TOKEN, Hostile
from tests.integration.conftest import TABLE_NAME, a_store, an_account
from tests.integration.functions import TOKEN, a_secret
from tests.project_template import project_template

BUCKET = "images-bucket"
CONTEXT = FakeLambdaContext()
ROUTE = Route("POST", "/callbacks/{provider}/{token+}", "ReceiveCallbackFunction")


class Endpoint:
    """The callback endpoint of a stack whose token was rotated twice."""

    def __init__(self) -> None:
        self.store = a_store(project_template())
        self._s3 = boto3.client("s3")
        self._s3.create_bucket(Bucket=BUCKET)
        self._token = a_secret_of("token", OLD_TOKEN, PREVIOUS_TOKEN, TOKEN)
        self._dependencies: dict[str, app.Dependencies] = {}
        for name, versions in KEYS.items():
            keys = a_secret_of(f"keys-{len(self._dependencies)}", *map(json.dumps, versions))
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("IMAGES_BUCKET", BUCKET)
                environment.setenv("TASKS_TABLE", TABLE_NAME)
                environment.setenv("CALLBACK_TOKEN_SECRET", self._token)
                environment.setenv("PROVIDER_KEYS_SECRET", keys)
                self._dependencies[name] = app.Dependencies()

    def send(self, hostile: Hostile) -> HttpResponse:
        """Configures the webhook keys of the case, sends its request and returns the response."""
        self.use_keys(hostile.keys)
        return self.respond(HttpRequest(hostile.method, hostile.path, list(hostile.headers), hostile.body))

    @staticmethod
    def respond(request: HttpRequest) -> HttpResponse:
        """Returns the response that the client receives.

        Raises:
            Exception: any error that the handler does not catch; API Gateway would respond with 500.
        """
        parameters = ROUTE.match(request.method, request.path)
        if parameters is None:
            return message_response(404, "Not Found")
        event = json.loads(json.dumps(request_event(request, ROUTE.key, parameters)))
        return function_response(InvocationResult(json.dumps(app.handler(event, CONTEXT)).encode()))

    def handle(self, event: dict[str, Any]) -> tuple[int, dict[str, str]]:
        """Returns the response to an event that no HTTP request can produce."""
        self.use_keys("none")
        result = app.handler(event, CONTEXT)
        return result["statusCode"], json.loads(result["body"])

    def use_keys(self, name: str) -> None:
        app.dependencies = lambda: self._dependencies[name]  # type: ignore[assignment]

    def kept_count(self) -> int:
        """Returns the number of objects in the bucket, all of which are rejected deliveries."""
        return len(self._kept_keys())

    def delete_all(self) -> None:
        for item in self.store.items():
            self.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": item["task"]}})
        for key in self._kept_keys():
            self._s3.delete_object(Bucket=BUCKET, Key=key)

    def _kept_keys(self) -> list[str]:
        return [found["Key"] for found in self._s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def a_secret_of(name: str, *versions: str) -> str:
    """Creates a secret whose versions have these values, the newest last. Returns its ARN."""
    arn = a_secret(name, versions[0])
    for version in versions[1:]:
        boto3.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=version)
    return arn


@contextmanager
def an_endpoint() -> Iterator[Endpoint]:
    """Provides an endpoint whose clock shows the time at which the callbacks were signed."""
    with an_account(), pytest.MonkeyPatch.context() as patches:
        patches.setattr(app, "utc_now", lambda: datetime.fromtimestamp(NOW, UTC))
        patches.setattr(app, "dependencies", app.dependencies)  # restored at the end
        yield Endpoint()

"""Every hostile callback is answered as it should be, leaves no trace it should not, and learns nothing."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from functions.receive_callback import app
from local.http_api_events import HttpRequest, HttpResponse
from local.template import load_template
from tests.conftest import FakeLambdaContext
from tests.hostile.hostile_callbacks import (
    HOSTILE,
    KEYS,
    MAX_BODY_BYTES,
    NOW,
    OLD_TOKEN,
    PREVIOUS_TOKEN,
    SUCCESS,
    TASK_ID,
    Hostile,
)
from tests.integration.callback_endpoint import respond
from tests.integration.conftest import REPOSITORY, TABLE_NAME, a_store, an_account
from tests.integration.functions import TOKEN, a_callback, a_secret
from tests.planted_secrets import OTHER_TOKEN

BUCKET = "images-bucket"
CONTEXT = FakeLambdaContext()
TASK = f"flux-kontext#{TASK_ID}"
KNOWN: dict[str, dict[str, Any]] = {
    "PENDING": {"rank": 0},
    "TIMED_OUT": {"rank": 10, "failure": {"reason": "NO_NEWS", "message": ""}},
    "FAILED": {"rank": 20, "failure": {"reason": "INTERNAL", "message": ""}},
    "ARCHIVED": {"rank": 50, "images": []},
}


class Endpoint:
    """The callback endpoint of a stack whose token was rotated twice."""

    def __init__(self) -> None:
        self.store = a_store(load_template(REPOSITORY / "template.yaml", {}))
        self._s3 = boto3.client("s3")
        self._s3.create_bucket(Bucket=BUCKET)
        self._token = a_secret_of("token", OLD_TOKEN, PREVIOUS_TOKEN, TOKEN)
        self._dependencies = {}
        for name, versions in KEYS.items():
            keys = a_secret_of(f"keys {len(self._dependencies)}".replace(" ", "-"), *map(json.dumps, versions))
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("IMAGES_BUCKET", BUCKET)
                environment.setenv("TASKS_TABLE", TABLE_NAME)
                environment.setenv("CALLBACK_TOKEN_SECRET", self._token)
                environment.setenv("PROVIDER_KEYS_SECRET", keys)
                self._dependencies[name] = app.Dependencies()

    def send(self, hostile: Hostile) -> HttpResponse:
        """The answer, with the webhook keys that the callback is meant for."""
        self.use_keys(hostile.keys)
        return respond(HttpRequest(hostile.method, hostile.path, list(hostile.headers), hostile.body), CONTEXT)

    def handle(self, event: dict[str, Any]) -> tuple[int, dict[str, str]]:
        """The answer to an event that no HTTP request becomes."""
        self.use_keys("none")
        answer = app.handler(event, CONTEXT)
        return answer["statusCode"], json.loads(answer["body"])

    def use_keys(self, name: str) -> None:
        app.dependencies = lambda: self._dependencies[name]  # type: ignore[assignment, misc]

    def kept(self) -> int:
        """The number of deliveries under `rejected/`."""
        return len(self._kept_keys())

    def empty(self) -> None:
        for item in self.store.items():
            self.store.client.delete_item(TableName=TABLE_NAME, Key={"task": {"S": item["task"]}})
        for key in self._kept_keys():
            self._s3.delete_object(Bucket=BUCKET, Key=key)

    def _kept_keys(self) -> list[str]:
        return [found["Key"] for found in self._s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


def a_secret_of(name: str, *versions: str) -> str:
    """A secret that was given one value after the other."""
    arn = a_secret(name, versions[0])
    for version in versions[1:]:
        boto3.client("secretsmanager").put_secret_value(SecretId=arn, SecretString=version)
    return arn


@pytest.fixture(scope="module")
def shared() -> Iterator[Endpoint]:
    """One for all: an account of its own for each of so many requests would take its time."""
    with an_account(), pytest.MonkeyPatch.context() as patches:
        patches.setattr(app, "utc_now", lambda: datetime.fromtimestamp(NOW, UTC))
        patches.setattr(app, "dependencies", app.dependencies)  # put back in the end
        yield Endpoint()


@pytest.fixture
def endpoint(shared: Endpoint) -> Endpoint:
    shared.empty()
    return shared


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 80
    assert MAX_BODY_BYTES == app.MAX_BODY_BYTES


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_callback_gets_its_answer_and_nothing_else(endpoint: Endpoint, name: str) -> None:
    hostile = HOSTILE[name]

    response = endpoint.send(hostile)

    body = json.loads(response.body)
    assert (response.status, body.get("error")) == (hostile.status, hostile.error)
    assert dict(response.headers) == {"content-type": "application/json"}
    if hostile.status == 200:
        assert body == {"status": "received"}
        assert [item["provider"] for item in endpoint.store.items()] == ["flux-kontext"]
        return
    assert body.keys() == ({"error", "message"} if hostile.error else {"message"})
    assert body["message"].isascii()
    assert TOKEN not in response.body.decode()
    assert endpoint.store.items() == []
    # With the right token, and of no known shape: a later version may read it.
    assert endpoint.kept() == (hostile.error in ("malformed_body", "invalid_callback", "unknown_provider"))


@pytest.mark.parametrize("status", KNOWN)
def test_refusals_are_the_same_whether_the_task_is_known_or_not(endpoint: Endpoint, status: str) -> None:
    refused = {name: hostile for name, hostile in HOSTILE.items() if hostile.status != 200}
    unknown = {name: endpoint.send(hostile) for name, hostile in refused.items()}
    endpoint.store.put(TASK, status=status, **KNOWN[status])
    before = endpoint.store.items()

    assert {name: endpoint.send(hostile) for name, hostile in refused.items()} == unknown

    assert endpoint.store.items() == before


@pytest.mark.parametrize("status", [None, *KNOWN])
def test_who_has_the_token_does_not_learn_what_is_known(endpoint: Endpoint, status: str | None) -> None:
    if status:
        endpoint.store.put(TASK, status=status, **KNOWN[status])

    taken = [hostile for hostile in HOSTILE.values() if hostile.status == 200]

    assert {endpoint.send(hostile).body for hostile in taken} == {b'{"status": "received"}'}


def test_strangers_get_one_answer_to_everything(endpoint: Endpoint) -> None:
    strangers = [hostile for hostile in HOSTILE.values() if hostile.status == 401 and hostile.keys == "none"]
    assert len(strangers) > 25

    assert len({endpoint.send(hostile).body for hostile in strangers}) == 1


def test_whoever_lacks_the_webhook_key_gets_one_answer_to_everything(endpoint: Endpoint) -> None:
    unsigned = [
        hostile
        for hostile in HOSTILE.values()
        if hostile.status == 401 and hostile.keys == "one" and TOKEN in hostile.path
    ]
    assert len(unsigned) > 20

    assert len({endpoint.send(hostile).body for hostile in unsigned}) == 1


# ------------------------------------------------------------------------------------------------ no HTTP sends these


@pytest.mark.parametrize("token", [TOKEN, OTHER_TOKEN])
@pytest.mark.parametrize("body", ["$$$", "abc", "QQ", "QUJD\n$", "é" * 8, "\ud800", "QUJDRA==="])
def test_base64_that_is_none_is_refused(endpoint: Endpoint, token: str, body: str) -> None:
    status, answered = endpoint.handle(a_callback(body, token=token, isBase64Encoded=True))

    assert status in (400, 401)
    assert answered.keys() == {"error", "message"}
    assert (endpoint.store.items(), endpoint.kept()) == ([], 0)


def test_a_long_body_in_base64_is_measured_decoded(endpoint: Endpoint) -> None:
    exact, longer = (base64.b64encode(SUCCESS.ljust(MAX_BODY_BYTES + n)).decode() for n in (0, 1))

    assert endpoint.handle(a_callback(exact, isBase64Encoded=True))[0] == 200
    assert endpoint.handle(a_callback(longer, isBase64Encoded=True))[0] == 413


@pytest.mark.parametrize("headers", [None, {}, {"content-type": ""}, {"X-WEBHOOK-SIGNATURE": ""}])
def test_headers_may_be_missing(endpoint: Endpoint, headers: dict[str, str] | None) -> None:
    assert endpoint.handle(a_callback(SUCCESS.decode(), headers=headers))[0] == 200

"""SnapStart: a snapshot of the callback function has no connections or secrets; restored functions get new credentials.

Lambda imports the handler once for each version of the function, and starts all environments from the snapshot:
https://docs.aws.amazon.com/lambda/latest/dg/snapstart-uniqueness.html
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from catchlight.aws.clients import AwsClients
from local.loopback import LoopbackHandler, LoopbackServer

REPOSITORY = Path(__file__).parents[2]

# Objects that restored environments must not share: connections, clients, secrets, OpenSSL's random numbers.
SEARCH = """
import gc, json, socket, ssl, sys, threading
import functions.receive_callback.app as app
import botocore.client, botocore.session
from catchlight.aws.secrets import RotatingSecret, ProviderKeys
if sys.argv[1:]:
    app.dependencies()
unwanted = (
    botocore.client.BaseClient, botocore.session.Session, socket.socket, ssl.SSLContext, ssl.SSLSocket,
    RotatingSecret, ProviderKeys, app.Dependencies,
)
found = sorted({type(it).__name__ for it in gc.get_objects() if isinstance(it, unwanted)})
json.dump([found, threading.active_count()], sys.stdout)
"""


def imported(*arguments: str, **environment: str) -> tuple[list[str], int]:
    """Imports the handler. Returns the types of objects that must not be in a snapshot, and the number of threads."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "layers/catchlight/python")])
    run = subprocess.run(
        [sys.executable, "-c", SEARCH, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": paths, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    found, threads = json.loads(run.stdout)
    return found, threads


def test_importing_the_handler_creates_no_connection_client_or_secret() -> None:
    assert imported() == ([], 1)


def test_the_search_finds_objects_that_must_not_be_in_a_snapshot() -> None:
    settings = dict.fromkeys(
        ["CALLBACK_TOKEN_SECRET", "PROVIDER_KEYS_SECRET", "TASKS_TABLE", "IMAGES_BUCKET", "TASK_RETENTION_DAYS"], "0"
    )

    found, _ = imported("with dependencies", AWS_DEFAULT_REGION="us-east-1", **settings)

    assert {"Dependencies", "RotatingSecret", "Session", "TlsContext"} < set(found)


class RestoredEnvironment(LoopbackHandler):
    """Lambda's endpoint for credentials in a restored environment, and a DynamoDB that records the callers."""

    callers: list[str]

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        assert self.headers["Authorization"] == "of this environment"
        self._answer(
            {"AccessKeyId": "RESTORED", "SecretAccessKey": "x", "Token": "x", "Expiration": "2099-01-01T00:00:00Z"}
        )

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
        self.rfile.read(int(self.headers["Content-Length"]))
        self.callers.append(self.headers["Authorization"])
        self._answer({})

    def _answer(self, body: dict[str, str]) -> None:
        self.answer(200, json.dumps(body).encode(), [])


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The environment after a restore: it has no access keys, but the URL that returns them. Yields the callers."""
    RestoredEnvironment.callers = []
    server = LoopbackServer(RestoredEnvironment)
    url = f"http://127.0.0.1:{server.port}"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of this environment")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with server:
        yield RestoredEnvironment.callers


def test_a_restored_function_uses_the_credentials_of_its_environment(restored: list[str]) -> None:
    # Access keys from before the snapshot would have expired.
    client = AwsClients().dynamodb()

    client.update_item(TableName="tasks", Key={"task": {"S": "x"}})
    client.close()

    (caller,) = restored
    assert "Credential=RESTORED/" in caller

"""`python -m local up` as other programs use it: through options, stack.json, HTTP and AWS calls."""

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import httpx
import pytest

from catchlight.client.stack import find_local
from catchlight.providers import PROVIDERS
from local.artefact import Artefact
from local.loopback import LoopbackHandler, LoopbackServer
from tests.e2e.test_readme import REPOSITORY, blocks
from tests.image_server import picture
from tests.waiting import TIMEOUT_SECONDS, eventually

IMAGE = picture("JPEG")


class Provider(LoopbackHandler):
    """A minimal provider: returns the records in `records`, and serves one image."""

    records: dict[str, dict[str, Any]]

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server looks for
        url = urlsplit(self.path)
        if url.path.endswith("/record-info"):
            record = self.records.get(parse_qs(url.query)["taskId"][0])
            self._send("application/json", json.dumps({"code": 200, "msg": "success", "data": record}).encode())
        else:
            self._send("application/octet-stream", IMAGE)

    def _send(self, content_type: str, body: bytes) -> None:
        self.answer(200, body, [("Content-Type", content_type)])


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackServer]:
    handler = type("ProviderOfThisModule", (Provider,), {"records": {}})
    with LoopbackServer(handler) as server:
        yield server


class Stack:
    """The stack that stack.json describes, and its provider."""

    def __init__(self, process: subprocess.Popen[str], folder: Path, provider: LoopbackServer) -> None:
        self.process = process
        self.folder = folder
        self.path = folder / ".local" / "stack.json"
        self.provider = provider
        self.info = info = json.loads(self.path.read_text())
        connection = {
            "endpoint_url": info["aws_endpoint_url"],
            "region_name": info["region"],
            "aws_access_key_id": "dummy",
            "aws_secret_access_key": "dummy",
        }
        self.table = boto3.resource("dynamodb", **connection).Table(info["table"])
        self.s3 = boto3.client("s3", **connection)

    def close(self) -> None:
        self.table.meta.client.close()
        self.s3.close()

    def complete_at_provider(self, task_id: str) -> str:
        """Makes the provider report a task's success. Returns its image's URL."""
        url = f"http://127.0.0.1:{self.provider.port}/{task_id}.jpg?signature=abc"
        response = {"originImageUrl": None, "resultImageUrl": url}
        handler: Any = self.provider.RequestHandlerClass
        handler.records[task_id] = {"taskId": task_id, "successFlag": 1, "response": response}
        return url

    def call_back(self, task_id: str, url: str) -> tuple[int, Any]:
        body = {"code": 200, "msg": "ok", "data": {"taskId": task_id, "info": {"resultImageUrl": url}}}
        request = urllib.request.Request(
            self.info["callback_urls"]["flux-kontext"],
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)

    def register(self, task_id: str) -> None:
        now = datetime.now(UTC).isoformat()
        self.table.put_item(
            Item={
                "task": f"flux-kontext#{task_id}",
                "provider": "flux-kontext",
                "taskId": task_id,
                "status": "PENDING",
                "rank": 0,
                "registeredAt": now,
                "updatedAt": now,
            },
            ConditionExpression="attribute_not_exists(task)",
        )

    def wait_for(self, task_id: str, is_done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        def done_item() -> dict[str, Any] | None:
            item: dict[str, Any] = self.table.get_item(Key={"task": f"flux-kontext#{task_id}"}).get("Item", {})
            return item if item and is_done(item) else None

        item: dict[str, Any] = eventually(done_item)
        return item


@pytest.fixture(scope="module")
def stack(
    provider: LoopbackServer, tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("up")
    address = f"127.0.0.1:{provider.port}"
    options = ["--port", "0", "--aws-port", "0", "--time-scale", "0.02"]
    options += ["--state-dir", str(folder / ".local")]
    options += ["--no-simulator", "--provider-url", f"flux-kontext=http://{address}", "--allow-image-host", address]
    options += ["--built"] if artefact else []
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "up", *options],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        eventually(lambda: process.poll() is not None or (folder / ".local" / "stack.json").exists())
        assert process.poll() is None, process.stdout and process.stdout.read()
        running = Stack(process, folder, provider)
        yield running
        running.close()
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, output


def test_stack_json_and_the_printed_text_have_all_addresses(stack: Stack, artefact: Artefact | None) -> None:
    assert stack.info.keys() == {
        "api_url",
        "tasks_api_url",
        "gallery_url",
        "aws_endpoint_url",
        "region",
        "table",
        "bucket",
        "archive_queue_url",
        "archive_dlq_url",
        "state_machine_arn",
        "callback_urls",
        "simulator_url",
        "webhook_url",
        "webhook_secret",
        "built",
        "resources",
        "parameters",
    }
    assert stack.info["callback_urls"].keys() == {*PROVIDERS}
    assert stack.info["simulator_url"] is None
    assert stack.info["webhook_url"] is None
    assert stack.info["built"] is (artefact is not None)
    assert stack.process.stdout
    output = "".join(iter(stack.process.stdout.readline, "Ready. Ctrl-C ends everything.\n"))
    assert stack.info["api_url"] in output
    assert stack.info["callback_urls"]["flux-kontext"] in output
    assert stack.path.with_name("tasks-api.html").as_uri() in output
    assert stack.info["gallery_url"] not in output  # it is printed last
    assert stack.process.stdout.readline() == "\n"
    assert stack.process.stdout.readline().split() == ["Gallery", stack.info["gallery_url"]]


def test_a_second_stack_in_the_same_folder_is_an_error(stack: Stack) -> None:
    log = stack.path.parent / "logs" / "first.log"
    log.write_text("a line\n")
    before = stack.path.read_text()

    second = subprocess.run(
        [sys.executable, "-m", "local", "up", "--port", "0", "--state-dir", str(stack.path.parent), "--no-simulator"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    addresses = f"API {stack.info['api_url']}, AWS endpoint {stack.info['aws_endpoint_url']}"
    assert f"process {stack.process.pid}, {addresses}" in second.stderr
    assert stack.path.read_text() == before
    assert log.read_text() == "a line\n"
    assert find_local(stack.path.parent).api_url == stack.info["api_url"]


def test_the_readmes_curl_example_delivers_a_callback(stack: Stack) -> None:
    (block,) = [block for block in blocks("sh") if "curl" in block]
    (stack.folder / ".venv").symlink_to(sys.prefix)

    process = subprocess.run(
        ["bash", "-euc", block], cwd=stack.folder, capture_output=True, text=True, timeout=60, check=False
    )

    assert process.returncode == 0, process.stderr
    assert '{"status": "received"}' in process.stdout
    assert "'status': 'FAILED'" in process.stdout
    assert "CONTENT_POLICY" in process.stdout


def test_the_image_of_a_callback_is_archived(stack: Stack) -> None:
    url = stack.complete_at_provider("called-back")
    assert stack.call_back("called-back", url) == (200, {"status": "received"})
    item = stack.wait_for("called-back", lambda item: item["status"] == "ARCHIVED")
    (image,) = item["images"]
    assert image["key"] == "images/flux-kontext/called-back/result-0.jpg"
    assert image["sha256"] == hashlib.sha256(IMAGE).hexdigest()
    stored = stack.s3.get_object(Bucket=stack.info["bucket"], Key=image["key"])
    assert stored["Body"].read() == IMAGE
    assert stored["ContentType"] == "image/jpeg"


def test_64_deliveries_of_one_callback_write_one_item_and_one_object(stack: Stack) -> None:
    url = stack.complete_at_provider("at-once")
    with ThreadPoolExecutor(16) as pool:
        responses = list(pool.map(lambda _: stack.call_back("at-once", url), range(64)))

    assert responses == [(200, {"status": "received"})] * 64
    item = stack.wait_for("at-once", lambda item: item["status"] == "ARCHIVED")
    assert item["deliveries"] == 1  # repeated callbacks are not counted
    assert "conflicts" not in item
    versions = stack.s3.list_object_versions(Bucket=stack.info["bucket"], Prefix="images/flux-kontext/at-once/")
    assert [version["Key"] for version in versions["Versions"]] == ["images/flux-kontext/at-once/result-0.jpg"]


def test_the_image_of_a_lost_callback_is_archived_after_polling(stack: Stack) -> None:
    stack.register("lost")
    stack.complete_at_provider("lost")
    item = stack.wait_for("lost", lambda item: item["status"] == "ARCHIVED")
    assert item["reportedBy"] == "poll"
    stored = stack.s3.get_object(Bucket=stack.info["bucket"], Key="images/flux-kontext/lost/result-0.jpg")
    assert stored["Body"].read() == IMAGE


def test_without_a_provider_url_a_task_is_archived_unconfirmed(stack: Stack) -> None:
    url = stack.complete_at_provider("other")
    request = urllib.request.Request(
        stack.info["callback_urls"]["nanobanana"],
        json.dumps({"code": 200, "data": {"taskId": "other", "info": {"resultImageUrl": url}}}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200
    key = {"task": "nanobanana#other"}
    eventually(lambda: stack.table.get_item(Key=key)["Item"]["status"] == "ARCHIVED")


def test_the_response_to_a_wrong_token_is_401_with_a_reason(stack: Stack) -> None:
    request = urllib.request.Request(f"{stack.info['api_url']}/callbacks/flux-kontext/{'x' * 48}", b"{}", method="POST")
    with pytest.raises(urllib.error.HTTPError) as rejected:
        urllib.request.urlopen(request, timeout=60)
    with rejected.value as error:
        assert error.code == 401
        assert json.load(error)["error"] == "unauthorized"


def test_ctrl_c_ends_a_stack_with_an_open_gallery_without_an_error(stack: Stack) -> None:
    stopped, has_response = Event(), Event()

    def browse(url: str) -> None:
        with httpx.Client(trust_env=False) as browser:
            while not stopped.is_set():
                with contextlib.suppress(httpx.TransportError):
                    browser.get(url)
                    has_response.set()

    browsers = [
        Thread(target=browse, args=(f"{stack.info['gallery_url']}{name}",))
        for name in ("api/tasks", "api/tasks?status=PENDING", "api/tasks/flux-kontext/t1/actions", "gallery.js") * 2
    ]
    for browser in browsers:
        browser.start()
    try:
        assert has_response.wait(TIMEOUT_SECONDS)
        stack.process.send_signal(signal.SIGINT)
        assert stack.process.wait(TIMEOUT_SECONDS) == 0
    finally:
        stopped.set()
        for browser in browsers:
            browser.join()
    assert not stack.path.exists()
    assert stack.process.stdout
    output = stack.process.stdout.read()
    assert "Traceback" not in output
    assert "failed" not in output

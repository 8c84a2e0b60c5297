"""The events that the project's stack publishes for tasks, received with the rule and the code of docs/events.md."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import httpx
import jsonschema
import pytest
from moto.s3.models import s3_backends

from catchlight_cli.command_line import run as run_command_line
from local import REPOSITORY
from local.account import ACCOUNT_ID
from local.artefact import Artefact
from local.events.filters import EventFilter
from local.stack import LocalStack
from local.template.expand import load_template
from tests.canary_secrets import readings, stored
from tests.waiting import eventually

PAGE = (REPOSITORY / "docs" / "events.md").read_text()
SCHEMA = json.loads((REPOSITORY / "docs" / "task-event.schema.json").read_text())
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in (REPOSITORY / "events" / "task_events").glob("*.json")}
SUBMIT = "/kie/api/v1/flux/kontext/generate"
TIMEOUT_SECONDS = 300


def blocks(language: str) -> list[str]:
    """Returns the code blocks of the page, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def block_with(text: str) -> CodeType:
    (found,) = [block for block in blocks("python") if text in block]
    return compile(found, "docs/events.md", "exec")


@dataclass
class EventBridge:
    """Middleware before moto's EventBridge: checks that the images of an event are stored when it is published.

    If `is_down`, all events are refused.
    """

    is_down: bool = False
    missing: list[str] = field(default_factory=list)  # keys of images in events that were not in the bucket
    published: list[str] = field(default_factory=list)  # keys of images in events

    def __call__(self, application: WSGIApplication) -> WSGIApplication:
        def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Any:
            if environ.get("HTTP_X_AMZ_TARGET") != "AWSEvents.PutEvents":
                return application(environ, start_response)
            body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            environ["wsgi.input"] = io.BytesIO(body)
            entries = json.loads(body)["Entries"]
            if self.is_down:
                refused = {"ErrorCode": "InvalidArgument", "ErrorMessage": "refused by the test"}
                failed = {"FailedEntryCount": len(entries), "Entries": [refused] * len(entries)}
                start_response("200 OK", [("Content-Type", "application/x-amz-json-1.1")])
                return [json.dumps(failed).encode()]
            for image in (image for entry in entries for image in json.loads(entry["Detail"])["images"]):
                if image["state"] == "ARCHIVED":
                    self.published.append(image["key"])
                    if image["key"] not in s3_backends[ACCOUNT_ID]["aws"].buckets[image["bucket"]].keys:
                        self.missing.append(image["key"])
            return application(environ, start_response)

        return respond


@dataclass
class Running:
    """The stack, its EventBridge, and the queue that the page's rule fills."""

    stack: LocalStack
    event_bridge: EventBridge
    page: dict[str, Any]  # variables of the code on the page
    received: list[dict[str, Any]] = field(default_factory=list)

    def submit(self, task_id: str, scenario: str) -> None:
        """Submits a task to the simulated Flux Kontext, which then sends a callback."""
        response = httpx.post(
            self.stack.info["simulator_url"] + SUBMIT,
            headers={"Authorization": "Bearer any", "x-simulate": scenario, "x-simulate-task-id": task_id},
            json={"prompt": "a lighthouse", "callBackUrl": self.callback_url},
            trust_env=False,
        )
        assert response.json()["code"] == 200, response.text

    @property
    def callback_url(self) -> str:
        return str(self.stack.info["callback_urls"]["flux-kontext"])

    def events_of(self, task_id: str) -> list[dict[str, Any]]:
        """Receives all events. Returns those of a task, in the order of its changes."""
        sqs, queue = self.page["sqs"], self.page["queue"]
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self.received.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        found = [event for event in self.received if event["detail"]["taskId"] == task_id]
        return sorted(found, key=lambda event: str(event["detail"]["changedAt"]))

    def wait_for(self, task_id: str, *detail_types: str) -> list[dict[str, Any]]:
        """Waits for exactly these events of a task, and returns them."""
        events: list[dict[str, Any]] = eventually(
            lambda: len(found := self.events_of(task_id)) >= len(detail_types) and found, TIMEOUT_SECONDS
        )
        assert [event["detail-type"] for event in events] == list(detail_types)
        return events


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, artefact: Artefact | None) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("events")
    event_bridge = EventBridge()
    with (
        pytest.MonkeyPatch.context() as patches,
        LocalStack(
            state_dir=folder / ".local", time_scale=0.02, aws_middleware=event_bridge, artefact=artefact
        ) as stack,
    ):
        patches.chdir(folder)
        page: dict[str, Any] = {}
        (watch,) = [block for block in blocks("python") if "put_rule" in block]
        exec(compile(watch.partition("while True:")[0], "docs/events.md", "exec"), page)
        yield Running(stack, event_bridge, page)
        for client in ("sqs", "events"):
            page[client].close()


def test_the_event_of_an_archived_task_is_published_after_its_images_are_stored(running: Running) -> None:
    running.submit("archived1", "success")

    (event,) = running.wait_for("archived1", "Task Archived")

    detail = event["detail"]
    jsonschema.validate(detail, SCHEMA)
    assert [(image["kind"], image["state"]) for image in detail["images"]] == [
        ("origin", "ARCHIVED"),
        ("result", "ARCHIVED"),
    ]
    keys = {image["key"] for image in detail["images"]}
    assert keys <= set(running.event_bridge.published)
    assert running.event_bridge.missing == []
    s3 = running.stack.boto3_client("s3")
    for image in detail["images"]:
        head = s3.head_object(Bucket=image["bucket"], Key=image["key"])
        assert (head["ContentLength"], head["ContentType"]) == (image["bytes"], image["contentType"])


def test_an_event_has_the_values_of_its_tasks_item(running: Running) -> None:
    running.submit("archived2", "success")

    (event,) = running.wait_for("archived2", "Task Archived")

    key = {"task": {"S": "flux-kontext#archived2"}}
    item = running.stack.boto3_client("dynamodb").get_item(TableName=running.stack.info["table"], Key=key)["Item"]
    for name in ("status", "reportedBy", "reportedAt", "archivedAt"):
        assert event["detail"][name] == item[name]["S"]
    assert event["detail"]["changedAt"] == item["archivedAt"]["S"]


def test_the_event_of_an_incomplete_task_names_the_missing_image(running: Running) -> None:
    running.submit("incomplete1", "private-address")

    (event,) = running.wait_for("incomplete1", "Task Incomplete")

    jsonschema.validate(event["detail"], SCHEMA)
    origin, result = event["detail"]["images"]
    assert (origin["state"], result["state"]) == ("ARCHIVED", "REJECTED")
    assert result["reason"] == "the URL's host is not a public host name"


def test_the_event_of_a_failed_task_has_the_reason(running: Running) -> None:
    running.submit("failed1", "content-policy")

    (event,) = running.wait_for("failed1", "Task Failed")

    jsonschema.validate(event["detail"], SCHEMA)
    assert event["detail"]["failure"]["reason"] == "CONTENT_POLICY"
    assert event["detail"]["images"] == []


def test_a_failure_that_the_provider_contradicts_has_two_events(running: Running) -> None:
    running.submit("contradicted1", "slow")
    failure = {"code": 501, "msg": "no", "data": {"taskId": "contradicted1", "info": {}}}
    assert httpx.post(running.callback_url, json=failure, trust_env=False).status_code == 200

    failed, archived = running.wait_for("contradicted1", "Task Failed", "Task Archived")

    assert failed["detail"]["reportedBy"] == "callback"
    assert "confirmedAt" not in failed["detail"]
    assert "failure" not in archived["detail"]
    assert failed["detail"]["eventId"] != archived["detail"]["eventId"]


def test_no_copy_of_the_callback_url_is_stored_or_published(running: Running) -> None:
    url = running.callback_url
    # In kie.ai's Market, the callback URL is in JSON inside a string.
    param = json.dumps({"callBackUrl": url, "input": {"prompt": "a lighthouse"}})
    market = {"code": "ok", "data": {"taskId": "copied1", "state": "success", "param": param}}
    running.submit("copied1", "slow")
    failure = {"code": 501, "msg": f"not delivered to {url}", "data": {"taskId": "copied1", "info": {}}}
    assert httpx.post(url, json=market, trust_env=False).status_code == 422
    assert httpx.post(url, json=failure, trust_env=False).status_code == 200

    failed, _ = running.wait_for("copied1", "Task Failed", "Task Archived")

    assert failed["detail"]["failure"]["message"].endswith("/callbacks/flux-kontext/[redacted]")
    token = url.rpartition("/")[2]
    contents = [*stored(), *(("event", str(event)) for event in running.received)]
    assert {"event", "item"} < {where.partition(" ")[0] for where, _ in contents}
    assert [where for where, _ in contents if where.startswith("object rejected/")]
    texts = ((where, content) for where, content in contents if len(content) < 200_000)  # longer ones are images
    assert [where for where, text in texts if any(token in read for read in readings(text, levels=3))] == []


def test_an_event_that_cannot_be_published_becomes_a_dead_letter_and_can_be_published_again(running: Running) -> None:
    sqs, queue = running.stack.boto3_client("sqs"), running.stack.resources["PublishDeadLetters"].ref
    running.event_bridge.is_down = True
    running.submit("refused1", "content-policy")

    def dead_letters() -> int:
        found = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["ApproximateNumberOfMessages"])
        return int(found["Attributes"]["ApproximateNumberOfMessages"])

    eventually(dead_letters, TIMEOUT_SECONDS)
    running.event_bridge.is_down = False
    # Other events are not delayed.
    running.submit("after1", "content-policy")
    running.wait_for("after1", "Task Failed")
    assert running.events_of("refused1") == []

    # The command uses the running local stack of this folder.
    assert run_command_line(["resend-events"]) == 0

    (event,) = running.wait_for("refused1", "Task Failed")
    jsonschema.validate(event["detail"], SCHEMA)
    assert dead_letters() == 0


# ------------------------------------------------------------------------------------------------ the page's rule


def rules_of_the_page(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Returns the rules of the page's template, as CloudFormation receives them."""
    (text,) = blocks("yaml")
    (tmp_path / "template.yaml").write_text(text)
    (tmp_path / "use_images").mkdir()
    parameters = {"EventBusName": "catchlight-tasks", "ImagesBucket": "images"}
    resources = load_template(tmp_path / "template.yaml", parameters).resources
    return {name: found["Properties"] for name, found in resources.items() if found["Type"] == "AWS::Events::Rule"}


def test_the_pages_rule_matches_the_events_that_the_page_names(tmp_path: Path) -> None:
    (rule,) = rules_of_the_page(tmp_path).values()
    pattern = EventFilter([json.dumps(rule["EventPattern"])])

    assert rule["EventBusName"] == {"Ref": "EventBusName"}
    assert {name for name, event in EXAMPLES.items() if pattern.matches(event)} == {"archived"}
    other = {**EXAMPLES["archived"], "detail": {**EXAMPLES["archived"]["detail"], "provider": "acedata"}}
    assert not pattern.matches(other)


@pytest.mark.parametrize(
    ("number", "matched"),
    [(0, {"failed", "timed_out", "unconfirmed", "incomplete"}), (1, {"failed"})],
    ids=["attention", "prompts"],
)
def test_the_pages_other_patterns_match_the_events_that_the_page_names(number: int, matched: set[str]) -> None:
    pattern = EventFilter([blocks("json")[number]])

    assert {name for name, event in EXAMPLES.items() if pattern.matches(event)} == matched


def test_the_pages_function_reads_the_images_of_an_event(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running.submit("used1", "success")
    (event,) = running.wait_for("used1", "Task Archived")
    monkeypatch.setenv("AWS_ENDPOINT_URL", running.stack.info["aws_endpoint_url"])
    names: dict[str, Any] = {}

    exec(block_with("def handler"), names)
    used = names["handler"](event, None)

    assert used == [image["key"] for image in event["detail"]["images"] if image["kind"] == "result"]
    assert capsys.readouterr().out.startswith("used1 image/")


def test_the_pages_code_prints_received_events(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running.page["sqs"].send_message(QueueUrl=running.page["queue"], MessageBody=json.dumps(EXAMPLES["failed"]))
    (watch,) = [block for block in blocks("python") if "put_rule" in block]

    exec(compile("if True:" + watch.partition("while True:")[2], "docs/events.md", "exec"), running.page)

    assert "Task Failed" in capsys.readouterr().out

"""A process of ArchiveImages is killed while it archives a batch, as Lambda does when its memory is exhausted.

The queue's event source delivers the remaining messages again each time.
"""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from boto3.dynamodb.types import TypeSerializer
from moto.sqs.models import Queue

from catchlight.models import iso, utc_now
from catchlight.tasks.task import ARCHIVING_TIMEOUT
from local.artefact import Artefact
from local.moto.patches import sqs as moto_sqs
from local.stack import LocalStack
from tests.image_server import ImageServer, content, picture, serving
from tests.waiting import TIMEOUT_SECONDS, eventually

PNG = picture("PNG")
OOM_TASK = "flux-kontext#oom"
OTHER_TASKS = [f"flux-kontext#other{number}" for number in range(4)]
TASKS = [*OTHER_TASKS, OOM_TASK]
FUNCTION = "ArchiveImagesFunction"
# In AWS a message becomes visible 60 s after its run began. The mark of a killed run is then older than any run can be.
SECONDS_BETWEEN_RUNS = 3 * ARCHIVING_TIMEOUT.total_seconds()
_serialize = TypeSerializer().serialize


class Killer:
    """Serves the images. The download of OOM_TASK's image kills the process.

    The first two times, the downloads of all other images have begun and have not ended by then.
    """

    def __init__(self, images: ImageServer) -> None:
        self.images = images
        self.stack: LocalStack | None = None
        self.kills = 0
        self._downloads = 0  # of the other images, since the last kill
        self._changed = threading.Condition()

    def serve(self, task: str) -> str:
        """Serves a task's image. Returns its URL."""
        name = task.partition("#")[2]
        self.images.serve(name, self._kill if task == OOM_TASK else self._respond)
        return self.images.url(name, "127.0.0.1")

    def _respond(self, request: BaseHTTPRequestHandler) -> None:
        with self._changed:
            self._downloads += 1
            self._changed.notify_all()
            kills = self.kills
            if kills < 2:
                assert self._changed.wait_for(lambda: self.kills > kills, TIMEOUT_SECONDS)
                return
        content(PNG)(request)

    def _kill(self, request: BaseHTTPRequestHandler) -> None:
        with self._changed:
            if self.kills < 2:
                assert self._changed.wait_for(lambda: self._downloads == len(OTHER_TASKS), TIMEOUT_SECONDS)
        assert self.stack
        function = self.stack.functions[FUNCTION]
        function.shift_clock((self.kills + 1) * SECONDS_BETWEEN_RUNS)
        for sandbox in function.busy():
            function.kill(sandbox)
        with self._changed:
            self.kills += 1
            self._downloads = 0
            self._changed.notify_all()


def received_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the archive queue's event source receive all remaining messages at once, and all five the first time."""
    wait = moto_sqs.wait_for_messages
    has_begun = threading.Event()

    def wait_for_all(queue: Queue, timeout: float) -> bool:
        if "ArchiveQueue" not in queue.name:
            return wait(queue, timeout)
        time.sleep(timeout)
        visible = len(queue.messages)
        if visible == len(TASKS):
            has_begun.set()
        return has_begun.is_set() and visible == len(queue._messages) > 0

    monkeypatch.setattr(moto_sqs, "wait_for_messages", wait_for_all)


@pytest.fixture
def killer(tmp_path: Path, artefact: Artefact | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Killer]:
    received_together(monkeypatch)
    with serving() as images:
        killer = Killer(images)
        hosts = [f"127.0.0.1:{images.port}"]
        stack = LocalStack(state_dir=tmp_path, time_scale=0.01, simulator=False, image_hosts=hosts, artefact=artefact)
        with stack:
            killer.stack = stack
            yield killer


def succeed(killer: Killer, task: str) -> None:
    """Writes a task for which the provider has reported a success."""
    assert killer.stack
    provider, _, task_id = task.partition("#")
    now = iso(utc_now())
    image = {"kind": "result", "url": killer.serve(task), "expiresAt": "2099-01-01T00:00:00.000Z", "state": "PENDING"}
    item = {"task": task, "provider": provider, "taskId": task_id, "status": "SUCCEEDED", "rank": 30}
    item |= {"reportedBy": "poll", "reportedAt": now, "registeredAt": now, "updatedAt": now, "images": [image]}
    killer.stack.boto3_client("dynamodb").put_item(
        TableName=killer.stack.info["table"], Item={name: _serialize(value) for name, value in item.items()}
    )


def status(killer: Killer, task: str) -> str:
    assert killer.stack
    found = killer.stack.boto3_client("dynamodb").get_item(
        TableName=killer.stack.info["table"], Key={"task": {"S": task}}
    )
    return str(found["Item"]["status"]["S"])


def log_records(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of ArchiveImages' log that are JSON."""
    lines = (folder / "logs" / f"{FUNCTION}.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_the_other_tasks_of_a_killed_batch_are_archived_and_the_kill_is_reported(
    killer: Killer, tmp_path: Path
) -> None:
    for task in TASKS:
        succeed(killer, task)

    eventually(lambda: {status(killer, task) for task in OTHER_TASKS} == {"ARCHIVED"})
    eventually(lambda: killer.kills >= 4)  # its task is tried again, alone

    assert status(killer, OOM_TASK) == "SUCCEEDED"
    records = log_records(tmp_path)
    first_batch = next(record for record in records if record.get("message") == "batch received")
    assert set(first_batch["tasks"]) == set(TASKS)
    interrupted = [record["task"] for record in records if "earlier try of this task was killed" in str(record)]
    assert set(interrupted) == set(TASKS)
    counted = [record for record in records if record.get("ProcessingErrors") and record["reason"] == "InterruptedTry"]
    assert len(counted) == len(interrupted)
    assert "signal: SIGKILL" in (tmp_path / "logs" / "errors.log").read_text()

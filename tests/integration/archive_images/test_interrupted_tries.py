"""A task that kills the process does not stop the others of its batch; throttled receives do not count as tries."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.archive_images import app
from tests.image_server import picture, status
from tests.integration.archiver import Archiver
from tests.integration.fault_injection import AWS_FAULTS, counted, failing, reported

PNG = picture("PNG")
POISON = "flux-kontext#poison"
OTHER_TASKS = [f"flux-kontext#other{number}" for number in range(4)]
VISIBILITY_TIMEOUT = timedelta(seconds=60)


class KilledError(BaseException):
    """The process has ended: no later step of the handler runs."""


class Fetcher:
    """Fetches images; the download of the poison task's image ends the process and all other running downloads."""

    def __init__(self, fetcher: Any) -> None:
        self._fetcher = fetcher
        self.is_batch_poisoned = False
        self._is_killed = threading.Event()

    @contextmanager
    def fetch(self, url: str, hosts: Any) -> Iterator[Any]:
        if "poison" in url:
            self._is_killed.set()
            raise KilledError
        if self.is_batch_poisoned:
            assert self._is_killed.wait(60)
            raise KilledError
        with self._fetcher.fetch(url, hosts) as image:
            yield image


class Queue:
    """The archive queue with its event source, which delivers all messages in one batch until they are deleted."""

    def __init__(self, archiver: Archiver, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime.now(UTC)
        monkeypatch.setattr(app, "utc_now", lambda: self.now)
        self._archiver = archiver
        self._messages = archiver.receive(POISON, *OTHER_TASKS)
        self._receives = 0
        copier = app.dependencies().archive._copier
        self.fetcher = Fetcher(copier._fetcher)
        monkeypatch.setattr(copier, "_fetcher", self.fetcher)
        monkeypatch.setattr(app.dependencies().archive, "_now", lambda: self.now)

    def deliver(self) -> None:
        """Delivers the batch once."""
        self._receives += 1
        for message in self._messages:
            message["attributes"]["ApproximateReceiveCount"] = str(self._receives)
        with suppress(KilledError):
            failed = self._archiver.handle(self._messages)
            self._messages = [message for message in self._messages if message["messageId"] in failed]
        self.now += VISIBILITY_TIMEOUT

    def count_undeleted(self) -> int:
        """Returns the number of messages that are not deleted."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self._archiver.sqs.get_queue_attributes(QueueUrl=self._archiver.queue_url, AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names)


@pytest.fixture
def queue(archiver: Archiver, monkeypatch: pytest.MonkeyPatch) -> Queue:
    archiver.succeed(archiver.serve("poison", PNG), task=POISON)
    for task in OTHER_TASKS:
        archiver.succeed(archiver.serve(task.partition("#")[2], PNG), task=task)
    return Queue(archiver, monkeypatch)


def statuses(archiver: Archiver) -> set[str]:
    return {archiver.item(task)["status"] for task in OTHER_TASKS}


def test_the_other_tasks_of_a_batch_are_archived_although_one_kills_the_process(
    archiver: Archiver, queue: Queue, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    queue.fetcher.is_batch_poisoned = True
    queue.deliver()  # the first try is not recorded in the items
    queue.deliver()
    assert statuses(archiver) == {"SUCCEEDED"}
    queue.fetcher.is_batch_poisoned = False  # from now on, the tasks are tried one after the other

    queue.deliver()  # the poison task may be the first
    queue.deliver()  # now it is the last

    assert statuses(archiver) == {"ARCHIVED"}
    assert archiver.item(POISON)["status"] == "SUCCEEDED"
    suspects = {vars(record)["task"] for record in caplog.records if "earlier try of this task" in record.message}
    assert suspects == {POISON, *OTHER_TASKS}
    assert set(counted(capsys)) == {"InterruptedTry"}
    # Otherwise, they would be received together with the poison task again, and become dead letters with it.
    assert queue.count_undeleted() == 1
    assert archiver.dead_letters() == []


def test_a_message_that_cannot_be_deleted_early_does_not_stop_the_batch(
    archiver: Archiver, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    queue.fetcher.is_batch_poisoned = True
    queue.deliver()
    queue.deliver()
    queue.fetcher.is_batch_poisoned = False

    with failing("DeleteMessage", AWS_FAULTS["unanswered"]):
        queue.deliver()
        queue.deliver()

    assert statuses(archiver) == {"ARCHIVED"}
    assert reported(caplog.records, OTHER_TASKS[0]) >= {type(AWS_FAULTS["unanswered"]).__name__}


def test_throttled_receives_do_not_count_as_tries(archiver: Archiver) -> None:
    """Lambda throttled five receives. In the first try, the image host responds with 404."""
    archiver.succeed(archiver.serve("a", status(404)))
    (message,) = archiver.receive()
    message["attributes"]["ApproximateReceiveCount"] = "6"

    assert archiver.handle([message]) == [message["messageId"]]
    assert archiver.seconds_until_visible(message) == pytest.approx(5, abs=3)  # as after a first try
    assert archiver.states() == ["PENDING"]
    assert (archiver.item()["archiveTries"], "archivingSince" in archiver.item()) == (1, False)

    archiver.serve("a", PNG)
    message["attributes"]["ApproximateReceiveCount"] = "7"
    assert archiver.handle([message]) == []
    assert archiver.states() == ["ARCHIVED"]


def test_a_try_of_a_task_that_is_deleted_meanwhile_creates_no_item(archiver: Archiver) -> None:
    archiver.succeed(archiver.serve("a", status(503)))
    task = archiver.store.table.get("flux-kontext#task12345")
    assert task is not None
    archiver.store.client.delete_item(TableName="tasks", Key={"task": {"S": task.task}})

    tries = app.dependencies().archive._tries
    tries.begin(task, now=datetime.now(UTC))
    tries.end(task, has_failed=True)

    assert archiver.store.items() == []

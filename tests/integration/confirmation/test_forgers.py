"""Forged callbacks with the valid token do not change a task's final result, in any order of events."""

import itertools
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catchlight.models import TaskReport
from catchlight.polling.intervals import MAX_ARCHIVE_TRIES
from catchlight.providers import PROVIDERS
from catchlight.tasks.confirmations import Confirmations
from catchlight.tasks.task import Task
from functions.dispatch_changes.app import FollowUp
from tests.integration.archiver import Archiver
from tests.integration.confirmation.conftest import Stream
from tests.integration.confirmation.reports import FORGED, PNG, flux_record, urls
from tests.integration.providers import (
    FLUX_PATH,
    Providers,
    failed,
    poll,
    running,
)

# ------------------------------------------------------------------------------------------------ any order of events

task_numbers = itertools.count()


class ForgedTask:
    """A task, its provider, Catchlight, and a forger who has the callback token. The steps can run in any order."""

    def __init__(self, archiver: Archiver, providers: Providers, stream: Stream, actual_result: str) -> None:
        self.archiver, self.providers, self.stream = archiver, providers, stream
        self.actual_result = actual_result
        self.task_id = f"forged{next(task_numbers)}"
        self.task = f"flux-kontext#{self.task_id}"
        self.real_url = archiver.serve(f"real-{self.task_id}", PNG)
        self.is_finished = False
        self.messages: list[int] = []  # the number of tries of each message
        self.executions: list[dict[str, Any]] = []
        stream.new_follow_ups()
        providers.answers[FLUX_PATH] = self.respond

    def respond(self, request: httpx.Request) -> httpx.Response:
        if not self.is_finished:
            return running(request)
        return flux_record(self.real_url)(request) if self.actual_result == "success" else failed(request)

    def callback(self, **body: Any) -> None:
        report = PROVIDERS["flux-kontext"].parse_callback(
            body | {"taskId": self.task_id}, received_at=datetime.now(UTC)
        )
        self.archiver.store.reports.record(report)

    def step(self, name: str) -> None:
        match name:
            case "register":
                if self.archiver.store.item(self.task) is None:
                    self.archiver.store.register(self.task)
            case "finish":
                self.is_finished = True
            case "real callback":
                if self.is_finished and self.actual_result == "success":
                    self.callback(code=200, data={"info": {"resultImageUrl": self.real_url}})
                elif self.is_finished:
                    self.callback(code=400, msg="policy")
            case "forged success" | "another forged success":
                url = self.archiver.serve(f"forged-{name.count(' ')}-{self.task_id}", FORGED)
                self.callback(code=200, data={"info": {"resultImageUrl": url}})
            case "forged failure":
                self.callback(code=500, msg="forged")
            case "archive":
                self.messages = [
                    tries + 1 for tries in self.messages if self.archiver.run(self.task, tries=tries) == [self.task]
                ]
                assert all(tries <= MAX_ARCHIVE_TRIES for tries in self.messages)  # no dead letter
            case "poll":
                self.executions = [state for state in map(self._poll, self.executions) if state["tasks"]]
        for _, follow_up in self.stream.new_follow_ups():
            if follow_up is FollowUp.ARCHIVE:
                self.messages.append(1)
            else:
                self.executions.append({"waitSeconds": 60, "waitedSeconds": 0, "tasks": [self.task]})

    @staticmethod
    def _poll(state: dict[str, Any]) -> dict[str, Any]:
        return poll(*state["tasks"], wait_seconds=state["waitSeconds"], waited_seconds=state["waitedSeconds"])

    def settle(self) -> None:
        """Runs every step until nothing changes, without the forger."""
        self.step("finish")
        for _ in range(20):
            if not (self.messages or self.executions):
                return
            self.step("archive")
            self.step("poll")
        pytest.fail("messages or executions are left after 20 rounds")


STEPS = [
    *("register", "finish", "real callback", "archive", "poll"),
    *("forged success", "another forged success", "forged failure"),
]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    actual_result=st.sampled_from(["success", "failure"]),
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=12),
)
@example(
    actual_result="success", steps=["forged failure", "poll", "forged success", *["archive"] * 5, "forged failure"]
)
@example(
    actual_result="failure", steps=["finish", "forged failure", "poll", "forged success", "archive", "forged success"]
)
@example(actual_result="failure", steps=["finish", "real callback", "poll", "forged success"])
@example(actual_result="success", steps=["forged success", *["archive"] * 5, "forged failure", "finish", "poll"])
def test_forged_callbacks_with_the_token_do_not_change_the_final_result(
    archiver: Archiver, providers: Providers, stream: Stream, actual_result: str, steps: list[str]
) -> None:
    forged_task = ForgedTask(archiver, providers, stream, actual_result)
    for step in steps:
        forged_task.step(step)
    forged_task.settle()

    item = archiver.store.item(forged_task.task)
    if item is None:  # no step has written the item
        assert not {"register", "forged success", "another forged success", "forged failure"} & set(steps)
        return
    if actual_result == "success":
        assert (item["status"], urls(item)) == ("ARCHIVED", [forged_task.real_url])
    else:
        assert (item["status"], item["failure"]["reason"]) == ("FAILED", "CONTENT_POLICY")
        assert "images" not in item
    stored = {key: data for key, data in archiver.images().items() if forged_task.task_id in key}
    assert list(stored.values()) == ([PNG] if actual_result == "success" else [])


def test_a_callback_right_after_a_correction_is_not_archived_as_confirmed(
    archiver: Archiver, providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forged callback arrives between a correction and its dispatch: found by tests/searches/faults."""
    forged = archiver.serve("forged", FORGED)
    providers.answers[FLUX_PATH] = failed
    archiver.succeed(forged)
    correct = Confirmations.correct

    def correct_and_report_again(self: Confirmations, task: Task, report: TaskReport) -> Task | None:
        corrected = correct(self, task, report)
        archiver.succeed(forged)
        return corrected

    monkeypatch.setattr(Confirmations, "correct", correct_and_report_again)

    assert archiver.run() == []
    assert archiver.item()["status"] == "SUCCEEDED"  # the stream's record of this change queues another message
    assert archiver.objects() == {}
    assert archiver.server.requests == []

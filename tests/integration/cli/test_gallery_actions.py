"""The gallery's actions against a deployed stack: their plans and their effects."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from catchlight.client.stack import StackChoice
from catchlight_cli.gallery import TaskActions
from catchlight_cli.gallery.actions import ActionName
from local.moto.patches.execution import functions_run_by
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.integration.cli.test_resend_events import PublishEvents
from tests.integration.providers import Providers

TASK = "flux-kontext#t1"
URL = "https://images.example/result.png"
EXPIRED_IMAGE = {
    "kind": "result",
    "url": URL,
    "state": "EXPIRED",
    "expiresAt": "2026-01-01T00:00:00Z",
    "reason": "HTTP 404",
}


@pytest.fixture
def actions(deployed: Deployed, providers: Providers) -> Iterator[TaskActions]:
    with closing(TaskActions(StackChoice(stack_name=STACK_NAME).find)) as actions:
        yield actions


def possible(actions: TaskActions) -> set[str]:
    return {action.name.value for action in actions.plan(TASK) if action.is_possible}


@pytest.mark.parametrize(
    ("status", "names"),
    [
        ("PENDING", {"redrive", "poll"}),
        ("SUCCEEDED", {"redrive"}),
        ("TIMED_OUT", {"redrive", "resend-event"}),
        ("ARCHIVED", {"resend-event"}),
    ],
)
def test_the_status_determines_the_possible_actions(
    deployed: Deployed, actions: TaskActions, status: str, names: set[str]
) -> None:
    deployed.put(TASK, status)
    before = deployed.store.items()
    assert possible(actions) == names
    assert deployed.store.items() == before


def test_no_action_is_possible_for_an_unknown_task(actions: TaskActions) -> None:
    assert possible(actions) == set()
    assert "the task no longer exists" in actions.plan(TASK)[0].effect
    assert not actions.run(ActionName.REDRIVE, TASK).is_done


def test_an_incomplete_task_is_redriven(deployed: Deployed, actions: TaskActions) -> None:
    deployed.put(TASK, "INCOMPLETE", images=[EXPIRED_IMAGE])
    outcome = actions.run(ActionName.REDRIVE, TASK)
    assert outcome.is_done, outcome
    (item,) = deployed.store.items()
    assert (item["status"], item["images"][0]["state"]) == ("SUCCEEDED", "PENDING")


def test_a_pending_task_is_polled_at_most_once_a_minute(deployed: Deployed, actions: TaskActions) -> None:
    deployed.put(TASK, "PENDING", timedelta(minutes=5))
    first, second = (actions.run(ActionName.POLL, TASK) for _ in range(2))
    assert (first.is_done, first.detail) == (True, "Polling has started.")
    assert second.is_done
    assert deployed.executions() in ([[TASK]], [[TASK], [TASK]])  # two, if a new minute began between the calls


def test_the_event_of_a_task_is_published_again(deployed: Deployed, actions: TaskActions) -> None:
    deployed.put(TASK, "ARCHIVED")
    function = PublishEvents()
    with functions_run_by(function):
        assert actions.run(ActionName.RESEND_EVENT, TASK).is_done
        function.response = {"batchItemFailures": [{"itemIdentifier": "1"}]}
        failed = actions.run(ActionName.RESEND_EVENT, TASK)
    assert function.received == [[TASK], [TASK]]
    assert not failed.is_done
    assert "/aws/lambda/" in failed.detail

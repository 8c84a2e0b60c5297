"""The state machine: it outlives what it waits for, and no fault of one moment ends it."""

import pytest

from functions.poll_tasks import app as poll_tasks
from image_tasks import provider_client
from tests.unit.template.expanded import FUNCTIONS, RAW, STATE_MACHINES, definition, deployed
from tests.unit.template.expanded import referred as referred_to

POLLING = "PollTasksStateMachine"
TASK_STATES = [
    pytest.param(machine, name, id=f"{machine}: {name}")
    for machine in STATE_MACHINES
    for name, state in definition(machine)["States"].items()
    if state["Type"] == "Task"
]


def test_the_state_machine_outlives_its_tasks_and_its_function() -> None:
    machine = definition(POLLING)

    assert machine["TimeoutSeconds"] > RAW["Parameters"]["GiveUpAfterSeconds"]["MaxValue"]
    assert machine["States"]["Poll tasks"]["TimeoutSeconds"] > FUNCTIONS["PollTasksFunction"]["Timeout"]


@pytest.mark.parametrize("name", STATE_MACHINES)
def test_executions_end(name: str) -> None:
    assert 0 < definition(name)["TimeoutSeconds"] <= 31_536_000  # a year, Step Functions' own limit
    # EXPRESS ends after five minutes, and its waits are paid for.
    assert STATE_MACHINES[name]["StateMachineType"] == "STANDARD"


@pytest.mark.parametrize(("machine", "name"), TASK_STATES)
def test_a_task_is_tried_again_caught_and_bounded(machine: str, name: str) -> None:
    state = definition(machine)["States"][name]

    for handlers in (state["Retry"], state["Catch"]):
        assert handlers[-1]["ErrorEquals"] == ["States.ALL"]
    assert all(retry["MaxAttempts"] <= 10 for retry in state["Retry"])
    assert state["TimeoutSeconds"] <= 900


@pytest.mark.parametrize(("machine", "name"), TASK_STATES)
def test_a_caught_error_never_ends_an_execution(machine: str, name: str) -> None:
    states = definition(machine)["States"]

    for catch in states[name]["Catch"]:
        after = states[catch["Next"]]
        assert (after["Type"], after["Next"]) == ("Wait", name)


def test_the_state_machine_runs_the_poller() -> None:
    substitutions = STATE_MACHINES[POLLING]["DefinitionSubstitutions"]

    assert {name: referred_to(value) for name, value in substitutions.items()} == {
        "PollTasksFunctionArn": "PollTasksFunction"
    }


def test_a_poll_has_time_for_requests_and_for_writing_their_news() -> None:
    timeout = FUNCTIONS["PollTasksFunction"]["Timeout"]

    assert provider_client.REQUEST_TIMEOUT_SECONDS < poll_tasks.RESERVED_SECONDS < timeout / 2


@pytest.mark.parametrize("name", STATE_MACHINES)
def test_a_state_machine_is_traced_unless_told_otherwise(name: str) -> None:
    assert deployed()[name]["TracingConfiguration"] == {"Enabled": True}
    assert deployed(Tracing="Disabled")[name]["TracingConfiguration"] == {"Enabled": False}

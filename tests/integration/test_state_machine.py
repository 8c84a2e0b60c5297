"""The deployed state machine with shortened waits: every branch, and the inputs of the function."""

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import boto3
import httpx
import pytest
import yaml
from botocore.exceptions import EndpointConnectionError

from catchlight import errors
from catchlight.dispatch import PollState
from catchlight.polling.provider_client import ProviderClient
from functions.poll_tasks import app
from local.lambda_.runtime_api import InvocationResult
from local.moto.patches.execution import functions_run_by, state_machines_execute
from local.template.state_machine import state_machine_definition
from tests.conftest import FakeLambdaContext
from tests.fake_http import FakeHttp
from tests.integration.conftest import REPOSITORY, TABLE_NAME, Store
from tests.integration.functions import PROVIDER_KEYS
from tests.unit.template.execution_history import (
    EVENTS_OF_A_STATE,
    EVENTS_OF_AN_EXECUTION,
    events_of_task,
    most_attempts,
)
from tests.waiting import eventually

DEFINITION = REPOSITORY / "statemachines/poll_tasks.asl.yaml"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:123456789012:function:poll-tasks"
# A wait of 100,000 s takes 10 s.
TIME_SCALE = 0.0001

FLUX = "flux-kontext#f1"
POLL, WAIT, CHOICE, ERROR_WAIT = "Poll tasks", "Wait for next poll", "Any still running?", "Wait after error"

Function = Callable[[dict[str, Any]], dict[str, Any]]


class FunctionError(Exception):
    """The function failed with an error of this name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass
class Run:
    """An execution that has ended."""

    status: str
    output: dict[str, Any] | None
    states: list[str]  # in the order of entering them
    inputs: list[dict[str, Any]]  # of the function, in the order of its calls
    events: int  # in the execution's history


@dataclass
class Machine:
    """The state machine, with a function that each test defines."""

    function: Function = lambda state: {**state, "tasks": []}
    inputs: list[dict[str, Any]] = field(default_factory=list)

    def invoke(self, name: str, payload: bytes) -> InvocationResult:
        """Invokes the function, as Lambda does."""
        assert name == FUNCTION_ARN
        state = json.loads(payload)
        self.inputs.append(state)
        try:
            return InvocationResult(json.dumps(self.function(state)).encode())
        except FunctionError as exc:
            error = {"errorMessage": "failed", "errorType": exc.name, "stackTrace": []}
            return InvocationResult(json.dumps(error).encode(), "Unhandled")

    def run(self, tasks: tuple[str, ...] = (FLUX,), wait_seconds: int = 60) -> Run:
        """Runs an execution to its end."""
        client = boto3.client("stepfunctions")
        machine = client.create_state_machine(
            name="poll-tasks",
            definition=state_machine_definition(DEFINITION, {"PollTasksFunctionArn": FUNCTION_ARN}),
            roleArn="arn:aws:iam::123456789012:role/poll",
        )["stateMachineArn"]
        state = PollState(tasks=tasks, wait_seconds=wait_seconds).model_dump_json(by_alias=True, exclude_none=True)
        execution = client.start_execution(stateMachineArn=machine, name="run", input=state)["executionArn"]
        describe = partial(client.describe_execution, executionArn=execution)
        found = eventually(lambda: done if (done := describe())["status"] != "RUNNING" else None)
        history = client.get_execution_history(executionArn=execution, maxResults=1000)["events"]
        entered = [
            event["stateEnteredEventDetails"]["name"] for event in history if "stateEnteredEventDetails" in event
        ]
        output = json.loads(found["output"]) if "output" in found else None
        return Run(found["status"], output, entered, self.inputs, len(history))


@pytest.fixture
def machine(aws: None) -> Iterator[Machine]:
    machine = Machine()
    with (
        functions_run_by(machine.invoke),
        state_machines_execute(TIME_SCALE, lambda: boto3.client("lambda", region_name="us-east-1")),
    ):
        yield machine


def still(state: dict[str, Any], *tasks: str) -> dict[str, Any]:
    """Returns the state after a round in which these tasks had no result."""
    waited = state["waitedSeconds"] + state["waitSeconds"]
    return {"tasks": list(tasks), "waitSeconds": 30, "waitedSeconds": waited, "polls": state["polls"] + 1}


def script(*rounds: Function | str) -> Function:
    """Returns a function whose calls answer or fail in this order; a string is the name of an error."""
    steps = iter(rounds)

    def run(state: dict[str, Any]) -> dict[str, Any]:
        step = next(steps)
        if isinstance(step, str):
            raise FunctionError(step)
        return step(state)

    return run


def done(state: dict[str, Any]) -> dict[str, Any]:
    return still(state)


def running(state: dict[str, Any]) -> dict[str, Any]:
    return still(state, *state["tasks"])


# ------------------------------------------------------------------------------------------------ branches


def test_one_round_is_enough_if_all_tasks_have_a_result(machine: Machine) -> None:
    run = machine.run()

    assert (run.status, run.states) == ("SUCCEEDED", [POLL, CHOICE, "Done"])
    assert run.inputs == [{"tasks": [FLUX], "waitSeconds": 60, "waitedSeconds": 0, "polls": 0}]
    assert run.output is not None
    assert run.output["tasks"] == []


def test_rounds_continue_while_a_task_is_running(machine: Machine) -> None:
    machine.function = script(running, lambda state: still(state, "b#2"), done)

    run = machine.run(("a#1", "b#2"))

    assert run.status == "SUCCEEDED"
    assert run.states == [POLL, CHOICE, WAIT, POLL, CHOICE, WAIT, POLL, CHOICE, "Done"]
    assert run.inputs == [
        {"tasks": ["a#1", "b#2"], "waitSeconds": 60, "waitedSeconds": 0, "polls": 0},
        {"tasks": ["a#1", "b#2"], "waitSeconds": 30, "waitedSeconds": 60, "polls": 1},
        {"tasks": ["b#2"], "waitSeconds": 30, "waitedSeconds": 90, "polls": 2},
    ]


@pytest.mark.parametrize(
    "error",
    [
        "StoreUnavailableError",
        "Lambda.ServiceException",
        "Lambda.AWSLambdaException",
        "Lambda.SdkClientException",
        "Lambda.TooManyRequestsException",
        "Lambda.ClientExecutionTimeoutException",
    ],
)
def test_transient_errors_are_retried_up_to_five_times(machine: Machine, error: str) -> None:
    machine.function = script(*[error] * 5, done)

    run = machine.run()

    assert (run.status, run.states) == ("SUCCEEDED", [POLL, CHOICE, "Done"])
    assert run.inputs == [{"tasks": [FLUX], "waitSeconds": 60, "waitedSeconds": 0, "polls": 0}] * 6


@pytest.mark.parametrize("error", ["KeyError", "Sandbox.Timedout", "Runtime.ExitError", "SettingsError"])
def test_any_other_error_is_retried_once(machine: Machine, error: str) -> None:
    machine.function = script(error, done)

    run = machine.run()

    assert (run.status, run.states) == ("SUCCEEDED", [POLL, CHOICE, "Done"])


@pytest.mark.parametrize(("error", "tries"), [("KeyError", 2), ("StoreUnavailableError", 6)])
def test_after_errors_that_exhaust_the_retries_polling_continues_with_all_tasks(
    machine: Machine, error: str, tries: int
) -> None:
    machine.function = script(*[error] * tries, *[error] * tries, running, done)

    run = machine.run(("a#1", "b#2"))

    assert run.status == "SUCCEEDED"
    assert run.states == [
        *[POLL, ERROR_WAIT],
        *[POLL, ERROR_WAIT],
        *[POLL, CHOICE, WAIT],
        *[POLL, CHOICE, "Done"],
    ]
    assert [state["tasks"] for state in run.inputs] == [["a#1", "b#2"]] * (2 * tries + 2)
    # After an error, the input of the function is complete.
    for state in run.inputs:
        assert PollState.model_validate(state).tasks == ("a#1", "b#2")


@pytest.mark.parametrize(
    ("failures", "attempts"),
    [
        pytest.param([], 1, id="none"),
        pytest.param(["StoreUnavailableError"] * 5, 6, id="one retrier"),
        pytest.param(["StoreUnavailableError"] * 5 + ["KeyError"], 7, id="both retriers"),
    ],
)
def test_the_execution_history_has_as_many_events_as_computed(
    machine: Machine, failures: list[str], attempts: int
) -> None:
    """An execution writes as many events as `tests/unit/template/test_polling.py` computes."""
    machine.function = script(running, *failures, running, done)

    run = machine.run()

    once, retried = events_of_task(1), events_of_task(attempts)
    beside = EVENTS_OF_AN_EXECUTION + EVENTS_OF_A_STATE
    assert (run.status, most_attempts(definition()["States"][POLL])) == ("SUCCEEDED", 7)
    assert run.events == beside + (once + 4) + (retried + 4) + (once + EVENTS_OF_A_STATE)


def test_a_poll_that_exhausts_the_retries_writes_as_many_events_as_computed(machine: Machine) -> None:
    machine.function = script(*["StoreUnavailableError"] * 5, *["KeyError"] * 2, done)

    run = machine.run()

    beside = EVENTS_OF_AN_EXECUTION + EVENTS_OF_A_STATE
    assert run.states == [POLL, ERROR_WAIT, POLL, CHOICE, "Done"]
    assert run.events == beside + (events_of_task(7) + EVENTS_OF_A_STATE) + (events_of_task(1) + EVENTS_OF_A_STATE)


# ------------------------------------------------------------------------------------------------ the real function


class Provider:
    """Responds as Flux Kontext: each answer to one request, the last one to all further requests."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response | Exception] = []
        self.requests = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def record(**data: Any) -> httpx.Response:
    return httpx.Response(200, json={"code": 200, "msg": "success", "data": {"taskId": "f1", **data}})


RUNNING = record(successFlag=0, response=None)
SUCCEEDED = record(successFlag=1, response={"resultImageUrl": "https://tempfile.aiquickdraw.com/r/1.png"})
FAILED = record(successFlag=2, errorMessage="no")


@pytest.fixture
def provider(machine: Machine, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    """Registers a task and makes the state machine run the real function. Returns the task's provider."""
    keys = boto3.client("secretsmanager").create_secret(Name="keys", SecretString=json.dumps(PROVIDER_KEYS))["ARN"]
    environment = {
        "TASKS_TABLE": TABLE_NAME,
        "PROVIDER_KEYS_SECRET": keys,
        "IMAGES_BUCKET": "images-bucket",
        "POLL_INTERVAL_SECONDS": "30",
        "SLOW_POLL_AFTER_SECONDS": "120",
        "SLOW_POLL_INTERVAL_SECONDS": "120",
        "GIVE_UP_AFTER_SECONDS": "400",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    provider = Provider()
    http = FakeHttp(provider)
    monkeypatch.setattr(app, "ProviderClient", lambda base_urls: ProviderClient(base_urls, http=http))
    store.register(FLUX)

    def function(state: dict[str, Any]) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = app.handler(state, FakeLambdaContext())
        except Exception as exc:
            raise FunctionError(type(exc).__name__) from exc
        return answer

    machine.function = function
    app.dependencies.cache_clear()
    yield provider
    app.dependencies.cache_clear()


def status_of(store: Store) -> str:
    item = store.item(FLUX)
    assert item is not None
    return str(item["status"])


def test_a_result_is_found_by_the_third_poll(machine: Machine, provider: Provider, store: Store) -> None:
    provider.answers = [RUNNING, RUNNING, SUCCEEDED]

    run = machine.run()

    assert (run.status, run.states.count(POLL), status_of(store)) == ("SUCCEEDED", 3, "SUCCEEDED")


def test_a_failed_task_is_polled_once(machine: Machine, provider: Provider, store: Store) -> None:
    provider.answers = [FAILED]

    run = machine.run()

    assert (run.status, run.states.count(POLL), status_of(store)) == ("SUCCEEDED", 1, "FAILED")


def test_polling_gives_up_after_the_configured_time(machine: Machine, provider: Provider, store: Store) -> None:
    provider.answers = [RUNNING]

    run = machine.run()

    assert (run.status, status_of(store)) == ("SUCCEEDED", "TIMED_OUT")
    # After 60, 90, 120, 240, 360 s, and at the end.
    assert [state["waitedSeconds"] + state["waitSeconds"] for state in run.inputs] == [60, 90, 120, 240, 360, 400]


def test_no_further_request_is_made_after_a_callback(machine: Machine, provider: Provider, store: Store) -> None:
    provider.answers = [RUNNING]
    function = machine.function

    def called_back_after_the_first_poll(state: dict[str, Any]) -> dict[str, Any]:
        answer = function(state)
        store.put(FLUX, status="SUCCEEDED", rank=30)
        return answer

    machine.function = called_back_after_the_first_poll

    run = machine.run()

    assert (run.status, run.states.count(POLL), provider.requests) == ("SUCCEEDED", 2, 1)


def test_polling_continues_after_an_outage_of_the_provider(machine: Machine, provider: Provider, store: Store) -> None:
    provider.answers = [
        httpx.ConnectError("refused"),
        httpx.Response(200, json={"code": 455, "msg": "maintenance"}),
        httpx.Response(502, content=b"<html>"),
        SUCCEEDED,
    ]

    run = machine.run()

    assert (run.status, status_of(store)) == ("SUCCEEDED", "SUCCEEDED")
    assert run.states.count(POLL) == 4
    assert [state["waitSeconds"] for state in run.inputs] == [60, 30, 120, 120]


def test_polling_continues_after_an_outage_of_the_table(machine: Machine, provider: Provider, store: Store) -> None:
    provider.answers = [SUCCEEDED]
    faults = iter([EndpointConnectionError(endpoint_url="https://dynamodb.example")] * 8)

    def fail(**_: Any) -> None:
        for fault in faults:
            raise fault

    app.dependencies().polling._table._client.meta.events.register("before-call.dynamodb", fail)

    run = machine.run()

    assert (run.status, status_of(store)) == ("SUCCEEDED", "SUCCEEDED")
    assert run.states == [POLL, ERROR_WAIT, POLL, CHOICE, "Done"]
    assert len(run.inputs) == 9


# ------------------------------------------------------------------------------------------------ the definition


def definition() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(DEFINITION.read_text())
    return read


def test_every_error_name_in_the_definition_is_an_error_class() -> None:
    named = {
        name
        for state in definition()["States"].values()
        for rule in [*state.get("Retry", []), *state.get("Catch", [])]
        for name in rule["ErrorEquals"]
        if not name.startswith(("Lambda.", "States."))
    }

    known = {name for name, found in inspect.getmembers(errors, inspect.isclass) if found.__module__ == errors.__name__}
    assert named
    assert named <= known


def test_the_first_retrier_matches_store_unavailable_errors() -> None:
    assert "StoreUnavailableError" in definition()["States"][POLL]["Retry"][0]["ErrorEquals"]


def test_no_error_ends_an_execution() -> None:
    catch = definition()["States"][POLL]["Catch"]

    assert [rule["ErrorEquals"] for rule in catch] == [["States.ALL"]]
    assert catch[0]["Next"] == ERROR_WAIT

"""State machines run, their waits are scaled, and Retry and Catch match errors of functions by their names."""

import json
import uuid
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.local.running_example import Example
from tests.waiting import eventually


def execute(example: Example, **values: Any) -> tuple[str, Any]:
    """Runs an execution with these values in its input. Returns its status and output."""
    stepfunctions = example.client("stepfunctions")
    arn = stepfunctions.start_execution(
        stateMachineArn=example.ref("Machine"),
        name=uuid.uuid4().hex,
        input=json.dumps({"waitSeconds": 0, **values}),
    )["executionArn"]
    ended = eventually(
        lambda: (found := stepfunctions.describe_execution(executionArn=arn))["status"] != "RUNNING" and found, 20
    )
    return ended["status"], json.loads(ended.get("output", "null"))


def test_a_function_receives_the_input_and_returns_the_output(example: Example) -> None:
    status, output = execute(example, color="blue")

    assert (status, output) == ("SUCCEEDED", {"done": {"waitSeconds": 0, "color": "blue"}})


@pytest.mark.parametrize("seconds", [7, 1001])
def test_waits_are_scaled(example: Example, seconds: int) -> None:
    assert execute(example, waitSeconds=seconds)[0] == "SUCCEEDED"


def test_an_error_is_retried_by_its_name_after_a_scaled_wait(example: Example) -> None:
    # 100 s before the retry at a scale of 0.001
    status, output = execute(example, fault="raise once")

    assert (status, output["done"]["fault"]) == ("SUCCEEDED", "raise once")


@pytest.mark.parametrize(
    ("fault", "error"),
    [("raise", "ValueError"), ("sleep", "Sandbox.Timedout"), ("exit", "Runtime.ExitError")],
)
def test_an_error_is_caught_by_its_name(example: Example, fault: str, error: str) -> None:
    status, output = execute(example, fault=fault)

    assert status == "SUCCEEDED"
    assert output["error"]["Error"] == error
    assert json.loads(output["error"]["Cause"])["errorType"] == error


def test_a_failed_execution_is_logged(example: Example) -> None:
    status, _ = execute(example, fault="raise", fatal=True)

    assert status == "FAILED"
    eventually(lambda: "catchlight-Machine: GivenUp: the input has fatal (execution " in example.log("errors"))


def test_errors_of_lambda_itself_have_lambdas_names(example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    function = example.stack.functions["WorkFunction"]
    monkeypatch.setattr(function, "_stopped", True)

    assert execute(example)[1]["error"]["Error"] == "Lambda.TooManyRequestsException"


def test_an_execution_started_twice_with_one_name_runs_once(example: Example) -> None:
    stepfunctions, machine = example.client("stepfunctions"), example.ref("Machine")
    request = {"stateMachineArn": machine, "name": uuid.uuid4().hex, "input": '{"waitSeconds": 500}'}

    first, second = stepfunctions.start_execution(**request), stepfunctions.start_execution(**request)

    assert first["executionArn"] == second["executionArn"]
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        stepfunctions.start_execution(**{**request, "input": '{"waitSeconds": 501}'})


def test_invoke_of_lambda_runs_the_function(example: Example) -> None:
    lambda_client = example.client("lambda")

    good = lambda_client.invoke(FunctionName="WorkFunction", Payload=b'{"a": 1}')
    bad = lambda_client.invoke(FunctionName="WorkFunction", Payload=b'{"fault": "raise"}')

    assert json.load(good["Payload"]) == {"done": {"a": 1}}
    assert bad["FunctionError"] == "Unhandled"
    assert json.load(bad["Payload"])["errorType"] == "ValueError"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        lambda_client.invoke(FunctionName="NoSuchFunction")

"""`catchlight outputs` prints the stack's outputs as text, as JSON and as shell variables."""

import subprocess

import pytest

from catchlight_cli.command_line import run as run_command_line
from catchlight_cli.commands.outputs import exports
from tests.integration.cli.conftest import API_URL, STACK_NAME, Deployed
from tests.stacks import a_stack

URL = f"{API_URL}/callbacks/PROVIDER/TOKEN"


def test_outputs_are_printed_as_json_and_as_text(deployed: Deployed) -> None:
    assert deployed.run("outputs") == {"region": "us-east-1", "outputs": {"CallbackUrlPattern": URL}}
    assert f"CallbackUrlPattern {URL}" in deployed.show("outputs")


def test_a_shell_evaluates_the_exports(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["outputs", "--export", "--stack-name", STACK_NAME]) == 0

    script = f'{capsys.readouterr().out}echo "$CALLBACK_URL_PATTERN $AWS_REGION $AWS_DEFAULT_REGION"'
    shell = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert shell.stdout == f"{URL} us-east-1 us-east-1\n"


def test_output_names_become_names_of_shell_variables(cloud: None) -> None:
    stack = a_stack()
    object.__setattr__(stack, "outputs", {"ReadCallbackToken": "aws --query 'x y'", "TasksTableName": "t"})

    assert dict(exports(stack)) == {
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "READ_CALLBACK_TOKEN": "aws --query 'x y'",
        "TASKS_TABLE_NAME": "t",
    }


def test_export_and_json_exclude_each_other(deployed: Deployed) -> None:
    assert deployed.run("outputs", "--export", expect=2) is None

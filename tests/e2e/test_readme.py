"""The README's example and help commands run, its tables equal template and code, and its targets and paths exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile, takewhile
from pathlib import Path

import boto3
import pytest
import yaml
from moto import mock_aws

from tests.project_template import project_template

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Returns the code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """Returns the cells of the first table below a heading, without its header."""
    below = README.split(f"## {heading}\n", 1)[1].splitlines()
    from_table = dropwhile(lambda line: not line.startswith("|"), below)
    lines = list(takewhile(lambda line: line.startswith("|"), from_table))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_make_target_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z-]+)", " ".join(re.findall(r"`([^`\n]+)`", README) + blocks("sh"))))
    assert {"demo", "test", "build", "up"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_path_exists() -> None:
    named = set(
        re.findall(r"[`(]((?:tests|docs|functions|layers|local|events|statemachines)/[A-Za-z0-9_./-]*)[`)]", README)
    )
    assert len(named) > 10
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_the_table_of_parameters_equals_the_template() -> None:
    parameters = project_template().parameters
    described = {cells[0].strip("`"): cells[1] for cells in rows("Configure")}
    assert described == {name: str(value) for name, value in parameters.items()}


def test_the_table_of_statuses_equals_the_code() -> None:
    from catchlight.models import TaskStatus

    assert {cells[0].strip("`") for cells in rows("Use")} == set(TaskStatus)


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def test_the_python_example_registers_a_task_once(aws: None) -> None:
    dynamodb = boto3.client("dynamodb")
    dynamodb.create_table(
        TableName="TasksTableName",
        AttributeDefinitions=[{"AttributeName": "task", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "task", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    (block,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    register = names["register"]
    assert callable(register)
    register("flux-kontext", "task12345")
    item = dynamodb.get_item(TableName="TasksTableName", Key={"task": {"S": "flux-kontext#task12345"}})["Item"]
    assert (item["status"], item["rank"], item["provider"]) == ({"S": "PENDING"}, {"N": "0"}, {"S": "flux-kontext"})

    dynamodb.update_item(
        TableName="TasksTableName",
        Key={"task": {"S": "flux-kontext#task12345"}},
        UpdateExpression="SET #status = :status",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":status": {"S": "SUCCEEDED"}},
    )
    register("flux-kontext", "task12345")
    item = dynamodb.get_item(TableName="TasksTableName", Key={"task": {"S": "flux-kontext#task12345"}})["Item"]
    assert item["status"] == {"S": "SUCCEEDED"}


@pytest.mark.parametrize("name", ["up --help", "demo --help"])
def test_commands_of_the_readme_have_a_help_text(name: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "local", *name.split()], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0
    assert "usage: python -m local" in process.stdout


def test_the_state_diagram_equals_the_state_machine() -> None:
    diagram = (REPOSITORY / "docs" / "how-it-works.md").read_text().split("stateDiagram-v2", 2)[1].split("```")[0]
    names = dict(re.findall(r"^  (\w+): (.+)$", diagram, re.MULTILINE))
    drawn = {
        (names.get(source, source), names.get(target, target))
        for source, target in re.findall(r"^  (\w+) --> (\w+)", diagram, re.MULTILINE)
    }
    definition = yaml.safe_load((REPOSITORY / "statemachines" / "poll_tasks.asl.yaml").read_text())
    defined = set()
    for name, state in definition["States"].items():
        targets = [state.get("Next"), state.get("Default")]
        targets += [branch["Next"] for branch in (*state.get("Choices", []), *state.get("Catch", []))]
        defined |= {(name, target) for target in targets if target}
    assert drawn == defined

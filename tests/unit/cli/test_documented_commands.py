"""The documentation of the command line describes every command, and its examples have valid arguments."""

import re
import shlex
from pathlib import Path

import pytest

from catchlight_cli.command_line import parser
from catchlight_cli.commands import COMMANDS
from catchlight_cli.repair.redriving import ALL_KINDS, Kind
from tests.unit.template.expanded import RAW

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs" / "command-line.md").read_text()
EXAMPLES = [
    line.rpartition("| catchlight ")[2].removeprefix("catchlight ")
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
NAMES = {command.name for command in COMMANDS}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_has_valid_arguments(example: str) -> None:
    options = parser().parse_args(shlex.split(example))

    assert options.chosen.name == example.split()[0]


def test_every_command_has_its_row_and_an_example() -> None:
    rows = set(re.findall(r"^\| `([a-z-]+)[^`]*` \|", PAGE, re.MULTILINE))

    assert rows >= NAMES
    assert {example.split()[0] for example in EXAMPLES} == NAMES


def test_every_kind_of_redrive_has_its_row() -> None:
    section = PAGE.split("### redrive\n")[1].split("\n### ")[0]

    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == [*ALL_KINDS, Kind.TIMED_OUT, Kind.UNCONFIRMED]


def test_options_and_resources_that_are_named_exist() -> None:
    known = {option for command in COMMANDS for option in _options(command.name)}
    known |= {option for action in parser()._actions for option in action.option_strings}

    assert set(re.findall(r"--[a-z][a-z-]*", PAGE)) <= known
    for resource in ("ReconcileTasksFunction", "ArchiveDeadLetters", "DispatchDeadLetters", "PollDeadLetters"):
        assert resource in RAW["Resources"]


def _options(name: str) -> list[str]:
    words = next(action for action in parser()._actions if action.dest == "command")
    assert words.choices is not None
    return [option for action in words.choices[name]._actions for option in action.option_strings]  # type: ignore[index]

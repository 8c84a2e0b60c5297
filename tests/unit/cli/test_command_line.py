"""The common behaviour of all commands: arguments, exit statuses, stdout and stderr."""

import argparse
import json
import re
from collections.abc import Iterable

import pytest
from botocore.exceptions import NoCredentialsError
from rich.console import RenderableType

from catchlight import __version__
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.models import Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.command_line import parser, run
from catchlight_cli.commands import COMMANDS, GROUPS
from catchlight_cli.output import Output


class Greeting(Model):
    """The result of the command under test."""

    greeted_name: str


def page(greeting: Greeting) -> Iterable[RenderableType]:
    yield f"Hello {greeting.greeted_name}"


def add_arguments(words: argparse.ArgumentParser) -> None:
    words.add_argument("name")


def greet(session: Session) -> ExitStatus:
    name: str = session.options.name
    faults: dict[str, BaseException] = {
        "credentials": NoCredentialsError(),
        "fault": CatchlightError("correct it"),
        "usage": UsageError("use another name"),
        "interrupt": KeyboardInterrupt(),
    }
    if name in faults:
        raise faults[name]
    session.output.info("Looking [bold]up[/bold]")
    greeting = Greeting(greeted_name=name)
    session.output.show(greeting, lambda: page(greeting))
    return ExitStatus.FAILURE if name == "unknown" else ExitStatus.SUCCESS


GREET = Command("greet", "greet a person", add_arguments, greet)


@pytest.mark.parametrize(
    ("name", "status"),
    [("Ada", 0), ("unknown", 1), ("fault", 1), ("credentials", 1), ("usage", 2), ("interrupt", 130)],
)
def test_the_exit_status(name: str, status: int) -> None:
    assert run(["greet", name], [GREET]) == status


def test_the_result_is_text_or_with_json_a_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    run(["greet", "Ada"], [GREET])
    printed = capsys.readouterr()
    run(["greet", "Ada", "--json"], [GREET])
    document = capsys.readouterr()

    assert printed.out == "Hello Ada\n"
    assert document.out == '{"greetedName": "Ada"}\n'
    # Messages go to stderr, apart from the result; and markup in a name is printed as text.
    assert printed.err == document.err == "Looking [bold]up[/bold]\n"


@pytest.mark.parametrize(("name", "message"), [("fault", "correct it"), ("usage", "use another name")])
def test_an_error_is_one_line_on_stderr(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(["greet", name, "--json"], [GREET])

    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"error: {message}\n")


def test_without_a_command_all_commands_are_shown_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    page = capsys.readouterr().out
    for title, group in GROUPS.items():
        assert f"\n{title}:\n  {group[0].name} " in page
    for command in COMMANDS:
        assert page.count(f"\n  {command.name:<13} {command.summary}\n") == 1


@pytest.mark.parametrize("arguments", [["unknown"], ["greet"], ["greet", "a", "--unknown"]])
def test_invalid_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments, [GREET])
    assert ended.value.code == 2


@pytest.mark.parametrize("command", [["redrive", "--all"], ["reconcile"], ["resend-events"], ["list"]])
@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_is_at_least_1(command: list[str], limit: str) -> None:
    """With such a limit the command would find no task, and report that nothing is wrong."""
    with pytest.raises(SystemExit, match="2"):
        run([*command, "--limit", limit])


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` needs no command and no stack."""
    with pytest.raises(SystemExit, match="0"):
        run(["--version"], [GREET])

    output = capsys.readouterr()
    assert (output.out, output.err) == (f"catchlight {__version__}\n", "")
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_the_options_local_and_stack_name_exclude_each_other() -> None:
    with pytest.raises(SystemExit, match="2"):
        run(["greet", "a", "--local", "--stack-name", "b"], [GREET])


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_a_help_text(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run([command.name, "--help"])

    assert ended.value.code == 0
    help_text = capsys.readouterr().out
    assert f"usage: catchlight {command.name}" in help_text
    for option in ("--stack-name", "--local", "--state-dir", "--region", "--profile", "--json", "Exit codes"):
        assert option in help_text


def test_command_names_are_unique_and_lower_case_and_summaries_are_phrases() -> None:
    names = [command.name for command in COMMANDS]

    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalpha() and name.islower() for name in names)
    assert all(command.summary[0].islower() and not command.summary.endswith(".") for command in COMMANDS)


def test_the_parser_returns_the_command() -> None:
    assert parser([GREET]).parse_args(["greet", "a"]).chosen is GREET


def test_progress_prints_nothing_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(Output().track([1, 2, 3], "Counting")) == [1, 2, 3]

    output = capsys.readouterr()
    assert (output.out, output.err) == ("", "")


def test_json_is_one_line_of_any_text(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).show(Greeting(greeted_name="Łódź\n猫"), list)

    output = capsys.readouterr().out
    assert output.count("\n") == 1
    assert json.loads(output) == {"greetedName": "Łódź\n猫"}

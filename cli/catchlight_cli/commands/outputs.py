"""Implements `catchlight outputs`: shows the outputs of a deployed stack, or prints them as shell variables."""

import argparse
import re
import shlex
from collections.abc import Iterable, Mapping

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.errors import UsageError
from catchlight.client.stack import Stack
from catchlight.models import Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.output import new_table


class Outputs(Model):
    """The region of a stack, and its outputs by name."""

    region: str
    outputs: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--export", action="store_true", help="print `export` commands for a POSIX shell")


def run(session: Session) -> ExitStatus:
    """Shows the outputs of the stack."""
    stack = session.stack
    if stack.is_local:
        raise UsageError(
            "The local stack has no outputs: its addresses are in stack.json. Name a deployed stack with --stack-name."
        )
    if session.options.export:
        if session.output.as_json:
            raise UsageError("--export prints shell commands, --json prints a JSON document. Use only one of them.")
        session.output.show_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports(stack)))
        return ExitStatus.SUCCESS
    outputs = Outputs(region=stack.region, outputs=dict(stack.outputs))
    session.output.show(outputs, lambda: _render(outputs))
    return ExitStatus.SUCCESS


def exports(stack: Stack) -> Iterable[tuple[str, str]]:
    """Yields names and values of shell variables: each output in upper case, the region, and the profile if one is set.

    `TasksTableName` becomes `TASKS_TABLE_NAME`. The AWS CLI reads the region from AWS_REGION, boto3 from
    AWS_DEFAULT_REGION.
    """
    yield "AWS_REGION", stack.region
    yield "AWS_DEFAULT_REGION", stack.region
    if (profile := stack.session.profile_name) != "default":
        yield "AWS_PROFILE", profile
    for name, value in stack.outputs.items():
        yield re.sub(r"(?<=.)(?=[A-Z])", "_", name).upper(), value


def _render(outputs: Outputs) -> Iterable[RenderableType]:
    table = new_table("Output", "Value")
    for name, value in outputs.outputs.items():
        table.add_row(name, Text(value))
    yield table


COMMAND = Command(
    name="outputs",
    summary="show the outputs of a deployed stack, or print them as shell variables",
    add_arguments=add_arguments,
    run=run,
    description="""\
Show the outputs of a deployed stack. With --export, print them as shell variables, with the stack's region:

    eval "$(catchlight outputs --export)"
    aws s3 ls "s3://$IMAGES_BUCKET_NAME"
""",
)

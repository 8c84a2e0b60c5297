"""Implements `catchlight doctor`: calls the live endpoint and checks secrets, queues and alarms."""

import argparse
from collections.abc import Iterable
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.stack import Stack
from catchlight.models import Model, utc_now
from catchlight_cli.arguments import positive_integer
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.health.checks import (
    Check,
    CheckStatus,
    Latency,
    check_alarms,
    check_endpoint,
    check_provider_keys,
    check_queues,
    check_token,
)
from catchlight_cli.health.probe import Endpoint
from catchlight_cli.output import Output, new_table, plural

_DEFAULT_SAMPLES = 10
_MARKS = {CheckStatus.OK: ("✓", "green"), CheckStatus.FAILED: ("✗", "red"), CheckStatus.SKIPPED: ("-", "dim")}


class Diagnosis(Model):
    """Results of all checks of a stack, and the latency of its callback endpoint (None: not measured)."""

    stack: str
    checks: tuple[Check, ...]
    latency: Latency | None

    @property
    def failed(self) -> int:
        """Number of failed checks."""
        return sum(check.status is CheckStatus.FAILED for check in self.checks)


def gather(stack: Stack, *, samples: int, now: datetime, output: Output) -> Diagnosis:
    """Runs all checks. The endpoint is called only if the callback token could be read."""
    with output.working("Trying the keys"):
        token_check, token = check_token(stack)
        checks, webhook_key = check_provider_keys(stack)
    checks = [token_check, *checks]
    latency = None
    if token:
        endpoint = Endpoint(stack.api_url, token, webhook_key, stack.is_local)
        with output.progress() as progress:
            bar = progress.add_task("Calling", total=None)
            found, latency = check_endpoint(
                stack, endpoint, samples=samples, now=now, on_progress=lambda: progress.advance(bar)
            )
        checks += found
    with output.working("Reading queues and alarms"):
        checks += [*check_queues(stack), *check_alarms(stack)]
    return Diagnosis(stack=str(stack), checks=tuple(checks), latency=latency)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--samples",
        type=positive_integer,
        default=_DEFAULT_SAMPLES,
        metavar="N",
        help=f"number of callbacks whose latency is measured (default: {_DEFAULT_SAMPLES})",
    )


def run(session: Session) -> ExitStatus:
    """Runs all checks and shows their results. Returns FAILURE if a check failed."""
    diagnosis = gather(session.stack, samples=session.options.samples, now=utc_now(), output=session.output)
    session.output.show(diagnosis, lambda: render(diagnosis))
    return ExitStatus.FAILURE if diagnosis.failed else ExitStatus.SUCCESS


def render(diagnosis: Diagnosis) -> Iterable[RenderableType]:
    """Renders the checks as a table for the terminal, and the number of failed checks."""
    table = new_table("", "Check", "Result", "Next step")
    for check in diagnosis.checks:
        table.add_row(Text(*_MARKS[check.status]), check.subject, Text(check.detail), Text(check.next_step, "yellow"))
    yield table
    yield ""
    failed = diagnosis.failed
    yield Text(f"✗ {plural(failed, 'check')} failed.", "red") if failed else Text("✓ No check failed.", "green")


COMMAND = Command(
    name="doctor",
    summary="call the live callback endpoint, and check secrets, queues and alarms",
    add_arguments=add_arguments,
    run=run,
    description="""\
Call the live callback endpoint with valid and invalid requests, and check secrets, queues and alarms. The callbacks
report a failure of a temporary probe item in the tasks table, which triggers neither polling nor archiving nor events
and which `doctor` deletes at the end. The metrics count the callbacks: one result, its duplicates, and one or two with
invalid credentials.""",
)

"""Implements `catchlight doctor`: calls the live endpoint and checks secrets, queues and alarms."""

import argparse
from collections.abc import Iterable
from datetime import datetime

from rich.console import RenderableType
from rich.text import Text

from catchlight.client.stack import Stack
from catchlight.models import Model, utc_now
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.health.checks import (
    Acknowledgement,
    Check,
    Verdict,
    check_alarms,
    check_endpoint,
    check_provider_keys,
    check_queues,
    check_token,
)
from catchlight_cli.health.probe import Endpoint
from catchlight_cli.output import Output, a_table

_DEFAULT_PROBES = 10
_MARKS = {Verdict.FINE: ("✓", "green"), Verdict.WRONG: ("✗", "red"), Verdict.SKIPPED: ("-", "dim")}


class Diagnosis(Model):
    """Results of all checks of a stack, and how fast its endpoint acknowledged callbacks (None: not measured)."""

    stack: str
    checks: tuple[Check, ...]
    acknowledgement: Acknowledgement | None

    @property
    def is_wrong(self) -> bool:
        """Whether a check failed."""
        return any(check.verdict is Verdict.WRONG for check in self.checks)


def gather(stack: Stack, *, probes: int, now: datetime, screen: Output) -> Diagnosis:
    """Runs all checks. The endpoint is called `probes` times, and only if the callback token could be read."""
    token_check, token = check_token(stack)
    checks, keys = check_provider_keys(stack)
    checks = [token_check, *checks]
    measured = None
    if token:
        webhook_key = keys.webhook_key.get_secret_value() if keys.webhook_key else None
        endpoint = Endpoint(stack.api_url, token, webhook_key, stack.is_local)
        with screen.progress() as progress:
            bar = progress.add_task("Calling", total=None)
            found, measured = check_endpoint(
                stack, endpoint, probes=probes, now=now, on_progress=lambda: progress.advance(bar)
            )
        checks += found
    checks += [*check_queues(stack), *check_alarms(stack)]
    return Diagnosis(stack=str(stack), checks=tuple(checks), acknowledgement=measured)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `doctor` to its parser."""
    parser.add_argument(
        "--probes",
        type=int,
        default=_DEFAULT_PROBES,
        metavar="N",
        help=f"callbacks whose acknowledgement is measured ({_DEFAULT_PROBES})",
    )


def run(session: Session) -> ExitStatus:
    """Runs all checks and shows their results. Returns WRONG if a check failed."""
    diagnosis = gather(session.stack, probes=session.options.probes, now=utc_now(), screen=session.screen)
    session.screen.show(diagnosis, lambda: page(diagnosis))
    return ExitStatus.WRONG if diagnosis.is_wrong else ExitStatus.FINE


def page(diagnosis: Diagnosis) -> Iterable[RenderableType]:
    """Renders the checks as a table for the terminal, with the number of failed ones below."""
    table = a_table("", "Check", "", "What to do")
    for check in diagnosis.checks:
        table.add_row(Text(*_MARKS[check.verdict]), check.subject, Text(check.detail), Text(check.next, "yellow"))
    yield table
    yield ""
    wrong = sum(check.verdict is Verdict.WRONG for check in diagnosis.checks)
    yield Text(f"✗ {wrong} wrong", "red") if wrong else Text("✓ All is well.", "green")


COMMAND = Command(
    name="doctor",
    summary="call the live endpoint in every way, and check secrets, queues and alarms",
    add_arguments=add_arguments,
    run=run,
    description="""\
Calls the live endpoint as providers and strangers do, and checks secrets, queues and alarms. The calls are about an
item of its own that is no task, and is deleted in the end: nothing is started, no list shows it. They count in the
metrics of callbacks: one result, its duplicates, and one or two that are forged.""",
)

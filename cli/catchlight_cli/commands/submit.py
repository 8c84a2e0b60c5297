"""Implements `catchlight submit`: sends a generation request to its provider and registers the task."""

import argparse
import json
import shlex
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from catchlight.api.schemas import NewTask, TaskResponse
from catchlight.client import TasksClient, UnknownOutcomeError
from catchlight.client.aws_errors import CatchlightError, UsageError
from catchlight.models import Model
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.wait import DEFAULT_TIMEOUT_SECONDS, status_of
from catchlight_cli.lookup.api_tasks import provider_id
from catchlight_cli.output_tasks import task_page


class Submitted(Model):
    """A submission; with --wait, also the task's last known state."""

    idempotency_key: str
    submission: NewTask
    task: TaskResponse | None = None


class GivenUp(Model):
    """An idempotency key that was released."""

    idempotency_key: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `submit` to its parser."""
    parser.add_argument("provider", nargs="?", type=provider_id, metavar="PROVIDER")
    parser.add_argument(
        "request", nargs="?", metavar="REQUEST", help="the body that the provider documents, JSON; - for stdin"
    )
    parser.add_argument("--file", type=Path, help="a file with the request")
    parser.add_argument("--endpoint", metavar="NAME", help="the last part of the provider's path, as generate-pro")
    parser.add_argument(
        "--key", metavar="KEY", help="idempotency key: under the same one nothing is generated twice (a new one)"
    )
    parser.add_argument(
        "--wait",
        nargs="?",
        type=float,
        const=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help=f"wait until it is done, {DEFAULT_TIMEOUT_SECONDS:.0f} s at most unless told",
    )
    parser.add_argument(
        "--give-up", metavar="KEY", help="free the key of a submission in doubt; submits nothing by itself"
    )


def run(session: Session) -> ExitStatus:
    """Submits a request, or releases a key (--give-up).

    With --wait, returns FINE if all images are archived, else WRONG.
    """
    options = session.options
    if options.give_up is not None:
        return _give_up(session)
    if not options.provider:
        raise UsageError('Name the provider and its request: catchlight submit flux-kontext \'{"prompt": "..."}\'.')
    request = _read_request(options)
    key = str(uuid.uuid4()) if options.key is None else options.key
    # Printed before the request is sent: without an answer, the caller needs the key to repeat or release it.
    session.screen.info(f"Idempotency key: {key}")
    with TasksClient.of(session.stack) as api:
        try:
            new = api.submit(options.provider, request, endpoint=options.endpoint, idempotency_key=key)
        except UnknownOutcomeError as exc:
            raise CatchlightError(
                f"{exc}\nTo generate once more, and perhaps to pay twice: catchlight submit --give-up {key}, then "
                "submit again with this key."
            ) from exc
        task = None
        if options.wait is not None:
            session.screen.info(f"{new.provider}/{new.task_id} is submitted. Waiting.")
            task = api.wait(new.provider, new.task_id, timeout_seconds=options.wait)
    result = Submitted(idempotency_key=key, submission=new, task=task)
    session.screen.show(result, lambda: _page(result))
    if task and not task.done:
        session.screen.error(f"{task.provider}/{task.task_id} is not done yet: {task.status}.")
    return status_of([task]) if task else ExitStatus.FINE


def _give_up(session: Session) -> ExitStatus:
    key = session.options.give_up
    with TasksClient.of(session.stack) as api:
        api.give_up(key)
    session.screen.show(GivenUp(idempotency_key=key), lambda: [Text(f"The key {key} is free again.")])
    return ExitStatus.FINE


def _read_request(options: argparse.Namespace) -> dict[str, Any]:
    if (options.request is None) == (options.file is None):
        raise UsageError("Give the request once: as an argument, as --file, or as - for stdin.")
    try:
        if options.file:
            text = options.file.read_text(encoding="utf-8")
        else:
            text = sys.stdin.read() if options.request == "-" else options.request
        request = json.loads(text, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as exc:
        raise UsageError(f"The request cannot be read: {exc}") from exc
    if not (isinstance(request, dict) and request):
        raise UsageError('The request has to be a JSON object, as {"prompt": "..."}.')
    return request


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _page(result: Submitted) -> Iterable[RenderableType]:
    name = f"{result.submission.provider}/{result.submission.task_id}"
    if result.task:
        yield from task_page(result.task)
        return
    yield Text(f"{name} is submitted.")
    yield Text(f"Wait for it: catchlight wait {shlex.quote(name)}", "dim")


COMMAND = Command(
    name="submit",
    summary="send a request for images to its provider, and register the task",
    add_arguments=add_arguments,
    run=run,
)

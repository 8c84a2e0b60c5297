"""Implements `catchlight submit`: sends a generation request to its provider and registers the task."""

import argparse
import json
import shlex
import uuid
from collections.abc import Iterable
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from catchlight.api.response_models import NewTask, TaskResponse
from catchlight.client import TasksClient, UnknownOutcomeError
from catchlight.client.errors import CatchlightError, UsageError
from catchlight.models import Model
from catchlight_cli.arguments import add_metadata, add_provider, seconds
from catchlight_cli.command import Command, ExitStatus, Session
from catchlight_cli.commands.wait import DEFAULT_TIMEOUT_SECONDS, exit_status
from catchlight_cli.output_tasks import render_task
from catchlight_cli.text_input import STANDARD_INPUT, read_text

_JSON_TYPES: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


class Submission(Model):
    """A submission; with --wait, also the task's last known state."""

    idempotency_key: str
    submission: NewTask
    task: TaskResponse | None = None


class ReleasedKey(Model):
    """An idempotency key that was released."""

    idempotency_key: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_provider(parser, nargs="?")
    parser.add_argument(
        "request",
        nargs="?",
        metavar="REQUEST",
        help="body of the request, a JSON object as the provider documents it; - reads it from stdin",
    )
    parser.add_argument("--file", help="file to read the request from, instead of the argument REQUEST")
    parser.add_argument(
        "--endpoint",
        metavar="NAME",
        help="last part of the path of the provider's endpoint, such as generate-pro (default: its first endpoint)",
    )
    parser.add_argument(
        "--idempotency-key",
        metavar="KEY",
        help="submissions with the same key are sent to the provider only once (default: a new key)",
    )
    add_metadata(parser)
    parser.add_argument(
        "--wait",
        nargs="?",
        type=seconds,
        const=DEFAULT_TIMEOUT_SECONDS,
        metavar="SECONDS",
        help=f"wait until the task is done, for at most SECONDS (default: {DEFAULT_TIMEOUT_SECONDS:.0f})",
    )
    parser.add_argument(
        "--release-key",
        metavar="KEY",
        help="release the idempotency key of a submission with an unknown outcome, and submit nothing",
    )


def run(session: Session) -> ExitStatus:
    """Submits a request, or releases a key (--release-key).

    With --wait, returns SUCCESS only if all images are archived.
    """
    options, output = session.options, session.output
    if options.release_key is not None:
        return _release_key(session)
    if not options.provider:
        raise UsageError('Name a provider and a request: catchlight submit flux-kontext \'{"prompt": "..."}\'.')
    request = _read_request(options)
    key = str(uuid.uuid4()) if options.idempotency_key is None else options.idempotency_key
    # Printed before the request is sent: without a response, the user needs the key to repeat the submission or to
    # release the key.
    output.info(f"Idempotency key: {key}")
    with TasksClient.of(session.stack) as api:
        try:
            with output.working("Submitting"):
                new = api.submit(
                    options.provider,
                    request,
                    endpoint=options.endpoint,
                    idempotency_key=key,
                    metadata=dict(options.metadata),
                    ref=options.ref,
                )
        except UnknownOutcomeError as exc:
            raise CatchlightError(
                f"{exc}\nTo send the request again, run `catchlight submit --release-key {key}`, then submit again "
                "with this key. The provider may charge for both requests."
            ) from exc
        task = None
        if options.wait is not None:
            output.info(f"Submitted {new.provider}/{new.task_id}.")
            with output.working("Waiting"):
                task = api.wait(new.provider, new.task_id, timeout_seconds=options.wait)
    result = Submission(idempotency_key=key, submission=new, task=task)
    output.show(result, lambda: render(result))
    return exit_status([task], output) if task else ExitStatus.SUCCESS


def _release_key(session: Session) -> ExitStatus:
    key = session.options.release_key
    with TasksClient.of(session.stack) as api:
        api.release_key(key)
    session.output.show(ReleasedKey(idempotency_key=key), lambda: [Text(f"Released the idempotency key {key}.")])
    return ExitStatus.SUCCESS


def _read_request(options: argparse.Namespace) -> dict[str, Any]:
    if (options.request is None) == (options.file is None):
        raise UsageError("Give exactly one request: as an argument, with --file, or - for stdin.")
    try:
        if options.request in (None, STANDARD_INPUT):
            text = read_text(options.request or options.file)
        else:
            text = options.request
        request = json.loads(text, parse_constant=_refuse)
    except OSError as exc:
        raise UsageError(f"The request cannot be read: {options.file or 'stdin'}: {exc.strerror or exc}.") from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"The request is not valid JSON: {exc}. Put it in quotes in a shell.") from exc
    if not isinstance(request, dict):
        kind = _JSON_TYPES.get(type(request), "a number")
        raise UsageError(f'The request is {kind} and not a JSON object, such as {{"prompt": "..."}}.')
    if not request:
        raise UsageError('The request is empty. Give it the members that the provider documents: {"prompt": "..."}.')
    return request


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def render(result: Submission) -> Iterable[RenderableType]:
    """Renders the submission for the terminal, or the task after waiting for it."""
    name = f"{result.submission.provider}/{result.submission.task_id}"
    if result.task:
        yield from render_task(result.task)
        return
    yield Text(f"Submitted {name}.")
    yield Text(f"To wait for it: catchlight wait {shlex.quote(name)}", "dim")


COMMAND = Command(
    name="submit",
    summary="send a request for images to its provider, and register the task",
    add_arguments=add_arguments,
    run=run,
)

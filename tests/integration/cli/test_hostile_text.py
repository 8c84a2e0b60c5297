"""Untrusted text in tasks neither controls the terminal nor makes a command fail."""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import pytest

from catchlight.api.response_models import TaskResponse
from catchlight.client import TasksClient
from catchlight.models import TaskStatus
from catchlight_cli.command_line import run
from tests.hostile.strings import ACTED_ON, STRINGS
from tests.integration.cli.conftest import STACK_NAME, Deployed
from tests.integration.providers import Providers
from tests.tasks_api_in_memory import TasksApiInMemory, a_lost_image, a_task, an_image

NOT_ASCII = re.compile(r"[^\x20-\x7e\n]")


def in_utf8(text: str) -> str:
    """Returns the text as DynamoDB can store it: without lone surrogates."""
    return text.encode(errors="replace").decode()


def a_hostile_item(text: str) -> dict[str, Any]:
    text = in_utf8(text)
    failure = {"reason": "OTHER", "code": text, "message": text}
    return {
        "request": {"prompt": text, text[:60] or "x": text},
        "metadata": {"order": text[:200]},
        "failure": failure,
        "reportedBy": "callback",
        "reportedAt": text[:40],
        "conflicts": [{"reportedBy": "callback", "reportedAt": text[:40], "status": "FAILED", "failure": failure}],
        "ref": text[:64],
    }


def hostile_tasks(number: int, text: str) -> Iterator[TaskResponse]:
    failure = {"reason": "OTHER", "code": text, "message": text}
    conflict = {
        "reportedBy": "callback",
        "reportedAt": text[:40],
        "status": "FAILED",
        "urls": [text],
        "failure": failure,
    }
    lost = a_lost_image("t").model_copy(update={"reason": text, "url": text, "expires_at": text})
    image = an_image("t", b"", index=1).model_copy(
        update={"key": text, "content_type": text, "sha256": text, "archived_at": text}
    )
    for status in (TaskStatus.INCOMPLETE, TaskStatus.FAILED):
        yield a_task(
            f"t{number}-{status}",
            status,
            arrived_at=datetime.now(UTC),
            request={"prompt": text, "model": text},
            failure=failure,
            conflicts=[conflict],
            images=[lost, image],
            idempotency_key=text,
        ).model_copy(update={"registered_at": text, "reported_at": text, "metadata": {"order": text[:200]}})


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs a command with and without --json, and checks both outputs. Returns the output without --json."""
    run([*arguments, "--stack-name", STACK_NAME, "--json"])
    output = capsys.readouterr()
    assert not NOT_ASCII.search(output.out), arguments
    assert not ACTED_ON.search(output.err), arguments
    run([*arguments, "--stack-name", STACK_NAME])
    output = capsys.readouterr()
    printed_text = output.out + output.err
    assert not ACTED_ON.search(printed_text), arguments
    assert "MarkupError" not in printed_text
    assert "Traceback" not in printed_text
    return printed_text


def test_commands_that_read_the_table_escape_hostile_text(
    deployed: Deployed, providers: Providers, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, text in enumerate(STRINGS):
        status = ("FAILED", "PENDING", "INCOMPLETE")[number % 3]
        deployed.put(f"flux-kontext#t{number}", status, **a_hostile_item(text))
        # Written directly to the table: the key is not validated.
        deployed.put(f"flux-kontext#{in_utf8(text)[:500]}", status)
        deployed.put(in_utf8(text)[:500], status, provider=in_utf8(text)[:50] or "x")
        deployed.send("ArchiveDeadLetters", in_utf8(text).replace("\x00", ""))

    for number in range(0, len(STRINGS), 16):
        printed(capsys, "describe", f"flux-kontext/t{number}")
    for command in ("status", "reconcile --dry-run", "redrive --dry-run", "resend-events --dry-run"):
        assert printed(capsys, *command.split())


def test_commands_that_read_the_tasks_api_escape_hostile_text(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    api = TasksApiInMemory(task for n, text in enumerate(STRINGS) for task in hostile_tasks(n, in_utf8(text)))
    api.unreadable = {in_utf8(text): in_utf8(text) for text in STRINGS}
    monkeypatch.setattr(TasksClient, "of", lambda _: api.client())

    assert printed(capsys, "list", "--limit", "1000").count("\ufffd") > len(STRINGS)
    ids = [task.task_id for task in api.tasks.values()]
    assert printed(capsys, "get", *ids).count("\ufffd") > 10 * len(STRINGS)
    assert printed(capsys, "wait", *ids)
    printed(capsys, "download", "--since", "1d", "--output-dir", str(tmp_path))


def test_error_messages_escape_hostile_arguments(deployed: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    for text in islice(STRINGS, 0, None, 20):
        for command in ("describe", "get", "wait", "redrive"):
            with suppress(SystemExit):
                run([command, "--stack-name", STACK_NAME, "--", text])
            with suppress(SystemExit):
                run([command, text, text, text])
            assert not ACTED_ON.search(capsys.readouterr().err)

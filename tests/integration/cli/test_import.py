"""`catchlight import` registers the task ids in a file; repeated runs register each task once."""

import io
from pathlib import Path
from typing import Any

import pytest

from catchlight.errors import StoreUnavailableError
from catchlight.models import iso, utc_now
from catchlight.tasks.registration import Registry
from catchlight_cli.repair import bulk_import
from tests.integration.cli.conftest import Deployed

LINES = "flux-kontext#a\nnanobanana/b\nacedata#c\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(content: str | bytes, name: str = "tasks.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return to_file


def counts(imported: dict[str, Any]) -> tuple[bool, int, int, int]:
    return imported["dryRun"], imported["registered"], imported["alreadyKnown"], imported["duplicates"]


def test_without_yes_nothing_is_registered(deployed: Deployed, write: Any) -> None:
    file = write(LINES)

    assert counts(deployed.run("import", file)) == (True, 3, 0, 0)

    assert deployed.store.items() == []
    assert "Repeat the command with --yes" in deployed.show("import", file)


def test_imported_tasks_are_registered(deployed: Deployed, write: Any) -> None:
    imported = deployed.run("import", write(LINES), "--yes", "--rate", "1000")

    assert counts(imported) == (False, 3, 0, 0)
    item = deployed.store.item("nanobanana#b")
    assert item is not None
    assert (item["status"], item["rank"], item["provider"], item["taskId"]) == ("PENDING", 0, "nanobanana", "b")
    assert item["registeredAt"] == item["updatedAt"] <= iso(utc_now())
    assert {each["task"] for each in deployed.store.items()} == {"flux-kontext#a", "nanobanana#b", "acedata#c"}


def test_known_tasks_are_not_changed(deployed: Deployed, write: Any) -> None:
    deployed.put("flux-kontext#a", "ARCHIVED")
    before = deployed.store.item("flux-kontext#a")

    assert counts(deployed.run("import", write(LINES + "acedata#c\n"), "--yes")) == (False, 2, 1, 1)
    items = deployed.store.items()
    assert counts(deployed.run("import", write(LINES), "--yes")) == (False, 0, 3, 0)

    assert deployed.store.item("flux-kontext#a") == before
    assert deployed.store.items() == items


def test_a_callback_during_the_import_makes_its_task_known(
    deployed: Deployed, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown_tasks = bulk_import.unknown_tasks

    def receive_callback_afterwards(*arguments: Any, **settings: Any) -> list[str]:
        unknown = list(unknown_tasks(*arguments, **settings))
        deployed.put("flux-kontext#a", "SUCCEEDED")
        return unknown

    monkeypatch.setattr("catchlight_cli.commands.import_.unknown_tasks", receive_callback_afterwards)

    assert counts(deployed.run("import", write(LINES), "--yes")) == (False, 2, 1, 0)

    item = deployed.store.item("flux-kontext#a")
    assert item is not None
    assert item["status"] == "SUCCEEDED"


def test_a_repeated_import_registers_the_remaining_tasks(
    deployed: Deployed, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("".join(f"flux-kontext#{number}\n" for number in range(250)))
    register, calls = Registry.register, []

    def fail_later(self: Registry, *arguments: Any, **settings: Any) -> list[bool]:
        calls.append(arguments)
        if len(calls) > 12:
            raise StoreUnavailableError("DynamoDB did not answer")
        return register(self, *arguments, **settings)

    monkeypatch.setattr(Registry, "register", fail_later)
    assert deployed.run("import", file, "--yes", "--rate", "1000", expect=1) is None
    done = len(deployed.store.items())
    assert 0 < done < 250

    monkeypatch.setattr(Registry, "register", register)
    imported = deployed.run("import", file, "--yes", "--rate", "1000")

    assert counts(imported) == (False, 250 - done, done, 0)
    assert len(deployed.store.items()) == 250


# ------------------------------------------------------------------------------------------------ files


def test_invalid_lines_are_listed_with_their_numbers(deployed: Deployed, write: Any) -> None:
    file = write("flux-kontext#a\nnonsense here\n\nflux#b\n")

    imported = deployed.run("import", file, "--yes", expect=1)

    assert [(line["line"], line["problem"].split(":")[0]) for line in imported["invalid"]] == [
        (2, "no provider"),
        (4, "unknown provider flux"),
    ]
    # If a line is invalid, no task is registered without --skip-invalid.
    assert counts(imported) == (True, 1, 0, 0)
    assert deployed.store.items() == []
    assert counts(deployed.run("import", file, "--yes", "--skip-invalid", expect=1)) == (False, 1, 0, 0)
    assert "✗ line 2:" in deployed.show("import", file)


def test_tasks_are_read_from_stdin(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\ufefftaskId\na\nb\n".encode())))

    assert counts(deployed.run("import", "-", "--provider", "acedata", "--yes")) == (False, 2, 0, 0)

    assert {each["task"] for each in deployed.store.items()} == {"acedata#a", "acedata#b"}


def test_a_missing_file_is_an_error(deployed: Deployed) -> None:
    assert deployed.run("import", "nowhere.csv", expect=2) is None

    assert "There is no file nowhere.csv" in deployed.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=repr)
def test_csv_files_in_the_formats_of_spreadsheets_are_read(
    deployed: Deployed, write: Any, encoding: str, line_end: str
) -> None:
    lines = ["Provider;Task_ID;Prompt", 'flux-kontext;a;"für; dich"', "acedata;b;", ""]

    imported = deployed.run("import", write(line_end.join(lines).encode(encoding), "tasks.csv"), "--yes")

    assert counts(imported) == (False, 2, 0, 0)
    assert {each["task"] for each in deployed.store.items()} == {"flux-kontext#a", "acedata#b"}


def test_an_id_in_an_unknown_encoding_is_listed(deployed: Deployed, write: Any) -> None:
    imported = deployed.run("import", write(b"flux-kontext#a\nflux-kontext#\xe9\n"), expect=1)

    assert [line["line"] for line in imported["invalid"]] == [2]


@pytest.mark.parametrize("content", [b"PK\x03\x04\x14\x00\x06\x00", "flux-kontext#a".encode("utf-16-le")])
def test_a_binary_file_is_an_error(deployed: Deployed, write: Any, content: bytes) -> None:
    assert deployed.run("import", write(content), expect=1) is None

    assert "cannot be read" in deployed.stderr


@pytest.mark.parametrize("content", ["", "\n\n", "task\n"])
def test_an_empty_file_registers_nothing(deployed: Deployed, write: Any, content: str) -> None:
    assert counts(deployed.run("import", write(content), "--yes")) == (False, 0, 0, 0)

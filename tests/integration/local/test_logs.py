"""Log files have a bounded length."""

from pathlib import Path

import pytest

from local.lambda_ import logs
from local.lambda_.logs import LogFolder


def test_of_a_long_log_the_current_and_one_previous_file_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 1000)
    folder = LogFolder(tmp_path)

    for number in range(1000):
        folder.write("Tested", f"line {number}")

    newer, older = (tmp_path / "Tested.log").read_text(), (tmp_path / "Tested.log.1").read_text()
    kept = [int(line.removeprefix("line ")) for line in (older + newer).splitlines()]
    assert kept == list(range(kept[0], 1000))
    assert max(len(newer), len(older)) <= 1000 < len(newer + older)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_line_that_is_longer_than_the_limit_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 10)

    LogFolder(tmp_path).write("Tested", "a line that is longer")

    assert (tmp_path / "Tested.log").read_text() == "a line that is longer\n"


def test_the_logs_of_an_earlier_stack_are_deleted(tmp_path: Path) -> None:
    for name in ("Tested.log", "Tested.log.1", "notes.txt"):
        (tmp_path / name).write_text("old")

    LogFolder(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

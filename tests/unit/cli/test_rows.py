"""Rows of a result are printed while the command still produces others."""

import io
import os
import re
import time
from collections.abc import Generator

import pytest
from rich.text import Text

from catchlight_cli import output as output_module
from catchlight_cli.output import Output


class Screen(io.StringIO):
    """A stdout whose text can be read while rows are written to it."""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.getvalue():
            assert time.monotonic() < deadline, self.getvalue()
            time.sleep(0.01)


def cells(text: str) -> tuple[Text, ...]:
    return (Text(text),)


def test_a_row_is_printed_before_the_next_one_is_produced(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)

    def rows() -> Generator[str, None, None]:
        yield "one"
        yield "two"
        screen.wait_for("two")
        yield "three"

    assert Output().show_rows(rows(), cells, "Number") == ("one", "two", "three")
    assert screen.getvalue().split() == ["Number", "one", "two", "three"]


def test_rows_before_an_interruption_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)

    def rows() -> Generator[str, None, None]:
        yield "done"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Output().show_rows(rows(), cells, "Task")
    assert screen.getvalue().split() == ["Task", "done"]


@pytest.mark.parametrize("pause", [0.0, 60.0])
def test_a_closed_pipe_closes_the_generator_of_the_rows(monkeypatch: pytest.MonkeyPatch, pause: float) -> None:
    """Both if a row is printed when it arrives, and if the thread for buffered rows prints it later."""

    class ClosedPipe(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", ClosedPipe())
    if not pause:
        monkeypatch.setattr(output_module, "_PAGE_SECONDS", 0)
    ended = []

    def rows() -> Generator[str, None, None]:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                yield "row"
                time.sleep(0.01)
        finally:
            ended.append(time.monotonic() < deadline)

    with pytest.raises(BrokenPipeError):
        Output().show_rows(rows(), cells, "Task")
    assert ended == [True]


END = "the end"


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
def test_rows_on_a_terminal_replace_the_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, follower = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(output_module, "_PAGE_SECONDS", 0)
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr("sys.stdout", terminal)
        monkeypatch.setattr("sys.stderr", terminal)
        output = Output()
        output.show_rows(output.track(iter(["row one", "row two"]), "Working", total=2), cells, "Task")
        monkeypatch.undo()
        terminal.write(END)
        terminal.flush()
        written = ""
        while END not in written:  # each read returns a part of the output
            written += os.read(leader, 1_000_000).decode()
    os.close(leader)
    assert "Working" in written
    # Every row begins on a line of its own, which was erased if the bar was there.
    printed = re.sub(r"\x1b\[[\d;]*m", "", written)
    for row in ("Task", "row one", "row two"):
        before = printed[: printed.index(row)]
        assert before.endswith(("\x1b[2K", "\r\n")), before[-80:]

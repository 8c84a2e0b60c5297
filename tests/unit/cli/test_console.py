"""Untrusted text is printed as text only: without control sequences, markup, or lines that look like a message."""

import ast
import io
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console, Group, RenderableType
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from catchlight.observability.log_lines import log_line
from catchlight_cli.console import SafeConsole, json_text
from catchlight_cli.control_characters import printable
from catchlight_cli.output import Output
from local import REPOSITORY
from tests.hostile.strings import ACTED_ON, STRINGS


def a_table(text: str) -> Table:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(Text(text, "bold"))
    table.add_row(Group(text, Text(text)))
    return table


RENDERABLES: dict[str, Callable[[str], RenderableType]] = {
    "str": str,
    "Text": Text,
    "styled Text": lambda text: Text.assemble((text, "bold red"), text),
    "table": a_table,
}


def printed(renderable: RenderableType, **options: object) -> str:
    file = io.StringIO()
    SafeConsole(file=file, width=80, **options).print(renderable)
    return file.getvalue()


def test_the_corpus_has_at_least_100_strings() -> None:
    assert len(set(STRINGS)) >= 100


@pytest.mark.parametrize("renderable", RENDERABLES)
def test_no_control_character_is_printed(renderable: str) -> None:
    for text in STRINGS:
        assert not ACTED_ON.search(printed(RENDERABLES[renderable](text))), repr(text)


@pytest.mark.parametrize("renderable", RENDERABLES)
def test_a_terminal_receives_only_the_escape_sequences_of_rich(renderable: str) -> None:
    own = re.compile(r"\x1b\[[0-9;]*m")
    for text in STRINGS:
        shown = printed(RENDERABLES[renderable](text), force_terminal=True, color_system="truecolor")
        assert not ACTED_ON.search(own.sub("", shown)), repr(text)
        assert "\x1b[31;5;7m" not in shown


def test_the_console_of_rich_alone_would_print_them() -> None:
    file = io.StringIO()
    Console(file=file, width=80).print(Text(STRINGS[0]))
    assert ACTED_ON.search(file.getvalue())


def test_markup_and_emoji_codes_are_text() -> None:
    assert printed("[bold red]x[/bold red] [/y] :smile:") == "[bold red]x[/bold red] [/y] :smile:\n"


def test_no_character_is_cut_off() -> None:
    """Replacements are wider than control characters, which have no width."""
    table = Table(box=None)
    table.add_column(overflow="fold")
    table.add_row("\x1b\x9b" * 100)
    assert printed(table).count("\ufffd") == 200


def test_text_without_control_characters_is_unchanged() -> None:
    harmless = "Grüße, 你好, \u05e9\u05dc\u05d5\u05dd, 👩‍👩‍👧 é\n\tx"
    assert printable(harmless) == harmless


def test_all_control_characters_of_unicode_are_replaced() -> None:
    for code in range(0x110000):
        character = chr(code)
        is_control = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") and character not in "\n\t"
        is_bidi = unicodedata.bidirectional(character) in (
            "LRE",
            "RLE",
            "LRO",
            "RLO",
            "PDF",
            "LRI",
            "RLI",
            "FSI",
            "PDI",
        )
        if is_control or is_bidi:
            assert printable(character) == "\ufffd", hex(code)


def test_json_is_printable_ascii_and_unchanged() -> None:
    for text in STRINGS:
        line = json_text({text: [text]})
        assert re.fullmatch(r"[\x20-\x7e]*", line)
        assert json.loads(line) == {text: [text]}


def test_log_lines_of_functions_are_ascii() -> None:
    for text in STRINGS:
        assert re.fullmatch(r"[\x20-\x7f]*", log_line({"message": text, "error": ValueError(text)}))


def test_text_after_a_line_break_does_not_look_like_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.info("Skipped x\nUsing the stack evil.")
    output.error("no task x\nerror: y")
    output.malformed_items({"a\nb": "images"})
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("  ")] == [
        "Skipped x",
        "error: no task x",
        "Skipped a",
        "1 malformed item skipped. Correct them in the table.",
    ]


def test_a_progress_bar_interprets_no_markup() -> None:
    with Output().progress() as progress:
        assert isinstance(progress, Progress)
        columns = [column for column in progress.columns if isinstance(column, TextColumn)]
        assert columns
        assert not any(column.markup for column in columns[:1])


def test_only_the_console_prints() -> None:
    """Other calls that print would bypass the replacement of control characters."""
    allowed = {
        "cli/catchlight_cli/output.py": {"sys.stdout.write"},  # JSON, and `outputs --export`, whose values are quoted
        "cli/catchlight_cli/__main__.py": {"sys.stderr.write"},  # stdout is broken; the text is the system's
        "cli/catchlight_cli/command_line.py": {"sys.stdout.write"},  # the completion script
        "local/__main__.py": {"print"},  # an error before rich is imported
    }
    found: dict[str, set[str]] = {}
    for folder in ("cli", "local"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            if calls := _printing_calls(path):
                found[str(path.relative_to(REPOSITORY))] = calls
    assert found == allowed


def _printing_calls(path: Path) -> set[str]:
    printing = {"print", "Console", "sys.stdout.write", "sys.stderr.write", "sys.stdout.buffer.write", "pprint"}
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {name for name in map(ast.unparse, calls) if name in printing}

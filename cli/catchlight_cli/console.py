"""Prints untrusted text to a terminal without its control characters.

Prompts, messages of providers, task ids and headers are untrusted. Terminals interpret control characters: ESC and the
C1 controls begin sequences that set the clipboard (OSC 52) or repaint the screen, and bidirectional controls change the
order of the displayed characters. Rich removes only a few of them.
"""

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from catchlight_cli.control_characters import printable


def json_text(document: Any) -> str:
    """Returns a JSON document in one line of printable ASCII: all other characters are escaped."""
    # JSON does not escape DEL, which is ASCII.
    return json.dumps(document).replace("\x7f", "\\u007f")


class SafeConsole(Console):
    """A console of rich that prints no control characters of a text and interprets no markup in it."""

    def __init__(self, **options: Any) -> None:
        # Highlighting would colour numbers and URLs in untrusted text like those of the command's own output.
        super().__init__(**{"highlight": False, **options}, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError again: rich would only end the thread that prints, and the command would go on."""
        raise

    def render_str(self, text: str, **options: Any) -> Text:
        """Converts text to a renderable, also a cell or header of a table."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Renders to segments. Rich also calls this for parts of a renderable, such as cells, before wrapping."""
        if isinstance(renderable, Text):
            renderable = renderable.copy()
            renderable.plain = printable(renderable.plain)
        for segment in super().render(renderable, options):
            # Renderables of other types may contain text as well. Segments with `control` are rich's own sequences.
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

"""Replaces the characters in a text that control a terminal."""

import re

# C0 without tab and newline; DEL; C1; the line and paragraph separators; the bidirectional controls of Unicode (UAX 9)
# and the older Arabic letter mark; invisible tags (U+E0000) that hide text; lone surrogates, which no stream encodes.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Returns `text` with U+FFFD in place of each character that controls a terminal; tabs and newlines stay.

    The length stays the same, so that the offsets of rich's styles stay valid.
    """
    return _CONTROLS.sub(_REPLACEMENT, text)

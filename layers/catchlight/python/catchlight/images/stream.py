"""Provides an image that is being downloaded as a file, whose end can be read only after the image was validated."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

from catchlight.errors import ImageError, ImageRejectedError
from catchlight.images.formats import ImageFormat, ImageMetadata, image_format, read_image_metadata

# 4K PNGs have 10-25 MB; the providers generate no larger images.
MAX_IMAGE_BYTES = 25 * 1024 * 1024
# Larger images are kept on disk. An image then takes 2 MB of memory: this megabyte, FILE_BUFFER_BYTES, some blocks, and
# the buffers of two connections. 32 concurrent ones take 64 MB of the function's 1,024; `make bench` measures ten.
SPOOL_BYTES = 1024 * 1024
# TLS returns 16 KB at a time: sixteen of them are written to disk at once.
FILE_BUFFER_BYTES = 256 * 1024
# The block size of reads, the same as httpcore's read size.
BLOCK_BYTES = 64 * 1024
# The minimum size of all blocks except the last one: S3 accepts no smaller chunks. The first block has this size, so
# that the upload to S3 starts while the rest is being downloaded.
MIN_BLOCK_BYTES = 8 * 1024


class Received(NamedTuple):
    """The bytes of a body that have arrived, whether or not they are an image."""

    file: SpooledTemporaryFile[bytes]  # positioned at its start
    size: int  # bytes


class ImageStream:
    """A readable, seekable file with an image that is being downloaded. Reads wait for bytes not received yet.

    The last block can be read only after the whole image was validated, so a copy made during the download can be
    completed only if the image is valid. Bytes that follow the image's own end are part of the copy, and the image is
    validated after all of them have arrived. Received bytes stay in a temporary file for readers that start again, and
    for the quarantine of bodies that are not archived.
    """

    def __init__(
        self, pieces: Iterator[bytes], size: int | None, source_host: str, *, is_delimited: bool = True
    ) -> None:
        """Waits for the first bytes, or for the whole image if its size is unknown.

        Args:
            pieces: yields the bytes, and raises ImageUnavailableError if the download fails.
            size: the number of bytes according to the server, None if unknown.
            source_host: the host that sends the image.
            is_delimited: False if only the connection's end marks the body's end: an interrupted body looks complete.

        Raises:
            ImageRejectedError: `size` is too large. All other errors are raised by `format`, `read` and `complete`.
        """
        if (size or 0) > MAX_IMAGE_BYTES:
            raise _too_large()
        self.source_host = source_host
        self.size = -1 if size is None else size  # bytes; -1 only during __init__, while the size is unknown
        self._file = SpooledTemporaryFile(SPOOL_BYTES, buffering=FILE_BUFFER_BYTES)  # noqa: SIM115 - see close()
        self._is_at_end = True  # the file's own position is at its end
        self._position = 0  # the reader's position
        self._block = b""  # the last block received
        self._readable = 0  # bytes in all blocks received so far
        self._written = 0  # bytes in the file, including those that no block contains yet
        self._is_whole = False  # the whole body has arrived
        self._is_delimited = is_delimited
        self._metadata: ImageMetadata | None = None
        self._failure: Exception | None = None
        self._blocks = self._validated_blocks(pieces)
        try:
            self._next_block()
            self._format: ImageFormat = image_format(self._block)
            if size is None:
                self.complete()
        except ImageError as exc:
            self._failure = exc  # raised by `format`, `read` and `complete`
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ImageStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Deletes the temporary file."""
        self._file.close()

    @property
    def format(self) -> ImageFormat:
        """Returns the format, detected from the first bytes. Raises errors of `complete` that have occurred already."""
        if self._failure:
            raise self._failure
        return self._format

    def complete(self) -> ImageMetadata:
        """Waits for the rest of the image and returns the metadata of the validated image.

        Raises:
            NotAnImageError: the body is certainly not an image.
            UnknownFormatError: the body is a picture or video of a format that is not archived.
            TooManyPixelsError: the image has more than MAX_PIXELS.
            ImageRejectedError: the body has more than MAX_IMAGE_BYTES.
            ImageTruncatedError: the image is cut or damaged.
            ImageUnavailableError: the download failed.
        """
        while self._metadata is None:
            self._next_block()
        return self._metadata

    def sha256(self) -> bytes:
        """Returns the SHA-256 digest of the whole image. Raises the same errors as `complete`."""
        self.complete()
        self._seek_in_file(0)
        return hashlib.file_digest(self._file, "sha256").digest()

    def receive(self) -> bool:
        """Waits for the rest of the body, whether or not it is an image. Returns False if not all of it arrived."""
        with suppress(ImageError):
            for _ in self._blocks:
                pass
        return self._is_whole

    @property
    def received(self) -> Received | None:
        """Returns the bytes that have arrived; None if there are none, or more than MAX_IMAGE_BYTES.

        The file is valid until `close`.
        """
        if not 0 < self._written <= MAX_IMAGE_BYTES:
            return None
        self._seek_in_file(0)
        return Received(self._file, self._written)

    def read(self, size: int = -1) -> bytes:
        """Returns at most `size` bytes from the position on, all if `size` is negative, none at the end.

        Raises the same errors as `complete`.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        while self._readable - self._position < min(size, MIN_BLOCK_BYTES) and self._next_block():
            pass
        begin = self._position - (self._readable - len(self._block))
        if begin >= 0:
            data = self._block[begin : begin + size]
        else:
            self._seek_in_file(self._position)
            data = self._file.read(min(size, self._readable - self._position))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position like `io.IOBase.seek`. Does not wait for bytes."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Returns the position like `io.IOBase.tell`."""
        return self._position

    def _next_block(self) -> bool:
        """Waits for the next block. Returns False if there are no more blocks."""
        if self._failure:
            raise self._failure
        try:
            block = next(self._blocks, b"")
        except Exception as exc:
            self._failure = exc  # raised again by later calls, which would otherwise return no bytes, as at the end
            raise
        if block:
            self._block = block
            self._readable += len(block)
        return bool(block)

    def _validated_blocks(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        block = bytearray()
        for piece in pieces:
            self._written += len(piece)
            if self._written > MAX_IMAGE_BYTES:
                raise _too_large()
            if not self._is_at_end:
                self._seek_in_file(0, io.SEEK_END)
                self._is_at_end = True
            self._file.write(piece)
            is_last = self._written == self.size
            enough = BLOCK_BYTES if self._readable else MIN_BLOCK_BYTES
            if not block and len(piece) >= enough and not is_last:
                yield piece  # the usual case: without a copy
                continue
            block += piece
            if len(block) >= enough and not is_last:
                yield bytes(block)
                block.clear()
        self._is_whole = True
        self.size = self._written
        self._is_at_end = False
        self._metadata = read_image_metadata(self._file, self.size, is_all=self._is_delimited)  # type: ignore[arg-type]
        yield bytes(block)

    def _seek_in_file(self, offset: int, whence: int = io.SEEK_SET) -> None:
        self._file.seek(offset, whence)
        self._is_at_end = False


def _too_large() -> ImageRejectedError:
    return ImageRejectedError(f"the image is larger than {MAX_IMAGE_BYTES} bytes")

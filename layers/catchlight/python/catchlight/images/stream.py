"""An image on its way, as a file: whoever reads it gets its end only if all of it is an image."""

import hashlib
import io
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from types import TracebackType

from catchlight.errors import ImageRejectedError
from catchlight.images.formats import ImageFormat, ImageMetadata, image_format, read_image_facts

# 4K PNGs have 10-25 MB; nothing the providers make is larger.
MAX_IMAGE_BYTES = 25 * 1024 * 1024
# Above this what has come lies on disk: memory stays flat however many images come at once.
SPOOL_BYTES = 1024 * 1024
# TLS hands over 16 KB at a time: the disk gets sixteen of them at once.
FILE_BUFFER_BYTES = 256 * 1024
# What a reader gets at once: as much as HTTP asks TLS for.
BLOCK_BYTES = 64 * 1024
# What a reader gets at least, but at the end: S3 wants no smaller pieces. The first is as small, so that S3 is called
# while the rest comes.
LEAST_BLOCK_BYTES = 8 * 1024


class ImageStream:
    """Reads what has come, and waits for what has not.

    The last block is held back until the whole image is verified: a copy that is made while it comes is never finished
    with anything else. What was read stays in a temporary file, for a reader that begins anew.
    """

    def __init__(self, pieces: Iterator[bytes], size: int | None, source_host: str) -> None:
        """Waits for the first bytes, and for all of them if nobody told how many there will be.

        Args:
            pieces: the bytes; raises ImageUnavailableError if they do not come.
            size: how many there will be, None if that was not told.
            source_host: who sends them.

        Raises:
            ImageRejectedError: it is not an image, or too large.
            ImageUnavailableError: it does not come whole.
        """
        if (size or 0) > MAX_IMAGE_BYTES:
            raise _too_large()
        self.source_host = source_host
        self.size = -1 if size is None else size  # bytes; -1 only until they have come, in here
        self._file = SpooledTemporaryFile(SPOOL_BYTES, buffering=FILE_BUFFER_BYTES)  # noqa: SIM115 - see close()
        self._is_at_end = True  # of the file
        self._position = 0  # of whoever reads
        self._block = b""  # the last one that came
        self._come = 0  # bytes, with that block
        self._facts: ImageMetadata | None = None
        self._failure: Exception | None = None
        self._blocks = self._verified_blocks(pieces)
        try:
            self._take()
            self.format: ImageFormat = image_format(self._block)
            if size is None:
                self.complete()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "ImageStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forgets it."""
        self._file.close()

    def complete(self) -> ImageMetadata:
        """Waits for the rest; what all of it is.

        Raises:
            ImageRejectedError, ImageUnavailableError: see above.
        """
        while self._facts is None:
            self._take()
        return self._facts

    def sha256(self) -> bytes:
        """The digest of all of it. Raises as `complete`."""
        self.complete()
        self._seek_in_file(0)
        return hashlib.file_digest(self._file, "sha256").digest()

    def read(self, size: int = -1) -> bytes:
        """At most so many of the next bytes, none at the end. Raises as `complete`."""
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK_BYTES), b""))
        while self._come - self._position < min(size, LEAST_BLOCK_BYTES) and self._take():
            pass
        begin = self._position - (self._come - len(self._block))
        if begin >= 0:
            data = self._block[begin : begin + size]
        else:
            self._seek_in_file(self._position)
            data = self._file.read(min(size, self._come - self._position))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file. Waits for nothing."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def _take(self) -> bool:
        """Waits for the next block; whether there was one."""
        if self._failure:
            raise self._failure
        try:
            block = next(self._blocks, b"")
        except Exception as exc:
            self._failure = exc  # else it would look like the end to whoever tries again
            raise
        if block:
            self._block = block
            self._come += len(block)
        return bool(block)

    def _verified_blocks(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        block, come = bytearray(), 0
        for piece in pieces:
            come += len(piece)
            if come > MAX_IMAGE_BYTES:
                raise _too_large()
            if not self._is_at_end:
                self._seek_in_file(0, io.SEEK_END)
                self._is_at_end = True
            self._file.write(piece)
            is_last = come == self.size
            enough = BLOCK_BYTES if self._come else LEAST_BLOCK_BYTES
            if not block and len(piece) >= enough and not is_last:
                yield piece  # uncopied: most of them
                continue
            block += piece
            if len(block) >= enough and not is_last:
                yield bytes(block)
                block.clear()
        self.size = come
        self._is_at_end = False
        self._facts = read_image_facts(self._file, come)  # type: ignore[arg-type]
        yield bytes(block)

    def _seek_in_file(self, offset: int, whence: int = io.SEEK_SET) -> None:
        self._file.seek(offset, whence)
        self._is_at_end = False


def _too_large() -> ImageRejectedError:
    return ImageRejectedError(f"it is larger than {MAX_IMAGE_BYTES} bytes")

"""Counts the encoded blocks of a JPEG without an end marker, to find out whether its pixels are complete.

The Huffman codes are followed to the end of each block (ITU-T T.81, annexes F and G). Values are not decoded.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from catchlight.images.formats.bounded_reader import BoundedReader
from catchlight.images.formats.layout import DamagedError, TruncatedError

# Following the codes of a megabyte takes two seconds, or four in a progressive image.
MAX_CODED_BYTES = 1024 * 1024
HUFFMAN_TABLES, RESTART_INTERVAL, START_OF_SCAN = 0xC4, 0xDD, 0xDA
_PROGRESSIVE, _HUFFMAN_FRAMES, _ARITHMETIC = 0xC2, {0xC0, 0xC1, 0xC2}, {0xC9, 0xCA}
# The blocks of the largest image that is accepted, 64 megapixels of three components. Each takes eight bytes of memory.
MAX_BLOCKS = 3_000_000
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_COEFFICIENTS = 64
_RUN_OF_ZEROS = 0xF0  # 16 zeros
_NO_END = "the end-of-image marker is missing"
# For each value of the next 16 bits: the length of the code at their beginning, and its symbol; 0 if there is no code.
_Table = list[int]
_NO_TABLE: _Table = [0] * (1 << 16)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a JPEG, with the encoded data that follows a scan's header."""

    kind: int  # the second byte of its marker
    data: bytes
    end: int  # offset after `data`
    coded_end: int  # offset after the encoded data of a scan; the same as `end` for other segments


@dataclass(slots=True)
class _Component:
    across: int  # blocks in a row, without the padding of the last MCU (minimum coded unit)
    down: int
    mcu_across: int  # blocks in a row of an MCU, in scans of several components
    mcu_down: int
    stride: int  # blocks in a row, with the padding
    # In progressive images: for each block, a bit set of the coefficients that are not 0.
    nonzero: list[int]
    # For each coefficient, the number of its lowest bits that no scan has contained yet.
    bits_left: list[int] = field(default_factory=lambda: [16] * _COEFFICIENTS)


class _Bits:
    """The bits of a restart interval, followed by zeros."""

    def __init__(self, coded: bytes) -> None:
        # FF at the end is the beginning of a marker that is cut off.
        data = coded.rstrip(b"\xff").replace(b"\xff\x00", b"\xff")
        self._data = data + bytes(4)
        self._size = 8 * len(data)
        self.position = 0

    def is_over(self) -> bool:
        """Returns whether more bits were read than the interval has."""
        return self.position > self._size

    def peek(self) -> int:
        """Returns the next 16 bits."""
        at = self.position >> 3
        return int.from_bytes(self._data[at : at + 3], "big") >> (8 - (self.position & 7)) & 0xFFFF

    def skip(self, length: int) -> None:
        """Skips `length` bits."""
        self.position += length

    def take(self, length: int) -> int:
        """Returns the number in the next `length` bits, at most 15."""
        value = self.peek() >> (16 - length)
        self.position += length
        return value

    def symbol(self, table: _Table) -> int:
        """Returns the symbol of the next code."""
        entry = table[self.peek()]
        if not entry:
            raise DamagedError("its pixels are damaged")
        self.position += entry >> 8
        return entry & 0xFF


def check_scans(file: BoundedReader, segments: Iterable[Segment]) -> None:
    """Checks that the scans contain all pixels, by following the codes of all blocks.

    Raises:
        TruncatedError: pixels are missing, there are too many to count, or they have arithmetic coding.
        DamagedError: the codes or their tables are invalid.
    """
    is_progressive = False
    components: dict[int, _Component] = {}
    tables: dict[int, _Table] = {}
    interval = size = 0
    for segment in segments:
        if segment.kind == HUFFMAN_TABLES:
            tables |= _huffman_tables(segment.data)
        elif segment.kind == RESTART_INTERVAL:
            interval = int.from_bytes(segment.data, "big")
        elif segment.kind == START_OF_SCAN:
            size += segment.coded_end - segment.end
            if size > MAX_CODED_BYTES:
                raise TruncatedError(_NO_END)
            scan = _Scan(segment.data, components, tables, is_progressive=is_progressive)
            scan.follow(file.read(segment.end, segment.coded_end - segment.end), interval)
        elif segment.kind in _HUFFMAN_FRAMES:
            is_progressive = segment.kind == _PROGRESSIVE
            components = _components(segment.data, is_progressive=is_progressive)
        elif segment.kind in _ARITHMETIC:
            raise TruncatedError(_NO_END)
    if any(any(component.bits_left) for component in components.values()):
        raise TruncatedError(_NO_END)


def _components(frame: bytes, *, is_progressive: bool) -> dict[int, _Component]:
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    described = [frame[at : at + 2] for at in range(6, len(frame), 3)]
    factors = {number: (sampling >> 4, sampling & 15) for number, sampling in described}
    most_across, most_down = (max(sides) for sides in zip(*factors.values(), strict=True))
    if not all(across and down for across, down in factors.values()):
        raise DamagedError("its frame header is invalid")
    mcus_across, mcus_down = -(-width // (8 * most_across)), -(-height // (8 * most_down))
    if mcus_across * mcus_down * sum(across * down for across, down in factors.values()) > MAX_BLOCKS:
        raise TruncatedError(_NO_END)
    return {
        number: _Component(
            across=-(-width * across // (8 * most_across)),
            down=-(-height * down // (8 * most_down)),
            mcu_across=across,
            mcu_down=down,
            stride=mcus_across * across,
            nonzero=[0] * (mcus_across * across * mcus_down * down) if is_progressive else [],
        )
        for number, (across, down) in factors.items()
    }


def _huffman_tables(data: bytes) -> dict[int, _Table]:
    """Returns the tables by their number, plus 16 if their class is AC instead of DC (B.2.4.2)."""
    tables = {}
    while data:
        number, counts = data[0], data[1:17]
        symbols, data = data[17 : 17 + sum(counts)], data[17 + sum(counts) :]
        lengths = (length for length, count in enumerate(counts, 1) for _ in range(count))
        table: _Table = []
        for length, symbol in zip(lengths, symbols, strict=False):
            table += [length << 8 | symbol] * (1 << (16 - length))
            if len(table) > 1 << 16:
                raise DamagedError("its tables are invalid")
        tables[number] = table + [0] * ((1 << 16) - len(table))
    return tables


class _Scan:
    """A scan, and its state while its blocks are followed."""

    def __init__(
        self, header: bytes, components: dict[int, _Component], tables: dict[int, _Table], *, is_progressive: bool
    ) -> None:
        self._first, self._last, approximation = header[-3:]
        self._is_refinement, bits_left = approximation >> 4 > 0, approximation & 15
        if not is_progressive:
            self._first, self._last, bits_left = 0, _COEFFICIENTS - 1, 0
        if not self._first <= self._last < _COEFFICIENTS:
            raise DamagedError("a scan header is invalid")
        self._end_of_bands = 0  # number of next blocks that have no more coefficients in this scan
        self._components: list[tuple[_Component, _Table, _Table]] = []
        for number, table in zip(header[1:-3:2], header[2:-3:2], strict=True):
            if number not in components:
                raise DamagedError("a scan header is invalid")
            component = components[number]
            # A scan of a progressive image may need tables of one class only, or none.
            dc, ac = tables.get(table >> 4, _NO_TABLE), tables.get(16 | table & 15, _NO_TABLE)
            self._components.append((component, dc, ac))
            component.bits_left[self._first : self._last + 1] = [bits_left] * (self._last + 1 - self._first)
        if not is_progressive:
            self._follow_block = self._sequential
        elif not self._first:
            self._follow_block = self._progressive_dc
        else:
            self._follow_block = self._refinement if self._is_refinement else self._band

    def follow(self, coded: bytes, interval: int) -> None:
        """Follows the codes of all blocks.

        Raises:
            TruncatedError: the data ends before the last block.
            DamagedError: a code is not in its table.
        """
        mcus = self._mcus()
        for part in _RESTART.split(coded):
            bits = _Bits(part)
            self._end_of_bands = 0
            for mcu in islice(mcus, interval or None):
                for component, dc, ac, block in mcu:
                    self._follow_block(bits, component, dc, ac, block)
                if bits.is_over():
                    raise TruncatedError(_NO_END)
        if next(mcus, None):
            raise TruncatedError(_NO_END)

    def _mcus(self) -> Iterator[list[tuple[_Component, _Table, _Table, int]]]:
        """Yields the blocks of each MCU: component, tables, number. In a scan of one component, an MCU is one block."""
        if len(self._components) == 1:
            ((component, dc, ac),) = self._components
            for row in range(component.down):
                for column in range(component.across):
                    yield [(component, dc, ac, row * component.stride + column)]
            return
        component = self._components[0][0]
        for row in range(-(-component.down // component.mcu_down)):
            for column in range(component.stride // component.mcu_across):
                yield [
                    (each, dc, ac, (row * each.mcu_down + y) * each.stride + column * each.mcu_across + x)
                    for each, dc, ac in self._components
                    for y in range(each.mcu_down)
                    for x in range(each.mcu_across)
                ]

    def _sequential(self, bits: _Bits, component: _Component, dc: _Table, ac: _Table, block: int) -> None:  # noqa: ARG002
        bits.skip(bits.symbol(dc) & 15)
        coefficient = 1
        while coefficient < _COEFFICIENTS:
            symbol = bits.symbol(ac)
            if symbol & 15:
                bits.skip(symbol & 15)
            elif symbol != _RUN_OF_ZEROS:
                break
            coefficient += (symbol >> 4) + 1

    def _progressive_dc(self, bits: _Bits, component: _Component, dc: _Table, ac: _Table, block: int) -> None:  # noqa: ARG002
        bits.skip(1 if self._is_refinement else bits.symbol(dc) & 15)

    def _band(self, bits: _Bits, component: _Component, dc: _Table, ac: _Table, block: int) -> None:  # noqa: ARG002
        if self._end_of_bands:
            self._end_of_bands -= 1
            return
        coefficient = self._first
        while coefficient <= self._last:
            symbol = bits.symbol(ac)
            run, size = symbol >> 4, symbol & 15
            if not size and symbol != _RUN_OF_ZEROS:
                self._end_of_bands = (1 << run) - 1 + (bits.take(run) if run else 0)
                break
            coefficient += run
            if size:
                component.nonzero[block] |= 1 << coefficient
            bits.skip(size)
            coefficient += 1

    def _refinement(self, bits: _Bits, component: _Component, dc: _Table, ac: _Table, block: int) -> None:  # noqa: ARG002
        nonzero = component.nonzero[block]
        coefficient = self._first
        while coefficient <= self._last and not self._end_of_bands:
            symbol = bits.symbol(ac)
            run, size = symbol >> 4, symbol & 15
            if not size and symbol != _RUN_OF_ZEROS:
                self._end_of_bands = (1 << run) + (bits.take(run) if run else 0)
                break
            bits.skip(size)  # the sign
            while coefficient <= self._last:
                if nonzero >> coefficient & 1:
                    bits.skip(1)  # corrects a coefficient that is not 0
                elif not run:
                    break
                else:
                    run -= 1
                coefficient += 1
            if size:
                component.nonzero[block] |= 1 << coefficient
            coefficient += 1
        if self._end_of_bands:
            self._end_of_bands -= 1
            corrected = nonzero >> coefficient & (1 << max(0, self._last + 1 - coefficient)) - 1
            bits.skip(corrected.bit_count())

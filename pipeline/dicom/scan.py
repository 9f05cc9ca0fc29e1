"""The element scanner: DICOM files as bytes (PS3.5 chapter 7, PS3.10 chapter 7), never as decoded values.

An element is a plain tuple `(tag, vr, start, value, end)`: the tag as group << 16 | element, the VR as two bytes (empty
where the transfer syntax is implicit), and offsets into the buffer: `start` of its header, `value` of its value, `end`
of its last byte + 1. Where the length is undefined, `end` lies behind the sequence delimiter. What does not parse
raises `Refusal`; nothing is guessed, and nothing recurses deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from struct import Struct, pack
from struct import error as StructError

from pipeline.model import Reason, Refusal

MAX_DEPTH = 32
CHUNK = 1 << 20                     # bytes read at a time
MAX_HEADER = 256 << 20              # bytes of everything but pixel data
MAX_INFLATED = 256 << 20
MAX_FRAGMENTS = 1 << 20

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010
PADDING = 0xFFFCFFFC

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"

SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
TEXT = frozenset(b"AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())

Element = tuple[int, bytes, int, int, int]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a data set is written: VRs stated or not, byte order."""

    explicit: bool
    big: bool = False

    @property
    def short(self) -> Struct:
        return _BIG_SHORT if self.big else _SHORT

    @property
    def long(self) -> Struct:
        return _BIG_LONG if self.big else _LONG

    @property
    def implicit(self) -> Struct:
        return _BIG_IMPLICIT if self.big else _IMPLICIT


_SHORT, _BIG_SHORT = Struct("<HH2sH"), Struct(">HH2sH")
_LONG, _BIG_LONG = Struct("<I"), Struct(">I")
_IMPLICIT, _BIG_IMPLICIT = Struct("<HHI"), Struct(">HHI")
LITTLE = Encoding(explicit=True)
LITTLE_IMPLICIT = Encoding(explicit=False)


class _NeedMore(Exception):
    """The element goes on behind the bytes read so far."""


@cache
def sequence_tags() -> frozenset[int]:
    """Tags that PS3.6 gives the VR SQ: how a sequence of defined length shows in implicit VR."""
    from pydicom.datadict import DicomDictionary

    return frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")


def read_level(
    buf: bytes, pos: int, end: int, encoding: Encoding, depth: int = 0, *, top: bool = False
) -> list[Element]:
    """Return the elements of one data set or item that fills `buf[pos:end]`, in the order they stand.

    Sequences of undefined length are walked to find their end; others are not entered. With `top`, the list ends with
    pixel data, whose value need not be in the buffer. Raises Refusal.
    """
    found: list[Element] = []
    append = found.append
    explicit = encoding.explicit
    header = encoding.short.unpack_from if explicit else encoding.implicit.unpack_from
    long = encoding.long.unpack_from
    beyond = _NeedMore() if top else Refusal(Reason.LENGTH_BEYOND_END)
    last = 0x0003FFFF       # groups below 4 do not stand in a data set
    limit = end - 8
    vr = b""
    while pos <= limit:     # the engine's inner loop: what can be checked once, below, is not checked here
        if explicit:
            group, number, vr, length = header(buf, pos)
            tag = group << 16 | number
            if vr in SHORT:
                if tag <= last:
                    raise Refusal(Reason.ELEMENT_REPEATED if tag == last else Reason.MALFORMED, tag)
                last = tag
                value = pos + 8
                append((tag, vr, pos, value, value + length))
                pos = value + length
                continue
            if vr not in LONG:
                raise Refusal(Reason.MALFORMED, tag)
            if pos > limit - 4:
                raise beyond
            (length,) = long(buf, pos + 8)
            value = pos + 12
        else:
            group, number, length = header(buf, pos)
            tag, value = group << 16 | number, pos + 8
        if tag <= last or group == 0xFFFE:
            raise Refusal(Reason.ELEMENT_REPEATED if tag == last else Reason.MALFORMED, tag)
        last = tag
        if top and tag == PIXEL_DATA:
            append((tag, vr, pos, value, -1 if length == UNDEFINED else value + length))
            return found
        if length == UNDEFINED:
            if explicit and vr != b"SQ" and vr != b"UN":
                raise Refusal(Reason.MALFORMED, tag)
            inner = LITTLE_IMPLICIT if vr == b"UN" and not encoding.big else encoding
            stop = _end_of_sequence(buf, value, end, inner, depth + 1, tag, top)
        else:
            stop = value + length
        append((tag, vr, pos, value, stop))
        pos = stop
    if pos != end:
        raise _NeedMore if top else Refusal(Reason.LENGTH_BEYOND_END, found[-1][0] if found else None)
    return found


def _end_of_sequence(buf: bytes, pos: int, end: int, encoding: Encoding, depth: int, tag: int, top: bool) -> int:
    for _, _, stop in _items(buf, pos, end, encoding, depth, tag, undefined=True, top=top):
        pos = stop
    return pos + 8


def _items(
    buf: bytes, pos: int, end: int, encoding: Encoding, depth: int, tag: int, *, undefined: bool, top: bool = False
) -> list[tuple[int, int, int]]:
    """Return `(value, value_end, next)` of each item of a sequence whose first item header stands at `pos`."""
    if depth > MAX_DEPTH:
        raise Refusal(Reason.NESTING_TOO_DEEP, tag)
    header = encoding.implicit.unpack_from      # items have no VR in any transfer syntax
    beyond = _NeedMore() if top else Refusal(Reason.LENGTH_BEYOND_END, tag)
    found: list[tuple[int, int, int]] = []
    while pos < end or undefined:
        if end - pos < 8:
            raise beyond
        group, number, length = header(buf, pos)
        item = group << 16 | number
        value = pos + 8
        if item == SEQUENCE_END and undefined:
            if length:
                raise Refusal(Reason.MALFORMED, tag)
            return found
        if item != ITEM:
            raise Refusal(Reason.MALFORMED, tag)
        if length == UNDEFINED:
            stop = _end_of_item(buf, value, end, encoding, depth, tag, top)
            found.append((value, stop - 8, stop))
        else:
            stop = value + length
            if stop > end:
                raise beyond
            found.append((value, stop, stop))
        pos = stop
    return found


def _end_of_item(buf: bytes, pos: int, end: int, encoding: Encoding, depth: int, tag: int, top: bool) -> int:
    """Return where an item of undefined length ends, behind its delimiter: its elements are walked."""
    beyond = _NeedMore() if top else Refusal(Reason.LENGTH_BEYOND_END, tag)
    explicit = encoding.explicit
    header, plain, long = encoding.short.unpack_from, encoding.implicit.unpack_from, encoding.long.unpack_from
    while True:
        if end - pos < 8:
            raise beyond
        group, number, length = plain(buf, pos)
        if group == 0xFFFE:
            if number != 0xE00D or length:
                raise Refusal(Reason.MALFORMED, tag)
            return pos + 8
        inner_tag, value, vr = group << 16 | number, pos + 8, b""
        if explicit:
            _, _, vr, length = header(buf, pos)
            if vr in LONG:
                if end - pos < 12:
                    raise beyond
                (length,) = long(buf, pos + 8)
                value = pos + 12
            elif vr not in SHORT:
                raise Refusal(Reason.MALFORMED, inner_tag)
        if length == UNDEFINED:
            if explicit and vr not in (b"SQ", b"UN"):
                raise Refusal(Reason.MALFORMED, inner_tag)
            inner = LITTLE_IMPLICIT if vr == b"UN" and not encoding.big else encoding
            pos = _end_of_sequence(buf, value, end, inner, depth + 1, inner_tag, top)
        else:
            pos = value + length
            if pos > end:
                raise beyond


def read_items(buf: bytes, element: Element, encoding: Encoding, depth: int) -> list[tuple[int, int]]:
    """Return `(start, end)` of each item's data set in a sequence; `depth` is that of the items (1 at the top)."""
    tag, vr, start, value, end = element
    length_at = start + (8 if encoding.explicit else 4)
    undefined = encoding.long.unpack_from(buf, length_at)[0] == UNDEFINED
    inner = LITTLE_IMPLICIT if vr == b"UN" and not encoding.big else encoding
    return [(a, b) for a, b, _ in _items(buf, value, end, inner, depth, tag, undefined=undefined)]


def check_depths(buf: bytes, elements: list[Element], encoding: Encoding, depth: int = 0) -> int:
    """Walk every sequence at every depth; return the number of elements. Raises Refusal where one does not parse."""
    count = len(elements)
    sequences = sequence_tags() if not encoding.explicit else frozenset()
    for element in elements:
        tag, vr, start, value, end = element
        if end == value or end < 0:
            continue
        if vr == b"SQ" or (not vr and (tag in sequences or _is_undefined(buf, start, encoding))):
            inner = encoding
        elif vr == b"UN" and _is_undefined(buf, start, encoding):
            inner = LITTLE_IMPLICIT if not encoding.big else encoding
        else:
            continue
        for a, b in read_items(buf, element, encoding, depth + 1):
            count += check_depths(buf, read_level(buf, a, b, inner, depth + 1), inner, depth + 1)
    return count


def _is_undefined(buf: bytes, start: int, encoding: Encoding) -> bool:
    at = start + (8 if encoding.explicit else 4)
    return bool(encoding.long.unpack_from(buf, at)[0] == UNDEFINED)


@dataclass(slots=True)
class Scan:
    """One file, scanned at its top level.

    `head` holds the file from byte 0 to at least the start of the pixel data's value (inflated where deflated).
    `elements` are those before pixel data; `pixel` is pixel data, its end -1 where it is encapsulated; `fragments` are
    the absolute `(offset, length)` of its items, the offset table first; `tail` is what stands behind the pixel data.
    """

    size: int
    head: bytes
    transfer_syntax: str
    encoding: Encoding
    meta: dict[int, bytes]
    elements: list[Element]
    pixel: Element | None = None
    fragments: list[tuple[int, int]] = field(default_factory=list)
    pixel_end: int = 0
    tail: bytes = b""
    tail_elements: list[Element] = field(default_factory=list)
    inflated: bool = False      # offsets are into `head`, not into the file
    _index: dict[int, Element] = field(default_factory=dict)

    def value(self, tag: int) -> bytes | None:
        """Return the raw value of a top-level element before pixel data, or None."""
        if not self._index:
            self._index = {element[0]: element for element in self.elements}
        found = self._index.get(tag)
        return self.head[found[3]:found[4]] if found else None


def scan(fd: int, size: int, head: bytes) -> Scan:
    """Scan the file behind `fd`, whose first bytes (`CHUNK`, or all of it) are `head`. Raises Refusal."""
    if not size:
        raise Refusal(Reason.EMPTY)
    if len(head) < 132 or head[128:132] != b"DICM":
        return _scan_bare(fd, size, head)
    meta, start, head = _read_meta(fd, size, head, 132)
    syntax = meta.get(0x00020010, b"").rstrip(b"\0 ").decode("ascii", "replace")
    if not syntax:
        raise Refusal(Reason.MISSING_UID, 0x00020010)
    encoding = Encoding(explicit=syntax != IMPLICIT_LE, big=syntax == EXPLICIT_BE)
    if syntax == DEFLATED_LE:
        head = head[:start] + _inflate(fd, start)
        inflated = Scan(len(head), head, syntax, encoding, meta, [], inflated=True)
        return _scan_body(-1, inflated, start)
    return _scan_body(fd, Scan(size, head, syntax, encoding, meta, []), start)


def _scan_bare(fd: int, size: int, head: bytes) -> Scan:
    """Scan a file without preamble, or without any meta information, as old archives write them.

    The encoding is not guessed but found: the one in which the whole file parses to its last byte. Native pixels only:
    nothing says how others are compressed.
    """
    if head[:4] == b"\2\0\0\0":
        meta, start, head = _read_meta(fd, size, head, 0)
        syntax = meta.get(0x00020010, b"").rstrip(b"\0 ").decode("ascii", "replace")
        if syntax in (IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE):
            encoding = Encoding(explicit=syntax != IMPLICIT_LE, big=syntax == EXPLICIT_BE)
            return _scan_body(fd, Scan(size, head, syntax, encoding, meta, []), start)
        raise Refusal(Reason.NOT_DICOM)
    if len(head) < 8 or head[:2] not in (b"\x08\0", b"\0\x08"):
        raise Refusal(Reason.NOT_DICOM)
    for syntax in (EXPLICIT_LE, IMPLICIT_LE, EXPLICIT_BE):
        if (head[0] == 0) != (syntax == EXPLICIT_BE):
            continue
        encoding = Encoding(explicit=syntax != IMPLICIT_LE, big=syntax == EXPLICIT_BE)
        try:
            found = _scan_body(fd, Scan(size, head, syntax, encoding, {}, []), 0)
        except Refusal:
            continue
        if found.value(0x00080016) and not found.fragments:
            return found
    raise Refusal(Reason.NOT_DICOM)


def _scan_body(fd: int, result: Scan, start: int) -> Scan:
    size, encoding = result.size, result.encoding
    if start == size:
        raise Refusal(Reason.EMPTY)
    while True:
        try:
            elements = read_level(result.head, start, len(result.head), encoding, top=True)
            if (elements and elements[-1][0] == PIXEL_DATA) or len(result.head) == size:
                break
        except (_NeedMore, StructError):
            if len(result.head) == size:
                raise _at_end(result.head, start, size, encoding) from None
        result.head = _more(fd, result.head, size)
    if elements and elements[-1][0] == PIXEL_DATA:
        result.pixel = elements.pop()
        _scan_pixels(fd, result)
    result.elements = elements
    if not elements:
        raise Refusal(Reason.EMPTY)
    return result


def _more(fd: int, head: bytes, size: int) -> bytes:
    want = min(size, max(4 * len(head), 4 * CHUNK))
    if want > MAX_HEADER and len(head) >= MAX_HEADER:
        raise Refusal(Reason.TOO_LARGE)
    want = min(want, MAX_HEADER)
    more = pread(fd, len(head), want - len(head))
    return head + more


def pread(fd: int, offset: int, length: int) -> bytes:
    """Return exactly these bytes of the file. Raises Refusal where it has become shorter."""
    parts = []
    while length:
        part = os.pread(fd, min(length, 64 * CHUNK), offset)
        if not part:
            raise Refusal(Reason.SOURCE_CHANGED)
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def chunks(fd: int, offset: int) -> Iterator[memoryview]:
    """Yield the file from `offset` to its end, in one buffer that is filled again and may be written to."""
    if not os.pread(fd, 1, offset):
        return      # most objects were read whole by now: no buffer is made for them
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    os.lseek(fd, offset, os.SEEK_SET)
    while n := os.readv(fd, [buffer]):
        yield view[:n]


def _at_end(head: bytes, start: int, size: int, encoding: Encoding) -> Refusal:
    """Say why the last element at the top does not fit: what it claims against what a file can hold."""
    pos = start
    tag = 0
    while size - pos >= 8:
        if encoding.explicit:
            group, number, vr, length = encoding.short.unpack_from(head, pos)
            tag = group << 16 | number
            value = pos + 8
            if vr in LONG:
                if size - pos < 12:
                    break
                (length,), value = encoding.long.unpack_from(head, pos + 8), pos + 12
        else:
            group, number, length = encoding.implicit.unpack_from(head, pos)
            tag, value = group << 16 | number, pos + 8
        if length == UNDEFINED:
            try:
                inner = LITTLE_IMPLICIT if encoding.explicit and vr == b"UN" and not encoding.big else encoding
                pos = _end_of_sequence(head, value, size, inner, 1, tag, False)
            except Refusal as refusal:
                if refusal.reason is not Reason.LENGTH_BEYOND_END:
                    return refusal
                return Refusal(Reason.TRUNCATED, tag)
            continue
        if length > size:
            return Refusal(Reason.LENGTH_BEYOND_END, tag)
        if value + length > size:
            return Refusal(Reason.TRUNCATED, tag)
        pos = value + length
    return Refusal(Reason.TRUNCATED, tag)


def _read_meta(fd: int, size: int, head: bytes, pos: int) -> tuple[dict[int, bytes], int, bytes]:
    """Return the file meta information (PS3.10 7.1), where the data set starts, and the head (grown where needed)."""
    meta: dict[int, bytes] = {}
    while True:
        if size - pos < 8:
            break
        while len(head) < size and pos + 12 > len(head):
            head = _more(fd, head, size)
        group, number, vr, length = _SHORT.unpack_from(head, pos)
        if group != 2:
            break
        value = pos + 8
        if vr in LONG:
            if size - pos < 12:
                raise Refusal(Reason.TRUNCATED, 0x00020000 | number)
            (length,), value = _LONG.unpack_from(head, pos + 8), pos + 12
        elif vr not in SHORT:
            raise Refusal(Reason.MALFORMED, 0x00020000 | number)
        if length > size:
            raise Refusal(Reason.LENGTH_BEYOND_END, 0x00020000 | number)
        if value + length > size:
            raise Refusal(Reason.TRUNCATED, 0x00020000 | number)
        while value + length > len(head):
            head = _more(fd, head, size)
        meta[0x00020000 | number] = head[value:value + length]
        pos = value + length
    return meta, pos, head


def _inflate(fd: int, start: int) -> bytes:
    """Return the inflated data set (PS3.5 A.5), at most MAX_INFLATED bytes of it."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    out, have, pos, crc = [], 0, start, 0
    try:
        while not inflater.eof:
            data = inflater.unconsumed_tail or os.pread(fd, CHUNK, pos)
            if not data:
                raise Refusal(Reason.TRUNCATED)
            if not inflater.unconsumed_tail:
                pos += len(data)
            out.append(inflater.decompress(data, 4 * CHUNK))
            have += len(out[-1])
            crc = zlib.crc32(out[-1], crc)
            if have > MAX_INFLATED:
                raise Refusal(Reason.TOO_LARGE)
    except zlib.error:
        raise Refusal(Reason.MALFORMED) from None
    rest = inflater.unused_data + os.pread(fd, 10, pos)
    if len(rest) >= 8 and rest[:8] == pack("<II", crc, have):       # some writers end the stream as gzip does
        rest = rest[8:]
    if rest not in (b"", b"\0"):
        raise Refusal(Reason.LEFT_OVER_BYTES)
    return b"".join(out)


def _scan_pixels(fd: int, result: Scan) -> None:
    """Find the end of the pixel data, its fragments, and what stands behind it."""
    pixel = result.pixel
    assert pixel is not None
    tag, _, _, value, end = pixel
    size = result.size
    if end >= 0:
        if end > size:
            raise Refusal(Reason.LENGTH_BEYOND_END if end - value > size else Reason.TRUNCATED, tag)
    else:
        pos = value
        unpack = result.encoding.implicit.unpack_from
        while True:
            if size - pos < 8:
                raise Refusal(Reason.TRUNCATED, tag)
            header = result.head[pos:pos + 8] if pos + 8 <= len(result.head) else pread(fd, pos, 8)
            group, number, length = unpack(header, 0)
            item = group << 16 | number
            if item == SEQUENCE_END and not length:
                end = pos + 8
                break
            if item != ITEM or length == UNDEFINED:
                raise Refusal(Reason.MALFORMED, tag)
            if length > size:
                raise Refusal(Reason.LENGTH_BEYOND_END, tag)
            if pos + 8 + length > size:
                raise Refusal(Reason.TRUNCATED, tag)
            result.fragments.append((pos + 8, length))
            if len(result.fragments) > MAX_FRAGMENTS:
                raise Refusal(Reason.TOO_LARGE, tag)
            pos += 8 + length
    result.pixel_end = end
    if end < size:
        if size - end > MAX_HEADER:
            raise Refusal(Reason.LEFT_OVER_BYTES)
        result.tail = result.head[end:] if len(result.head) == size else pread(fd, end, size - end)
        try:
            result.tail_elements = read_level(result.tail, 0, len(result.tail), result.encoding)
        except (Refusal, StructError):
            raise Refusal(Reason.LEFT_OVER_BYTES) from None
        if result.tail_elements[0][0] <= PIXEL_DATA:
            raise Refusal(Reason.LEFT_OVER_BYTES)

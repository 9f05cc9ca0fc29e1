"""One DICOM file, scanned at its top level (PS3.10 chapter 7): meta information, elements, where the pixel data lies.

Read are the file's first bytes and whatever of it is needed beyond them; pixel data is not loaded. What does not parse
raises `Refusal`.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from struct import error as StructError
from struct import pack

from pipeline.dicom.scan import (
    ITEM,
    LITTLE,
    LITTLE_IMPLICIT,
    LONG,
    PIXEL_DATA,
    SEQUENCE_END,
    SHORT,
    UNDEFINED,
    Element,
    Encoding,
    NeedMore,
    end_of_sequence,
    read_level,
)
from pipeline.model import Reason, Refusal

CHUNK = 1 << 20                     # bytes read at a time
MAX_HEADER = 256 << 20              # bytes of everything but pixel data
MAX_INFLATED = 256 << 20
MAX_FRAGMENTS = 1 << 20

IMPLICIT_LE = "1.2.840.10008.1.2"
EXPLICIT_LE = "1.2.840.10008.1.2.1"
DEFLATED_LE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BE = "1.2.840.10008.1.2.2"
REPORTS = "1.2.840.10008.5.1.4.1.1.88."     # what SOP Class UIDs of structured reports begin with


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


def scan(fd: int, size: int, head: bytes, *, pixels: bool = True) -> Scan:
    """Scan the file behind `fd`, whose first bytes (`CHUNK`, or all of it) are `head`. Raises Refusal.

    Without `pixels` nothing from the pixel data's value on is looked at; `fd` is read only where `head` is too short.
    """
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
    return _scan_body(fd, Scan(size, head, syntax, encoding, meta, []), start, pixels)


def scan_of(path: Path) -> Scan:
    """Scan a local file as far as its pixel data. Raises Refusal."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return scan(fd, os.fstat(fd).st_size, os.pread(fd, CHUNK, 0), pixels=False)
    finally:
        os.close(fd)


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


def _scan_body(fd: int, result: Scan, start: int, pixels: bool = True) -> Scan:
    size, encoding = result.size, result.encoding
    if start == size:
        raise Refusal(Reason.EMPTY)
    while True:
        try:
            elements = read_level(result.head, start, len(result.head), encoding, top=True)
            if (elements and elements[-1][0] == PIXEL_DATA) or len(result.head) == size:
                break
        except (NeedMore, StructError):
            if len(result.head) == size:
                raise _at_end(result.head, start, size, encoding) from None
        result.head = _more(fd, result.head, size)
    if elements and elements[-1][0] == PIXEL_DATA:
        result.pixel = elements.pop()
        if pixels:
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
                pos = end_of_sequence(head, value, size, inner, 1, tag, False)
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
        group, number, vr, length = LITTLE.short.unpack_from(head, pos)
        if group != 2:
            break
        value = pos + 8
        if vr in LONG:
            if size - pos < 12:
                raise Refusal(Reason.TRUNCATED, 0x00020000 | number)
            (length,), value = LITTLE.long.unpack_from(head, pos + 8), pos + 12
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

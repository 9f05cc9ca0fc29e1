"""Pixel data that may pass unloaded, and pixel data that may not.

Looked at: what the header says of burned-in text, geometry against length (PS3.3 C.7.6.3), overlays in the high bits,
and the streams inside encapsulated frames. Comments and application segments of JPEG, JPEG-LS and JPEG 2000 are blanked
where they stand (same length, so that every offset holds and no sample changes). BurnedInAnnotation NO is no proof.
"""

from __future__ import annotations

import re
from itertools import pairwise
from struct import unpack, unpack_from

from pipeline.dicom.scan import Scan, _pread
from pipeline.model import Reason, Refusal

# SOP classes whose pixels come straight from a detector or a reconstruction. All others need a cleaning rule first.
ACQUIRED = frozenset({
    "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1",     # Digital Mammography, presentation, processing
    "1.2.840.10008.5.1.4.1.1.13.1.3",                                   # Breast Tomosynthesis
    "1.2.840.10008.5.1.4.1.1.2",                                        # CT
    "1.2.840.10008.5.1.4.1.1.4",                                        # MR
})
REPORTS = "1.2.840.10008.5.1.4.1.1.88."
MAX_FRAGMENT = 64 << 20
PIXEL_DATA = 0x7FE00010
JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))
JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
RLE = "1.2.840.10008.1.2.5"

Patches = list[tuple[int, int]]


def refuse_by_header(source: Scan) -> None:
    """Refuse what the header already rules out. Raises Refusal."""
    sop_class = _text(source, 0x00080016)
    if sop_class.startswith(REPORTS):
        raise Refusal(Reason.STRUCTURED_REPORT)
    if sop_class not in ACQUIRED:
        raise Refusal(Reason.PIXELS_NEED_CLEANING)
    if _text(source, 0x00280301).upper() not in ("", "NO"):
        raise Refusal(Reason.PIXELS_NEED_CLEANING, 0x00280301)
    if _text(source, 0x00280302).upper() not in ("", "NO"):
        raise Refusal(Reason.PIXELS_NEED_CLEANING, 0x00280302)
    image_type = _text(source, 0x00080008).upper().split("\\")
    if "SECONDARY" in image_type[1:2] or "SCREEN SAVE" in image_type:
        raise Refusal(Reason.PIXELS_NEED_CLEANING, 0x00080008)
    for tag, _, _, value, end in source.elements:
        if tag >> 16 in _OVERLAYS and tag & 0xFFFF == 0x0102 and source.head[value:end].strip(b"\0"):
            raise Refusal(Reason.OVERLAY_IN_PIXELS, tag)


def check_pixels(fd: int, source: Scan) -> Patches:
    """Return the absolute `(offset, length)` ranges to blank while copying. Raises Refusal."""
    refuse_by_header(source)
    if source.pixel is None:
        if any(tag in (0x7FE00008, 0x7FE00009) for tag, *_ in source.elements):
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, 0x7FE00008)
        return []
    tags = (0x00280002, 0x00280010, 0x00280011, 0x00280100)
    samples, rows, columns, allocated = (_number(source, tag) for tag in tags)
    frames = _frames(source)
    if not (samples in (1, 3) and rows and columns and frames and allocated in (8, 16, 32)):
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    stored, high = _number(source, 0x00280101), _number(source, 0x00280102)
    if not 0 < stored <= allocated or high != stored - 1:
        raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280101)
    shape = rows, columns
    if source.pixel[4] >= 0:
        if source.transfer_syntax in JPEG | JPEG_2000 | {RLE}:
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        length = source.pixel[4] - source.pixel[3]
        expected = samples * rows * columns * frames * (allocated // 8)
        if _text(source, 0x00280004) == "YBR_FULL_422":
            expected = expected * 2 // 3
        if length != expected + (expected & 1):
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        return []
    return _check_fragments(fd, source, frames, shape, samples * (allocated // 8))


def _check_fragments(fd: int, source: Scan, frames: int, shape: tuple[int, int], pixel_bytes: int) -> Patches:
    syntax = source.transfer_syntax
    if not source.fragments or syntax not in JPEG | JPEG_2000 | {RLE}:
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    (table, table_length), *fragments = source.fragments
    if len(fragments) != frames and frames != 1:
        raise Refusal(Reason.UNSUPPORTED_STRUCTURE, PIXEL_DATA)     # frames over several fragments
    _check_offset_table(_pread(fd, table, table_length), fragments, frames)
    if frames == 1 and len(fragments) > 1:
        return _check_frame(fd, syntax, fragments, shape, pixel_bytes)
    patches: Patches = []
    for fragment in fragments:
        patches += _check_frame(fd, syntax, [fragment], shape, pixel_bytes)
    return patches


def _check_offset_table(table: bytes, fragments: list[tuple[int, int]], frames: int) -> None:
    """A basic offset table says where frames start and nothing else (PS3.5 A.4)."""
    if not table:
        return
    if len(table) != 4 * frames:
        raise Refusal(Reason.PIXEL_STREAM_UNSAFE, PIXEL_DATA)
    first = fragments[0][0]
    expected = [offset - first for offset, _ in fragments[:frames]]
    if list(unpack(f"<{frames}I", table)) != [value & 0xFFFFFFFF for value in expected]:
        raise Refusal(Reason.PIXEL_STREAM_UNSAFE, PIXEL_DATA)


def _check_frame(fd: int, syntax: str, fragments: Patches, shape: tuple[int, int], pixel_bytes: int) -> Patches:
    if sum(length for _, length in fragments) > MAX_FRAGMENT:
        raise Refusal(Reason.TOO_LARGE, PIXEL_DATA)
    stream = b"".join(_pread(fd, offset, length) for offset, length in fragments)
    if syntax == RLE:
        check_rle(stream)
        if shape[0] * shape[1] * pixel_bytes > 64 * len(stream):     # two bytes give at most 128 (PS3.5 G.3.1)
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        return []
    found, coded = jpeg_segments(stream) if syntax in JPEG else jpeg_2000_segments(stream)
    if coded != shape:
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    return _absolute(found, fragments)


def _absolute(found: Patches, fragments: list[tuple[int, int]]) -> Patches:
    """Turn ranges of the joined stream into ranges of the file."""
    patches, base = [], 0
    for offset, length in fragments:
        for at, n in found:
            a, b = max(at, base), min(at + n, base + length)
            if a < b:
                patches.append((offset + a - base, b - a))
        base += length
    return patches


_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})      # SOF0 to SOF15, SOF55 of JPEG-LS
_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)


def jpeg_segments(stream: bytes) -> tuple[Patches, tuple[int, int]]:
    """Return the ranges of a JPEG or JPEG-LS stream that hold comments or application data, and its (rows, columns).

    ITU-T T.81 B.1.1.3, T.87 C. JFIF's, Adobe's and HP's (mrfx, a colour transform) own segments are kept at
    their standard lengths. Raises
    Refusal for what does not parse, and for bytes behind the end of the image but padding.
    """
    if stream[:2] != b"\xff\xd8":
        raise _unsafe()
    found: Patches = []
    shape = (0, 0)
    pos = 2
    while True:
        match = _MARKER.match(stream, pos)
        if not match:
            raise _unsafe()
        marker, pos = stream[match.end() - 1], match.end()
        if marker == 0xD9:
            if stream[pos:].strip(b"\0\xff"):
                raise _unsafe()
            return found, shape
        if 0xD0 <= marker <= 0xD8 or marker == 0x01:
            raise _unsafe()
        if pos + 2 > len(stream):
            raise _unsafe()
        (length,) = unpack_from(">H", stream, pos)
        body, after = pos + 2, pos + length
        if length < 2 or after > len(stream):
            raise _unsafe()
        if marker in _FRAMES and length >= 8:
            shape = unpack_from(">HH", stream, body + 1)
        keep = (marker == 0xE0 and length == 16 and stream[body:body + 5] == b"JFIF\0") or (
            marker == 0xEE and length == 14 and stream[body:body + 5] == b"Adobe") or (
            marker == 0xE8 and length <= 8 and stream[body:body + 4] == b"mrfx")
        if (0xE0 <= marker <= 0xEF and not keep) or marker == 0xFE or 0xF0 <= marker <= 0xF6 or 0xF9 <= marker <= 0xFD:
            found.append((body, length - 2))
        pos = after
        if marker == 0xDA:
            pos = _end_of_scan(stream, pos)


def _unsafe() -> Refusal:
    return Refusal(Reason.PIXEL_STREAM_UNSAFE, PIXEL_DATA)


_SCAN_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)


def _end_of_scan(stream: bytes, pos: int) -> int:
    """Return where the next marker that is not a restart stands. In JPEG-LS a byte below 0x80 behind 0xFF is data."""
    while True:
        match = _SCAN_MARKER.search(stream, pos)
        if not match:
            raise _unsafe()
        if stream[match.end() - 1] >= 0xC0:
            return match.start()
        pos = match.end()


def jpeg_2000_segments(stream: bytes) -> tuple[Patches, tuple[int, int]]:
    """Return the comment ranges of a JPEG 2000 codestream (ITU-T T.800 A.9.2), and its (rows, columns).

    Raises Refusal for what does not parse: the boxes of JP2, bytes behind the end.
    """
    if stream[:4] != b"\xff\x4f\xff\x51":
        raise _unsafe()
    if len(stream) < 24:
        raise _unsafe()
    x, y, x0, y0 = unpack_from(">4I", stream, 8)
    found: Patches = []
    pos = 2
    tile_end = -1
    while True:
        if pos + 2 > len(stream):
            raise _unsafe()
        (marker,) = unpack_from(">H", stream, pos)
        if marker == 0xFFD9:
            if stream[pos + 2:].strip(b"\0\xff"):
                raise _unsafe()
            return found, (y - y0, x - x0)
        if marker == 0xFF93:            # start of data: the packets go on to the end of the tile part
            if tile_end <= pos:
                raise _unsafe()
            pos, tile_end = tile_end, -1
            continue
        if marker < 0xFF4F or pos + 4 > len(stream):
            raise _unsafe()
        (length,) = unpack_from(">H", stream, pos + 2)
        if length < 2 or pos + 2 + length > len(stream):
            raise _unsafe()
        if marker == 0xFF64:            # comment: its registration (2 bytes) stays, its text goes
            found.append((pos + 6, length - 4))
        elif marker == 0xFF90:          # start of tile part
            if length != 10:
                raise _unsafe()
            (size,) = unpack_from(">I", stream, pos + 6)
            tile_end = pos + size if size else _last_marker(stream)
            if tile_end > len(stream):
                raise _unsafe()
        pos += 2 + length


def _last_marker(stream: bytes) -> int:
    """A tile part of unstated length runs to the end of the codestream."""
    at = stream.rfind(b"\xff\xd9")
    if at < 0:
        raise _unsafe()
    return at


def check_rle(stream: bytes) -> None:
    """Refuse an RLE frame whose header says other than it should (PS3.5 G.5)."""
    if len(stream) < 64:
        raise _unsafe()
    count, *offsets = unpack("<16I", stream[:64])
    used, unused = offsets[:count], offsets[count:]
    ordered = all(a < b for a, b in pairwise(used))
    if not 1 <= count <= 15 or used[0] != 64 or not ordered or used[-1] >= len(stream) or any(unused):
        raise _unsafe()


_OVERLAYS = frozenset(range(0x6000, 0x6100, 2))


def _text(source: Scan, tag: int) -> str:
    return (source.value(tag) or b"").strip(b" \0").decode("ascii", "replace")


def _number(source: Scan, tag: int) -> int:
    raw = source.value(tag)
    if raw is None or len(raw) != 2:
        raise Refusal(Reason.PIXEL_GEOMETRY, tag)
    return int.from_bytes(raw, "little")


def _frames(source: Scan) -> int:
    text = _text(source, 0x00280008)
    if not text:
        return 1
    if not text.isdigit() or len(text) > 9:
        raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280008)
    return int(text)

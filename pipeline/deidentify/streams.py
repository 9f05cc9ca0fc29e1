"""Compressed frames as bytes: where comments and application data stand, and how large the image is that they code.

Pure. What does not parse raises Refusal(PIXEL_STREAM_UNSAFE), and so do bytes behind the end of a frame.
"""

from __future__ import annotations

import re
from itertools import pairwise
from struct import unpack, unpack_from

from pipeline.model import Reason, Refusal

PIXEL_DATA = 0x7FE00010
Patches = list[tuple[int, int]]     # (offset, length) of what is to be blanked


_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})      # SOF0 to SOF15, SOF55 of JPEG-LS
_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)


def jpeg_segments(stream: bytes) -> tuple[Patches, tuple[int, int]]:
    """Return the ranges of a JPEG or JPEG-LS stream that hold comments or application data, and its (rows, columns).

    ITU-T T.81 B.1.1.3, T.87 C. JFIF's, Adobe's and HP's (mrfx, a colour transform) own segments are kept at their
    standard lengths. Raises Refusal for what does not parse, and for bytes behind the end of the image but padding.
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


def check_rle(stream: bytes, segment_bytes: int, segments: int) -> None:
    """Refuse an RLE frame that is not `segments` segments of `segment_bytes` decoded bytes each (PS3.5 G.3 to G.5)."""
    if len(stream) < 64:
        raise _unsafe()
    count, *offsets = unpack("<16I", stream[:64])
    used, unused = offsets[:count], offsets[count:]
    if count != segments or not 1 <= count <= 15 or used[0] != 64 or used[-1] >= len(stream) or any(unused):
        raise _unsafe()
    if segment_bytes > 64 * len(stream):        # two bytes give at most 128
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    for start, end in pairwise([*used, len(stream)]):
        if end <= start or stream[_end_of_segment(stream, start, end, segment_bytes):end].strip(b"\0"):
            raise _unsafe()


def _end_of_segment(stream: bytes, pos: int, end: int, left: int) -> int:
    """Return where the last run of a segment ends that gives `left` bytes (PS3.5 G.3.1)."""
    while left > 0:
        if pos >= end:
            raise _unsafe()
        n = stream[pos]
        if n < 128:
            pos += n + 2
            left -= n + 1
        elif n > 128:
            pos += 2
            left -= 257 - n
        else:
            pos += 1
    if left < 0 or pos > end:
        raise _unsafe()
    return pos

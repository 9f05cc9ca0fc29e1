"""Compressed frames as bytes: where comments and application data stand, and how large the image is that they code.

Pure. What does not parse raises Refusal(PIXEL_STREAM_UNSAFE), and so do bytes behind the end of a frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from struct import unpack, unpack_from

from pipeline.model import Reason, Refusal

PIXEL_DATA = 0x7FE00010
Patches = list[tuple[int, int]]     # (offset, length) of what is to be blanked


def jpeg_segments(stream: bytes) -> tuple[Patches, tuple[int, int]]:
    """Return the ranges of a JPEG or JPEG-LS stream that hold comments or application data, and its (rows, columns).

    ITU-T T.81 B.1.1.3, T.87 C. JFIF's, Adobe's and HP's (mrfx, a colour transform) own segments are kept at their
    standard lengths. Raises Refusal for what does not parse, for segments that no part of the image needs or that hold
    more than they should, and for bytes behind the end of the image but padding.
    """
    if stream[:2] != b"\xff\xd8":
        raise _unsafe()
    found: Patches = []
    shape, frame, lossless_parameters = (0, 0), 0, False
    pos = 2
    while True:
        match = _MARKER.match(stream, pos)
        if not match:
            raise _unsafe()
        marker, pos = stream[match.end() - 1], match.end()
        if marker == 0xD9:
            if stream[pos:].strip(b"\0\xff") or (lossless_parameters and frame != 0xF7):
                raise _unsafe()
            return found, shape
        if pos + 2 > len(stream):
            raise _unsafe()
        (length,) = unpack_from(">H", stream, pos)
        body, after = pos + 2, pos + length
        if length < 2 or after > len(stream):
            raise _unsafe()
        content = stream[body:after]
        if marker in _FRAMES and length >= 8:
            if frame:           # one would say another size than the other
                raise _unsafe()
            shape, frame = unpack_from(">HH", content, 1), marker
        if marker == 0xFE or 0xE0 <= marker <= 0xEF:
            if not _own(marker, content):
                found.append((body, length - 2))
        elif marker not in _WELL_FORMED or not _WELL_FORMED[marker](content):
            raise _unsafe()
        lossless_parameters |= marker == 0xF8
        pos = after
        if marker == 0xDA:
            pos = _end_of_scan(stream, pos)


def jpeg_precision(stream: bytes) -> int:
    """Return the bits of a sample of a stream that `jpeg_segments` has read: its frame header stands before a scan."""
    pos = 2
    while (match := _MARKER.match(stream, pos)) and stream[match.end() - 1] not in (0xD9, 0xDA):
        if stream[match.end() - 1] in _FRAMES:
            return stream[match.end() + 2]
        pos = match.end() + int.from_bytes(stream[match.end():match.end() + 2], "big")
    raise _unsafe()


def _own(marker: int, content: bytes) -> bool:
    """Whether application data is part of how the image is read, and no longer than that."""
    return (marker == 0xE0 and len(content) == 14 and content[:5] == b"JFIF\0") or (
        marker == 0xEE and len(content) == 12 and content[:5] == b"Adobe") or (
        marker == 0xE8 and len(content) <= 6 and content[:4] == b"mrfx")


def _tables(content: bytes, size: Callable[[bytes], int]) -> bool:
    """Whether a segment is one table after another to its end; `size` gives that of the table at the start."""
    while content:
        n = size(content)
        if not 0 < n <= len(content):
            return False
        content = content[n:]
    return True


def _huffman_size(content: bytes) -> int:
    return 17 + sum(content[1:17]) if len(content) >= 17 else 0


_FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})      # SOF0 to SOF15, SOF55 of JPEG-LS
# marker → whether its content is all that it should be; other segments than these are no part of an image. DAC is not
# among them: of the transfer syntaxes that are read none is coded by arithmetic, and anything could stand in it.
_WELL_FORMED: dict[int, Callable[[bytes], bool]] = {
    **dict.fromkeys(_FRAMES, lambda c: len(c) >= 6 and len(c) == 6 + 3 * c[5]),
    0xC4: lambda c: _tables(c, _huffman_size),                                              # DHT
    0xDA: lambda c: len(c) >= 4 and len(c) == 4 + 2 * c[0],                                 # SOS
    0xDB: lambda c: _tables(c, lambda t: 129 if t[0] >> 4 else 65),                         # DQT
    0xDC: lambda c: len(c) == 2,                                                            # DNL
    0xDD: lambda c: len(c) in (2, 3, 4),                                                    # DRI
    0xF8: lambda c: c[:1] == b"\1" and len(c) == 11,                                        # LSE: preset parameters
}
_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)


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
    packets: int | None = None
    lengths: list[int] = []
    tiles: list[int] = []
    while True:
        if pos + 2 > len(stream):
            raise _unsafe()
        (marker,) = unpack_from(">H", stream, pos)
        if marker == 0xFFD9:
            if stream[pos + 2:].strip(b"\0\xff") or (lengths and lengths != tiles):
                raise _unsafe()
            return found, (y - y0, x - x0)
        if marker == 0xFF93:            # start of data: the packets go on to the end of the tile part
            if tile_end <= pos or (packets is not None and packets != tile_end - pos - 2):
                raise _unsafe()
            pos, tile_end, packets = tile_end, -1, None
            continue
        if marker not in _CODESTREAM or pos + 4 > len(stream):
            raise _unsafe()
        (length,) = unpack_from(">H", stream, pos + 2)
        if length < 2 or pos + 2 + length > len(stream):
            raise _unsafe()
        if marker == 0xFF63 and length != 2 + 4 * int.from_bytes(stream[40:42], "big"):     # registration of components
            raise _unsafe()
        if marker == 0xFF64:            # comment: its registration (2 bytes) stays, its text goes
            found.append((pos + 6, length - 4))
        elif marker == 0xFF55:          # lengths of tile parts
            lengths += _tile_lengths(stream[pos + 4:pos + 2 + length])
        elif marker == 0xFF58:          # lengths of a tile part's packets
            packets = (packets or 0) + _packet_lengths(stream[pos + 5:pos + 2 + length])
        elif marker == 0xFF90:          # start of tile part
            if length != 10:
                raise _unsafe()
            (size,) = unpack_from(">I", stream, pos + 6)
            tiles.append(size)
            tile_end = pos + size if size else _last_marker(stream)
            if tile_end > len(stream):
                raise _unsafe()
        pos += 2 + length


def _tile_lengths(content: bytes) -> list[int]:
    """Return the lengths in a TLM segment (ITU-T T.800 A.7.1)."""
    index, size = (content[1] >> 4 & 3, 4 if content[1] & 0x40 else 2) if len(content) > 2 else (3, 0)
    if index == 3 or (len(content) - 2) % (index + size):
        raise _unsafe()
    starts = range(2 + index, len(content), index + size)
    return [int.from_bytes(content[at:at + size], "big") for at in starts]


def _packet_lengths(content: bytes) -> int:
    """Return the sum of the lengths in a PLT segment (A.7.3): seven bits a byte, the eighth says that more follow."""
    total = one = 0
    for byte in content:
        one = one << 7 | byte & 0x7F
        if byte < 0x80:
            total, one = total + one, 0
    return total


def jpeg_2000_shape(stream: bytes) -> tuple[int, int]:
    """Return (rows, columns) of the first codestream in a JPEG 2000 stream, with the boxes of JP2 or without."""
    at = stream.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(stream) < at + 24:
        raise _unsafe()
    x, y, x0, y0 = unpack_from(">4I", stream, at + 8)
    return y - y0, x - x0


def jpeg_2000_precisions(stream: bytes) -> list[int]:
    """Return the bits of each component of a codestream that `jpeg_2000_segments` has read (ITU-T T.800 A.5.1)."""
    (count,) = unpack_from(">H", stream, 40)
    if not count or len(stream) < 42 + 3 * count:
        raise _unsafe()
    return [(stream[42 + 3 * n] & 0x7F) + 1 for n in range(count)]


# ITU-T T.800 A.2: SIZ, COD, COC, TLM, PLT, QCD, QCC, RGN, POC, CRG, COM, SOT. PLM, PPM and PPT are written by hardly
# anybody, and anything could stand in them.
_CODESTREAM = frozenset({0xFF51, 0xFF52, 0xFF53, 0xFF55, 0xFF58, 0xFF5C, 0xFF5D, 0xFF5E, 0xFF5F,
                         0xFF63, 0xFF64, 0xFF90})


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

"""Pixel data that may pass unloaded, and pixel data that may not.

Looked at: geometry against length (PS3.3 C.7.6.3), what stands in bits above the stored ones, and the streams inside
encapsulated frames; text in the pixels is `pixel_policy`'s question. Comments and application segments of JPEG,
JPEG-LS and JPEG 2000 are blanked where they stand: same length, so that every offset holds and no sample changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from struct import unpack
from typing import Any

from pipeline.deidentify.pixel_header import PIXEL_DATA, Geometry
from pipeline.deidentify.pixel_header import frames_of as _frames
from pipeline.deidentify.pixel_header import number as _number
from pipeline.deidentify.pixel_header import text as _text
from pipeline.deidentify.pixel_policy import ACQUIRED
from pipeline.deidentify.streams import (
    Patches,
    check_rle,
    jpeg_2000_precisions,
    jpeg_2000_segments,
    jpeg_2000_shape,
    jpeg_precision,
    jpeg_segments,
)
from pipeline.dicom.file import Scan, pread
from pipeline.model import Reason, Refusal

__all__ = ["ACQUIRED", "JPEG", "JPEG_2000", "RLE", "HighBits", "check_pixels", "frame_streams", "refuse_overlays"]

MAX_FRAGMENT = 64 << 20
JPEG = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81))
JPEG_2000 = frozenset({"1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"})
RLE = "1.2.840.10008.1.2.5"


def refuse_overlays(source: Scan) -> None:
    """Refuse what the header says of overlays in high bits (PS3.3-2004 C.9.2). Raises Refusal."""
    for tag, _, _, value, end in source.elements:
        if tag >> 16 in _OVERLAYS and tag & 0xFFFF == 0x0102 and source.head[value:end].strip(b"\0"):
            raise Refusal(Reason.OVERLAY_IN_PIXELS, tag)


def check_pixels(fd: int, source: Scan, *, painted: bool = False) -> tuple[Patches, HighBits | None]:
    """Return the absolute `(offset, length)` ranges to blank while copying, and what must see native samples as they
    pass. `painted`: a painter has looked at their geometry, also at that of bits. Raises Refusal."""
    if source.pixel is None:
        if any(tag in (0x7FE00008, 0x7FE00009) for tag, *_ in source.elements):
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, 0x7FE00008)
        return [], None
    tags = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102)
    samples, rows, columns, allocated, stored, high = (_number(source, tag) for tag in tags)
    frames = _frames(source)
    if painted and allocated == 1:
        return [], None
    if not (samples in (1, 3) and rows and columns and frames and allocated in (8, 16, 32)):
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    if not 0 < stored <= allocated or high != stored - 1:
        raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280101)
    if source.pixel[4] < 0:
        signed = (source.value(0x00280103) or b"").strip(b"\0") != b""
        shape = Geometry(samples, rows, columns, frames, allocated, stored, signed, False, _text(source, 0x00280004))
        return _check_fragments(fd, source, shape), None
    length = source.pixel[4] - source.pixel[3]
    expected = samples * rows * columns * frames * (allocated // 8)
    if _text(source, 0x00280004) == "YBR_FULL_422":
        expected = expected * 2 // 3
    if source.transfer_syntax in JPEG | JPEG_2000 | {RLE} or length != expected + (expected & 1):
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    if stored == allocated:
        return [], None
    signed = (source.value(0x00280103) or b"").strip(b"\0") != b""
    return [], HighBits(allocated, stored, signed, source.encoding.big)


class HighBits:
    """Sees native samples as they pass and tells whether bits above the stored ones hold anything of their own: old
    overlays stand there (PS3.3-2004 C.9.2). In signed samples those bits repeat the sign."""

    def __init__(self, allocated: int, stored: int, signed: bool, big: bool) -> None:
        import numpy as np

        kind = f"{'>' if big and allocated > 8 else '<'}{'i' if signed else 'u'}{allocated // 8}"
        self._np, self._type, self._size = np, np.dtype(kind), allocated // 8
        self._spare, self._signed, self._stored = allocated - stored, signed, stored
        self._seen: Any = self._type.type(0)
        self._rest = b""
        self.used = False

    def see(self, piece: memoryview) -> None:
        """Take the next bytes, in the order of the file."""
        data: Any = piece
        if self._rest or len(piece) % self._size:
            data = self._rest + bytes(piece)
            whole = len(data) - len(data) % self._size
            data, self._rest = data[:whole], data[whole:]
        samples = self._np.frombuffer(data, self._type)
        if self._signed:
            self.used = self.used or bool(((samples << self._spare) >> self._spare != samples).any())
        elif len(samples):
            self.used = self.used or int(self._np.bitwise_or.reduce(samples)) >> self._stored != 0


def _check_fragments(fd: int, source: Scan, shape: Geometry) -> Patches:
    syntax = source.transfer_syntax
    if not source.fragments or syntax not in JPEG | JPEG_2000 | {RLE}:
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    (table, table_length), *fragments = source.fragments
    patches: Patches = []
    for frame in _frames_of(fd, pread(fd, table, table_length), fragments, shape.frames):
        patches += _check_frame(fd, syntax, frame, shape)
    return patches


def frame_streams(fd: int, source: Scan, frames: int, shape: tuple[int, int], pixel_bytes: int) -> Iterator[bytes]:
    """Yield the stream of each encapsulated frame that is to be decoded: its own size is `shape`. What stands beside
    the image in it (comments, boxes of JP2, bytes behind it) need not be looked at: none of it comes out."""
    syntax = source.transfer_syntax
    if not source.fragments or syntax not in JPEG | JPEG_2000 | {RLE}:
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    (table, table_length), *fragments = source.fragments
    for frame in _frames_of(fd, pread(fd, table, table_length), fragments, frames):
        if sum(length for _, length in frame) > MAX_FRAGMENT:
            raise Refusal(Reason.TOO_LARGE, PIXEL_DATA)
        stream = b"".join(pread(fd, offset, length) for offset, length in frame)
        if syntax == RLE:
            if int.from_bytes(stream[:4], "little") != pixel_bytes or shape[0] * shape[1] > 64 * len(stream):
                raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        elif (jpeg_segments(stream)[1] if syntax in JPEG else jpeg_2000_shape(stream)) != shape:
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        yield stream


def _frames_of(fd: int, table: bytes, fragments: Patches, frames: int) -> list[Patches]:
    """Return the fragments of each frame. A basic offset table says where frames start and nothing else (PS3.5 A.4)."""
    starts = [offset - 8 for offset, _ in fragments]        # of their item headers
    first = starts[0] if starts else 0
    if table:
        if len(table) != 4 * frames:
            raise Refusal(Reason.PIXEL_STREAM_UNSAFE, PIXEL_DATA)
        where = {(start - first) & 0xFFFFFFFF: n for n, start in enumerate(starts)}
        found = [where.get(offset, -1) for offset in unpack(f"<{frames}I", table)]
        if len(where) != len(starts) or -1 in found or found != sorted(set(found)) or found[0] != 0:
            raise Refusal(Reason.PIXEL_STREAM_UNSAFE, PIXEL_DATA)
    elif len(fragments) == frames:
        found = list(range(frames))
    elif frames == 1 and fragments:
        found = [0]
    else:       # frames over several fragments and no table: each begins with its own start of image
        begins = (b"\xff\xd8", b"\xff\x4f")
        found = [n for n, (offset, length) in enumerate(fragments) if length > 1 and pread(fd, offset, 2) in begins]
        if len(found) != frames or found[:1] != [0]:
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, PIXEL_DATA)
    return [fragments[a:b] for a, b in zip(found, [*found[1:], len(fragments)], strict=True)]


def _check_frame(fd: int, syntax: str, fragments: Patches, shape: Geometry) -> Patches:
    if sum(length for _, length in fragments) > MAX_FRAGMENT:
        raise Refusal(Reason.TOO_LARGE, PIXEL_DATA)
    stream = b"".join(pread(fd, offset, length) for offset, length in fragments)
    found: Patches = []
    if syntax == RLE:
        check_rle(stream, shape.rows * shape.columns, shape.samples * (shape.allocated // 8))
    else:
        found, coded = jpeg_segments(stream) if syntax in JPEG else jpeg_2000_segments(stream)
        if coded != (shape.rows, shape.columns):
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    if shape.stored < shape.allocated:
        _check_spare_bits(syntax, stream, shape)
    return _absolute(found, fragments)


def _check_spare_bits(syntax: str, stream: bytes, shape: Geometry) -> None:
    """Refuse a frame in which bits above the stored ones hold anything of their own, as `HighBits` does where samples
    are native. It is decoded only where the stream codes more bits than are stored."""
    coded = shape.allocated if syntax == RLE else jpeg_precision(stream) if syntax in JPEG else max(
        jpeg_2000_precisions(stream))
    if coded <= shape.stored:
        return
    from pipeline.deidentify import decoded

    samples = decoded.decode(syntax, stream, replace(shape, stored=shape.allocated)).samples
    if shape.signed:
        samples = samples << shape.allocated - coded        # the sign as it was coded
        spare = coded - shape.stored
        used = bool((samples << spare >> spare != samples).any())
    else:
        used = int(samples.max()) >> shape.stored != 0
    if used:
        raise Refusal(Reason.OVERLAY_IN_PIXELS, PIXEL_DATA)


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


_OVERLAYS = frozenset(range(0x6000, 0x6100, 2))

"""Pixels painted over where a rule says so, a frame at a time; every other sample keeps its bits.

Native pixel data is painted as it passes. Encapsulated pixel data is decoded (see `decoded`) and leaves as native
explicit VR little endian, with the samples as the decoder gave them. The paint is black as displayed: the largest value
of MONOCHROME1, the darkest entry of a palette, no colour at all. Colours that two pixels share (YBR_FULL_422) grow the
boxes to whole pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.deidentify.pixel_header import PIXEL_DATA, Geometry
from pipeline.deidentify.pixel_rules import PixelRule
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.file import Scan
from pipeline.dicom.scan import TEXT, read_items, read_level
from pipeline.model import Reason, Refusal

REGIONS = 0x00186011
_CORNERS = (0x00186018, 0x0018601A, 0x0018601C, 0x0018601E)     # x0, y0, x1, y1 of a region, UL
LARGEST_FRAME = 1 << 30     # bytes
Mask = np.ndarray[Any, np.dtype[np.bool_]]


def applies(rule: PixelRule, source: Scan) -> bool:
    """Whether all conditions of a rule hold of an object."""
    return all(condition.holds(_value(source, condition.tag)) for condition in rule.conditions)


def cover(rules: Sequence[PixelRule], source: Scan, rows: int, columns: int) -> Mask | None:
    """Return what the rules that apply paint over, shape (rows, columns); None where none applies.

    Raises Refusal where a rule keeps the ultrasound regions of an object that names none, or names them wrongly.
    """
    found = [rule for rule in rules if applies(rule, source)]
    if not found:
        return None
    whole = np.zeros((rows, columns), dtype=bool)
    for rule in found:
        mask = np.zeros((rows, columns), dtype=bool)
        for area in rule.areas:
            boxes = regions(source) if area.regions else [area.box or (0, 0, columns, rows)]
            for x0, y0, x1, y1 in boxes:
                mask[y0:y1, x0:x1] = not area.keep
        whole |= mask
    return whole


def regions(source: Scan) -> list[tuple[int, int, int, int]]:
    """Return the ultrasound regions of an object (PS3.3 C.8.5.5) as boxes. Raises Refusal where there is none."""
    element = next((e for e in source.elements if e[0] == REGIONS), None)
    if element is None:
        raise Refusal(Reason.PIXELS_NEED_CLEANING, REGIONS)
    boxes = []
    order = "big" if source.encoding.big else "little"
    for a, b in read_items(source.head, element, source.encoding, 1) if element[4] > element[3] else ():
        item = {tag: source.head[value:end] for tag, _, _, value, end in
                read_level(source.head, a, b, source.encoding, 1)}
        corners = [item.get(tag, b"") for tag in _CORNERS]
        if any(len(corner) != 4 for corner in corners):
            raise Refusal(Reason.VALUE_MALFORMED, REGIONS)
        x0, y0, x1, y1 = (int.from_bytes(corner, order) for corner in corners)   # type: ignore[arg-type]
        boxes.append((x0, y0, x1, y1))
    if not boxes:
        raise Refusal(Reason.PIXELS_NEED_CLEANING, REGIONS)
    return boxes


def paint(source: Scan, shape: Geometry) -> list[int]:
    """Return the value of each sample that is black as displayed. Raises Refusal where nobody can say."""
    top = 1 << (shape.stored - 1 if shape.signed else shape.stored)
    lowest = -top if shape.signed else 0
    if shape.photometric == "MONOCHROME2":
        return [lowest]
    if shape.photometric == "MONOCHROME1":
        return [top - 1]
    if shape.photometric == "PALETTE COLOR":
        return [_darkest(source, shape)]
    if shape.photometric == "RGB" and not shape.signed:
        return [0, 0, 0]
    if shape.photometric in ("YBR_FULL", "YBR_FULL_422") and not shape.signed:
        return [0, 1 << (shape.stored - 1), 1 << (shape.stored - 1)]
    raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280004)


class Painter:
    """Native samples painted over as they pass. `feed` gives back as many bytes as it took, some of them later."""

    def __init__(self, shape: Geometry, mask: Mask, values: Sequence[int], *, big: bool = False,
                 words: bool = False) -> None:
        """`big`: byte order; `words`: samples of less than a word stand in words of that order (OW)."""
        if big and words and shape.allocated < 16:
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, PIXEL_DATA)     # bytes swapped by pairs, across frames
        self._shape, self._mask = shape, mask
        self._kind = np.dtype(f"{'>' if big else '<'}{'i' if shape.signed else 'u'}{max(8, shape.allocated) // 8}")
        self._values = np.array(values).astype(self._kind)
        # frames of one bit a sample follow each other without a gap: eight of them end with a byte
        together = 8 if shape.frame_bits % 8 else 1
        self._unit = shape.frame_bits * together // 8
        if self._unit > LARGEST_FRAME:
            raise Refusal(Reason.TOO_LARGE, PIXEL_DATA)
        self._left = shape.frame_bits * shape.frames
        self._buffer = bytearray()

    def feed(self, piece: memoryview) -> Iterator[bytes]:
        """Yield whole frames, painted over, as they become complete."""
        while len(piece):
            want = min(self._unit, -(-self._left // 8)) - len(self._buffer)
            if self._left <= 0:
                yield bytes(len(piece))         # padding
                return
            self._buffer += piece[:want]
            piece = piece[want:]
            if len(self._buffer) == min(self._unit, -(-self._left // 8)):
                yield self._painted()
                self._left -= 8 * self._unit
                self._buffer = bytearray()

    def _painted(self) -> bytes:
        shape, mask = self._shape, self._mask
        if shape.allocated == 1:
            bits = np.unpackbits(np.frombuffer(self._buffer, np.uint8), bitorder="little")
            pixels = shape.rows * shape.columns
            count = min(len(bits), self._left) // pixels
            bits[:count * pixels].reshape(count, shape.rows, shape.columns)[:, mask] = self._values[0] & 1
            bits[count * pixels:] = 0
            return np.packbits(bits, bitorder="little").tobytes()
        samples = np.frombuffer(self._buffer, self._kind)       # of a bytearray: it may be written to
        over(samples, shape, mask, self._values)
        return bytes(self._buffer)


def over(samples: Any, shape: Geometry, mask: Mask, values: Any) -> None:
    """Paint one frame over in place: `samples` in one dimension, as they stand in native pixel data."""
    if shape.photometric == "YBR_FULL_422":
        pairs = mask.reshape(shape.rows, shape.columns // 2, 2).any(axis=2)
        samples.reshape(shape.rows, shape.columns // 2, 4)[pairs] = values[[0, 0, 1, 2]]
    elif shape.samples == 1:
        samples.reshape(shape.rows, shape.columns)[mask] = values[0]
    elif shape.planar:
        samples.reshape(3, shape.rows, shape.columns)[:, mask] = values[:, None]
    else:
        samples.reshape(shape.rows, shape.columns, 3)[mask] = values


def native(source: Scan, shape: Geometry, mask: Mask) -> Painter:
    """Return the painter of an object's native pixel data. Raises Refusal where its length is not what it must be."""
    assert source.pixel is not None
    _, vr, _, value, end = source.pixel
    length = -(-shape.frame_bits * shape.frames // 8)
    if end - value != length + (length & 1):
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    if shape.photometric == "YBR_FULL_422" and shape.allocated != 8:
        raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280100)
    return Painter(shape, mask, paint(source, shape), big=source.encoding.big, words=vr != b"OB")


def _value(source: Scan, tag: int) -> str | None:
    """Return a top-level value as text for a condition; None where it is absent, or a number without a value."""
    element = next((e for e in source.elements if e[0] == tag), None)
    if element is None:
        return None
    raw, vr = source.head[element[3]:element[4]], element[1] or _dictionary_vr(tag)
    if vr == b"US":
        order = "big" if source.encoding.big else "little"
        numbers = [int.from_bytes(raw[n:n + 2], order) for n in range(0, len(raw), 2)]   # type: ignore[arg-type]
        return "\\".join(map(str, numbers)) if raw else None
    if vr in TEXT:
        return decode(raw, encodings(source.value(0x00080005))).strip(" \0")
    return "" if raw or vr == b"SQ" else None


def _dictionary_vr(tag: int) -> bytes:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(tag)[:2].encode()


def _darkest(source: Scan, shape: Geometry) -> int:
    """Return the palette's darkest entry that a sample can name (PS3.3 C.7.6.3.1.5, .6)."""
    order = ">" if source.encoding.big else "<"
    colours, first = [], 0
    for n in range(3):
        raw, table = source.value(0x00281101 + n) or b"", source.value(0x00281201 + n)
        if len(raw) != 6 or table is None:      # segmented tables (PS3.3 C.7.9.2) have other tags
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, 0x00281201 + n)
        entries, first, bits = (int(v) for v in np.frombuffer(raw, f"{order}u2"))
        entries = entries or 1 << 16
        kind = f"{order}u2" if bits == 16 and len(table) >= 2 * entries else "u1"
        if bits not in (8, 16) or len(table) < entries * np.dtype(kind).itemsize:
            raise Refusal(Reason.PIXEL_GEOMETRY, 0x00281201 + n)
        colours.append(np.frombuffer(table, kind, entries).astype(np.int64))
    most = (1 << shape.stored) - first
    if shape.signed or first >= 1 << shape.stored or most <= 0:
        raise Refusal(Reason.PIXEL_GEOMETRY, 0x00281101)
    return first + int(np.argmin(np.sum(colours, axis=0)[:most]))


def decoded_shape(shape: Geometry, photometric: str) -> Geometry:
    """Return the geometry of what a decoder gave: colour by pixel, in the photometric interpretation it says."""
    return replace(shape, planar=False, photometric=photometric)



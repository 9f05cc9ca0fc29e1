"""The element scanner: a data set as bytes (PS3.5 chapter 7), never as decoded values.

An element is a plain tuple `(tag, vr, start, value, end)`: the tag as group << 16 | element, the VR as two bytes (empty
where the transfer syntax is implicit), and offsets into the buffer: `start` of its header, `value` of its value, `end`
of its last byte + 1. Where the length is undefined, `end` lies behind the sequence delimiter. What does not parse
raises `Refusal`; nothing is guessed, and nothing recurses deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from struct import Struct

from pipeline.model import Reason, Refusal

MAX_DEPTH = 32

UNDEFINED = 0xFFFFFFFF
ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
PIXEL_DATA = 0x7FE00010


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


class NeedMore(Exception):
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
    beyond = NeedMore() if top else Refusal(Reason.LENGTH_BEYOND_END)
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
            stop = end_of_sequence(buf, value, end, inner, depth + 1, tag, top)
        else:
            stop = value + length
        append((tag, vr, pos, value, stop))
        pos = stop
    if pos != end:
        raise NeedMore if top else Refusal(Reason.LENGTH_BEYOND_END, found[-1][0] if found else None)
    return found


def end_of_sequence(buf: bytes, pos: int, end: int, encoding: Encoding, depth: int, tag: int, top: bool) -> int:
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
    beyond = NeedMore() if top else Refusal(Reason.LENGTH_BEYOND_END, tag)
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
    beyond = NeedMore() if top else Refusal(Reason.LENGTH_BEYOND_END, tag)
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
            pos = end_of_sequence(buf, value, end, inner, depth + 1, inner_tag, top)
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

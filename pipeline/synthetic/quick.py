"""A data set to bytes, as pydicom writes it and several times as fast: little endian, Latin text, plain values.

Tens of thousands of synthetic files are made of few different elements, so what an element looks like is remembered.
Whatever is not plain raises `NotPlain`, and pydicom writes the file.
"""

from __future__ import annotations

import functools
import struct

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr_element
from pydicom.multival import MultiValue
from pydicom.valuerep import VR

TEXT = frozenset({VR.AE, VR.AS, VR.CS, VR.DA, VR.DS, VR.DT, VR.IS, VR.LO, VR.LT, VR.PN, VR.SH, VR.ST, VR.TM, VR.UC,
                  VR.UI, VR.UR, VR.UT})
NUMBERS = {VR.US: "H", VR.SS: "h", VR.UL: "I", VR.SL: "i", VR.FL: "f", VR.FD: "d"}
BINARY = frozenset({VR.OB, VR.OW, VR.UN})
LONG = frozenset({VR.OB, VR.OW, VR.UN, VR.SQ, VR.UC, VR.UR, VR.UT})     # a length of four bytes (PS3.5 7.1.2)
ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
UNDEFINED = 0xFFFFFFFF


class NotPlain(Exception):
    """This data set is for pydicom to write."""


def data_set(ds: Dataset, implicit: bool) -> bytes:
    """Return the bytes of a data set. Raises NotPlain."""
    if ds.get("SpecificCharacterSet", "ISO_IR 100") != "ISO_IR 100":
        raise NotPlain
    return _content(ds, implicit)


def _content(ds: Dataset, implicit: bool) -> bytes:
    out = []
    for tag in sorted(ds.keys()):
        element = ds[tag]
        if " or " in element.VR:
            correct_ambiguous_vr_element(element, ds, True)     # in place
        out.append(_element(element, implicit))
    return b"".join(out)


def _element(element: DataElement, implicit: bool) -> bytes:
    tag, kind, value = int(element.tag), VR(element.VR), element.value
    if kind == VR.SQ:
        items = (_content(one, implicit) for one in value)
        body = b"".join(ITEM + struct.pack("<I", len(one)) + one for one in items)
        return _head(tag, kind, len(body), implicit) + body
    if kind in BINARY:
        if isinstance(value, bytes) and element.is_undefined_length:
            return _head(tag, kind, UNDEFINED, implicit) + value + DELIMITER
        if not isinstance(value, bytes | None):
            raise NotPlain
        body = value or b""
        body += b"\x00" * (len(body) % 2)
        return _head(tag, kind, len(body), implicit) + body
    values = value if isinstance(value, MultiValue | list | tuple) else [] if value is None else [value]
    if kind in NUMBERS:
        body = struct.pack(f"<{len(values)}{NUMBERS[kind]}", *values)
        return _head(tag, kind, len(body), implicit) + body
    if kind in TEXT:
        return _text(tag, kind, "\\".join(map(str, values)), implicit)
    raise NotPlain


@functools.lru_cache(maxsize=50_000)
def _text(tag: int, kind: VR, text: str, implicit: bool) -> bytes:
    try:
        body = text.encode("latin-1")
    except UnicodeEncodeError:
        raise NotPlain from None
    if len(body) % 2:
        body += b"\x00" if kind == VR.UI else b" "
    return _head(tag, kind, len(body), implicit) + body


def _head(tag: int, kind: VR, length: int, implicit: bool) -> bytes:
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return start + struct.pack("<I", length)
    if kind in LONG:
        return start + kind.encode() + struct.pack("<HI", 0, length)
    if length > 0xFFFF:
        raise NotPlain
    return start + kind.encode() + struct.pack("<H", length)

"""Facts: the kept elements of a de-identified file as text, read back from the bytes that were written.

A fact's path is the attribute's keyword; GGGGEEEE where PS3.6 has none; `(gggg,CREATOR,ee)` for a private element.
Nested ones are joined with `.` and items are not numbered, so that a path stands for a column:
`ViewCodeSequence.CodeValue`.
"""

from __future__ import annotations

from functools import lru_cache
from struct import error as StructError
from struct import iter_unpack
from typing import Any

import pyarrow as pa

from pipeline import schemas
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.scan import TEXT, Element, Encoding, read_items, read_level

META = 132
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
SKIPPED = frozenset({
    0x00120062, 0x00120063, 0x00120064, 0x00280303,         # the same on every object
    0x00283006, 0x00281201, 0x00281202, 0x00281203,         # tables of samples
    0x0040A730,                                             # the content of a report: content.parquet has it
})
MOST_VALUES = 64            # of one path and instance: functional groups of a tomosynthesis stack repeat a hundredfold


def extract(header: bytes, encoding: Encoding) -> dict[str, list[str]]:
    """Return path → values, in the order they stand, from an output's bytes up to its pixel data's value."""
    meta = read_meta(header)
    found: dict[str, list[str]] = {"TransferSyntaxUID": [meta[1]]}
    elements = read_level(header, meta[0], len(header), encoding, top=True)
    codecs: tuple[str, ...] = ()
    for tag, _, _, value, end in elements:
        if tag == 0x00080005:
            codecs = encodings(header[value:end])
    _level(header, elements, encoding, codecs or encodings(None), "", 0, found)
    return found


def read_meta(header: bytes) -> tuple[int, str]:
    """Return where the data set starts, and the transfer syntax, in a file of the engine's own writing."""
    length = int.from_bytes(header[META + 8:META + 12], "little")
    start = META + 12 + length
    elements = {tag: header[value:end] for tag, _, _, value, end in _meta_elements(header, META + 12, start)}
    return start, elements[0x00020010].rstrip(b"\0").decode()


def _meta_elements(header: bytes, pos: int, end: int) -> list[Element]:
    out: list[Element] = []
    while pos < end:
        number, vr = int.from_bytes(header[pos + 2:pos + 4], "little"), header[pos + 4:pos + 6]
        value = pos + (12 if vr == b"OB" else 8)
        length = int.from_bytes(header[pos + 8:pos + 12] if vr == b"OB" else header[pos + 6:pos + 8], "little")
        out.append((0x00020000 | number, vr, pos, value, value + length))
        pos = value + length
    return out


def _level(
    buf: bytes, elements: list[Element], encoding: Encoding, codecs: tuple[str, ...], prefix: str, depth: int,
    found: dict[str, list[str]],
) -> None:
    creators: dict[int, str] = {}
    for element in elements:
        tag, vr, _, value, end = element
        if tag == 0x00080005 and prefix:
            codecs = encodings(buf[value:end])      # of this item alone
        if tag in SKIPPED or tag == 0x7FE00010:
            continue
        if tag & 0x10000:
            name = _private(tag, buf[value:end], creators)
            if name is None:
                continue
            vr = vr or b"LO"
        else:
            name, dictionary_vr = named(tag)
            vr = vr or dictionary_vr
        path = prefix + name
        if vr == b"SQ":
            for a, b in read_items(buf, element, encoding, depth + 1) if end > value else ():
                _level(buf, read_level(buf, a, b, encoding, depth + 1), encoding, codecs, path + ".", depth + 1, found)
        else:
            values = found.setdefault(path, [])
            if len(values) < MOST_VALUES:
                values += _values(vr, buf[value:end], codecs, encoding.big)[:MOST_VALUES - len(values)]


def _private(tag: int, raw: bytes, creators: dict[int, str]) -> str | None:
    group, number = tag >> 16, tag & 0xFFFF
    if number <= 0xFF:
        creators[number] = raw.strip(b" \0").decode("ascii", "replace")
        return None
    return f"({group:04X},{creators.get(number >> 8, '')},{number & 0xFF:02X})"


def _values(vr: bytes, raw: bytes, codecs: tuple[str, ...], big: bool) -> list[str]:
    if vr in TEXT:
        text = decode(raw, codecs, person_name=vr == b"PN").rstrip(" \0")
        if vr in (b"LT", b"ST", b"UT", b"UR"):
            return [text] if text else []
        return [value.strip(" ") for value in text.split("\\")] if text else []
    if vr in _NUMBERS:
        try:
            return [repr(value) for (value,) in iter_unpack((">" if big else "<") + _NUMBERS[vr], raw)]
        except StructError:
            return []
    return []


@lru_cache(maxsize=8192)
def named(tag: int) -> tuple[str, bytes]:
    """Return keyword (or GGGGEEEE) and VR of a tag in PS3.6; US where US or another may stand."""
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    try:
        return keyword_for_tag(tag) or f"{tag:08X}", dictionary_VR(tag)[:2].encode()
    except KeyError:
        return f"{tag:08X}", b"UN"


def table(rows: list[dict[str, Any]], facts: list[dict[str, list[str]]]) -> pa.Table:
    """Return facts.parquet's table: `rows` by schemas.FACTS, and a `strings` column per path, in order of the path."""
    paths = sorted({path for one in facts for path in one})
    order = sorted(range(len(rows)), key=lambda i: str(rows[i]["instance"]))
    extra = tuple(schemas.Column(path, "strings", "") for path in paths)
    schema = schemas.arrow_schema(schemas.FACTS, extra)
    fixed = len(schemas.FACTS.columns)
    columns = [pa.array([rows[i][field.name] for i in order], type=field.type) for field in list(schema)[:fixed]]
    columns += [pa.array([facts[i].get(path) for i in order], type=pa.list_(pa.string())) for path in paths]
    return pa.Table.from_arrays(columns, schema=schema)



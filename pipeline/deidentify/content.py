"""Content: the content tree of a de-identified report as rows (schemas.CONTENT), read back from the bytes written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import iter_unpack
from typing import Any

import pyarrow as pa

from pipeline import schemas
from pipeline.deidentify import report_values as tags
from pipeline.deidentify.elements import CHARACTER_SET
from pipeline.deidentify.facts import read_meta
from pipeline.deidentify.report_values import Level
from pipeline.deidentify.reports import CONTENT, REFERENCE
from pipeline.deidentify.tokens import TOKEN_TAGS, Collected
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.file import Scan
from pipeline.dicom.scan import Encoding, read_level, sequence_tags
from pipeline.model import Reason, Refusal

_TEXTS = {"TEXT": tags.TEXT_VALUE, "PNAME": tags.PERSON_NAME, "UIDREF": tags.UID, "DATE": tags.DATE, "TIME": tags.TIME,
          "DATETIME": tags.DATETIME}
_SAYS = {**TOKEN_TAGS, tags.UID: "uid", tags.SOP_INSTANCE: "uid", tags.DATETIME: "date", tags.DATE: "date"}
NOBODY = frozenset({"", "unknown", "none", "nobody", "anonymous", "removed"})     # written where no name was known
LONGEST = 0xFFFE            # bytes of what may be a name, id or address: what explicit VR can write
MOST_NUMBERS = 64           # of a drawing that are written out; one with more is told by its type alone
_FIXED = ("patient", "study", "instance")
_NAMES = tuple(name for name in schemas.CONTENT.names() if name not in _FIXED)
(_NODE, _PARENT, _DEPTH, _RELATIONSHIP, _VALUE_TYPE, _TEMPLATE, _CONCEPT, _, _, _NUMBER, _UNIT, _QUALIFIER, _CODE, _, _,
 _TEXT, _REFERENCE) = range(len(_NAMES))
_NO_CODE = (None, None, None)
_CODES = frozenset({tags.CONCEPT_NAME, tags.CONCEPT_CODE, tags.MEASURED, tags.QUALIFIER})      # name nobody


class _Rows:
    """The items of one report, in document order."""

    def __init__(self) -> None:
        self.rows: list[list[Any]] = []
        self.numbers: dict[tuple[int, ...], int] = {}       # place in the tree → node, for what refers to another
        self.references: list[tuple[int, tuple[int, ...]]] = []
        self._codes: dict[bytes, tuple[str | None, str | None, str | None]] = {}

    def code(self, level: Level, tag: int) -> tuple[str | None, str | None, str | None]:
        """Return value, scheme and meaning of a code sequence: few stand in a report, and often."""
        element = level.found.get(tag)
        if element is None:
            return _NO_CODE
        raw = level.buf[element[2] + 4:element[4]]
        known = self._codes.get(raw)
        if known is None:
            known = self._codes[raw] = next(map(_code, _inside(level, tag)), _NO_CODE)
        return known

    def add(self, level: Level, parent: int, depth: int, place: tuple[int, ...], codecs: tuple[str, ...]) -> None:
        """Add an item and all below it."""
        if own := level.raw(CHARACTER_SET, b"CS"):
            codecs = encodings(own)
        node = len(self.rows) + 1
        row: list[Any] = [None] * len(_NAMES)
        row[_NODE], row[_PARENT], row[_DEPTH] = node, parent, depth
        row[_RELATIONSHIP] = level.text(tags.RELATIONSHIP) or None
        self.rows.append(row)
        if REFERENCE in level.found:
            raw = level.raw(REFERENCE, b"UL") or b""
            row[_VALUE_TYPE] = "REFERENCE"
            self.references.append((node, tuple(n for (n,) in iter_unpack(">I" if level.encoding.big else "<I", raw))))
            return
        row[_VALUE_TYPE] = value_type = level.text(tags.VALUE_TYPE)
        row[_CONCEPT:_CONCEPT + 3] = self.code(level, tags.CONCEPT_NAME)
        if value_type in _TEXTS:
            element = level.found.get(_TEXTS[value_type])
            raw = level.buf[element[3]:element[4]] if element else b""
            row[_TEXT] = decode(raw, codecs, person_name=value_type == "PNAME").rstrip(" \0") or None
        elif value_type == "NUM":
            for item in _inside(level, tags.MEASURED):
                row[_NUMBER] = item.text(tags.NUMERIC) or None
                row[_UNIT] = self.code(item, tags.UNITS)[0]
            row[_QUALIFIER] = self.code(level, tags.QUALIFIER)[0]
        elif value_type == "CODE":
            row[_CODE:_CODE + 3] = self.code(level, tags.CONCEPT_CODE)
        elif value_type == "CONTAINER":
            for item in _inside(level, tags.TEMPLATES):
                row[_TEMPLATE] = item.text(tags.TEMPLATE) or None
        elif value_type in ("SCOORD", "SCOORD3D"):
            row[_TEXT] = _drawing(level)
        for item in _inside(level, tags.REFERENCED_SOP):
            row[_REFERENCE] = item.text(tags.SOP_INSTANCE) or None
        self.numbers[place] = node
        for number, item in enumerate(_inside(level, CONTENT), 1):
            self.add(item, node, depth + 1, (*place, number), codecs)


def extract(header: bytes, encoding: Encoding) -> pa.Table:
    """Return a report's items in document order, without whose they are."""
    start, _ = read_meta(header)
    top = Level(header, read_level(header, start, len(header), encoding, top=True), encoding, 0)
    rows = _Rows()
    rows.add(top, 0, 0, (1,), encodings(top.raw(CHARACTER_SET, b"CS")))
    for node, target in rows.references:
        rows.rows[node - 1][_TEXT] = str(rows.numbers[target])
    schema = schemas.arrow_schema(schemas.CONTENT)
    columns = zip(_NAMES, zip(*rows.rows, strict=True), strict=True)
    return pa.table({name: pa.array(column, schema.field(name).type) for name, column in columns})


def _inside(level: Level, tag: int) -> Iterator[Level]:
    for where in level.items(tag):
        yield level.inside(tag, where)


def _code(item: Level) -> tuple[str | None, str | None, str | None]:
    value = item.text(tags.CODE_VALUE) or item.text(tags.LONG_CODE)
    return value or None, item.text(tags.SCHEME) or None, item.text(tags.MEANING) or None


def _drawing(level: Level) -> str:
    """Return a graphic type and its coordinates: `POINT 12.5 100`."""
    raw = level.raw(tags.GRAPHIC_DATA, b"FL") or b""
    numbers = [f"{n:g}" for (n,) in iter_unpack(">f" if level.encoding.big else "<f", raw)]
    return " ".join([level.text(tags.GRAPHIC_TYPE), *(numbers if len(numbers) <= MOST_NUMBERS else ())])


def spool(path: Path, table: pa.Table) -> None:
    """Keep a report's items in a file until the part is put together."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def join(target: Path, reports: Iterable[tuple[str, str, str, Path]]) -> None:
    """Write content.parquet from spooled reports (patient, study, instance, file), in order of the instance.

    One report at a time is held, and a hundred thousand rows before they are written.
    """
    import pyarrow.parquet as pq

    schema = schemas.arrow_schema(schemas.CONTENT)
    with pq.ParquetWriter(target, schema, compression="zstd", write_statistics=True, store_schema=True) as writer:
        held: list[pa.Table] = []
        for patient, study, instance, path in sorted(reports, key=lambda report: report[2]):
            with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
                table = reader.read_all()
            path.unlink()
            owner = dict(zip(_FIXED, (patient, study, instance), strict=True))
            columns = [pa.array([owner[field.name]] * table.num_rows, field.type) if field.name in owner
                       else table[field.name] for field in schema]
            held.append(pa.Table.from_arrays(columns, schema=schema))
            if sum(one.num_rows for one in held) >= 100_000:
                writer.write_table(pa.concat_tables(held))
                held = []
        if held:
            writer.write_table(pa.concat_tables(held))


def collect(source: Scan, collected: Collected) -> None:
    """Add what a report's input says of people below its top level: names, ids, places and UIDs in any sequence.

    A date of the content counts where it is the only one of its attribute: moved, one of several may equal another.
    """
    top = Level(source.head, source.elements, source.encoding, 0)
    dates: dict[int, set[str]] = {}
    _collect(top, encodings(top.raw(CHARACTER_SET, b"CS")), collected, dates)
    for tag, found in dates.items():
        if len(found) == 1:
            collected.add(tag, "date", found.pop())


def _collect(level: Level, codecs: tuple[str, ...], collected: Collected, dates: dict[int, set[str]]) -> None:
    if level.depth and (own := level.raw(CHARACTER_SET, b"CS")):
        codecs = encodings(own)
    for tag, vr, _, value, end in level.found.values():
        if tag in _CODES:
            continue
        if vr == b"SQ" or (vr in (b"", b"UN") and tag in sequence_tags()):
            for item in _inside(level, tag):
                _collect(item, codecs, collected, dates)
        elif level.depth and (kind := _SAYS.get(tag)):
            if end - value > LONGEST:
                raise Refusal(Reason.VALUE_MALFORMED, tag)
            text = decode(level.buf[value:end], codecs, person_name=kind == "name").strip(" \0")
            if kind == "date":
                dates.setdefault(tag, set()).add(text[:8])
            elif kind != "name" or text.strip("^= ").casefold() not in NOBODY:
                collected.add(tag, kind, text)

"""Clinical tables: CSV or Parquet in, pseudonymised Arrow tables out. Every column is declared in the project file.

A table that does not have exactly the declared columns is refused whole (see `clinical_files`). A row is held, with a
reason, where its person cannot be told or is not permitted, a value is not what its column's role says, or the row has
another number of fields; the other rows go on. An empty cell is null, and holds the row only where the column is
required. No message holds a cell or an undeclared column's name.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.deidentify import clinical_files, nhs
from pipeline.deidentify.crosswalk import Crosswalk, Person
from pipeline.deidentify.dates import moved
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import ClinicalRefused
from pipeline.model import Reason, Refusal
from pipeline.schemas import CLINICAL_OUTCOMES, CLINICAL_TYPES, Table, clinical_table
from pipeline.sections import Clinical, Column

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 20_000          # rows that wait as Python objects
LINKED, HELD = "linked", "held"
_ISO = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_BRITISH = re.compile(r"([0-9]{2})/([0-9]{2})/([0-9]{4})")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class ClinicalSnapshot:
    """`tables` by name, for the candidate zone; `outcomes`, a row per row of a file, for the work zone.

    `counts`: table → reason, or "linked" → rows; they add up to the rows of the file. `repeats`: table → rows that are
    equal to an earlier one of the release in every column (kept: the file has them). `id`: None without any table.
    """

    id: str | None
    tables: dict[str, pa.Table]
    outcomes: pa.Table
    counts: dict[str, dict[str, int]]
    repeats: dict[str, int]


class _Rows:
    """A table that grows by rows and keeps them in columns, a chunk at a time."""

    def __init__(self, schema: Table) -> None:
        self.schema, self.names = schema, schema.names()
        self.waiting: list[tuple[Any, ...]] = []
        self.chunks: list[pa.Table] = []

    def add(self, *row: Any) -> None:
        self.waiting.append(row)
        if len(self.waiting) == CHUNK:
            self._flush()

    def _flush(self) -> None:
        from pipeline.storage import tables

        rows = (dict(zip(self.names, row, strict=True)) for row in self.waiting)
        self.chunks.append(tables.from_rows(self.schema, rows))
        self.waiting = []

    def table(self) -> pa.Table:
        import pyarrow as pa

        self._flush()
        return pa.concat_tables(self.chunks).combine_chunks()


class _Held(Exception):
    def __init__(self, reason: Reason, column: str | None) -> None:
        super().__init__(reason)
        self.reason, self.column = reason, column


def pseudonymise(config: ProjectConfig, pseudonyms: Pseudonyms, crosswalk: Crosswalk, permitted: frozenset[str] | None,
                 recalled: Callable[[tuple[str, str]], bool] = lambda _: False) -> ClinicalSnapshot:
    """Return every declared clinical table under the project's pseudonyms. Raises ClinicalRefused.

    `permitted`: the ids (`Person.id`) of the permitted people; None where the project needs no list; `recalled`
    tells by `Person.key`. Same files, project file, key, crosswalk, permitted and recalled people: same bytes and id.
    """
    from pipeline.storage import tables as parquet

    tables: dict[str, pa.Table] = {}
    outcomes = _Rows(CLINICAL_OUTCOMES)
    counts: dict[str, dict[str, int]] = {}
    fields: list[bytes | str | int] = []
    for declared in config.clinical:
        if declared.table in tables:
            raise ClinicalRefused(f"Clinical table {declared.table} is declared twice.")
        data = clinical_files.read(declared.table, config.beside(declared.file))
        found, counted = _table(declared, data, config, pseudonyms, crosswalk, permitted, recalled, outcomes)
        tables[declared.table] = _sorted(found)
        counts[declared.table] = dict(sorted(counted.items()))
        fields += [declared.table, hashlib.sha256(data).digest(), parquet.to_bytes(tables[declared.table])]
    table = outcomes.table()
    return ClinicalSnapshot(
        layout.keyed("q", pseudonyms.key.secret, [*fields, parquet.to_bytes(table)]) if tables else None,
        tables, table, counts, {name: _repeats(t) for name, t in tables.items()})


def _sorted(table: pa.Table) -> pa.Table:
    """Return the rows in the order of all columns, nulls first: whatever order the file had."""
    import pyarrow.compute as pc

    keys = [(name, "ascending", "at_start") for name in table.column_names]
    return table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()


def identifiers(config: ProjectConfig, crosswalk: Crosswalk) -> dict[tuple[str, str], set[str]]:
    """Return, by person (`Person.key`), what their rows' identity and identifier columns hold: for the second look."""
    found: dict[tuple[str, str], set[str]] = {}
    for declared in config.clinical:
        data = clinical_files.read(declared.table, config.beside(declared.file))
        for _, row in clinical_files.rows(declared, data, linked=config.project.linked):
            cells = {name: cell.strip() for name, cell in (row or {}).items()
                     if declared.columns[name].role in ("identity", "identifier")}
            who = _person(cells.get(_identity(declared), ""), config, crosswalk)
            if who.key:
                found.setdefault(who.key, set()).update({*cells.values()} - {"", clinical_files.BAD})
    return found


def _identity(declared: Clinical) -> str:
    return next(name for name, column in declared.columns.items() if column.role == "identity")


def _person(cell: str, config: ProjectConfig, crosswalk: Crosswalk) -> Person:
    """Return whom an identity cell names: an NHS number that the crosswalk leads to, or a local id."""
    if not cell:
        return Person(None, Reason.PERSON_ID_MISSING)
    if not config.project.linked:
        issuer, local_id = layout.normalise(config.stage.issuer), layout.normalise(cell)
        if not issuer:
            raise ClinicalRefused("A clinical table of a project that is not linked needs [stage] issuer.")
        return Person((issuer, local_id)) if local_id else Person(None, Reason.PERSON_ID_MISSING)
    number = nhs.normalise(cell)
    number = crosswalk.current(number) if number else None
    if not number or not crosswalk.knows(number):
        return Person(None, Reason.PERSON_NOT_LINKED)
    return Person((layout.NHS_ISSUER, number))


def _table(declared: Clinical, data: bytes, config: ProjectConfig, pseudonyms: Pseudonyms, crosswalk: Crosswalk,
           permitted: frozenset[str] | None, recalled: Callable[[tuple[str, str]], bool],
           outcomes: _Rows) -> tuple[pa.Table, Counter[str]]:
    """Return the table's kept rows, and how many rows have each reason or are linked; add a row each to `outcomes`."""
    identity = _identity(declared)
    if "patient_id" in declared.columns and declared.columns["patient_id"].role in CLINICAL_TYPES:
        raise ClinicalRefused(f"Clinical table {declared.table}: a kept column may not be called patient_id.")
    kept = [(name, column, _reader(name, column, pseudonyms, crosswalk)) for name, column in declared.columns.items()
            if column.role in CLINICAL_TYPES]
    rows, counts = _Rows(clinical_table(declared.table, declared.columns)), Counter[str]()
    for number, row in clinical_files.rows(declared, data, linked=config.project.linked):
        try:
            if row is None:
                raise _Held(Reason.VALUE_MALFORMED, None)
            bad = next((name for name, cell in row.items() if cell == clinical_files.BAD), None)
            if bad is not None:
                raise _Held(Reason.CHARSET_UNSUPPORTED, bad)
            who = _person(row[identity].strip(), config, crosswalk)
            if who.key is None:
                raise _Held(who.reason or Reason.PERSON_NOT_LINKED, identity)
            if recalled(who.key):
                raise _Held(Reason.RECALLED, identity)
            if permitted is not None and who.id not in permitted:
                raise _Held(Reason.PERSON_NOT_PERMITTED, identity)
            patient = pseudonyms.person(*who.key)
            days = pseudonyms.shift_days(patient, config.deidentify.date_shift_days)
            rows.add(patient, *(_cell(row[name], name, column, read, days) for name, column, read in kept))
        except _Held as held:
            outcomes.add(declared.table, number, HELD, held.reason.value, held.column)
            counts[held.reason.value] += 1
        else:
            outcomes.add(declared.table, number, LINKED, None, None)
            counts[LINKED] += 1
    return rows.table(), counts


def _cell(text: str, name: str, column: Column, read: Callable[[str, int], Any], days: int) -> Any:
    text = text.strip()
    try:
        value = read(text, days) if text else None
    except Refusal as refusal:
        raise _Held(refusal.reason, name) from None
    if value is None and column.required:
        raise _Held(Reason.VALUE_MISSING, name)
    return value


def _reader(name: str, column: Column, pseudonyms: Pseudonyms, crosswalk: Crosswalk) -> Callable[[str, int], Any]:
    """Return what turns a cell that is not empty, and the person's days, into a released value; it raises Refusal."""
    listed = frozenset(column.values)

    def category(text: str, _: int) -> str:
        if text not in listed:
            raise Refusal(Reason.VALUE_NOT_LISTED)
        return text

    def number(text: str, _: int) -> float:
        if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
            raise Refusal(Reason.VALUE_MALFORMED)
        person = nhs.normalise(f"{value:.0f}") if value == int(value) else None
        if person and crosswalk.knows(crosswalk.current(person) or ""):      # somebody's, in a row that slipped
            raise Refusal(Reason.VALUE_MALFORMED)
        return value

    # One domain a column name, whatever the table: two tables may be joined by it.
    return {"event_date": event_date, "category": category, "number": number,
            "identifier": lambda text, _: pseudonyms.identifier(name, text)}[column.role]


def event_date(text: str, days: int) -> date | None:
    """Return an ISO (yyyy-mm-dd) or British (dd/mm/yyyy) date moved by days; None for one that is nobody's, such as
    1900-01-01 (see `dates`). Anything else raises Refusal."""
    if match := _ISO.fullmatch(text):
        year, month, day = match.groups()
    elif match := _BRITISH.fullmatch(text):
        day, month, year = match.groups()
    else:
        raise Refusal(Reason.VALUE_MALFORMED)
    try:
        return moved(date(int(year), int(month), int(day)), days)
    except (ValueError, OverflowError):
        raise Refusal(Reason.VALUE_MALFORMED) from None


def _repeats(table: pa.Table) -> int:
    groups = table.group_by(table.column_names).aggregate([])
    return int(table.num_rows - groups.num_rows)

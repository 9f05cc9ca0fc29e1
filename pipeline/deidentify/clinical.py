"""Clinical tables: CSV in, pseudonymised Arrow tables out. Every column is declared in the project file, by its role.

A table that does not have exactly the declared columns is refused whole. A row is held, with a reason, where its person
cannot be told or is not permitted, or a value is not what its column's role says; the other rows go on. An empty cell
is null, and holds the row only where the column is required. No message holds a cell or an undeclared column's name.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.config import Clinical, Column, ProjectConfig
from pipeline.deidentify import nhs
from pipeline.deidentify.crosswalk import Crosswalk, Person
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import ClinicalRefused
from pipeline.model import Reason, Refusal
from pipeline.schemas import CLINICAL_OUTCOMES, CLINICAL_TYPES, clinical_table

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 1 << 30       # bytes of a file, unpacked
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


@dataclass(slots=True)
class _Result:
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


class _Held(Exception):
    def __init__(self, reason: Reason, column: str) -> None:
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
    outcomes: list[dict[str, Any]] = []
    counts: dict[str, dict[str, int]] = {}
    fields: list[bytes | str | int] = []
    for declared in config.clinical:
        if declared.table in tables:
            raise ClinicalRefused(f"Clinical table {declared.table} is declared twice.")
        data = _bytes(declared.table, config.beside(declared.file))
        found = _table(declared, data, config, pseudonyms, crosswalk, permitted, recalled)
        schema = clinical_table(declared.table, declared.columns)
        found.rows.sort(key=lambda row: [(value is not None, value) for value in row])
        names = schema.names()
        tables[declared.table] = parquet.from_rows(schema, (dict(zip(names, row, strict=True)) for row in found.rows))
        outcomes += found.outcomes
        counts[declared.table] = dict(sorted(found.counts.items()))
        fields += [declared.table, hashlib.sha256(data).digest(), parquet.to_bytes(tables[declared.table])]
    table = parquet.from_rows(CLINICAL_OUTCOMES, outcomes)
    return ClinicalSnapshot(
        layout.keyed("q", pseudonyms.key.secret, [*fields, parquet.to_bytes(table)]) if tables else None,
        tables, table, counts, {name: _repeats(t) for name, t in tables.items()})


def identifiers(config: ProjectConfig, crosswalk: Crosswalk) -> dict[tuple[str, str], set[str]]:
    """Return, by person (`Person.key`), what their rows' identity and identifier columns hold: for the second look."""
    found: dict[tuple[str, str], set[str]] = {}
    for declared in config.clinical:
        for _, row in _rows(declared, _bytes(declared.table, config.beside(declared.file))):
            cells = {name: cell.strip() for name, cell in row.items()
                     if declared.columns[name].role in ("identity", "identifier")}
            who = _person(cells[_identity(declared)], config, crosswalk)
            if who.key:
                found.setdefault(who.key, set()).update(cell for cell in cells.values() if cell)
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
           permitted: frozenset[str] | None, recalled: Callable[[tuple[str, str]], bool]) -> _Result:
    result, identity = _Result(), _identity(declared)
    if "patient_id" in declared.columns and declared.columns["patient_id"].role in CLINICAL_TYPES:
        raise ClinicalRefused(f"Clinical table {declared.table}: a kept column may not be called patient_id.")
    kept = [(name, column, _reader(name, column, pseudonyms)) for name, column in declared.columns.items()
            if column.role in CLINICAL_TYPES]
    for number, row in _rows(declared, data):
        outcome: dict[str, Any] = {"table": declared.table, "row": number, "status": LINKED}
        try:
            who = _person(row[identity].strip(), config, crosswalk)
            if who.key is None:
                raise _Held(who.reason or Reason.PERSON_NOT_LINKED, identity)
            if recalled(who.key):
                raise _Held(Reason.RECALLED, identity)
            if permitted is not None and who.id not in permitted:
                raise _Held(Reason.PERSON_NOT_PERMITTED, identity)
            patient = pseudonyms.person(*who.key)
            days = pseudonyms.shift_days(patient, config.deidentify.date_shift_days)
            result.rows.append((patient, *(_cell(row[name], name, column, read, days) for name, column, read in kept)))
        except _Held as held:
            outcome |= {"status": HELD, "reason": held.reason.value, "column": held.column}
        result.outcomes.append(outcome)
        result.counts[outcome.get("reason", LINKED)] += 1
    return result


def _cell(text: str, name: str, column: Column, read: Callable[[str, int], Any], days: int) -> Any:
    text = text.strip()
    if not text:
        if column.required:
            raise _Held(Reason.VALUE_MISSING, name)
        return None
    try:
        return read(text, days)
    except Refusal as refusal:
        raise _Held(refusal.reason, name) from None


def _reader(name: str, column: Column, pseudonyms: Pseudonyms) -> Callable[[str, int], Any]:
    """Return what turns a cell that is not empty, and the person's days, into a released value; it raises Refusal."""
    listed = frozenset(column.values)

    def category(text: str, _: int) -> str:
        if text not in listed:
            raise Refusal(Reason.VALUE_NOT_LISTED)
        return text

    def number(text: str, _: int) -> float:
        if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
            raise Refusal(Reason.VALUE_MALFORMED)
        return value

    # One domain a column name, whatever the table: two tables may be joined by it.
    return {"event_date": event_date, "category": category, "number": number,
            "identifier": lambda text, _: pseudonyms.identifier(name, text)}[column.role]


def event_date(text: str, days: int) -> date:
    """Return an ISO (yyyy-mm-dd) or British (dd/mm/yyyy) date moved by days. Anything else raises Refusal."""
    if match := _ISO.fullmatch(text):
        year, month, day = match.groups()
    elif match := _BRITISH.fullmatch(text):
        day, month, year = match.groups()
    else:
        raise Refusal(Reason.VALUE_MALFORMED)
    try:
        return date(int(year), int(month), int(day)) + timedelta(days=days)
    except (ValueError, OverflowError):
        raise Refusal(Reason.VALUE_MALFORMED) from None


def _repeats(table: pa.Table) -> int:
    groups = table.group_by(table.column_names).aggregate([])
    return int(table.num_rows - groups.num_rows)


def _bytes(table: str, path: Path) -> bytes:
    """Return a clinical file's CSV bytes, unpacked where it is gzip. Raises ClinicalRefused."""
    packed = path.name.endswith(".csv.gz")
    if not packed and path.suffix != ".csv":
        raise ClinicalRefused(f"Clinical table {table}: only .csv and .csv.gz are read.")
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ClinicalRefused(f"Clinical table {table}: the gzip file is damaged.") from None
    except OSError as error:
        raise ClinicalRefused(f"Clinical table {table}: its file cannot be read ({error.strerror}).") from None
    if len(data) > LARGEST:
        raise ClinicalRefused(f"Clinical table {table}: its file is larger than {LARGEST} bytes.")
    return data


def _rows(declared: Clinical, data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (number from 1, cells by column). Raises ClinicalRefused: names a line, a position or a declared column."""
    where = f"Clinical table {declared.table}"
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [name.strip() for name in next(lines, [])]
        strange = [str(n) for n, name in enumerate(header, 1)
                   if name not in declared.columns or name in header[: n - 1]]
        missing = [name for name in declared.columns if name not in header]
        if strange or missing:
            raise ClinicalRefused(
                f"{where}: columns undeclared or repeated, by position: {', '.join(strange) or 'none'}; "
                f"declared columns missing: {', '.join(missing) or 'none'}.",
                hint="Declare every column of the file in the project file, those not wanted with the role drop.")
        number = 0
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                raise ClinicalRefused(f"{where}, line {lines.line_num}: {len(row)} fields, not {len(header)}.")
            number += 1
            yield number, dict(zip(header, row, strict=True))
    except UnicodeDecodeError:
        raise ClinicalRefused(f"{where}: the file is not UTF-8.") from None
    except csv.Error:
        raise ClinicalRefused(f"{where}, line {lines.line_num}: not CSV.") from None

"""A cohort file: whom and what to ask a PACS for, a CSV that is read strictly.

A row names a person (`nhs_number`, or `local_id` with `issuer`), an `accession_number`, a `study_instance_uid`, or
`date_from` and `date_to` with a `modality`; all that it names must be so of a study. A key that is empty or holds a
wildcard would match everything (PS3.4 C.2.2.2), so a row without a key, or with `*`, `?` or `\\` in a cell, is refused
by its line. Nothing of a cell is ever said: rows are known by their line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from datetime import date, datetime

from pipeline.errors import CohortRefused

Nhs = Callable[[str | None], str | None]
_UID = re.compile(r"(?=.{3,64}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
_LONGEST = {"local_id": 64, "issuer": 64, "accession_number": 16, "modality": 16}    # PS3.5 6.2: LO, SH, CS

REFUSALS = {
    "no_key": "No key: neither a person, an accession number, a study, nor dates with a modality.",
    "wildcard": "A cell holds *, ? or a backslash, which would match more than is meant.",
    "not_ascii": "A cell holds a character outside ASCII, or a control character.",
    "too_long": "A cell is longer than its element may be.",
    "nhs_number": "Not an NHS number: ten digits, the last a check digit.",
    "not_a_uid": "Not a study instance UID (PS3.5 9.1).",
    "issuer_needed": "A local id goes with its issuer, and an issuer with a local id.",
    "two_people": "An NHS number and a local id in one row.",
    "dates": "Dates are YYYY-MM-DD, both or neither, the earlier first.",
    "range_too_long": "More days than the project file allows a row without another key.",
    "repeated": "The same as an earlier row.",
    "not_linked": "The crosswalk knows no local id of this NHS number.",
    "row_studies": "PACS answers more studies than the project file allows a row.",
    "not_what_was_asked": "PACS answered a study that is not what was asked: it ignores a key. Nothing was taken.",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a cohort file; a cell that is empty is None."""

    line: int
    nhs_number: str | None = None
    local_id: str | None = None
    issuer: str | None = None
    accession_number: str | None = None
    study_instance_uid: str | None = None
    date_from: str | None = None        # YYYY-MM-DD
    date_to: str | None = None
    modality: str | None = None

    def cells(self) -> tuple[str | None, ...]:
        return tuple(getattr(self, name) for name in COLUMNS)


COLUMNS = tuple(field.name for field in fields(Row))[1:]


@dataclass(frozen=True, slots=True)
class Cohort:
    """`rows` may be asked; `refused`: (row, code of REFUSALS)."""

    rows: tuple[Row, ...]
    refused: tuple[tuple[Row, str], ...]


def read(data: bytes, nhs: Nhs, *, most_rows: int, most_days: int) -> Cohort:
    """Return the rows of a cohort file. `nhs` returns the ten digits of a valid NHS number, or None.

    Raises CohortRefused where the file as a whole cannot be taken: encoding, header, a row of another width, too many.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CohortRefused("The cohort file is not UTF-8.", hint="Save it as CSV, UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[Row] = []
    refused: list[tuple[Row, str]] = []
    seen: set[tuple[str | None, ...]] = set()
    try:
        header = [name.strip() for name in next(reader, [])]
        _check(header)
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells) and len(cells) <= 1:
                continue
            if len(cells) != len(header):
                raise CohortRefused(f"Line {line} of the cohort file has {len(cells)} cells; its header {len(header)}.")
            if len(rows) + len(refused) >= most_rows:
                raise CohortRefused(f"The cohort file has more than {most_rows} rows.",
                                    hint="Cut it into several, or raise cohort_rows in [retrieve].")
            given = {name: cell.strip() or None for name, cell in zip(header, cells, strict=True)}
            row, why = _judge(Row(line, **given), nhs, most_days)
            if why is None and row.cells() in seen:
                why = "repeated"
            if why:
                refused.append((row, why))
            else:
                seen.add(row.cells())
                rows.append(row)
    except csv.Error:
        raise CohortRefused(f"Line {reader.line_num} of the cohort file is not CSV.") from None
    if not rows and not refused:
        raise CohortRefused("The cohort file has no rows.")
    return Cohort(tuple(rows), tuple(refused))


def write(rows: Iterable[Row]) -> bytes:
    """Return rows as a cohort file."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([[cell or "" for cell in row.cells()] for row in rows])
    return out.getvalue().encode()


def of_day(day: date, modality: str) -> Cohort:
    """Return the cohort of one study date."""
    return Cohort((Row(2, date_from=day.isoformat(), date_to=day.isoformat(), modality=modality),), ())


def as_fields(cohort: Cohort) -> list[str]:
    """Return what a cohort asks for, as fields of an id: a refused row asks for nothing."""
    return [field for row in cohort.rows for field in (str(row.line), *(cell or "" for cell in row.cells()))]


def as_dict(row: Row) -> dict[str, object]:
    return asdict(row)


def _check(header: list[str]) -> None:
    unknown = sum(name not in COLUMNS for name in header)
    if not header or unknown or len(set(header)) != len(header):
        raise CohortRefused("The header of the cohort file names a column that is not known, or one twice.",
                            hint=f"Columns: {', '.join(COLUMNS)}; those that are not needed may be left out.")


def _judge(row: Row, nhs: Nhs, most_days: int) -> tuple[Row, str | None]:
    """Return the row as it is asked, and why it may not be."""
    given = {name: cell for name, cell in zip(COLUMNS, row.cells(), strict=True) if cell}
    if any(c in cell for cell in given.values() for c in "*?\\"):
        return row, "wildcard"
    if any(not cell.isascii() or not cell.isprintable() for cell in given.values()):
        return row, "not_ascii"
    if any(len(given.get(name, "")) > most for name, most in _LONGEST.items()):
        return row, "too_long"
    if row.nhs_number:
        number = nhs(row.nhs_number)
        if number is None:
            return row, "nhs_number"
        row = replace(row, nhs_number=number)
    if row.study_instance_uid and not _UID.fullmatch(row.study_instance_uid):
        return row, "not_a_uid"
    if bool(row.local_id) != bool(row.issuer):
        return row, "issuer_needed"
    if row.nhs_number and row.local_id:
        return row, "two_people"
    days = _days(row)
    if days is not None and days < 1:
        return row, "dates"
    if not (row.nhs_number or row.local_id or row.accession_number or row.study_instance_uid):
        if days is None or not row.modality:
            return row, "no_key"
        if days > most_days:
            return row, "range_too_long"
    return row, None


def _days(row: Row) -> int | None:
    """Return how many days a row spans; None where it names none, 0 where it names them wrongly."""
    if not row.date_from and not row.date_to:
        return None
    try:
        first, last = (_date(text or "") for text in (row.date_from, row.date_to))
    except ValueError:
        return 0
    return (last - first).days + 1


def _date(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        raise ValueError
    return datetime.strptime(text, "%Y-%m-%d").date()

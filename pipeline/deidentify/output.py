"""The physicist's table of local output and half-value layer per x-ray set: CSV in, no serial number and no date out.

Serial numbers become the device ids that the engine writes. The dates say from when to when a measurement is valid;
they stay here, and an opaque keyed id stands for them (see `equipment`). A row that cannot be used is left out and
named by its line with a reason; the others go on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import DosimetryRefused
from pipeline.schemas import OUTPUT, material
from pipeline.storage import tables

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 1 << 26       # bytes of the file
REQUIRED = ("manufacturer", "model", "serial_number", "from_date", "anode", "filter", "kv", "hvl_mm", "focus_table_mm")
AT_1M = "output_ugy_per_mas_at_1m"
AT_DISTANCE = ("output_ugy_per_mas", "distance_mm")
OPTIONAL = ("to_date",)
# A measurement that was valid for a few days only would date the studies that used it to those days.
SHORTEST_DAYS = 28
# House plausibility limits, wide; they catch a wrong unit (mGy for µGy, cm for mm).
LIMITS = {"kv": (10.0, 200.0), "output_ugy_per_mas": (1.0, 10_000.0), "distance_mm": (100.0, 2_000.0),
          "hvl_mm": (0.05, 15.0), "focus_table_mm": (300.0, 2_000.0)}
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Validity(NamedTuple):
    """From when to when, both days included, the measurements of a survey are valid: those of one device and dates."""

    first: date
    last: date
    survey: str


@dataclass(frozen=True, slots=True)
class Output:
    """`table`: schemas.OUTPUT. `valid`: by device. `refused`: (line, reason) of the rows left out. `rows`: in the file.

    The dates are in `valid` alone, which never leaves."""

    table: pa.Table
    valid: dict[str, list[Validity]]
    refused: list[tuple[int, str]]
    rows: int

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what the table says; its survey ids stand for the dates."""
        return hashlib.sha256(tables.to_bytes(self.table)).hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """Rows used, and rows left out by reason."""
        return {"used": self.table.num_rows, **dict(sorted(Counter(reason for _, reason in self.refused).items()))}


class _Row(NamedTuple):
    line: int
    device: str
    anode: str
    filter: str
    first: date
    last: date | None
    kv: float
    numbers: tuple[float, float, float, float]      # output, distance, HVL, focus to table


class _Refused(Exception):
    """Holds a reason code."""


def read(path: Path | None, pseudonyms: Pseudonyms) -> Output:
    """Return what the file says; nothing where none is named. Raises DosimetryRefused where it is no such table."""
    refused: list[tuple[int, str]] = []
    rows: list[_Row] = []
    lines = list(_lines(path)) if path else []
    for line, cells in lines:
        try:
            rows.append(_row(line, cells, pseudonyms))
        except _Refused as why:
            refused.append((line, str(why)))
    surveys = _surveys(rows, refused)
    valid: dict[str, set[Validity]] = defaultdict(set)
    out = []
    for (device, anode, filter_, first, last), members in surveys.items():
        survey = "V" + pseudonyms.digest("survey", device, first.isoformat(), last.isoformat()).hex()[:12].upper()
        valid[device].add(Validity(first, last, survey))
        names = ("output_ugy_per_mas", "distance_mm", "hvl_mm", "focus_table_mm")
        out += [{"device_id": device, "survey": survey, "anode": anode, "filter": filter_, "kv": row.kv,
                 **dict(zip(names, row.numbers, strict=True))} for row in members]
    out.sort(key=lambda r: tuple(r.values()))
    ordered = {device: sorted(some) for device, some in valid.items()}
    return Output(tables.from_rows(OUTPUT, out), ordered, sorted(refused), len(lines))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yield (line, cells by column); None for a row that has not as many cells as the header."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise DosimetryRefused(f"The output table cannot be read ({error.strerror}).") from None
    if len(data) > LARGEST:
        raise DosimetryRefused("The output table is larger than 64 MiB.")
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        _check(header)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                fits = len(cells) == len(header)
                yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True)) if fits else None
    except UnicodeDecodeError:
        raise DosimetryRefused("The output table is not UTF-8.") from None
    except csv.Error:
        raise DosimetryRefused("The output table is not CSV.") from None


def _check(header: list[str]) -> None:
    """Every column is known, none stands twice, and the output is given in one of its two ways."""
    allowed = {*REQUIRED, *OPTIONAL, AT_1M, *AT_DISTANCE}
    lacking = [name for name in REQUIRED if name not in header]
    two_ways = (AT_1M in header) == all(name in header for name in AT_DISTANCE)
    half = any(name in header for name in AT_DISTANCE) and AT_1M in header
    if lacking or two_ways or half or len(set(header)) < len(header) or not set(header) <= allowed:
        raise DosimetryRefused(
            "The output table's header is wrong." + (f" Lacking: {', '.join(lacking)}." if lacking else ""),
            hint=f"Columns: {', '.join(REQUIRED)}, to_date if you like, and either {AT_1M} or "
                 f"{' and '.join(AT_DISTANCE)}.")


def _row(line: int, cells: dict[str, str] | None, pseudonyms: Pseudonyms) -> _Row:
    if cells is None:
        raise _Refused("wrong_number_of_cells")
    device = pseudonyms.device(cells["manufacturer"], cells["model"], cells["serial_number"])
    if device is None:
        raise _Refused("no_serial_number")
    anode, filter_ = material(cells["anode"]), material(cells["filter"])
    if not anode or not filter_:
        raise _Refused("no_spectrum")
    first, last = _day(cells["from_date"]), _day(cells["to_date"]) if cells.get("to_date") else None
    if last is not None and last < first:
        raise _Refused("dates_reversed")
    if AT_1M in cells:
        output, distance = _number(cells[AT_1M], "output_ugy_per_mas"), 1000.0
    else:
        output, distance = (_number(cells[name], name) for name in AT_DISTANCE)
    kv, hvl, table = (_number(cells[name], name) for name in ("kv", "hvl_mm", "focus_table_mm"))
    return _Row(line, device, anode, filter_, first, last, kv, (output, distance, hvl, table))


def _day(text: str) -> date:
    try:
        if _ISO.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise _Refused("bad_date")


def _number(text: str, name: str) -> float:
    if not _NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
        raise _Refused("bad_number")
    low, high = LIMITS[name]
    if not low <= value <= high:
        raise _Refused("out_of_range")
    return value


_Key = tuple[str, str, str, date, date]      # device, anode, filter, first and last day


def _surveys(rows: list[_Row], refused: list[tuple[int, str]]) -> dict[_Key, list[_Row]]:
    """Return the rows by device, spectrum and dates; a survey without an end ends the day before the next begins."""
    spectra: dict[tuple[str, str, str], dict[tuple[date, date | None], list[_Row]]] = {}
    for row in rows:
        surveys = spectra.setdefault((row.device, row.anode, row.filter), {})
        surveys.setdefault((row.first, row.last), []).append(row)
    found: dict[_Key, list[_Row]] = {}
    for spectrum, surveys in sorted(spectra.items()):
        starts = sorted({first for first, _ in surveys})
        spans = []
        for (first, last), members in surveys.items():
            after = [start for start in starts if start > first]
            end = last or (after[0] - timedelta(days=1) if after else date.max)
            spans.append((first, end, members))
        for n, (first, end, members) in enumerate(spans):
            others = spans[:n] + spans[n + 1:]
            voltages = Counter(row.kv for row in members)
            for row in members:
                if any(first <= there[1] and there[0] <= end for there in others):
                    refused.append((row.line, "dates_overlap"))
                elif (end - first).days + 1 < SHORTEST_DAYS:
                    refused.append((row.line, "valid_too_short"))
                elif voltages[row.kv] > 1:
                    refused.append((row.line, "repeated"))
                else:
                    found.setdefault((*spectrum, first, end), []).append(row)
    return found

"""From a result's pseudonyms back to the ids of the source: the one place where the map is read backwards on purpose.

It runs in the identifiable zone. What comes out names people, so it goes to one file, readable by its owner alone, and
nowhere else: no log, no screen, no other zone.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import UsageError
from pipeline.model import Status
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("nhs_number", "issuer", "patient_id", "study_uid")
# A result's column → that of outcomes; the finest first.
_OF = {"series_uid": "series", "study_uid": "study", "patient_id": "patient"}
_PSEUDONYM = re.compile(r"[0-9A-Za-z.-]{1,64}")
MOST = 5_000_000


@dataclass(frozen=True, slots=True)
class Result:
    """A result as it came: the finest id it has, its values, and the SHA-256 (hex) of its bytes."""

    column: str
    values: frozenset[str]
    sha256: str


@dataclass(slots=True)
class Cohort:
    """Rows of COLUMNS, one a person's local id and study. `found`: of the values asked for; `left_out`: studies by the
    reason for which they may not be used today."""

    rows: set[tuple[str, str, str, str]] = field(default_factory=set)
    found: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def people(self) -> int:
        return len({row[0] or row[1:3] for row in self.rows})


def read_result(path: Path) -> Result:
    """Read a CSV of pseudonyms as `tre find --csv` writes it; other columns are passed over.

    Raises UsageError naming the line, never what stands there.
    """
    try:
        data = path.read_bytes()
        lines = csv.DictReader(data.decode("utf-8-sig").splitlines(), strict=True)
        column = next((name for name in _OF if name in (lines.fieldnames or ())), None)
        if column is None:
            raise UsageError("The result has none of the columns series_uid, study_uid, patient_id.",
                             hint="Write it with `tre find ... --csv FILE`.")
        values: set[str] = set()
        for row in lines:
            value = (row[column] or "").strip()
            if not _PSEUDONYM.fullmatch(value) or len(values) > MOST:
                raise UsageError(f"Line {lines.line_num} of the result has no {column} as a release has them.")
            values.add(value)
    except (OSError, UnicodeDecodeError, csv.Error):
        raise UsageError("The result cannot be read.", hint="Give a CSV file in UTF-8.") from None
    if not values:
        raise UsageError("The result is empty.")
    return Result(column, frozenset(values), hashlib.sha256(data).hexdigest())


def resolve(work: ObjectStore, config: ProjectConfig, asked: Result, parts: Iterable[str], inventories: Iterable[str],
            decide: Callable[[dict[str, Any]], tuple[str | None, str | None]]) -> Cohort:
    """Return the source's ids of what a result names.

    `parts`: all that are done, so that a result of an older release is understood too. `decide` says of an inventory
    row (reason why it may not be used today or None, NHS number or None): who was recalled, is no longer permitted or
    not linked any more is counted and left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    column, wanted = _OF[asked.column], pa.array(sorted(asked.values), pa.string())
    digests: list[pa.Array] = []
    seen: set[str] = set()
    for part in sorted(parts):
        rows = tables.read(work, layout.outcomes(config.name, part), ["source_sha256", "status", column])
        hits = rows.filter(pc.and_(pc.equal(rows["status"], Status.PENDING.value),
                                   pc.is_in(rows[column], value_set=wanted)))
        seen.update(hits[column].unique().to_pylist())
        digests.append(hits["source_sha256"].combine_chunks())
    cohort, out = Cohort(found=len(seen)), set()
    objects = pa.concat_arrays(digests) if digests else pa.array([], pa.binary(32))
    for key in sorted(inventories):
        table = tables.read(work, key)
        table = table.filter(pc.and_(pc.equal(table["status"], Status.PENDING.value),
                                     pc.is_in(table["source_sha256"], value_set=objects)))
        for batch in table.to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                reason, nhs = decide(row)
                issuer, local = layout.normalise(row["issuer"]) or "", layout.normalise(row["patient_id"]) or ""
                if reason is None:
                    cohort.rows.add((nhs or "", issuer, local, row["study_uid"]))
                else:
                    out.add((reason, issuer, local, row["study_uid"]))
    kept = {row[1:] for row in cohort.rows}
    cohort.left_out.update(reason for reason, *study in out if tuple(study) not in kept)
    return cohort


def place(config: ProjectConfig, out: Path, what: str = "cohort") -> Path:
    """Return where a cohort, or what else comes from what landed, may be written. Raises UsageError: a file that is
    there, a folder that is not, any place in the candidate or release zone."""
    try:
        folder = out.expanduser().parent.resolve(strict=True)
    except OSError:
        raise UsageError(f"The folder of the {what}'s file is not there.") from None
    path = folder / out.name
    for url in (config.zones.candidate, config.zones.release):
        parts = urlsplit(url)
        if parts.scheme == "file" and path.is_relative_to(Path(unquote(parts.path)).resolve()):
            raise UsageError(f"A {what} is of what landed: it is never written into the candidate or the release zone.",
                             hint="Write it in the identifiable zone.")
    if path.exists() or path.is_symlink():
        raise UsageError("There is a file of that name already.", hint=f"A {what} never replaces a file.")
    return path


def write(path: Path, cohort: Cohort) -> None:
    """Write the cohort as CSV, readable and writable by its owner alone, from its first byte on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"The cohort's file cannot be made ({error.strerror}).") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows(sorted(cohort.rows))
        stream.flush()
        os.fsync(stream.fileno())

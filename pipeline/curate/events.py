"""The dose reports of all parts, read one report at a time, as files of rows for exposures.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.curate import dose_reports
from pipeline.curate.dose_concepts import NUMERIC, SOURCED, TEXTUAL, dcm
from pipeline.curate.dose_reports import Item, Report
from pipeline.schemas import Column, Table, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow.parquet as pq

_ROWS = 20_000
_WHOSE = (Column("report_uid", "string", ""), Column("study", "string", ""), Column("patient", "string", ""))
TABLES = {
    "events": Table("events", "", (), (
        *_WHOSE, Column("node", "int32", ""), Column("event_uid", "string", ""), Column("minted_uid", "string", ""),
        Column("images", "strings", ""), Column("n_events", "int32", ""), Column("mammogram", "bool", ""),
        Column("tomosynthesis", "bool", ""), Column("is_repeat", "bool", ""), Column("is_rejected", "bool", ""),
        *(Column(name, "string", "") for name in TEXTUAL), *(Column(name, "float64", "") for name in NUMERIC),
        *(Column(f"{name}_source", "string", "") for name in SOURCED))),
    "totals": Table("totals", "", (), (
        *_WHOSE, Column("laterality", "string", ""), Column("plane", "string", ""), Column("quantity", "string", ""),
        Column("value", "float64", ""), Column("unit", "string", ""))),
    "wrong": Table("wrong", "", (), (
        *_WHOSE, Column("node", "int32", ""), Column("quantity", "string", ""), Column("kind", "string", ""),
        Column("report_term", "string", ""))),
    "rejected": Table("rejected", "", (), (Column("instance", "string", ""),)),
}  # fmt: skip


@dataclass
class _Sink:
    """A Parquet file that rows go to, a few thousand at a time."""

    schema: Table
    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    writer: pq.ParquetWriter | None = None

    def add(self, rows: list[dict[str, Any]]) -> None:
        self.rows += rows
        if len(self.rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        import pyarrow.parquet as pq

        from pipeline.storage import tables

        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, arrow_schema(self.schema), compression="zstd")
        self.writer.write_table(tables.from_rows(self.schema, self.rows))
        self.rows = []

    def close(self) -> None:
        self.flush()
        if self.writer is not None:
            self.writer.close()


def write(db: duckdb.DuckDBPyConnection, contents: Iterable[Path], without: Collection[str], folder: Path
          ) -> Counter[str]:
    """Write <folder>/{events,totals,wrong,rejected}.parquet; return how many values of each column were malformed.

    `contents` are those of the parts (content.files), whose items `db` sorts; reports in `without` are left out.
    """
    sinks = {name: _Sink(schema, folder / f"{name}.parquet") for name, schema in TABLES.items()}
    held, malformed = frozenset(without), Counter[str]()
    for path in contents:
        for patient, study, report, made in _reports(db, path, held):
            whose = {"patient": patient, "study": study, "report_uid": report}
            sinks["events"].add([whose | row for row in made.events])
            sinks["totals"].add([whose | row for row in made.totals])
            sinks["wrong"].add([whose | row for row in made.found])
            sinks["rejected"].add([{"instance": instance} for instance in made.rejected])
            malformed += made.malformed
    for sink in sinks.values():
        sink.close()
    return malformed


def _reports(db: duckdb.DuckDBPyConnection, path: Path, held: frozenset[str]) -> Iterator[tuple[str, str, str, Report]]:
    """Yield (patient, study, instance, what it gives) of every dose report, and of every key object selection that
    rejects, in one part's content."""
    titles = [dcm(k) for k in ("XRayRadiationDoseReport", "RejectedForQualityReasons",
                                            "RejectedForPatientSafetyReasons")]
    columns = ", ".join(f'"{name}"' for name in Item._fields)
    reader = db.sql(
        f"SELECT patient, study, instance, {columns} FROM read_parquet($path) WHERE instance IN"  # noqa: S608
        " (SELECT instance FROM read_parquet($path) WHERE depth = 0 AND concept_scheme = 'DCM' AND concept IN $titles)"
        " ORDER BY instance, node", params={"path": str(path), "titles": titles}).to_arrow_reader(8192)
    rows = (row for batch in reader for row in zip(*(column.to_pylist() for column in batch.columns), strict=True))
    for (patient, study, instance), items in groupby(rows, key=lambda row: row[:3]):
        whole = [Item(*row[3:]) for row in items]
        if instance not in held:
            yield patient, study, instance, dose_reports.read(instance, whole)

"""Run an audit over the tables of a release, within bounded memory, and make its page and its CSVs."""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.audit.base import MINIMUM, Asked, Audit, Disclosure, Outcome, Report
from pipeline.audit.registry import named
from pipeline.errors import SchemaTooNew, UsageError
from pipeline.look import pages
from pipeline.schemas import SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

MEMORY = "500MB"
OUTCOME = Path(__file__).with_name("outcome.toml")
PAGE = "index.html"


def run(
    audit: Audit,
    tables: Mapping[str, pa.Table | Path],
    about: Mapping[str, Any],
    *,
    minimum: int = MINIMUM,
    disclosure: Disclosure = "safe",
    outcome: Outcome | None = None,
) -> tuple[dict[str, bytes], Report]:
    """Return the audit's files by name (page, CSVs) and its report, whose `internal` files stand apart.

    `tables` are Arrow tables or Parquet files by name; `about` says of what: title, project, release, demo. Raises
    UsageError where a table or a column that the audit needs is not there.
    """
    with _database(tables) as (db, columns):
        lacking = [f"{reads.table}.{column}" for reads in audit.reads if reads.required
                   for column in reads.columns if column not in columns.get(reads.table, frozenset())]
        declared = outcome or read_outcome(OUTCOME)
        if lacking:
            raise UsageError(f"This release cannot answer {audit.name}: it has no {', '.join(lacking[:5])}.",
                             hint="`tre audit list` says what each audit reads.")
        report = audit.answer(Asked(db, columns, minimum, disclosure, declared))
    if disclosure == "internal":
        report.notes.insert(0, "INTERNAL: this page shows individuals. It does not leave the environment.")
    values = {"audit": audit, "report": report, "about": about, "minimum": minimum, "disclosure": disclosure}
    page = pages.render(Path(__file__).parent / "templates", "audit.html.j2", {}, **values)
    return {PAGE: page, **dict(sorted(report.files.items()))}, report


def for_release(
    names: Sequence[str], tables: Mapping[str, pa.Table | Path], about: Mapping[str, Any], *, minimum: int,
    outcome: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return title, question and files of audits by name, as they become part of a release: nothing internal."""
    declared = Outcome(**outcome) if outcome else None
    made: dict[str, dict[str, Any]] = {}
    for name in names:
        audit = named(name)
        files, _ = run(audit, tables, about, minimum=minimum, outcome=declared)
        made[name] = {"title": audit.title, "question": audit.question, "files": files}
    return made


def read_outcome(path: Path) -> Outcome:
    """Return where a clinical table says how an episode ended. Raises UsageError."""
    try:
        doc = tomllib.loads(path.read_text(encoding="utf-8"))
        return Outcome(str(doc["table"]), str(doc["date"]), str(doc["column"]), int(doc["days"]),
                       {str(k): str(v) for k, v in doc.get("labels", {}).items()}, bool(doc.get("after", False)),
                       str(doc.get("absent", "")))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, KeyError, ValueError, AttributeError):
        raise UsageError(f"{path}: not a declaration of an outcome.",
                         hint="It names table, date, column and days; see docs/audits.md.") from None


def _readable(table: Path) -> None:
    """Refuse a table that a newer version wrote. Raises SchemaTooNew."""
    import pyarrow.parquet as pq

    if int((pq.read_schema(table).metadata or {}).get(b"schema_version", b"0")) > SCHEMA_VERSION:
        raise SchemaTooNew("A table was written by a newer version.", hint="Upgrade tre-ingest.")


@contextmanager
def _database(tables: Mapping[str, pa.Table | Path]) -> Iterator[tuple[DuckDBPyConnection, dict[str, frozenset[str]]]]:
    """Yield DuckDB with a view per table, and the columns of each."""
    import duckdb

    with tempfile.TemporaryDirectory() as spill, duckdb.connect(
        config={"threads": 1, "memory_limit": MEMORY, "temp_directory": spill}
    ) as db:
        # In a schema of their own: a clinical table may have the name of a table that an audit makes for itself.
        db.execute("CREATE SCHEMA given")
        columns = {}
        for name, table in sorted(tables.items()):
            if isinstance(table, Path):
                _readable(table)
                source = "read_parquet('" + str(table).replace("'", "''") + "')"
            else:
                source = f"arrow_{name}"
                db.register(source, table)
            db.execute(f'CREATE VIEW given."{name}" AS FROM {source}')
            columns[name] = frozenset(row[0] for row in db.execute(f'DESCRIBE given."{name}"').fetchall())
        db.execute("SET search_path = 'main,given'")
        yield db, columns

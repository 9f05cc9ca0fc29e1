"""The ledger's rows, joined by DuckDB in bounded memory on a private temporary disk.

Digests are blobs of 32 bytes. Files come in one at a time, so a store on S3 needs room for one copy.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import layout
from pipeline.errors import SchemaTooNew, TreError
from pipeline.ledger import sources
from pipeline.ledger.sources import Subject, inventories
from pipeline.model import Status
from pipeline.schemas import SCHEMA_VERSION
from pipeline.storage import ObjectStore

if TYPE_CHECKING:
    import duckdb

MEMORY = "400MB"
ROWS = 65_536

_PROJECT = """
CREATE TABLE inventory (source_uri VARCHAR, source_sha256 BLOB, status VARCHAR, reason VARCHAR);
CREATE TABLE tombstones (instance VARCHAR);
CREATE TABLE landed (sop_instance_uid VARCHAR);
CREATE TABLE missing (sop_instance_uid VARCHAR, reason VARCHAR);
"""
_CANDIDATE = """
CREATE OR REPLACE TABLE outcomes (source_uri VARCHAR, source_sha256 BLOB, status VARCHAR, reason VARCHAR,
                                  instance VARCHAR);
CREATE OR REPLACE TABLE held (instance VARCHAR, reason VARCHAR);
CREATE OR REPLACE TABLE withheld (instance VARCHAR, reason VARCHAR);
CREATE OR REPLACE TABLE released (instance VARCHAR, path VARCHAR);
CREATE OR REPLACE TABLE ledger (source_uri VARCHAR, source_sha256 BLOB, status VARCHAR, reason VARCHAR,
                                release_id VARCHAR, released_key VARCHAR, instance VARCHAR);
"""

# An outcome speaks for its object; what the candidate holds back was still pending; so was what a release published.
_JOIN = """
INSERT INTO ledger
WITH fate AS (
    SELECT i.source_uri, i.source_sha256, o.instance, coalesce(h.reason, w.reason) AS kept,
           coalesce(o.status, i.status) AS status,
           CASE WHEN o.status IS NULL THEN i.reason ELSE o.reason END AS reason
    FROM inventory i
    LEFT JOIN outcomes o ON o.source_uri = i.source_uri AND o.source_sha256 = i.source_sha256
    LEFT JOIN held h ON h.instance = o.instance AND o.status = 'pending'
    LEFT JOIN withheld w ON w.instance = o.instance AND o.status = 'pending'
)
SELECT f.source_uri, f.source_sha256,
       CASE WHEN f.kept IS NOT NULL THEN 'withheld'
            WHEN r.instance IS NULL THEN f.status
            WHEN t.instance IS NOT NULL THEN 'recalled'
            ELSE $standing END,
       CASE WHEN f.kept IS NOT NULL THEN f.kept
            WHEN r.instance IS NULL THEN f.reason
            WHEN t.instance IS NOT NULL THEN 'recalled' END,
       CASE WHEN r.instance IS NOT NULL THEN $release END,
       CASE WHEN r.instance IS NOT NULL THEN $images || r.path END,
       f.instance
FROM fate f
LEFT JOIN released r ON r.instance = f.instance AND f.status = 'pending' AND f.kept IS NULL
LEFT JOIN tombstones t ON t.instance = r.instance
"""

# What PACS owes and never landed has no bytes and no place: a name of its own, and the digest of nothing.
_MISSING = """
INSERT INTO ledger (source_uri, source_sha256, status, reason)
SELECT 'pacs:' || m.sop_instance_uid, unhex($nothing), 'missing', max(m.reason)
FROM missing m ANTI JOIN landed l ON l.sop_instance_uid = m.sop_instance_uid
GROUP BY m.sop_instance_uid
"""

# finding → how many objects break the invariant that way
_CHECKS = {
    "missing_from_ledger": "SELECT count(*) FROM (SELECT source_uri, source_sha256 FROM inventory "
                           "EXCEPT SELECT source_uri, source_sha256 FROM ledger)",
    "not_in_inventory": "SELECT count(*) FROM ((SELECT source_uri, source_sha256 FROM ledger WHERE status IS DISTINCT "
                        "FROM 'missing' UNION ALL "
                        "SELECT source_uri, source_sha256 FROM outcomes) "
                        "EXCEPT SELECT source_uri, source_sha256 FROM inventory)",
    "more_than_once": "SELECT count(*) FROM (SELECT 1 FROM ledger GROUP BY source_uri, source_sha256 "
                      "HAVING count(*) > 1)",
    "no_status": "SELECT count(*) FROM ledger WHERE status IS NULL OR status NOT IN ({statuses})",
    "pending_in_release": "SELECT count(*) FROM ledger WHERE $release IS NOT NULL AND status = 'pending' "
                          "AND instance IS NOT NULL",
    "released_without_object": "SELECT count(*) FROM (SELECT instance FROM released EXCEPT ALL "
                               "SELECT instance FROM ledger WHERE release_id IS NOT NULL)",
    "released_more_than_once": "SELECT count(*) FROM (SELECT instance FROM ledger WHERE release_id IS NOT NULL "
                               "EXCEPT ALL SELECT instance FROM released)",
}


class View:
    """A database of one project. `load` it with a candidate, then read `rows`, `counts` and `findings`."""

    def __init__(self, con: duckdb.DuckDBPyConnection, project: str, work: ObjectStore, candidate: ObjectStore,
                 release: ObjectStore) -> None:
        self._con, self._project = con, project
        self._work, self._candidate, self._release = work, candidate, release
        self._subject = Subject(None)
        con.execute(_PROJECT)
        for _, key in inventories(work, project):
            self._insert("inventory", work, key, "source_uri", "source_sha256", "status", "reason")
        missing = list(sources.missing(work, project))
        for key in missing:
            self._insert("missing", work, key, "sop_instance_uid", "reason")
        for _, key in inventories(work, project) if missing else ():
            self._insert("landed", work, key, "sop_instance_uid")
        names = (entry.key.rpartition("/")[2] for entry in release.list(layout.tombstones(project)))
        self._insert_rows("tombstones", ((name.removesuffix(".json"),) for name in names))

    def load(self, subject: Subject) -> None:
        """Fill the ledger for one candidate. Raises NotFound where a table of it is gone."""
        self._con.execute(_CANDIDATE)
        self._subject, project, release = subject, self._project, subject.release
        for part in subject.parts:
            self._insert("outcomes", self._work, layout.outcomes(project, part),
                         "source_uri", "source_sha256", "status", "reason", "instance")
        self._insert_rows("held", subject.held)
        if subject.candidate and self._candidate.stat(key := layout.withheld(project, subject.candidate)):
            self._insert("withheld", self._candidate, key, "instance", "reason")
        if release:
            self._insert("released", self._release, release.images_key, "sop_instance_uid", "path")
        self._con.execute(_JOIN, {"standing": release and release.standing, "release": release and release.id,
                                  "images": layout.image(project, "")})
        self._con.execute(_MISSING, {"nothing": hashlib.sha256(b"").hexdigest()})

    def counts(self) -> dict[str, dict[str, int]]:
        """Return status → reason or "" → objects."""
        counts: dict[str, dict[str, int]] = {}
        found = self._con.execute("SELECT status, coalesce(reason, ''), count(*) FROM ledger GROUP BY ALL ORDER BY ALL")
        for status, reason, n in found.fetchall():
            counts.setdefault(str(status), {})[reason] = n
        return counts

    def findings(self) -> dict[str, int]:
        """Return finding → objects, for each way in which the identity does not hold; empty where it does."""
        statuses = ", ".join(f"'{status.value}'" for status in Status)
        release = self._subject.release and self._subject.release.id
        found = {}
        for name, sql in _CHECKS.items():
            given = {"release": release} if "$release" in sql else {}
            if n := self._con.execute(sql.format(statuses=statuses), given).fetchall()[0][0]:
                found[name] = int(n)
        return found

    def rows(self, hex_digests: bool) -> Iterator[pa.RecordBatch]:
        """Yield the rows by source_uri and digest, in batches of 65,536, in the order of `schemas.LEDGER`."""
        digest = "lower(hex(source_sha256)) AS source_sha256" if hex_digests else "source_sha256"
        rows = self._con.sql(
            f"SELECT source_uri, {digest}, status, reason, $candidate::VARCHAR AS candidate_id, "  # noqa: S608
            "release_id, released_key FROM ledger ORDER BY ledger.source_uri, ledger.source_sha256",
            params={"candidate": self._subject.candidate})
        reader: pa.RecordBatchReader = rows.to_arrow_reader(ROWS)
        yield from reader

    def _insert(self, table: str, store: ObjectStore, key: str, *columns: str) -> None:
        with store.fetch(key) as path, pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            if int(metadata.get(b"schema_version", b"0")) > SCHEMA_VERSION:
                raise SchemaTooNew("A table was written by a newer version.", hint="Upgrade tre-ingest.")
            schema = pa.schema([file.schema_arrow.field(name) for name in columns])
            found = file.iter_batches(ROWS, columns=list(columns), use_threads=False)
            batches = (b.select(list(columns)) for b in found)
            incoming = pa.RecordBatchReader.from_batches(schema, batches)
            self._con.register("incoming", incoming)
            self._con.execute(f"INSERT INTO {table} SELECT {', '.join(columns)} FROM incoming")  # noqa: S608
            self._con.unregister("incoming")

    def _insert_rows(self, table: str, rows: Any) -> None:
        columns = list(zip(*rows, strict=True))
        if columns:
            arrow = pa.table({f"c{n}": pa.array(column, pa.string()) for n, column in enumerate(columns)})
            self._con.register("incoming", arrow)
            self._con.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608 - a name of this module
            self._con.unregister("incoming")


@contextmanager
def opened(project: str, work: ObjectStore, candidate: ObjectStore, release: ObjectStore) -> Iterator[View]:
    """Yield a View on a temporary database that only this user can read; it is removed on exit.

    It names sources, so it stands in the work zone's scratch, which clears what a killed process left; elsewhere only
    for a reader that may not write there.
    """
    import duckdb

    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(work.scratch())
        except TreError:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tre-ledger-")))
        con = duckdb.connect(str(Path(scratch) / "ledger.duckdb"), config={
            "memory_limit": MEMORY, "temp_directory": str(Path(scratch) / "spill"), "preserve_insertion_order": False,
            "threads": min(2, os.cpu_count() or 1), "autoinstall_known_extensions": False})
        try:
            yield View(con, project, work, candidate, release)
        finally:
            con.close()

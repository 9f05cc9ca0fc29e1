"""`build`, `summary` and `identity`: the ledger as a file, as counts, and as an invariant."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import ProjectConfig
from pipeline.errors import UsageError
from pipeline.ledger import sources, view
from pipeline.schemas import LEDGER, arrow_schema
from pipeline.storage import ObjectStore

Write = Callable[[pa.RecordBatch], None]


@dataclass(frozen=True)
class LedgerSummary:
    """`counts`: status → reason or "" → objects, adding up to `objects` (rows). `release` is the one that published the
    candidate, if any. `findings`: finding → objects where the identity is broken; empty where it holds."""

    candidate: str | None
    release: str | None
    objects: int
    counts: dict[str, dict[str, int]]
    findings: dict[str, int]

    @property
    def holds(self) -> bool:
        return not self.findings


def build(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, release: ObjectStore, out: Path | None, *,
          release_id: str | None = None, candidate_id: str | None = None,
          all_candidates: bool = False) -> LedgerSummary:
    """Write the ledger to `out` (.parquet or .csv; None: only count) and return its summary.

    One row per inventoried object with respect to one candidate: that of `release_id`, or `candidate_id`, or the
    current release's, or the latest, or none. With `all_candidates`, a row per object and candidate. The file holds
    source names: it is readable by its owner only and belongs in the identifiable zone. Raises NotFound, UsageError,
    SchemaTooNew.
    """
    if out is not None and out.suffix not in (".parquet", ".csv"):
        raise UsageError("The ledger is written as .parquet or .csv.")
    subjects = _subjects(config, work, candidate, release, release_id, candidate_id, all_candidates)
    counts: dict[str, dict[str, int]] = {}
    findings: dict[str, int] = {}
    with view.opened(config.name, work, candidate, release) as ledger, _writer(out) as write:
        for subject in subjects:
            ledger.load(subject)
            for status, by_reason in ledger.counts().items():
                for reason, n in by_reason.items():
                    counts.setdefault(status, {}).setdefault(reason, 0)
                    counts[status][reason] += n
            for finding, n in ledger.findings().items():
                findings[finding] = findings.get(finding, 0) + n
            if write:
                for batch in ledger.rows(hex_digests=bool(out and out.suffix == ".csv")):
                    write(batch)
    one = subjects[0] if len(subjects) == 1 else None
    published = one.release.id if one and one.release else None
    objects = sum(n for by_reason in counts.values() for n in by_reason.values())
    return LedgerSummary(one.candidate if one else None, published, objects, counts, findings)


def summary(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, release: ObjectStore, *,
            release_id: str | None = None, candidate_id: str | None = None,
            all_candidates: bool = False) -> LedgerSummary:
    """Return counts by status and reason; nothing is written."""
    return build(config, work, candidate, release, None, release_id=release_id, candidate_id=candidate_id,
                 all_candidates=all_candidates)


def identity(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, release: ObjectStore, *,
             release_id: str | None = None, candidate_id: str | None = None,
             all_candidates: bool = False) -> dict[str, int]:
    """Check by set that every inventoried object stands in the ledger exactly once with a status, and that a release
    holds exactly what the ledger calls published.

    Return finding → objects, empty where it holds: missing_from_ledger, not_in_inventory, more_than_once, no_status,
    pending_in_release (the candidate was published without it), released_without_object, released_more_than_once.
    """
    return summary(config, work, candidate, release, release_id=release_id, candidate_id=candidate_id,
                   all_candidates=all_candidates).findings


def _subjects(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, release: ObjectStore,
              release_id: str | None, candidate_id: str | None, all_candidates: bool) -> list[sources.Subject]:
    if not all_candidates:
        return [sources.subject(work, candidate, release, config.name, release_id=release_id,
                                candidate_id=candidate_id)]
    if release_id or candidate_id:
        raise UsageError("Give one candidate, one release, or all candidates.")
    return [sources.subject(work, candidate, release, config.name, candidate_id=name)
            for name in sources.known_candidates(work, config.name)] or [sources.Subject(None)]


@contextmanager
def _writer(out: Path | None) -> Iterator[Write | None]:
    """Yield what takes batches; the file is there, whole, only after a clean exit."""
    if out is None:
        yield None
        return
    handle, name = tempfile.mkstemp(prefix=".ledger-", dir=out.parent)
    os.close(handle)
    try:
        schema = arrow_schema(LEDGER)
        if out.suffix == ".csv":
            from pyarrow import csv

            texts = pa.schema([pa.field(name, pa.string()) for name in schema.names])
            with csv.CSVWriter(name, texts) as table:
                yield lambda batch: table.write(batch.cast(texts))
        else:
            with pq.ParquetWriter(name, schema, compression="zstd") as file:
                yield lambda batch: file.write_batch(batch.cast(schema))
        Path(name).replace(out)
    finally:
        Path(name).unlink(missing_ok=True)

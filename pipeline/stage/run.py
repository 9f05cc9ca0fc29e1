"""`stage`: freeze what has landed into one batch. Commit marker (the inventory) last; safe to repeat after any kill."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import LeaseHeld
from pipeline.model import REASONS, Reason, Status
from pipeline.observe import event, track
from pipeline.schemas import INVENTORY, LISTING, Table
from pipeline.stage import admission, batches, seen, shards
from pipeline.stage.inventory import Landed, read_all
from pipeline.stage.listing import Known
from pipeline.storage import ObjectStore, lease, tables

SLICE = 50_000
Eligible = Callable[[Mapping[str, Any]], Reason | None]


@dataclass(frozen=True)
class StageResult:
    """What a stage did, or would do.

    `batch` is None where nothing new has landed (or on a dry run). `counts` has `status` or `status/reason` as keys and
    adds up to the batch's objects; what the project's policy would refuse today counts under that reason, though the
    inventory says pending. `instances`, `bytes`: what is eligible in the shards. `arriving`: objects held back.
    """

    batch: str | None
    counts: dict[str, int]
    instances: int
    bytes: int
    shards: int
    arriving: int


def stage(config: ProjectConfig, landing: ObjectStore, work: ObjectStore, *, eligible: Eligible, dry_run: bool = False,
          workers: int | None = None) -> StageResult:
    """Stage everything in landing that no batch has yet, but for studies still arriving.

    Raises LeaseHeld (another stage of this project runs), StoreUnreachable, StoreDenied. `workers` as in
    `inventory.read_all`.
    """
    held = nullcontext() if dry_run else lease.hold(work, layout.lease(config.name, "stage"))
    with held:
        committed = batches.committed(work, config.name)
        known = Known.of(work, config.name, committed)
        newest = landing.now() - timedelta(seconds=config.stage.quiet_seconds)
        entries = list(known.unknown(landing))
        found = read_all(landing, entries, config.stage.max_object_bytes, workers)
        rows = [Landed.of(f"{landing.url}/{entry.key}", entry, inspected, config.stage.issuer)
                for entry, inspected in track(found, "reading landed objects", total=len(entries))]
        arriving = 0
        if config.stage.quiet_seconds:
            rows, arriving = admission.settled(rows, newest)
        rows.sort(key=lambda row: row.source_uri)
        new = [row for row in rows if not known.has_content(row.source_uri, row.source_sha256)]
        admission.admit(new, *seen.look_up(work, config.name, committed, new))
        admitted = [row for row in new if row.status == Status.PENDING]
        refused = {row.source_uri: reason for row in admitted if (reason := eligible(row.row()))}
        n_shards = shards.assign(admitted, config.stage.shard_bytes, config.stage.shard_instances,
                                 lambda row: row.source_uri not in refused)
        batch = None
        if new and not dry_run:
            batch = layout.batch_id(config.name, ((r.source_uri, r.size, r.source_sha256) for r in new))
            _write(work, config.name, batch, committed, rows, new, admitted)
    todo = [row.size for row in admitted if row.source_uri not in refused]
    result = StageResult(batch, _counts(new, refused), len(todo), sum(todo), n_shards, arriving)
    event("stage.done", batch=batch, objects=len(new), instances=result.instances, shards=n_shards, arriving=arriving)
    return result


def _write(work: ObjectStore, project: str, batch: str, committed: list[str], rows: list[Landed], new: list[Landed],
           admitted: list[Landed]) -> None:
    """Shards, what has been seen, the listing, and last the inventory."""
    by_shard: dict[int, list[Landed]] = defaultdict(list)
    for row in sorted(admitted, key=lambda r: (r.study_uid or "", r.source_uri)):
        by_shard[row.shard or 0].append(row)
    for number, of_shard in by_shard.items():
        tables.write(work, layout.shard(project, batch, number), _table(INVENTORY, of_shard))
    for number in set(batches.shards(work, project, batch)) - by_shard.keys():
        work.delete(layout.shard(project, batch, number))       # a killed run's, under another project file
    if batches.committed(work, project) != committed:           # this run lost its lease while it slept
        raise LeaseHeld("Another stage of this project has finished meanwhile.", hint="Stage again.")
    seen.record(work, project, batch, committed, admitted)
    tables.write(work, layout.listing(project, batch), _table(LISTING, rows))
    tables.write(work, layout.inventory(project, batch), _table(INVENTORY, new))


def _table(schema: Table, rows: list[Landed]) -> pa.Table:
    """A slice at a time: the mappings of a million rows at once would cost more than the rows."""
    slices = (rows[i:i + SLICE] for i in range(0, len(rows) or 1, SLICE))
    return pa.concat_tables(tables.from_rows(schema, (r.row() for r in s)) for s in slices).combine_chunks()


def _counts(rows: list[Landed], refused: Mapping[str, Reason]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row in rows:
        policy = refused.get(row.source_uri)
        status, reason = (REASONS[policy][0].value, policy.value) if policy else (row.status, row.reason)
        counts[f"{status}/{reason}" if reason else status] += 1
    return dict(sorted(counts.items()))

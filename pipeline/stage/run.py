"""`stage`: freeze what has landed into one batch. Commit marker (the inventory) last; safe to repeat after any kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import LeaseHeld
from pipeline.isolate import Limits
from pipeline.model import REASONS, Reason, Status
from pipeline.observe import event, track
from pipeline.schemas import INVENTORY, LISTING
from pipeline.stage import admission, batches, rows, seen, shards
from pipeline.stage.inventory import read_all
from pipeline.stage.listing import Known
from pipeline.storage import ObjectStore, lease, tables

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
        listed = rows.Listed(known.unknown(landing))
        limits = Limits.of(config.deidentify.limit_seconds, config.deidentify.limit_bytes)
        looked = read_all(landing, listed, config.stage.max_object_bytes, workers, limits=limits)
        found = track(looked, "reading landed objects", total=listed.count)
        read = rows.table(landing, found, config.stage.issuer, newest)
        arriving = 0
        if config.stage.quiet_seconds:
            read, arriving = admission.settled(read)
        new = rows.where(read, known.is_new(read))
        uids, contents = admission.uid_digests(new["sop_instance_uid"]), rows.digests(new["source_sha256"])
        new = admission.admit(new, uids, *seen.look_up(work, config.name, committed, contents, uids))
        admitted = rows.equal(new["status"], Status.PENDING)
        refused = _refused(new, admitted, eligible)
        passed = admitted & np.array([reason is None for reason in refused], bool)
        pending = rows.where(new.select(["study_uid", "bytes"]), pa.chunked_array([pa.array(admitted, pa.bool_())]))
        numbers, n_shards = shards.assign(
            rows.text(pending, "study_uid", ""), pending["bytes"], pa.array(passed[admitted], pa.bool_()),
            config.stage.shard_bytes, config.stage.shard_instances)
        new = rows.with_column(new, "shard", _spread(numbers, admitted))
        batch = None
        if new.num_rows and not dry_run:
            batch = layout.batch_id(config.name, _identity(new))
            _write(work, config.name, batch, committed, read, new, contents, uids)
        todo = new["bytes"].filter(passed)
    result = StageResult(batch, _counts(new, refused), len(todo), pc.sum(todo).as_py() or 0, n_shards, arriving)
    event("stage.done", batch=batch, objects=new.num_rows, instances=result.instances, shards=n_shards,
          arriving=arriving)
    return result


def _refused(new: pa.Table, admitted: admission.Mask, eligible: Eligible) -> list[Reason | None]:
    """Return of each row why the project's policy of today would not let it pass."""
    columns = rows.of(new, INVENTORY)
    return [eligible(row) if sound else None for row, sound in zip(rows.mappings(columns), admitted, strict=True)]


def _spread(numbers: pa.Array, admitted: admission.Mask) -> pa.Array:
    """Return the numbers of admitted rows at their rows, and null at the others."""
    at = np.cumsum(admitted) - 1
    return numbers.take(pa.array(at, mask=~admitted))


def _identity(new: pa.Table) -> Iterator[tuple[str, int, bytes]]:
    for row in rows.mappings(new.select(["source_uri", "bytes", "source_sha256"])):
        yield row["source_uri"], row["bytes"], row["source_sha256"]


def _write(work: ObjectStore, project: str, batch: str, committed: list[str], read: pa.Table, new: pa.Table,
           contents: admission.Digests, uids: admission.Digests) -> None:
    """Shards, what has been seen, the listing, and last the inventory."""
    inventory = rows.of(new, INVENTORY)
    numbers = pc.drop_null(new["shard"]).unique().sort().to_pylist()
    for number in numbers:
        of_shard = tables.conform(INVENTORY, inventory.filter(pc.equal(inventory["shard"], number)))
        of_shard = of_shard.add_column(0, "study", pc.fill_null(of_shard["study_uid"], ""))
        of_shard = of_shard.sort_by([("study", "ascending"), ("source_uri", "ascending")]).drop_columns("study")
        tables.write(work, layout.shard(project, batch, number), of_shard)
    for number in set(batches.shards(work, project, batch)) - set(numbers):
        work.delete(layout.shard(project, batch, number))       # a killed run's, under another project file
    if batches.committed(work, project) != committed:           # this run lost its lease while it slept
        raise LeaseHeld("Another stage of this project has finished meanwhile.", hint="Stage again.")
    known = rows.equal(new["status"], Status.PENDING) & np.asarray(pc.is_valid(new["sop_instance_uid"]), bool)
    seen.record(work, project, batch, committed, contents[known], uids[known])
    tables.write(work, layout.listing(project, batch), rows.of(read, LISTING), LISTING)
    tables.write(work, layout.inventory(project, batch), inventory, INVENTORY)


def _counts(new: pa.Table, refused: list[Reason | None]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for row, policy in zip(rows.mappings(new.select(["status", "reason"])), refused, strict=True):
        status, reason = (REASONS[policy][0].value, policy.value) if policy else (row["status"], row["reason"])
        counts[f"{status}/{reason}" if reason else status] += 1
    return dict(sorted(counts.items()))

"""What earlier batches admitted: digests of bytes and of SOP Instance UIDs, in 256 files by the digest's first byte.

Written before the inventory. A row counts only if its batch is committed, so a run that was killed leaves nothing that
is believed; the next write of a file drops such rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout
from pipeline.schemas import SEEN
from pipeline.stage.admission import uid_digest
from pipeline.stage.inventory import Landed
from pipeline.storage import ObjectStore, tables

BYTES, UID = "sha256", "uid"


def look_up(work: ObjectStore, project: str, committed: Collection[str],
            rows: Iterable[Landed]) -> tuple[set[bytes], set[bytes]]:
    """Return which of the rows' digests, of bytes and of SOP Instance UIDs, committed batches have admitted."""
    wanted: dict[int, dict[str, set[bytes]]] = defaultdict(lambda: {BYTES: set(), UID: set()})
    for kind, digest, _ in _digests(rows):
        wanted[digest[0]][kind].add(digest)
    found: dict[str, set[bytes]] = {BYTES: set(), UID: set()}
    there = _existing(work, project)
    for first in sorted(wanted):
        if first in there:
            table = _believed(tables.read(work, layout.seen(project, first)), committed)
            for kind, digests in wanted[first].items():
                of_kind = table.filter(pc.equal(table["kind"], kind))["digest"]
                hits = of_kind.filter(pc.is_in(of_kind, value_set=pa.array(sorted(digests), pa.binary(32))))
                found[kind].update(hits.to_pylist())
    return found[BYTES], found[UID]


def record(work: ObjectStore, project: str, batch: str, committed: Collection[str], admitted: Iterable[Landed]) -> None:
    """Write the admitted rows of `batch`; rows of batches that are not committed, and older ones of this, go."""
    new: dict[int, set[tuple[str, bytes, bytes]]] = defaultdict(set)
    for kind, digest, source in _digests(admitted):
        new[digest[0]].add((kind, digest, source))
    there = _existing(work, project)
    for first in sorted(there | new.keys()):
        key = layout.seen(project, first)
        table = tables.from_rows(SEEN, (
            {"kind": kind, "digest": digest, "batch": batch, "source_sha256": source}
            for kind, digest, source in new.get(first, ())))
        if first in there:
            old = tables.read(work, key)
            kept = _believed(old, committed)
            if first not in new and kept.num_rows == old.num_rows:
                continue
            table = pa.concat_tables([kept.replace_schema_metadata(table.schema.metadata), table])
        if not table.num_rows:
            work.delete(key)
            continue
        order = [(name, "ascending") for name in ("digest", "kind", "batch")]
        tables.write(work, key, table.sort_by(order).combine_chunks())


def _digests(rows: Iterable[Landed]) -> Iterable[tuple[str, bytes, bytes]]:
    for row in rows:
        if row.sop_instance_uid:
            yield BYTES, row.source_sha256, row.source_sha256
            yield UID, uid_digest(row.sop_instance_uid), row.source_sha256


def _existing(work: ObjectStore, project: str) -> set[int]:
    names = (entry.key.rpartition("/")[2] for entry in work.list(layout.all_seen(project)))
    return {int(name[:2], 16) for name in names}


def _believed(table: pa.Table, committed: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["batch"], value_set=pa.array(sorted(committed), pa.string())))

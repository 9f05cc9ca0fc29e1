"""What earlier batches admitted: digests of bytes and of SOP Instance UIDs, in 256 files by the digest's first byte.

Written before the inventory. A row counts only if its batch is committed, so a run that was killed leaves nothing that
is believed; the next write of a file drops such rows.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout
from pipeline.schemas import SEEN, arrow_schema
from pipeline.stage.admission import Digests, Mask
from pipeline.storage import ObjectStore, tables

BYTES, UID = "sha256", "uid"


def look_up(work: ObjectStore, project: str, committed: Collection[str], contents: Digests,
            uids: Digests) -> tuple[Mask, Mask]:
    """Return of which rows committed batches have admitted the bytes, and of which the SOP Instance UID.

    `contents`, `uids`: the rows' digests.
    """
    found = {kind: np.zeros(len(contents), bool) for kind in (BYTES, UID)}
    for first in sorted(_existing(work, project)):
        table = None
        for kind, digests in ((BYTES, contents), (UID, uids)):
            at = np.flatnonzero(digests[:, 0] == first) if len(digests) else ()
            if not len(at):
                continue
            if table is None:
                table = _believed(tables.read(work, layout.seen(project, first)), committed)
            known = table.filter(pc.equal(table["kind"], kind))["digest"]
            found[kind][at] = pc.is_in(_column(digests[at]), value_set=known.combine_chunks()).to_numpy(False)
    return found[BYTES], found[UID]


def record(work: ObjectStore, project: str, batch: str, committed: Collection[str], contents: Digests,
           uids: Digests) -> None:
    """Write the digests of the admitted rows of `batch`; rows of batches that are not committed, and older ones of
    this, go."""
    there = _existing(work, project)
    new = {kind: digests[:, 0] for kind, digests in ((BYTES, contents), (UID, uids))}
    for first in range(256):
        at = {kind: np.flatnonzero(firsts == first) for kind, firsts in new.items()}
        if first not in there and not any(len(rows) for rows in at.values()):
            continue
        key = layout.seen(project, first)
        table = pa.concat_tables(
            _rows(kind, digests[at[kind]], batch, contents[at[kind]])
            for kind, digests in ((BYTES, contents), (UID, uids)))
        added = table.num_rows
        if first in there:
            old = tables.read(work, key)
            kept = _believed(old, committed)
            if not added and kept.num_rows == old.num_rows:
                continue
            table = pa.concat_tables([kept.replace_schema_metadata(table.schema.metadata), table])
        if not table.num_rows:
            work.delete(key)
            continue
        order = [(name, "ascending") for name in ("digest", "kind", "batch")]
        tables.write(work, key, table.sort_by(order).combine_chunks())


def _rows(kind: str, digests: Digests, batch: str, contents: Digests) -> pa.Table:
    count = len(digests)
    columns = {"kind": pa.array([kind] * count, pa.string()), "digest": _column(digests),
               "batch": pa.array([batch] * count, pa.string()), "source_sha256": _column(contents)}
    schema = arrow_schema(SEEN)
    return pa.Table.from_arrays([columns[name].cast(schema.field(name).type) for name in schema.names], schema=schema)


def _column(digests: Digests) -> pa.Array:
    data = np.ascontiguousarray(digests)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(data), [None, pa.py_buffer(data)])


def _existing(work: ObjectStore, project: str) -> set[int]:
    names = (entry.key.rpartition("/")[2] for entry in work.list(layout.all_seen(project)))
    return {int(name[:2], 16) for name in names}


def _believed(table: pa.Table, committed: Collection[str]) -> pa.Table:
    return table.filter(pc.is_in(table["batch"], value_set=pa.array(sorted(committed), pa.string())))

"""What stage holds of a landing: columns, not objects. A million landed objects are some hundred bytes each.

Rows are of `SCHEMA`, in the order of their source_uri. Texts that many rows share are held once a slice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dicom.inspect import Inspected
from pipeline.schemas import INVENTORY, Table, arrow_schema
from pipeline.stage.inventory import SLICE
from pipeline.storage import Entry, ObjectStore

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LISTED = pa.schema([("key", pa.string()), ("size", pa.int64()), ("modified", pa.int64()), ("version", pa.string()),
                     ("regular", pa.bool_())])
_SHARED = frozenset(("sop_class_uid", "study_uid", "series_uid", "transfer_syntax_uid", "modality", "study_date",
                     "patient_id", "issuer"))
_READ = ("sop_class_uid", "sop_instance_uid", "study_uid", "series_uid", "transfer_syntax_uid", "modality",
         "study_date", "patient_id")
# Inventory and listing in one; `late`: changed after the moment at which an object counts as still arriving.
SCHEMA = pa.schema([
    *(pa.field(f.name, pa.dictionary(pa.int32(), f.type) if f.name in _SHARED else f.type)
      for f in arrow_schema(INVENTORY)),
    pa.field("version", pa.string()), pa.field("modified", pa.string()), pa.field("late", pa.bool_()),
])


class Listed:
    """What is to be read of a landing, listed once and before anything is read; gone through once."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        left = iter(entries)
        self._slices: list[pa.RecordBatch] = []
        self.count = 0
        while part := list(islice(left, SLICE)):
            moments = [(e.modified - _EPOCH) // timedelta(microseconds=1) for e in part]
            self._slices.append(pa.RecordBatch.from_arrays([
                pa.array([e.key for e in part]), pa.array([e.size for e in part], pa.int64()), pa.array(moments),
                pa.array([e.version for e in part]), pa.array([e.regular for e in part])], schema=_LISTED))
            self.count += len(part)
        self._slices.reverse()

    def __iter__(self) -> Iterator[Entry]:
        while self._slices:
            columns = [column.to_pylist() for column in self._slices.pop().columns]
            for key, size, moment, version, regular in zip(*columns, strict=True):
                yield Entry(key, size, _EPOCH + timedelta(microseconds=moment), version, regular)


def table(landing: ObjectStore, found: Iterable[tuple[Entry, Inspected]], issuer: str | None,
          newest: datetime) -> pa.Table:
    """Return the rows of what was read. `issuer` is what the landing source declares where a header names none."""
    left, batches = iter(found), []
    while part := list(islice(left, SLICE)):
        part.sort(key=lambda one: one[0].key)
        batches.append(_batch(landing.url, part, issuer, newest))
    rows = pa.Table.from_batches(batches, schema=SCHEMA)
    ends = [(b["source_uri"][0].as_py(), b["source_uri"][-1].as_py()) for b in batches]
    in_order = all(ends[n][1] < ends[n + 1][0] for n in range(len(ends) - 1))
    return rows if in_order else rows.sort_by("source_uri")     # what was read again comes late


def _batch(url: str, part: list[tuple[Entry, Inspected]], issuer: str | None, newest: datetime) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {name: [getattr(one, name) for _, one in part] for name in _READ}
    columns |= {
        "source_uri": [f"{url}/{entry.key}" for entry, _ in part],
        "bytes": [one.size or entry.size for entry, one in part],
        "source_sha256": [one.sha256 for _, one in part],
        "status": ["rejected" if one.refusal else "pending" for _, one in part],
        "reason": [one.refusal.reason.value if one.refusal else None for _, one in part],
        "issuer": [one.issuer or (issuer if one.patient_id else None) for _, one in part],
        "n_elements": [one.n_elements or None for _, one in part],
        "shard": [None] * len(part),
        "version": [entry.version for entry, _ in part],
        "modified": [entry.modified.isoformat() for entry, _ in part],
        "late": [entry.modified > newest for entry, _ in part],
    }
    arrays = [pa.array(columns[f.name], f.type.value_type).dictionary_encode() if f.name in _SHARED
              else pa.array(columns[f.name], f.type) for f in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def where(rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """Return the rows where the mask is true: the same table where it is true of all, which is not copied then."""
    return rows if pc.all(mask, min_count=0).as_py() else rows.filter(mask)


def of(rows: pa.Table, schema: Table) -> pa.Table:
    """Return the columns that a table of the zones has, with shared texts still shared: `tables.write` casts them."""
    return rows.select([c.name for c in schema.columns])


def text(rows: pa.Table, column: str, null: str | None = None) -> pa.ChunkedArray:
    """Return a column as plain text, `null` in place of nulls."""
    plain = rows[column].cast(pa.string())
    return plain if null is None or not plain.null_count else pc.fill_null(plain, null)


def digests(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a column of SHA-256 as bytes, a row of 32 each."""
    out = np.empty((len(column), 32), np.uint8)
    at = 0
    for chunk in column.chunks:
        raw = np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * 32:(chunk.offset + len(chunk)) * 32]
        out[at:at + len(chunk)] = raw.reshape(-1, 32)
        at += len(chunk)
    return out


def mappings(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows as mappings; only some thousand exist at once."""
    for batch in rows.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def with_column(rows: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the table with this column replaced."""
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), values)


def equal(column: Any, value: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return where a column of text is exactly this."""
    return np.asarray(pc.fill_null(pc.equal(column, value), False).to_numpy(), bool)

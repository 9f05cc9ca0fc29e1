"""Facts of parts as one typed Parquet file, a row per instance.

Memory: one batch of the needed columns. Each different value of a column is read once a batch, not once a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.curate.headers import FIELDS, Field
from pipeline.curate.values import Cell, Malformed
from pipeline.schemas import FACTS, Column, Table, arrow_schema
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 8192
_ROW_GROUP = 65536
_VALUE, _CELL, _ABSENT = "\x1e", "\x1f", "\0"      # none of them can stand in a value that passed
_OWN = (Column("part", "int32", ""), Column("path", "string", ""), Column("digest", "string", ""))


def columns(fields: tuple[Field, ...] = FIELDS) -> tuple[Column, ...]:
    """Return the columns of the flat file: those of the facts, part, path and digest (hex), the fields and sources."""
    own = [*FACTS.columns, *_OWN]
    for field in fields:
        own.append(Column(field.name, field.type, ""))
        own += [Column(f"{field.name}_source", "string", "")] if field.sourced else []
    return tuple(own)


def write(
    candidate: ObjectStore,
    project: str,
    parts: Collection[str],
    without: Collection[str],
    target: Path,
    fields: tuple[Field, ...] = FIELDS,
) -> Counter[str]:
    """Write the flat file of all parts to `target`; return how many values of each column were malformed (null there).

    Instances in `without` are left out before anything is counted. An element path that a part has not is null.
    `part` numbers the parts by name. Raises NotFound, SchemaTooNew.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema(Table("flat", "", (), columns(fields)))
    malformed: Counter[str] = Counter()
    held = pa.array(sorted(without), pa.string())
    reader = _Reader(fields, malformed)
    with pq.ParquetWriter(target, schema, compression="zstd", compression_level=1) as sink:
        kept: list[pa.RecordBatch] = []
        for number, part in enumerate(sorted(set(parts))):
            with candidate.fetch(layout.facts(project, part)) as path:
                for batch in _batches(path, number, held, reader, schema):
                    kept.append(batch)
                    if sum(one.num_rows for one in kept) >= _ROW_GROUP:
                        sink.write_table(pa.Table.from_batches(kept, schema))
                        kept = []
        if kept:
            sink.write_table(pa.Table.from_batches(kept, schema))
    return malformed


def _batches(path: Any, number: int, held: pa.Array, reader: _Reader, schema: pa.Schema) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        tables.understood(file.schema_arrow)
        there = set(file.schema_arrow.names)
        # A part of an earlier version has no acquisition order.
        own = [name for name in FACTS.names() if name in there]
        wanted = own + sorted({p for f in reader.fields for p in f.paths} & there)
        for batch in file.iter_batches(_BATCH, columns=wanted, use_threads=False):
            kept = batch.filter(pc.invert(pc.is_in(batch.column("instance"), value_set=held)))
            rows = kept.num_rows
            arrays = [kept.column(n) if n in there else pa.nulls(rows, schema.field(n).type) for n in FACTS.names()]
            arrays += [pa.array([number] * rows, pa.int32()), *_named(kept)]
            arrays += reader.arrays(kept)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _named(batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """Return the path below the release's images, and the digest in hex."""
    import pyarrow as pa

    *names, raw = (batch.column(n).to_pylist() for n in ("patient", "study", "series", "instance", "sha256"))
    digests = [value.hex() for value in raw]
    paths = [layout.image_path(*row) for row in zip(*names, digests, strict=True)]
    return pa.array(paths, pa.string()), pa.array(digests, pa.string())


class _Reader:
    """The fields of a batch. A value that was read before is not read again."""

    def __init__(self, fields: tuple[Field, ...], malformed: Counter[str]) -> None:
        self.fields, self._malformed = fields, malformed
        self._known: dict[str, dict[str, tuple[Any, Any, bool]]] = {field.name: {} for field in fields}

    def arrays(self, batch: pa.RecordBatch) -> list[pa.Array]:
        import pyarrow.compute as pc

        names = {path for field in self.fields for path in field.paths} & set(batch.schema.names)
        cells = {name: pc.binary_join(batch.column(name), _VALUE) for name in names}
        return [array for field in self.fields for array in self._field(field, cells, batch.num_rows)]

    def _field(self, field: Field, cells: Mapping[str, pa.Array], rows: int) -> list[pa.Array]:
        import pyarrow as pa
        import pyarrow.compute as pc

        found = [cells.get(path, pa.nulls(rows, pa.string())) for path in field.paths]
        keys = pc.binary_join_element_wise(*found, _CELL, null_handling="replace", null_replacement=_ABSENT)
        if len(found) == 1:
            keys = pc.coalesce(found[0], _ABSENT)
        encoded = keys.dictionary_encode()
        read = [self._value(field, key) for key in encoded.dictionary.to_pylist()]
        if any(bad for _, _, bad in read):
            for entry in pc.value_counts(encoded.indices):
                if read[entry["values"].as_py()][2]:
                    self._malformed[field.name] += entry["counts"].as_py()
        types = {"string": pa.string(), "int32": pa.int32(), "float64": pa.float64(), "date": pa.date32()}
        out = [pa.array([value for value, _, _ in read], types[field.type]).take(encoded.indices)]
        if field.sourced:
            out.append(pa.array([source for _, source, _ in read], pa.string()).take(encoded.indices))
        return out

    def _value(self, field: Field, key: str) -> tuple[Any, Any, bool]:
        known = self._known[field.name]
        if key not in known:
            if len(known) >= 4096:
                known.clear()
            cells: list[Cell] = [None if c == _ABSENT else c.split(_VALUE) for c in key.split(_CELL)]
            try:
                value = field.read(*cells)
                known[key] = (*value, False) if field.sourced else (value, None, False)
            except Malformed:
                known[key] = (None, None, True)
        return known[key]

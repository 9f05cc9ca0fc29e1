"""Parquet in a zone: the same rows give the same bytes, and a reader refuses a newer schema."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import SchemaTooNew
from pipeline.schemas import SCHEMA_VERSION, Column, Table, arrow_schema
from pipeline.storage.base import ObjectStore

GROUP = 131_072     # rows of a row group


def to_bytes(table: pa.Table, schema: Table | None = None) -> bytes:
    """Return the table as Parquet bytes that depend on nothing but its rows and schema; `schema` as in `conform`.

    Row groups are written one by one, so that however the table is held, and however large it is, the bytes are the
    same and only a group is copied.
    """
    sink = io.BytesIO()
    target = arrow_schema(schema) if schema else table.schema
    with pq.ParquetWriter(sink, target, compression="zstd", write_statistics=True, store_schema=True) as writer:
        for start in range(0, table.num_rows or 1, GROUP):
            part = table.slice(start, GROUP)
            writer.write_table((conform(schema, part) if schema else part).combine_chunks(), row_group_size=GROUP)
    return sink.getvalue()


def conform(schema: Table, table: pa.Table) -> pa.Table:
    """Return the table with exactly this schema: columns by name, texts that are held as dictionaries plain."""
    arrow = arrow_schema(schema)
    return pa.Table.from_arrays([table[f.name].cast(f.type) for f in arrow], schema=arrow)


def from_rows(schema: Table, rows: Iterable[Mapping[str, Any]], extra: tuple[Column, ...] = ()) -> pa.Table:
    """Return rows (mappings by column name) as an Arrow table of this schema; a missing column is null."""
    arrow = arrow_schema(schema, extra)
    rows = list(rows)
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in arrow]
    return pa.Table.from_arrays(columns, schema=arrow)


def write(store: ObjectStore, key: str, table: pa.Table, schema: Table | None = None) -> None:
    """Write the table; `schema`: conform to it, a row group at a time."""
    store.write(key, to_bytes(table, schema))


def read(store: ObjectStore, key: str, columns: list[str] | None = None) -> pa.Table:
    """Return the table at `key`. Raises NotFound, SchemaTooNew."""
    return from_bytes(store.read(key), columns)


def from_bytes(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """Return the table that a Parquet file's bytes hold. Raises SchemaTooNew."""
    # One thread: a pool that still runs when a short command ends can abort the process on its way out.
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        table = file.read(columns=columns, use_threads=False)
    understood(table.schema)
    return table


def schema(path: Path) -> pa.Schema:
    """Return the schema of a local Parquet file. Raises SchemaTooNew."""
    found = pq.read_schema(path)
    understood(found)
    return found


def rows(path: Path) -> int:
    """Return the number of rows of a local Parquet file."""
    return int(pq.read_metadata(path).num_rows)


def understood(schema: pa.Schema) -> None:
    """Raise SchemaTooNew where a newer version wrote a table with this schema."""
    if int((schema.metadata or {}).get(b"schema_version", b"0")) > SCHEMA_VERSION:
        raise SchemaTooNew("A table was written by a newer version.", hint="Upgrade tre-ingest.")


class Stored(Mapping[str, pa.Table]):
    """Tables in a zone by name, each read when it is asked for and not kept. Raises NotFound, SchemaTooNew."""

    def __init__(self, store: ObjectStore, keys: Mapping[str, str]) -> None:
        self._store, self._keys = store, dict(keys)

    def __getitem__(self, name: str) -> pa.Table:
        return read(self._store, self._keys[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    @contextmanager
    def fetched(self) -> Iterator[dict[str, Path]]:
        """Lend the tables as local files."""
        with ExitStack() as stack:
            files = {name: stack.enter_context(self._store.fetch(key)) for name, key in self._keys.items()}
            for path in files.values():
                understood(pq.read_schema(path))
            yield files

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


def to_bytes(table: pa.Table) -> bytes:
    """Return the table as Parquet bytes that depend on nothing but its rows and schema."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_statistics=True, store_schema=True)
    return sink.getvalue()


def from_rows(schema: Table, rows: Iterable[Mapping[str, Any]], extra: tuple[Column, ...] = ()) -> pa.Table:
    """Return rows (mappings by column name) as an Arrow table of this schema; a missing column is null."""
    arrow = arrow_schema(schema, extra)
    rows = list(rows)
    columns = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in arrow]
    return pa.Table.from_arrays(columns, schema=arrow)


def write(store: ObjectStore, key: str, table: pa.Table) -> None:
    store.write(key, to_bytes(table))


def read(store: ObjectStore, key: str, columns: list[str] | None = None) -> pa.Table:
    """Return the table at `key`. Raises NotFound, SchemaTooNew."""
    # One thread: a pool that still runs when a short command ends can abort the process on its way out.
    with pq.ParquetFile(pa.BufferReader(store.read(key))) as file:
        table = file.read(columns=columns, use_threads=False)
    _understood(table.schema)
    return table


def _understood(schema: pa.Schema) -> None:
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
                _understood(pq.read_schema(path))
            yield files

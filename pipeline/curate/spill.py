"""Tables too large for memory: a database on disk to make them in, and files that are read when they are asked for."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.schemas import Table, arrow_schema

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from pipeline.storage import ObjectStore

_MEMORY = "320MB"           # of DuckDB; what does not fit is on disk
_ROW_GROUP = 32768
_BATCH = 8192


class Spill:
    """A folder that goes away with its owner, and a DuckDB database in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tre-curate-"))
        self._gone = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Open the database. One thread: the same rows in the same order, whatever the machine."""
        import duckdb

        config: dict[str, str | bool | int | float | list[str]] = {"memory_limit": _MEMORY, "threads": 1,
            "temp_directory": str(self.folder / "spill"), "preserve_insertion_order": False}
        return duckdb.connect(str(self.folder / "tables.duckdb"), config=config)

    def remove(self) -> None:
        self._gone()


class Tables(Mapping[str, "pa.Table"]):
    """Tables by name, each a Parquet file that is read when it is asked for."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._rows: dict[str, int] = {}

    def path(self, name: str) -> Path:
        return self._spill.folder / f"{name}.parquet"

    def rows(self, name: str) -> int:
        return self._rows[name]

    def __getitem__(self, name: str) -> pa.Table:
        import pyarrow.parquet as pq

        if name not in self._rows:
            raise KeyError(name)
        with pq.ParquetFile(self.path(name)) as file:
            return file.read(use_threads=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @contextmanager
    def fetched(self) -> Iterator[dict[str, Path]]:
        """Lend the tables as local files, as `storage.tables.Stored` does."""
        yield {name: self.path(name) for name in self._rows}

    def put(self, store: ObjectStore, name: str, key: str) -> None:
        """Put a table's file into a zone; durable once `store.settle` returns."""
        path = self.path(name)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
        store.put_file(key, path, digest)

    def add(self, schema: Table, db: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Make a table from a query, whose columns are the schema's, by name; its rows are as the query orders them."""
        import pyarrow.parquet as pq

        # By way of a file: DuckDB would hold the whole of an ordered result before it gives the first rows.
        raw = self._spill.folder / f"{schema.name}.raw"
        db.execute(f"COPY ({sql}) TO '{raw}' (FORMAT parquet, ROW_GROUP_SIZE {_ROW_GROUP})")
        with pq.ParquetFile(raw) as file:
            self.add_batches(schema, file.iter_batches(_BATCH, use_threads=False))
        raw.unlink()

    def add_table(self, name: str, table: pa.Table) -> None:
        """Take a table as it is."""
        import pyarrow.parquet as pq

        pq.write_table(table, self.path(name), compression="zstd", write_statistics=True, store_schema=True)
        self._rows[name] = table.num_rows

    def add_batches(self, schema: Table, batches: Iterator[pa.RecordBatch] | pa.RecordBatchReader) -> None:
        """Make a table from batches of rows, in their order."""
        import pyarrow.parquet as pq

        arrow = arrow_schema(schema)
        n = 0
        with pq.ParquetWriter(self.path(schema.name), arrow, compression="zstd", write_statistics=True,
                              store_schema=True) as sink:
            waiting: list[pa.RecordBatch] = []
            for batch in batches:
                waiting.append(batch)
                if sum(one.num_rows for one in waiting) >= _ROW_GROUP:
                    sink.write_table(_cast(waiting, arrow), row_group_size=_ROW_GROUP)
                    n += sum(one.num_rows for one in waiting)
                    waiting = []
            if waiting or not n:
                sink.write_table(_cast(waiting, arrow), row_group_size=_ROW_GROUP)
                n += sum(one.num_rows for one in waiting)
        self._rows[schema.name] = n


def _cast(batches: list[pa.RecordBatch], arrow: pa.Schema) -> pa.Table:
    import pyarrow as pa

    if not batches:
        return arrow.empty_table()
    rows = pa.Table.from_batches(batches)
    columns = []
    for field in arrow:
        column = rows[field.name]
        if pa.types.is_dictionary(field.type):
            column = column.cast(pa.string()).combine_chunks().dictionary_encode()
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=arrow)

"""Questions to tables that need not fit in memory: Parquet files as views of a DuckDB that spills to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MEMORY = "320MB"


@contextmanager
def database(tables: Mapping[str, Path]) -> Iterator[DuckDBPyConnection]:
    """Lend a database with a view for each table; one thread, so that the answer is the same on every machine."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="tre-query-") as folder, duckdb.connect(
            config={"threads": 1, "memory_limit": _MEMORY, "temp_directory": folder}) as db:
        for name, path in tables.items():
            db.read_parquet(str(path)).create_view(name)
        yield db


@contextmanager
def opened(tables: Mapping[str, Path]) -> Iterator[Callable[[str], tuple[Any, ...]]]:
    """Lend a function that answers a query of one row."""
    with database(tables) as db:
        yield lambda sql: db.execute(sql).fetchone() or ()

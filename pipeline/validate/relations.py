"""Tables as DuckDB relations, read as they are needed, with columns computed for the checks that span tables.

Computed columns, which stand in no published table:
- `<column>_is_in_<table>`: the reference holds (schemas.Table.references; for a clinical table, patient_id);
- `n_..._counted`: how many rows the child table has;
- `<column>_of_<parent>`: what the parent row says, for columns that both have;
- `path_expected`: the path that layout gives for the row.

`_row` is a row's position in its table, from 0. One thread and a limit of memory; what does not fit is spilled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.schemas import PUBLISHED

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

CHUNK = 100_000         # rows of a frame
DEAL = 200_000          # rows of a frame of one key or column
MEMORY = "256MB"        # of DuckDB; what does not fit is spilled
ROW = "_row"
_PATH = ("patient_id", "study_uid", "series_uid", "sop_instance_uid", "sha256")     # what a path is made of
_BY_NAME = {table.name: table for table in PUBLISHED}
# child table, its column that names the parent, parent's column that counts
_COUNTED = (
    ("studies", "patient_id", "patients", "n_studies"),
    ("instances", "patient_id", "patients", "n_instances"),
    ("series", "study_uid", "studies", "n_series"),
    ("instances", "study_uid", "studies", "n_instances"),
    ("instances", "series_uid", "series", "n_instances"),
)
# child table, its column that names the parent, parent table, columns that both have
_INHERITED = (
    ("series", "study_uid", "studies", ("patient_id",)),
    ("instances", "series_uid", "series", ("study_uid", "patient_id")),
    ("exposures", "sop_instance_uid", "instances", ("series_uid", "study_uid", "patient_id")),
)


class Relations:
    """The tables of a candidate: Arrow tables in memory, or Parquet files on disk. A context manager."""

    def __init__(self, given: Mapping[str, pa.Table | Path]) -> None:
        self._given = dict(given)
        self._rows: dict[str, int] = {}
        self._columns: dict[str, list[str]] = {}
        self._unique: dict[str, bool] = {}
        self._computed: dict[str, dict[str, tuple[str, str]]] = {}

    def __enter__(self) -> Relations:
        import duckdb
        import numpy as np
        import pyarrow as pa

        self._spill = tempfile.TemporaryDirectory()
        self._db = duckdb.connect(
            config={"memory_limit": MEMORY, "threads": 1, "temp_directory": self._spill.name,
                    "preserve_insertion_order": False})
        for name, source in self._given.items():
            if isinstance(source, Path):
                file = str(source).replace("'", "''")
                self._db.execute(
                    f"CREATE VIEW {quoted(name)} AS SELECT * EXCLUDE file_row_number, file_row_number AS {ROW} "  # noqa: S608
                    f"FROM read_parquet('{file}', file_row_number = true)")
            else:
                for place, column in enumerate(source.schema):
                    if pa.types.is_dictionary(column.type):
                        plain = source[column.name].cast(column.type.value_type)
                        source = source.set_column(place, column.name, plain)
                places = pa.array(np.arange(source.num_rows, dtype="int64"))
                self._db.register(name, source.append_column(ROW, places))
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()
        self._spill.cleanup()

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def rows(self, name: str) -> int:
        if name not in self._rows:
            self._rows[name] = int(self._one(f"SELECT count(*) FROM {quoted(name)}"))  # noqa: S608
        return self._rows[name]

    def columns(self, name: str) -> list[str]:
        """Return the table's own columns, then the computed ones, in their order."""
        return [*self._own(name), *self.computed(name)]

    def computed(self, name: str) -> dict[str, tuple[str, str]]:
        """Return the computed columns: (expression over `t`, the join that it needs or "")."""
        if name not in self._computed:
            self._computed[name] = self._definitions(name)
        return self._computed[name]

    def one_per_value(self, name: str, column: str) -> bool:
        """Whether no two rows have the same value: the join then keeps rows one."""
        key = f"{name}.{column}"
        if key not in self._unique:
            self._unique[key] = bool(self._one(
                f"SELECT count({quoted(column)}) = count(DISTINCT {quoted(column)}) FROM {quoted(name)}"))  # noqa: S608
        return self._unique[key]

    def sql(self, name: str, columns: Collection[str]) -> str:
        """Return a query of these columns and `_row`, with the joins they need and no other."""
        computed = self.computed(name)
        joins = dict.fromkeys(computed[c][1] for c in columns if c in computed)
        picked = [f"{computed[c][0]} AS {quoted(c)}" if c in computed else f"t.{quoted(c)}" for c in columns]
        return f"SELECT {', '.join([*picked, f't.{ROW}'])} FROM {quoted(name)} t {' '.join(joins)}"  # noqa: S608

    def chunks(self, query: str, size: int | None = None) -> Iterator[tuple[pa.Table, np.ndarray[Any, Any]]]:
        """Yield at most `size` (CHUNK) rows at a time, and the last column of the query beside them; at least once."""
        reader = self._db.sql(query).to_arrow_reader(size or CHUNK)
        found = False
        while True:
            try:        # no name holds the batch while it is away
                made = _last(_arrow([reader.read_next_batch()]))
            except StopIteration:
                break
            if len(made[1]):
                found = True
                yield made
        if not found:
            yield _last(reader.schema.empty_table())

    def whole(self, query: str) -> tuple[pa.Table, np.ndarray[Any, Any]]:
        """Return all that the query gives, and its last column."""
        return _last(self.query(query))

    def many(self, name: str, columns: Sequence[str], sample: int) -> dict[str, int]:
        """Return how many values each of these columns of the table itself has in its first rows."""
        def count(column: str) -> int:
            first = f"SELECT {quoted(column)} AS c FROM {quoted(name)} LIMIT {sample}"  # noqa: S608
            return int(self._one(f"SELECT count(DISTINCT c) FROM ({first})"))  # noqa: S608

        return {column: count(column) for column in columns}

    def rows_with(self, name: str, column: str, values: pa.Array) -> np.ndarray[Any, Any]:
        """Return the positions of the rows that have one of these values (null is a value)."""
        import pyarrow as pa

        self._db.register("_values", pa.table({"v": values}))
        try:
            found = self.query(
                f"SELECT DISTINCT r.{ROW} FROM ({self.sql(name, [column])}) r "  # noqa: S608
                f"JOIN _values ON r.{quoted(column)} IS NOT DISTINCT FROM _values.v")
        finally:
            self._db.unregister("_values")
        return found[0].to_numpy()  # type: ignore[no-any-return]

    def make(self, name: str, query: str) -> None:
        """Make or replace a table of what a query gives, with `_row`."""
        self._db.execute(
            f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS "  # noqa: S608
            f"SELECT *, row_number() OVER () - 1 AS {ROW} FROM ({query})")
        self._given[name] = Path()
        self._rows.pop(name, None)
        self._columns.pop(name, None)
        self._computed.clear()

    def give(self, name: str, table: pa.Table) -> None:
        """Make or replace a table of these rows, for `query` and `make`."""
        self._db.register("_given", table)
        self._db.execute(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS SELECT * FROM _given")  # noqa: S608
        self._db.unregister("_given")
        self._columns.pop(name, None)

    def types(self, name: str) -> dict[str, str]:
        """Return DuckDB's type of each of the table's own columns."""
        found = self._db.sql(f"SELECT * FROM {quoted(name)} LIMIT 0")  # noqa: S608
        return {c: str(t) for c, t in zip(found.columns, found.types, strict=True) if c != ROW}

    def query(self, query: str) -> pa.Table:
        return self._db.sql(query).to_arrow_table()

    def _one(self, query: str) -> Any:
        return self.query(query)[0][0].as_py()

    def _own(self, name: str) -> list[str]:
        if name not in self._columns:
            found = self.query(f"SELECT * FROM {quoted(name)} LIMIT 0")  # noqa: S608
            self._columns[name] = [c for c in found.column_names if c != ROW]
        return self._columns[name]

    def _definitions(self, name: str) -> dict[str, tuple[str, str]]:
        out: dict[str, tuple[str, str]] = {}
        own = set(self._own(name))
        references = _BY_NAME[name].references if name in _BY_NAME else (("patient_id", "patients"),)
        for column, parent in references:
            if column in own and parent in self:
                key = quoted(_BY_NAME[parent].key[0])
                out[f"{column}_is_in_{parent}"] = (
                    f"CASE WHEN t.{quoted(column)} IS NOT NULL THEN "  # noqa: S608  # null refers to nothing
                    f"coalesce(t.{quoted(column)} IN (SELECT {key} FROM {quoted(parent)}), false) END", "")
        for child, key, parent, column in _COUNTED:
            if parent == name and child in self:
                alias = f"counted_{child}_{key}"
                out[f"{column}_counted"] = (
                    f"coalesce({alias}.n, 0)::INTEGER",
                    f"LEFT JOIN (SELECT {key} AS k, count(*) AS n FROM {child} GROUP BY {key}) {alias} "  # noqa: S608
                    f"ON {alias}.k = t.{key}")
        for child, key, parent, columns in _INHERITED:
            if child == name and parent in self and key in own:
                once = "" if self.one_per_value(parent, key) else (
                    f" QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {ROW}) = 1")
                join = (f"LEFT JOIN (SELECT {', '.join((key, *columns))} FROM {parent}{once}) of_{parent} "  # noqa: S608
                        f"ON of_{parent}.{key} = t.{key}")
                out |= {f"{column}_of_{parent}": (f"of_{parent}.{column}", join) for column in columns}
        if name == "instances" and set(_PATH) <= own:
            out["path_expected"] = (_path_expression(), "")
        return out


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _path_expression() -> str:
    """Return layout.image_path as SQL over `t`, taken from what layout does with marks in place of values."""
    marks = dict(zip("\ue000\ue001\ue002\ue003\ue004", _PATH, strict=True))
    patient, study, series, instance, digest = marks
    pieces: list[str] = []
    path = layout.image_path(patient, study, series, instance, digest * 64)
    while path:
        column = marks.get(path[0])
        if column == "sha256":
            digits = len(path) - len(path.lstrip(digest))
            pieces.append(f"left(coalesce(t.sha256, ''), {digits})")
            path = path[digits:]
        elif column:
            pieces.append(f"coalesce(t.{column}, '')")
            path = path[1:]
        else:
            literal = path[: next((n for n, c in enumerate(path) if c in marks), len(path))]
            pieces.append("'" + literal.replace("'", "''") + "'")
            path = path[len(literal):]
    return " || ".join(pieces)


def _arrow(batches: list[pa.RecordBatch]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_batches(batches)


def _last(table: pa.Table) -> tuple[pa.Table, np.ndarray[Any, Any]]:
    last = table.column_names[-1]
    return table.drop_columns([last]), table[last].to_numpy()


def numbered(table: pa.Table) -> pa.Table:
    """Return the table with numbers in place of texts, the same for the same in every column: for questions of
    equality alone. They are doubles, whose null is equal to nothing, as a text's is."""
    import pyarrow as pa

    texts = [n for n, column in enumerate(table.columns) if pa.types.is_string(column.type)]
    if texts:
        every = pa.chunked_array([chunk for n in texts for chunk in table.column(n).chunks], pa.string())
        codes = every.combine_chunks().dictionary_encode().indices.cast(pa.float64())
        for place, n in enumerate(texts):
            made = codes.slice(place * table.num_rows, table.num_rows)
            table = table.set_column(n, table.column_names[n], made)
    return table


def frame(table: pa.Table) -> pd.DataFrame:
    """Return an Arrow table as a frame. Null stays null: no integer becomes a float. Texts are Python's: patterns of
    the suites are Python's, whatever library is installed beside."""
    import pandas as pd
    import pyarrow as pa

    types = {
        pa.string(): pd.StringDtype("python", na_value=float("nan")),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    out: pd.DataFrame = table.to_pandas(types_mapper=types.get, date_as_object=True)
    if not table.num_columns:
        out = pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    return out

"""What a table is: columns with type, unit, meaning, source; and its Arrow schema. pyarrow is imported on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
Type = Literal["string", "int32", "int64", "float64", "date", "bool", "sha256", "strings", "term"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: Type
    meaning: str
    unit: str = ""
    source: str = ""            # DICOM keyword and tag, or the rule that computes it
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    meaning: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    references: tuple[tuple[str, str], ...] = ()    # (column, table that has it as its key)

    def names(self) -> list[str]:
        return [c.name for c in self.columns]


def column(name: str, type: Type, meaning: str, unit: str = "", source: str = "", null: bool = True) -> Column:
    return Column(name, type, meaning, unit, source, null)


def arrow_schema(table: Table, extra: tuple[Column, ...] = ()) -> pa.Schema:
    """Return the pyarrow schema of a table, `schema_version` and table name in its metadata."""
    import pyarrow as pa

    types = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "float64": pa.float64(), "date": pa.date32(),
        "bool": pa.bool_(), "sha256": pa.binary(32), "strings": pa.list_(pa.string()),
        "term": pa.dictionary(pa.int32(), pa.string()),     # text of few different values, each held once
    }
    fields = [pa.field(c.name, types[c.type], nullable=c.nullable) for c in (*table.columns, *extra)]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "table": table.name})

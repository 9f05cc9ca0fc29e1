"""Clinical files read: CSV, gzip of it, or Parquet → cells as text by declared column.

A file is refused whole where its rows cannot be told apart: another header, an unclosed quote, damaged gzip or Parquet,
a type that no cell of text can stand for. One bad row is given as `None`, or its cell as `BAD`, and the rest goes on.
No message holds a cell or an undeclared column's name.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ClinicalRefused
from pipeline.sections import Clinical

if TYPE_CHECKING:
    import pyarrow as pa

LARGEST = 1 << 30               # bytes of a file, unpacked
BATCH = 20_000                  # rows of a Parquet file at a time
PARQUET = b"PAR1"
# A cell whose bytes are not UTF-8. It equals no value that anybody can declare, and no number of a person.
BAD = "\udcff"
_MARKS = (b"\xff\xfe", b"\xfe\xff")         # byte order marks of UTF-16 (and, in part, UTF-32)
_ESCAPED = re.compile("[\udc80-\udcff]")    # what `surrogateescape` leaves of bytes that are not UTF-8
_MIDNIGHT = re.compile(r"[ T]00:00:00(\.0+)?\Z")
Row = dict[str, str]


def read(table: str, path: Path) -> bytes:
    """Return a clinical file's bytes, of gzip unpacked. Raises ClinicalRefused."""
    packed = path.name.endswith(".csv.gz")
    if not packed and path.suffix not in (".csv", ".parquet"):
        raise ClinicalRefused(f"Clinical table {table}: only .csv, .csv.gz and .parquet are read.")
    try:
        with gzip.open(path, "rb") if packed else path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ClinicalRefused(f"Clinical table {table}: the gzip file is damaged.") from None
    except OSError as error:
        raise ClinicalRefused(f"Clinical table {table}: its file cannot be read ({error.strerror}).") from None
    if len(data) > LARGEST:
        raise ClinicalRefused(f"Clinical table {table}: its file is larger than {LARGEST} bytes.")
    if (path.suffix == ".parquet") != (data[:4] == PARQUET):
        raise ClinicalRefused(f"Clinical table {table}: its bytes are not what the file's name says.")
    return data


def rows(declared: Clinical, data: bytes, *, linked: bool) -> Iterator[tuple[int, Row | None]]:
    """Yield (number from 1, cells by column; None where it has another number of fields). Raises ClinicalRefused.

    Columns to drop are not decoded. A cell is text, empty where null; of bytes that are not UTF-8 it is BAD. `linked`:
    the identity is an NHS number, which loses nothing where it is written as a whole number.
    """
    wanted = {name: column.role for name, column in declared.columns.items() if column.role != "drop"}
    if data[:4] == PARQUET:
        yield from _parquet(declared, data, wanted, linked)
    else:
        yield from _csv(declared, data, wanted)


def _header(declared: Clinical, header: Sequence[str]) -> None:
    strange = [str(n) for n, name in enumerate(header, 1)
               if name not in declared.columns or name in header[: n - 1]]
    missing = [name for name in declared.columns if name not in header]
    if strange or missing:
        raise ClinicalRefused(
            f"Clinical table {declared.table}: columns undeclared or repeated, by position: "
            f"{', '.join(strange) or 'none'}; declared columns missing: {', '.join(missing) or 'none'}.",
            hint="Declare every column of the file in the project file, those not wanted with the role drop.")


# ---- CSV -----------------------------------------------------------------------------------------------------------
def _csv(declared: Clinical, data: bytes, wanted: Mapping[str, str]) -> Iterator[tuple[int, Row | None]]:
    where = f"Clinical table {declared.table}"
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = csv.reader(text, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        if data.startswith(_MARKS) or _ESCAPED.search("".join(header)):
            raise ClinicalRefused(f"{where}: the file is not UTF-8.")
        _header(declared, header)
        places = [(name, header.index(name)) for name in wanted]
        identity = next(at for name, at in places if wanted[name] == "identity")
        number, started = 0, lines.line_num
        for row in lines:
            spanned, started = lines.line_num - started, lines.line_num
            if not row:
                continue
            number += 1
            if spanned > 1 and _swallows(row, len(header), identity):
                raise ClinicalRefused(f"{where}, line {lines.line_num}: a quoted field holds what looks like rows.",
                                      hint="A quotation mark is missing or too many above that line.")
            if len(row) != len(header):
                yield number, None
            else:
                yield number, {name: BAD if _ESCAPED.search(row[at]) else row[at] for name, at in places}
    except csv.Error:
        raise ClinicalRefused(f"{where}, line {lines.line_num}: not CSV.") from None


def _swallows(row: list[str], fields: int, identity: int) -> bool:
    """Whether a cell of several lines holds a whole row: a stray quotation mark would lose people in silence.

    Free text may have lines with as many commas; a row has a number, too, where the person's stands.
    """
    inner = (line.split(",") for cell in row for line in cell.splitlines()[1:])
    return any(len(cells) >= fields and any(c.isdigit() for c in cells[identity]) for cells in inner)


# ---- Parquet -------------------------------------------------------------------------------------------------------
def _parquet(
    declared: Clinical, data: bytes, wanted: Mapping[str, str], linked: bool
) -> Iterator[tuple[int, Row | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    where = f"Clinical table {declared.table}"
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            names = [name.strip() for name in file.schema_arrow.names]
            _header(declared, names)
            columns = {name: file.schema_arrow.names[names.index(name)] for name in wanted}
            _flat(where, declared, file.schema_arrow)
            for name, role in wanted.items():
                if not _fits(file.schema_arrow.field(columns[name]).type, role, linked):
                    raise ClinicalRefused(f"{where}, column {name}: its type cannot be read as {role}.")
            number = 0
            for batch in file.iter_batches(BATCH, columns=list(columns.values()), use_threads=False):
                cells = {name: _texts(batch.column(source)) for name, source in columns.items()}
                for at in range(batch.num_rows):
                    number += 1
                    yield number, {name: texts[at] for name, texts in cells.items()}
            if number != file.metadata.num_rows:
                raise ClinicalRefused(f"{where}: the Parquet file is damaged.")
    except (pa.ArrowException, OSError):
        raise ClinicalRefused(f"{where}: the Parquet file is damaged, encrypted or of an unknown kind.") from None


def _flat(where: str, declared: Clinical, schema: pa.Schema) -> None:
    """Refuse nested columns, those to drop among them: what a nested column holds nobody has declared."""
    import pyarrow as pa

    nested = [field.name.strip() for field in schema if pa.types.is_nested(field.type)]
    if nested:
        raise ClinicalRefused(f"{where}: nested columns: {', '.join(n for n in declared.columns if n in nested)}.")


def _fits(kind: pa.DataType, role: str, linked: bool) -> bool:
    """Whether text of this role can be had from a column of this type without guessing.

    A date with a time zone is another date elsewhere; a number has lost the zeros that a local id began with.
    """
    import pyarrow as pa

    t = pa.types
    if t.is_dictionary(kind):
        kind = kind.value_type
    if t.is_null(kind) or t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind):
        return True
    whole = t.is_integer(kind)
    fits = {
        "identity": whole and linked, "identifier": whole, "category": whole or t.is_boolean(kind),
        "number": whole or t.is_floating(kind) or t.is_decimal(kind),
        "event_date": t.is_date(kind) or (t.is_timestamp(kind) and kind.tz is None),
    }
    return bool(fits[role])


def _texts(column: pa.Array) -> list[str]:
    """Return a column's values as text, null as the empty text: dates as yyyy-mm-dd, booleans as True and False."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_boolean(kind):
        return ["" if value is None else str(value) for value in column.to_pylist()]
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
    # bytes, for a string column is UTF-8 by promise alone
    raw = (None if value is None else bytes(value) for value in column.cast(pa.string()).cast(pa.binary()).to_pylist())
    texts = ["" if value is None else value.decode("utf-8", "surrogateescape") for value in raw]
    if pa.types.is_timestamp(kind):
        return [_MIDNIGHT.sub("", text) for text in texts]
    return [BAD if _ESCAPED.search(text) else text for text in texts]

"""Parquet in a zone: bytes follow from rows and schema, however the table is held."""

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schemas import SEEN, arrow_schema
from pipeline.storage import tables


def test_bytes_do_not_depend_on_chunks_or_dictionaries(monkeypatch):
    monkeypatch.setattr(tables, "GROUP", 4)
    rows = [{"kind": "uid" if n % 3 else "sha256", "digest": bytes([n]) * 32, "batch": f"b-{n // 5}",
             "source_sha256": bytes([n]) * 32} for n in range(11)]
    whole = tables.from_rows(SEEN, rows)
    pieces = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 7), whole.slice(10)])
    shared = pa.table({name: pieces[name].dictionary_encode() if name in ("kind", "batch") else pieces[name]
                       for name in reversed(pieces.column_names)})
    expected = tables.to_bytes(whole)
    assert tables.to_bytes(pieces) == tables.to_bytes(shared, SEEN) == expected
    with pq.ParquetFile(pa.BufferReader(expected)) as file:
        assert file.metadata.num_row_groups == 3
        assert file.read(use_threads=False).to_pylist() == rows


def test_a_table_without_rows_keeps_its_schema():
    data = tables.to_bytes(tables.from_rows(SEEN, []))
    assert pq.read_schema(pa.BufferReader(data)).equals(arrow_schema(SEEN), check_metadata=True)

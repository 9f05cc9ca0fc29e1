"""Write the catalogue: a row per released image, a column per kept element path, from the facts of parts.

The grain is the image, not the series: the images of one mammography series are four views with a force and a dose
each, and a filter over several elements must be met by one of them. What a series shares costs next to nothing, for
rows are sorted by person, study and series, and Parquet writes a run of equal values once.

Rows come out of the parts in the parts' order, which would tell who landed together, so all are sorted. They are first
dealt to files of about ROWS rows by ranges of the person's pseudonym, then each file is sorted and written as a row
group: memory is that of one row group, whatever the size of the release.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.catalogue.elements import element
from pipeline.schemas import FACTS, Column, arrow_schema
from pipeline.schemas.catalogue import CATALOGUE
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 20_000
_KEYS = ("patient", "study", "series", "instance")     # of the facts; the catalogue's first columns, in its words
# The items of a structured report under one path would say nothing: they are rows of measurements and findings.
LEFT_OUT = "ContentSequence."


@dataclass(frozen=True, slots=True)
class Written:
    """The catalogue as it was written: `rows`, and its entry in the data dictionary."""

    rows: int
    entry: dict[str, Any]


def write(
    candidate: ObjectStore, project: str, parts: Collection[str], without: Collection[str], out: Path
) -> Written:
    """Write the catalogue of all images of these parts but those in `without` to the local file `out`.

    Values stand as the de-identified file has them: lists of text, null where the element is absent. Raises NotFound
    where a part's facts are missing, SchemaTooNew.
    """
    import pyarrow as pa

    held = pa.array(sorted(without), pa.string())
    with ExitStack() as stack:
        files = [stack.enter_context(candidate.fetch(layout.facts(project, part))) for part in sorted(set(parts))]
        spill = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        people, paths = _survey(files, held)
        schema = arrow_schema(CATALOGUE, tuple(Column(path, "strings", "") for path in paths))
        buckets = _deal(files, held, paths, people, schema, spill)
        rows, stated = _sorted_into(out, buckets, schema)
    return Written(rows, _entry(paths, rows, stated))


def _survey(files: Sequence[Path], held: pa.Array) -> tuple[pa.Table, list[str]]:
    """Return the released people (`patient`, sorted) with the file that each is dealt to (`file`), and the union of all
    element paths. A file holds about ROWS images, and every image of its people."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    counts: list[pa.Table] = []
    paths: set[str] = set()
    for path in files:
        with pq.ParquetFile(path) as file:
            tables.understood(file.schema_arrow)
            names = set(file.schema_arrow.names) - set(FACTS.names())
            paths |= {name for name in names if not name.startswith(LEFT_OUT)}
            rows = _without(file.read(["patient", "instance"], use_threads=False), held)
        people, images = rows["patient"].value_counts().flatten()
        counts.append(pa.table({"patient": people, "images": images}))
    empty = pa.table({"patient": pa.array([], pa.string()), "images": pa.array([], pa.int64())})
    total = pa.concat_tables([empty, *counts]).group_by("patient", use_threads=False).aggregate([("images", "sum")])
    total = total.sort_by("patient")
    images = total["images_sum"].to_numpy()
    before = np.cumsum(images) - images
    return pa.table({"patient": total["patient"], "file": pa.array(before // ROWS, pa.int32())}), sorted(paths)


def _without(rows: Any, held: pa.Array) -> Any:
    import pyarrow.compute as pc

    return rows.filter(pc.invert(pc.is_in(rows["instance"], value_set=held)))


def _deal(
    files: Sequence[Path], held: pa.Array, paths: list[str], people: pa.Table, schema: pa.Schema, spill: Path
) -> list[Path]:
    """Deal every row to the file of its person; return the files, in order of the people."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names, numbers = people["patient"].combine_chunks(), people["file"].combine_chunks()
    where = [spill / f"{n}.arrow" for n in range(numbers[-1].as_py() + 1 if len(numbers) else 0)]
    with ExitStack() as stack:
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        sinks = [stack.enter_context(pa.ipc.new_stream(str(path), schema, options=options)) for path in where]
        for table in _gathered(files, held, paths, schema):
            mine = numbers.take(pc.index_in(table["patient_id"].combine_chunks(), value_set=names))
            order = pc.sort_indices(mine)
            sorted_rows, mine, start = table.take(order), mine.take(order), 0
            for run in pc.run_end_encode(mine).run_ends.to_pylist():
                sinks[mine[start].as_py()].write_table(sorted_rows.slice(start, run - start))
                start = run
    return where


def _gathered(files: Sequence[Path], held: pa.Array, paths: list[str], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the facts as rows of the catalogue, about ROWS at a time: many parts are small."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting: list[pa.RecordBatch] = []
    for path in files:
        with pq.ParquetFile(path) as file:
            there = set(file.schema_arrow.names)
            wanted = [*_KEYS, *(name for name in paths if name in there)]
            for batch in file.iter_batches(4096, columns=wanted, use_threads=False):
                waiting.append(_row_batch(_without(batch, held), paths, schema))
                if sum(one.num_rows for one in waiting) >= ROWS:
                    yield pa.Table.from_batches(waiting, schema).combine_chunks()
                    waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting, schema).combine_chunks()


def _row_batch(batch: pa.RecordBatch, paths: list[str], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    there = set(batch.schema.names)
    absent = pa.nulls(batch.num_rows, pa.list_(pa.string()))
    columns = [batch.column(name) for name in _KEYS]
    columns += [batch.column(path) if path in there else absent for path in paths]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _sorted_into(out: Path, buckets: list[Path], schema: pa.Schema) -> tuple[int, dict[str, list[int]]]:
    """Write each bucket, sorted, as a row group. Return rows, and by path [images, people] that state it."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    rows, stated = 0, {name: [0, 0] for name in schema.names[len(_KEYS):]}
    with pq.ParquetWriter(out, schema, compression="zstd", write_statistics=True, store_schema=True) as writer:
        for path in buckets:
            with pa.ipc.open_stream(str(path)) as stream:
                table = stream.read_all()
            path.unlink()
            if not table.num_rows:      # the person before has more images than a file is meant for
                continue
            table = table.take(pc.sort_indices(table, [(name, "ascending") for name in schema.names[:len(_KEYS)]]))
            writer.write_table(table.combine_chunks(), row_group_size=ROWS)
            rows += table.num_rows
            _count(table, stated)
        writer.add_key_value_metadata({"stated": json.dumps(stated, sort_keys=True)})
    return rows, stated


def _count(table: pa.Table, stated: dict[str, list[int]]) -> None:
    """Add the images and the people of these rows, sorted by person, that state each element (not just empty)."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    people = table["patient_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    for name, counts in stated.items():
        lists = table[name].combine_chunks()
        full = pc.not_equal(pc.list_flatten(lists), pa.scalar(""))
        at = np.unique(pc.list_parent_indices(lists).filter(full).to_numpy())
        counts[0] += len(at)
        counts[1] += len(np.unique(people[at]))


def _entry(paths: list[str], rows: int, stated: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return the catalogue as the data dictionary tells of a table. An element that is empty in all is named too."""
    columns = [{"name": c.name, "type": c.type, "unit": c.unit, "meaning": c.meaning, "source": c.source,
                "nullable": c.nullable, "values": []} for c in CATALOGUE.columns]
    for path in paths:
        known = element(path)
        columns.append({"name": path, "type": "strings", "unit": "", "meaning": known.name or "As the file states it.",
                        "source": f"{path.rpartition('.')[2] if known.name else path} {known.tag}, {known.vr}",
                        "nullable": True, "values": []})
    return {"name": CATALOGUE.name, "meaning": CATALOGUE.meaning, "key": list(CATALOGUE.key), "rows": rows,
            "references": [{"column": column, "table": other} for column, other in CATALOGUE.references],
            "columns": columns}

"""The content of the parts' structured reports (schemas.CONTENT): where it stands, and that none is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline import layout
from pipeline.dicom.file import REPORTS
from pipeline.storage import ObjectStore, tables


def files(candidate: ObjectStore, project: str, parts: Collection[str], needed: Collection[str]) -> Iterator[Path]:
    """Lend each part's content, in order of the parts; a part without a report has none.

    Raises NotFound where a part of `needed` has none: its doses would be missing in silence; SchemaTooNew.
    """
    import pyarrow.parquet as pq

    for part in sorted(set(parts)):
        key = layout.content(project, part)
        if part in needed or candidate.stat(key) is not None:
            with candidate.fetch(key) as path:
                tables.understood(pq.read_schema(path))
                yield path


def reporting(flat: Path, parts: Collection[str]) -> frozenset[str]:
    """Return the parts that have a structured report in the flat file of all images (`facts.write`)."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    numbers: set[int] = set()
    with pq.ParquetFile(flat) as file:
        for batch in file.iter_batches(columns=["part", "sop_class_uid"], use_threads=False):
            numbers.update(batch.filter(pc.starts_with(batch["sop_class_uid"], REPORTS))["part"].to_pylist())
    return frozenset(part for number, part in enumerate(sorted(set(parts))) if number in numbers)

"""Committed batches, as every later step reads them. A batch without its inventory does not exist."""

from __future__ import annotations

import re

import pyarrow as pa

from pipeline import layout
from pipeline.storage import ObjectStore, tables


def committed(work: ObjectStore, project: str) -> list[str]:
    """Return the ids of the batches whose inventory is written, sorted."""
    prefix, marker = layout.batches(project), layout.inventory("", "").rpartition("/")[2]
    names = (entry.key.removeprefix(prefix).split("/") for entry in work.list(prefix))
    return sorted(parts[0] for parts in names if parts[1:] == [marker])


def shards(work: ObjectStore, project: str, batch: str) -> list[int]:
    """Return the numbers of a batch's shards, in order."""
    names = (entry.key.rpartition("/")[2] for entry in work.list(layout.shards(project, batch)))
    return sorted(int(name[:5]) for name in names if re.fullmatch(r"\d{5}\.parquet", name))


def read_inventory(work: ObjectStore, project: str, batch: str, columns: list[str] | None = None) -> pa.Table:
    """Return `schemas.INVENTORY` rows of a batch, by source_uri. Raises NotFound, SchemaTooNew."""
    return tables.read(work, layout.inventory(project, batch), columns)


def read_shard(work: ObjectStore, project: str, batch: str, number: int) -> pa.Table:
    """Return `schemas.INVENTORY` rows of one shard, by study and source_uri. Raises NotFound, SchemaTooNew."""
    return tables.read(work, layout.shard(project, batch, number))

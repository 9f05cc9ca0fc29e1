"""Shards: whole studies of a batch, worth about 30 CPU seconds each. Pure."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MOST = 512


def assign(studies: Any, sizes: Any, eligible: Any, max_bytes: int, max_instances: int) -> tuple[pa.Array, int]:
    """Return the shard of each admitted row, and how many there are. Columns: the rows' studies, bytes, and whether
    they are eligible; no nulls.

    Studies go in order of their UID; a study is never split, so a larger one is a shard alone. Only eligible instances
    weigh. Where that makes more than 512, the sizes are doubled until it does not.
    """
    rows = pa.table({"study": studies, "bytes": pc.if_else(eligible, sizes, 0), "count": pc.cast(eligible, pa.int64())})
    sums = rows.group_by("study", use_threads=False).aggregate([("bytes", "sum"), ("count", "sum")]).sort_by("study")
    weights = list(zip(sums["bytes_sum"].to_pylist(), sums["count_sum"].to_pylist(), strict=True))
    while True:
        numbers = _pack(weights, max_bytes, max_instances)
        if len(set(numbers)) <= MOST:
            break
        max_bytes, max_instances = 2 * max_bytes, 2 * max_instances
    names = sums["study"].combine_chunks() if sums.num_rows else pa.array([], pa.string())
    at = pc.index_in(studies, value_set=names)
    of_rows = pa.array(numbers, pa.int32()).take(pa.concat_arrays([pa.array([], pa.int32()), *at.chunks]))
    return of_rows, len(set(numbers))


def _pack(weights: list[tuple[int, int]], max_bytes: int, max_instances: int) -> list[int]:
    numbers: list[int] = []
    number = size = count = 0
    for more_size, more_count in weights:
        if count and more_count and (size + more_size > max_bytes or count + more_count > max_instances):
            number, size, count = number + 1, 0, 0
        numbers.append(number)
        size, count = size + more_size, count + more_count
    return numbers

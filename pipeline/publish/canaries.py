"""No canary stands in what would be released: tables, keys of images, catalogue (docs/adr/0013-canaries.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.errors import CanarySurfaced


def absent(files: Iterable[Path], marks: Sequence[str]) -> None:
    """Raise CanarySurfaced where any text of these Parquet files holds a mark. One row group of a column is in memory.

    `marks`: pseudonyms, UIDs and words of the project's canaries, as plan.json names them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if not marks:
        return      # a candidate that an older version put together
    any_mark = "|".join(re.escape(mark) for mark in marks)
    for path in files:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                for name in file.schema_arrow.names:
                    kind = file.schema_arrow.field(name).type
                    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
                    if not pa.types.is_string(kind.value_type if nested else kind):
                        continue
                    column = file.read_row_group(number, [name], use_threads=False)[name]
                    values = pc.unique(pc.list_flatten(column) if nested else column)
                    if pc.any(pc.match_substring_regex(values, any_mark, ignore_case=True)).as_py():
                        raise CanarySurfaced(f"A canary stands in {path.name} of the candidate.",
                                             hint="Release nothing; report it.")

"""How much there is, from what PACS said: counts over the owed sets of a project, before any image has moved.

The tables are identified, so they stay in the work zone; what is printed is counts, and small groups are kept back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import UsageError
from pipeline.retrieve.run import known
from pipeline.storage import ObjectStore
from pipeline.storage.tables import understood

# what may be counted by, and how it follows from a row of schemas.EXPECTED
BY: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "modality": lambda row: row["modality"] or "not told",
    "year": lambda row: (row["study_date"] or "")[:4] or "not told",
    "month": lambda row: "-".join(filter(None, [(row["study_date"] or "")[:4], (row["study_date"] or "")[4:6]])),
    "manufacturer": lambda row: row["manufacturer"] or "not told",
    "sop_class": lambda row: _named(row["sop_class_uid"]),
    "left_out": lambda row: row["left_out"] or "owed",
}


@dataclass(frozen=True, slots=True)
class Group:
    """`values` as asked for; None in place of counts where fewer than `minimum` people are in it."""

    values: tuple[str, ...]
    people: int | None
    studies: int | None
    instances: int | None


def count(config: ProjectConfig, work: ObjectStore, by: Sequence[str], only: Mapping[str, str]) -> list[Group]:
    """Return groups of what PACS said it has, over every retrieval of the project, each instance once.

    A group of fewer people than `[audit] minimum` is kept back; where that is one group alone, the next smallest too,
    so that it cannot be had by subtraction. Raises UsageError for a name that is not of BY.
    """
    if not {*by, *only} <= BY.keys():
        raise UsageError("That is nothing to count by.", hint=f"Known: {', '.join(BY)}.")
    groups: dict[tuple[str, ...], tuple[set[str], set[str], list[int]]] = {}
    seen: set[str] = set()
    for retrieval in known(config, work):
        with work.fetch(layout.retrieval_expected(config.name, retrieval)) as path, pq.ParquetFile(path) as file:
            understood(file.schema_arrow)
            for batch in file.iter_batches(8192, use_threads=False):
                for row in batch.to_pylist():
                    if row["sop_instance_uid"] in seen:
                        continue
                    seen.add(row["sop_instance_uid"])
                    if any(BY[name](row) != value for name, value in only.items()):
                        continue
                    people, studies, n = groups.setdefault(tuple(BY[name](row) for name in by), (set(), set(), [0]))
                    people.add(layout.person(row["issuer"] or "", row["patient_id"] or row["study_uid"]))
                    studies.add(row["study"])
                    n[0] += 1
    least = config.audit.minimum
    small = {values for values, (people, _, _) in groups.items() if len(people) < least}
    if len(small) == 1 and len(groups) > 1:
        small.add(min((values for values in groups if values not in small), key=lambda v: (len(groups[v][0]), v)))
    return [Group(values, None, None, None) if values in small else
            Group(values, len(people), len(studies), n[0])
            for values, (people, studies, n) in sorted(groups.items())]


def _named(uid: str | None) -> str:
    from pydicom.uid import UID

    return UID(uid).name if uid else "not told"

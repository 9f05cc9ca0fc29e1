"""X-ray sets of a candidate: their software in order of appearance; and what the candidate's plan knows of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.curate import factors
from pipeline.curate.factors import Factors
from pipeline.errors import CandidateFailed
from pipeline.schemas import OUTPUT, SURVEYS, VERSIONS, Table, arrow_schema
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

# `versions` ranks all that were ever seen; here the ranks of those in this release, without a gap.
SQL = """
    WITH seen AS (
        SELECT device_id, software_versions, agreed(manufacturer) AS manufacturer, agreed(model) AS model,
               string_agg(DISTINCT modality, '\\' ORDER BY modality) AS modalities,
               count(DISTINCT study) AS n_studies, count(*) AS n_instances
        FROM flat WHERE device_id IS NOT NULL GROUP BY device_id, software_versions
    ), ranked AS (
        SELECT device_id, software_versions,
               dense_rank() OVER (PARTITION BY device_id ORDER BY version_order) AS version_order
        FROM versions SEMI JOIN seen USING (device_id, software_versions)
    )
    SELECT seen.*, version_order FROM seen LEFT JOIN ranked USING (device_id, software_versions)
    ORDER BY device_id, version_order NULLS LAST, software_versions NULLS LAST"""


@dataclass(frozen=True, slots=True)
class Known:
    """What `assemble` wrote of the equipment: schemas.VERSIONS, SURVEYS and OUTPUT, and the factor table."""

    versions: pa.Table
    surveys: pa.Table
    output: pa.Table
    factors: Factors | None


def known(candidate: ObjectStore, project: str, plan: Mapping[str, Any]) -> Known:
    """Return what a plan names; empty tables where it names none. Raises CandidateFailed where it is not what it was.
    """
    digests = plan.get("equipment") or {}

    def table(name: str, schema: Table | None = None) -> Any:
        if name not in digests:
            return arrow_schema(schema).empty_table() if schema else None
        key = layout.equipment(project, plan["candidate"], name)
        if hashlib.sha256(candidate.read(key)).hexdigest() != digests[name]:
            raise CandidateFailed(f"The candidate's table of {name} is not the one that its plan names.")
        return tables.read(candidate, key)

    given, width = table("factors"), plan.get("age_band_years", 5)
    return Known(table("versions", VERSIONS), table("surveys", SURVEYS), table("output", OUTPUT),
                 factors.of(plan["factors"], given, width) if given is not None else None)

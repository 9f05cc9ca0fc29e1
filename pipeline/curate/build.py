"""patients, studies, series, instances, exposures and the clinical tables of one candidate.

What belongs to a person, study or series is taken from its images where they all agree; where they do not it is null
and counted as a contradiction. Rows are sorted by key, so the same parts give the same bytes.

Clinical tables are passed on as they were pseudonymised, with the rows of people who have no image here: they
are the denominators of a linkage. The people are those that may be in the project; nobody else reaches the candidate
zone. `patients` has only people with an image, so a join tells the two apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.curate import facts
from pipeline.schemas import EXPOSURES, IMAGES, INSTANCES, PATIENTS, SERIES, STUDIES, Table, arrow_schema
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

# Projection x-ray. CT is left out: each slice repeats the scan's kV and mAs, and a sum over slices would be wrong.
PROJECTION = ("CR", "DX", "IO", "MG", "PX", "RF", "XA")


class Curated(dict[str, "pa.Table"]):
    """The tables by name; and per column how many values are null because the file's was malformed (`malformed`), or
    because the images of one person, study or series contradict each other (`contradictions`)."""

    def __init__(
        self, made: Mapping[str, pa.Table], malformed: Mapping[str, int], contradictions: Mapping[str, int]
    ) -> None:
        super().__init__(made)
        self.malformed = dict(sorted(malformed.items()))
        self.contradictions = dict(sorted(contradictions.items()))


def build(
    candidate: ObjectStore,
    project: str,
    plan: Mapping[str, Any],
    *,
    without: Mapping[str, str] | Collection[str] = (),
    dropped: Mapping[str, Sequence[int]] | None = None,
) -> Curated:
    """Return the tables of a plan (plan.json), without the instances held back by it or named in `without`.

    `dropped` gives, by clinical table, the row positions to leave out (positions in a build that drops none). Raises
    NotFound where a part's facts or a clinical table is missing, SchemaTooNew.
    """
    flat, malformed = facts.read(candidate, project, plan["parts"], {*plan["held"], *without})
    flat = _sorted(flat)
    made = _tables(flat) | _clinical(candidate, project, plan, dropped or {})
    return Curated(made, malformed, _contradictions(flat))


def images(
    candidate: ObjectStore, project: str, plan: Mapping[str, Any], *, without: Mapping[str, str] | Collection[str] = ()
) -> pa.Table:
    """Return schemas.IMAGES for the same instances as `build` with the same arguments, sorted by instance."""
    flat, _ = facts.read(candidate, project, plan["parts"], {*plan["held"], *without}, fields=())
    return _as(IMAGES, _sorted(flat))


def _sorted(flat: pa.Table) -> pa.Table:
    """Return the rows sorted by instance, with `digest` (hex) and `path` (below the release's images)."""
    import pyarrow as pa

    flat = flat.sort_by([("instance", "ascending"), ("key", "ascending")])
    digests, paths = [], []
    for batch in flat.select(["patient", "study", "series", "instance", "sha256"]).to_batches(max_chunksize=4096):
        *names, raw = (column.to_pylist() for column in batch.columns)
        hexed = [value.hex() for value in raw]
        digests.append(pa.array(hexed, pa.string()))
        paths.append(pa.array([layout.image_path(*row) for row in zip(*names, hexed, strict=True)], pa.string()))
    flat = flat.append_column("digest", pa.chunked_array(digests, pa.string()))
    return flat.append_column("path", pa.chunked_array(paths, pa.string()))


# Facts of a person, a study, a series: which columns, and by what they are grouped.
_SHARED = {
    ("patient",): ("sex",),
    ("study", "patient"): ("study_date", "age_band_years"),
    ("series", "study", "patient"): ("modality", "manufacturer", "model", "device_id", "software_versions"),
}
_AGREED = "CREATE MACRO agreed(c) AS CASE WHEN count(DISTINCT c) = 1 THEN min(c) END"
_SQL: dict[str, tuple[Table, str]] = {
    "patients": (PATIENTS, """
        SELECT patient AS patient_id, agreed(sex) AS sex, count(DISTINCT study) AS n_studies, count(*) AS n_instances,
               min(study_date) AS first_study_date, max(study_date) AS last_study_date
        FROM flat GROUP BY patient ORDER BY patient"""),
    "studies": (STUDIES, """
        SELECT study AS study_uid, patient AS patient_id, agreed(study_date) AS study_date,
               agreed(age_band_years) AS age_band_years,
               string_agg(DISTINCT modality, '\\' ORDER BY modality) AS modalities,
               count(DISTINCT series) AS n_series, count(*) AS n_instances
        FROM flat GROUP BY study, patient ORDER BY study, patient"""),
    "series": (SERIES, """
        SELECT series AS series_uid, study AS study_uid, patient AS patient_id, agreed(modality) AS modality,
               agreed(manufacturer) AS manufacturer, agreed(model) AS model, agreed(device_id) AS device_id,
               agreed(software_versions) AS software_versions, count(*) AS n_instances
        FROM flat GROUP BY series, study, patient ORDER BY series, study, patient"""),
}  # fmt: skip


def _tables(flat: pa.Table) -> dict[str, pa.Table]:
    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc

    made: dict[str, pa.Table] = {}
    with tempfile.TemporaryDirectory() as spill, duckdb.connect(
        config={"memory_limit": "2GB", "threads": 2, "temp_directory": spill}
    ) as db:
        db.register("flat", flat)
        db.execute(_AGREED)
        for name, (schema, sql) in _SQL.items():
            made[name] = _as(schema, db.sql(sql).to_arrow_table())
    stated = pc.or_(pc.is_valid(flat["kvp_kv"]), pc.is_valid(flat["exposure_mas"]))
    projection = pc.is_in(flat["modality"], value_set=pa.array(PROJECTION))
    made["instances"] = _as(INSTANCES, flat)
    made["exposures"] = _as(EXPOSURES, flat.filter(pc.and_(projection, stated)))
    return made


def _contradictions(flat: pa.Table) -> dict[str, int]:
    """Count, by column, the people, studies and series whose images state more than one value."""
    import pyarrow.compute as pc

    found: dict[str, int] = {}
    for by, columns in _SHARED.items():
        groups = flat.group_by(list(by)).aggregate([(column, "count_distinct") for column in columns])
        for column in columns:
            many = pc.sum(pc.greater(groups[f"{column}_count_distinct"], 1)).as_py()
            found |= {column: many} if many else {}
    return found


# Columns of the tables that the flat table has under another name.
_IN_FLAT = {
    "patient_id": "patient", "study_uid": "study", "series_uid": "series", "sop_instance_uid": "instance",
    "sha256": "digest",
}  # fmt: skip


def _as(schema: Table, rows: pa.Table) -> pa.Table:
    """Return the columns of a table, from what a query gave or from the flat table."""
    import pyarrow as pa

    arrow = arrow_schema(schema)
    there = set(rows.column_names)
    names = [_IN_FLAT[n] if n in _IN_FLAT and _IN_FLAT[n] in there else n for n in arrow.names]
    columns = [rows[name].cast(field.type).combine_chunks() for name, field in zip(names, arrow, strict=True)]
    return pa.Table.from_arrays(columns, schema=arrow)


def _clinical(
    candidate: ObjectStore, project: str, plan: Mapping[str, Any], dropped: Mapping[str, Sequence[int]]
) -> dict[str, pa.Table]:
    import pyarrow as pa

    made = {}
    for name in sorted((plan["clinical"] or {}).get("tables", ())):
        table = tables.read(candidate, layout.clinical(project, plan["clinical"]["id"], name))
        out = set(dropped.get(name, ()))
        keep = pa.array([n for n in range(table.num_rows) if n not in out], pa.int64())
        made[name] = table.take(keep).combine_chunks()
    return made

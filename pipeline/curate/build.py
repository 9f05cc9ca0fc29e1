"""The tables of one candidate: people, studies, series, instances, exposures and dose, and the clinical tables.

What belongs to a person, study or series is taken from its images where they all agree; where they do not it is null
and counted as a contradiction. Rows are sorted by key, so the same parts give the same bytes. Tables are made on disk,
in DuckDB with bounded memory: a million images do not fit.

Clinical tables are passed on as they were pseudonymised, with the rows of people who have no image here: they
are the denominators of a linkage. The people are those that may be in the project; nobody else reaches the candidate
zone. `patients` has only people with an image, so a join tells the two apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.curate import content, equipment, events, exposures, facts, glandular, measurements
from pipeline.curate.spill import Spill, Tables
from pipeline.schemas import (
    ACCUMULATED_DOSES,
    DISCREPANCIES,
    EQUIPMENT,
    EXPOSURES,
    FINDINGS,
    GLANDULAR_DOSES,
    IMAGES,
    INSTANCES,
    IRRADIATION_EVENTS,
    MEASUREMENTS,
    PATIENTS,
    SERIES,
    STUDIES,
    Table,
)
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import duckdb


class Curated(Tables):
    """The tables by name; and per column how many values are null because the file's was malformed (`malformed`), or
    because the images of one person, study or series contradict each other (`contradictions`)."""

    def __init__(self, spill: Spill) -> None:
        super().__init__(spill)
        self.malformed: dict[str, int] = {}
        self.contradictions: dict[str, int] = {}


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
    NotFound where a part's facts, the content of its reports or a clinical table is missing, SchemaTooNew.
    """
    spill = Spill()
    made = Curated(spill)
    held, parts = {*plan["held"], *without}, plan["parts"]
    malformed = facts.write(candidate, project, parts, held, spill.folder / "flat")
    known = equipment.known(candidate, project, plan)
    with spill.connect() as db:
        needed = content.reporting(spill.folder / "flat", parts)
        for reader in (events, measurements):
            malformed += reader.write(db, content.files(candidate, project, parts, needed), held, spill.folder)
        db.register("versions", known.versions)
        exposures.make(db, spill.folder / "flat", spill.folder)
        db.execute(_AGREED)
        for schema, sql in _SQL:
            made.add(schema, db, sql)
        made.contradictions = _contradictions(db)
        made.malformed = dict(sorted((malformed + _unusable(db)).items()))
    made.add_batches(GLANDULAR_DOSES, glandular.batches(made, known))
    _clinical(made, candidate, project, plan, dropped or {})
    return made


def images(
    candidate: ObjectStore, project: str, plan: Mapping[str, Any], *, without: Mapping[str, str] | Collection[str] = ()
) -> Tables:
    """Return schemas.IMAGES for the same instances as `build` with the same arguments, sorted by instance."""
    spill = Spill()
    made = Tables(spill)
    facts.write(candidate, project, plan["parts"], {*plan["held"], *without}, spill.folder / "flat", fields=())
    with spill.connect() as db:
        flat = f"SELECT instance, key, path, digest AS sha256, bytes FROM read_parquet('{spill.folder / 'flat'}')"  # noqa: S608
        made.add(IMAGES, db, f"{flat} ORDER BY instance, key")
    return made


# Facts of a person, a study, a series: which columns, and by what they are grouped.
_SHARED = {
    ("patient",): ("sex",),
    ("study", "patient"): ("study_date", "age_band_years"),
    ("series", "study", "patient"): ("modality", "manufacturer", "model", "device_id", "software_versions"),
}
_AGREED = "CREATE MACRO agreed(c) AS CASE WHEN count(DISTINCT c) = 1 THEN min(c) END"
_SQL: tuple[tuple[Table, str], ...] = (
    (PATIENTS, """
        SELECT patient AS patient_id, agreed(sex) AS sex, count(DISTINCT study) AS n_studies, count(*) AS n_instances,
               min(study_date) AS first_study_date, max(study_date) AS last_study_date
        FROM flat GROUP BY patient ORDER BY patient"""),
    (STUDIES, """
        SELECT study AS study_uid, patient AS patient_id, agreed(study_date) AS study_date,
               agreed(age_band_years) AS age_band_years,
               string_agg(DISTINCT modality, '\\' ORDER BY modality) AS modalities,
               count(DISTINCT series) AS n_series, count(*) AS n_instances
        FROM flat GROUP BY study, patient ORDER BY study, patient"""),
    (SERIES, """
        SELECT series AS series_uid, study AS study_uid, patient AS patient_id, agreed(modality) AS modality,
               agreed(manufacturer) AS manufacturer, agreed(model) AS model, agreed(device_id) AS device_id,
               agreed(software_versions) AS software_versions, count(*) AS n_instances
        FROM flat GROUP BY series, study, patient ORDER BY series, study, patient"""),
    (INSTANCES, """
        SELECT f.instance AS sop_instance_uid, f.series AS series_uid, f.study AS study_uid, f.patient AS patient_id,
               sop_class_uid, sop_class_name, modality, image_type, presentation_intent, laterality, view, rows,
               columns, frames, transfer_syntax_uid, m.exposure_id, path, f.digest AS sha256, bytes
        FROM flat f LEFT JOIN shown m USING (instance)
        ORDER BY f.instance, f.key"""),
    (EXPOSURES, "SELECT * FROM exposure ORDER BY exposure_id, sop_instance_uid"),
    (DISCREPANCIES, """
        SELECT exposure_id, report_uid, study AS study_uid, patient AS patient_id, quantity, kind, header_value,
               report_value, header_term, report_term, tolerance
        FROM wrong_row ORDER BY ALL"""),
    (ACCUMULATED_DOSES, """
        SELECT study AS study_uid, patient AS patient_id, * EXCLUDE (study, patient) FROM totals
        ORDER BY report_uid, quantity, laterality, plane, value"""),
    (IRRADIATION_EVENTS, exposures.events()),
    (MEASUREMENTS, measurements.SQL["measurements"]),
    (FINDINGS, measurements.SQL["findings"]),
    (EQUIPMENT, equipment.SQL),
)  # fmt: skip


def _contradictions(db: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Count, by column, the people, studies and series whose images state more than one value."""
    found: dict[str, int] = {}
    for by, columns in _SHARED.items():
        counted = ", ".join(f"count(DISTINCT {c}) > 1 AS {c}" for c in columns)
        summed = ", ".join(f"count(*) FILTER ({c})" for c in columns)
        row = db.execute(f"SELECT {summed} FROM (SELECT {counted} FROM flat GROUP BY {', '.join(by)})").fetchone()  # noqa: S608
        found |= {c: n for c, n in zip(columns, row or (), strict=True) if n}
    return dict(sorted(found.items()))


def _unusable(db: duckdb.DuckDBPyConnection) -> Counter[str]:
    """Count, by column, the values that were left out because they cannot be what they say."""
    kinds = "('zero', 'implausible', 'unit_unknown', 'unit_contradiction', 'unknown_term', 'several_values')"
    rows = db.execute(f"SELECT quantity, count(*) FROM wrong_row WHERE kind IN {kinds} GROUP BY ALL")  # noqa: S608
    return Counter(dict(rows.fetchall()))


def _clinical(
    made: Curated, candidate: ObjectStore, project: str, plan: Mapping[str, Any], dropped: Mapping[str, Sequence[int]]
) -> None:
    import pyarrow as pa

    for name in sorted((plan["clinical"] or {}).get("tables", ())):
        table = tables.read(candidate, layout.clinical(project, plan["clinical"]["id"], name))
        out = set(dropped.get(name, ()))
        if out:
            keep = pa.array([n for n in range(table.num_rows) if n not in out], pa.int64())
            table = table.take(keep)
        made.add_table(name, table)


"""Which images are one irradiation.

Irradiation Event UID (0008,3010) decides. Where an image has none:

1. an image whose SourceImageSequence names one image is a copy of that one, and images that name the same one are
   copies of each other, unless study, side or view differ;
2. a FOR PRESENTATION image is a copy of the FOR PROCESSING image of the same study, side, view, modifiers and device
   whose every exposure element is the same, kV and mAs (and a mammogram's thickness) among them, if there is one such
   only, and both were acquired at the same moment or the moment of one is not known;
3. else it is an exposure of its own. Where 2 leaves a choice, all stay apart and each is a row `ambiguous_copy`.

A synthesised 2D image (ImageType GENERATED_2D, S-VIEW) and an image of several irradiation events are no irradiation of
their own. An event UID that images of different people, studies, sides or views share is not believed: it is a row
`event_uid_reused`, and 1 to 3 decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

# Projection x-ray. CT is left out: each slice repeats the scan's kV and mAs, and a sum over slices would be wrong.
PROJECTION = ("CR", "DX", "IO", "MG", "PX", "RF", "XA")
# Breast Tomosynthesis, Breast Projection X-Ray for presentation and for processing (PS3.4 B.5).
_TOMO_CLASSES = ("1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.13.1.4", "1.2.840.10008.5.1.4.1.1.13.1.5")
_CHAIN = 6              # a copy of a copy of a copy
# What a copy of an exposure has the same as the other.
_SAME = ("study", "patient", "modality", "laterality", "view", "view_modifiers", "device_id", "tomo", "partial_view",
         "kvp_kv", "exposure_mas", "exposure_time_ms", "tube_current_ma", "anode", "filter_material",
         "filter_thickness_mm", "body_part_thickness_mm", "compression_force_n", "compression_pressure_kpa",
         "compression_contact_area_mm2", "average_glandular_dose_mgy", "entrance_dose_mgy",
         "positioner_primary_angle_deg")


def find(db: duckdb.DuckDBPyConnection) -> None:
    """Make `member` (instance, exposure_id, gid, event, rank, n, stated) from `flat`, and begin `wrong_rows`."""
    db.execute(f"""
        CREATE TABLE img AS
        SELECT instance, patient, study, part, acquisition_order AS o, n_events, event_uid, source_uid,
               presentation_intent AS intent, laterality, view,
               coalesce(sop_class_uid IN ({_list(_TOMO_CLASSES)}), false)
                 OR regexp_matches(coalesce(image_type, ''), '(^|\\\\)(TOMOSYNTHESIS|TOMO|TOMO_PROJ)(\\\\|$)') AS tomo,
               regexp_matches(coalesce(image_type, ''), '(^|\\\\)(GENERATED_2D|S-VIEW)(\\\\|$)') AS generated,
               (coalesce(kvp_kv, 0) > 0 OR coalesce(exposure_mas, 0) > 0) AND n_events < 2 AND NOT generated AS stated
        FROM flat WHERE modality IN ({_list(PROJECTION)})""")       # noqa: S608
    db.execute("""
        CREATE TABLE wrong_rows (exposure_id VARCHAR, instance VARCHAR, report_uid VARCHAR, study VARCHAR,
          patient VARCHAR, quantity VARCHAR, kind VARCHAR, header_value DOUBLE, report_value DOUBLE,
          header_term VARCHAR, report_term VARCHAR, tolerance DOUBLE);
        CREATE TABLE reused AS
        SELECT event_uid FROM shared UNION
        SELECT event_uid FROM img WHERE event_uid IS NOT NULL GROUP BY event_uid
        HAVING count(DISTINCT laterality) > 1 OR count(DISTINCT view) > 1;
        INSERT INTO wrong_rows BY NAME
        SELECT instance, study, patient, 'exposure' AS quantity, 'event_uid_reused' AS kind
        FROM img SEMI JOIN reused USING (event_uid) WHERE stated;
        CREATE TABLE grp AS
        WITH believed AS (
          SELECT i.instance, i.study, i.patient, i.laterality, i.view,
                 CASE WHEN r.event_uid IS NULL THEN i.event_uid END AS event,
                 CASE WHEN s.instance IS NULL OR (s.study = i.study AND s.patient = i.patient
                        AND coalesce(s.laterality = i.laterality, true) AND coalesce(s.view = i.view, true)
                        AND (s.tomo = i.tomo OR i.generated)) THEN i.source_uid END AS source
          FROM img i LEFT JOIN reused r ON r.event_uid = i.event_uid LEFT JOIN img s ON s.instance = i.source_uid),
        torn AS (       -- copies of an image that is not here, which cannot all be of one exposure
          SELECT source FROM believed GROUP BY source HAVING count(DISTINCT patient) > 1 OR count(DISTINCT study) > 1
            OR count(DISTINCT laterality) > 1 OR count(DISTINCT view) > 1)
        SELECT b.instance, b.event, CASE WHEN t.source IS NULL THEN b.source END AS source
        FROM believed b LEFT JOIN torn t USING (source)""")
    for _ in range(_CHAIN):     # an image without an event has the one that its copies have, where they agree
        changed = db.execute("""
            UPDATE grp SET event = c.event FROM (
              SELECT source, min(event) AS event FROM grp WHERE event IS NOT NULL AND source IS NOT NULL
              GROUP BY source HAVING count(DISTINCT event) = 1) c
            WHERE grp.instance = c.source AND grp.event IS NULL""").fetchone()
        if not changed or not changed[0]:
            break
    db.execute("""
        ALTER TABLE grp ADD COLUMN gid VARCHAR;
        UPDATE grp SET gid = coalesce(event, source, instance)""")
    for _ in range(_CHAIN):
        changed = db.execute("""
            UPDATE grp SET gid = p.gid, event = p.event FROM grp p
            WHERE grp.event IS NULL AND grp.gid = p.instance AND p.gid <> p.instance""").fetchone()
        if not changed or not changed[0]:
            break
    _twins(db)
    db.execute("""
        CREATE TABLE member AS
        WITH shown AS (SELECT gid FROM grp JOIN img USING (instance) WHERE stated GROUP BY gid),
        ranked AS (
          SELECT instance, gid, event, stated, o, part, study, patient, tomo AND NOT generated AS tomo,
                 row_number() OVER (PARTITION BY gid ORDER BY NOT stated, coalesce(
                   CASE intent WHEN 'FOR PROCESSING' THEN 0 WHEN 'FOR PRESENTATION' THEN 2 END, 1), instance) AS rank,
                 count(*) OVER (PARTITION BY gid) AS n
          FROM grp JOIN img USING (instance) SEMI JOIN shown USING (gid))
        SELECT *, CASE WHEN event IS NOT NULL THEN gid
                       ELSE first_value(instance) OVER (PARTITION BY gid ORDER BY rank) END AS exposure_id
        FROM ranked;
        DROP TABLE grp""")


def _twins(db: duckdb.DuckDBPyConnection) -> None:
    """Rule 2. Merge what is one exposure beyond doubt; write down where there is a choice."""
    same = ", ".join("i.tomo" if name == "tomo" else f"f.{name}" for name in _SAME)
    db.execute(f"""
        CREATE TABLE twin AS
        WITH alone AS (SELECT gid FROM grp GROUP BY gid HAVING count(*) = 1)
        SELECT list(f.instance ORDER BY f.instance) FILTER (i.intent = 'FOR PRESENTATION') AS copies,
               list(f.instance ORDER BY f.instance) FILTER (i.intent = 'FOR PROCESSING') AS raw,
               count(i.o) = count(*) AND count(DISTINCT f.part) = 1 AS timed, count(DISTINCT i.o) AS moments
        FROM img i JOIN grp USING (instance) SEMI JOIN alone USING (gid) JOIN flat f USING (instance)
        WHERE i.stated AND grp.event IS NULL AND i.intent IN ('FOR PRESENTATION', 'FOR PROCESSING') AND f.kvp_kv > 0
          AND f.exposure_mas > 0 AND (f.modality <> 'MG' OR f.body_part_thickness_mm > 0)
        GROUP BY {same}
        HAVING len(copies) > 0 AND len(raw) > 0;
        CREATE TABLE merged AS
        SELECT raw[1] AS raw, unnest(copies) AS copy FROM twin
        WHERE len(raw) = 1 AND CASE WHEN timed THEN moments = 1 ELSE len(copies) = 1 END;
        INSERT INTO wrong_rows BY NAME
        SELECT i.instance, i.study, i.patient, 'exposure' AS quantity, 'ambiguous_copy' AS kind
        FROM (SELECT unnest(copies) AS instance FROM twin) ANTI JOIN merged ON copy = instance
        JOIN img i USING (instance);
        UPDATE grp SET gid = r.gid FROM merged JOIN grp r ON r.instance = merged.raw WHERE grp.instance = merged.copy;
        DROP TABLE twin; DROP TABLE merged""")      # noqa: S608


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)

"""Exposures: which images are one irradiation, which event of a dose report is the same, and what both say of it.

Irradiation Event UID (0008,3010) decides, in header and report. Where an image has none:

1. an image whose SourceImageSequence names one image is a copy of that one, and images that name the same one are
   copies of each other, unless study, side or view differ;
2. a FOR PRESENTATION image is a copy of the FOR PROCESSING image of the same study, side, view, modifiers and device
   whose every exposure element is the same, kV and mAs (and a mammogram's thickness) among them, if there is one such
   only, and both were acquired at the same moment or the moment of one is not known;
3. else it is an exposure of its own. Where 2 leaves a choice, all stay apart and each is a row `ambiguous_copy`.

A synthesised 2D image (ImageType GENERATED_2D, S-VIEW) and an image of several irradiation events are no irradiation of
their own. An event UID that images of different people, studies, sides or views share is not believed: it is a row
`event_uid_reused`, and 1 to 3 decide.

An event of a mammography report is an exposure's by its event UID; else by its Acquired Image; else, where either side
has no event UID, if both are the only ones left of their study, side, view and technique and their kV and mAs agree.
What is left of the reports is exposures without an image. The image's value stands before the report's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.curate.limits import QUANTITIES, TERMS, Quantity

if TYPE_CHECKING:
    import duckdb

# Projection x-ray. CT is left out: each slice repeats the scan's kV and mAs, and a sum over slices would be wrong.
PROJECTION = ("CR", "DX", "IO", "MG", "PX", "RF", "XA")
# Breast Tomosynthesis, Breast Projection X-Ray for presentation and for processing (PS3.4 B.5).
_TOMO_CLASSES = ("1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.13.1.4", "1.2.840.10008.5.1.4.1.1.13.1.5")
_CHAIN = 6              # a copy of a copy of a copy

# Columns of exposures that a header alone gives; of those below, with a report's value behind the header's.
_HEADER_ONLY = ("presentation_intent", "paddle", "exposure_control_mode", "exposure_control_description", "operator_id")
_BOTH_PLAIN = ("view_modifiers", "positioner_primary_angle_deg", "grid")
_SOURCED = tuple(q.column for q in QUANTITIES) + TERMS
# What a copy of an exposure has the same as the other.
_SAME = ("study", "patient", "modality", "laterality", "view", "view_modifiers", "device_id", "tomo", "partial_view",
         "kvp_kv", "exposure_mas", "exposure_time_ms", "tube_current_ma", "anode", "filter_material",
         "filter_thickness_mm", "body_part_thickness_mm", "compression_force_n", "compression_pressure_kpa",
         "compression_contact_area_mm2", "average_glandular_dose_mgy", "entrance_dose_mgy",
         "positioner_primary_angle_deg")


def _list(words: tuple[str, ...]) -> str:
    return ", ".join(f"'{word}'" for word in words)


_STUDIES_OF = 40_000        # images that are worked on at once: whole studies, since nothing here spans two


def make(db: duckdb.DuckDBPyConnection, flat: Path, folder: Path) -> None:
    """Make the tables `exposure`, `shown` (instance, exposure_id) and `wrong_row` from the file of all images and, of
    the reports, <folder>/{events,totals,wrong,rejected}.parquet. Leaves the views `flat`, `events` and `totals` of all.
    """
    def views(images: str, where: str) -> None:
        db.execute(f"CREATE OR REPLACE VIEW flat AS SELECT * FROM read_parquet('{images}')")        # noqa: S608
        for name in ("events", "totals", "wrong"):
            path = folder / f"{name}.parquet"
            db.execute(f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet('{path}') {where}")  # noqa: S608
        db.execute(f"CREATE OR REPLACE VIEW rejected AS SELECT DISTINCT instance"  # noqa: S608
                   f" FROM read_parquet('{folder / 'rejected.parquet'}')")

    views(str(flat), "")
    # Event UIDs that studies or people share: by hash, so that what does not fit in memory can wait on disk.
    db.execute("""
        CREATE TABLE shared AS
        SELECT event_uid FROM (SELECT event_uid, hash(study, patient) AS h FROM flat WHERE event_uid IS NOT NULL
                               UNION ALL SELECT event_uid, hash(study, patient) FROM events WHERE event_uid IS NOT NULL)
        GROUP BY event_uid HAVING min(h) <> max(h)""")
    row = db.execute("SELECT count(*) FROM flat").fetchone()
    pieces = -(-(row[0] if row else 0) // _STUDIES_OF) or 1
    if pieces > 1:
        db.execute(f"""
            COPY (SELECT *, (hash(study) % {pieces})::INT AS piece FROM flat) TO '{folder / 'pieces'}'
            (FORMAT parquet, PARTITION_BY (piece), COMPRESSION zstd)""")        # noqa: S608
    for piece in range(pieces):
        if pieces > 1:
            if not (folder / "pieces" / f"piece={piece}").exists():
                continue
            views(f"{folder}/pieces/piece={piece}/*.parquet", f"WHERE hash(study) % {pieces} = {piece}")
        _piece(db)
    views(str(flat), "")


def _piece(db: duckdb.DuckDBPyConnection) -> None:
    images(db)
    reports(db)
    join(db)
    discrepancies(db)
    for table, sql in (
        ("exposure", select()),
        ("shown", "SELECT DISTINCT instance, exposure_id FROM member"),
        ("wrong_row", "SELECT w.* REPLACE (coalesce(w.exposure_id, m.exposure_id) AS exposure_id)"
                      " FROM wrong_rows w LEFT JOIN member m USING (instance)"),
    ):
        db.execute(f"CREATE TABLE IF NOT EXISTS {table} AS {sql} LIMIT 0")
        db.execute(f"INSERT INTO {table} BY NAME {sql}")
    for table in ("img", "reused", "member", "event", "header", "matched", "joined", "wrong_rows"):
        db.execute(f"DROP TABLE {table}")


def images(db: duckdb.DuckDBPyConnection) -> None:
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
    same = ", ".join(f"f.{name}" if name not in ("tomo",) else "i.tomo" for name in _SAME)
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


def reports(db: duckdb.DuckDBPyConnection) -> None:
    """Make `event` (events of mammograms, one a UID) and `matched` (report event → exposure) from the view `events`."""
    db.execute("""
        CREATE TABLE event AS
        WITH ranked AS (
          SELECT *, row_number() OVER (PARTITION BY coalesce(event_uid, minted_uid), patient, study
                                       ORDER BY n_events DESC, report_uid, node) AS copy
          FROM events WHERE mammogram)
        SELECT row_number() OVER (ORDER BY report_uid, node) AS id, e.* EXCLUDE (copy),
               coalesce(f.manufacturer ILIKE 'siemens%', false) AND tomosynthesis AS one_projection,
               f.manufacturer, f.model, f.device_id
        FROM ranked e LEFT JOIN flat f ON f.instance = e.report_uid WHERE copy = 1;
        CREATE TABLE header AS
        SELECT m.exposure_id, m.event, m.study, m.patient, m.tomo, f.laterality, f.view, f.kvp_kv, f.exposure_mas
        FROM member m JOIN flat f USING (instance) WHERE m.rank = 1 AND f.modality = 'MG';
        CREATE TABLE matched (id BIGINT, exposure_id VARCHAR, how VARCHAR);
        INSERT INTO matched
        SELECT e.id, h.exposure_id, 'event' FROM event e
        JOIN header h ON h.exposure_id = e.event_uid AND h.event IS NOT NULL AND h.patient = e.patient;
        INSERT INTO matched
        WITH pair AS (
          SELECT DISTINCT e.id, m.exposure_id FROM (SELECT id, patient, unnest(images) AS instance FROM event) e
          JOIN member m USING (instance, patient)
          ANTI JOIN matched done ON done.id = e.id ANTI JOIN matched done2 ON done2.exposure_id = m.exposure_id)
        SELECT id, exposure_id, 'image' FROM pair
        WHERE id IN (SELECT id FROM pair GROUP BY id HAVING count(*) = 1)
          AND exposure_id IN (SELECT exposure_id FROM pair GROUP BY exposure_id HAVING count(*) = 1)""")
    kv, mas = QUANTITIES[0], QUANTITIES[1]
    near = " AND ".join(f"coalesce(abs(e.{q.column} - h.{q.column}) <= {q.tolerance(f'h.{q.column}')}, true)"
                        for q in (kv, mas))
    db.execute(f"""
        CREATE TABLE pair AS
        SELECT e.id, h.exposure_id, {near} AS near
        FROM event e JOIN header h ON h.study = e.study AND h.patient = e.patient AND h.laterality = e.laterality
          AND h.view = e.view AND h.tomo = e.tomosynthesis AND (h.event IS NULL OR e.event_uid IS NULL)
        ANTI JOIN matched d ON d.id = e.id ANTI JOIN matched d2 ON d2.exposure_id = h.exposure_id;
        CREATE TABLE single AS
        SELECT * FROM pair WHERE near
          AND id IN (SELECT id FROM pair GROUP BY id HAVING count(*) = 1)
          AND exposure_id IN (SELECT exposure_id FROM pair GROUP BY exposure_id HAVING count(*) = 1);
        INSERT INTO matched SELECT id, exposure_id, 'view' FROM single;
        INSERT INTO wrong_rows BY NAME
        SELECT DISTINCT coalesce(e.event_uid, e.minted_uid) AS exposure_id, e.report_uid, e.study, e.patient,
               'exposure' AS quantity, 'ambiguous_report_event' AS kind
        FROM pair JOIN event e USING (id) ANTI JOIN matched d ON d.id = e.id;
        DROP TABLE pair; DROP TABLE single""")      # noqa: S608


def join(db: duckdb.DuckDBPyConnection) -> None:
    """Make `joined`: a row per exposure with what its header (h_) and its report (r_) state, unchecked."""
    _headers(db)
    values = ", ".join([f"{side}.{name} AS {side}_{name}, {side}.{name}_source AS {side}_{name}_source"
                        for side in "hr" for name in _SOURCED]
                       + [f"{side}.{name} AS {side}_{name}" for side in "hr" for name in _BOTH_PLAIN]
                       + [f"h.{name} AS h_{name}" for name in _HEADER_ONLY])
    # An id that is taken already by another exposure is not taken twice: the report's event gets its minted one.
    db.execute(f"""
        CREATE TABLE joined AS
        SELECT coalesce(h.exposure_id, CASE WHEN t.exposure_id IS NULL AND u.event_uid IS NULL THEN r.event_uid END,
                        r.minted_uid) AS exposure_id,
               coalesce(h.patient, r.patient) AS patient, coalesce(h.study, r.study) AS study, h.series, h.instance,
               coalesce(h.n_images, 0) AS n_images, r.report_uid, m.how AS report_match,
               CASE WHEN r.id IS NULL THEN 'header' WHEN h.exposure_id IS NULL THEN 'report' ELSE 'both' END AS basis,
               coalesce(h.modality, 'MG') AS modality, coalesce(h.modality, 'MG') = 'MG' AS mg,
               h.o, h.parts, r.started, coalesce(h.tomo, r.tomosynthesis) AS tomo,
               coalesce(h.odd, false) AS odd, r.is_repeat AS said_repeat,
               coalesce(r.is_rejected, h.rejected) AS rejected,
               coalesce(r.one_projection, false) AS one_projection,
               coalesce(h.manufacturer, r.manufacturer) AS manufacturer, coalesce(h.model, r.model) AS model,
               coalesce(h.device_id, r.device_id) AS device_id, {values}
        FROM head h LEFT JOIN matched m USING (exposure_id) FULL JOIN event r ON r.id = m.id
        LEFT JOIN (SELECT DISTINCT exposure_id FROM member) t ON t.exposure_id = r.event_uid AND h.exposure_id IS NULL
        LEFT JOIN (SELECT event_uid FROM event WHERE event_uid IS NOT NULL GROUP BY event_uid HAVING count(*) > 1
                   UNION SELECT event_uid FROM shared) u
          ON u.event_uid = r.event_uid AND h.exposure_id IS NULL;
        DROP TABLE head""")     # noqa: S608


def _headers(db: duckdb.DuckDBPyConnection) -> None:
    """Make `head`: a row per exposure with images. Of several images the first that states a value above zero gives
    it, the one that stands for the exposure before the others."""
    plain = (*_HEADER_ONLY, *_BOTH_PLAIN, "series", "modality", "manufacturer", "model", "device_id")
    once = ", ".join(f"f.{name}" for name in plain)
    once += "".join(f", f.{name}, f.{name}_source" for name in _SOURCED)
    many = ", ".join(f"arg_min(f.{name}, m.rank) AS {name}" for name in plain)
    for q in QUANTITIES:
        for name in (q.column, f"{q.column}_source"):
            many += (f", coalesce(arg_min(f.{name}, m.rank) FILTER (f.{q.column} > 0),"
                     f" arg_min(f.{name}, m.rank) FILTER (f.{q.column} IS NOT NULL)) AS {name}")
    for term in TERMS:
        many += "".join(f", arg_min(f.{name}, m.rank) FILTER (f.{term} IS NOT NULL) AS {name}"
                        for name in (term, f"{term}_source"))
    odd = "f.partial_view = 'YES' OR regexp_matches(coalesce(f.image_type, ''), '(^|\\\\)STEREO(\\\\|$)')"
    db.execute(f"""
        CREATE TABLE head AS
        SELECT m.exposure_id, m.study, m.patient, m.instance, 1 AS n_images, m.o, m.part AS parts, m.tomo,
               coalesce({odd}, false) AS odd, CASE WHEN x.instance IS NOT NULL THEN true END AS rejected, {once}
        FROM member m JOIN flat f USING (instance) LEFT JOIN rejected x USING (instance) WHERE m.n = 1
        UNION ALL BY NAME
        SELECT m.exposure_id, min(m.study) AS study, min(m.patient) AS patient, arg_min(m.instance, m.rank) AS instance,
               count(*)::INT AS n_images, min(m.o) AS o,
               CASE WHEN count(DISTINCT m.part) = 1 THEN min(m.part) END AS parts,
               bool_or(m.tomo) AS tomo, bool_or(coalesce({odd}, false)) AS odd,
               CASE WHEN count(x.instance) > 0 THEN true END AS rejected, {many}
        FROM member m JOIN flat f USING (instance) LEFT JOIN rejected x USING (instance) WHERE m.n > 1
        GROUP BY m.exposure_id""")      # noqa: S608


_EVENT_LIMITS = {       # house plausibility limits, wide, as in limits.py
    "ctdi_vol_mgy": 5_000, "dlp_mgy_cm": 100_000, "kvp_kv": 200, "tube_current_ma": 5_000, "exposure_mas": 100_000,
    "exposure_time_ms": 3_600_000, "scanning_length_mm": 5_000, "pitch": 10, "dap_gy_m2": 1,
    "reference_point_dose_gy": 100, "n_pulses": 1_000_000,
}  # fmt: skip


def events() -> str:
    """Return the query of the table irradiation_events over `events`: every event that is no mammogram's."""
    checked = ", ".join(f"CASE WHEN e.{name} BETWEEN 0 AND {most} THEN e.{name} END AS {name}"
                        for name, most in _EVENT_LIMITS.items())
    return f"""
        SELECT e.event_uid, e.report_uid, e.node, e.study AS study_uid, e.patient AS patient_id, f.device_id,
               f.manufacturer, f.model, e.kind, e.acquisition_type, e.target_region, e.plane, e.phantom, {checked}
        FROM events e LEFT JOIN flat f ON f.instance = e.report_uid
        WHERE NOT e.mammogram ORDER BY e.event_uid, e.report_uid, e.node"""     # noqa: S608


# ---- what is taken of both -----------------------------------------------------------------------------------------
def _believed(q: Quantity, side: str) -> str:
    """SQL: whether a side's value is there, plausible, and contradicted by no other of the same side."""
    sound = q.ok(f"{side}_{q.column}", "mg")
    if (unsound := _CONTRADICTED.get(q.column)) is not None:
        sound += f" AND NOT {unsound.format(s=side)}"
    if q.column == "average_glandular_dose_mgy" and side == "r":
        sound += " AND NOT one_projection"
    return f"({sound})"


# A number in another unit than it says: a thousandfold beside mA × ms, tenfold beside kPa × mm2. Wide about the factor,
# since mA × ms is nominal and a contact area is measured.
_CONTRADICTED = {
    "exposure_mas": "coalesce({s}_exposure_mas / nullif({s}_tube_current_ma * {s}_exposure_time_ms / 1000, 0)"
                    " NOT BETWEEN 0.00333 AND 300, false)",
    "compression_force_n": "coalesce({s}_compression_force_n / nullif({s}_compression_pressure_kpa *"
                           " {s}_compression_contact_area_mm2 / 1000, 0) BETWEEN 7 AND 14 OR"
                           " {s}_compression_force_n / nullif({s}_compression_pressure_kpa *"
                           " {s}_compression_contact_area_mm2 / 1000, 0) BETWEEN 0.07 AND 0.14, false)",
}


def select() -> str:
    """Return the query of the table exposures over `joined`, without its order."""
    columns = []
    for q in QUANTITIES:
        h, r = _believed(q, "h"), _believed(q, "r")
        for name in (q.column, f"{q.column}_source"):
            columns.append(f"CASE WHEN {h} THEN h_{name} WHEN {r} THEN r_{name} END AS {name}")
    for term in TERMS:
        columns.append(f"coalesce(h_{term}, r_{term}) AS {term}")
        columns.append(f"coalesce(CASE WHEN h_{term} IS NOT NULL THEN h_{term}_source END, r_{term}_source)"
                       f" AS {term}_source")
    columns += [f"coalesce(h_{name}, r_{name}) AS {name}" for name in _BOTH_PLAIN]
    columns += [f"h_{name} AS {name}" for name in _HEADER_ONLY]
    inner = ", ".join(columns)
    kind = "patient, study, modality, laterality, view, view_modifiers, is_tomosynthesis, plain"
    # Ranks of two parts are not comparable. A report's clock counts where no image of the study has a rank.
    return f"""
        WITH taken AS (
          SELECT exposure_id, patient, study, series, instance, n_images, report_uid, report_match, basis, modality,
                 tomo AS is_tomosynthesis, NOT odd AS plain, said_repeat, rejected AS is_rejected, manufacturer, model,
                 device_id, {inner},
                 CASE WHEN count(DISTINCT parts) OVER w = 1 AND bool_and(instance IS NULL OR parts IS NOT NULL) OVER w
                      THEN o::VARCHAR WHEN count(instance) OVER w = 0 THEN started END AS moment,
                 count(instance) OVER w > 0 AS numeric
          FROM joined WINDOW w AS (PARTITION BY patient, study)),
        ranked AS (
          SELECT *, CASE WHEN moment IS NOT NULL THEN dense_rank() OVER (PARTITION BY patient, study, moment IS NULL
                      ORDER BY CASE WHEN numeric THEN lpad(moment, 12, '0') ELSE moment END) END::INT
                    AS acquisition_order FROM taken)
        SELECT exposure_id, patient AS patient_id, study AS study_uid, series AS series_uid,
               instance AS sop_instance_uid, * EXCLUDE (exposure_id, patient, study, series, instance),
               CASE WHEN said_repeat IS NOT NULL THEN said_repeat
                    WHEN laterality IS NULL OR view IS NULL OR NOT plain THEN NULL
                    WHEN count(*) OVER same = 1 THEN false
                    WHEN count(acquisition_order) OVER same < count(*) OVER same THEN NULL
                    ELSE acquisition_order > min(acquisition_order) OVER same END AS is_repeat
        FROM ranked WINDOW same AS (PARTITION BY {kind})"""     # noqa: S608


def discrepancies(db: duckdb.DuckDBPyConnection) -> None:
    """Add to `wrong_rows` what is wrong with a value, and where two places state different ones."""
    who = "exposure_id, report_uid, study, patient"
    for q in QUANTITIES:
        name = q.column
        for side, column in (("h", "header_value"), ("r", "report_value")):
            value = f"{side}_{name}"
            contradicted = _CONTRADICTED[name].format(s=side) if name in _CONTRADICTED else "false"
            zero = "false" if q.zero else f"{value} = 0"
            db.execute(f"""
                INSERT INTO wrong_rows BY NAME
                SELECT {who}, '{name}' AS quantity, {value} AS {column},
                       CASE WHEN {zero} THEN 'zero' WHEN NOT {q.ok(value, 'mg')} THEN 'implausible'
                            ELSE 'unit_contradiction' END AS kind
                FROM joined WHERE {value} IS NOT NULL AND ({zero} OR NOT {q.ok(value, 'mg')} OR {contradicted})""")  # noqa: S608
        both = f"{_believed(q, 'h')} AND {_believed(q, 'r')}"
        db.execute(f"""
            INSERT INTO wrong_rows BY NAME
            SELECT {who}, '{name}' AS quantity, 'header_report_differ' AS kind, h_{name} AS header_value,
                   r_{name} AS report_value, {q.tolerance(f'h_{name}')} AS tolerance
            FROM joined WHERE basis = 'both' AND {both} AND abs(h_{name} - r_{name}) > {q.tolerance(f'h_{name}')};
            INSERT INTO wrong_rows BY NAME
            SELECT m.exposure_id, min(m.study) AS study, min(m.patient) AS patient, '{name}' AS quantity,
                   'images_differ' AS kind, arg_min(f.{name}, m.rank) AS header_value,
                   max({q.tolerance(f'f.{name}')}) AS tolerance
            FROM member m JOIN flat f USING (instance) WHERE m.n > 1 AND m.stated AND f.{name} <> 0
            GROUP BY m.exposure_id
            HAVING max(f.{name}) - min(f.{name}) > {q.tolerance(f'max(f.{name})')}""")      # noqa: S608
    db.execute(f"""
        INSERT INTO wrong_rows BY NAME
        SELECT {who}, 'average_glandular_dose_mgy' AS quantity, 'one_projection' AS kind,
               r_average_glandular_dose_mgy AS report_value
        FROM joined WHERE one_projection AND r_average_glandular_dose_mgy IS NOT NULL""")       # noqa: S608
    for term in TERMS:
        db.execute(f"""
            INSERT INTO wrong_rows BY NAME
            SELECT {who}, '{term}' AS quantity, 'header_report_differ' AS kind, h_{term} AS header_term,
                   r_{term} AS report_term
            FROM joined WHERE basis = 'both' AND h_{term} <> r_{term};
            INSERT INTO wrong_rows BY NAME
            SELECT m.exposure_id, min(m.study) AS study, min(m.patient) AS patient, '{term}' AS quantity,
                   'images_differ' AS kind, arg_min(f.{term}, m.rank) AS header_term
            FROM member m JOIN flat f USING (instance) WHERE m.n > 1 AND m.stated
            GROUP BY m.exposure_id HAVING count(DISTINCT f.{term}) > 1""")      # noqa: S608
    _existence(db)
    _of_reports(db)


def _existence(db: duckdb.DuckDBPyConnection) -> None:
    """No image for an event, and no event for an image of a study that has a mammography dose report."""
    db.execute("""
        INSERT INTO wrong_rows BY NAME
        SELECT exposure_id, report_uid, study, patient, 'exposure' AS quantity, 'no_image' AS kind
        FROM joined WHERE basis = 'report';
        INSERT INTO wrong_rows BY NAME
        SELECT j.exposure_id, r.report_uid, j.study, j.patient, 'exposure' AS quantity, 'no_report_event' AS kind
        FROM joined j JOIN (SELECT study, patient, min(report_uid) AS report_uid FROM event GROUP BY study, patient) r
          USING (study, patient) WHERE j.basis = 'header' AND j.mg""")


def _of_reports(db: duckdb.DuckDBPyConnection) -> None:
    """What reading the reports found, under the exposure that the event became; reports and totals that disagree."""
    db.execute("""
        CREATE TABLE placed AS
        SELECT e.report_uid, e.node,
               coalesce(m.exposure_id, CASE WHEN e.mammogram THEN j.exposure_id END) AS exposure_id
        FROM events e LEFT JOIN event v ON v.report_uid = e.report_uid AND v.node = e.node
        LEFT JOIN matched m ON m.id = v.id
        LEFT JOIN joined j ON j.basis = 'report' AND j.report_uid = e.report_uid
          AND j.exposure_id IN (e.event_uid, e.minted_uid);
        INSERT INTO wrong_rows BY NAME
        SELECT p.exposure_id, w.report_uid, w.study, w.patient, w.quantity, w.kind, w.report_term
        FROM wrong w LEFT JOIN placed p USING (report_uid, node);
        INSERT INTO wrong_rows BY NAME
        SELECT coalesce(m.exposure_id, j.exposure_id) AS exposure_id, o.report_uid, o.study, o.patient,
               'average_glandular_dose_mgy' AS quantity, 'reports_differ' AS kind,
               o.average_glandular_dose_mgy AS report_value
        FROM events o JOIN event e ON e.event_uid = o.event_uid AND e.study = o.study AND e.patient = o.patient
        LEFT JOIN matched m ON m.id = e.id
        LEFT JOIN joined j ON j.basis = 'report' AND j.exposure_id = e.event_uid
        WHERE o.mammogram AND o.report_uid <> e.report_uid
          AND o.average_glandular_dose_mgy IS DISTINCT FROM e.average_glandular_dose_mgy;
        INSERT INTO wrong_rows BY NAME
        SELECT t.report_uid, min(t.study) AS study, min(t.patient) AS patient,
               'average_glandular_dose_mgy' AS quantity, 'accumulated_differs' AS kind,
               any_value(e.total) AS header_value, any_value(t.value) AS report_value,
               any_value(0.01 * e.total + 0.01 * e.n) AS tolerance
        FROM totals t JOIN (SELECT report_uid, laterality, sum(average_glandular_dose_mgy) AS total, count(*) AS n
                            FROM events WHERE mammogram AND average_glandular_dose_mgy IS NOT NULL
                            GROUP BY report_uid, laterality) e USING (report_uid, laterality)
        WHERE t.quantity = 'average_glandular_dose' AND abs(t.value - e.total) > 0.01 * e.total + 0.01 * e.n
        GROUP BY t.report_uid, t.laterality;
        DROP TABLE placed""")
    for name, most in _EVENT_LIMITS.items():
        db.execute(f"""
            INSERT INTO wrong_rows BY NAME
            SELECT report_uid, study, patient, '{name}' AS quantity, 'implausible' AS kind, {name} AS report_value
            FROM events WHERE NOT mammogram AND {name} NOT BETWEEN 0 AND {most}""")     # noqa: S608

"""Exposures: which images are one irradiation, which event of a dose report is the same, and what both say of it.

Which images are one irradiation is said in copies.py. An event of a mammography report is an exposure's by its event
UID (0008,3010); else by its Acquired Image; else, where either side has no event UID, if both are the only ones left of
their study, side, view and technique and their kV and mAs agree. What is left of the reports is exposures without an
image. The image's value stands before the report's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.curate import copies, discrepancies
from pipeline.curate.limits import EVENT_LIMITS, QUANTITIES, TERMS, believed

if TYPE_CHECKING:
    import duckdb

# Columns of exposures that a header alone gives; of those below, with a report's value behind the header's.
_HEADER_ONLY = ("presentation_intent", "paddle", "exposure_control_mode", "exposure_control_description", "operator_id")
_BOTH_PLAIN = ("view_modifiers", "positioner_primary_angle_deg", "grid")
_SOURCED = tuple(q.column for q in QUANTITIES) + TERMS
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
    copies.find(db)
    reports(db)
    join(db)
    discrepancies.find(db)
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


def events() -> str:
    """Return the query of the table irradiation_events over `events`: every event that is no mammogram's."""
    checked = ", ".join(f"CASE WHEN e.{name} BETWEEN 0 AND {most} THEN e.{name} END AS {name}"
                        for name, most in EVENT_LIMITS.items())
    return f"""
        SELECT e.event_uid, e.report_uid, e.node, e.study AS study_uid, e.patient AS patient_id, f.device_id,
               f.manufacturer, f.model, e.kind, e.acquisition_type, e.target_region, e.plane, e.phantom, {checked}
        FROM events e LEFT JOIN flat f ON f.instance = e.report_uid
        WHERE NOT e.mammogram ORDER BY e.event_uid, e.report_uid, e.node"""     # noqa: S608


def select() -> str:
    """Return the query of the table exposures over `joined`, without its order."""
    columns = []
    for q in QUANTITIES:
        h, r = believed(q, "h"), believed(q, "r")
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



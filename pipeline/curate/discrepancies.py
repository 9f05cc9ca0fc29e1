"""What is wrong with a value, and where two places state different ones: rows of the table discrepancies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.curate.limits import CONTRADICTED, EVENT_LIMITS, QUANTITIES, TERMS, believed

if TYPE_CHECKING:
    import duckdb


def find(db: duckdb.DuckDBPyConnection) -> None:
    """Add to `wrong_rows` what is wrong with a value, and where two places state different ones."""
    who = "exposure_id, report_uid, study, patient"
    for q in QUANTITIES:
        name = q.column
        for side, column in (("h", "header_value"), ("r", "report_value")):
            value = f"{side}_{name}"
            contradicted = CONTRADICTED[name].format(s=side) if name in CONTRADICTED else "false"
            zero = "false" if q.zero else f"{value} = 0"
            db.execute(f"""
                INSERT INTO wrong_rows BY NAME
                SELECT {who}, '{name}' AS quantity, {value} AS {column},
                       CASE WHEN {zero} THEN 'zero' WHEN NOT {q.ok(value, 'mg')} THEN 'implausible'
                            ELSE 'unit_contradiction' END AS kind
                FROM joined WHERE {value} IS NOT NULL AND ({zero} OR NOT {q.ok(value, 'mg')} OR {contradicted})""")  # noqa: S608
        both = f"{believed(q, 'h')} AND {believed(q, 'r')}"
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
    for name, most in EVENT_LIMITS.items():
        db.execute(f"""
            INSERT INTO wrong_rows BY NAME
            SELECT report_uid, study, patient, '{name}' AS quantity, 'implausible' AS kind, {name} AS report_value
            FROM events WHERE NOT mammogram AND {name} NOT BETWEEN 0 AND {most}""")     # noqa: S608

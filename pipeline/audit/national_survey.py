"""The national dose survey's file: 15 columns, a row per exposure. It never leaves the environment.

Columns, view codes and what is left out are those of OpenREM's NHSBSP export (openrem/remapp/exports/mg_csv_nhsbsp.py),
which physicists send today. Here a patient number is a running number of attendances, so that a repeat is told from the
next round; an age is its five-year band; a column that headers and reports do not give is empty.
"""

from __future__ import annotations

import csv
import io

from pipeline.audit.base import Asked, Report

FILE = "national-survey.TRE-INTERNAL.csv"
HEAD = ("Survey number", "Patient number", "View code", "kV", "Anode", "Filter", "Thickness", "mAs",
        "large cassette used", "auto/man", "Auto mode", "Density setting", "Age", "Comment", "AEC density mode")
# Our short code of a view (PS3.16 CID 4014, ACR equivalents) → the survey's.
VIEWS = {"CC": "CC", "MLO": "OB", "ML": "ML", "LM": "LM", "LMO": "LMO", "FB": "FB", "SIO": "SIO", "ISO": "ISO",
         "XCCL": "XCCL", "XCCM": "XCCM"}

_ROWS = """
CREATE TABLE survey AS
WITH x AS (
    SELECT study_uid, exposure_id, acquisition_order, kvp_kv, exposure_mas, body_part_thickness_mm AS thickness,
           exposure_control_mode::VARCHAR AS mode, is_tomosynthesis, view::VARCHAR AS view,
           laterality::VARCHAR AS side, anode::VARCHAR AS anode, filter_material::VARCHAR AS filter_material
    FROM exposures)
SELECT *, CASE WHEN is_tomosynthesis THEN 'tomosynthesis'
    WHEN view IS NULL THEN 'no view'
    WHEN view = 'SPECIMEN' THEN 'specimen view'
    WHEN view NOT IN ({views}) THEN 'a view the survey has no code for'
    WHEN side IS NULL OR side NOT IN ('R', 'L') THEN 'no laterality'
    WHEN anode IS NULL THEN 'no anode'
    WHEN filter_material IS NULL THEN 'no filter'
    WHEN contains(filter_material, '\\') THEN 'more than one filter'
    END AS reason
FROM x
"""
# Attendances are numbered by their remapped UIDs, which follow nothing. Of one code, the first has no number.
_NUMBERED = """
SELECT dense_rank() OVER (ORDER BY s.study_uid), s.side || CASE s.view {codes} END AS code,
       row_number() OVER (PARTITION BY s.study_uid, code
                          ORDER BY s.acquisition_order NULLS LAST, s.exposure_id),
       s.kvp_kv, symbol(s.anode), symbol(s.filter_material), s.thickness, s.exposure_mas, s.mode, {age}
FROM survey s {join} WHERE s.reason IS NULL
ORDER BY 1, s.acquisition_order NULLS LAST, s.exposure_id
"""


def add(asked: Asked, report: Report) -> None:
    """Add the file to the report's internal ones, and a note of what it leaves out. Needs `exposed.prepare`."""
    asked.db.execute(_ROWS.format(views=", ".join(f"'{view}'" for view in VIEWS)))
    aged = asked.has("studies", "study_uid", "age_band_years")
    sql = _NUMBERED.format(codes=" ".join(f"WHEN '{view}' THEN '{code}'" for view, code in VIEWS.items()),
                           age="t.age_band_years" if aged else "NULL",
                           join="LEFT JOIN studies t USING (study_uid)" if aged else "")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(HEAD)
    cursor = asked.db.execute(sql)
    while rows := cursor.fetchmany(4096):
        writer.writerows(_row(*row) for row in rows)
    report.internal[FILE] = out.getvalue().encode()
    out_of_it = asked.rows("SELECT reason, count(*) FROM survey WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1")
    report.internal_counts = [("rows of the survey file", int(asked.one(
        "SELECT count(*) FROM survey WHERE reason IS NULL"))), *(
        (f"left out of the survey file: {reason}", int(n)) for reason, n in out_of_it)]


def _row(patient: int, code: str, nth: int, kv: float | None, anode: str, filter_: str, thickness: float | None,
         mas: float | None, mode: str | None, age: int | None) -> list[object]:
    word = (mode or "").upper()
    how = "AUTO" if word.startswith("AUTO") else "MANUAL" if word.startswith("MAN") else ""
    band = "" if age is None else "90+" if age >= 90 else f"{age}-{age + 4}"
    return [1, patient, code if nth == 1 else f"{code}{nth}", _number(kv), anode, filter_, _number(thickness),
            _number(mas), "", how, word if how else "", "", band, "", ""]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"

"""A release's exposures as the audits group them: person, x-ray set, spectrum, view, and the numbers they ask of.

Makes the DuckDB table `e`, a row per exposure, without any UID. Sets and spectra of tomosynthesis stand apart from
those of plain mammograms, because their doses are not to be mixed.
"""

from __future__ import annotations

from pipeline.audit.base import Asked, Need, Reads
from pipeline.schemas.equipment import MATERIALS

BAND_MM = (50, 60)      # where UK surveys compare dose: PubMed 35604717; 10.1093/bjr/tqad039
THICKNESS = "thickness_mm > 0 AND thickness_mm <= 300"      # a house plausibility limit, and wide
TOMOSYNTHESIS = " · tomo"
# Every audit that groups by thickness groups by these bands alone: two ways to cut would tell of what lies between.
IN_BAND = f"{BAND_MM[0]}–{BAND_MM[1]} mm"
BANDS = {"under 30 mm": 25.0, **{f"{low}–{low + 10} mm": low + 5.0 for low in range(30, 90, 10)},
         "90 mm and over": 95.0}
BAND_SQL = ("CASE WHEN thickness_mm < 30 THEN 'under 30 mm' WHEN thickness_mm >= 90 THEN '90 mm and over'"
            " ELSE (floor(thickness_mm / 10) * 10)::INT || '–' || ((floor(thickness_mm / 10) * 10)::INT + 10) || ' mm'"
            " END")

READS = Reads("exposures", (
    "exposure_id", "patient_id", "study_uid", "laterality", "view", "is_tomosynthesis", "anode", "filter_material",
    "body_part_thickness_mm", "model", "device_id"))

DEVICE = Need("x-ray set", "Groups by set.", (("DeviceSerialNumber",),), least="pseudonym",
              serves=("pseudonym", "kept"))
MODEL = Need("model", "Names the set.", (("ManufacturerModelName",),), required=False)
VIEW = Need("view", "Groups by view.",
            (("ViewCodeSequence", "CodeValue", "CodingSchemeDesignator"), ("ViewPosition",)))
SIDE = Need("side", "Tells the breasts apart.", (("ImageLaterality",), ("Laterality",)))
PERSON = Need("person", "Counts people, and keeps small groups back.", (("PatientID",),), least="pseudonym",
              serves=("pseudonym", "kept"))
STUDY = Need("study", "Tells one attendance from another.", (("StudyInstanceUID",),), least="remapped",
             serves=("remapped", "kept"))
THICK = Need("compressed thickness", "Dose depends on it.", (("BodyPartThickness",),))


def _symbols() -> str:
    """SQL for the symbol of a material; what has none stands as it is."""
    words = {name: symbol.capitalize() for symbol, name in MATERIALS.items() if len(symbol) <= 2}
    cases = " ".join(f"WHEN '{name}' THEN '{symbol}'" for name, symbol in sorted(words.items()))
    return f"CREATE MACRO symbol(m) AS CASE m {cases} ELSE m END"


_SETS = """
CREATE TABLE sets AS
WITH s AS (SELECT device_id, min(model) AS model FROM exposures WHERE device_id IS NOT NULL GROUP BY device_id),
     l AS (SELECT device_id, coalesce(trim(model) || ' ', 'Set ') || left(device_id, 5) AS label FROM s)
SELECT device_id, CASE WHEN count(*) OVER (PARTITION BY label) = 1 THEN label
                       ELSE label || substr(device_id, 6) END AS label FROM l
"""
_PEOPLE = """
CREATE TABLE people AS
SELECT patient_id, row_number() OVER (ORDER BY patient_id)::INT AS person
FROM (SELECT DISTINCT patient_id FROM exposures)
"""
_FILTER = "list_transform(string_split(x.filter_material::VARCHAR, '\\'), lambda f: symbol(f))"


def prepare(asked: Asked, **columns: str) -> None:
    """Make the table `e`: person, technique, set_label, spectrum, view, side, thickness_mm, and `columns` (SQL by name,
    of `x`, the exposure, and `d`, its glandular dose, all null where the release has none)."""
    doses = asked.has("glandular_doses", "exposure_id", "mean_glandular_dose_mgy", "synthetic", "not_computed")
    nothing = ("SELECT NULL::VARCHAR AS exposure_id, NULL::DOUBLE AS mean_glandular_dose_mgy, false AS synthetic,"
               " NULL::VARCHAR AS not_computed, NULL::VARCHAR AS factors LIMIT 0")
    asked.db.execute(_symbols())
    asked.db.execute(_SETS)
    asked.db.execute(_PEOPLE)
    asked.db.execute(f"CREATE VIEW d AS {'FROM glandular_doses' if doses else nothing}")
    more = "".join(f", {sql} AS {name}" for name, sql in columns.items())
    tomo = f"CASE WHEN x.is_tomosynthesis THEN '{TOMOSYNTHESIS}' ELSE '' END"
    asked.db.execute(
        f"""CREATE TABLE e AS SELECT p.person, coalesce(x.is_tomosynthesis, false) AS tomosynthesis,
            s.label || {tomo} AS set_label,
            symbol(x.anode::VARCHAR) || '/' || array_to_string({_FILTER}, '+') || {tomo} AS spectrum,
            x.view::VARCHAR AS view, x.laterality::VARCHAR AS side,
            CASE WHEN isfinite(x.body_part_thickness_mm) THEN x.body_part_thickness_mm END AS thickness_mm{more}
            FROM exposures x JOIN people p USING (patient_id) LEFT JOIN sets s USING (device_id)
            LEFT JOIN d USING (exposure_id)""")  # noqa: S608


def finite(column: str) -> str:
    """SQL for a number of the exposures that is one and above zero, else null."""
    return f"CASE WHEN isfinite({column}) AND {column} > 0 THEN {column} END"

"""Tables of what structured reports state: numbers and codes, each at its place in the report."""

from __future__ import annotations

from pipeline.schemas.base import Column, Table
from pipeline.schemas.base import column as _c

# Of both tables, before and after what the item itself says.
_PLACE = (
    _c("report_uid", "string", "Remapped SOP Instance UID of the report.", null=False),
    _c("node", "int32", "Place of the item in the report, in document order; the root is 1.", null=False),
    _c("parent", "int32", "`node` of the item that holds it: a property's finding, for example.", null=False),
    _c("study_uid", "string", "", null=False),
    _c("patient_id", "string", "Pseudonym of the person.", null=False),
    _c("template", "string", "Of the nearest container above that names one: 10003, 4006.",
       source="TemplateIdentifier (0040,DB00)"),
    _c("path", "string", "Meanings of the concept names from the root down to the item, joined with ` / `; ? where an "
       "item has none.", null=False),
    _c("relationship", "string", "To the item that holds it: HAS CONCEPT MOD marks a modifier of it.",
       source="RelationshipType (0040,A010)"),
    _c("concept", "string", "Code value of the concept name.", source="ConceptNameCodeSequence (0040,A043)"),
    _c("concept_scheme", "string", "Its coding scheme; SRT and SNM3 as they stand."),
    _c("concept_meaning", "string", "Its code meaning."),
)
_ABOUT = (
    _c("laterality", "string", "R, L or B: stated beneath the item, else beneath the nearest item above it that states "
       "one; null where that one contradicts itself.",
       source="Laterality (272741003 SCT, G-C171 SRT), Image Laterality (111027 DCM), of the item or of its site; or a "
       "site that has a side (Left breast)"),
    _c("site", "string", "Finding site, found in the same way: its code meaning.",
       source="Finding Site (363698007 SCT, G-C0E3 SRT), Anatomical structure (91723000 SCT, T-D0005 SRT)"),
    _c("rendering_intent", "string", "Computer-aided detection: whether the finding is to be shown, found in the same "
       "way.", source="Rendering Intent (111056 DCM)"),
)
_REFERENCES = (("report_uid", "instances"), ("study_uid", "studies"), ("patient_id", "patients"))


def _table(name: str, meaning: str, *own: Column) -> Table:
    return Table(name, meaning, ("report_uid", "node"), (*_PLACE, *own, *_ABOUT), _REFERENCES)


MEASUREMENTS = _table(
    "measurements", "A row per numeric item (NUM) of any structured report, as the report states it.",
    _c("value", "float64", "In `unit`; null where the report has none or it is malformed.",
       source="NumericValue (0040,A30A)"),
    _c("unit", "string", "Code value of the unit (UCUM): mGy, mm, %, 1.", source="MeasurementUnitsCodeSequence "
       "(0040,08EA)"),
    _c("qualifier", "string", "Code value of why there is no number.",
       source="NumericValueQualifierCodeSequence (0040,A301)"),
)
FINDINGS = _table(
    "findings", "A row per coded item (CODE) of any structured report: findings, and their modifiers and context.",
    _c("code", "string", "Code value.", source="ConceptCodeSequence (0040,A168)"),
    _c("code_scheme", "string", "Its coding scheme."),
    _c("code_meaning", "string", "Its code meaning."),
)

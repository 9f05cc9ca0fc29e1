"""Tables as data: column, type, unit, meaning, source. The data dictionary is printed from these; readers check them.

Pure. Arrow types are named here and built by `arrow_schema` (pyarrow is imported on use). Times never stand in a table.
"""

from pipeline.schemas.base import SCHEMA_VERSION, Column, Table, Type, arrow_schema
from pipeline.schemas.clinical import CLINICAL_PERSON, CLINICAL_TYPES, Declared, clinical_table
from pipeline.schemas.dose import ACCUMULATED_DOSES, DISCREPANCIES, EXPOSURES, IRRADIATION_EVENTS
from pipeline.schemas.equipment import EQUIPMENT, FACTORS, GLANDULAR_DOSES, OUTPUT, SURVEYS, VERSIONS, material
from pipeline.schemas.findings import FINDINGS, MEASUREMENTS
from pipeline.schemas.images import INSTANCES, PATIENTS, SERIES, STUDIES
from pipeline.schemas.zones import (
    ASKED,
    CLINICAL_OUTCOMES,
    CONTENT,
    EXPECTED,
    FACTS,
    IMAGES,
    INVENTORY,
    KNOWN_PEOPLE,
    LEDGER,
    LISTING,
    LOOKS,
    MISSING,
    OUTCOMES,
    SEEN,
)

PUBLISHED = (
    PATIENTS, STUDIES, SERIES, INSTANCES, EXPOSURES, DISCREPANCIES, ACCUMULATED_DOSES, IRRADIATION_EVENTS,
    MEASUREMENTS, FINDINGS, EQUIPMENT, GLANDULAR_DOSES,
)

__all__ = [
    "ACCUMULATED_DOSES",
    "ASKED",
    "CLINICAL_OUTCOMES",
    "CLINICAL_PERSON",
    "CLINICAL_TYPES",
    "CONTENT",
    "DISCREPANCIES",
    "EQUIPMENT",
    "EXPECTED",
    "EXPOSURES",
    "FACTORS",
    "FACTS",
    "FINDINGS",
    "GLANDULAR_DOSES",
    "IMAGES",
    "INSTANCES",
    "INVENTORY",
    "IRRADIATION_EVENTS",
    "KNOWN_PEOPLE",
    "LEDGER",
    "LISTING",
    "LOOKS",
    "MEASUREMENTS",
    "MISSING",
    "OUTCOMES",
    "OUTPUT",
    "PATIENTS",
    "PUBLISHED",
    "SCHEMA_VERSION",
    "SEEN",
    "SERIES",
    "STUDIES",
    "SURVEYS",
    "VERSIONS",
    "Column",
    "Declared",
    "Table",
    "Type",
    "arrow_schema",
    "clinical_table",
    "material",
]

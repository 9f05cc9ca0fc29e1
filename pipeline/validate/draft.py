"""A suite for a clinical table, drafted from what the project file declares of its columns; people read and change it.

Pure. What it asks: declared types, a pseudonym where one should stand, values of categories, plausible dates, that what
is required is there, the declared order of events. Rows that fail are dropped; a wrong type or pseudonym stops all.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline.schemas import clinical_table
from pipeline.sections import Clinical

_TYPES = {"string": "str", "float64": "float", "date": "date"}
_PSEUDONYM = {"patient_id": r"^P[0-9A-F]{20}\Z", "identifier": r"^I[0-9A-F]{16}\Z"}
_PLAUSIBLE = {"min_value": "1980-01-01", "max_value": "2099-12-31", "strict_min": False, "strict_max": False}


def draft(declared: Clinical) -> bytes:
    """Return the suite file of a declared clinical table."""
    table = clinical_table(declared.table, declared.columns)
    asked: list[dict[str, Any]] = []

    def ask(kind: str, severity: str, why: str, source: str, **kwargs: object) -> None:
        asked.append({"type": f"expect_column_{kind}", "kwargs": {**kwargs, "mostly": 1.0}, "severity": severity,
                      "meta": {"why": why, "source": source}})

    for column in table.columns:
        ask("values_to_be_of_type", "critical", "The declared type.", "The project file", column=column.name,
            type_=_TYPES[column.type])
    ask("values_to_not_be_null", "critical", "Every row belongs to a person.", "House rule", column="patient_id")
    ask("values_to_match_regex", "critical", "A pseudonym of this product and nothing else.",
        "pipeline/deidentify/pseudonyms.py", column="patient_id", regex=_PSEUDONYM["patient_id"])
    for name, how in declared.columns.items():
        if how.required and how.role not in ("identity", "drop"):
            ask("values_to_not_be_null", "warning", "Declared as required.", "The project file", column=name)
        if how.role == "identifier":
            ask("values_to_match_regex", "critical", "A pseudonym of this product and nothing else.",
                "pipeline/deidentify/pseudonyms.py", column=name, regex=_PSEUDONYM["identifier"])
        elif how.role == "category":
            ask("values_to_be_in_set", "warning", how.meaning or "One of the declared values.", "The project file",
                column=name, value_set=list(how.values))
        elif how.role == "event_date":
            ask("values_to_be_between", "warning", "A date before the first digital images, or far in the future, is a "
                "mistake of the file.", "House plausibility limit, wide", column=name, **_PLAUSIBLE)
    for earlier, later in zip(declared.order, declared.order[1:], strict=False):
        ask("pair_values_a_to_be_greater_than_b", "info", f"How many rows have {later} before {earlier}.",
            "The project file's order of events", column_A=later, column_B=earlier, or_equal=True,
            ignore_row_if="either_value_is_missing")
    ask("values_to_be_in_set", "info", "How many rows are of people with no image in this release.", "House rule",
        column="patient_id_is_in_patients", value_set=[True])
    suite = {"name": declared.table, "meta": {"schema_version": 1, "optional": True, "purpose": table.meaning},
             "expectations": asked}
    return json.dumps(suite, indent=1).encode() + b"\n"

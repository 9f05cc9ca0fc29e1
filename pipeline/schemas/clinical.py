"""Clinical tables take their columns from the project file; every one starts with the person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pipeline.schemas.base import Table, Type
from pipeline.schemas.base import column as _c

CLINICAL_PERSON = _c("patient_id", "string", "Pseudonym of the person.", source="the identity column", null=False)


class Declared(Protocol):
    """A column as the project file declares it."""

    @property
    def role(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def meaning(self) -> str: ...
    @property
    def required(self) -> bool: ...


CLINICAL_TYPES: dict[str, tuple[Type, str]] = {     # role → type, what was done; identity and drop are not released
    "event_date": ("date", "shifted by the person's own number of days"),
    "category": ("string", "one of the values that the project file lists"),
    "number": ("float64", "as it stands in the file"),
    "identifier": ("string", "keyed pseudonym"),
}


def clinical_table(name: str, columns: Mapping[str, Declared]) -> Table:
    """Return the schema of a declared clinical table as it is released: the person, then the kept columns in order."""
    kept = [_c(n, CLINICAL_TYPES[c.role][0], c.meaning, c.unit, f"column {n} of the file, {CLINICAL_TYPES[c.role][1]}",
               null=not c.required) for n, c in columns.items() if c.role in CLINICAL_TYPES]
    return Table(name, "A row per row of the clinical file whose person could be told.", (),
                 (CLINICAL_PERSON, *kept), (("patient_id", "patients"),))

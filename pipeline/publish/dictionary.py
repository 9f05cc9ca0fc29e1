"""The data dictionary of a release: every table and column with type, unit, meaning and source; reason codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline import schemas
from pipeline.errors import CandidateFailed
from pipeline.model import REASONS

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1
NOTES = (
    "An empty cell (null): the source has no such value, or one that is malformed or contradicts another (of exposures "
    "the table discrepancies says which), or the recipes do not keep it. Unless the meaning says so, no number and no "
    "word stands in its place.",
    "Dates of one person are moved into the past by one number of days, which nobody is told. Intervals within a "
    "person are true; calendar dates, seasons and the order of events of different people are not.",
    "patient_id, device_id, operator_id and UIDs are pseudonyms: one thing has one of them, in every table and image "
    "of this project, and another one in every other project.",
    "A column named after another with _source says where that value of this row was read, and how it was converted.",
    "Sources are DICOM attributes, or codes of PS3.16 (111636 DCM) in a structured report. “As the file states it” "
    "means as DICOM defines that attribute.",
)
_ORDER = tuple(table.name for table in schemas.PUBLISHED)


def build(tables: Mapping[str, pa.Schema], rows: Mapping[str, int], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"schema_version", "notes", "reasons", "tables": [{"name", "meaning", "key", "references", "rows",
    "columns"}]} of tables, given by their Arrow schemas and numbers of rows.

    Columns of image tables come from `schemas`, those of clinical tables from `plan["clinical"]["tables"]`, a mapping
    of table to [{"name", "type", "unit", "meaning", "values"}]. Raises CandidateFailed where a table or a column is
    declared in neither: what nobody declared is not released.
    """
    clinical = (plan.get("clinical") or {}).get("tables") or {}
    known = {table.name: table for table in schemas.PUBLISHED}
    out = []
    for name in sorted(tables, key=lambda n: (_ORDER.index(n) if n in _ORDER else len(_ORDER), n)):
        if name in known:
            entry = _image_table(known[name])
        elif isinstance(clinical, Mapping) and name in clinical:
            entry = _clinical_table(name, clinical[name])
        else:
            raise CandidateFailed(f"The table {name} is declared neither by the product nor by the plan.")
        declared = {column["name"]: column for column in entry["columns"]}
        fields = {field.name: str(field.type) for field in tables[name]}
        undeclared = sorted(set(fields) - set(declared))
        if undeclared:
            raise CandidateFailed(f"The table {name} has columns that nothing declares: {', '.join(undeclared)}.")
        entry["columns"] = [
            {**declared[field], "type": declared[field]["type"] or kind} for field, kind in fields.items()
        ]
        entry["rows"] = rows[name]
        out.append(entry)
    reasons = [
        {"code": str(code), "status": str(status), "meaning": meaning} for code, (status, meaning) in REASONS.items()
    ]
    return {"schema_version": SCHEMA_VERSION, "notes": list(NOTES), "tables": out,
            "reasons": sorted(reasons, key=lambda r: r["code"])}


def html(words: Mapping[str, Any], title: str) -> bytes:
    """Return the dictionary as one self-contained page."""
    from pipeline.publish import pages

    return pages.render("dictionary.html.j2", words=words, title=title)


def _image_table(table: schemas.Table) -> dict[str, Any]:
    columns = [
        _entry(
            c.name, c.type, c.unit, c.meaning or _key_meaning(c.name) or "As the file states it.", c.source, c.nullable
        )
        for c in table.columns
    ]
    references = [{"column": column, "table": other} for column, other in table.references]
    return {
        "name": table.name,
        "meaning": table.meaning,
        "key": list(table.key),
        "references": references,
        "columns": columns,
    }


def _clinical_table(name: str, declared: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    person = schemas.CLINICAL_PERSON
    columns = [_entry(person.name, person.type, "", person.meaning, person.source, False)]
    columns += [
        _entry(
            c["name"],
            c.get("type", ""),
            c.get("unit", ""),
            c.get("meaning", ""),
            "the clinical file",
            c.get("nullable", True),
            list(c.get("values", ())),
        )
        for c in declared
        if c["name"] != person.name
    ]
    meaning = "Clinical rows as the project file declares them, also of people who have no image in this dataset."
    return {"name": name, "meaning": meaning, "key": [], "references": [], "columns": columns}


def _entry(
    name: str, kind: str, unit: str, meaning: str, source: str, nullable: bool, values: list[str] | None = None
) -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "unit": unit,
        "meaning": meaning,
        "source": source,
        "nullable": nullable,
        "values": values or [],
    }


def _key_meaning(column: str) -> str:
    """The meaning of a column whose table leaves it out: that of the table it is the key of."""
    for table in schemas.PUBLISHED:
        if table.key == (column,):
            return next(c.meaning for c in table.columns if c.name == column)
    return ""

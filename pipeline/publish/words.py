"""Words for people: reason codes, sizes, the lines of an approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.model import REASONS, Reason, Status

# PS3.16 CID 7050, De-identification Method.
METHODS = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113103": "Clean Graphics Option",
    "113104": "Clean Structured Content Option",
    "113105": "Clean Descriptors Option",
    "113106": "Retain Longitudinal Temporal Information Full Dates Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113109": "Retain Device Identity Option",
    "113110": "Retain UIDs Option",
    "113111": "Retain Safe Private Option",
    "113112": "Retain Institution Identity Option",
}
_CLINICAL = {"linked": "The person is known and may be in the project.", "": "The row passed.",
             Reason.PERSON_ID_MISSING: "The row has no id of a person."}


def reason(code: str) -> str:
    """Return what a reason code means; the code itself where the product does not know it."""
    return REASONS[Reason(code)][1] if code in set(Reason) else code.replace("_", " ").capitalize()


def row_reason(code: str) -> str:
    """Return what a reason code means of a clinical table's row."""
    return _CLINICAL.get(code) or reason(code)


def size(n: int) -> str:
    """Return a number of bytes as people say it: `3.4 GB`."""
    value, unit = float(n), "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"


def summary_lines(candidate_json: Mapping[str, Any], previous: Mapping[str, Any] | None = None) -> list[str]:
    """Return about twenty lines for the officer who approves. Counts, words and digests; no value of any patient.

    `previous` is the manifest.json of the current release, where there is one.
    """
    doc, totals, checked = candidate_json, candidate_json["totals"], candidate_json["validation"]
    years = doc["study_years"]
    lines = [
        f"Project: {doc['title'] or doc['project']}"
        + (" (demo: synthetic or public data only)" if doc["demo"] else ""),
        f"Data steward: {doc['data_steward'] or 'not named'}",
        f"Candidate: {doc['candidate']}",
        f"People {totals.get('patients', 0):,}, studies {totals.get('studies', 0):,}, "
        f"series {totals.get('series', 0):,}, images {doc['images']['count']:,} ({size(doc['images']['bytes'])})",
        f"Study dates {years[0]} to {years[1]}, shifted into the past by each person's own number of days"
        if years
        else "Study dates: none",
        f"Researchers see {sum(doc['columns'].values())} columns in {len(totals)} tables; rows: "
        + ", ".join(f"{name} {rows:,}" for name, rows in totals.items()),
    ]
    if listed := doc.get("catalogue"):
        lines.append(f"The catalogue shows {listed['columns']} columns, one for each element that an image keeps")
    for status, by_reason in doc["counts"].items():
        if status != Status.PUBLISHED:
            lines += [
                f"{status.capitalize()} {n:,}: {reason(code) if code else 'Not de-identified yet.'}"
                for code, n in by_reason.items()
            ]
    if doc["short_names"]:
        lines.append(f"Names too short to be searched for in what comes out: {doc['short_names']:,} people")
    if emptied := doc.get("emptied"):
        lines.append("Free text emptied, for it was no approved term: "
                     + ", ".join(f"{name} of {n:,} images" for name, n in emptied.items()))
    for table, by_reason in doc["clinical_counts"].items():
        lines.append(
            f"Clinical rows of {table}: "
            + ", ".join(f"{code.replace('_', ' ') or 'passed'} {n:,}" for code, n in by_reason.items())
        )
    lines.append(
        f"Checks: {checked['expectations']} expectations, {checked['failed']} failed"
        + "".join(
            f"; {severity} {n['passed']} passed, {n['failed']} failed" for severity, n in checked["by_severity"].items()
        )
    )
    lines += [f"Recipe {' + '.join(r['files'])}: {r['digest'][:16]}" for r in doc["recipes"]]
    if previous is None:
        lines.append("Since the last release: this is the first.")
    else:
        was = previous["totals"]
        lines.append(
            f"Rows since release {previous['release']}: "
            + ", ".join(f"{name} {totals.get(name, 0) - was.get(name, 0):+,}" for name in {**was, **totals})
        )
    return lines

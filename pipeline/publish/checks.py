"""Validation results, one document per suite (see validate.run), read as rows for the summary and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One expectation of a suite and how it came out. `unexpected` counts rows; no value stands in it."""

    suite: str
    expectation: str
    column: str
    severity: str
    passed: bool
    unexpected: int
    why: str


def rows(results: Mapping[str, Mapping[str, Any]]) -> Iterator[Check]:
    """Yield every expectation, suites by name and expectations in the suite's order."""
    for suite, doc in sorted(results.items()):
        for item in doc["expectations"]:
            yield Check(
                suite,
                item["type"],
                item.get("column") or "",
                item["severity"],
                item["success"],
                item.get("unexpected_count") or 0,
                item.get("why") or "",
            )


def summary(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return {"expectations", "failed", "by_severity": {severity: {"passed", "failed"}}, "dropped": {table: rows}}."""
    by_severity: dict[str, dict[str, int]] = {}
    for check in rows(results):
        count = by_severity.setdefault(check.severity, {"passed": 0, "failed": 0})
        count["passed" if check.passed else "failed"] += 1
    return {
        "expectations": sum(n["passed"] + n["failed"] for n in by_severity.values()),
        "failed": sum(n["failed"] for n in by_severity.values()),
        "by_severity": dict(sorted(by_severity.items())),
        "dropped": {suite: doc["dropped_rows"] for suite, doc in sorted(results.items()) if doc.get("dropped_rows")},
    }

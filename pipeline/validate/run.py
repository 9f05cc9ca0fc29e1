"""Run the suites over the tables: what failed, which images are withheld for it, and nothing of any cell.

Positions and keys of failing rows stay in memory. A result document has counts and words only, no run times, so that it
is the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.model import Reason
from pipeline.schemas import PUBLISHED
from pipeline.validate import groups
from pipeline.validate.gx import Asker
from pipeline.validate.measure import Answer, measure, withholds
from pipeline.validate.relations import ROW, Relations, quoted
from pipeline.validate.suites import Suite, load, suite_digests
from pipeline.validate.words import expected

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.sections import SmallGroups

__all__ = ["Validation", "settle", "suite_digests", "validate"]

SCHEMA_VERSION = 1
_OURS = {table.name for table in PUBLISHED}
# By what a failing row names what is withheld for it: the first of these that its table has, as column → column of
# instances. All images and the report of an exposure: from any that is left the row would be built again.
_NAMED: tuple[dict[str, str], ...] = (
    {"exposure_id": "exposure_id", "sop_instance_uid": "sop_instance_uid", "report_uid": "sop_instance_uid"},
    {"series_uid": "series_uid"}, {"study_uid": "study_uid"}, {"patient_id": "patient_id"},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Validation:
    """`results`: a document per suite. `withheld`: reason code by output SOP Instance UID. `dropped`: by clinical
    table, positions of rows that are withheld without an image. `critical`: failed critical expectations, as
    `table: type(column)`. `expectations`, `failed`: counts over all suites."""

    results: dict[str, dict[str, Any]]
    withheld: dict[str, str]
    dropped: dict[str, list[int]]
    critical: list[str]
    expectations: int
    failed: int


def settle(
    tables: Mapping[str, pa.Table | Path],
    suites: Path | Sequence[Path],
    small_groups: SmallGroups | None,
    rebuild: Callable[[Mapping[str, str], Mapping[str, list[int]]], Mapping[str, pa.Table | Path]],
    digests: Mapping[str, str] | None = None,
) -> Validation:
    """Validate; withhold; `rebuild` the tables without what is withheld; again, until nothing more is withheld.

    Return the first look, with all that was withheld in the end and what was critical at the last: every row of the
    tables that were built last has passed. `rebuild` takes instances and row positions as `Validation` has them.
    Raises what `validate` raises.
    """
    first = found = validate(tables, suites, small_groups, digests)
    withheld, dropped = dict(found.withheld), {name: list(rows) for name, rows in found.dropped.items()}
    while (found.withheld or found.dropped) and not found.critical:
        tables = rebuild(withheld, dropped)
        found = validate(tables, suites, small_groups, digests)
        withheld |= {uid: reason for uid, reason in found.withheld.items() if uid not in withheld}
        for name, rows in found.dropped.items():
            dropped[name] = sorted({*dropped.get(name, ()), *_before(rows, dropped.get(name, ()))})
    _say_dropped(first.results, dropped)
    return replace(first, withheld=dict(sorted(withheld.items())), dropped=dropped, critical=found.critical)


def _before(rows: Iterable[int], gone: Iterable[int]) -> list[int]:
    """Return where rows stood before those at `gone` were taken out."""
    out, away = [], sorted(gone)
    for row in sorted(rows):
        for place in away:
            if place > row:
                break
            row += 1
        out.append(row)
    return out


def validate(
    tables: Mapping[str, pa.Table | Path], suites: Path | Sequence[Path], small_groups: SmallGroups | None = None,
    digests: Mapping[str, str] | None = None,
) -> Validation:
    """Check every table (in memory, or a Parquet file) against its suite. Raises SuiteRefused (see suites.load),
    SchemaTooNew.

    Also refused: a suite of which Great Expectations loads or answers another number of expectations than its file has.
    A failing row of patients, studies or series withholds all its images; of another table of ours, the images and
    reports that it names; of a clinical table, the row alone. Of a group that is too small see `groups`. An expectation
    that could not be answered counts as critical, whatever its severity.
    """
    asker = Asker()
    loaded = load(suites, tables.keys(), digests)
    results: dict[str, dict[str, Any]] = {}
    found = _Found()
    with Relations(tables) as relations:
        for suite in loaded:
            answers = measure(asker, relations, suite)
            rows = _failing(suite, answers)
            held, dropped = _held(relations, suite, rows, found.critical)
            found.expected |= held
            found.dropped |= {suite.name: dropped} if dropped else {}
            results[suite.name] = _document(suite, answers, relations.rows(suite.name), len(rows), len(held))
        if small_groups:
            small = groups.judge(asker, relations, small_groups, found.expected)
            found.small = small.instances - found.expected
            for name, positions in small.dropped.items():
                if positions:
                    found.dropped[name] = sorted({*found.dropped.get(name, ()), *positions})
            results[groups.NAME] = _document(small.suite, [small.answer], small.rows,
                                             small.answer.unexpected_count or 0, len(found.small))
    _say_dropped(results, found.dropped)
    withheld = dict.fromkeys(found.small, Reason.GROUP_TOO_SMALL.value)
    withheld |= dict.fromkeys(found.expected, Reason.EXPECTATION_FAILED.value)
    every = [(name, line) for name, result in results.items() for line in result["expectations"]]
    critical = [f"{name}: {line['type']}({line['column']})" for name, line in every if _stops(line)] + found.critical
    failed = sum(not line["success"] for _, line in every)
    return Validation(results, dict(sorted(withheld.items())), found.dropped, critical, len(every), failed)


@dataclass(slots=True)
class _Found:
    """Instances that fail an expectation, instances of groups too small, rows to leave out by clinical table."""

    critical: list[str] = field(default_factory=list)

    expected: set[str] = field(default_factory=set)
    small: set[str] = field(default_factory=set)
    dropped: dict[str, list[int]] = field(default_factory=dict)


def _say_dropped(results: Mapping[str, dict[str, Any]], dropped: Mapping[str, list[int]]) -> None:
    for name, rows in dropped.items():
        results[name]["dropped_rows"] = len(rows)


def _stops(line: Mapping[str, Any]) -> bool:
    """What could not be answered was not checked: that stops a candidate whatever the severity."""
    return not line["success"] and (line["severity"] == "critical" or not line["answered"])


def _failing(suite: Suite, answers: list[Answer]) -> Any:
    """Return the positions of the rows to withhold, each once, sorted."""
    import numpy as np

    rows = [part for item, answer in zip(suite.expectations, answers, strict=True) if withholds(item)
            for part in answer.rows]
    return np.unique(np.concatenate(rows)) if rows else np.arange(0)


def _held(tables: Relations, suite: Suite, rows: Any, critical: list[str]) -> tuple[set[str], list[int]]:
    """Return the SOP Instance UIDs that these rows withhold, and the positions of rows that go alone.

    A row that names no image cannot be withheld, and would be published as it is: that is critical.
    """
    import pyarrow as pa

    name = suite.name
    if not len(rows):
        return set(), []
    if name not in _OURS:
        return set(), [int(row) for row in rows]
    there = set(tables.columns(name))
    by = next((by for by in _NAMED if there & set(by)), {})
    if name == "instances":
        by = {"sop_instance_uid": "sop_instance_uid"}
    tables.give("_failing", pa.table({"r": pa.array(rows, pa.int64())}))
    named = " UNION ALL ".join(
        f"SELECT f.{ROW}, i.sop_instance_uid FROM {quoted(name)} f JOIN instances i ON i.{key} = f.{quoted(column)} "  # noqa: S608
        f"WHERE f.{ROW} IN (SELECT r FROM _failing)" for column, key in by.items() if column in there)
    found = tables.query(named) if named else None
    if found is None or len(found[0].unique()) != len(rows):
        critical.append(f"{name}: a row that is to be withheld names no image")
    return set(found[1].to_pylist()) if found else set(), []


def _document(suite: Suite, answers: list[Answer], rows: int, failing: int, held: int) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "suite": suite.name,
        "rows": rows,
        "failing_rows": failing,
        "withheld_instances": held,
        "dropped_rows": 0,
        "expectations": [_line(item, answer) for item, answer in zip(suite.expectations, answers, strict=True)],
    }


def _line(item: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """One expectation and how it came out. Taken from the suite and from counts: no cell can be in it."""
    kwargs = item["kwargs"]
    columns = [kwargs[k] for k in ("column", "column_A", "column_B") if k in kwargs]
    if not columns and item["type"] != "expect_table_columns_to_match_ordered_list":
        columns = list(kwargs.get("column_list") or [])
    return {
        "type": item["type"],
        "column": ", ".join(columns),
        "expected": expected(item),
        "severity": item["severity"],
        "success": answer.success,
        "answered": answer.answered,
        "element_count": answer.element_count,
        "unexpected_count": answer.unexpected_count,
        "unexpected_percent": _percent(answer.unexpected_percent),
        "why": item["meta"]["why"],
        "source": item["meta"]["source"],
    }


def _percent(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 4)

"""Run the suites over the tables: what failed, which images are withheld for it, and nothing of any cell.

Two passes: counts for every expectation, then the positions of the failing rows of those that withhold. Positions and
keys stay in memory. A result document has counts and words only, no run times, so that it is the same every time.
"""

from __future__ import annotations

import gc
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import SuiteRefused
from pipeline.model import Reason
from pipeline.schemas import PUBLISHED
from pipeline.validate.frames import frame
from pipeline.validate.suites import Suite, load, suite_digests

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Validation", "suite_digests", "validate"]

SCHEMA_VERSION = 1
_KEYS = {table.name: table.key[0] for table in PUBLISHED}
# `partial_unexpected_count` 0 keeps examples of cells out; only numbers are taken from a result in any case.
_COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}
_ROWS = {"result_format": "COMPLETE", "partial_unexpected_count": 0}


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


def validate(tables: Mapping[str, pa.Table], suites_dir: Path) -> Validation:
    """Check every table against its suite. Raises SuiteRefused (see suites.load), SchemaTooNew.

    Also refused: a suite of which Great Expectations loads or answers another number of expectations than its file has.
    A failing row of patients, studies or series withholds all its images; of instances or exposures, that image; of a
    clinical table, the row alone. An expectation that could not be answered counts as critical, whatever its severity.
    """
    _quiet()
    results: dict[str, dict[str, Any]] = {}
    dropped: dict[str, list[int]] = {}
    critical: list[str] = []
    withheld: set[str] = set()
    suites = load(suites_dir, tables.keys())
    for suite in suites:
        name = suite.name
        # A source each: a data source keeps the frame of every batch it was ever given.
        rows, answers = _answer(_source(), frame(tables, name), suite)
        held = _instances(tables, name, rows) if name in _KEYS else set()
        if rows and name not in _KEYS:
            dropped[name] = sorted(rows)
        withheld |= held
        lines = [_line(item, answer) for item, answer in zip(suite.expectations, answers, strict=True)]
        critical += [f"{name}: {line['type']}({line['column']})" for line in lines if _stops(line)]
        del answers
        gc.collect()        # GX's objects go round in circles, and hold the frame
        results[name] = {
            "schema_version": SCHEMA_VERSION,
            "suite": name,
            "rows": tables[name].num_rows,
            "failing_rows": len(rows),
            "withheld_instances": len(held),
            "dropped_rows": len(dropped.get(name, ())),
            "expectations": lines,
        }
    every = [line for result in results.values() for line in result["expectations"]]
    reasons = dict.fromkeys(sorted(withheld), Reason.EXPECTATION_FAILED.value)
    failed = sum(not line["success"] for line in every)
    return Validation(results, reasons, dropped, critical, len(every), failed)


def _stops(line: Mapping[str, Any]) -> bool:
    """What could not be answered was not checked: that stops a candidate whatever the severity."""
    return not line["success"] and (line["severity"] == "critical" or not line["answered"])


def _quiet() -> None:
    """No call home, no progress bars, no log of GX's that could quote a cell. Before the first import."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)


def _source() -> Any:
    """A pandas data source in a context that lives in memory."""
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context.data_sources.add_pandas("tables")


def _answer(source: Any, data: pd.DataFrame, suite: Suite) -> tuple[set[int], list[Any]]:
    """Return positions of the rows to withhold, and GX's result for each expectation, in the suite's order."""
    from great_expectations.core.expectation_suite import ExpectationSuite

    asset = source.add_dataframe_asset(suite.name)
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": data})

    def ask(items: list[dict[str, Any]], how: dict[str, Any]) -> list[Any]:
        loaded = ExpectationSuite(name=suite.name, expectations=items)
        if [e.expectation_type for e in loaded.expectations] != [item["type"] for item in items]:
            raise SuiteRefused(f"{suite.name}: not every expectation of the file was loaded.")
        results = batch.validate(loaded, result_format=how).results
        # GX groups results by column: find each one's place again.
        places = [_place(items, result) for result in results]
        if sorted(places) != list(range(len(items))):
            raise SuiteRefused(f"{suite.name}: not every expectation of the file was answered.")
        return [result for _, result in sorted(zip(places, results, strict=True), key=lambda pair: pair[0])]

    numbered = [{**item, "meta": {**item["meta"], "place": n}} for n, item in enumerate(suite.expectations)]
    answers = ask(numbered, _COUNTS)
    rows: set[int] = set()
    for item, answer in zip(numbered, answers, strict=True):
        if item["severity"] == "warning" and not answer.success and _answered(answer):
            (full,) = ask([{**item, "meta": {**item["meta"], "place": 0}}], _ROWS)
            positions = full.result.get("unexpected_index_list") or []
            if len(positions) != answer.result["unexpected_count"]:
                raise SuiteRefused(f"{suite.name}: the failing rows of {item['type']} could not all be found.")
            rows |= {int(position) for position in positions}
    return rows, answers


def _place(items: list[dict[str, Any]], result: Any) -> int:
    return int((result.expectation_config.meta or {}).get("place", -1))


def _answered(answer: Any) -> bool:
    """Whether GX could compute it: an exception gives an empty result."""
    return bool(answer.result)


def _line(item: Mapping[str, Any], answer: Any) -> dict[str, Any]:
    """One expectation and how it came out. Taken from the suite and from counts: no cell can be in it."""
    columns = [item["kwargs"][k] for k in ("column", "column_A", "column_B") if k in item["kwargs"]]
    return {
        "type": item["type"],
        "column": ", ".join(columns),
        "severity": item["severity"],
        "success": bool(answer.success),
        "answered": _answered(answer),
        "element_count": _count(answer.result.get("element_count")),
        "unexpected_count": _count(answer.result.get("unexpected_count")),
        "unexpected_percent": _percent(answer.result.get("unexpected_percent")),
        "why": item["meta"]["why"],
        "source": item["meta"]["source"],
    }


def _count(value: Any) -> int | None:
    return None if value is None else int(value)


def _percent(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def _instances(tables: Mapping[str, pa.Table], name: str, rows: set[int]) -> set[str]:
    """Return the SOP Instance UIDs of all images that belong to these rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not rows:
        return set()
    key = _KEYS[name]
    keys = tables[name][key].take(pa.array(sorted(rows), pa.int64())).combine_chunks()
    instances = tables["instances"]
    found = instances.filter(pc.is_in(instances[key], value_set=keys))
    return set(found["sop_instance_uid"].to_pylist())

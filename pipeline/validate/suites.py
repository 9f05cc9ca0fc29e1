"""Expectation suites: JSON files that people review. What is not written out, unknown or dropped on loading is refused.

A suite file is `<table>.json`: {"name": table, "meta": {"schema_version": 1, "optional": bool}, "expectations": [...]}.
An expectation is {"type", "kwargs", "severity", "meta": {"why", "source"}}. Every parameter that Great Expectations
would fill in with a default stands in kwargs, so a changed default cannot change what runs. Severity:

- critical: the candidate stops;
- warning: the rows that fail are withheld, images and all;
- info: reported only.

`optional` is for a clinical table: a project without that table does not run the suite. Of several directories the
later goes before the earlier, suite by suite: a project's own clinical tables have theirs beside the project file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import SchemaTooNew, SuiteRefused
from pipeline.validate import custom

SCHEMA_VERSION = 1
SEVERITIES = ("critical", "warning", "info")
# Fields of an expectation class that are not parameters of the check.
_NOT_PARAMETERS = {
    "id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity",
    "windows", "batch_id", "row_condition", "condition_parser",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite file as it was read: `expectations` are its dictionaries, in order."""

    name: str
    optional: bool
    expectations: tuple[dict[str, Any], ...]


def suite_digests(*directories: Path) -> dict[str, str]:
    """Return SHA-256 (hex) of every suite file by suite name. Raises SuiteRefused where a directory has none."""
    return {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(directories)}


def load(directories: Path | Sequence[Path], tables: Collection[str],
         digests: Mapping[str, str] | None = None) -> list[Suite]:
    """Return one suite for each of these tables, sorted by name. Raises SuiteRefused, SchemaTooNew.

    Refused: a table without a suite, a suite without a table (unless optional), an unknown or malformed expectation,
    and, where `digests` are given (as of `suite_digests`), a suite whose bytes as they are read are others.
    Imports great_expectations, and registers the expectations of `custom` first.
    """
    custom.register()
    suites = []
    for path in _files([directories] if isinstance(directories, Path) else directories):
        data = path.read_bytes()
        if digests is not None and digests.get(path.stem) != hashlib.sha256(data).hexdigest():
            raise SuiteRefused(f"{path.name}: changed since the candidate was put together.", hint="Build it again.")
        suites.append(_read(path, data))
    lacking = sorted(set(tables) - {s.name for s in suites})
    if lacking:
        raise SuiteRefused(f"No expectation suite for: {', '.join(lacking)}.",
                           hint="Draft one with tre suite draft, read it, name its directory in [validate] suites.")
    surplus = [s.name for s in suites if s.name not in tables and not s.optional]
    if surplus:
        raise SuiteRefused(f"A suite for a table that is not there: {', '.join(surplus)}.")
    return [s for s in suites if s.name in tables]


def _files(directories: Sequence[Path]) -> list[Path]:
    files: dict[str, Path] = {}
    for directory in directories:
        found = {path.stem: path for path in directory.glob("*.json")}
        if not found:
            raise SuiteRefused("No expectation suite was found.", hint="Name their directory in [validate] suites.")
        files |= found
    return [files[name] for name in sorted(files)]


def _read(path: Path, data: bytes) -> Suite:
    try:
        doc = json.loads(data)
        version, optional = doc["meta"]["schema_version"], doc["meta"].get("optional", False)
        name, expectations = doc["name"], doc["expectations"]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise SuiteRefused(f"{path.name}: not a suite file.") from None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise SchemaTooNew(f"{path.name}: written for a newer version.", hint="Upgrade tre-ingest.")
    if set(doc) != {"name", "meta", "expectations"} or name != path.stem or not isinstance(optional, bool):
        raise SuiteRefused(f"{path.name}: holds name (that of the file), meta and expectations, and nothing else.")
    if not isinstance(expectations, list) or not expectations:
        raise SuiteRefused(f"{path.name}: has no expectations.")
    for number, item in enumerate(expectations, 1):
        problem = _problem(item)
        if problem:
            raise SuiteRefused(f"{path.name}: expectation {number}: {problem}.")
    return Suite(name, optional, tuple(expectations))


def _problem(item: Any) -> str | None:
    """Return what is wrong with one expectation, or None."""
    from great_expectations.exceptions.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import get_expectation_impl

    if not isinstance(item, dict) or set(item) != {"type", "kwargs", "severity", "meta"}:
        return "holds type, kwargs, severity and meta, and nothing else"
    if item["severity"] not in SEVERITIES:
        return f"severity is one of {', '.join(SEVERITIES)}"
    meta = item["meta"]
    if not isinstance(meta, dict) or set(meta) != {"why", "source"}:
        return "meta holds why and source, and nothing else"
    if not all(isinstance(words, str) and words.strip() for words in meta.values()):
        return "meta.why and meta.source are words"
    try:
        implementation = get_expectation_impl(item["type"])
    except (ExpectationNotFoundError, TypeError):
        return "no expectation of this type is known"
    parameters = set(implementation.__fields__) - _NOT_PARAMETERS
    if not isinstance(item["kwargs"], Mapping) or set(item["kwargs"]) != parameters:
        return f"kwargs are exactly {', '.join(sorted(parameters))}, all written out"
    if item["severity"] == "warning" and item["kwargs"].get("mostly") != 1.0:
        return "a warning withholds every row that fails: it is about rows, and mostly is 1.0"
    try:
        implementation(**item["kwargs"])
    except (ValueError, TypeError):
        return "great_expectations does not take these kwargs"
    return None

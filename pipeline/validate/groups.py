"""Small groups: people who share their quasi-identifiers with fewer than k others are withheld.

A row of the table `small_groups` is what could be looked up: a person, with each of their studies where a column of
`studies` is named, with each of their rows of a clinical table where one of its columns is. It holds the person and the
quasi-identifiers in their bands. Of a row whose group is too small, the study is withheld with all its images (the
person's images, where no column of a study is named), and the clinical rows are left out. What is left is judged
again, until every group that is left is large enough.

What it promises is about one row, not about all rows of a person put together.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import SuiteRefused
from pipeline.schemas import PUBLISHED
from pipeline.validate import custom
from pipeline.validate.gx import Asker
from pipeline.validate.measure import Answer, measure
from pipeline.validate.relations import ROW, Relations, quoted
from pipeline.validate.suites import Suite

if TYPE_CHECKING:
    from pipeline.sections import SmallGroups

NAME = "small_groups"
_PERSONS = ("patients", "studies")
_OURS = {table.name for table in PUBLISHED}
_DATES = {"year": "year({})", "quarter": "year({}) * 10 + quarter({})", "month": "year({}) * 100 + month({})"}


class Held(NamedTuple):
    """`answer`, `rows`: counts of the first look. `instances`: SOP Instance UIDs. `dropped`: positions by clinical
    table."""

    suite: Suite
    answer: Answer
    rows: int
    instances: set[str]
    dropped: dict[str, set[int]]


def suite(given: SmallGroups) -> Suite:
    """Return the suite that the section [validate.small_groups] says: one expectation."""
    item = {
        "type": custom.TYPE,
        "kwargs": {"column_list": ["patient_id", *given.columns], "k": given.k, "ignore_row_if": "never",
                   "mostly": 1.0},
        "severity": "warning",
        "meta": {"why": f"At least {given.k} persons share each combination of what others may know of a person; "
                        "a smaller group is withheld. To keep more, widen the bands and build again.",
                 "source": "Project file, [validate.small_groups]"},
    }  # fmt: skip
    return Suite(NAME, False, (item,))


def judge(asker: Asker, tables: Relations, given: SmallGroups, withheld: Collection[str]) -> Held:
    """Judge the groups without the instances that are withheld already, until every group that is left is large enough.

    Raises SuiteRefused.
    """
    import numpy as np
    import pyarrow as pa

    _check(given, tables)
    asked = suite(given)
    level = "study_uid" if any(c.startswith("studies.") for c in given.columns) else "patient_id"
    clinical = sorted({c.partition(".")[0] for c in given.columns} - {"patients", "studies"})
    held: dict[str, pa.Array] = {level: pa.array([], pa.string()), **{n: pa.array([], pa.int64()) for n in clinical}}
    tables.give("_withheld", pa.table({"uid": pa.array(sorted(withheld), pa.string())}))
    first: tuple[Answer, int] | None = None
    while True:
        for name, keys in held.items():
            tables.give(f"_held_{name}", pa.table({"k": keys}))
        tables.make(NAME, _rows(given, level, clinical))
        (answer,) = measure(asker, tables, asked)
        first = first or (answer, tables.rows(NAME))
        if not answer.answered:
            raise SuiteRefused(f"{NAME}: the groups could not be counted.")
        if not answer.unexpected_count:
            break
        tables.give("_failing", pa.table({"r": pa.array(np.concatenate(answer.rows), pa.int64())}))
        failing = tables.query(f"SELECT * FROM {NAME} WHERE {ROW} IN (SELECT r FROM _failing)")  # noqa: S608
        for name, column in {level: level, **{n: f"{n}.{ROW}" for n in clinical}}.items():
            more = pa.chunked_array([held[name], *failing[column].drop_null().chunks])
            held[name] = more.unique()
    instances = tables.query(
        f"SELECT sop_instance_uid FROM instances WHERE {level} IN (SELECT k FROM _held_{level}) "  # noqa: S608
        "AND sop_instance_uid NOT IN (SELECT uid FROM _withheld)")
    return Held(asked, first[0], first[1], set(instances[0].to_pylist()),
                {name: set(held[name].to_pylist()) for name in clinical})


def _rows(given: SmallGroups, level: str, clinical: list[str]) -> str:
    """Return the query of what could be looked up, without what is withheld or held."""
    live = (f"SELECT DISTINCT patient_id{', study_uid' * (level == 'study_uid')} FROM instances "  # noqa: S608
            "WHERE sop_instance_uid NOT IN (SELECT uid FROM _withheld) "
            f"AND {level} NOT IN (SELECT k FROM _held_{level})")
    picked = ["p.patient_id"] + ["live.study_uid"] * (level == "study_uid")
    picked += [f"{quoted(name)}.{ROW} AS {quoted(f'{name}.{ROW}')}" for name in clinical]
    picked += [f"{_band(given, column)} AS {quoted(column)}" for column in given.columns]
    kept = {name: f"(SELECT * FROM {quoted(name)} WHERE {ROW} NOT IN (SELECT k FROM {quoted(f'_held_{name}')}))"  # noqa: S608
            for name in clinical}
    people = " UNION ".join(f"SELECT DISTINCT patient_id FROM {name}" for name in ["live", *kept.values()])  # noqa: S608
    joins = ["LEFT JOIN live ON live.patient_id = p.patient_id",
             "LEFT JOIN patients ON patients.patient_id = live.patient_id"]
    if level == "study_uid":
        joins.append("LEFT JOIN studies ON studies.study_uid = live.study_uid")
    joins += [f"LEFT JOIN {kept[n]} {quoted(n)} ON {quoted(n)}.patient_id = p.patient_id" for n in clinical]
    return (f"WITH live AS ({live}), p AS ({people}) SELECT {', '.join(picked)} FROM p {' '.join(joins)} "  # noqa: S608
            "ORDER BY ALL")


def _band(given: SmallGroups, column: str) -> str:
    """Return a quasi-identifier as SQL, as coarsely as others could know it."""
    table, _, name = column.partition(".")
    value = f"{quoted(table)}.{quoted(name)}"
    return _DATES[given.bands[column]].replace("{}", value) if column in given.bands else value


def _check(given: SmallGroups, tables: Relations) -> None:
    """Refuse a column that no table has, that names a person or a thing, or a band of what is no date."""
    for column in given.columns:
        table, _, name = column.partition(".")
        if table not in _PERSONS and (table in _OURS or table not in tables):
            raise SuiteRefused(f"[validate.small_groups] {column}: not patients, studies or a clinical table.")
        kind = tables.types(table).get(name)
        if kind is None:
            raise SuiteRefused(f"[validate.small_groups] {column}: there is no such column.")
        if name == "patient_id" or name.endswith(("_uid", "_id")):
            raise SuiteRefused(f"[validate.small_groups] {column}: a pseudonym, alone in its group by what it is.")
        if column in given.bands and kind != "DATE":
            raise SuiteRefused(f"[validate.small_groups] {column}: a band is for a date.",
                               hint="Other values count as they are released; ages: [deidentify] age_band_years.")

"""One suite over one table, in frames small enough for any table, with the counts that a single frame would give.

Four ways, by what an expectation looks at:
- rows: it judges each row by itself. Frames of CHUNK rows, or of one column of DEAL rows; counts added up;
- values: the same, of a column with few values. Judged once a value; counts weighted by the rows that have it;
- groups: it compares rows with the same key (uniqueness, sizes of groups). Rows are dealt into frames by a hash of the
  key, so that all rows of a key are in one frame;
- table: columns and row counts: a frame without rows, or without columns.
Anything else gets its columns whole, in one frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.errors import SuiteRefused
from pipeline.validate import custom, relations
from pipeline.validate.gx import COUNTS, ROWS, Asker, answered
from pipeline.validate.relations import Relations, frame, numbered, quoted

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from pipeline.validate.suites import Suite

SAMPLE = 50_000         # a larger table has its columns looked at for few values, in this many rows
FEW = 5_000             # as many values in the sample are few

_COLUMN = {f"expect_column_{name}" for name in (
    "values_to_not_be_null", "values_to_be_null", "values_to_be_of_type", "values_to_be_in_type_list",
    "values_to_be_in_set", "values_to_not_be_in_set", "values_to_be_between", "values_to_match_regex",
    "values_to_not_match_regex", "values_to_match_regex_list", "values_to_not_match_regex_list",
    "value_lengths_to_be_between", "value_lengths_to_equal", "values_to_match_strftime_format",
)}  # fmt: skip
_PAIR = {f"expect_column_pair_values_{name}" for name in ("to_be_equal", "a_to_be_greater_than_b", "to_be_in_set")}
_GROUPS = {"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique",
           custom.TYPE}  # fmt: skip
_EQUALITY = _GROUPS | {"expect_column_pair_values_to_be_equal"}     # numbers do as well as texts
_COLUMNS_OF_TABLE = {"expect_table_columns_to_match_ordered_list", "expect_table_columns_to_match_set",
                     "expect_table_column_count_to_be_between", "expect_table_column_count_to_equal",
                     "expect_column_to_exist"}  # fmt: skip
_TYPES = {"expect_column_values_to_be_of_type", "expect_column_values_to_be_in_type_list"}
_ROWS_OF_TABLE = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}


@dataclass(slots=True)
class Answer:
    """How one expectation came out over the whole table. Counts are None where it has none (a type of a column)."""

    mostly: float
    answered: bool = True
    success: bool = True
    element_count: int | None = None
    considered: int = 0
    unexpected_count: int | None = None
    rows: list[np.ndarray[Any, Any]] = field(default_factory=list)

    @property
    def unexpected_percent(self) -> float | None:
        """Of the rows that count: those with a value, where the expectation passes over null."""
        if self.unexpected_count is None or not self.considered:
            return None
        return self.unexpected_count / self.considered * 100


def measure(asker: Asker, tables: Relations, suite: Suite) -> list[Answer]:
    """Return an answer for each expectation of the suite, in its order; with the positions of the failing rows where
    these are to be withheld. Raises SuiteRefused."""
    answers = [Answer(float(item["kwargs"].get("mostly", 1.0))) for item in suite.expectations]
    for ask, numbers in _ways(tables, suite):
        items = [suite.expectations[n] for n in numbers]
        ask(_Part(asker, tables, suite.name, items, [answers[n] for n in numbers]))
    for item, answer in zip(suite.expectations, answers, strict=True):
        _conclude(suite.name, item, answer)
    return answers


@dataclass(frozen=True, slots=True)
class _Part:
    """Expectations of one table that are asked in one way together."""

    asker: Asker
    tables: Relations
    name: str
    items: list[dict[str, Any]]
    answers: list[Answer]

    def ask(self, table: pa.Table, rows: np.ndarray[Any, Any]) -> None:
        """Ask all of one frame, whose rows stand at these positions, and add the counts."""
        data = frame(numbered(table) if all(item["type"] in _EQUALITY for item in self.items) else table)
        found = self.asker.ask(self.name, data, self.items, COUNTS)
        for item, answer, result in zip(self.items, self.answers, found, strict=True):
            _add(answer, result)
            if withholds(item) and not result.success and answered(result):
                (full,) = self.asker.ask(self.name, data, [item], ROWS)
                answer.rows.append(rows[_places(self.name, item, full, result.result.get("unexpected_count"))])


def withholds(item: Mapping[str, Any]) -> bool:
    return bool(item["severity"] == "warning")


def needed(item: Mapping[str, Any]) -> list[str]:
    """Return the columns that an expectation looks at."""
    kwargs = item["kwargs"]
    single = [kwargs[k] for k in ("column", "column_A", "column_B") if isinstance(kwargs.get(k), str)]
    listed = kwargs.get("column_list") or []
    return list(dict.fromkeys([*single, *(listed if isinstance(listed, list) else [])]))


def _ways(tables: Relations, suite: Suite) -> Iterator[tuple[Callable[[_Part], None], list[int]]]:
    """Yield how each expectation is asked: a way, and the numbers of the expectations that go that way together."""
    name = suite.name
    there = set(tables.columns(name))
    few, computed = _few(tables, suite), set(tables.computed(name))
    large = tables.rows(name) > relations.CHUNK     # then columns by themselves, in longer frames: fewer questions
    # A column whose every value has one type by itself: Great Expectations looks at the column and at no row of it.
    empty, _ = tables.whole(tables.sql(name, tables.columns(name)) + " LIMIT 0")
    typed = {str(column) for column, kind in frame(empty).dtypes.items() if str(kind) != "object"}
    ways: dict[tuple[str, ...], list[int]] = {}
    for number, item in enumerate(suite.expectations):
        kind, columns = item["type"], needed(item)
        if kind in _ROWS_OF_TABLE:
            way: tuple[str, ...] = ("count",)
        elif kind in _COLUMNS_OF_TABLE or (kind in _TYPES and columns[0] in typed) or not set(columns) <= there:
            way = ("table",)           # also of a column that is not there: GX says so
        elif kind in _COLUMN and columns[0] in few:
            way = ("values", columns[0])
        elif kind in _COLUMN | _PAIR:
            way = ("rows", *(columns if large and computed.isdisjoint(columns) else ()))
        elif kind in _GROUPS:
            way = ("groups", *_key(item))
        else:
            way = ("whole", *columns)
        ways.setdefault(way, []).append(number)
    do = {"table": _ask_table, "count": _ask_count, "values": _ask_values, "rows": _ask_rows, "groups": _ask_groups,
          "whole": _ask_whole}  # fmt: skip
    for way, numbers in ways.items():
        yield do[way[0]], numbers


def _few(tables: Relations, suite: Suite) -> set[str]:
    """Return the columns that are judged by value: those of large tables with few values. Soundness does not hang on
    it: whatever values there are, each is judged."""
    if tables.rows(suite.name) <= SAMPLE:
        return set()
    computed = tables.computed(suite.name)
    asked = dict.fromkeys(c for item in suite.expectations if item["type"] in _COLUMN for c in needed(item)[:1])
    own = [c for c in tables.columns(suite.name) if c in asked and c not in computed]
    few = {column for column, many in tables.many(suite.name, own, SAMPLE).items() if many <= FEW}
    return few | {c for c in asked if c in computed and ("_is_in_" in c or c.endswith("_counted"))}


def _key(item: Mapping[str, Any]) -> list[str]:
    """Return the columns whose equal values must come together."""
    if item["type"] == custom.TYPE:
        return list(item["kwargs"]["column_list"][1:])      # the first names the person
    return [item["kwargs"]["column"]] if "column" in item["kwargs"] else list(item["kwargs"]["column_list"])


def _ask_table(part: _Part) -> None:
    """The columns in their order, and no row."""
    columns = part.tables.columns(part.name)
    part.ask(*part.tables.whole(part.tables.sql(part.name, columns) + " LIMIT 0"))


def _ask_count(part: _Part) -> None:
    import numpy as np
    import pyarrow as pa

    rows = part.tables.rows(part.name)
    part.ask(pa.table({"": pa.nulls(rows)}).select([]), np.arange(0))


def _ask_rows(part: _Part) -> None:
    """Each question is put with its own columns alone: Great Expectations copies the whole frame for every one."""
    parts: dict[tuple[str, ...], _Part] = {}
    for item, answer in zip(part.items, part.answers, strict=True):
        one = parts.setdefault(tuple(needed(item)), _Part(part.asker, part.tables, part.name, [], []))
        one.items.append(item)
        one.answers.append(answer)
    rows_of_frame = relations.DEAL if len(parts) == 1 else relations.CHUNK
    for data, rows in part.tables.chunks(part.tables.sql(part.name, _columns(part)), rows_of_frame):
        for columns, one in parts.items():
            one.ask(data.select(columns), rows)


def _ask_groups(part: _Part) -> None:
    key = ", ".join(quoted(c) for c in _key(part.items[0]))
    query = part.tables.sql(part.name, _columns(part))
    deals = -(-part.tables.rows(part.name) // relations.DEAL) or 1
    for deal in range(deals):
        part.ask(*part.tables.whole(
            f"SELECT * FROM ({query}) WHERE hash({key}) % {deals} = {deal}" if deals > 1 else query))  # noqa: S608


def _ask_whole(part: _Part) -> None:
    part.ask(*part.tables.whole(part.tables.sql(part.name, _columns(part))))


def _ask_values(part: _Part) -> None:
    """One column: every value once, with the number of rows that have it."""
    import pandas as pd
    import pyarrow as pa

    (column,) = _columns(part)
    query = part.tables.sql(part.name, [column])
    bad: list[list[pd.Series]] = [[] for _ in part.items]
    # Sorted, so that the frames are the same in every run.
    for values_once, weights in part.tables.chunks(
            f"SELECT {quoted(column)}, count(*) FROM ({query}) GROUP BY 1 ORDER BY 1"):  # noqa: S608
        data = frame(values_once)
        null = data[column].isna().to_numpy()
        found = part.asker.ask(part.name, data, part.items, COUNTS)
        for item, answer, result, values in zip(part.items, part.answers, found, bad, strict=True):
            if not answered(result) or "unexpected_count" not in result.result:
                _add(answer, result)
                continue
            unexpected, places = int(result.result["unexpected_count"]), []
            if unexpected:
                (full,) = part.asker.ask(part.name, data, [item], ROWS)
                places = _places(part.name, item, full, unexpected)
            missing = result.result.get("missing_count")
            if missing is not None and missing != int(null.sum()):
                raise SuiteRefused(f"{part.name}: {item['type']} passes over other rows than those without a value.")
            total, failing = int(weights.sum()), int(weights[places].sum())
            _count(answer, total, total - (int(weights[null].sum()) if missing is not None else 0), failing)
            if withholds(item) and places:
                values.append(data[column].iloc[places])
    for answer, values in zip(part.answers, bad, strict=True):
        if values:
            failed = pa.Array.from_pandas(pd.concat(values))
            answer.rows.append(part.tables.rows_with(part.name, column, failed))


def _columns(part: _Part) -> list[str]:
    asked = {c for item in part.items for c in needed(item)}
    return [c for c in part.tables.columns(part.name) if c in asked]


def _places(name: str, item: Mapping[str, Any], result: Any, unexpected: int | None) -> list[int]:
    places = [int(place) for place in result.result.get("unexpected_index_list") or []]
    if len(places) != unexpected:
        raise SuiteRefused(f"{name}: the failing rows of {item['type']} could not all be found.")
    return places


def _add(answer: Answer, result: Any) -> None:
    """Add what GX found in one frame."""
    if not answered(result):
        answer.answered = answer.success = False
        return
    found = result.result
    if found.get("unexpected_count") is None:
        answer.success = answer.success and bool(result.success)
        answer.element_count = found.get("element_count", answer.element_count)
        return
    elements = int(found["element_count"])
    _count(answer, elements, elements - int(found.get("missing_count") or 0), int(found["unexpected_count"]))


def _count(answer: Answer, elements: int, considered: int, unexpected: int) -> None:
    answer.element_count = (answer.element_count or 0) + elements
    answer.considered += considered
    answer.unexpected_count = (answer.unexpected_count or 0) + unexpected


def _conclude(name: str, item: Mapping[str, Any], answer: Answer) -> None:
    """Say whether it passed, as GX says it of one frame: of the rows that count, at least `mostly` are as expected."""
    if not answer.answered:
        answer.element_count = answer.unexpected_count = None
        answer.rows.clear()
    elif answer.unexpected_count is not None and answer.considered:
        answer.success = (answer.considered - answer.unexpected_count) / answer.considered >= answer.mostly
    if withholds(item) and answer.answered and sum(map(len, answer.rows)) != (answer.unexpected_count or 0):
        raise SuiteRefused(f"{name}: the failing rows of {item['type']} could not all be found.")

"""A filter held against the columns that are there: types checked, then DuckDB's expression with bound values.

No word of the filter gets into the expression. A column is `c0`, `c1`, ...: the n-th that the filter names; every value
is a parameter. What a test means, for elements with no value, one or several:

- a value that cannot be read as its element's VR asks (`12,5` in a DS) is no value;
- a test holds where ANY value of the image does; with no value at all it is unknown, as in SQL, and so is its `not`;
- `and`, `or`, `not` are SQL's; an image is found where the whole filter holds.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches

from pipeline.catalogue.elements import WORDS, Element, Kind, element
from pipeline.catalogue.filter import Both, Filter, FilterError, Literal, Not, Test

Value = str | float | date
# Decimal String and Integer String (PS3.5 6.2), as the curated tables read them; longer ones too: binary VRs are text.
NUMBER = r"[+-]?(\d{1,32}(\.\d{0,32})?|\.\d{1,32})([eE][+-]?\d{1,3})?"
# Values of a column that can be read, as DuckDB's lists. Dates of the years 1000 to 2999.
_LISTED = "list_filter({c}, lambda v: regexp_full_match(v, '%s'))"
_READ: dict[str, str] = {
    "text": "list_filter({c}, lambda v: v <> '')",
    "number": f"list_filter(list_transform({_LISTED % NUMBER}, lambda v: TRY_CAST(v AS DOUBLE)), "
              "lambda v: isfinite(v))",
    "float32": f"list_filter(list_transform({_LISTED % NUMBER}, lambda v: TRY_CAST(v AS REAL)), "
               "lambda v: isfinite(v))",
    "date": f"list_filter(list_transform({_LISTED % '[12][0-9]{7}'}, "
            "lambda v: CAST(TRY_STRPTIME(v, '%Y%m%d') AS DATE)), lambda v: v IS NOT NULL)",
    "age": f"list_transform({_LISTED % '[0-9]{3}Y'}, lambda v: CAST(v[1:3] AS DOUBLE))",
}  # fmt: skip
_SQL_TYPE = {"text": "VARCHAR", "number": "DOUBLE", "float32": "REAL", "date": "DATE", "age": "DOUBLE"}


@dataclass(frozen=True, slots=True)
class Question:
    """A filter made ready: `columns` are the element paths behind c0, c1, ...; `values` belong to the `?` in `sql`;
    `unreadable` tells, by element path, whether an image has a value that cannot be read as the filter asks."""

    sql: str
    columns: tuple[str, ...]
    values: tuple[Value, ...]
    unreadable: dict[str, str]


def question(tree: Filter, known: Collection[str]) -> Question:
    """Return the filter as an expression over these element paths. Raises FilterError."""
    columns: list[str] = []
    values: list[Value] = []
    unreadable: dict[str, str] = {}

    def compile_(part: Filter) -> str:
        if isinstance(part, Not):
            return f"(NOT {compile_(part.part)})"
        if isinstance(part, Both):
            return "(" + f" {part.word.upper()} ".join(map(compile_, part.parts)) + ")"
        return test(part)

    def test(part: Test) -> str:
        known_element = _known(part, known)
        if part.name not in columns:
            columns.append(part.name)
        column = f"c{columns.index(part.name)}"
        if part.op == "is null":
            return f"(NOT coalesce(len({_read('text', column)}) > 0, false))"
        kind, given = _typed(part, known_element)
        values.extend(given)
        mark = f"CAST(? AS {_SQL_TYPE[kind]})"
        holds = {
            "in": f"v IN ({', '.join([mark] * len(given))})", "between": f"v BETWEEN {mark} AND {mark}",
        }.get(part.op, f"v {part.op.upper()} {mark}")
        read = _read(kind, column)
        if kind != "text":
            unreadable[part.name] = f"len({_read('text', column)}) > len({read})"
        return f"(CASE WHEN len({read}) > 0 THEN len(list_filter({read}, lambda v: {holds})) > 0 END)"

    return Question(compile_(tree), tuple(columns), tuple(values), unreadable)


def _read(kind: Kind, column: str) -> str:
    return _READ[kind].replace("{c}", column)


def _known(part: Test, known: Collection[str]) -> Element:
    if part.name in known:
        return element(part.name)
    folded = {name.casefold(): name for name in sorted(known)}
    near = get_close_matches(part.name.casefold(), folded, n=3, cutoff=0.6)
    hint = f"Did you mean {', '.join(folded[n] for n in near)}?" if near else "`tre find --columns` lists them."
    raise FilterError(part.at, "no image of this catalogue has an element of that name.", hint=hint)


def _typed(part: Test, known: Element) -> tuple[Kind, list[Value]]:
    """Return as what the element's values are read, and the literals as the same."""
    if part.op in ("like", "ilike"):
        return "text", [part.values[0].text]
    kind = known.kind
    if kind == "unknown":       # a private element whose creator nobody knows: the literal decides
        kind = "number" if part.values[0].number else "text"
    if kind == "text" and part.op in ("<", "<=", ">", ">=", "between"):
        raise FilterError(part.at, f"this element is text ({known.vr}), and text has no order here.",
                          hint="Use = != in like ilike `is null`.")
    return kind, [_value(one, kind, known) for one in part.values]


def _value(one: Literal, kind: Kind, known: Element) -> Value:
    if kind == "text" and not one.number:
        return one.text
    if kind in ("number", "float32") and one.number and (found := float(one.text)) not in (float("inf"), -float("inf")):
        return found
    if kind == "date":
        match = re.fullmatch(r"([12]\d{3})(-?)(\d{2})\2(\d{2})", one.text, re.ASCII)
        try:
            if match:
                return date(int(match[1]), int(match[3]), int(match[4]))
        except ValueError:
            pass
    if kind == "age":
        match = re.fullmatch(r"(\d{3})Y", one.text, re.ASCII)
        if match or one.number:
            return float(match[1] if match else one.text)
    example = {"text": "'MG'", "date": "'2019-01-31'", "age": "50 or '050Y'"}.get(kind, "150")
    raise FilterError(one.at, f"this element is {WORDS[kind]} ({known.vr}): write it like {example}.")

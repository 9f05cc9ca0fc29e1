"""What an expectation expects, in a line that somebody can read who knows neither Python nor Great Expectations. Pure.

Only what the reviewed suite says goes into it, never anything of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.validate import custom

_Kwargs = Mapping[str, Any]


def expected(item: Mapping[str, Any]) -> str:
    """Return the words for one expectation of a suite."""
    kwargs: _Kwargs = item["kwargs"]
    say = _WORDS.get(item["type"])
    text = say(kwargs) if say else _otherwise(item["type"], kwargs)
    mostly = kwargs.get("mostly", 1.0)
    return text if mostly == 1.0 else f"{text}, in at least {mostly:.0%} of the rows"


_TYPES = {"str": "text", "date": "a date", "float64": "a number", "int32": "a whole number", "int64": "a whole number",
          "bool": "yes or no", "bool_": "yes or no", "boolean": "yes or no"}  # fmt: skip


def _listed(values: Any) -> str:
    return ", ".join("yes" if v is True else "no" if v is False else str(v) for v in values)


def _between(kwargs: _Kwargs) -> str:
    low, high = kwargs["min_value"], kwargs["max_value"]
    ends = [f"{'more than' if kwargs['strict_min'] else 'at least'} {low}" if low is not None else "",
            f"{'less than' if kwargs['strict_max'] else 'at most'} {high}" if high is not None else ""]
    return " and ".join(end for end in ends if end)


def _rows(kwargs: _Kwargs) -> str:
    return f"{_between({'strict_min': False, 'strict_max': False, **kwargs})} rows"


def _one_of(kwargs: _Kwargs) -> str:
    values = kwargs["value_set"]
    return {(True,): "yes", (False,): "no"}.get(tuple(values), f"one of {_listed(values)}")


_WORDS: dict[str, Callable[[_Kwargs], str]] = {
    "expect_table_columns_to_match_ordered_list": lambda k: f"these columns in this order: {_listed(k['column_list'])}",
    "expect_table_row_count_to_be_between": _rows,
    "expect_column_values_to_not_be_null": lambda k: "a value",
    "expect_column_values_to_be_null": lambda k: "no value",
    "expect_column_values_to_be_of_type": lambda k: _TYPES.get(k["type_"], f"of type {k['type_']}"),
    "expect_column_values_to_be_unique": lambda k: "no value twice",
    "expect_compound_columns_to_be_unique": lambda k: "no combination twice",
    "expect_column_values_to_be_in_set": _one_of,
    "expect_column_values_to_not_be_in_set": lambda k: f"none of {_listed(k['value_set'])}",
    "expect_column_values_to_be_between": _between,
    "expect_column_values_to_match_regex": lambda k: f"written as {k['regex']}",
    "expect_column_values_to_not_match_regex": lambda k: f"not written as {k['regex']}",
    "expect_column_pair_values_to_be_equal": lambda k: "the same in both",
    "expect_column_pair_values_a_to_be_greater_than_b":
        lambda k: f"the first {'at least' if k['or_equal'] else 'more than'} the second",
    custom.TYPE: lambda k: f"each combination shared by at least {k['k']} persons",
}  # fmt: skip


def _otherwise(kind: str, kwargs: _Kwargs) -> str:
    rest = {k: v for k, v in kwargs.items() if k not in ("column", "column_A", "column_B", "mostly", "ignore_row_if")}
    told = "; ".join(f"{name} {value}" for name, value in sorted(rest.items()))
    return " ".join([kind.removeprefix("expect_").replace("_", " "), f"({told})" if told else ""]).strip()

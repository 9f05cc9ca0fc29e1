"""Expectations of our own. `register` before a suite is loaded: Great Expectations drops what it does not know.

`expect_rows_to_be_in_groups_of_at_least_k_persons`: `column_list` names the person first, then the quasi-identifiers.
Rows with the same quasi-identifiers (null is a value like another) are one group; a row is as expected where its group
has at least `k` different persons. A row that names no person is never as expected.
"""

from __future__ import annotations

from functools import cache
from typing import Any

TYPE = "expect_rows_to_be_in_groups_of_at_least_k_persons"


@cache
def register() -> frozenset[str]:
    """Define the expectations of this module with Great Expectations; return their types."""
    from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import MulticolumnMapExpectation
    from great_expectations.expectations.metrics.map_metric_provider.multicolumn_condition_partial import (
        multicolumn_condition_partial,
    )
    from great_expectations.expectations.metrics.map_metric_provider.multicolumn_map_metric_provider import (
        MulticolumnMapMetricProvider,
    )
    from great_expectations.expectations.registry import get_expectation_impl

    class RowsInGroupsOfAtLeastKPersons(MulticolumnMapMetricProvider):
        condition_metric_name = "multicolumn_values.in_groups_of_at_least_k_persons"
        condition_domain_keys = ("batch_id", "table", "column_list", "row_condition", "condition_parser",
                                 "ignore_row_if")
        condition_value_keys = ("k",)

        @multicolumn_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
        def _pandas(cls, column_list: Any, k: int, **_: Any) -> Any:
            person, *group = column_list.columns
            persons = column_list.groupby(group, dropna=False, sort=False)[person].transform("nunique")
            return (persons >= k) & column_list[person].notna()

    class ExpectRowsToBeInGroupsOfAtLeastKPersons(MulticolumnMapExpectation):
        """Every group of quasi-identifiers has at least k distinct persons."""

        k: int
        map_metric = RowsInGroupsOfAtLeastKPersons.condition_metric_name
        success_keys = ("k", "mostly")
        args_keys = ("column_list", "k")

    if get_expectation_impl(TYPE) is not ExpectRowsToBeInGroupsOfAtLeastKPersons:
        raise RuntimeError(f"{TYPE} was not registered")
    return frozenset({TYPE})

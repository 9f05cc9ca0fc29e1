"""Great Expectations over one frame: every expectation asked, every one answered, nothing printed or sent.

The validator is given the frame directly. `Batch.validate` would do the same after hashing every cell twice for a
fingerprint that nobody reads: most of its time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.errors import SuiteRefused
from pipeline.validate import custom

if TYPE_CHECKING:
    import pandas as pd

# `partial_unexpected_count` 0 keeps examples of cells out; only numbers and places are taken from a result in any case.
COUNTS = {"result_format": "BASIC", "partial_unexpected_count": 0}
ROWS = {"result_format": "COMPLETE", "partial_unexpected_count": 0, "exclude_unexpected_values": True}


class Asker:
    """Great Expectations without a call home, progress bars or log. Made once a run."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"        # before the first import
        logging.getLogger("great_expectations").setLevel(logging.CRITICAL)
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        custom.register()
        self._context = gx.get_context(mode="ephemeral")
        self._context.enable_analytics(False)
        self._context.variables.progress_bars = ProgressBarsConfig(globally=False)

    def ask(
        self, suite: str, data: pd.DataFrame, items: Sequence[Mapping[str, Any]], how: Mapping[str, Any]
    ) -> list[Any]:
        """Return GX's result for each expectation of `items`, in their order.

        Raises SuiteRefused where Great Expectations loads or answers another number of expectations than it was given.
        """
        from great_expectations.core.expectation_suite import ExpectationSuite
        from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
        from great_expectations.validator.validator import Validator

        if not items:
            return []
        numbered = [{**item, "meta": {"place": place}} for place, item in enumerate(items)]
        loaded = ExpectationSuite(name=suite, expectations=numbered)
        if [e.expectation_type for e in loaded.expectations] != [item["type"] for item in items]:
            raise SuiteRefused(f"{suite}: not every expectation of the file was loaded.")
        validator = Validator(PandasExecutionEngine(batch_data_dict={suite: data}), data_context=self._context)
        results = validator.graph_validate(
            loaded.expectation_configurations, {"result_format": dict(how), "catch_exceptions": True})
        # GX groups results by column, and those that raised come first: find each one's place again.
        configs = [result.expectation_config for result in results]
        places = [int((config.meta or {}).get("place", -1)) if config else -1 for config in configs]
        if sorted(places) != list(range(len(items))):
            raise SuiteRefused(f"{suite}: not every expectation of the file was answered.")
        return [result for _, result in sorted(zip(places, results, strict=True), key=lambda pair: pair[0])]


def answered(answer: Any) -> bool:
    """Whether GX could compute it: an exception gives an empty result and no success."""
    return bool(answer.result) or bool(answer.success)

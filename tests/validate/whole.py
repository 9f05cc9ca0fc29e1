"""Great Expectations as its own manual has it: a whole table as one frame, asked with `batch.validate`. What the
product does in pieces must come to the same."""

import os

import pandas as pd
import pyarrow as pa

from pipeline import layout
from pipeline.schemas import PUBLISHED
from pipeline.validate.relations import _COUNTED, _INHERITED

TABLES = {table.name: table for table in PUBLISHED}
TEXT = pd.StringDtype("python", na_value=float("nan"))


def _pandas(table):
    for place, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(place, column.name, table[column.name].cast(column.type.value_type))
    types = {pa.string(): TEXT, pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    return table.to_pandas(types_mapper=types.get, date_as_object=True)


def frame(tables, name):
    """Return a table with its computed columns, all of it worked out in pandas."""
    out = _pandas(tables[name])
    for column, parent in TABLES[name].references if name in TABLES else (("patient_id", "patients"),):
        if column in out and parent in tables:
            keys = _pandas(tables[parent].select([TABLES[parent].key[0]])).iloc[:, 0].dropna()
            out[f"{column}_is_in_{parent}"] = out[column].isin(keys).astype("boolean").where(out[column].notna())
    for child, key, parent, column in _COUNTED:
        if parent == name and child in tables:
            counts = _pandas(tables[child].select([key]))[key].value_counts()
            out[f"{column}_counted"] = out[key].map(counts).fillna(0).astype("Int32")
    for child, key, parent, columns in _INHERITED:
        if child == name and parent in tables:
            rows = _pandas(tables[parent].select([key, *columns]))
            rows = rows.drop_duplicates(key).dropna(subset=key).set_index(key)
            for column in columns:
                out[f"{column}_of_{parent}"] = out[key].map(rows[column]).astype(TEXT)
    if name == "instances":
        cells = (out[c].fillna("") for c in ("patient_id", "study_uid", "series_uid", "sop_instance_uid", "sha256"))
        out["path_expected"] = pd.array([layout.image_path(*row) for row in zip(*cells, strict=True)], dtype=TEXT)
    return out


def ask(data, expectations):
    """Return for each expectation (success, element_count, unexpected_count, unexpected_percent, failing positions)."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.core.expectation_suite import ExpectationSuite
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("tables").add_dataframe_asset("table")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(batch_parameters={"dataframe": data})
    items = [{**item, "meta": {"place": place}} for place, item in enumerate(expectations)]
    found = batch.validate(ExpectationSuite(name="suite", expectations=items), result_format="COMPLETE").results
    out = {}
    for one in found:
        result = one.result
        out[one.expectation_config.meta["place"]] = (
            bool(one.success), bool(result or one.success), result.get("element_count"), result.get("unexpected_count"),
            result.get("unexpected_percent"), sorted(result.get("unexpected_index_list") or []))
    return [out[place] for place in range(len(items))]

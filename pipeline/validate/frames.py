"""Tables as pandas frames, with columns computed for the checks that span tables. They are in no published table.

- `<column>_is_in_<table>`: the reference holds (schemas.Table.references; for a clinical table, patient_id);
- `n_..._counted`: how many rows the child table has;
- `<column>_of_<parent>`: what the parent row says, for columns that both have;
- `path_expected`: the path that layout gives for the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.schemas import PUBLISHED

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_BY_NAME = {table.name: table for table in PUBLISHED}
# child table, its column that names the parent, parent's column that counts
_COUNTED = (
    ("studies", "patient_id", "patients", "n_studies"),
    ("instances", "patient_id", "patients", "n_instances"),
    ("series", "study_uid", "studies", "n_series"),
    ("instances", "study_uid", "studies", "n_instances"),
    ("instances", "series_uid", "series", "n_instances"),
)
# child table, its column that names the parent, parent table, columns that both have
_INHERITED = (
    ("series", "study_uid", "studies", ("patient_id",)),
    ("instances", "series_uid", "series", ("study_uid", "patient_id")),
    ("exposures", "sop_instance_uid", "instances", ("series_uid", "study_uid", "patient_id")),
)


def frame(tables: Mapping[str, pa.Table], name: str) -> pd.DataFrame:
    """Return one table as a frame with its computed columns. Null stays null: no integer becomes a float."""
    out = _pandas(tables[name])
    references = _BY_NAME[name].references if name in _BY_NAME else (("patient_id", "patients"),)
    for column, parent in references:
        if column in out and parent in tables:
            keys = _pandas(tables[parent].select([_BY_NAME[parent].key[0]])).iloc[:, 0]
            out[f"{column}_is_in_{parent}"] = out[column].isin(keys)
    for child, key, parent, column in _COUNTED:
        if parent == name and child in tables:
            counts = _pandas(tables[child].select([key]))[key].value_counts()
            out[f"{column}_counted"] = out[key].map(counts).fillna(0).astype("Int32")
    for child, key, parent, columns in _INHERITED:
        if child == name and parent in tables:
            rows = _pandas(tables[parent].select([key, *columns])).drop_duplicates(key).set_index(key)
            for column in columns:
                out[f"{column}_of_{parent}"] = out[key].map(rows[column]).astype(_text())
    if name == "instances":
        cells = (out[c].fillna("") for c in ("patient_id", "study_uid", "series_uid", "sop_instance_uid", "sha256"))
        out["path_expected"] = [layout.image_path(*row) for row in zip(*cells, strict=True)]
        out["path_expected"] = out["path_expected"].astype(_text())
    return out


def _text() -> Any:
    """Python strings: patterns of the suites are Python's, whatever library is installed beside."""
    import pandas as pd

    return pd.StringDtype("python", na_value=float("nan"))


def _pandas(table: pa.Table) -> pd.DataFrame:
    import pandas as pd
    import pyarrow as pa

    types = {
        pa.string(): _text(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    out: pd.DataFrame = table.to_pandas(types_mapper=types.get, date_as_object=True)
    return out

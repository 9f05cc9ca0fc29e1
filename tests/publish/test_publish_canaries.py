"""No canary stands in what is sealed: in no table, no key, no list of values."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import CanarySurfaced
from pipeline.publish.canaries import absent

MARKS = ["PA3BEE43AAF621BCF3796", "2.25.312", "ZQQBXHFWDVLG"]


@pytest.mark.parametrize(("column", "values"), [
    ("patient_id", ["P0", "PA3BEE43AAF621BCF3796"]), ("path", ["P0/1.dcm", "PA3BEE43AAF621BCF3796/2.25.1/a.dcm"]),
    ("study_uid", [None, "2.25.312"]), ("comment", ["x", "seen zqqbxhfwdvlgBCD"]),
    ("values", [["a"], [None, "b", "ZQQBXHFWDVLGBCD^X"]])])
def test_a_mark_is_found_in_any_text(tmp_path, column, values):
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"n": [1, 2], column: values}), path, row_group_size=1)
    with pytest.raises(CanarySurfaced, match=r"table\.parquet"):
        absent([path], MARKS)


def test_what_is_none_passes(tmp_path):
    path = tmp_path / "table.parquet"
    values = {"n": [1, 2], "uid": ["2.25.11", "2125.312"], "none": pa.array([None, None], pa.string()),
              "list": [["a"], None], "bytes": [b"ZQQBXHFWDVLG", b""]}
    pq.write_table(pa.table(values), path)
    absent([path], MARKS)
    absent([path], [])

"""Chunks, values and groups against one whole frame: the same answer to every expectation, the same failing rows."""

import math
import random
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import whole

from pipeline.schemas import PUBLISHED, arrow_schema
from pipeline.validate import measure, relations
from pipeline.validate.custom import TYPE
from pipeline.validate.gx import Asker
from pipeline.validate.measure import needed, withholds
from pipeline.validate.relations import Relations
from pipeline.validate.suites import Suite, load

SUITES = Path(__file__).parents[2] / "expectations"
ROWS = 61


def table(schema, rng):
    """Rows of what may stand in each column and what may not, null too; keys repeat and point nowhere now and then."""
    arrays = []
    for column in schema.columns:
        name = column.name
        if name.endswith("_uid") or name == "exposure_id":
            pool = [f"2.25.{n}" for n in range(1, ROWS)] + ["1.2.840.1", "2.25.x\n"]
        elif name == "patient_id":
            pool = [f"P{n:020X}" for n in range(20)] + ["9434765919"]
        else:
            pool = {
                "string": ["F", "L", "MG", "CC", "FOR PROCESSING", "D0123456789AB", "see note", "", "RHODIUM"],
                "int32": [-1, 0, 1, 2, 4, 50, 57, 90], "int64": [0, 1, 2**40], "bool": [True, False],
                "term": ["KVP (0018,0060) kV", "see note", ""], "float64": [0.0, -1.0, 29.0, 1e9, math.nan],
                "date": [date(1815, 6, 18), date(2012, 1, 1) + timedelta(rng.randrange(900))],
            }[column.type]  # fmt: skip
        kind = pa.string() if column.type == "term" else arrow_schema(schema).field(name).type
        values = pa.array([rng.choice([*pool, None]) for _ in range(ROWS)], kind)
        arrays.append(values.dictionary_encode() if column.type == "term" else values)
    return pa.Table.from_arrays(arrays, names=schema.names())


def both(tables, suite, given=None):
    """Return the answers in pieces (of what is given) and of the whole, in one shape."""
    with Relations(given or tables) as open_tables:
        pieces = measure.measure(Asker(), open_tables, suite)
    got = [(a.success, a.answered, a.element_count, a.unexpected_count, a.unexpected_percent,
            sorted(np.concatenate(a.rows).tolist()) if a.rows else []) for a in pieces]  # fmt: skip
    expected = whole.ask(whole.frame(tables, suite.name), suite.expectations)
    for number, (item, one) in enumerate(zip(suite.expectations, expected, strict=True)):
        *counts, rows = one
        expected[number] = (*counts, rows if withholds(item) and one[1] else [])
    return got, expected


@pytest.mark.parametrize(("chunk", "sample", "few"), [(25, 0, 1000), (25, 10**6, 0), (1000, 0, 5)],
                         ids=["by value", "by row", "some by value"])  # fmt: skip
def test_pieces_give_what_the_whole_gives(monkeypatch, tmp_path, chunk, sample, few):
    monkeypatch.setattr(relations, "CHUNK", chunk)
    monkeypatch.setattr(relations, "DEAL", chunk)
    monkeypatch.setattr(measure, "SAMPLE", sample)
    monkeypatch.setattr(measure, "FEW", few)
    rng = random.Random(chunk + sample)
    tables = {schema.name: table(schema, rng) for schema in PUBLISHED}
    given = dict(tables)
    for name in sorted(tables)[::2]:        # some on disk
        given[name] = tmp_path / f"{name}'s.parquet"
        pq.write_table(tables[name], given[name])
    failing = 0
    for suite in load(SUITES, tables):
        got, expected = both(tables, suite, given)
        for item, one, other in zip(suite.expectations, got, expected, strict=True):
            assert one == other, (suite.name, item["type"], needed(item))
            failing += not one[0]
    assert failing > 100


ODD = [
    ("expect_column_values_to_be_unique", {"column": "n", "mostly": 0.9}),
    ("expect_column_values_to_be_in_set", {"column": "word", "value_set": ["a", "b"], "mostly": 0.5}),
    ("expect_column_values_to_not_be_null", {"column": "word", "mostly": 0.8}),
    ("expect_column_values_to_be_between",
     {"column": "x", "min_value": 0, "max_value": 5, "strict_min": True, "strict_max": False, "mostly": 0.4}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["word", "n"], "ignore_row_if": "never", "mostly": 1.0}),
    (TYPE, {"column_list": ["n", "word", "x"], "k": 2, "ignore_row_if": "never", "mostly": 1.0}),
    ("expect_column_pair_values_a_to_be_greater_than_b",
     {"column_A": "x", "column_B": "y", "or_equal": True, "ignore_row_if": "either_value_is_missing", "mostly": 0.3}),
    ("expect_column_mean_to_be_between",
     {"column": "x", "min_value": 0, "max_value": 3, "strict_min": False, "strict_max": False}),
    ("expect_column_values_to_be_of_type", {"column": "word", "type_": "float64", "mostly": 1.0}),
    ("expect_column_values_to_be_null", {"column": "nothing", "mostly": 1.0}),
    ("expect_column_values_to_match_regex", {"column": "nothing", "regex": "^a", "mostly": 1.0}),
    ("expect_column_values_to_match_regex", {"column": "not there", "regex": "^a", "mostly": 1.0}),
    ("expect_column_to_exist", {"column": "y"}),
    ("expect_table_row_count_to_be_between", {"min_value": 1, "max_value": 60, "strict_min": False,
                                              "strict_max": False}),
]  # fmt: skip


@pytest.mark.parametrize("rows", [0, 200])
@pytest.mark.parametrize(("chunk", "sample"), [(9, 0), (9, 10**6), (10**6, 10**6)])
def test_other_expectations_too(monkeypatch, rows, chunk, sample):
    monkeypatch.setattr(relations, "CHUNK", chunk)
    monkeypatch.setattr(relations, "DEAL", chunk)
    monkeypatch.setattr(measure, "SAMPLE", sample)
    rng = random.Random(rows)
    tables = {"odd": pa.table({
        "n": pa.array([rng.choice([None, *range(150)]) for _ in range(rows)], pa.int64()),
        "word": pa.array([rng.choice(["a", "b", "c", "", None]) for _ in range(rows)], pa.string()),
        "x": pa.array([rng.choice([0.0, -0.0, 1.0, 2.5, 7.0, None, math.nan]) for _ in range(rows)], pa.float64()),
        "y": pa.array([rng.choice([0.0, 1.0, None]) for _ in range(rows)], pa.float64()),
        "nothing": pa.nulls(rows, pa.string()),
    })}  # fmt: skip
    about_rows = [kwargs.get("mostly") == 1.0 and "type_" not in kwargs for _, kwargs in ODD]
    items = tuple({"type": kind, "kwargs": kwargs, "severity": "warning" if rowwise else "info"}
                  for (kind, kwargs), rowwise in zip(ODD, about_rows, strict=True))  # fmt: skip
    got, expected = both(tables, Suite("odd", False, items))
    for item, one, other in zip(items, got, expected, strict=True):
        assert one == other, item

"""Small suites of one expectation or two: what is refused, and that what a file says is what runs."""

import copy
import json

import pyarrow as pa
import pytest

from pipeline.errors import SchemaTooNew, SuiteRefused
from pipeline.validate.run import suite_digests, validate

TABLES = {"doses": pa.table({"patient_id": ["a", "b", "c"], "mgy": [1.0, 2.0, 30.0]})}
RANGE = {
    "type": "expect_column_values_to_be_between",
    "kwargs": {"column": "mgy", "min_value": 0, "max_value": 10, "strict_min": False, "strict_max": False,
               "mostly": 1.0},
    "severity": "warning",
    "meta": {"why": "A dose.", "source": "House plausibility limit, wide"},
}  # fmt: skip


def changed(**parts):
    item = copy.deepcopy(RANGE)
    for key, value in parts.items():
        where = item if key in item else item["kwargs"]
        where[key] = value
    return item


def suite(folder, *items, name="doses", meta=None, **extra):
    doc = {"name": name, "meta": meta or {"schema_version": 1}, "expectations": list(items), **extra}
    (folder / f"{name}.json").write_text(json.dumps(doc))
    return folder


def test_a_changed_limit_changes_what_fails_and_the_digest(tmp_path):
    first = validate(TABLES, suite(tmp_path, RANGE))
    before = suite_digests(tmp_path)
    second = validate(TABLES, suite(tmp_path, changed(max_value=1)))
    third = validate(TABLES, suite(tmp_path, changed(max_value=30)))
    assert [v.dropped for v in (first, second, third)] == [{"doses": [2]}, {"doses": [1, 2]}, {}]
    counts = [v.results["doses"]["expectations"][0]["unexpected_count"] for v in (first, second, third)]
    assert counts == [1, 2, 0]
    assert before.keys() == {"doses"} and before != suite_digests(tmp_path)


@pytest.mark.parametrize(("severity", "dropped", "critical"), [
    ("critical", {}, ["doses: expect_column_values_to_be_between(mgy)"]),
    ("warning", {"doses": [2]}, []),
    ("info", {}, []),
])  # fmt: skip
def test_severity_decides(tmp_path, severity, dropped, critical):
    validation = validate(TABLES, suite(tmp_path, changed(severity=severity)))
    assert (validation.dropped, validation.critical, validation.failed) == (dropped, critical, 1)


@pytest.mark.parametrize("item", [
    changed(type="expect_column_values_to_be_a_dose"),              # a class that nobody imported, or a slip
    changed(type=["expect_column_values_to_be_between"]),
    changed(kwargs={"column": "mgy", "min_value": 0, "max_value": 10}),
    changed(kwargs={**RANGE["kwargs"], "row_condition": "mgy>1"}),
    changed(mostly=0.9),
    changed(mostly="all"),
    changed(min_value=None, max_value=None),
    changed(severity="fatal"),
    changed(meta={"why": "A dose."}),
    changed(meta={"why": " ", "source": "x"}),
    {k: v for k, v in RANGE.items() if k != "severity"},
    {**RANGE, "id": "x"},
    "expect_column_values_to_be_between",
    {"type": "expect_table_row_count_to_equal", "kwargs": {"value": 3}, "severity": "warning", "meta": RANGE["meta"]},
])  # fmt: skip
def test_an_expectation_that_is_unknown_or_not_written_out_is_refused(tmp_path, item):
    with pytest.raises(SuiteRefused, match=r"doses\.json: expectation 2"):
        validate(TABLES, suite(tmp_path, RANGE, item))


def test_a_malformed_suite_file_is_refused(tmp_path):
    for text in ("", "[]", "{}", '{"name": "doses", "meta": {}, "expectations": []}'):
        (tmp_path / "doses.json").write_text(text)
        with pytest.raises(SuiteRefused):
            validate(TABLES, tmp_path)
    with pytest.raises(SuiteRefused):
        validate(TABLES, suite(tmp_path))
    with pytest.raises(SuiteRefused):
        validate(TABLES, suite(tmp_path, RANGE, notes="more"))
    with pytest.raises(SchemaTooNew):
        validate(TABLES, suite(tmp_path, RANGE, meta={"schema_version": 2}))


def test_tables_and_suites_must_match(tmp_path):
    with pytest.raises(SuiteRefused):
        validate(TABLES, tmp_path)
    suite(tmp_path, RANGE)
    with pytest.raises(SuiteRefused, match="No expectation suite for: other"):
        validate({**TABLES, "other": TABLES["doses"]}, tmp_path)
    suite(tmp_path, RANGE, name="more")
    with pytest.raises(SuiteRefused, match="not there: more"):
        validate(TABLES, tmp_path)
    suite(tmp_path, RANGE, name="more", meta={"schema_version": 1, "optional": True})
    assert validate(TABLES, tmp_path).results.keys() == {"doses"}


def test_a_suite_that_is_not_the_one_the_candidate_names_is_refused(tmp_path):
    digests = suite_digests(suite(tmp_path, RANGE))
    assert validate(TABLES, tmp_path, digests=digests).dropped
    with pytest.raises(SuiteRefused, match=r"doses\.json: changed since"):
        validate(TABLES, suite(tmp_path, changed(max_value=30)), digests=digests)
    with pytest.raises(SuiteRefused, match=r"doses\.json: changed since"):
        validate(TABLES, tmp_path, digests={})


def test_what_could_not_be_answered_stops_the_candidate(tmp_path):
    validation = validate(TABLES, suite(tmp_path, RANGE, changed(column="absent", severity="info")))
    assert validation.critical == ["doses: expect_column_values_to_be_between(absent)"]
    assert [line["answered"] for line in validation.results["doses"]["expectations"]] == [True, False]


@pytest.mark.parametrize("less", ["load", "answer"])
def test_an_expectation_lost_on_the_way_is_refused(tmp_path, monkeypatch, less):
    from great_expectations.core.expectation_suite import ExpectationSuite
    from great_expectations.validator.validator import Validator

    real_init, real_validate = ExpectationSuite.__init__, Validator.graph_validate

    def init(self, name=None, expectations=None, **more):
        real_init(self, name, expectations[:-1], **more)

    def answer(self, *arguments, **more):
        return real_validate(self, *arguments, **more)[:-1]

    if less == "load":
        monkeypatch.setattr(ExpectationSuite, "__init__", init)
    else:
        monkeypatch.setattr(Validator, "graph_validate", answer)
    with pytest.raises(SuiteRefused, match="not every expectation"):
        validate(TABLES, suite(tmp_path, RANGE, changed(max_value=5)))

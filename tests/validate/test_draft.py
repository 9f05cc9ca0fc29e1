"""A suite drafted from a declared clinical table: it runs as it is, and notices what the declaration rules out."""

import datetime
import json

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.schemas import arrow_schema, clinical_table
from pipeline.sections import Clinical
from pipeline.synthetic.project import project_text
from pipeline.validate.draft import draft
from pipeline.validate.run import validate
from pipeline.validate.suites import load, suite_digests

DECLARED = Clinical.model_validate({
    "table": "biopsies", "file": "biopsies.csv", "order": ["referred", "taken"],
    "columns": {
        "nhs": {"role": "identity", "required": True}, "sample": {"role": "identifier"}, "notes": {"role": "drop"},
        "referred": {"role": "event_date"}, "taken": {"role": "event_date", "required": True},
        "result": {"role": "category", "values": ["B1", "B5"]}, "size_mm": {"role": "number"},
    },
})
DAY = datetime.date(2020, 5, 1)
GOOD = {"patient_id": "P" + "0A" * 10, "sample": "I" + "0A" * 8, "referred": DAY, "taken": DAY, "result": "B1",
        "size_mm": 12.5}


def check(folder, *rows):
    schema = arrow_schema(clinical_table("biopsies", DECLARED.columns))
    (folder / "biopsies.json").write_bytes(draft(DECLARED))
    seen = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "patient_id", "mostly": 1.0},
            "severity": "critical", "meta": {"why": "A test.", "source": "This test"}}
    people = {"name": "patients", "meta": {"schema_version": 1}, "expectations": [seen]}
    (folder / "patients.json").write_text(json.dumps(people))
    found = validate({"biopsies": pa.Table.from_pylist(list(rows), schema=schema),
                      "patients": pa.table({"patient_id": [GOOD["patient_id"]]})}, folder)
    assert found.expectations == 16
    return found


def test_rows_as_declared_pass(tmp_path):
    found = check(tmp_path, GOOD, {**GOOD, "sample": None, "referred": None, "result": None, "size_mm": None})
    assert not found.critical and not found.dropped


@pytest.mark.parametrize(("wrong", "critical"), [
    ({"patient_id": "9990000018"}, True), ({"sample": "S-1"}, True), ({"result": "B9"}, False),
    ({"taken": None}, False), ({"taken": datetime.date(1900, 1, 1)}, False),
])  # fmt: skip
def test_what_the_declaration_rules_out_is_noticed(tmp_path, wrong, critical):
    found = check(tmp_path, GOOD, {**GOOD, **wrong})
    assert bool(found.critical) == critical and (critical or found.dropped == {"biopsies": [1]})


def test_the_order_of_events_is_counted(tmp_path):
    found = check(tmp_path, GOOD, {**GOOD, "taken": DAY - datetime.timedelta(1)})
    (line,) = [e for e in found.results["biopsies"]["expectations"] if "pair" in e["type"]]
    assert line["unexpected_count"] == 1 and not found.dropped


def test_an_order_names_dates_of_the_table():
    with pytest.raises(ValueError, match="event_date"):
        Clinical.model_validate({**DECLARED.model_dump(), "order": ["referred", "result"]})


def test_a_projects_own_suite_goes_before_the_products(tmp_path):
    ours, theirs = tmp_path / "product", tmp_path / "project"
    for folder in (ours, theirs):
        folder.mkdir()
        (folder / "biopsies.json").write_bytes(draft(DECLARED))
    (ours / "doses.json").write_bytes(draft(DECLARED).replace(b'"biopsies"', b'"doses"'))
    (theirs / "biopsies.json").write_bytes(draft(DECLARED).replace(b"1980-01-01", b"1990-01-01"))
    both = load((ours, theirs), ["biopsies", "doses"])
    assert [s.name for s in both] == ["biopsies", "doses"] and "1990-01-01" in str(both[0].expectations)
    digests = suite_digests(ours, theirs)
    assert digests["biopsies"] == suite_digests(theirs)["biopsies"] != suite_digests(ours)["biopsies"]


def test_drafting_leaves_what_is_there(tmp_path):
    (tmp_path / "project.toml").write_text(project_text(*(f"file:///{z}" for z in ("a", "b", "c", "d"))))
    command = ["suite", "draft", str(tmp_path / "project.toml"), "--out", str(tmp_path / "suites")]
    assert CliRunner().invoke(app, command).exit_code == 0
    drafted = sorted((tmp_path / "suites").iterdir())
    assert [p.name for p in drafted][:1] == ["episodes.json"] and load(tmp_path / "suites", ["episodes"])
    drafted[0].write_bytes(b"changed by hand")
    assert "is there" in CliRunner().invoke(app, command).output and drafted[0].read_bytes() == b"changed by hand"

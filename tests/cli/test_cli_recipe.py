"""`tre recipe coverage` and `tre recipe list`, as an officer and an engineer type them."""

import csv
import io
import tomllib

import pytest

from pipeline import errors
from pipeline.deidentify.plan import RECIPES
from pipeline.synthetic.demo import write_demo


def test_coverage_prints_edition_gaps_and_what_is_weaker_first(tre):
    said = tre("recipe", "coverage", RECIPES / "mammography.dicom")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].strip() == "base.dicom + mammography.dicom"         # what it stands behind came by itself
    verdicts = [line.split("│")[6].strip() for line in lines if line.count("│") > 7 and line.split("│")[1].strip()]
    assert verdicts == sorted(verdicts, key=["weaker", "equal", "stricter"].index)
    assert "2026d" in said.out and "Known gaps" in said.out and "E.3.10-1 of 2020" in said.out
    assert "radiological" not in said.out and "a number of millimetres in GE's" in said.out      # the reason
    assert "113100 Basic" in said.out and "%" not in said.out


def test_coverage_as_csv_has_every_row(tre, tmp_path):
    said = tre("recipe", "coverage", RECIPES / "base.dicom", RECIPES / "report.dicom", RECIPES / "dose_report.toml",
               "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert len(rows) == 656 and {row["verdict"] for row in rows} == {"stricter", "equal", "weaker"}
    assert all(row["reason"] for row in rows if row["verdict"] == "weaker")
    content = next(row for row in rows if row["attribute"] == "ContentSequence")
    assert (content["recipe"], content["option"]) == ("cleaned", "113104")
    assert tre("recipe", "coverage", RECIPES / "mr.dicom", "--csv", tmp_path / "c.csv").code == 0
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 1 + 656 + 9


def test_coverage_without_a_reason_shows_the_row_and_ends_with_11(tre, tmp_path):
    recipe = tmp_path / "own.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREMOVE ALL\nKEEP PatientWeight\n")
    said = tre("recipe", "coverage", recipe)
    assert said.code == errors.RecipeRefused.exit_code and "own.dicom:4" in said.err
    assert "PatientWeight" in said.out
    recipe.write_text("FORMAT dicom\n%header\nREMOVE ALL\nkeep PatientWeight\n")
    said = tre("recipe", "coverage", recipe)
    assert said.code == errors.RecipeRefused.exit_code and "tre recipe lint" in said.err


def test_the_whole_table_on_request(tre):
    few, all_ = (tre("recipe", "coverage", RECIPES / "ct.dicom", *words).out.count("\n") for words in ((), ("--all",)))
    assert few < 100 < 656 < all_


def test_the_list_is_what_a_project_file_takes_over(tre):
    said = tre("recipe", "list", "--toml")
    uses = tomllib.loads(said.out)["deidentify"]["recipes"]
    by_class = {name: use["files"] for use in uses for name in use["sop_classes"]}
    assert by_class["MR Image Storage"] == ["base.dicom", "mr.dicom"]
    assert by_class["X-Ray Radiation Dose SR Storage"] == ["base.dicom", "report.dicom", "dose_report.toml"]
    assert len(by_class) == sum(len(use["sop_classes"]) for use in uses) == 23
    assert "Ultrasound Multi-frame Image Storage" in tre("recipe", "list").out


@pytest.mark.parametrize("name", ["ct.dicom", "base.dicom"])
def test_one_file_is_linted_with_those_it_stands_behind(tre, name):
    said = tre("recipe", "lint", RECIPES / name)
    assert said.code == 0 and "nothing refused" in said.out


def test_a_project_is_reviewed_set_by_set_with_its_options(tre, tmp_path):
    write_demo(tmp_path / "site", women=1)
    project = tmp_path / "site" / "project.toml"
    project.write_text(project.read_text().replace("[deidentify]", "[deidentify]\nkeep_times = true"))
    said = tre("recipe", "review", "--project", project, "--out", tmp_path / "pages")
    assert said.code == 0, said.err
    pages = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert len(pages) == project.read_text().count("[[deidentify.recipes]]") and pages[0].startswith("1-")
    assert "in a project that keeps them" in (tmp_path / "pages" / pages[0]).read_text()
    assert tre("recipe", "review", RECIPES / "ct.dicom", "--project", project, "--out", tmp_path / "p").code == 2
    assert tre("recipe", "review", "--out", tmp_path / "p").code == 2


def test_a_refusal_says_each_finding_once(tre, tmp_path):
    bad = tmp_path / "bad.dicom"
    bad.write_text("FORMAT dicom\n%header\nREMOVE ALL\nKEEP PatientName\nKEEP PatientBirthDate\n")
    said = tre("recipe", "review", bad, "--out", tmp_path / "page.html")
    assert said.code == errors.RecipeRefused.exit_code
    assert said.err.count("bad.dicom:4: name_kept") == said.err.count("bad.dicom:5: date_kept") == 1

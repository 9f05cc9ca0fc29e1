"""`tre retrieve` as a person types it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit
from faulty import options, serving
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.errors import RetrievalIncomplete

pytestmark = pytest.mark.integration


def tre(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_cohort_from_its_file_to_landing(shelf: kit.Shelf, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("accession_number\nACC1\nACC?\nACC9\n")
    with serving(shelf.images) as pacs:
        file = kit.project_file(tmp_path, **options(pacs))
        asked = ("retrieve", tmp_path / "cohort.csv", "--project", file)
        found = tre(*asked, "--find-only")
        assert found.exit_code == 0, found.output
        assert re.search(r"line 3: wildcard\.", found.output)
        assert re.search(r"instances owed +5\n", found.output) and re.search(r"rows none +1\n", found.output)
        assert not (tmp_path / "landing").exists(), "no image has moved"
        done = tre(*asked)
    assert done.exit_code == 0, done.output
    assert re.search(r"studies complete +1\n", done.output) and re.search(r"landed +5\n", done.output)
    told = tre("retrieve", "status", "--project", file)
    assert re.search(r"t-[0-9a-f]{24}\W+1\W+1\W+0\W+0\W+0\W+5\W+0\W", told.output), told.output
    assert not re.search("ACC|LID|QUILL", found.output + done.output + told.output)


def test_what_did_not_come_whole_is_said_with_where_to_look(shelf: kit.Shelf, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("accession_number\nACC1\n")
    with serving(shelf.images, status=0xA702) as pacs:
        file = kit.project_file(tmp_path, **options(pacs))
        done = tre("retrieve", tmp_path / "cohort.csv", "--project", file)
        assert isinstance(done.exception, RetrievalIncomplete)
        assert "again.csv" in str(done.exception)
        pacs.status = None
        assert tre("retrieve", tmp_path / "cohort.csv", "--project", file).exit_code, "it has ended; --again asks again"
        assert tre("retrieve", tmp_path / "cohort.csv", "--project", file, "--again").exit_code == 0


def test_in_quiet_hours_it_says_for_how_long(shelf: kit.Shelf, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("accession_number\nACC1\n")
    with serving(shelf.images) as pacs:
        file = kit.project_file(tmp_path, **options(pacs, quiet_hours=["mon-sun 00:00-24:00"]))
        done = tre("retrieve", tmp_path / "cohort.csv", "--project", file, "--no-wait")
    assert done.exit_code == 0 and "quiet hours" in done.output and not pacs.asked


def test_dose_reports_alone(shelf: kit.Shelf, tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("local_id,issuer\nLID1001,HOSP-A\n")
    with serving(shelf.images) as pacs:
        file = kit.project_file(tmp_path, **options(pacs))
        done = tre("retrieve", tmp_path / "cohort.csv", "--project", file, "--dose-reports")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "landing").rglob("*.dcm"))) == 1
    assert [entry[1] for entry in pacs.asked if entry[0] == "get"] == ["SERIES"]


def people(n: int, number: int, **options: Any) -> list[kit.Image]:
    return [kit.image(patient_id=f"P{number}{k}", accession=f"A{number}{k}", pixels=False, **options)
            for k in range(n)]


def test_a_count_needs_no_image_and_keeps_small_groups_back(tmp_path: Path) -> None:
    images = people(12, 1, study_date="20200101") + people(10, 2, study_date="20210101")
    images += people(3, 3, study_date="20220101") + people(11, 4, study_date="20220101", manufacturer="SIEMENS")
    (tmp_path / "cohort.csv").write_text(
        "date_from,date_to,modality\n" + "".join(f"{year}-01-01,{year}-01-01,MG\n" for year in range(2020, 2023)))
    with serving(images) as pacs:
        file = kit.project_file(tmp_path, **options(pacs))
        assert tre("retrieve", tmp_path / "cohort.csv", "--project", file, "--find-only").exit_code == 0
    assert not (tmp_path / "landing").exists()
    by_year = tre("pacs", "count", file, "--by", "year").output
    assert re.search(r"2020\W+12\W+12\W+12\W", by_year) and re.search(r"2022\W+14\W+14\W+14\W", by_year)
    both = tre("pacs", "count", file, "--by", "year", "--by", "manufacturer").output
    assert re.search(r"2022\W+GE MEDICAL SYSTEMS\W+<10\W", both)
    assert re.search(r"2021\W+GE MEDICAL SYSTEMS\W+<10\W", both), "else the small group could be had by subtraction"
    assert re.search(r"2022\W+SIEMENS\W+11\W", both)
    alone = tre("pacs", "count", file, "--by", "manufacturer", "--only", "year=2022").output
    assert re.search(r"SIEMENS\W+<10\W", alone) and "14" not in alone, "of two groups both are kept back"
    assert tre("pacs", "count", file, "--by", "name").exit_code

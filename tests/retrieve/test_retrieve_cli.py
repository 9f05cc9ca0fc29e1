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

"""The docs say what the code does: drawn pages are current, links lead somewhere, named tests exist."""

import re
import subprocess
import textwrap
from datetime import date
from pathlib import Path

import pytest

from infra import worked_example
from infra.generate_docs import PAGES
from pipeline import config
from pipeline.deidentify import crosswalk
from pipeline.deidentify.plan import load_plans
from pipeline.govern import people
from pipeline.govern.sop_classes import resolve
from pipeline.model import Status

ROOT = Path(__file__).resolve().parent.parent
MARKDOWN = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
)


@pytest.mark.parametrize("name", PAGES)
def test_a_drawn_page_is_current(name):
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == PAGES[name](), "run make docs and commit"


@pytest.mark.xdist_group("worked example")
def test_the_worked_example_is_what_the_steps_make():
    """Batch ids follow from where the landing is, so they are left out of the comparison."""
    batches = re.compile(r"b-[0-9a-f]{24}")
    page = (ROOT / "docs" / "worked-example.md").read_text(encoding="utf-8")
    assert batches.sub("b", page) == batches.sub("b", worked_example.page()), "run make docs and commit"


def test_the_runbook_s_first_project_is_one(tmp_path):
    """Its project file, its list of permitted people and its crosswalk are read as they stand."""
    page = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8").split("## A new project\n")[1].split("\n## ")[0]
    blocks = [textwrap.dedent(block) for block in re.findall(r"```\w*\n(.*?)   ```", page, re.S)]
    for name, text in zip(("project.toml", "permitted.csv", "crosswalk.csv"), blocks, strict=True):
        (tmp_path / name).write_text(text)
    project = config.load(tmp_path / "project.toml")
    assert len(people.load_permitted(project, date(2025, 2, 1)).ids) == 1
    assert crosswalk.load(project).resolve("HOSP-A", "A1234567").nhs == "9999101852"
    assert load_plans(project).plans.keys() >= resolve(project.eligibility.sop_classes, project.path)


def test_the_diagram_shows_every_status():
    page = PAGES["states.md"]()
    for status in Status:
        assert re.search(rf"--> {status}$", page, re.M), f"nothing leads to {status}"


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not re.match(r"https?://|mailto:", target):
            assert (page.parent / target).exists(), target


def test_every_test_named_in_security_properties_exists():
    page = (ROOT / "docs" / "security-properties.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) >= 15
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"
    for module in re.findall(r"`((?:pipeline|dags|infra)/[\w/]+\.py)`", page):
        assert (ROOT / module).is_file(), module

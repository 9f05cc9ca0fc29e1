import html.parser
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import layout, schemas
from pipeline.publish import open as opening
from pipeline.publish.figures import Group, keep_back, measure
from pipeline.publish.release import publish
from pipeline.storage import tables

SENTINEL = "SENTINELSMITH"


def read(made, name):
    return made.candidate.read(layout.in_candidate(made.project, made.id, name)).decode()


class Page(html.parser.HTMLParser):
    """Collects what a browser would load or run, and every id."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.ids, self.anchors, self.tags = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if tag == "a" and value in ("report.html", "checks.html"):      # a page of the same release
                continue
            if name in ("src", "href", "srcset", "action", "data", "xlink:href"):
                (self.anchors if value.startswith("#") else self.loads).append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on"), name


@pytest.mark.parametrize("name", ["report.html", "dictionary.html", "checks.html"])
def test_a_page_loads_and_runs_nothing(many, name):
    text = read(many, name)
    page = Page(text)
    assert page.loads == []
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids))
    assert {a[1:] for a in page.anchors} <= set(page.ids)


def test_the_report_is_the_same_to_the_byte_in_another_process(many, tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 20\naxes.facecolor: red\nsvg.hashsalt: other\n")
    code = (
        "import importlib.util, json, sys\n"
        "spec = importlib.util.spec_from_file_location('made', sys.argv[1])\n"
        "made = importlib.util.module_from_spec(spec); spec.loader.exec_module(made)\n"
        "print(made.make(sys.argv[2], people=120, seed=3).seal())\n"
    )
    conftest, root = Path(__file__).with_name("conftest.py"), Path(__file__).parents[2]
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": seed, "TZ": "Pacific/Auckland", "LANG": "C",
               "MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}  # fmt: skip
        out = subprocess.run([sys.executable, "-c", code, str(conftest), (tmp_path / seed).as_uri()], env=env,
                             cwd=tmp_path, capture_output=True, text=True, check=True)  # fmt: skip
        found.add(out.stdout.strip())
    assert found == {many.seal()}


def test_the_report_says_what_is_asked_of_it(many):
    text = read(many, "report.html")
    for plot in ("years", "ages", "views", "thickness", "force", "dose"):
        assert f'id="plot-{plot}"' in text
    for words in ("50–60", "HOLOGIC, Inc. Selenia Dimensions", "The file ends inside an element.",
                  "113107", "between 1 and 365", "tre release verify", "A house plausibility limit.",
                  "Imaging Data Office", "14 people have such a name"):  # fmt: skip
        assert words in text, words


def test_no_pseudonym_or_uid_of_a_person_is_in_a_page(many):
    text = read(many, "report.html") + read(many, "dictionary.html")
    for row in many.tables["instances"].to_pylist():
        assert row["patient_id"] not in text
        assert row["study_uid"] not in text


def test_text_of_a_small_group_is_not_in_the_report(made):
    rows = made.tables["series"].to_pylist()
    rows[0]["manufacturer"] = SENTINEL
    made.tables["series"] = tables.from_rows(schemas.SERIES, rows)
    made.seal()
    assert SENTINEL not in read(made, "report.html")


def test_what_the_project_file_says_is_escaped(made):
    made.plan["title"] = "<script>alert(1)</script>"
    made.seal()
    for name in ("report.html", "dictionary.html", "checks.html"):
        assert "<script" not in read(made, name)
        assert "&lt;script" in read(made, name)


def test_a_project_without_exposures_has_a_report(made):
    made.tables["exposures"] = tables.from_rows(schemas.EXPOSURES, [])
    made.seal()
    assert "Compression force" not in read(made, "report.html")


def test_an_empty_candidate_has_a_report(made):
    made.tables = {t.name: tables.from_rows(t, []) for t in schemas.PUBLISHED}
    made.images = tables.from_rows(schemas.IMAGES, [])
    made.seal()
    assert "Every object" in read(made, "report.html")


@pytest.mark.parametrize(("width", "labels"), [(5, ["50–54", "60–64"]), (10, ["50–59", "60–69"])])
def test_ages_are_labelled_as_wide_as_they_were_released(width, labels, tmp_path):
    studies = [{"study_uid": f"2.25.{n}", "patient_id": f"P{n}", "age_band_years": 50 + n % 2 * 10, "n_series": 1,
                "n_instances": 1} for n in range(40)]
    empty = {t.name: tmp_path / t.name for t in schemas.PUBLISHED}
    for t in schemas.PUBLISHED:
        empty[t.name].write_bytes(tables.to_bytes(tables.from_rows(t, studies if t.name == "studies" else [])))
    assert [g.label for g in measure(empty, width).ages] == labels


def test_small_groups_are_kept_back_and_cannot_be_had_by_subtraction():
    one_small = keep_back([Group("a", 30, 30), Group("b", 9, 9), Group("c", 12, 12), Group("d", 0, 0)])
    assert [g.label for g in one_small if not g.shown] == ["b", "c"]
    two_small = keep_back([Group("a", 30, 30), Group("b", 9, 9), Group("c", 3, 3)])
    assert [g.label for g in two_small if not g.shown] == ["b", "c"]
    assert [g.people_text for g in one_small] == ["30", "<10", "not shown", "0"]


def test_the_dictionary_tells_every_column_of_every_table(made):
    made.seal()
    words = json.loads(read(made, "dictionary.json"))
    assert {t["name"]: [c["name"] for c in t["columns"]] for t in words["tables"]} == {
        name: table.schema.names for name, table in made.tables.items()}  # fmt: skip
    for table in words["tables"]:
        for column in table["columns"]:
            assert column["type"]
            assert column["meaning"], (table["name"], column["name"])
    episodes = next(t for t in words["tables"] if t["name"] == "episodes")
    outcome = next(c for c in episodes["columns"] if c["name"] == "outcome")
    assert outcome["values"] == ["normal", "cancer"]
    assert {r["code"] for r in words["reasons"]} >= {"not_dicom", "person_not_linked"}


def test_the_lines_that_open_a_release_run(small, tmp_path):
    publish(small.candidate, small.release, small.project, small.id, approval=small.approval())
    code = opening.lines(f"{small.base}/release/{small.project}")
    assert "episodes" in code
    space = {}
    exec(compile(code, "lines", "exec"), space)
    assert len(space["df"]) == 4
    assert len(space["joined"].fetchall()) == 4
    assert set(space["df"]["outcome"]) <= {"normal", "cancer"}
    assert len(space["image"]) == space["df_instances"]["bytes"][0]


def test_the_lines_fall_back_on_patients_where_there_is_no_clinical_table(made):
    del made.tables["episodes"]
    made.seal()
    publish(made.candidate, made.release, made.project, made.id, approval=made.approval())
    space = {}
    exec(compile(opening.lines(f"{made.base}/release/{made.project}"), "lines", "exec"), space)
    assert len(space["df"]) == 48


def test_the_checks_page_says_what_was_checked_why_and_how_many_failed(made):
    line = {"type": "expect_column_values_to_be_between", "column": "kvp_kv", "expected": "at least 10 and at most 200",
            "severity": "warning", "success": False, "answered": True, "element_count": 900, "unexpected_count": 3,
            "unexpected_percent": 0.3, "why": "The unit would be wrong.", "source": "House plausibility limit"}
    more = [{**line, "column": "exposure_mas", "unexpected_count": 41}, {**line, "answered": False},
            {**line, "column": "grid", "success": True, "unexpected_count": 0}]
    made.results = {"exposures": {"schema_version": 1, "suite": "exposures", "rows": 900, "failing_rows": 44,
                                  "withheld_instances": 44, "dropped_rows": 0, "expectations": [line, *more]}}
    made.seal()
    text = re.sub(r"<[^>]+>|\s+", " ", read(made, "checks.html"))
    text = re.sub(" +", " ", text)
    assert "4 checks, 3 of them not passed. Withheld for it: 44 images." in text
    said = "{} at least 10 and at most 200 The unit would be wrong. House plausibility limit warning {} rows"
    assert said.format("kvp_kv", "&lt;10") in text and said.format("exposure_mas", "41") in text
    assert "not answered" in text
    before, _, after = text.rpartition("The checks of exposures")
    assert "grid" in after and "kvp_kv" in after and "kvp_kv" in before and "grid" not in before.rpartition("}")[2]
    assert 'href="checks.html"' in read(made, "report.html") and 'href="report.html"' in read(made, "checks.html")

"""Measurements and findings from hand-made content."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline import layout
from pipeline.curate import content, measurements
from pipeline.curate.measurements import SQL, tabulate, write
from pipeline.curate.spill import Spill, Tables
from pipeline.errors import SchemaTooNew
from pipeline.schemas import CONTENT, FINDINGS, MEASUREMENTS, arrow_schema
from pipeline.storage import open_store, tables

ANN = "P" + "A" * 20
SCT_SIDE = {"Right": "24028007", "Left": "7771000", "Both": "51440002"}


def item(node, parent, depth, kind, meaning, concept=("1", "99TEST"), **more):
    return {"patient": ANN, "study": "2.25.1", "instance": "2.25.9", "node": node, "parent": parent, "depth": depth,
            "relationship": "CONTAINS", "value_type": kind, "concept": concept[0], "concept_scheme": concept[1],
            "concept_meaning": meaning, **more}  # fmt: skip


def num(node, parent, depth, meaning, number, unit="mm", **more):
    return item(node, parent, depth, "NUM", meaning, number=number, unit=unit, **more)


def code(node, parent, depth, meaning, concept, value, scheme, said):
    return item(node, parent, depth, "CODE", meaning, concept, code=value, code_scheme=scheme, code_meaning=said)


def laterality(node, parent, depth, side, concept=("272741003", "SCT")):
    return code(node, parent, depth, "Laterality", concept, SCT_SIDE[side], "SCT", side)


def made(*rows, without=()):
    bad = Counter()
    got = tabulate(tables.from_rows(CONTENT, rows), without, bad)
    return got["measurements"].to_pylist(), got["findings"].to_pylist(), +bad


ROOT = item(1, 0, 0, "CONTAINER", "Report", template="4000")


def test_an_item_has_its_place_and_what_stands_above_it():
    group = item(2, 1, 1, "CONTAINER", "Group", template="1411")
    site = code(4, 2, 2, "Finding Site", ("363698007", "SCT"), "76752008", "SCT", "Breast")
    rows, codes, bad = made(ROOT, group, laterality(3, 2, 2, "Left"), site, num(5, 2, 2, "Width", "12.5"))
    assert rows == [{
        "report_uid": "2.25.9", "node": 5, "parent": 2, "study_uid": "2.25.1", "patient_id": ANN, "template": "1411",
        "path": "Report / Group / Width", "relationship": "CONTAINS", "concept": "1", "concept_scheme": "99TEST",
        "concept_meaning": "Width", "value": 12.5, "unit": "mm", "qualifier": None, "laterality": "L",
        "site": "Breast", "rendering_intent": None,
    }]  # fmt: skip
    assert [(r["node"], r["code_meaning"], r["laterality"]) for r in codes] == [(3, "Left", "L"), (4, "Breast", "L")]
    assert not bad


def test_the_nearest_statement_holds_and_a_neighbours_does_not():
    rows, _, bad = made(
        ROOT, laterality(2, 1, 1, "Right"), item(3, 1, 1, "CONTAINER", "A"), laterality(4, 3, 2, "Left"),
        num(5, 3, 2, "in A", "1"), item(6, 1, 1, "CONTAINER", "B"), num(7, 6, 2, "in B", "2"),
        num(8, 6, 2, "own", "3"), laterality(9, 8, 3, "Both"))  # fmt: skip
    assert [(r["node"], r["laterality"]) for r in rows] == [(5, "L"), (7, "R"), (8, "B")]
    assert not bad


@pytest.mark.parametrize(("concept", "value", "scheme"), [
    (("G-C171", "SRT"), "G-A101", "SRT"), (("G-C171", "SNM3"), "G-A101", "SNM3"), (("111027", "DCM"), "7771000", "SCT"),
    (("272741003", "SCT"), "T-04030", "SRT"), (("363698007", "SCT"), "80248007", "SCT"),
])  # fmt: skip
def test_a_side_is_read_under_old_codes_and_new(concept, value, scheme):
    rows, _, _ = made(ROOT, num(2, 1, 1, "Dose", "1"), code(3, 2, 2, "x", concept, value, scheme, "Left"))
    assert [r["laterality"] for r in rows] == ["L"]


def test_the_side_of_the_anatomical_structure_is_that_of_its_event():
    structure = code(2, 1, 1, "Anatomical structure", ("T-D0005", "SRT"), "T-04000", "SRT", "Breast")
    rows, _, _ = made(ROOT, structure, laterality(3, 2, 2, "Right", ("G-C171", "SRT")), num(4, 1, 1, "KVP", "28", "kV"))
    assert [(r["laterality"], r["site"]) for r in rows] == [("R", "Breast")]


def test_two_sides_of_one_item_are_none_and_counted():
    rows, _, bad = made(ROOT, laterality(2, 1, 1, "Right"), item(3, 1, 1, "CONTAINER", "A"),
                        laterality(4, 3, 2, "Left"), laterality(5, 3, 2, "Right"), num(6, 3, 2, "x", "1"))  # fmt: skip
    assert [r["laterality"] for r in rows] == [None]        # and not the R further up
    assert bad == {"findings.laterality": 1}


def test_a_code_that_is_no_side_is_no_side():
    rows, _, bad = made(ROOT, code(2, 1, 1, "Laterality", ("272741003", "SCT"), "66459002", "SCT", "Unilateral"),
                        num(3, 1, 1, "x", "1"))  # fmt: skip
    assert [r["laterality"] for r in rows] == [None] and not bad


def test_computer_aided_detection():
    """TID 4006: a finding is a CODE; its probability of cancer a NUM below it, whether to show it a modifier."""
    finding = code(2, 1, 1, "Single Image Finding", ("111059", "DCM"), "129769006", "SCT", "Calcification Cluster")
    intent = code(3, 2, 2, "Rendering Intent", ("111056", "DCM"), "111150", "DCM", "Presentation Required")
    rows, codes, _ = made(ROOT, finding, intent, num(4, 2, 2, "Probability of cancer", "68", "%"))
    assert [(r["parent"], r["value"], r["unit"], r["rendering_intent"]) for r in rows] == [
        (2, 68.0, "%", "Presentation Required")]
    assert rows[0]["path"] == "Report / Single Image Finding / Probability of cancer"
    assert [(r["node"], r["rendering_intent"]) for r in codes] == [(2, "Presentation Required"),
                                                                  (3, "Presentation Required")]  # fmt: skip


def test_a_finding_has_the_side_of_the_images_it_was_found_in():
    """TID 4006 and 4020: a place is SELECTED FROM an image of the library, to which it refers by its place."""
    library = (item(2, 1, 1, "CONTAINER", "Image Library"), item(3, 2, 2, "IMAGE", None),
               laterality(4, 3, 3, "Left", ("111027", "DCM")), item(5, 2, 2, "IMAGE", None),
               laterality(6, 5, 3, "Right", ("111027", "DCM")))  # fmt: skip
    def finding(node, *targets):
        places = [row for n, target in enumerate(targets) for row in (
            item(node + 2 + 2 * n, node, 2, "SCOORD", "Center"),
            item(node + 3 + 2 * n, node + 2 + 2 * n, 3, "REFERENCE", None, (None, None), text=str(target)))]
        return (code(node, 1, 1, "Single Image Finding", ("111059", "DCM"), "129769006", "SCT", "Calcification"),
                num(node + 1, node, 2, "Probability of cancer", "68", "%"), *places)

    rows, codes, bad = made(ROOT, *library, *finding(10, 3), *finding(20, 5, 5), *finding(30, 3, 5), *finding(40, 99))
    assert [(r["node"], r["laterality"]) for r in rows] == [(11, "L"), (21, "R"), (31, None), (41, None)]
    assert [r["laterality"] for r in codes if r["concept"] == "111059"] == ["L", "R", None, None]
    assert bad == {"findings.laterality": 1}


def test_a_place_may_name_its_image_again():
    """The place holds an IMAGE item of its own; the library's item of the same image says the side."""
    def image(node, parent, depth, uid):
        return item(node, parent, depth, "IMAGE", None, (None, None), reference=uid)

    library = (image(2, 1, 1, "2.25.91"), laterality(3, 2, 2, "Left", ("111027", "DCM")), image(4, 1, 1, "2.25.90"),
               laterality(5, 4, 2, "Right", ("111027", "DCM")))  # fmt: skip
    finding = code(6, 1, 1, "Single Image Finding", ("111059", "DCM"), "129769006", "SCT", "Calcification")
    place = item(7, 6, 2, "SCOORD", "Center")
    for uid, side in (("2.25.91", "L"), ("2.25.90", "R"), ("2.25.92", None)):
        rows, _, _ = made(ROOT, *library, finding, place, image(8, 7, 3, uid), num(9, 6, 2, "Certainty", "1", "%"))
        assert [r["laterality"] for r in rows] == [side]
    elsewhere = [{**row, "instance": "2.25.8"} for row in (ROOT, *library)]
    rows, _, _ = made(*elsewhere, ROOT, finding, place, image(8, 7, 3, "2.25.91"), num(9, 6, 2, "Certainty", "1", "%"))
    assert [r["laterality"] for r in rows] == [None]        # another report's library is not this one's


@pytest.mark.parametrize(("written", "value", "bad"), [
    ("1.5", 1.5, 0), ("+1.5E1", 15.0, 0), (" -2. \0", -2.0, 0), (".5", 0.5, 0), ("0", 0.0, 0), (None, None, 0),
    ("", None, 0), ("  ", None, 0), ("1,5", None, 1), ("twelve", None, 1), ("NaN", None, 1), ("inf", None, 1),
    ("1e999", None, 1), ("1\\2", None, 1), ("0x10", None, 1), ("1 2", None, 1), ("٣", None, 1),
])  # fmt: skip
def test_numbers(written, value, bad):
    rows, _, counted = made(ROOT, num(2, 1, 1, "x", written, qualifier="114000"))
    assert [(r["value"], r["qualifier"]) for r in rows] == [(value, "114000")]
    assert counted == ({"measurements.value": 1} if bad else {})


def test_an_item_without_a_name_or_a_parent_still_has_a_row():
    rows, _, _ = made(ROOT, item(2, 1, 1, "CONTAINER", None, (None, None)), num(3, 2, 2, "x", "1"),
                      num(9, 7, 4, "lost", "2"))  # fmt: skip
    assert [r["path"] for r in rows] == ["Report / ? / x", "lost"]


@pytest.fixture
def store(tmp_path):
    return open_store((tmp_path / "candidate").as_uri(), "candidate")


def whole(store, parts, without=()):
    """Both tables as the build makes them."""
    spill = Spill()
    made = Tables(spill)
    with spill.connect() as db:
        bad = write(db, content.files(store, "breast", parts, ()), without, spill.folder)
        for schema in (MEASUREMENTS, FINDINGS):
            made.add(schema, db, SQL[schema.name])
    return dict(made), bad


def test_parts_are_put_together_by_report_without_what_is_held(store):
    def part(name, *instances):
        rows = [{**row, "instance": i} for i in instances for row in (ROOT, num(2, 1, 1, "x", "one"))]
        tables.write(store, layout.content("breast", name), tables.from_rows(CONTENT, rows))

    part("p-1", "2.25.4", "2.25.2")
    part("p-2", "2.25.3", "2.25.1")
    got, bad = whole(store, ["p-2", "p-none", "p-1"], {"2.25.3": "x"})
    assert got["measurements"]["report_uid"].to_pylist() == ["2.25.1", "2.25.2", "2.25.4"]
    assert bad == {"measurements.value": 3}
    again, _ = whole(store, ["p-1", "p-2", "p-1"], ["2.25.3"])
    assert {n: tables.to_bytes(t) for n, t in got.items()} == {n: tables.to_bytes(t) for n, t in again.items()}


@pytest.mark.parametrize("piece", [1, 3, 4, 5, 7, 100])
def test_a_report_is_worked_on_whole_however_the_file_is_cut(store, monkeypatch, piece):
    sides = ("Left", "Right", "Both", "Left", "Right", "Right", "Left", "Both")
    whole_report = [(ROOT, laterality(2, 1, 1, side), item(3, 1, 1, "CONTAINER", "A"), num(4, 3, 2, "x", str(n)))
                    for n, side in enumerate(sides)]  # fmt: skip
    reports = [report[: n % 4 + 1] for n, report in enumerate(whole_report)]
    rows = [{**row, "instance": f"2.25.{n}"} for n, report in enumerate(reports) for row in report]
    tables.write(store, layout.content("breast", "p-1"), tables.from_rows(CONTENT, rows))
    monkeypatch.setattr(measurements, "_PIECE", piece)
    got, bad = whole(store, ["p-1"])
    assert [(r["report_uid"], r["value"], r["laterality"], r["path"]) for r in got["measurements"].to_pylist()] == [
        ("2.25.3", 3.0, "L", "Report / A / x"), ("2.25.7", 7.0, "B", "Report / A / x")]
    assert not bad


def test_content_of_a_newer_version_is_refused(store):
    newer = tables.from_rows(CONTENT, [ROOT]).replace_schema_metadata({"schema_version": "99"})
    tables.write(store, layout.content("breast", "p-1"), newer)
    with pytest.raises(SchemaTooNew):
        whole(store, ["p-1"])


def test_nothing_at_all_gives_empty_tables(store):
    got, bad = whole(store, [])
    assert got["measurements"].schema.equals(arrow_schema(MEASUREMENTS), check_metadata=True)
    assert got["findings"].schema.equals(arrow_schema(FINDINGS), check_metadata=True)
    assert (got["findings"].num_rows, bad) == (0, Counter())


def test_a_report_of_160000_items():
    """A finding of twenty items each, a side in every one; columnar, or it would take minutes."""
    node = np.arange(1, 160_001)
    group, first = (node - 2) // 20, (node - 2) % 20 == 0
    depth = np.where(node == 1, 0, np.where(first, 1, 2))
    parent = np.select([node == 1, first], [0, 1], group * 20 + 2)
    kind = np.select([depth < 2, (node - 2) % 20 == 1], [0, 1], 2)      # container, laterality, number
    side = np.array(["24028007", "7771000"])[group % 2]
    columns = {
        "patient": np.full(len(node), ANN), "study": np.full(len(node), "2.25.1"),
        "instance": np.full(len(node), "2.25.9"), "node": node, "parent": parent, "depth": depth,
        "value_type": np.array(["CONTAINER", "CODE", "NUM"])[kind],
        "concept": np.array(["1", "272741003", "2"])[kind], "concept_scheme": np.array(["99T", "SCT", "99T"])[kind],
        "concept_meaning": np.array(["Finding", "Laterality", "Width"])[kind], "number": node.astype(str), "code": side,
        "code_scheme": np.full(len(node), "SCT"),
    }  # fmt: skip
    made = pa.table({f.name: pa.array(columns[f.name].tolist(), f.type) if f.name in columns
                        else pa.nulls(len(node), f.type) for f in arrow_schema(CONTENT)}, schema=arrow_schema(CONTENT))
    got = tabulate(made, (), Counter())
    rows = got["measurements"]
    assert rows.num_rows + got["findings"].num_rows + int((kind == 0).sum()) == len(node)
    assert rows["path"].unique().to_pylist() == ["Finding / Finding / Width"]
    assert rows["value"].to_pylist() == rows["node"].to_pylist()
    assert rows["laterality"].to_pylist() == ["RL"[(n - 2) // 20 % 2] for n in rows["node"].to_pylist()]



"""What must hold of the tables for any facts."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import layout
from pipeline.curate.build import build, images
from pipeline.schemas import FACTS, Column
from pipeline.storage import open_store, tables

PATHS = ("Modality", "KVP", "PatientSex", "StudyDate", "Rows")
CELL = st.none() | st.lists(st.sampled_from(["", "MG", "F", "20200101", "28", "9" * 40, "\0", "x y"]), max_size=2)


@st.composite
def people(draw):
    """Rows of facts in which every series has one study and every study one patient."""
    rows = []
    for n in draw(st.sets(st.integers(0, 60), min_size=1, max_size=12)):
        series = n // 3
        study = series // 2
        rows.append({"patient": f"P{study // 2:020X}", "study": f"2.25.1{study}", "series": f"2.25.2{series}",
                     "instance": f"2.25.3{n}", "key": f"k/{n}", "sha256": bytes([n]) * 32, "bytes": n,
                     **{path: draw(CELL) for path in PATHS}})  # fmt: skip
    held = draw(st.sets(st.sampled_from([r["instance"] for r in rows])))
    return rows, held


def curate(rows, held):
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder).as_uri(), "candidate")
        half = len(rows) // 2
        for part, some in (("p-1", rows[:half]), ("p-2", rows[half:])):
            extra = tuple(Column(p, "strings", "") for p in PATHS)
            tables.write(store, layout.facts("x", part), tables.from_rows(FACTS, some, extra))
        plan = {"parts": ["p-1", "p-2"], "held": {}, "clinical": None}
        without = dict.fromkeys(held, "expectation_failed")
        return build(store, "x", plan, without=without), images(store, "x", plan, without=without)["images"]


@settings(max_examples=25, deadline=None)
@given(people())
def test_every_kept_instance_once_and_parents_agree(case):
    rows, held = case
    made, kept = curate(rows, held)
    expected = {r["instance"]: r for r in rows if r["instance"] not in held}
    instances = made["instances"].to_pylist()
    assert Counter(r["sop_instance_uid"] for r in instances) == Counter(expected.keys())
    assert [r["sop_instance_uid"] for r in instances] == sorted(expected)
    assert kept["instance"].to_pylist() == sorted(expected)
    assert kept["path"].to_pylist() == [r["path"] for r in instances]
    for table, key, column in (("patients", "patient_id", "patient"), ("studies", "study_uid", "study"),
                               ("series", "series_uid", "series")):  # fmt: skip
        counts = {r[key]: r["n_instances"] for r in made[table].to_pylist()}
        assert counts == Counter(r[column] for r in expected.values())
    for table, key, count, child in (("patients", "patient_id", "n_studies", "studies"),
                                     ("studies", "study_uid", "n_series", "series")):  # fmt: skip
        counts = {r[key]: r[count] for r in made[table].to_pylist()}
        assert counts == Counter(r[key] for r in made[child].to_pylist())
    assert {r["sop_instance_uid"] for r in made["exposures"].to_pylist()} <= set(expected)

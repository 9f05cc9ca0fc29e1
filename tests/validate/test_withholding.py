"""Curate and validate together: what is withheld goes, all of it and nothing else, and what is left stands."""

from pathlib import Path

from pipeline import layout
from pipeline.curate.build import build, images
from pipeline.schemas import FACTS, Column
from pipeline.storage import open_store, tables
from pipeline.validate.run import validate

SUITES = Path(__file__).parents[2] / "expectations"
IMAGE = {"PatientSex": "F", "StudyDate": "20130412", "PatientAge": "055Y", "Modality": "MG", "KVP": "29",
         "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2", "TransferSyntaxUID": "1.2.840.10008.1.2.1", "Rows": "9",
         "Columns": "9", "DeviceSerialNumber": "D0123456789AB", "ImageLaterality": "L", "ViewPosition": "CC",
         "PositionerPrimaryAngle": "0"}
ODD = {3: {"PositionerPrimaryAngle": "900"}, 8: {"ViewPosition": "see note"},
       20: {"PatientSex": "woman"}, 21: {"PatientSex": "woman"}}


def test_withheld_images_go_and_the_rest_passes(tmp_path):
    store = open_store(tmp_path.as_uri(), "candidate")
    rows = []
    for n in range(24):     # two images a series, two series a study, six studies of six people
        elements = {path: [value] for path, value in {**IMAGE, **ODD.get(n, {})}.items()}
        rows.append({"patient": f"P{n // 4:020X}", "study": f"2.25.1{n // 4}", "series": f"2.25.2{n // 2}",
                     "instance": f"2.25.3{n:02}", "key": f"k/{n}", "sha256": bytes([n]) * 32, "bytes": 500, **elements})
    tables.write(store, layout.facts("x", "p-1"),
                 tables.from_rows(FACTS, rows, tuple(Column(path, "strings", "") for path in IMAGE)))  # fmt: skip
    plan = {"parts": ["p-1"], "held": {}, "clinical": None}

    first = build(store, "x", plan)
    found = validate(first, SUITES)
    assert found.critical == []
    # 20 and 21 contradict their siblings 22 and 23: the sex is null, and nothing is withheld for it
    assert list(found.withheld) == ["2.25.303", "2.25.308"]
    assert first.contradictions == {"sex": 1}

    second = build(store, "x", plan, without=found.withheld, dropped=found.dropped)
    everything = {f"2.25.3{n:02}" for n in range(24)}
    assert set(second["instances"]["sop_instance_uid"].to_pylist()) == everything - set(found.withheld)
    left_images = images(store, "x", plan, without=found.withheld)["images"]
    assert left_images["path"].to_pylist() == second["instances"]["path"].to_pylist()
    left = validate(second, SUITES)
    assert (left.critical, left.withheld) == ([], {})

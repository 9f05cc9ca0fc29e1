"""What validation withholds is not in the catalogue either, and a candidate with another catalogue is not sealed."""

import json
from contextlib import nullcontext
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import config, layout, steps
from pipeline.catalogue import build
from pipeline.errors import CandidateFailed
from pipeline.publish import candidate
from pipeline.schemas import FACTS, Column
from pipeline.storage import open_store, tables
from pipeline.synthetic.project import project_text
from pipeline.validate.suites import suite_digests

SUITES = Path(__file__).parents[2] / "expectations"
IMAGE = {"PatientSex": "F", "StudyDate": "20130412", "PatientAge": "055Y", "Modality": "MG", "KVP": "29",
         "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2", "TransferSyntaxUID": "1.2.840.10008.1.2.1", "Rows": "9",
         "Columns": "9", "DeviceSerialNumber": "D0123456789AB", "ImageLaterality": "L", "ViewPosition": "CC",
         "PositionerPrimaryAngle": "0"}
CANDIDATE = "c-" + "0123456789ab" * 2


@pytest.fixture
def project(tmp_path):
    """Twelve people; image 03 is of a view that no suite lets pass, image 05 was held back before.

    Of the product's suites one expectation each is run, of the images those of the view.
    """
    suites = tmp_path / "suites"
    suites.mkdir()
    for file in SUITES.glob("*.json"):
        doc = json.loads(file.read_text())
        views = [e for e in doc["expectations"] if file.stem == "instances" and e["kwargs"].get("column") == "view"]
        (suites / file.name).write_text(json.dumps({**doc, "expectations": doc["expectations"][:1] + views}))
    path = tmp_path / "project.toml"
    text = project_text(*(f"file://{tmp_path}/{zone}" for zone in config.Zones.model_fields), name="proj")
    path.write_text(text.replace("[validate]", '[validate]\nsuites = "suites"') if "[validate]" in text
                    else text + '\n[validate]\nsuites = "suites"\n')
    store = open_store(f"file://{tmp_path}/candidate", "candidate")
    rows = []
    for n in range(12):
        view = {"ViewPosition": "see note"} if n == 3 else {}
        rows.append({"patient": f"P{n:020X}", "study": f"2.25.1{n}", "series": f"2.25.2{n}",
                     "instance": f"2.25.3{n:02}", "key": f"k/{n}", "sha256": bytes([n]) * 32, "bytes": 500,
                     **{name: [value] for name, value in {**IMAGE, **view}.items()}})
    tables.write(store, layout.facts("proj", "p-1"),
                 tables.from_rows(FACTS, rows, tuple(Column(name, "strings", "") for name in IMAGE)))
    plan = {"schema_version": 1, "project": "proj", "candidate": CANDIDATE, "parts": ["p-1"], "clinical": None,
            "held": {"2.25.305": "study_quarantined"}, "counts": {}, "clinical_counts": {}, "recipes": [],
            "suites": suite_digests(*config.load(path).suite_folders())}
    store.write(layout.plan("proj", CANDIDATE), json.dumps(plan).encode())
    return path


def test_what_is_withheld_is_not_listed(project, tmp_path):
    steps.curate(project, CANDIDATE)
    steps.validate(project, CANDIDATE)
    folder: Path = tmp_path / "candidate/proj/candidates" / CANDIDATE
    listed = pq.read_table(folder / "catalogue.parquet")["sop_instance_uid"].to_pylist()
    assert listed == pq.read_table(folder / "images.parquet")["instance"].to_pylist()
    assert "2.25.304" in listed and not {"2.25.303", "2.25.305"} & set(listed)
    manifest = json.loads((folder / "candidate.json").read_text())
    assert manifest["catalogue"] == {"file": "catalogue.parquet", "rows": len(listed), "columns": 4 + len(IMAGE)}
    assert "catalogue.parquet" in {file["name"] for file in manifest["files"]}
    words = json.loads((folder / "dictionary.json").read_text())
    (entry,) = [table for table in words["tables"] if table["name"] == "catalogue"]
    assert entry["columns"][4]["source"] == "Columns (0028,0011), US"


def test_another_catalogue_is_not_sealed(project, tmp_path):
    """One image more, or one less, than are released."""
    store = open_store(f"file://{tmp_path}/candidate", "candidate")
    images = tmp_path / "images.parquet"
    pq.write_table(pa.table({"instance": [f"2.25.3{n:02}" for n in reversed(range(12)) if n != 5]}), images)
    for without, right in (({"2.25.305"}, True), (set(), False), ({"2.25.305", "2.25.306"}, False)):
        build.write(store, "proj", ["p-1"], without, tmp_path / "catalogue.parquet")
        with nullcontext() if right else pytest.raises(CandidateFailed, match="catalogue"):
            candidate._lists(tmp_path / "catalogue.parquet", images)

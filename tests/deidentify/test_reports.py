"""Structured reports by concept rules: what of a content tree passes, and that what passes is a tree."""

import hashlib
import io

import pydicom
import pytest

from pipeline import layout
from pipeline.deidentify import concepts
from pipeline.deidentify.linter import read
from pipeline.deidentify.plan import RECIPES, PlanSet, compile_rules
from pipeline.deidentify.shard import Decided, Job, run
from pipeline.storage import open_store, tables
from pipeline.synthetic import files

DOSE = "1.2.840.10008.5.1.4.1.1.88.67"


@pytest.fixture(scope="module")
def plan():
    return compile_rules(read([RECIPES / "base.dicom", RECIPES / "report.dicom"]), keep_times=False,
                         concepts=concepts.read(RECIPES / "dose_report.toml"))


@pytest.fixture
def part(tmp_path, pseudonyms, plan):
    """Return a function that de-identifies objects of one person: counts, facts, content, outcomes, outputs."""
    zones = {zone: open_store((tmp_path / zone).as_uri(), zone) for zone in ("landing", "work", "candidate")}

    def do(*objects):
        decided = []
        for number, data in enumerate(objects):
            zones["landing"].write(f"{number}.dcm", data)
            row = {"source_uri": f"{zones['landing'].url}/{number}.dcm", "bytes": len(data), "issuer": "HOSP-A",
                   "source_sha256": hashlib.sha256(data).digest(), "sop_class_uid": DOSE, "patient_id": "LID4471902"}
            decided.append(Decided(row, ("HOSP-A", "LID4471902"), None))
        job = Job("sr", zones["landing"], zones["candidate"], PlanSet("r", {DOSE: plan}), pseudonyms, 365)
        counts = run(job, zones["work"], "p-1", decided)
        key = layout.content("sr", "p-1")
        content = tables.read(zones["candidate"], key).to_pylist() if zones["candidate"].stat(key) else None
        outcomes = tables.read(zones["work"], layout.outcomes("sr", "p-1")).to_pylist()
        outputs = [pydicom.dcmread(io.BytesIO(zones["candidate"].read(o["output_key"]))) for o in outcomes
                   if o["output_key"]]
        return counts, content, outcomes, outputs
    return do


def test_a_part_says_what_its_reports_hold(part):
    counts, content, outcomes, outputs = part(files.dose_report())
    assert counts == {"pending": 1}
    assert len(content) == outcomes[0]["items"]
    assert {row["instance"] for row in content} == {outputs[0].SOPInstanceUID}
    assert [row["node"] for row in content] == list(range(1, len(content) + 1))

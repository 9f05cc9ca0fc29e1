"""A whole project whose PACS holds a screening population: dose reports alone come, and fill catalogue and tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pydicom
import pytest
import retrieve_kit as kit
from faulty import options, serving
from typer.testing import CliRunner

from pipeline import config, layout, steps
from pipeline.cli.main import app
from pipeline.deidentify.keys import create_key
from pipeline.ledger.ledger import summary
from pipeline.storage import open_store, tables
from pipeline.synthetic.demo import write_demo

pytestmark = pytest.mark.integration


def images_of(landing: Path) -> list[kit.Image]:
    """The population's own files, as a PACS would hold them: each UID once, of people whom their header names."""
    found: dict[str, kit.Image] = {}
    for path in sorted(landing.rglob("*.dcm")):
        if path.relative_to(landing).parts[0] in ("hostile", "pydicom"):
            continue
        ds = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        if ds.get("SOPInstanceUID") and ds.get("PatientID"):
            found[ds.SOPInstanceUID] = kit.Image(path.read_bytes(), ds.StudyInstanceUID, ds.SeriesInstanceUID,
                                                 ds.SOPInstanceUID)
    return list(found.values())


def test_dose_reports_alone_fill_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo(tmp_path, women=3)
    monkeypatch.setenv("TRE_KEY_DIR", str(tmp_path / "keys"))
    create_key(tmp_path / "keys", "demo-screening")
    images = images_of(tmp_path / "landing")
    shutil.rmtree(tmp_path / "landing")
    reports = {one.sop for one in images if one.head.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.67"}
    assert 0 < len(reports) < len(images)
    studies = sorted({one.study for one in images})
    (tmp_path / "cohort.csv").write_text("study_instance_uid\n" + "\n".join(studies) + "\n")
    file = tmp_path / "project.toml"
    with serving(images) as pacs:
        asked: dict[str, Any] = {"host": "127.0.0.1", "called_ae": "PACS", "issuer": "HOSP-A", "studies_an_hour": 0,
                                 "seconds_between_queries": 0, **options(pacs)}
        lines = [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in asked.items()]
        file.write_text(file.read_text() + "\n[retrieve]\n" + "\n".join(lines) + "\n")
        file.write_text(file.read_text().replace("quiet_seconds = 60", "quiet_seconds = 0"))
        words = ["retrieve", str(tmp_path / "cohort.csv"), "--project", str(file), "--dose-reports"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (done.output, done.exception)
    made = config.load(file)
    steps.stage(made)
    for shard in steps.pending_shards(made):
        steps.deidentify(made, shard["batch"], shard["shard"])
    candidate = steps.assemble(made)["candidate"]
    steps.curate(made, candidate)
    steps.validate(made, candidate)
    store = open_store(made.zones.candidate, "candidate")
    listed = tables.read(store, layout.catalogue(made.name, candidate), ["Modality"]).to_pydict()["Modality"]
    assert listed and {str(value) for value in listed} <= {"SR", "['SR']"}, "not one image has moved"
    exposures = tables.read(store, layout.table(made.name, candidate, "exposures"))
    doses = [value for value in exposures["average_glandular_dose_mgy"].to_pylist() if value]
    assert doses, "what a dose audit needs, and not one image has moved"
    zones = [open_store(getattr(made.zones, name), name) for name in ("work", "candidate", "release")]
    told = summary(made, *zones)
    assert told.holds and told.objects == len(reports)

"""Free text from proposal to release: proposed, approved, kept as approved; everything else emptied."""

from __future__ import annotations

import json

import duckdb
import pydicom
import pytest
from steps_kit import Site, make

from pipeline import steps
from pipeline.errors import TermsRefused, UsageError
from pipeline.govern import audit_log
from pipeline.side import Identifiable

pytestmark = pytest.mark.xdist_group("steps")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    site = make(tmp_path_factory.mktemp("terms"))
    recipe = site.folder / "text.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREPLACE SeriesDescription func:term\nREPLACE ProtocolName func:term\n")
    text = site.project.read_text().replace('"mammography.dicom"]', '"mammography.dicom", "./text.dicom"]')
    site.project.write_text(text.replace("[deidentify]\n", '[deidentify]\nterms = "terms.csv"\nterms_people = 5\n', 1))
    (site.folder / "terms.csv").write_text("attribute,term,people,approver,date\n")
    site.stage()
    return site


def test_the_whole_way(site: Site) -> None:
    out = site.folder / "proposed.csv"
    said = steps.propose_terms(site.project, str(out))
    assert said["proposed"] >= 2
    assert said["rare"]["SeriesDescription"] > 0        # they hold names
    text = out.read_text()
    assert not [word for word in site.truth.sentinels if word.lower() in text.lower()]
    entry = list(audit_log.entries(Identifiable(site.project).work, site.config().name))[-1]
    assert (entry.what, entry.state, entry.counts["proposed"]) == ("terms_propose", "done", said["proposed"])

    before = Identifiable(site.project).plans.id
    lines = text.splitlines()
    protocol = next(line for line in lines if line.startswith("ProtocolName,"))
    (site.folder / "terms.csv").write_text(f"{lines[0]}\n{protocol}\n")
    with pytest.raises(TermsRefused, match=r"terms\.csv:2: not approved"):
        steps.pending_shards(site.project)
    (site.folder / "terms.csv").write_text(f"{lines[0]}\n{protocol.removesuffix(',')}R Hale,2026-11-20\n")
    assert Identifiable(site.project).plans.id != before

    site.deidentify()
    images = [pydicom.dcmread(path, stop_before_pixels=True)
              for path in (site.folder / "candidate").rglob("*.dcm")]
    told = {(ds.get("ProtocolName"), ds.get("SeriesDescription")) for ds in images if ds.Modality == "MG"}
    approved = protocol.split(",")[1]
    assert {name for name, _ in told} == {"", approved}
    assert {description for _, description in told} == {""}
    sealed = site.candidate()
    manifest = next((site.folder / "candidate").glob(f"*/candidates/{sealed['candidate']}/candidate.json")).read_text()
    assert Identifiable(site.project).terms.sha256 in manifest      # of what an officer approves
    emptied = json.loads(manifest)["emptied"]
    assert emptied["SeriesDescription"] == sum(1 for ds in images if ds.Modality == "MG" and "SeriesDescription" in ds)
    assert 0 < emptied["ProtocolName"] < emptied["SeriesDescription"]
    lines = steps.candidate_summary(site.project, sealed["candidate"])["lines"]
    assert any(line.startswith("Free text emptied") and "ProtocolName of" in line for line in lines)
    names = duckdb.sql(f"select distinct ProtocolName from '{site.folder}/candidate/*/candidates/*/catalogue.parquet'")
    assert approved in str(names.fetchall())


def test_a_proposal_stays_on_the_identifiable_side(site: Site) -> None:
    for place in (site.folder / "release" / "out.csv", site.folder / "candidate" / "out.csv"):
        place.parent.mkdir(exist_ok=True)
        with pytest.raises(UsageError, match="never written into"):
            steps.propose_terms(site.project, str(place))
    with pytest.raises(UsageError, match="people behind a term"):
        steps.propose_terms(site.project, str(site.folder / "two.csv"), people=4)


def test_terms_that_no_recipe_asks_for_are_refused(site: Site) -> None:
    kept = (site.folder / "terms.csv").read_text()
    line = "ImageComments,ok,9,R Hale,2026-11-20\n"
    (site.folder / "terms.csv").write_text(f"attribute,term,people,approver,date\n{line}")
    with pytest.raises(TermsRefused, match="no recipe asks"):
        steps.pending_shards(site.project)
    (site.folder / "terms.csv").write_text(kept)



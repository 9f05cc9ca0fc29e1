"""A real PACS: Orthanc is asked by C-FIND and QIDO-RS, and sends by C-GET, C-MOVE and WADO-RS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit

from pipeline import layout, steps
from pipeline.dicom.inspect import inspect
from pipeline.storage import tables

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("orthanc")]
SERVICES = ("c-get", "c-move", "dicomweb")


def cohort(folder: Path, text: str) -> str:
    path = folder / "cohort.csv"
    path.write_text(text)
    return str(path)


def landed(made: Any) -> dict[str, Path]:
    """SOP Instance UID → path of what is in landing."""
    root = Path(made.zones.landing.removeprefix("file://"))
    found = {path: inspect(path, 1 << 30) for path in root.rglob("*.dcm")}
    assert all(path.stem == seen.sha256.hex() and seen.refusal is None for path, seen in found.items())
    return {str(seen.sop_instance_uid): path for path, seen in found.items()}


@pytest.mark.parametrize("service", SERVICES)
def test_a_cohort_is_found_written_down_fetched_and_reconciled(
    service: str, orthanc: kit.Orthanc, shelf: kit.Shelf, tmp_path: Path
) -> None:
    made = kit.config(tmp_path, **orthanc.options(service))
    asked = steps.ask_pacs(made, cohort=cohort(tmp_path, "local_id,issuer,accession_number\nLID1001,HOSP-A,\n,,ACC3\n"))
    _, work = kit.zones(made)
    expected = tables.read(work, layout.retrieval_expected(made.name, asked["retrieval"])).to_pylist()
    assert {row["sop_instance_uid"] for row in expected} == {one.sop for one in shelf.images}
    assert (asked["studies"], asked["instances"], asked["rows"]) == (3, len(shelf.images), {"found": 2})
    done = steps.retrieve(made, asked["retrieval"])
    assert (done["ended"], done["left"]) == ({"complete": 3}, 0)
    assert set(landed(made)) == {one.sop for one in shelf.images}
    result = steps.reconcile(made, asked["retrieval"])
    assert (result["studies"], result["missing"], result["again"]) == ({"complete": 3}, 0, 0)
    assert steps.stage(made)["instances"] == len(shelf.images)

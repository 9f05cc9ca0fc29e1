"""Asked for and sent: an image is the same file either way, so that staging calls one a duplicate, none a conflict."""

from __future__ import annotations

from pathlib import Path

import listen_kit
import pytest
import retrieve_kit as kit
from faulty import options, serving
from pynetdicom import AE, build_context
from test_retrieve_faults import by_accession

from pipeline import steps

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("service", ["c-get", "c-move"])
def test_an_image_is_the_same_file_whichever_way_it_came(service: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs, service)))
        assert asked.fetch()["ended"] == {"complete": 1}
    with listen_kit.here(tmp_path) as run:
        classes = {one.head.SOPClassUID for one in shelf.images}
        contexts = [build_context(uid, listen_kit.EXPLICIT) for uid in sorted(classes)]
        sender = AE(ae_title="CT1").associate("127.0.0.1", run.port, contexts, ae_title="TRE")
        assert {sender.send_c_store(one.dataset).Status for one in shelf.of("ACC1")} == {0}
        sender.release()
    landed = [path.name for path in (tmp_path / "landing").rglob("*.dcm")]
    assert len(landed) == 10 and len(set(landed)) == 5
    assert steps.stage(asked.made)["counts"] == {"duplicate/same_bytes": 5, "pending": 5}

"""Every structured report of the test corpus: what passes of it, and that pydicom reads what comes out."""

import csv
import io
import os
from pathlib import Path

import pydicom
import pytest
import reports_kit as kit

from pipeline.deidentify.content import extract
from pipeline.deidentify.plan import RECIPES
from pipeline.model import Refusal

pytestmark = pytest.mark.corpus
CORPUS = Path(os.environ.get("TRE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
OPENREM, SKIN = "themorlan__openREM/tests/test_files/", "rvbCMTS__PySkinDose/example_data/RDSR/"
# file → items that came in, items that stay
DOSE = {
    OPENREM + "CT-ESR-GE_Optima.dcm": (116, 115),
    OPENREM + "CT-RDSR-GEPixelMed.dcm": (80, 65),
    OPENREM + "CT-RDSR-Philips_BigBore4DCT.dcm": (50, 45),
    OPENREM + "CT-RDSR-Siemens-Continued-1.dcm": (81, 77),
    OPENREM + "CT-RDSR-Siemens-Continued-2.dcm": (81, 77),
    OPENREM + "CT-RDSR-Siemens_Flash-TAP-SS.dcm": (126, 118),
    OPENREM + "CT-RDSR-Toshiba_MultiValSD.dcm": (105, 88),
    OPENREM + "DX-RDSR-Canon_CXDI.dcm": (37, 32),
    OPENREM + "DX-RDSR-Carestream_DRXEvolution.dcm": (165, 152),
    OPENREM + "Dual-RDSR-DX.dcm": (57, 52),
    OPENREM + "Dual-RDSR-RF.dcm": (137, 129),
    OPENREM + "MG-RDSR-GEPristina-2D.dcm": (343, 341),
    OPENREM + "MG-RDSR-Hologic_2D.dcm": (77, 77),
    OPENREM + "NM-CT-RDSR-Siemens.dcm": (81, 75),
    OPENREM + "RF-No-kVp-and-others.dcm": (670, 586),
    OPENREM + "RF-RDSR-Canon-Ultimaxi-mGyDoseAtRP.dcm": (415, 397),
    OPENREM + "RF-RDSR-GE-OECEliteMiniView.dcm": (394, 344),
    OPENREM + "RF-RDSR-GE.dcm": (320, 305),
    OPENREM + "RF-RDSR-Philips_Allura.dcm": (223, 134),
    OPENREM + "RF-RDSR-Siemens-Zee.dcm": (326, 298),
    SKIN + "siemens_axiom_artis.dcm": (828, 761),
    SKIN + "siemens_axiom_example_procedure.dcm": (942, 866),
}
MEASUREMENTS = {
    "ImagingDataCommons__highdicom/data/test_files/sr_document.dcm": (21, 14),
    "QIICR__dcmqi/data/sr-example/sr.dcm": (256, 232),
    "dcmjs-org__dcmjs/examples/data/structured_report.dcm": (50, 37),
    "dcmjs-org__dcmjs/test/sample-sr.dcm": (18, 14),
    "ivmartel__dwv/annotation/tid1500-0/sr-ellipse.dcm": (46, 35),
    "ivmartel__dwv/annotation/tid1500-0/sr-protractor.dcm": (31, 20),
}
REFUSED = "report_not_covered"


def _reports():
    """Yield every file of the corpus that is a structured report."""
    with (CORPUS / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["sop_class"].endswith("SR Storage"):
                yield CORPUS / row["file"]


@pytest.mark.parametrize("rules, expected", [
    ("dose_report", DOSE), ("measurements", MEASUREMENTS), ("mammography_cad", {})])
def test_every_report_that_the_rules_are_for_passes_and_every_other_is_refused(tmp_path, pseudonyms, rules, expected):
    if not CORPUS.is_dir():
        pytest.skip("TRE_CORPUS is not there")
    engine = kit.Engine(tmp_path, kit.compiled(RECIPES / f"{rules}.toml"), pseudonyms)
    found = {}
    for path in _reports():
        name = str(path.relative_to(CORPUS / "dicom"))
        try:
            out = engine(path.read_bytes())
        except Refusal as refusal:
            assert refusal.reason == REFUSED, name
            assert name not in expected
            continue
        assert out.ContentSequence and str(out)
        tally = engine.tally
        found[name] = tally.items, tally.kept
        source = pydicom.dcmread(io.BytesIO(path.read_bytes()))
        assert len(list(kit.walk(source))) == tally.items and len(list(kit.walk(out))) == tally.kept
        rows = extract(engine.raw, engine.result.encoding).to_pylist()
        kept = [row["number"] for row in rows if row["number"]]
        given = [str(i.MeasuredValueSequence[0].get("NumericValue", "")) for i in kit.walk(source)
                 if i.get("MeasuredValueSequence")]
        assert _subset(kept, given), name
        for ds in kit.walk(source):     # no UID of the content, no free text but what the rules list
            if ds.get("ValueType") == "UIDREF" and ds.UID:
                assert str(ds.UID).encode() not in engine.raw
            if ds.get("ValueType") == "TEXT" and ds.ConceptNameCodeSequence[0].CodeValue == "121106":
                assert str(ds.TextValue).encode() not in engine.raw or len(ds.TextValue) < 4
    assert found == expected


def _subset(some, all_of_them):
    """Whether the first stand in the second, in order."""
    rest = iter(all_of_them)
    return all(any(one == other for other in rest) for one in some)

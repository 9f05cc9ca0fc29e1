"""Synthetic structured reports: trees that PS3.3 allows, codes that pydicom knows, figures of the headers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pydicom
import pytest
from pydicom.sr import _concepts_dict
from pydicom.sr.codedict import codes

from pipeline.synthetic import files, reports

# Relationship content constraints: source types → relationship → target types (PS3.3 tables A.35.8-2 and A.35.5-2).
DOSE = {
    ("CONTAINER", "CONTAINS"): "TEXT CODE NUM DATETIME UIDREF PNAME IMAGE COMPOSITE CONTAINER",
    ("CONTAINER", "HAS OBS CONTEXT"): "TEXT CODE DATETIME UIDREF PNAME CONTAINER",
    ("*", "HAS CONCEPT MOD"): "TEXT CODE",
    ("TEXT CODE NUM", "HAS PROPERTIES"): "TEXT CODE NUM DATETIME UIDREF PNAME IMAGE COMPOSITE CONTAINER",
}
CAD = {
    ("CONTAINER", "CONTAINS"): "CODE NUM SCOORD IMAGE CONTAINER TEXT DATE",
    ("IMAGE", "HAS ACQ CONTEXT"): "TEXT CODE DATE TIME NUM",
    ("CONTAINER CODE NUM COMPOSITE", "HAS CONCEPT MOD"): "TEXT CODE",
    ("TEXT CODE NUM", "HAS PROPERTIES"): "CONTAINER TEXT CODE NUM DATE IMAGE SCOORD UIDREF",
    ("CODE NUM", "INFERRED FROM"): "CODE NUM SCOORD CONTAINER TEXT IMAGE",
    ("SCOORD", "SELECTED FROM"): "IMAGE",
}
# Units that PS3.16's templates name and pydicom's dictionary of UCUM lacks.
UNITS = {"mGy", "uA.s", "mA.s", "mA", "N"}
KNOWN = {scheme: {value for named in _concepts_dict.concepts[scheme].values() for value in named}
         for scheme in ("DCM", "SCT", "UCUM")}
QUIRKS: tuple[reports.Quirk, ...] = ("", "disagrees", "unit", "zero", "verified", "comment")


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


def walk(node: pydicom.Dataset) -> Iterator[tuple[pydicom.Dataset, pydicom.Dataset]]:
    """Yield (parent, child) of every content item below."""
    for child in node.get("ContentSequence", []):
        yield node, child
        yield from walk(child)


def events(ds: pydicom.Dataset) -> list[pydicom.Dataset]:
    return [node for node in ds.ContentSequence
            if node.ConceptNameCodeSequence[0].CodeValue == codes.DCM.IrradiationEventXRayData.value]


def number(node: pydicom.Dataset, concept: Any) -> tuple[float, str]:
    (found,) = [c for c in node.ContentSequence
                if c.ValueType == "NUM" and c.ConceptNameCodeSequence[0].CodeValue == concept.value]
    measured = found.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


def shots(*doses_dgy: str) -> tuple[reports.Shot, ...]:
    header = files.mammogram_dataset(manufacturer="SIEMENS")
    found = []
    for n, dose in enumerate(doses_dgy):
        values = {e.keyword: str(e.value) for e in header if e.VR in ("DS", "IS", "CS") and e.keyword}
        found.append(reports.Shot(f"2.25.{n + 1}", f"2.25.{n + 100}", "1.2.840.10008.5.1.4.1.1.1.2", "RL"[n % 2], "CC",
                                  "20180614101530", values | {"OrganDose": dose}))
    return tuple(found)


def mark(image: str = "2.25.100") -> reports.Mark:
    return reports.Mark(image, "1.2.840.10008.5.1.4.1.1.1.2", "R", "CC", "calcification", 12.5, 40.0, 73, 61)


SOME = [files.dose_report(shots=shots("0.0142", "0.0151"), quirk=quirk) for quirk in QUIRKS] + [
    files.dose_report(), files.cad(), files.cad(shots=shots("0.01"), marks=(mark(), mark()))]


@pytest.mark.parametrize("data", SOME)
def test_every_relationship_is_one_that_the_standard_allows(data: bytes) -> None:
    ds = read(data)
    allowed = DOSE if ds.SOPClassUID.name.startswith("X-Ray") else CAD
    pairs = list(walk(ds))
    assert pairs
    for parent, child in pairs:
        targets = [targets for (sources, relation), targets in allowed.items() if relation == child.RelationshipType
                   and (sources == "*" or parent.ValueType in sources.split())]
        assert any(child.ValueType in t.split() for t in targets), (
            parent.ValueType, child.RelationshipType, child.ValueType)


@pytest.mark.parametrize("data", SOME)
def test_every_code_is_in_pydicoms_dictionaries(data: bytes) -> None:
    ds = read(data)
    checked = 0
    for _, node in walk(ds):
        for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence"):
            for code in node.get(keyword, []):
                assert code.CodeValue in KNOWN[code.CodingSchemeDesignator], code.CodeMeaning
                assert "\u200b" not in code.CodeMeaning
                checked += 1
        for measured in node.get("MeasuredValueSequence", []):
            unit = measured.MeasurementUnitsCodeSequence[0]
            assert unit.CodingSchemeDesignator == "UCUM" and unit.CodeValue in KNOWN["UCUM"] | UNITS
    assert checked > 10


def test_a_dose_report_says_what_the_headers_say_in_its_own_units() -> None:
    given = shots("0.0142", "0.0151", "0.0100")
    ds = read(files.dose_report(shots=given))
    assert ds.VerificationFlag == "UNVERIFIED" and len(events(ds)) == 3
    for shot, event in zip(given, events(ds), strict=True):
        h = shot.header
        assert number(event, codes.DCM.AverageGlandularDose) == (pytest.approx(float(h["OrganDose"]) * 100), "mGy")
        assert number(event, codes.DCM.KVP) == (float(h["KVP"]), "kV")
        assert number(event, codes.DCM.Exposure) == (float(h["ExposureInuAs"]), "uA.s")
        assert number(event, codes.DCM.CompressionThickness) == (float(h["BodyPartThickness"]), "mm")
        assert number(event, codes.DCM.CompressionForce) == (float(h["CompressionForce"]), "N")
        assert number(event, codes.DCM.CompressionPressure) == (float(h["CompressionPressure"]), "kPa")
        assert shot.event in [c.UID for c in event.ContentSequence if c.ValueType == "UIDREF"]
    (total,) = [c for c in ds.ContentSequence if c.ConceptNameCodeSequence[0].CodeValue == "113702"]
    sides = {c.ContentSequence[0].ConceptCodeSequence[0].CodeMeaning: float(c.MeasuredValueSequence[0].NumericValue)
             for c in total.ContentSequence if c.ValueType == "NUM"}
    assert sides == {"Left breast": 1.51, "Right breast": 2.42}


def test_what_is_wrong_with_a_report_is_wrong_as_it_was_asked_for() -> None:
    def made(quirk: reports.Quirk) -> pydicom.Dataset:
        return read(files.dose_report(shots=shots("0.0142", "0.0151"), quirk=quirk))

    first, last = events(made("disagrees"))
    assert number(first, codes.DCM.AverageGlandularDose)[0] == pytest.approx(2.13)
    assert number(first, codes.DCM.KVP)[0] == number(last, codes.DCM.KVP)[0] + 2
    first, last = events(made("zero"))
    assert number(last, codes.DCM.AverageGlandularDose) == (0.0, "mGy") != number(first, codes.DCM.AverageGlandularDose)
    first, last = events(made("unit"))
    assert number(first, codes.DCM.CompressionThickness)[1] == "N" and number(first, codes.DCM.Exposure)[1] == "mA.s"
    assert number(last, codes.DCM.CompressionThickness)[1] == "mm" and number(last, codes.DCM.Exposure)[1] == "uA.s"
    signed = made("verified")
    assert signed.VerificationFlag == "VERIFIED"
    assert signed.VerifyingObserverSequence[0].VerifyingObserverName == "WINTERBOTTOM^HESTER"
    texts = [node.TextValue for _, node in walk(made("comment")) if node.ValueType == "TEXT"]
    assert any("ARAMINTA QUILLFEATHER" in text for text in texts)


def test_a_cad_report_points_at_its_images_with_probabilities() -> None:
    ds = read(files.cad(shots=shots("0.01", "0.02"), marks=(mark(),)))
    nodes = [node for _, node in walk(ds)]
    (finding,) = [n for n in nodes if n.get("ConceptNameCodeSequence") and n.ValueType == "CODE"
                  and n.ConceptNameCodeSequence[0].CodeMeaning == "Single Image Finding"]
    assert finding.ConceptCodeSequence[0].CodeMeaning == "Calcification Cluster"
    assert number(finding, codes.DCM.ProbabilityOfCancer) == (73.0, "%")
    (place,) = [n for n in nodes if n.ValueType == "SCOORD"]
    assert list(place.GraphicData) == [12.5, 40.0]
    library = {n.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for n in ds.ContentSequence[0].ContentSequence}
    assert library == {"2.25.100", "2.25.101"}
    assert place.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID in library

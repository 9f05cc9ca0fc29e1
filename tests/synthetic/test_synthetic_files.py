"""Synthetic files: the same bytes each time, readable by pydicom, stating what they were asked to."""

from __future__ import annotations

import io
import subprocess
import sys

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthetic import encode, files, quick
from pipeline.synthetic.headers import VENDORS

KINDS = ("mammogram", "tomosynthesis", "ct", "secondary_capture", "dose_report", "cad")


def read(data: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_with_another_hash_seed_makes_the_same_bytes(kind: str) -> None:
    program = f"import hashlib; from pipeline.synthetic import files; print(hashlib.sha256(files.{kind}()).hexdigest())"
    digests = {
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True,
                       check=True).stdout for seed in ("1", "2")}
    assert len(digests) == 1


@pytest.mark.parametrize("syntax", sorted(encode.SYNTAXES))
def test_every_transfer_syntax_decodes_to_the_image_that_was_drawn(syntax: str) -> None:
    ds = read(files.mammogram(transfer_syntax=syntax, laterality="R", rows=33, columns=47))
    assert ds.file_meta.TransferSyntaxUID == encode.SYNTAXES[syntax]
    drawn = encode.breast(33, 47, "R", ds.SOPInstanceUID, 0, eight_bit=ds.BitsAllocated == 8)
    image = ds.pixel_array
    assert image.shape == (33, 47)
    assert not image[:, 0].any() or syntax == "jpeg"        # air at the left of a right breast
    if syntax != "jpeg":
        assert image.astype(image.dtype.newbyteorder("<")).tobytes() == drawn           # lossless


@settings(max_examples=40, deadline=None)
@given(view=st.sampled_from(["CC", "MLO"]), laterality=st.sampled_from("LR"), maker=st.sampled_from(sorted(VENDORS)),
       syntax=st.sampled_from(["explicit", "implicit"]), kvp=st.integers(22, 40), number=st.integers(0, 10**9))
def test_a_mammogram_states_what_it_was_asked_to(
    view: str, laterality: str, maker: str, syntax: str, kvp: int, number: int
) -> None:
    vendor = VENDORS[maker]
    ds = read(files.mammogram(
        view=view, laterality=laterality, manufacturer=vendor.manufacturer, model=vendor.model, transfer_syntax=syntax,
        patient_id=f"L{number}", serial="SN-1", study_date="20190203", KVP=str(kvp), PatientSex=None,
        rows=8, columns=6))
    assert (ds.ImageLaterality, ds.ViewPosition, ds.KVP, ds.PatientID) == (laterality, view, kvp, f"L{number}")
    code = ds.ViewCodeSequence[0]
    assert code.CodeValue in {"CC": ("R-10242", "399162004"), "MLO": ("R-10226", "399368009")}[view]
    assert code.CodingSchemeDesignator == ("SRT" if code.CodeValue.startswith("R-") else "SCT")
    assert (ds.Manufacturer, ds.ManufacturerModelName, ds.StudyDate) == (vendor.manufacturer, vendor.model, "20190203")
    assert "PatientSex" not in ds
    assert len(ds.PixelData) == 8 * 6 * 2
    assert float(ds.CompressionForce) == 92.0
    # dGy in the header; glandular dose is below what enters
    assert float(ds.OrganDose) * 100 < float(ds.EntranceDoseInmGy)


def test_what_an_audit_reads_is_there_and_so_are_the_identities() -> None:
    ds = read(files.mammogram(nhs_number="9990000018"))
    audit = [
        "KVP", "ExposureInuAs", "Exposure", "ExposureTime", "XRayTubeCurrent", "AnodeTargetMaterial", "FilterMaterial",
        "BodyPartThickness", "CompressionForce", "PaddleDescription", "OrganDose", "EntranceDoseInmGy",
        "HalfValueLayer",
        "PresentationIntentType", "ImageLaterality", "ExposureControlMode", "PositionerPrimaryAngle", "PatientAge",
        "DeviceSerialNumber", "SoftwareVersions", "OperatorsName", "Grid"]
    assert [keyword for keyword in audit if keyword not in ds or ds[keyword].is_empty] == []
    assert ds.PatientAge == "057Y"
    nested = [e.tag for e in ds.iterall()]
    assert len(nested) > len(list(ds))
    raw = files.mammogram(nhs_number="9990000018").decode("latin-1")
    missing = [s for s in files.sentinels(nhs_number="9990000018") if s not in raw]
    assert missing == []
    assert ds.private_block(0x0045, "GEMS_SENO_02")[0x49].value == 49.2
    assert "QUILLFEATHER" in str(ds.private_block(0x7053, "SYNTHETIC NEST")[0x10].value[0].PatientName)


def test_nothing_is_planted_when_it_is_not_wanted() -> None:
    raw = files.mammogram(planted=False, private=False, patient_name="X^Y").decode("latin-1")
    assert "Nettlefield" not in raw
    assert not any(e.tag.is_private for e in read(files.mammogram(private=False)))


def test_uids_follow_from_what_they_name() -> None:
    first, second = (read(files.mammogram(view=view)) for view in ("CC", "MLO"))
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.SeriesInstanceUID == second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert read(files.mammogram(seed=2)).SOPInstanceUID != second.SOPInstanceUID
    assert read(files.mammogram(patient_id="B2")).StudyInstanceUID != first.StudyInstanceUID
    found = files.uids("mammogram")
    assert {str(second.SOPInstanceUID), str(second.SourceImageSequence[0].ReferencedSOPInstanceUID)} <= found
    assert all(len(u) <= 64 for u in found)


def test_identities_planted_in_streams_preamble_and_overlay() -> None:
    for syntax in ("jpeg", "jpeg2000"):
        planted = files.mammogram(transfer_syntax=syntax, stream_comment=b"ARAMINTA", patient_name="A^B", planted=False)
        assert b"ARAMINTA" in planted
        assert read(planted).pixel_array.shape == (64, 48)
        bare = files.mammogram(transfer_syntax=syntax, patient_name="A^B", planted=False)
        assert b"JFIF" not in bare and b"OpenJPEG" not in bare
    data = files.mammogram(preamble=b"MZ hello", overlay=True)
    assert data[:8] == b"MZ hello" and data[128:132] == b"DICM"
    assert len(read(data)[0x60003000].value) == 64 * 48 // 8


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "rle", "jpeg", "jpeg2000"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_quick_writer_writes_what_pydicom_writes(kind: str, syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"transfer_syntax": syntax, "overlay": True, "nhs_number": "9990000018", "manufacturer": "SIEMENS"}
    quickly = getattr(files, kind)(**options)

    def not_plain(*_: object) -> bytes:
        raise quick.NotPlain

    monkeypatch.setattr(quick, "data_set", not_plain)
    assert getattr(files, kind)(**options) == quickly


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="laterallity"):
        files.mammogram(laterallity="L")


def test_tomosynthesis_has_a_functional_group_and_a_frame_each() -> None:
    ds = read(files.tomosynthesis(frames=5))
    assert ds.pixel_array.shape == (5, 64, 48)
    assert len(ds.PerFrameFunctionalGroupsSequence) == 5

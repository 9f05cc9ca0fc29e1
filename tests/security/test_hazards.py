"""Hostile and broken DICOM, one named test a hazard, where no other test has it: what a limit stops, and what comes
after admission lets a file in."""

from __future__ import annotations

import struct
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import fuzz_kit as kit
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from pipeline.dicom.inspect import inspect
from pipeline.isolate import Limits, each
from pipeline.model import Reason
from pipeline.synthetic import files, hostile

LIMITS = Limits(seconds=20, megabytes=900)


def limited(*objects: bytes, folder: Path, limits: Limits = LIMITS) -> list[str]:
    """Examine objects in a worker under limits; return their fates."""
    def work(group: list[bytes], clock: Any, without: Any) -> list[str]:
        fates = []
        for number, data in enumerate(group):
            clock.start(number, 0)
            try:
                fates.append("over its limits" if number in without else kit.examine(data, frozenset(), folder))
            except MemoryError:
                fates.append("over its limits")
        return fates

    with closing(each([list(objects)], work, limits=limits)) as done:
        ((_, fates),) = done
    return fates


def test_every_hostile_file_stays_within_its_limits(tmp_path: Path) -> None:
    """Read, and rewritten without regard to what admission said: neither nesting nor a bomb gets far."""
    kit.plans()
    fates = limited(*(one.data for one in hostile.hostile()), folder=tmp_path)
    assert "over its limits" not in fates
    assert {"nesting_too_deep", "too_large", "engine pixel_geometry", "passed"} <= set(fates)


def test_a_megabyte_that_inflates_to_a_gigabyte(tmp_path: Path) -> None:
    bomb = hostile.raw(seed="bomb", syntax=DeflatedExplicitVRLittleEndian, squeeze=hostile.bomb(1024))
    assert len(bomb) < 1_500_000
    assert limited(bomb, folder=tmp_path) == ["too_large"]


def test_rle_that_would_decode_to_four_gigabytes(tmp_path: Path) -> None:
    """Geometry is checked before anything is decoded: 48 MB of memory is enough to say no."""
    huge = files.mammogram(rows=4, columns=4, transfer_syntax="rle", Rows=65535, Columns=65535)
    kit.plans()
    assert limited(huge, folder=tmp_path, limits=Limits(seconds=20, megabytes=48)) == ["engine pixel_geometry"]


@pytest.mark.parametrize("defined", [True, False])
def test_nesting_of_thousands(defined: bool, tmp_path: Path) -> None:
    """A hundredfold of what ends a recursive reader; found in time that grows with the file, not with its square."""
    assert limited(hostile.raw(hostile.nested(3_000, defined)), folder=tmp_path) == ["nesting_too_deep"]


def test_an_object_of_160_000_elements(tmp_path: Path) -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 20) + hostile.text(0x00080100, "SH", "1") + hostile.text(
        0x00080104, "LO", "2")
    many = hostile.element(0x0040A730, "SQ", item * 80_000)
    path = tmp_path / "many.dcm"
    path.write_bytes(hostile.raw(many))
    found = inspect(path, kit.MOST)
    assert found.refusal is None
    assert found.n_elements > 160_000
    assert limited(path.read_bytes(), folder=tmp_path) in (["passed"], ["engine unsupported_structure"])


def test_implicit_vr_hides_no_book_in_a_name(tmp_path: Path) -> None:
    """A name of 70,000 letters fits implicit VR alone; it is no name, and not searched for a word at a time."""
    from pipeline.deidentify import second_look
    from pipeline.deidentify.engine import rewrite
    from pipeline.deidentify.shard import collect
    from pipeline.model import Refusal

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = files.mammogram(rows=4, columns=4, transfer_syntax="implicit", patient_name="ABCDE " * 12_000)
    (tmp_path / "in.dcm").write_bytes(data)
    result = rewrite(tmp_path / "in.dcm", tmp_path / "out.dcm", kit.plans()["mammography"], kit.SUBJECT)
    with pytest.raises(Refusal) as refused:
        collect(result.source, second_look.Collected())
    assert (refused.value.reason, refused.value.tag) == (Reason.VALUE_MALFORMED, 0x00100010)


def test_no_path_is_made_of_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_fuzz import walk

    landed = {"good0.dcm": files.mammogram(rows=4, columns=4, planted=False, patient_id="GOOD", seed=1,
                                           patient_name="GOODFELLOW^ROBIN")}
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    for keyword in (*uids, "PatientID", "AccessionNumber", "StudyID", "DeviceSerialNumber", "IssuerOfPatientID"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            landed[f"{keyword}.dcm"] = files.mammogram(**{
                "rows": 4, "columns": 4, "planted": False, "seed": keyword, "patient_id": f"ID{keyword}",
                "MediaStorageSOPInstanceUID": "1.2.3", keyword: "../../../escape"})
    images, fates = walk(tmp_path / "site", landed, monkeypatch)
    assert (len(images), fates["rejected/invalid_uid"]) == (len(landed) - len(uids), len(uids))
    assert not [path for path in tmp_path.parent.rglob("*") if "escape" in path.name]
    assert {path.name for path in tmp_path.iterdir()} == {"site"}


def test_a_mammography_object_without_pixels_that_is_a_secondary_capture(tmp_path: Path) -> None:
    data = files.secondary_capture(pixels=False, Modality="MG")
    assert limited(data, folder=tmp_path) == ["engine pixels_need_cleaning"]


@pytest.mark.parametrize("start", [b"MZ\x90\0", b"\x7fELF", b"PK\3\4", b"II*\0"])
def test_no_program_or_archive_stays_in_the_preamble(start: bytes, tmp_path: Path) -> None:
    data = files.mammogram(rows=4, columns=4, preamble=start + b"QUILLFEATHER")
    assert limited(data, folder=tmp_path) == ["passed"]
    assert (tmp_path / "out.dcm").read_bytes()[:128] == bytes(128)


@pytest.mark.skipif(not (kit.CORPUS / "dicom").is_dir(), reason="the corpus is not here: set TRE_CORPUS")
@pytest.mark.corpus
def test_every_file_of_the_corpus_within_its_limits(tmp_path: Path) -> None:
    kit.plans()
    paths = [path for path in kit.landed(kit.CORPUS / "dicom") if path.stat().st_size < 8_000_000]
    fates = limited(*(path.read_bytes() for path in paths), folder=tmp_path)
    assert len(fates) == len(paths) > 300
    assert "over its limits" not in fates
    assert fates.count("passed") >= 10

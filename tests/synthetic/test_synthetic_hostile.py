"""Hostile files are as hostile as they say: what pydicom does with them, and what admission must say of them."""

from __future__ import annotations

import io
import stat
import warnings
from pathlib import Path

import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from pipeline.dicom.inspect import inspect
from pipeline.model import REASONS, Reason, Status
from pipeline.synthetic import hostile

TABLE = {one.name: one for one in hostile.hostile()}
POLICY = {Reason.SOP_CLASS_NOT_ELIGIBLE}
ADMISSION = [one for one in TABLE.values() if one.status is Status.REJECTED and one.reason not in POLICY]


def read(name: str) -> pydicom.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(TABLE[name].data))


def test_every_fate_is_one_that_the_ledger_knows() -> None:
    for one in TABLE.values():
        if one.reason is None:
            assert one.status is Status.PENDING
        else:
            assert REASONS[one.reason][0] is one.status, one.name


def test_same_call_same_bytes_and_small() -> None:
    assert hostile.hostile() == list(TABLE.values())
    assert sum(len(one.data) for one in TABLE.values()) < 1_000_000


@pytest.mark.parametrize("name", ["readme.txt", "empty.dcm"])
def test_not_dicom(name: str) -> None:
    with pytest.raises((InvalidDicomError, EOFError)):
        read(name)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_pydicom_accepts_what_must_not_pass() -> None:
    assert "PatientName" in read("truncated_native.dcm")        # cut short, and no word about it
    assert len(read("truncated_encapsulated.dcm")) == 0
    assert "PatientName" not in read("claims_4_gb.dcm")         # swallowed
    assert "PatientName" not in read("swallows_name.dcm")
    assert read("bytes_after_end.dcm")
    assert read("dot_dot_uid.dcm").SOPInstanceUID == "../../../../tmp/x"
    assert bytes(read("elf_preamble.dcm").preamble)[:4] == b"\x7fELF"


def test_deep_nesting() -> None:
    with pytest.raises(RecursionError):
        read("nested_undefined_200.dcm")
    depth, level = 0, read("nested_defined_250.dcm")
    while "ContentSequence" in level and level.ContentSequence:
        depth, level = depth + 1, level.ContentSequence[0]
    assert depth >= 249


def test_a_name_hides_in_the_stream() -> None:
    for name in ("jpeg_comment.dcm", "jpeg2000_comment.dcm", "jpeg_after_end.dcm"):
        assert hostile.HIDDEN in read(name).PixelData


@pytest.mark.parametrize("one", [pytest.param(one, id=one.name) for one in ADMISSION])
def test_admission_says_the_reason(one: hostile.Hostile, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(one.data)
    found = inspect(tmp_path / "x", 10**9)
    assert found.refusal is not None
    assert found.refusal.reason is one.reason


@pytest.mark.parametrize("one", [o for o in TABLE.values() if o not in ADMISSION], ids=lambda one: one.name)
def test_admission_lets_the_others_through(one: hostile.Hostile, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(one.data)
    found = inspect(tmp_path / "x", 10**9)
    assert found.refusal is None
    if one.reason is not Reason.PERSON_ID_MISSING:
        assert found.patient_id == "LID4471902"


def test_twins_and_others() -> None:
    assert TABLE["twin_a.dcm"].data == TABLE["twin_b.dcm"].data
    assert TABLE["other_a.dcm"].data != TABLE["other_b.dcm"].data
    assert read("other_a.dcm").SOPInstanceUID == read("other_b.dcm").SOPInstanceUID


def test_written_with_a_link_and_a_pipe_twice(tmp_path: Path) -> None:
    assert hostile.write(tmp_path) == hostile.write(tmp_path)
    assert (tmp_path / "link.dcm").is_symlink()
    assert stat.S_ISFIFO((tmp_path / "pipe.dcm").lstat().st_mode)
    for name in ("link.dcm", "pipe.dcm"):
        refusal = inspect(tmp_path / name, 10**9).refusal
        assert refusal is not None and refusal.reason is Reason.NOT_A_REGULAR_FILE

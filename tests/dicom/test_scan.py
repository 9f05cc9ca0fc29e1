"""The element scanner against pydicom, and against bytes that lie about their lengths."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dicom.file import CHUNK, scan
from pipeline.dicom.inspect import inspect
from pipeline.dicom.scan import MAX_DEPTH
from pipeline.model import Reason, Refusal
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled

LIMIT = 1 << 33


def scanned(path: Path):
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        return scan(fd, size, os.pread(fd, CHUNK, 0))
    finally:
        os.close(fd)


def test_the_scanner_sees_what_pydicom_sees() -> None:
    """Every element at the top, its VR and its raw bytes, in every bundled file that is whole."""
    compared = 0
    for _, path in bundled():
        if inspect(path, LIMIT).refusal:
            continue
        found = scanned(path)
        theirs = pydicom.dcmread(path, force=True)
        assert theirs.file_meta.get("TransferSyntaxUID", found.transfer_syntax) == found.transfer_syntax
        ours = [tag for tag, *_ in found.elements] + ([0x7FE00010] if found.pixel else [])
        ours += [tag for tag, *_ in found.tail_elements]
        assert ours == list(map(int, theirs.keys())), path.name
        for tag, _, _, value, end in found.elements:
            raw = theirs.get_item(tag)
            if getattr(raw, "is_raw", False) and isinstance(raw.value, bytes) and raw.length != 0xFFFFFFFF:
                assert raw.value == found.head[value:end], (path.name, hex(tag))
        compared += 1
    assert compared >= 50


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big", "deflated"])
def test_count_of_elements_at_every_depth(syntax: str, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(files.mammogram(transfer_syntax=syntax))

    def count(dataset: pydicom.Dataset) -> int:
        return sum(1 + (sum(map(count, e.value)) if e.VR == "SQ" else 0) for e in dataset)

    found = inspect(path, LIMIT)
    assert found.refusal is None
    assert found.n_elements == count(pydicom.dcmread(path))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_prefix_of_a_file_is_refused(data: st.DataObject) -> None:
    whole = files.mammogram()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(whole[:cut])
        found = inspect(path, LIMIT)
    assert found.size == cut
    # a cut between two elements before pixel data leaves a shorter file that is whole: without its pixels
    if found.refusal is None:
        assert cut < len(whole) - 64 * 48 * 2
    else:
        assert found.refusal.reason in {
            Reason.EMPTY, Reason.NOT_DICOM, Reason.TRUNCATED, Reason.LENGTH_BEYOND_END, Reason.MISSING_UID}


@given(st.binary(min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_bytes_behind_the_end_are_refused(tail: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(files.mammogram() + tail)
        found = inspect(path, LIMIT)
    assert found.refusal is not None
    assert found.refusal.reason is Reason.LEFT_OVER_BYTES


@given(st.integers(0, 1 << 30), st.integers(0, 255))
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_never_raises(where: int, value: int) -> None:
    whole = bytearray(files.mammogram())
    whole[where % (len(whole) - 64 * 48 * 2)] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.dcm"
        path.write_bytes(whole)
        inspect(path, LIMIT)


def _nested(depth: int, undefined: bool) -> bytes:
    inner = b""
    for _ in range(depth):
        if undefined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            inner = struct.pack("<HH2sHI", 0x7FDD, 0x1010, b"SQ", 0, 0xFFFFFFFF) + item
            inner += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHI", 0x7FDD, 0x1010, b"SQ", 0, len(item)) + item
    return inner


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize("depth", [1, 5, MAX_DEPTH, MAX_DEPTH + 1, 250, 5000])
def test_depth(depth: int, undefined: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(files.mammogram(pixels=False) + _nested(depth, undefined))
    found = inspect(path, LIMIT)
    expected = None if depth <= MAX_DEPTH else Reason.NESTING_TOO_DEEP
    assert (found.refusal.reason if found.refusal else None) is expected


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    target = tmp_path / "a.dcm"
    target.write_bytes(files.mammogram())
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    link.symlink_to(target)
    os.mkfifo(fifo)
    for path in (link, fifo, tmp_path):
        found = inspect(path, LIMIT)
        assert found.refusal is not None
        assert found.refusal.reason is Reason.NOT_A_REGULAR_FILE


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(files.mammogram())
    found = inspect(path, 1000)
    assert found.refusal is not None
    assert found.refusal.reason is Reason.TOO_LARGE
    assert len(found.sha256) == 32


def test_a_header_longer_than_one_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(files.mammogram(ImageComments="x" * 3_000_000))
    assert inspect(path, LIMIT).refusal is None


def test_refusal_says_a_tag_and_no_value() -> None:
    assert str(Refusal(Reason.VALUE_MALFORMED, 0x00100010)) == "value_malformed at (0010,0010)"

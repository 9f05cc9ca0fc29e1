"""The comparison with deid notices an engine that was made worse, each time at the element that it is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deid_generator import EXPLICIT, Node, file
from deid_sets import compare, sets

from pipeline.deidentify import dates
from pipeline.deidentify.elements import Work

FRAME: list[Node] = [
    (0x00189151, "DT", b"20200131101500.5+0100"), (0x00081070, "PN", b"Doe^Jane"), (0x00209056, "SH", b"1")]
NODES: list[Node] = [
    (0x0008002A, "DT", b"20200131101500.5+0100"), (0x00080020, "DA", b"20200131"), (0x00100030, "DA", b"19600101"),
    (0x00090010, "LO", b"SOMEBODY"), (0x00091001, "LO", b"Doe^Jane"),
    (0x52009230, "SQ", [[(0x00209111, "SQ", [FRAME])]])]


def everything_inside(self: Work, element: Any, buf: bytes, encoding: Any, depth: int) -> bytes:
    """A kept sequence shields what is in it."""
    return buf[element[2]:element[4]]


def every_private(self: Work, elements: list[Any], buf: bytes, encoding: Any) -> list[tuple[int, bytes]]:
    """A private element that no rule names stays."""
    return [(tag, buf[start:end]) for tag, _, start, _, end in elements if tag >> 16 & 1]


def with_its_time(value: bytes, days: int, seconds: int | None = None) -> bytes:
    """A date and time moves, and its time stays."""
    return REAL(value, days, 0)


REAL = dates.shift_dt


@pytest.mark.parametrize(("which", "where", "name", "worse", "shows"), [
    ("enhanced", Work, "sequence", everything_inside,
     {"52009230[0].00209111[0].00081070", "52009230[0].00209111[0].00189151"}),
    ("mr", Work, "_private", every_private, {"00090010", "00091001"}),
    ("enhanced", dates, "shift_dt", with_its_time, {"0008002A", "52009230[0].00209111[0].00189151"}),
], ids=["a nested rule is skipped", "a private element stays", "the time stays in DT"])
def test_what_is_worse_shows(
    which: str, where: Any, name: str, worse: Callable[..., Any], shows: set[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    path = tmp_path / "in.dcm"
    one = sets()[which]
    path.write_bytes(file(min(one.sop_classes), EXPLICIT, "", [], False, NODES).data)
    assert [found for found in compare(path, one) if not found.number] == []
    monkeypatch.setattr(where, name, worse)
    assert {found.path for found in compare(path, one) if not found.number} >= shows


def test_private_elements_that_deid_alone_keeps(tmp_path: Path) -> None:
    """One of a VR that nobody can read, and one whose creator is spelled in other case, as converters write it."""
    one = sets()["mr"]
    path = tmp_path / "in.dcm"
    path.write_bytes(file(min(one.sop_classes), EXPLICIT, "", [], False, [
        (0x20010010, "LO", b"Philips Imaging DD 001"), (0x20011003, "UN", b"\0\0\x7a\x44"), (0x20011004, "CS", b"I "),
        (0x20050010, "LO", b"PHILIPS MR IMAGING DD 001"), (0x2005100D, "FL", b"\0\0\x7a\x44")]).data)
    assert {(found.path, found.number) for found in compare(path, one) if found.number != 1} == {
        ("20010010", 6), ("20011003", 7), ("2005100D", 12)}


def test_a_private_element_in_a_sequence_that_stands_as_un(tmp_path: Path) -> None:
    one = sets()["mammography"]
    path = tmp_path / "in.dcm"
    inside: list[Node] = [(0x00450010, "LO", b"GEMS_SENO_02"), (0x00451049, "DS", b"51.5"), (0x00280030, "DS", b"1\\1")]
    for vr, numbers in (("SQ", [("[0].00450010", 6)]), ("UN", [("[0].00451049", 13)])):
        path.write_bytes(file(min(one.sop_classes), EXPLICIT, "", [], False, [(0x00289110, vr, [inside])]).data)
        assert [(found.path[8:], found.number) for found in compare(path, one) if found.number != 1] == numbers

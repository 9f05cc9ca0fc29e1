"""The engine against deid on data sets that nobody thought of, for every recipe set."""

from __future__ import annotations

from pathlib import Path

import pytest
from deid_generator import Made, made
from deid_sets import Tally, sets
from hypothesis import HealthCheck, given, settings

# Why a generated file is not compared: what the engine refuses, and values of a wrong length, on which pydicom raises
# under deid.
REASONS = {"deid: BytesLengthException", *(f"engine: {reason}" for reason in (
    "charset_unsupported", "element_repeated", "pixel_geometry", "pixels_need_cleaning", "unsupported_structure",
    "value_malformed", "vr_mismatch"))}


def put_through(name: str, examples: int, path: Path, *, always_the_same: bool = False) -> Tally:
    tally = Tally()
    one = sets()[name]

    @settings(max_examples=examples, deadline=None, derandomize=always_the_same, database=None,
              suppress_health_check=list(HealthCheck))
    @given(made(one))
    def agree(file: Made) -> None:
        path.write_bytes(file.data)
        before = len(tally.faults)
        tally.file(path, one, keep_times=file.keep_times)
        assert tally.faults[before:] == []

    agree()
    return tally


@pytest.mark.parametrize("name", sorted(sets()))
def test_generated(name: str, tmp_path: Path) -> None:
    tally = put_through(name, 8, tmp_path / "made.dcm", always_the_same=True)
    tally.check({name: 4}, REASONS)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(sets()))
def test_generated_by_the_hundred(name: str, tmp_path: Path) -> None:
    tally = put_through(name, 300, tmp_path / "made.dcm")
    tally.check({name: 200}, REASONS)

"""The golden set: the bytes that come out of the shipped recipes are those that were accepted."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from infra import golden


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return golden.make()


def test_outputs_are_the_accepted_ones(now: dict[str, Any]) -> None:
    lines = golden.differences(golden.load(), now)
    assert not lines, "\n".join([*lines, golden.RENEW])


def test_it_is_small_and_covers_every_set(now: dict[str, Any]) -> None:
    assert golden.GOLDEN.stat().st_size < 200_000
    assert set(golden.load()["sets"]) == {" + ".join(p.name for p in paths) for paths in golden.trial.shipped()}
    assert all(len(objects) >= 1 for objects in now["sets"].values())


def test_a_change_is_told_by_attribute(now: dict[str, Any]) -> None:
    other = copy.deepcopy(now)
    name = "base.dicom + ct.dicom"
    elements = other["sets"][name]["ct"]
    elements["00100010"] = "0" * 8
    elements["00080080"] = "1" * 8
    del elements["00180060"]
    other["versions"]["pydicom"] = "4.0"
    assert golden.differences(now, other) == [
        f"pydicom: accepted under {now['versions']['pydicom']}, now 4.0",
        f"{name}, ct: InstitutionName added, PatientName changed, KVP gone"]

"""The engine against deid, on files that deid survives: equal but for the numbered differences in deid_runner."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from deid_runner import differences, run_deid

from pipeline.deidentify.engine import Subject, rewrite
from pipeline.deidentify.keys import Key
from pipeline.deidentify.linter import read
from pipeline.deidentify.pixels import ACQUIRED
from pipeline.deidentify.plan import RECIPES, Plan, compile_rules
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.model import Refusal
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled

SETS = {"mg": ["base.dicom", "mammography.dicom"], "ct": ["base.dicom", "ct.dicom"]}
# Their recipe moves DT, of which the engine takes the time off and deid does not (4).
MULTI_FRAME = {f"1.2.840.10008.5.1.4.1.1.{n}" for n in ("2.1", "2.2", "4.1", "4.4")}
CORPUS = Path(os.environ.get("TRE_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: compile_rules(read([RECIPES / f for f in names]), keep_times=False) for name, names in SETS.items()}


@pytest.fixture(scope="module")
def subject() -> Subject:
    pseudonyms = Pseudonyms(Key(b"d" * 32, "differential"))
    return Subject(pseudonyms.person("HOSP-A", "1"), pseudonyms, -77, 0, "HOSP-A")


def compare(
    source: Path, which: str, plans: dict[str, Plan], subject: Subject, tmp_path: Path
) -> list[tuple[str, str]]:
    target = tmp_path / "ours.dcm"
    target.unlink(missing_ok=True)
    rewrite(source, target, plans[which], subject)
    out = tmp_path / "deid"
    out.mkdir(exist_ok=True)
    deids = run_deid(source, [RECIPES / name for name in SETS[which]], subject, out)
    ours = pydicom.dcmread(target)
    return [(f"{tag:08X}", why) for tag, why in differences(ours, deids, plans[which])]


@pytest.mark.parametrize("options", [{}, {"view": "CC", "laterality": "R", "manufacturer": "HOLOGIC, Inc."},
                                     {"transfer_syntax": "implicit", "private": False},
                                     {"birth_date": None}, {"operator": None, "serial": None}], ids=str)
def test_a_mammogram(options: dict[str, object], plans: dict[str, Plan], subject: Subject, tmp_path: Path) -> None:
    source = tmp_path / "in.dcm"
    source.write_bytes(files.mammogram(**options))
    assert compare(source, "mg", plans, subject, tmp_path) == []


def test_files_of_pydicom(plans: dict[str, Plan], subject: Subject, tmp_path: Path) -> None:
    compared = 0
    for _, path in bundled():
        try:
            found = compare(path, "ct", plans, subject, tmp_path)
        except Exception:
            continue
        compared += 1
        assert found == [], path.name
    assert compared >= 1


def _corpus() -> Iterator[tuple[Path, str]]:
    for path in sorted((CORPUS / "dicom").rglob("*")):
        if path.is_file() and "fuzz" not in str(path):
            try:
                found = pydicom.dcmread(path, specific_tags=["SOPClassUID", "Modality"], stop_before_pixels=True)
            except Exception:
                continue
            sop_class = str(found.get("SOPClassUID", ""))
            if sop_class in ACQUIRED - MULTI_FRAME:
                yield path, "mg" if ".1.1.1.2" in sop_class or sop_class.endswith(".13.1.3") else "ct"


@pytest.mark.corpus
def test_the_corpus(plans: dict[str, Plan], subject: Subject, tmp_path: Path) -> None:
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    compared, failed = 0, {}
    for path, which in _corpus():
        try:
            found = compare(path, which, plans, subject, tmp_path)
        except Refusal:
            continue
        except Exception:
            continue
        compared += 1
        if found:
            failed[path.name] = found
    assert compared >= 40
    assert failed == {}

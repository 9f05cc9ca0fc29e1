"""The shipped recipes: what they are for, what passes under each, and how much of a corpus of real files."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_engine import SUBJECT

from pipeline.config import ProjectConfig
from pipeline.deidentify import engine
from pipeline.deidentify.header import of as header
from pipeline.deidentify.header import sets, sop_classes
from pipeline.deidentify.linter import lint, read
from pipeline.deidentify.plan import RECIPES, Plan, compile_rules, load_plans
from pipeline.dicom.file import CHUNK, scan
from pipeline.dicom.inspect import inspect
from pipeline.errors import ProjectFileError
from pipeline.model import Reason, Refusal
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled

CORPUS = Path(os.environ.get("TRE_CORPUS") or Path(__file__).parents[3] / "shared" / "corpus")
SETS = {one[-1].name: one for one in sets(sorted(RECIPES.glob("*.dicom"))) if header(one[-1]).sop_classes}
FOR = {sop_classes()[name.lower()]: recipe for recipe, one in SETS.items() for name in header(one[-1]).sop_classes}
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: compile_rules(read(one), keep_times=False) for name, one in SETS.items()}


@pytest.fixture(autouse=True)
def pixels_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of pixels is asked elsewhere: here, of what the recipes make of headers."""
    monkeypatch.setattr(engine, "treat", lambda *_: None)


def headers(path: Path, plan: Plan) -> bytes:
    """Return the new header of a file, all of it but its pixels. Raises Refusal."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        return engine.transform(scan(fd, size, os.pread(fd, min(size, CHUNK), 0)), plan, SUBJECT)[0]
    finally:
        os.close(fd)


def test_each_recipe_says_what_it_is_for_and_no_class_has_two() -> None:
    assert set(SETS) == {"ct.dicom", "enhanced.dicom", "mammography.dicom", "mr.dicom", "sc.dicom", "us.dicom",
                         "xray.dicom"}
    named = [name for one in SETS.values() for name in header(one[-1]).sop_classes]
    assert len(named) == len(set(named)) == 18
    for one in SETS.values():
        assert one[0].name == "base.dicom" and lint(one) == []


def test_a_project_takes_over_what_its_recipes_are_for(make_config: Callable[..., ProjectConfig]) -> None:
    use = [{"files": ["base.dicom", "mr.dicom"]}, {"files": ["base.dicom", "report.dicom", "dose_report.toml"]}]
    found = load_plans(make_config(deidentify={"recipes": use})).plans
    assert set(found) == {"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.67"}
    narrower = [{"files": ["base.dicom", "mammography.dicom"], "sop_classes": ["Breast Tomosynthesis Image Storage"]}]
    assert set(load_plans(make_config(deidentify={"recipes": narrower})).plans) == {"1.2.840.10008.5.1.4.1.1.13.1.3"}
    with pytest.raises(ProjectFileError, match="for no SOP class"):
        load_plans(make_config(deidentify={"recipes": [{"files": ["base.dicom"]}]}))


@pytest.mark.parametrize("names", [("ct.dicom", "mr.dicom"), ("xray.dicom", "mammography.dicom")])
def test_what_one_recipe_covers_another_does_not(names: tuple[str, str]) -> None:
    assert len({uid for uid, recipe in FOR.items() if recipe in names}) == sum(
        len(header(RECIPES / name).sop_classes) for name in names)


def image(sop_class: str, **elements: Any) -> bytes:
    """A synthetic object with a class of its own: planted identities and all."""
    return files.mammogram(SOPClassUID=sop_class, **elements)


@pytest.mark.parametrize("uid", sorted(FOR), ids=lambda uid: pydicom.uid.UID(uid).name)
def test_nothing_planted_comes_out_under_any_recipe(uid: str, plans: dict[str, Plan], tmp_path: Path) -> None:
    path = tmp_path / "in.dcm"
    path.write_bytes(image(uid, overlay=True, nhs_number="9990000018"))
    out = headers(path, plans[FOR[uid]]).lower()
    planted = files.sentinels() | files.uids("mammogram") | {"9990000018"}
    assert len(planted) > 15
    assert [word for word in sorted(planted) if word.encode("latin-1").lower() in out] == []


def item(**elements: Any) -> Dataset:
    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    return found


def test_functional_groups_keep_where_frames_lie_and_lose_what_names_people(
    plans: dict[str, Plan], tmp_path: Path
) -> None:
    frame = item(FrameContentSequence=Sequence([item(FrameAcquisitionDateTime="20180614101530.5", StackID="1",
                                                     FrameComments="QUILLFEATHER moved")]),
                 PlanePositionSequence=Sequence([item(ImagePositionPatient=[1, 2, 3])]),
                 UnassignedPerFrameConvertedAttributesSequence=Sequence([item(PatientComments="QUILLFEATHER")]))
    shared = item(PixelMeasuresSequence=Sequence([item(PixelSpacing=[1, 1], SliceThickness=3)]),
                  MRDiffusionSequence=Sequence([item(DiffusionBValue=800.0)]))
    path = tmp_path / "in.dcm"
    path.write_bytes(image(ENHANCED_MR, PerFrameFunctionalGroupsSequence=[frame],
                           SharedFunctionalGroupsSequence=[shared], AcquisitionDateTime="20180614101530"))
    out = tmp_path / "out.dcm"
    out.write_bytes(headers(path, plans["enhanced.dicom"]))
    ours = pydicom.dcmread(out, force=True)
    group = ours.PerFrameFunctionalGroupsSequence[0]
    assert [e.keyword for e in group] == ["FrameContentSequence", "PlanePositionSequence",
                                          "UnassignedPerFrameConvertedAttributesSequence"]
    assert len(group.UnassignedPerFrameConvertedAttributesSequence[0]) == 0
    assert group.PlanePositionSequence[0].ImagePositionPatient == [1, 2, 3]
    assert group.FrameContentSequence[0].FrameAcquisitionDateTime == ours.AcquisitionDateTime == "20180306"
    assert "FrameComments" not in group.FrameContentSequence[0]
    assert ours.SharedFunctionalGroupsSequence[0].MRDiffusionSequence[0].DiffusionBValue == 800
    assert b"QUILLFEATHER" not in out.read_bytes()


def test_safe_private_elements_of_mr_stay_and_their_neighbours_go(plans: dict[str, Plan], tmp_path: Path) -> None:
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(image("1.2.840.10008.5.1.4.1.1.4", private=False)))
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "800")
    block.add_new(0x0B, "DS", "7")
    other = dataset.private_block(0x0019, "SOMEBODY ELSE", create=True)
    other.add_new(0x0C, "IS", "801")
    dataset.save_as(tmp_path / "in.dcm")
    out = tmp_path / "out.dcm"
    out.write_bytes(headers(tmp_path / "in.dcm", plans["mr.dicom"]))
    ours = pydicom.dcmread(out, force=True)
    private = [e for e in ours if e.tag.is_private]
    assert [(e.tag, str(e.value)) for e in private] == [(0x00190010, "SIEMENS MR HEADER"), (0x0019100C, "800")]


def test_what_pydicom_brings_along_passes_or_says_why(plans: dict[str, Plan]) -> None:
    passed, refused = Counter[str](), Counter[str]()
    for _, path in bundled():
        seen = inspect(path, 1 << 30)
        uid = str(seen.sop_class_uid)
        if seen.refusal or uid not in FOR:
            continue
        try:
            headers(path, plans[FOR[uid]])
            passed[FOR[uid]] += 1
        except Refusal as refusal:
            refused[f"{path.name}: {refusal}"] += 1
    assert set(passed) >= {"ct.dicom", "mr.dicom", "sc.dicom", "us.dicom"}
    # an ACR-NEMA date (yyyy.mm.dd), and a lossy file whose transfer syntax is not that of its data set
    assert all("value_malformed at (0008,0020)" in name for name in refused), refused


# ---- a corpus of public files ------------------------------------------------------------------------------------
def real(root: Path) -> Iterator[tuple[Path, str, Reason | None]]:
    """Yield each readable file with the recipe that covers it, and why staging refuses it (None: it does not). Files
    made to break readers are not counted: they are no images of anything."""
    with (root / "MANIFEST.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            uid = sop_classes().get(row["sop_class"].lower(), row["sop_class"])
            if row["opens"] == "yes" and "fuzz" not in row["file"] and uid in FOR:
                seen = inspect(root / row["file"], 1 << 30)
                yield root / row["file"], FOR[uid], seen.refusal.reason if seen.refusal else None


@pytest.mark.corpus
def test_of_readable_real_files_whose_class_is_covered_95_in_100_come_out(plans: dict[str, Plan]) -> None:
    """Pixels aside: whether those pass is for their own rules. Of a file that staging does not admit (no Study or
    Instance UID, cut short) nothing can come out; with those counted as well it is 85 in 100. What is refused has a
    Study Date that is no date of DICOM's (yyyy.mm.dd, 00000000): guessing at one would move it by a wrong number."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    passed, refused, not_admitted = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for path, recipe, reason in real(CORPUS):
        if reason is not None:
            not_admitted[reason] += 1
            continue
        try:
            headers(path, plans[recipe])
            passed[recipe] += 1
        except Refusal as refusal:
            refused[recipe, str(refusal)] += 1
    admitted = passed.total() + refused.total()
    print(f"\n{passed.total()} of {admitted} come out, {passed.total() / admitted:.1%}: {dict(passed)}; refused: "
          f"{dict(refused)}; not admitted: {dict(not_admitted)}")
    assert admitted > 200 and set(passed) == set(SETS)
    assert passed.total() / admitted >= 0.95
    assert passed.total() / (admitted + not_admitted.total()) >= 0.85
    assert {why for _, why in refused} <= {"value_malformed at (0008,0020)"}
    for recipe in SETS:
        of_it = sum(n for (name, _), n in refused.items() if name == recipe)
        assert passed[recipe] / (passed[recipe] + of_it) >= 0.75, recipe      # no recipe hides behind the others

"""The recipe language as the linter admits it: these tests are its documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.deidentify import linter
from pipeline.deidentify.linter import lint, read
from pipeline.errors import RecipeRefused

HEAD = "FORMAT dicom\n\n%header\nREMOVE ALL\n"


def recipe(tmp_path: Path, text: str, name: str = "r.dicom") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


ADMITTED = [
    "KEEP KVP", "KEEP ViewCodeSequence", "KEEP PixelData", "KEEP SOPClassUID", "KEEP LUTData",
    "ADD PatientID var:patient", "ADD PatientName var:empty",
    "# claims: Retain Patient Characteristics Option\nADD PatientAge var:age_band",
    "REPLACE StudyInstanceUID func:uid", "REPLACE DeviceSerialNumber func:device",
    "REPLACE OperatorsName func:operator", "# weaker: a reason\nREPLACE StudyTime func:time",
    "# weaker: a reason\nJITTER StudyDate var:days", "# weaker: a reason\nJITTER AcquisitionDateTime var:days",
    '# weaker: a reason\nKEEP (0045,"GEMS_SENO_02",49)',
    '# claims: Retain Safe Private Option\nKEEP (0019,"SIEMENS MR HEADER",0C)',
    "REMOVE contains:Birth", "REMOVE select:VR:PN", "REMOVE PatientName",
    "# weaker: needed to describe a population\nKEEP PatientSex",
]


@pytest.mark.parametrize("line", ADMITTED)
def test_admitted(line: str, tmp_path: Path) -> None:
    path = recipe(tmp_path, HEAD + line + "\n")
    assert lint([path]) == []
    assert len(read([path])) == 2       # deid's own parser reads the same


REFUSED = {     # line: (rule, the finding's number in what was measured of deid, or None where it is the product's own)
    "remove PatientID": ("action", 6),
    "REMOVE (0010, 0010)": ("tag", 6),
    "REMOVE 00100010": ("tag", 6),
    "REPLACE (0008,0090) var:empty": ("tag", 6),
    "REMOVE allfields": ("expander", 6),
    "REPLACE Rows twelve": ("variable", 18),        # 5: a number that is none
    "KEEP RequestAttributesSequence__StudyInstanceUID": ("nested", 8),
    "REMOVE ViewCodeSequence/CodeMeaning": ("nested", 8),
    "KEEP SOPClassUID\nREMOVE contains:UID": ("two_actions", 27),      # 11: as deid's default recipe does
    "KEEP ExposureTime\nREMOVE endswith:Time": ("two_actions", 27),
    "KEEP Grid\nREMOVE endswith:ID": ("two_actions", 27),
    "# weaker: x\nKEEP (7E01,\"HOLOGIC, Inc.\",10)": ("binary", 12),
    "# weaker: x\nKEEP (0119,\"SIEMENS Ultrasound SC2000\",01)": ("binary", 12),
    "KEEP IconImageSequence": ("icon", 13),
    "KEEP OverlayData": ("overlay", 13),
    "REMOVE OverlayData": ("overlay", 13),
    "KEEP CurveData": ("overlay", 13),
    "KEEP SourceApplicationEntityTitle": ("file_meta", 13),
    "REPLACE MediaStorageSOPInstanceUID func:uid": ("file_meta", 14),
    "REPLACE StudyInstanceUID func:dicom_uuid": ("variable", 2),        # 15
    "REMOVE ContentSequence": ("report_value", 20),
    "ADD PatientID var:patient\nKEEP PatientID": ("two_actions", 23),
    "KEEP LUTExplanation": ("free_text", 30),
    "KEEP ImagePresentationComments": ("weaker", None),
    "KEEP StudyTime 103000": ("date_kept", None),
    "REPLACE StudyTime 103000": ("variable", 18),                       # 32: TM accepts any string
    "KEEP (0045,0010)": ("private", 31),
    "KEEP (0045,1049)": ("private", 31),
    "REMOVE (0045,10FF)": ("private", 31),
    "KEPP KVP": ("action", 6),
    "KEEP (0018,0060)": ("tag", 6),
    "KEEP 0x00180060": ("tag", 6),
    "KEEP Kvp": ("keyword", 6),
    "REMOVE PatientNames": ("keyword", 6),
    "REMOVE ALL contains:UID": ("remove_value", 6),
    "REMOVE allexcept:KVP": ("expander", 6),
    "REMOVE contains:a(b": ("expander", 6),
    "KEEP contains:Time": ("expander", 27),
    "KEEP fields:x": ("expander", 28),
    "JITTER select:VR:DA var:days": ("expander", 27),
    "KEEP KVP kV peak": ("words", None),
    "BLANK AccessionNumber": ("blank", 25),
    "LABEL x": ("label", None),
    "KEEP KVP # peak": ("character", 6),
    "KEEP KVP'": ("character", 6),
    "KEEP KVP 80": ("keep_value", None),
    "ADD PatientID var:nobody": ("variable", 2),
    "ADD PatientID ANONYMOUS": ("variable", 18),
    "REPLACE PatientID func:pydicom_uuid": ("variable", 2),
    "REPLACE StudyID var:empty": ("replace_var", 32),
    "REPLACE StudyID func:uid": ("value_vr", 18),
    "ADD PatientName var:patient": ("value_vr", 18),
    "ADD StudyID var:age_band": ("value_vr", 18),
    "ADD IssuerOfPatientID var:patient": ("patient", None),
    "REPLACE AcquisitionDateTime func:time": ("value_vr", 18),
    "REPLACE TreatmentTime func:time": ("time", None),
    "JITTER StudyTime var:days": ("jitter_vr", 4),
    "JITTER PatientBirthDate var:days": ("jitter_date", 27),
    "JITTER DateOfLastCalibration var:days": ("jitter_date", 27),
    "JITTER StudyDate var:shift": ("variable", 4),
    "KEEP StudyDate": ("date_kept", None),
    "KEEP StudyTime": ("date_kept", None),
    "KEEP OperatorsName": ("name_kept", None),
    "KEEP ICCProfile": ("binary", None),
    "KEEP EncapsulatedDocument": ("binary", None),
    "KEEP TextValue": ("report_value", 20),
    "KEEP ContentSequence": ("report_value", 20),
    "KEEP PatientIdentityRemoved": ("always", None),
    "KEEP SpecificCharacterSet": ("always", None),
    "KEEP SeriesDescription": ("weaker", None),
    "KEEP (0045,10,49)": ("keyword", 6),
    'KEEP (0044,"X",49)': ("private", 31),
    'REPLACE (0045,"X",49) func:uid': ("private", 31),
    "# weaker: x\nKEEP (0045,\"GEMS_SENO_02\",50)": ("private", None),
    "# weaker: x\nKEEP (3103,\"AMI Sequence Annotations_01\",80)": ("private", None),
    "KEEP KVP\nKEEP KVP": ("two_actions", 23),
    "KEEP KVP\nREMOVE KVP": ("two_actions", 26),
    "REMOVE contains:birth\nADD PatientBirthDate var:empty": ("two_actions", 27),
    "REMOVE select:VR:DS\nKEEP KVP": ("two_actions", 27),
    "REMOVE ALL": ("remove_all_again", None),
    "%values x": ("section", 7),
    "%header": ("section", None),
    "FORMAT dicom": ("format", None),
    "KEEP\tKVP": ("character", None),
    "KEEP K\u212aVP": ("character", None),
}


@pytest.mark.parametrize("line", REFUSED, ids=str)
def test_refused(line: str, tmp_path: Path) -> None:
    rule, number = REFUSED[line]
    findings = lint([recipe(tmp_path, HEAD + line + "\n")])
    found = {f.rule: f for f in findings}
    assert rule in found, findings
    assert found[rule].line in (5, 6)       # HEAD has four lines
    assert found[rule].mend
    if number:
        assert f"{number}" in found[rule].deid_does
    with pytest.raises(RecipeRefused):
        read([recipe(tmp_path, HEAD + line + "\n")])


@pytest.mark.parametrize(("text", "rule"), [
    ("", "empty"),
    ("%header\nREMOVE ALL\n", "section"),
    ("FORMAT nifti\n%header\nREMOVE ALL\n", "format"),
    ("FORMAT dicom\nKEEP KVP\n", "outside"),
    ("FORMAT dicom\n%header\nKEEP KVP\n", "not_an_allow_list"),
])
def test_the_frame(text: str, rule: str, tmp_path: Path) -> None:
    assert rule in {f.rule for f in lint([recipe(tmp_path, text)])}


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert [f.rule for f in lint([tmp_path / "no.dicom"])] == ["unreadable"]


def test_a_set_is_one_allow_list(tmp_path: Path) -> None:
    base = recipe(tmp_path, HEAD + "ADD PatientID var:patient\n", "base.dicom")
    second = recipe(tmp_path, "FORMAT dicom\n%header\nKEEP KVP\n", "second.dicom")
    assert lint([base, second]) == []
    assert [f.rule for f in lint([second, base])] == ["not_an_allow_list", "remove_all_again"]
    again = recipe(tmp_path, "FORMAT dicom\n%header\nADD PatientID var:empty\n", "again.dicom")
    assert "two_actions" in {f.rule for f in lint([base, again])}


def test_what_deid_reads_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(tmp_path, HEAD + "KEEP KVP\n")
    monkeypatch.setattr("deid.config.utils.load_deid", lambda path: {"header": [{"action": "KEEP", "field": "KVP"}]})
    with pytest.raises(RecipeRefused, match="deid_disagrees"):
        read([path])


DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"
NOT_IN_A_RECIPE = {3, 16, 17, 19, 21, 22}


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", text))


def rules_of_the_linter() -> set[str]:
    source = "".join((Path(linter.__file__).parent / f"{name}.py").read_text()
                     for name in ("linter", "language", "header", "pixel_rules"))
    found = re.findall(r'(?:refuse\([\w\[\]]+|Finding\([\w.]+, [\w.]+),\s*"([a-z]\w+)"', source)
    return {*found, "private", "tag"}       # these two stand in one call


def test_the_page_for_officers_has_every_trap_and_every_rule() -> None:
    page = DOCS.read_text(encoding="utf-8")
    traps = {int(n): cell for n, cell in re.findall(r"^\| (\d+) \|.*\| (.*) \|$", page, re.MULTILINE)}
    assert sorted(traps) == list(range(1, 33))
    rules = rules_of_the_linter()
    assert len(rules) > 45
    for number, cell in traps.items():
        if number in NOT_IN_A_RECIPE:
            assert cell.startswith("not in a recipe: ")
        else:
            assert named(cell) & rules or "meaning above" in cell, number
    every = named(page.partition("## What deid does")[2])
    assert {rule for rule in rules if not rule.startswith("filter_")} <= every, rules - every
    assert not {rule for rule in every if rule.startswith("filter_")} - rules


def test_what_is_said_of_each_trap_is_tested() -> None:
    tested = {number for _, number in REFUSED.values() if number}
    assert tested >= {2, 4, 6, 7, 8, 12, 13, 14, 18, 20, 23, 25, 26, 27, 28, 30, 31, 32}

"""The recipe language as the linter admits it: these tests are its documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

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

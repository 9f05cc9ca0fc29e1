"""Concept rules read strictly: whatever is guessed, free or in no dictionary is refused by file and line."""

import os
from pathlib import Path

import pytest

from pipeline.deidentify import concepts
from pipeline.deidentify.linter import lint as lint_recipes
from pipeline.deidentify.plan import RECIPES, load_plans
from pipeline.errors import ProjectFileError, RecipeRefused
from pipeline.sections import RecipeUse

GOOD = """schema_version = 1
about = "x"
[report]
templates = ["10001"]
evidence = "remap"
[titles]
"113701 DCM" = "X-Ray Radiation Dose Report"
[keep.NUM]
"113733 DCM" = "KVP"
[keep.TEXT]
"125203 DCM" = { meaning = "Acquisition Protocol", values = ["ROUTINE"] }
[device.TEXT]
"121016 DCM" = { meaning = "Device Observer Serial Number", manufacturer = "121014 DCM", model = "121015 DCM" }
[codes]
"gridin 99HOLX" = { meaning = "Grid in", seen = "a report" }
[units]
"mGy UCUM" = { meaning = "mGy", seen = "a report" }
"""
SHIPPED = sorted(RECIPES.glob("*.toml"))


@pytest.fixture
def flaws(tmp_path):
    def flaws(*changes, text=GOOD):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "rules.toml").write_text(text)
        return [(flaw.line, flaw.rule) for flaw in concepts.lint(tmp_path / "rules.toml")]
    return flaws


def test_what_is_written_well_is_read(flaws, tmp_path):
    assert flaws() == []
    rules = concepts.read(tmp_path / "rules.toml")
    assert rules.rule(("113733", "DCM"), "NUM").action == "keep"
    assert rules.rule(("113733", "DCM"), "TEXT") is None and rules.rule(("113733", "99X"), "NUM") is None
    assert rules.meaning(("gridin", "99HOLX")) == "Grid in" and rules.meaning(("gridout", "99HOLX")) is None


@pytest.mark.parametrize("old, new, line, rule", [
    ("about", "abuot", 2, "key"),
    ("[keep.NUM]", "[keeep.NUM]", 8, "key"),
    ("evidence", "evidnece", 5, "key"),
    ('"remap"', '"all"', 5, "evidence"),
    ('["10001"]', '["10001 Larkspur"]', 4, "templates"),
    ("schema_version = 1", "schema_version = 2", 1, "schema_version"),
    ('"113701 DCM" = "X-Ray Radiation Dose Report"\n', "", 6, "titles"),
    ('"KVP"', '"kVp"', 9, "meaning"),
    ('"113733 DCM"', '"113733"', 9, "code"),
    ('"113733 DCM"', '"999733 DCM"', 9, "unknown_code"),
    ('"113733 DCM"', '"113733 99X"', 9, "unknown_code"),
    (', seen = "a report" }\n[units]', " }\n[units]", 15, "unknown_code"),
    ('"Grid in"', '"Grid\\nin"', 15, "meaning"),
    ("[keep.NUM]", "[keep.NUMBER]", 8, "value_type"),
    ("[keep.NUM]", "[keep.WAVEFORM]", 8, "action"),
    ("[keep.NUM]", "[keep.PNAME]", 8, "action"),
    ("[keep.NUM]", "[keep.UIDREF]", 8, "action"),
    ("[keep.NUM]", "[keep.DATETIME]", 8, "action"),
    ("[keep.NUM]", "[empty.TEXT]", 8, "action"),
    ("[keep.NUM]", "[shift.TEXT]", 8, "action"),
    (', values = ["ROUTINE"]', "", 11, "free_text"),
    ('["ROUTINE"]', '"ROUTINE"', 11, "values"),
    ('"KVP"', '{ meaning = "KVP", values = ["1"] }', 9, "values"),
    ('"KVP"', '{ meaning = "KVP", wyh = "1" }', 9, "entry"),
    ('"KVP"', "1", 9, "entry"),
    (', model = "121015 DCM"', "", 13, "model"),
    ('"KVP"', '{ meaning = "KVP", manufacturer = "121014 DCM" }', 9, "manufacturer"),
    ('"113733 DCM" = "KVP"', '"113733 DCM" = "KVP"\n"113733 DCM" = "KVP"', 10, "toml"),
    ("[keep.TEXT]", '[drop.NUM]\n"113733 DCM" = "KVP"\n[keep.TEXT]', 11, "two_actions"),
])
def test_refused(flaws, old, new, line, rule):
    assert (line, rule) in flaws((old, new))


def test_two_names_of_one_concept_are_one(flaws):
    assert flaws(('"113733 DCM" = "KVP"', '"272741003 SCT" = "Laterality"\n"G-C171 SRT" = "Laterality"'),
                 ("[keep.NUM]", "[keep.CODE]")) == [(10, "two_actions")]


def test_what_is_no_file_or_no_utf8_is_refused(tmp_path):
    assert [f.rule for f in concepts.lint(tmp_path / "none.toml")] == ["unreadable"]
    (tmp_path / "odd.toml").write_bytes(b"\xff")
    assert [f.rule for f in concepts.lint(tmp_path / "odd.toml")] == ["unreadable"]
    with pytest.raises(RecipeRefused):
        concepts.read(tmp_path / "odd.toml")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_rules_pass_the_linter(path):
    assert concepts.lint(path) == []


def test_a_meaning_that_a_file_gives_an_older_code_stands_before_the_dictionary_s():
    rules = concepts.read(RECIPES / "dose_report.toml")
    assert rules.meaning(("C-120F9", "SRT")) == "Aluminum or Aluminum compound"
    assert rules.meaning(("G-C171", "SRT")) == rules.meaning(("272741003", "SCT")) == "Laterality"


def test_any_change_of_a_rule_is_another_digest(flaws, tmp_path):
    digests = set()
    changes = [(), (('"113733 DCM" = "KVP"', '"113736 DCM" = "Exposure"'),), (('"remap"', '"remove"'),),
               (('"10001"', '"10002"'),), (('"ROUTINE"', '"ROUTINES"'),), (("Grid in", "Grid In"),),
               (('meaning = "mGy"', 'meaning = "milligray"'),), (('model = "121015 DCM"', 'model = "121013 DCM"'),),
               (("[keep.NUM]", "[drop.NUM]"),)]
    for change in changes:
        assert flaws(*change) == []
        digests.add(concepts.read(tmp_path / "rules.toml").digest)
    assert len(digests) == len(changes)


@pytest.mark.parametrize("keyword", ["ContentSequence", "TextValue", "ConceptNameCodeSequence", "VerificationFlag",
                                     "VerifyingObserverSequence", "ObservationDateTime", "AuthorObserverSequence"])
def test_a_header_recipe_cannot_speak_of_a_report_s_content(tmp_path, keyword):
    (tmp_path / "r.dicom").write_text(f"FORMAT dicom\n\n%header\nREMOVE ALL\n# weaker: x\nKEEP {keyword}\n")
    assert [f.rule for f in lint_recipes([tmp_path / "r.dicom"])] == ["report_value"]


def test_a_project_names_rules_for_reports_alone(make_config):
    def plans(*files, uid="1.2.840.10008.5.1.4.1.1.88.67"):
        use = RecipeUse(files=files, sop_classes=(uid,))
        return load_plans(make_config(deidentify={"recipes": [use.model_dump()]}))

    whole = plans("base.dicom", "report.dicom", "dose_report.toml")
    (plan,) = whole.plans.values()
    assert plan.files == ("base.dicom", "report.dicom", "dose_report.toml")
    assert ("113104", "Clean Structured Content Option") in plan.codes
    without = plans("base.dicom", "report.dicom")
    assert without.id != whole.id and ("113104", "Clean Structured Content Option") not in next(
        iter(without.plans.values())).codes
    for files, uid in ((("dose_report.toml",), "1.2.840.10008.5.1.4.1.1.88.67"),
                       (("base.dicom", "dose_report.toml", "mammography_cad.toml"), "1.2.840.10008.5.1.4.1.1.88.67"),
                       (("base.dicom", "dose_report.toml"), "1.2.840.10008.5.1.4.1.1.2")):
        with pytest.raises(ProjectFileError):
            plans(*files, uid=uid)


@pytest.mark.corpus
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_is_said_to_have_been_seen_in_a_file_stands_there(path):
    """Codes in no dictionary name the repository and the file; UCUM's own units and prose name none."""
    import tomllib

    import pydicom

    corpus = Path(os.environ.get("TRE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus"))
    if not corpus.is_dir():
        pytest.skip("TRE_CORPUS is not there")
    doc = tomllib.loads(path.read_text())
    sections = [doc.get("codes", {}), doc.get("units", {})]
    sections += [section for action in concepts.ACTIONS for section in doc.get(action, {}).values()]
    for key, entry in ((k, e) for section in sections for k, e in section.items() if isinstance(e, dict)):
        if not (seen := entry.get("seen", "")).endswith(".dcm"):
            continue
        (file,) = (corpus / "dicom").rglob(seen.split()[-1])
        value, _, scheme = key.rpartition(" ")
        assert any((i.get("CodeValue"), i.get("CodingSchemeDesignator")) == (value, scheme)
                   for i in _items(pydicom.dcmread(file, force=True))), key


def _items(ds):
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)

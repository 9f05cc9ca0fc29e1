"""Recipes beside PS3.15 Table E.1-1: stricter, equal or weaker, and a reason beside what is weaker."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.deidentify.coverage import LEAVES, Row, codes, compare
from pipeline.deidentify.language import read_action
from pipeline.deidentify.linter import Rule, lint, read
from pipeline.deidentify.plan import RECIPES
from pipeline.deidentify.profile import OPTIONS, confidentiality_profile, rows, safe_private

HEAD = "FORMAT dicom\n\n%header\nREMOVE ALL\n"
MODIFIED, PATIENT, DEVICE, PRIVATE, DESCRIPTORS = "113107", "113108", "113109", "113111", "113105"


def rule(line: str) -> Rule:
    refused: list[object] = []
    found = read_action(line, "r.dicom", 5, "", lambda *why: refused.append(why))
    assert found and not refused
    return found


def row(line: str, *claims: str, keep_times: bool = False) -> Row:
    return next(r for r in compare([rule(line)], claims=claims, keep_times=keep_times) if r.line)


# The verdicts as an officer would reach them by hand from the table: line, options claimed, the standard's action, what
# the recipe leaves, the verdict.
BY_HAND: list[tuple[str, tuple[str, ...], str, str, str]] = [
    # X: remove
    ("KEEP PatientWeight", (), "X", "kept", "weaker"),
    ("ADD InstitutionName var:empty", (), "X/Z/D", "emptied", "equal"),
    ("ADD PatientComments var:empty", (), "X", "emptied", "equal"),
    ("JITTER PerformedProcedureStepStartDate var:days", (), "X", "moved", "weaker"),
    ("KEEP RequestAttributesSequence", (), "X", "entered", "weaker"),
    ("ADD PatientAge var:age_band", (), "X", "banded", "weaker"),
    # Z: zero length, or a dummy
    ("ADD PatientName var:empty", (), "Z", "emptied", "equal"),
    ("KEEP PatientSex", (), "Z", "kept", "weaker"),
    ("JITTER StudyDate var:days", (), "Z", "moved", "weaker"),
    # Z/D, X/Z, X/D, X/Z/D: by the attribute's type
    ("ADD PatientID var:patient", (), "Z/D", "pseudonym", "equal"),
    ("ADD PatientID var:empty", (), "Z/D", "emptied", "equal"),
    ("JITTER AcquisitionDate var:days", (), "X/Z", "moved", "weaker"),
    ("REPLACE DetectorID func:device", (), "X/D", "pseudonym", "equal"),
    ("KEEP ProtocolName", (), "X/D", "kept", "weaker"),
    ("REPLACE OperatorsName func:operator", (), "X/Z/D", "pseudonym", "equal"),
    ("KEEP DeviceSerialNumber", (), "X/Z/D", "kept", "weaker"),
    # U: replace the UID; U*: those inside
    ("REPLACE StudyInstanceUID func:uid", (), "U", "remapped", "equal"),
    ("KEEP StudyInstanceUID", (), "U", "remapped", "equal"),        # the engine remaps whatever is a UID
    ("ADD StudyInstanceUID var:empty", (), "U", "emptied", "stricter"),
    ("KEEP SourceImageSequence", (), "X/Z/U*", "entered", "equal"),
    # K under an option
    ("KEEP PatientSex", (PATIENT,), "K", "kept", "equal"),
    ("ADD PatientAge var:age_band", (PATIENT,), "K", "banded", "stricter"),
    ("KEEP DeviceSerialNumber", (DEVICE,), "K", "kept", "equal"),
    ("REPLACE DeviceSerialNumber func:device", (DEVICE,), "K", "pseudonym", "stricter"),
    ("KEEP DeviceSerialNumber", (PATIENT,), "X/Z/D", "kept", "weaker"),
    # C under an option: cleaned, so as it is is too much
    ("KEEP ProtocolName", (DESCRIPTORS,), "C", "kept", "weaker"),
    ("ADD ProtocolName var:empty", (DESCRIPTORS,), "C", "emptied", "stricter"),
    # approved terms alone claim it
    ("REPLACE ProtocolName func:term", (), "C", "cleaned", "equal"),
    ("REPLACE StationName func:term", (), "X/Z/D", "cleaned", "weaker"),
    # private elements
    ('KEEP (0019,"SIEMENS MR HEADER",0C)', (), "X", "kept", "weaker"),
    ('KEEP (0019,"SIEMENS MR HEADER",0C)', (PRIVATE,), "C", "kept", "equal"),
    ('KEEP (0019,"SIEMENS MR HEADER",0B)', (PRIVATE,), "C", "kept", "weaker"),
    ('KEEP (0019,"GEMS_ACQU_01",0C)', (PRIVATE,), "C", "kept", "weaker"),       # that element of another creator
]


@pytest.mark.parametrize(("line", "claims", "standard", "leaves", "verdict"), BY_HAND, ids=str)
def test_verdicts_reached_by_hand(line: str, claims: tuple[str, ...], standard: str, leaves: str, verdict: str) -> None:
    found = row(line, *claims)
    assert (found.standard, found.recipe, found.verdict) == (standard, leaves, verdict)
    assert found.where == "r.dicom:5"


@pytest.mark.parametrize(("line", "verdict"), [
    ("JITTER StudyDate var:days", "equal"), ("REPLACE StudyTime func:time", "equal"),
    ("ADD StudyTime var:empty", "stricter")])
def test_modified_dates_are_claimed_only_where_times_move(line: str, verdict: str) -> None:
    assert row(line, MODIFIED, keep_times=True).verdict == verdict
    if line.startswith("JITTER"):
        assert row(line, MODIFIED).verdict == "weaker"


def test_every_row_of_the_table_stands_once_and_what_no_rule_names_is_removed() -> None:
    found = compare([])
    assert len(found) == len(rows()) == 656
    assert {r.recipe for r in found} == {"removed", "remapped"}
    assert [r.tag for r in found if r.recipe == "remapped"] == ["(0002,0003)"]      # file meta information
    assert {r.verdict for r in found} == {"equal", "stricter"}
    equal_to_removal = {r.basic for r in found if r.verdict == "equal"}
    assert all("X" in action.split("/") for action in equal_to_removal - {"U"})


def test_every_action_and_option_of_the_table_is_understood() -> None:
    for code in (None, *OPTIONS):
        found = compare([], claims=() if code is None else (code,), keep_times=True)
        assert len(found) == 656
        if code and code != "113111":
            column = OPTIONS[code][1]
            assert {r.tag for r in found if r.option == code} <= {r["tag"] for r in rows() if r[column]}
            assert any(r.option == code for r in found)


def test_keeping_any_attribute_of_the_table_is_never_equal_without_an_option() -> None:
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    tags = [tag for tag in confidentiality_profile() if keyword_for_tag(tag)]
    names = [keyword_for_tag(tag) for tag in tags if dictionary_VR(tag) not in ("UI", "SQ")]
    found = [r for r in compare([Rule("KEEP", name, "", "r", 1) for name in names]) if r.line]
    assert len(found) == len(names) > 500
    assert {r.verdict for r in found} == {"weaker"}


def test_a_weaker_rule_costs_the_claim_of_the_basic_profile() -> None:
    def earned(*lines: str, claims: tuple[str, ...] = (), times: bool = False) -> list[str]:
        found = compare([rule(line) for line in lines], claims=claims, keep_times=times)
        return [code for code, _ in codes(found, times_moved=times)]

    assert earned() == ["113100"]
    assert earned("KEEP PatientSex") == []
    assert earned("KEEP PatientSex", claims=(PATIENT,)) == ["113100", PATIENT]
    assert earned(claims=(PATIENT, DEVICE)) == ["113100"]                   # claimed, and nothing stays by it
    assert earned("JITTER StudyDate var:days") == ["113100"]                # a moved date is a dummy value at least
    assert earned("JITTER PerformedProcedureStepStartDate var:days") == []  # where none is admitted, it is not
    dates = ("JITTER StudyDate var:days", "REPLACE StudyTime func:time")
    assert earned(*dates, claims=(MODIFIED,)) == ["113100"]
    assert earned(*dates, claims=(MODIFIED,), times=True) == ["113100", MODIFIED]
    alone = compare([rule(dates[0])], claims=(MODIFIED,), keep_times=True)      # the project keeps times, no rule does
    assert [code for code, _ in codes(alone, times_moved=False)] == ["113100"]
    assert earned("REPLACE DeviceSerialNumber func:device", claims=(DEVICE,)) == ["113100"]     # a pseudonym is none


def test_a_private_element_known_to_be_safe_by_other_means_says_why() -> None:
    line = 'KEEP (0019,"SIEMENS MR HEADER",0B)'
    bare = compare([rule(line)], claims=(PRIVATE,))
    assert codes(bare, times_moved=False) == ()
    whole = rule(line)
    told = Rule(whole.action, whole.field, "", "r", 1, "the maker's conformance statement")
    assert [c for c, _ in codes(compare([told], claims=(PRIVATE,)), times_moved=False)] == ["113100", PRIVATE]
    assert codes(compare([told]), times_moved=False) == ()


def test_the_safe_list_is_by_creator_and_element() -> None:
    safe = safe_private()
    assert len(safe) == 130 and safe[0x0019, "SIEMENS MR HEADER", 0x0C] == ("IS", "B Value")
    assert all(group % 2 and 0 <= element <= 0xFF for group, _, element in safe)


def test_reports_are_cleaned_by_concept_rules() -> None:
    found = {r.attribute: r for r in compare([], concepts=True)}
    assert (found["ContentSequence"].recipe, found["ContentSequence"].verdict) == ("cleaned", "equal")
    assert found["VerifyingObserverName"].recipe == "removed"
    assert "113104" in dict(codes(list(found.values()), times_moved=False))


def weaker_lines(tmp_path: Path, text: str) -> list[tuple[str, int]]:
    path = tmp_path / "r.dicom"
    path.write_text(HEAD + text)
    return [(f.rule, f.line) for f in lint([path])]


@pytest.mark.parametrize("line", [line for line, claims, *_, verdict in BY_HAND if verdict == "weaker" and not claims])
def test_the_linter_wants_a_reason_beside_every_weaker_rule(line: str, tmp_path: Path) -> None:
    assert weaker_lines(tmp_path, line + "\n") == [("weaker", 5)]
    assert weaker_lines(tmp_path, f"# weaker: the audit needs it\n{line}\n") == []
    assert weaker_lines(tmp_path, f"# weaker:\n{line}\n") == [("weaker", 6)]        # words are wanted
    assert weaker_lines(tmp_path, f"# weaker: of another rule\nKEEP KVP\n{line}\n") == [("weaker", 7)]


def test_claims_of_any_recipe_of_a_set_hold_for_the_set(tmp_path: Path) -> None:
    one, two = tmp_path / "one.dicom", tmp_path / "two.dicom"
    one.write_text(HEAD + "KEEP PatientSex\n")
    two.write_text("# claims: Retain Patient Characteristics Option\nFORMAT dicom\n%header\nKEEP KVP\n")
    assert [f.rule for f in lint([one])] == ["weaker"]
    assert lint([one, two]) == []
    assert read([one, two]).claims == (PATIENT,)


def test_a_moved_date_needs_its_reason_whatever_is_claimed_for_a_project_may_drop_times(tmp_path: Path) -> None:
    claim = "# claims: Retain Longitudinal Temporal Information Modified Dates Option\n"
    assert weaker_lines(tmp_path, claim + "JITTER StudyDate var:days\n") == [("weaker", 6)]


@pytest.mark.parametrize("name", ["Retain UIDs Option", "Retain Longitudinal Temporal Information Full Dates Option",
                                  "Clean Graphics Option", "Basic Application Confidentiality Profile", "Retain all"])
def test_a_claim_that_no_recipe_can_earn_is_refused(name: str, tmp_path: Path) -> None:
    assert weaker_lines(tmp_path, f"# claims: {name}\n") == [("claim", 5)]


def test_the_shipped_sets_state_reasons_and_earn_their_claims() -> None:
    for names in (["base.dicom", "mammography.dicom"], ["base.dicom", "ct.dicom"], ["base.dicom", "report.dicom"]):
        found = compare(read([RECIPES / name for name in names]))
        assert all(r.reason for r in found if r.verdict == "weaker")
        assert "113100" in dict(codes(found, times_moved=False))


def test_no_treatment_is_without_its_measure() -> None:
    assert set(LEAVES) == {"removed", "emptied", "pseudonym", "remapped", "moved", "banded", "entered", "cleaned",
                           "kept"}

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import ProjectConfig
from pipeline.errors import ProjectFileError
from pipeline.govern.eligibility import Rules, decide, decide_object
from pipeline.govern.sop_classes import resolve
from pipeline.model import Reason

MG = "1.2.840.10008.5.1.4.1.1.1.2"
RULES = Rules(frozenset({MG}), "20150101", "20241231", frozenset({"p1", "p2"}))
ROW = {"sop_class_uid": MG, "study_date": "20200301"}


def test_what_the_project_file_names_passes():
    assert decide(ROW, RULES, "p1") is None
    for edge in ("20150101", "20241231", "20200229", " 20200301 "):
        assert decide({**ROW, "study_date": edge}, RULES, "p2") is None


@pytest.mark.parametrize(("change", "reason"), [
    ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2"}, Reason.SOP_CLASS_NOT_ELIGIBLE),
    ({"sop_class_uid": None}, Reason.SOP_CLASS_NOT_ELIGIBLE),
    ({"study_date": "20141231"}, Reason.DATE_NOT_ELIGIBLE), ({"study_date": "20250101"}, Reason.DATE_NOT_ELIGIBLE),
    *(({"study_date": bad}, Reason.DATE_UNKNOWN) for bad in (
        None, "", "2020", "20200230", "20201301", "20200100", "2020.03.01", "20200301-20200401", "00000101", "２０２０",
        "20200301\\20200302", "+2020301")),
])
def test_what_it_does_not_name_is_refused(change, reason):
    assert decide({**ROW, **change}, RULES, "p1") is reason
    assert decide_object({**ROW, **change}, RULES) is reason


@pytest.mark.parametrize("person", [None, "", "p3", "P1"])
def test_nobody_passes_unless_permitted(person):
    assert decide(ROW, RULES, person) is Reason.PERSON_NOT_PERMITTED
    assert decide_object(ROW, RULES) is None


def test_without_a_list_the_legal_basis_lets_everybody_pass():
    assert decide(ROW, Rules(RULES.sop_classes, RULES.earliest, RULES.latest, None), None) is None


@given(st.dates(datetime.date(1, 1, 1), datetime.date(9999, 12, 31)))
def test_every_day_of_the_calendar_is_a_date(day):
    expected = None if datetime.date(2015, 1, 1) <= day <= datetime.date(2024, 12, 31) else Reason.DATE_NOT_ELIGIBLE
    assert decide_object({**ROW, "study_date": f"{day.year:04d}{day:%m%d}"}, RULES) is expected


@given(st.text("0123456789", min_size=8, max_size=8))
def test_eight_digits_are_a_date_when_the_calendar_has_them(text):
    try:
        datetime.datetime.strptime(text, "%Y%m%d")
        real = text[:4] != "0000"
    except ValueError:
        real = False
    assert (decide_object({**ROW, "study_date": text}, RULES) is Reason.DATE_UNKNOWN) == (not real)


def test_sop_classes_are_named_by_uid_name_or_keyword():
    for name in (MG, "Digital Mammography X-Ray Image Storage - For Presentation",
                 "digital mammography x-ray image storage - for presentation",
                 "DigitalMammographyXRayImageStorageForPresentation"):
        assert resolve([name], Path("project.toml")) == {MG}
    with pytest.raises(ProjectFileError, match=r"^project\.toml: .*entry 2"):
        resolve([MG, "Mammograms"], Path("project.toml"))


def test_rules_come_from_the_project_file(tmp_path: Path):
    config = ProjectConfig.model_validate({
        "schema_version": 1, "project": {"name": "breast-audit", "title": "t", "data_steward": "s"},
        "zones": {zone: (tmp_path / zone).as_uri() for zone in ("landing", "work", "candidate", "release")},
        "eligibility": {"sop_classes": [MG], "study_dates": {"earliest": datetime.date(2015, 1, 1),
                                                             "latest": datetime.date(2024, 12, 31)},
                        "people": {"not_required": "Consent of every participant, ref 123"}},
        "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": [MG]}]},
    })
    assert Rules.of(config, frozenset({"p1", "p2"})) == RULES

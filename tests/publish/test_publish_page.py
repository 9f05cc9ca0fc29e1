"""The officer's page says what would be released and what has changed, in counts; it is no part of what is approved."""

import json
import re

import pytest

from pipeline import layout
from pipeline.errors import NotFound
from pipeline.publish.candidate import digest
from pipeline.publish.page import Signed, write
from pipeline.publish.release import publish

SECOND = "c-" + "5e4d3c2b1a0f" * 2


def page(made, **more):
    return made.candidate.read(write(made.candidate, made.release, made.project, made.id, **more)).decode()


def text(html):
    """The page as it is read: no tags, one space."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.partition("</style>")[2]))


def release(made):
    return publish(made.candidate, made.release, made.project, made.id, approval=made.approval())


@pytest.fixture
def two(make_candidate, tmp_path):
    """A release of 120 people, and a candidate of other rules and fields: three people fewer, none new."""
    first = make_candidate(tmp_path.as_uri(), people=120, seed=3)
    first.plan["recipes"][0]["weaker"] = ["StudyDate"]
    first.seal()
    release(first)
    second = make_candidate(tmp_path.as_uri(), people=117, seed=3, candidate=SECOND)
    second.plan["recipes"][0] |= {"digest": "0" * 64, "weaker": ["StudyDate", "PatientAge", "(0045,xx49) GEMS_SENO_02"]}
    second.plan["suites"] = {"exposures": "cd" * 32, "visits": "ef" * 32}
    second.plan["engine"] = "2"
    second.tables["episodes"] = second.tables["episodes"].drop_columns(["outcome"])
    second.plan["clinical"]["tables"]["episodes"].append(
        {"name": "grade", "type": "string", "unit": "", "meaning": "Grade of the cancer."})
    second.tables["episodes"] = second.tables["episodes"].append_column("grade", [["1"] * 117])
    second.seal()
    return second


def test_it_loads_and_runs_nothing_and_holds_nobody(many):
    html = page(many)
    assert not re.search(r"https?://|url\((?!#)|@import|<script|<link|<img|<iframe| on\w+=", html)
    links = set(re.findall(r'href="([^"#]*)"', html)) - {""}
    assert links == {"report.html", "checks.html", "dictionary.html"}
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(re.findall(r'id="([^"]+)"', html))
    for row in many.tables["instances"].to_pylist()[:50]:
        assert row["patient_id"] not in html and row["sop_instance_uid"] not in html
    assert digest(many.candidate, many.project, many.id) in html


def test_it_is_no_part_of_what_is_approved(many):
    before = digest(many.candidate, many.project, many.id)
    first = page(many)
    assert page(many, signed=[Signed("recipe", "base.dicom", "ab" * 32, (("a.officer", "0000", "2027-01-02"),))],
                officers="cd" * 32) != first
    assert page(many) == first
    assert digest(many.candidate, many.project, many.id) == before
    sealed = json.loads(many.candidate.read(layout.candidate_manifest(many.project, many.id)))
    assert "candidate.html" not in {file["name"] for file in sealed["files"]}


def test_why_something_is_weaker_stands_beside_it(made):
    made.plan["recipes"][0]["weaker"] = {"StudyDate": "intervals must stay", "(0045,xx49) GEMS_SENO_02": "a thickness"}
    made.seal()
    rows = page(made).partition("Weaker than the standard</h3>")[2].partition("</table>")[0]
    assert re.search(r"Study Date.*?<td>intervals must stay</td>", rows, re.S) and "<td>a thickness</td>" in rows


@pytest.mark.parametrize(("rejected", "told"), [(3, True), (30, False)])
def test_all_that_landed_is_counted_unless_that_gives_a_small_total_away(made, rejected, told):
    images, withheld = made.images.num_rows, len(made.withheld)
    assert withheld < 10 <= images
    made.plan["counts"] = {"pending": {"": images + withheld}, "rejected": {"not_dicom": rejected}}
    made.seal()
    landed = f"Of {images + withheld + rejected} objects that landed, {images} would be released."
    assert (landed in text(page(made))) == told and ("objects that landed" in text(page(made))) == told


def test_a_first_candidate_is_compared_with_nothing(many):
    said = text(page(many))
    assert "There is no release before this candidate." in said
    assert "People 120" in said and "Images 480" in said


def test_what_has_changed_since_the_last_release_is_named(two):
    said = text(page(two))
    assert "Released now, and not before (1): grade in the table episodes" in said
    assert "Released before, and no longer (1): outcome in the table episodes" in said
    assert "Recipe base.dicom + mammography.dicom: changed" in said
    assert "Suite of checks exposures: changed" in said and "Suite of checks visits: new" in said
    assert "The engine is another: 1 before, 2 now" in said
    weaker = "Weaker than the standard now, and not before : (0045,xx49) GEMS_SENO_02, PatientAge"
    assert weaker in said
    assert "Study Date (no image of this candidate states it)" in said
    assert "In this candidate and not in that release none" in said
    assert "In that release and no longer in this candidate &lt;10" in said
    assert "images 480 468" in said
    first = said.index("Look at this first", said.index("Columns in tables"))
    heed = said[first:said.index("Since the last release", first)]
    assert "1 column or attribute is released that the last release did not have" in heed
    assert "1 check of the tables did not pass" in heed      # one that only informs would not stand here
    assert "New among the weaker" in heed and "Recipes or suites are not those" in heed


def test_a_candidate_that_was_published_is_still_compared_with_the_release_before_it(two):
    before = page(two)
    release(two)
    assert page(two) == before


def test_where_the_older_candidate_is_gone_it_says_what_cannot_be_told(two):
    (old,) = {e.key.split("/")[2] for e in two.candidate.list(layout.candidates(two.project))} - {two.id}
    two.candidate.delete(layout.candidate_manifest(two.project, old))
    said = text(page(two))
    assert "whether recipes and suites have changed cannot be told here" in said
    assert "grade in the table episodes" in said


def test_what_was_left_out_is_counted_and_small_counts_are_not_told(many):
    said = text(page(many))
    assert re.search(r"Quarantined .* 36 ", said) and "pixels_need_cleaning" in said
    assert re.search(r"truncated The file ends inside an element\. &lt;10", said)
    assert not re.search(r"truncated The file ends inside an element\. 1 ", said)
    assert "14 people have a name of fewer than four letters" in said
    assert "exposures: body_part_thickness_mm A house plausibility limit. warning &lt;10" in said
    assert "Not judged: the project file has no [validate.small_groups]" in said


def test_small_groups_are_told(made):
    line = {"type": "k", "column": "patient_id, patients.sex", "severity": "warning", "success": False,
            "answered": True, "element_count": 48, "unexpected_count": 20, "unexpected_percent": 0.0,
            "why": "At least 5 persons share each combination.", "source": "Project file"}
    made.results["small_groups"] = {"schema_version": 1, "suite": "small_groups", "rows": 48, "failing_rows": 20,
                                    "withheld_instances": 12, "dropped_rows": 0, "expectations": [line]}
    made.seal()
    said = text(page(made))
    assert "At least 5 persons share each combination. Judged by patients.sex: of 48 rows 20 stood in a group" in said
    assert "12 images were withheld for it" in said


def test_who_signed_what_runs_is_shown_with_the_key_and_what_nobody_signed_stands_first(many):
    signed = [Signed("suite", "exposures.json", "ab" * 32, (("a.officer", "68da df6d 685a 60b6", "2027-01-02"),)),
              Signed("recipe", "base.dicom", "cd" * 32, (), "nobody has approved it")]
    said = text(page(many, signed=signed, officers="ef" * 32))
    assert "exposures.json suite abababababab a.officer 68da df6d 685a 60b6 until 2027-01-02" in said
    assert "Not approved : nobody has approved it" in said
    assert said.index("base.dicom recipe") < said.index("exposures.json suite")
    assert "Not approved today: base.dicom." in said


def test_what_is_written_in_it_is_escaped(made):
    made.plan["title"] = "<script>alert(1)</script>"
    made.seal()
    assert "<script" not in page(made)


def test_of_what_is_not_sealed_there_is_no_page(made):
    with pytest.raises(NotFound):
        page(made)


def test_it_tells_what_free_text_was_emptied(make_candidate, tmp_path):
    made = make_candidate(tmp_path.as_uri())
    made.seal()
    assert "no approved term" not in page(made)
    made.plan["emptied"] = {"ProtocolName": 40, "SeriesDescription": 1200}
    made.seal()
    assert "emptied: ProtocolName of 40 images, SeriesDescription of 1,200 images." in text(page(made))

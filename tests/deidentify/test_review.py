"""The page an officer reads: what a recipe does, what changes, whom it touches; and nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.deidentify import review as room
from pipeline.deidentify import review_page
from pipeline.deidentify.plan import RECIPES
from pipeline.errors import NotFound, RecipeRefused

CT_CLASS, MR_CLASS = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
LABEL = "<script>alert(1)</script>"


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the CT set: one attribute more, one less, a serial number emptied, a region painted over."""
    base = (RECIPES / "base.dicom").read_text()
    ct = (RECIPES / "ct.dicom").read_text()
    assert "REPLACE DeviceSerialNumber func:device" in base and "KEEP TableHeight\n" in ct
    (tmp_path / "base.dicom").write_text(base.replace("REPLACE DeviceSerialNumber func:device",
                                                      "ADD DeviceSerialNumber var:empty"))
    (tmp_path / "ct.dicom").write_text(
        ct.replace("KEEP TableHeight\n", "# weaker: protocols are compared\nKEEP ProtocolName\n")
        + f"\n%filter one\nLABEL {LABEL}\ncontains Manufacturer ACME\ncoordinates 0,0,200,40\n")
    return tmp_path / "ct.dicom"


@pytest.mark.parametrize("name", sorted(p.name for p in RECIPES.iterdir() if p.suffix in (".dicom", ".toml")))
def test_every_shipped_recipe_can_be_reviewed(name: str) -> None:
    if name == "base.dicom":
        return
    found = room.review([RECIPES / name])
    page = review_page.page(found, None, None, None).decode()
    assert {line.attribute for line in found.lines} >= {"PatientName", "StudyInstanceUID", "AccessionNumber"}
    assert page.count("<tr data-group=") == len(found.lines) > 650
    assert (name.endswith(".toml")) == bool(found.items)
    assert all(name in page for name in found.sop_classes)


def test_every_rule_and_every_row_of_the_table_has_its_line() -> None:
    found = room.review([RECIPES / "mammography.dicom"])
    by_name = {line.attribute: line for line in found.lines}
    assert by_name["PatientID"].words == "Replaced by the person's pseudonym."
    assert by_name["PatientBirthDate"].group == "Emptied"
    assert by_name["CompressionForce"].standard == "not named as identifying"
    assert by_name["PatientAddress"].does == "removed"
    weaker = [line.verdict == "weaker" for line in found.lines]
    assert weaker == sorted(weaker, reverse=True) and any(weaker)       # on top
    assert all(line.reason for line in found.lines if line.verdict == "weaker")


def test_what_changes_is_told_by_meaning(changed: Path) -> None:
    old, new = room.review([RECIPES / "ct.dicom"]), room.review([changed])
    told = {(c.what, c.direction) for c in room.differences(new, old) if c.kind in ("attribute", "pixels")}
    area = "Manufacturer contains “ACME”: painted over: columns 0 to 199, rows 0 to 39"
    assert told == {("ProtocolName", "more"), ("TableHeight", "less"), ("DeviceSerialNumber", "less"), (area, "less")}
    back = {(c.what, c.direction) for c in room.differences(old, new) if c.kind in ("attribute", "pixels")}
    assert back == {(what, "less" if way == "more" else "more") for what, way in told}
    assert room.differences(old, old) == []


def test_a_claim_more_a_reason_changed_and_a_profile_lost_are_told(tmp_path: Path) -> None:
    shutil.copy(RECIPES / "base.dicom", tmp_path)
    text = (RECIPES / "mammography.dicom").read_text()
    why = "# weaker: a number of millimetres"
    assert "# claims: Retain Safe Private Option" in text and why in text
    text = text.replace("# claims:", "# claims: Retain Device Identity Option\n# claims:").replace(why, why + " or two")
    mended = tmp_path / "mammography.dicom"
    mended.write_text(text + "KEEP StationName\n")
    old, new = room.review([RECIPES / "mammography.dicom"]), room.review([mended])
    changes = room.differences(new, old)
    assert [(c.kind, c.what, c.direction) for c in changes] == [
        ("attribute", "StationName", "more"), ("claim", "113109 Retain Device Identity Option", "other"),
        ("reason", "GEMS_SENO_02 49", "other"), ("statement", "113109 Retain Device Identity Option", "other")]
    assert [(code, names) for code, _, _, names in new.options] == [
        ("113108", ["Patient's Sex", "Patient's Age"]), ("113109", ["Station Name"]), ("113111", [
            "Radiological Thickness (private element of GEMS_SENO_02)"])]
    assert "no longer state" not in review_page.page(new, changes, old, None).decode()
    mended.write_text(text + "# weaker: compared\nKEEP InstitutionName\n")
    new = room.review([mended])
    page = review_page.page(new, room.differences(new, old), old, None).decode()
    assert "The objects no longer state any profile of the standard" in page
    more = page[page.index("More exposed</h3>"):page.index("Claims and statements</h3>")]
    assert "Institution Name" in more and "weaker" in more and "compared" in more and "(0008,0080)" in more


def test_text_that_stays_is_named() -> None:
    text = room.review([RECIPES / "mammography.dicom"]).text
    assert {"Manufacturer", "Paddle Description", "Software Versions"} <= {*text}
    assert not {"KVP", "View Position", "Patient ID", "Operators' Name"} & {*text}


def test_reordered_rules_and_comments_change_nothing(tmp_path: Path) -> None:
    shutil.copy(RECIPES / "base.dicom", tmp_path)
    head, _, rules = (RECIPES / "ct.dicom").read_text().partition("%header\n")
    lines = [line for line in rules.splitlines() if line.startswith("KEEP")]
    (tmp_path / "ct.dicom").write_text(head + "%header\n# another\n" + "\n".join(reversed(lines)) + "\n")
    assert room.differences(room.review([tmp_path / "ct.dicom"]), room.review([RECIPES / "ct.dicom"])) == []


def test_concept_rules_that_change_are_told(tmp_path: Path) -> None:
    for name in ("base.dicom", "report.dicom"):
        shutil.copy(RECIPES / name, tmp_path)
    text = (RECIPES / "mammography_cad.toml").read_text()
    assert '"111001 DCM" = {' in text and '[drop.TEXT]\n' in text
    kept = '"121106 DCM" = { meaning = "Comment", why = "tried" }\n'
    text = text.replace('"121106 DCM" = "Comment"\n', "").replace('[keep.TEXT]\n', "[keep.TEXT]\n" + kept)
    (tmp_path / "mammography_cad.toml").write_text(text)
    files = ["base.dicom", "report.dicom", "mammography_cad.toml"]
    new, old = (room.review([folder / name for name in files]) for folder in (tmp_path, RECIPES))
    changes = room.differences(new, old)
    assert [(c.what, c.before, c.direction) for c in changes if c.kind == "report item"] == [
        ("Comment (121106 DCM TEXT)", "Dropped", "more")]
    free = [(item.meaning, item.note) for item in new.items if item.free]
    assert ("Comment", "tried") in free and new.items[0].free
    page = review_page.page(new, changes, old, None).decode()
    shown = page.partition("Free text that stays")[2].partition("</table>")[0]
    assert shown.count("<tr><td>") == len(free) and "tried" in shown


def test_the_page_stands_alone(changed: Path) -> None:
    old, new = room.review([RECIPES / "ct.dicom"]), room.review([changed])
    page = review_page.page(new, room.differences(new, old), old, {}).decode()
    assert LABEL not in page and "&lt;script&gt;alert(1)" in page
    script = re.search("<script>(.*?)</script>", page, re.S)
    policy = re.search('Security-Policy" content="(.*?)"', page)
    assert script and policy
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'".replace("'", "&#39;") in policy[1].replace("'", "&#39;")
    assert not re.search(r"""(src|href)=["'](?!#)""", page) and "http" not in page.replace("http-equiv", "")
    assert page.index('id="changes"') < page.index('id="weaker"') < page.index('id="attributes"')


def facts(path: Path) -> str:
    """55 people with two CT series each, 5 with MR; TableHeight in all but three people's, ProtocolName in four's."""
    rows = []
    for person in range(60):
        for series in range(2):
            rows += [{"patient": f"P{person}", "series": f"{person}.{series}", "TableHeight": ["1"],
                      "SOPClassUID": [CT_CLASS if person < 55 else MR_CLASS],
                      "ProtocolName": ["SECRET"] if person < 4 else None,
                      "StudyID": [""], "StudyTime": [],
                      "XSequence.KVP": ["120"] if person < 20 else None} for _ in range(3)]
            if person in (5, 6, 7):
                for row in rows[-3:]:
                    row["TableHeight"] = None
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path.as_uri()


def test_series_are_counted_and_small_counts_kept_back(tmp_path: Path) -> None:
    names = ["TableHeight", "ProtocolName", "KVP", "Gone", "StudyID", "StudyTime"]
    touched, kinds = review_page.series(facts(tmp_path / "facts.parquet"), names)
    few = f"series of fewer than {review_page.SMALL} people"
    assert kinds == [("CT Image Storage", "110 series of 55 people"), ("MR Image Storage", few)]
    assert touched == {"TableHeight": [("CT Image Storage", "nearly all series"), ("MR Image Storage", few)],
                       "ProtocolName": [("CT Image Storage", few)],
                       "KVP": [("CT Image Storage", "40 series of 20 people")]}
    with pytest.raises(NotFound):
        review_page.series(tmp_path.as_uri(), ["KVP"])


def test_the_command_writes_the_page(tmp_path: Path, changed: Path) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["recipe", "review", str(changed), "--against", str(RECIPES / "ct.dicom"),
                                    "--candidate", facts(tmp_path / "facts.parquet"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "more exposed" in done.output
    page = out.read_text()
    assert "SECRET" not in page and f"series of fewer than {review_page.SMALL} people" in page
    (tmp_path / "bad.dicom").write_text("FORMAT dicom\n%header\nKEEP PatientName\n")
    assert isinstance(CliRunner().invoke(app, ["recipe", "review", str(tmp_path / "bad.dicom"), "--out", str(out)])
                      .exception, RecipeRefused)

"""Approved terms: the list is read strictly, and nothing but its own spellings comes out, whatever went in."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.deidentify.engine import Subject, rewrite
from pipeline.deidentify.keys import Key
from pipeline.deidentify.linter import lint
from pipeline.deidentify.linter import read as read_recipe
from pipeline.deidentify.plan import Op, Plan, compile_rules
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.terms import NOTHING, Terms, looks_like, normal, read
from pipeline.errors import TermsRefused
from pipeline.synthetic import files

PSEUDONYMS = Pseudonyms(Key(b"e" * 32, "terms"))
SUBJECT = Subject(PSEUDONYMS.person("HOSP-A", "1"), PSEUDONYMS, -100, -3600, "HOSP-A")
HEADER = "attribute,term,people,approver,date\n"
GOOD = "SeriesDescription,L MLO,120,R Hale,2026-11-20\n"


def listed(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    path = tmp_path / "terms.csv"
    path.write_text(header + "".join(lines))
    return path


def plan_of(tmp_path: Path, terms: Terms, *more: str) -> Plan:
    path = tmp_path / "own.dicom"
    path.write_text("FORMAT dicom\n%header\nREMOVE ALL\nREPLACE StudyInstanceUID func:uid\n"
                    "REPLACE SeriesInstanceUID func:uid\nREPLACE SOPInstanceUID func:uid\nKEEP SOPClassUID\n"
                    "KEEP PixelData\nREPLACE SeriesDescription func:term\nREPLACE ProtocolName func:term\n"
                    + "".join(line + "\n" for line in more))
    assert lint([path]) == []
    return compile_rules(read_recipe([path]), keep_times=False, terms=terms)


def out(tmp_path: Path, plan: Plan, data: bytes) -> pydicom.Dataset:
    source, target = tmp_path / "in.dcm", tmp_path / "out.dcm"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    rewrite(source, target, plan, SUBJECT)
    return pydicom.dcmread(target)


def test_a_value_stays_only_whole_and_in_the_lists_spelling(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, read(listed(tmp_path, GOOD), 10))
    assert out(tmp_path, plan, files.mammogram(SeriesDescription="  l   mlo ")).SeriesDescription == "L MLO"
    for other in ("L MLO QUILLFEATHER", "L", "LMLO", "L MLO\\R MLO"):
        ours = out(tmp_path, plan, files.mammogram(SeriesDescription=other.split("\\") if "\\" in other else other))
        assert ours.SeriesDescription == "", other
    # approved for one attribute is approved for no other
    assert out(tmp_path, plan, files.mammogram(ProtocolName="L MLO")).ProtocolName == ""
    assert "SeriesDescription" not in out(tmp_path, plan, files.mammogram(SeriesDescription=None))


def test_what_is_emptied_is_counted_by_attribute(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, read(listed(tmp_path, GOOD), 10))
    (tmp_path / "in.dcm").write_bytes(files.mammogram(SeriesDescription="L MLO", ProtocolName="Mrs Quillfeather"))
    done = rewrite(tmp_path / "in.dcm", tmp_path / "out.dcm", plan, SUBJECT)
    assert dict(done.emptied) == {0x00181030: 1}


CHARSETS = ["", "ISO_IR 100", "ISO_IR 13", "ISO_IR 144", "ISO_IR 192", "GB18030", "GBK", "\\ISO 2022 IR 87",
            "\\ISO 2022 IR 149", "ISO 2022 IR 13\\ISO 2022 IR 87"]


@given(st.binary(max_size=30) | st.sampled_from([b"L MLO", b" l\x00 mlo ", b"\x1b(JL MLO", b"\x1b$BL MLO", b"L\\MLO"]),
       st.sampled_from(CHARSETS), st.sampled_from(["explicit", "implicit", "big"]), st.booleans())
@settings(deadline=None)
def test_no_output_is_outside_the_list(raw: bytes, charset: str, syntax: str, nested: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        tmp_path = Path(folder)
        plan = plan_of(tmp_path, read(listed(tmp_path, GOOD), 10), "KEEP ReferencedSeriesSequence")
        marker = b"TERMTERMTERMTERMTERMTERMTERMTERMTERMTERM"[:max(8, len(raw) + len(raw) % 2)]
        raw = raw.ljust(len(marker), b" ")
        place = {"ReferencedSeriesSequence": files.item(SeriesDescription=marker.decode())} if nested else {
            "SeriesDescription": marker.decode()}
        data = files.mammogram(transfer_syntax=syntax, planted=False, SpecificCharacterSet=charset.split("\\"),
                               **{"SeriesDescription": None, **place})
        assert data.count(marker) == 1
        (tmp_path / "in.dcm").write_bytes(data.replace(marker, raw))
        rewrite(tmp_path / "in.dcm", tmp_path / "out.dcm", plan, SUBJECT)
        ours = pydicom.dcmread(tmp_path / "out.dcm")
        within = ours.ReferencedSeriesSequence[0] if nested else ours
        value = within.get_item("SeriesDescription").value or b""
        assert value in (b"", b"L MLO ")
        if raw.isascii() and b"\x1b" not in raw and b"\\" not in raw:
            assert (value != b"") == (normal(raw.decode()) == "l mlo")


REFUSED = {
    "SeriesDescription,LEFT 1234567,40,R Hale,2026-11-20\n": "number of six digits",
    "SeriesDescription,LEFT 12 34 56,40,R Hale,2026-11-20\n": "number of six digits",
    "SeriesDescription,943 476 5919,40,R Hale,2026-11-20\n": "looks like",
    "SeriesDescription,SEEN 12.03.61,40,R Hale,2026-11-20\n": "a date",
    "SeriesDescription,SEEN 12 March 1961,40,R Hale,2026-11-20\n": "a date",
    "SeriesDescription,mail a.b@nhs.example,40,R Hale,2026-11-20\n": "e-mail",
    "SeriesDescription,from SW1A 2AA,40,R Hale,2026-11-20\n": "postcode",
    "SeriesDescription,from OX37LE,40,R Hale,2026-11-20\n": "postcode",
    "SeriesDescription,L MLO,9,R Hale,2026-11-20\n": "not seen in 10 people",
    "SeriesDescription,L MLO,,R Hale,2026-11-20\n": "not seen in 10 people",
    "SeriesDescription,L MLO,120,,2026-11-20\n": "not approved",
    "SeriesDescription,L MLO,120,R Hale,\n": "not approved",
    "SeriesDescription,L MLO,120,R Hale,20.11.2026\n": "not approved",
    "SeriesDescription,L  MLO,120,R Hale,2026-11-20\n": "white space",
    "SeriesDescription,,120,R Hale,2026-11-20\n": "empty",
    "SeriesDescription,Mammo\u00e9,120,R Hale,2026-11-20\n": "character",
    "SeriesDescription,L~MLO,120,R Hale,2026-11-20\n": "character",
    f"SeriesDescription,{'L' * 65},120,R Hale,2026-11-20\n": "longer than the 64",
    "SeriesDescription,=L MLO,120,R Hale,2026-11-20\n": "formula",
    "SeriesDescription,-1+cmd|' /C calc'!A0,120,R Hale,2026-11-20\n": "formula",
    "SeriesDescripton,L MLO,120,R Hale,2026-11-20\n": "none of PS3.6",
    "StudyDate,L MLO,120,R Hale,2026-11-20\n": "none of PS3.6",
    "SeriesDescription,L MLO,120,R Hale\n": "4 cells",
    "SeriesDescription,l mlo,130,R Hale,2026-11-20\n": "already",
}


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_cannot_stand_is_named_and_not_quoted(line: str, tmp_path: Path) -> None:
    path = listed(tmp_path, GOOD, line)
    with pytest.raises(TermsRefused, match=r"terms\.csv:3: ") as caught:
        read(path, 10)
    assert REFUSED[line] in caught.value.message
    term = line.split(",")[1]
    assert not term or term not in str(caught.value)


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    for header in ("attribute,term\n", HEADER.replace("\n", ",extra\n"), "", HEADER.replace("term,", "term,term,")):
        with pytest.raises(TermsRefused, match=r"terms\.csv:1"):
            read(listed(tmp_path, header=header), 10)
    (tmp_path / "terms.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(TermsRefused, match="UTF-8"):
        read(tmp_path / "terms.csv", 10)
    with pytest.raises(TermsRefused, match="cannot be read"):
        read(tmp_path / "absent.csv", 10)
    assert read(None, 10) is NOTHING
    # what a proposal says beside each term may stay
    noted = listed(tmp_path, "SeriesDescription,L MLO,120,500,,R Hale,2026-11-20\n",
                   header="attribute,term,people,series,note,approver,date\n")
    assert read(noted, 10).count == 1


@pytest.mark.parametrize("term", ["L MLO", "T2 3D AX", "CT 1.25 mm", "THORAX 5.0 B31F", "RCC 2D", "T1 TSE 512"])
def test_plain_terms_look_like_nothing(term: str) -> None:
    assert looks_like(term) is None


def test_the_list_is_part_of_the_plan_and_who_approved_is_not(tmp_path: Path) -> None:
    one = plan_of(tmp_path, read(listed(tmp_path, GOOD), 10))
    again = plan_of(tmp_path, read(listed(tmp_path, GOOD.replace("Hale", "Marsh")), 10))
    other = plan_of(tmp_path, read(listed(tmp_path, GOOD, GOOD.replace("L MLO", "R MLO")), 10))
    spelt = plan_of(tmp_path, read(listed(tmp_path, GOOD.replace("L MLO", "l mlo")), 10))
    assert one.id == again.id
    assert len({one.id, other.id, spelt.id, plan_of(tmp_path, NOTHING).id}) == 4
    assert one.acts[0x0008103E].op is Op.TERM


def test_cleaned_descriptors_are_claimed_where_the_standard_has_them(tmp_path: Path) -> None:
    ours = out(tmp_path, plan_of(tmp_path, NOTHING), files.mammogram())
    assert "113105" in {item.CodeValue for item in ours.DeidentificationMethodCodeSequence}
    # Detector ID: removed by the Basic Profile, and no descriptor
    other = plan_of(tmp_path, NOTHING, "# weaker: this test", "REPLACE DetectorID func:term")
    ours = out(tmp_path, other, files.mammogram())
    assert "DeidentificationMethodCodeSequence" not in ours


@pytest.mark.parametrize(("rule", "finding"), [
    ("ADD SeriesDescription func:term", "variable"), ("KEEP SeriesDescription func:term", "keep_value"),
    ("REPLACE PatientID func:term", "term"), ("REPLACE AccessionNumber func:term", "term"),
    ("REPLACE InstitutionName func:term", "term"), ("REPLACE OperatorsName func:term", "value_vr"),
    ("REPLACE StudyDate func:term", "value_vr"), ("REPLACE KVP func:term", "value_vr"),
    ("REPLACE TextValue func:term", "report_value"),
])
def test_the_linter_admits_terms_for_free_text_alone(rule: str, finding: str, tmp_path: Path) -> None:
    path = tmp_path / "own.dicom"
    path.write_text(f"FORMAT dicom\n%header\nREMOVE ALL\n{rule}\n")
    assert [(f.rule, f.line) for f in lint([path])] == [(finding, 4)]

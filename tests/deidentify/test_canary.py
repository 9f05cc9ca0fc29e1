"""Canaries: what is planted in them is found where it comes out, and stops the part; nothing of theirs is kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from pipeline import layout
from pipeline.deidentify import canary, concepts, elements, shard
from pipeline.deidentify.canary import WAYS, Way, make
from pipeline.deidentify.engine import Subject, header_alone, rewrite
from pipeline.deidentify.header import read_header, sop_classes
from pipeline.deidentify.keys import Key
from pipeline.deidentify.linter import read
from pipeline.deidentify.plan import RECIPES, Act, Op, Plan, PlanSet, compile_rules
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.sentinels import PLACES, Sentinels
from pipeline.deidentify.shard import Decided, Job
from pipeline.dicom.file import scan_of
from pipeline.errors import CanarySurfaced
from pipeline.model import Reason, Refusal
from pipeline.schemas import OUTCOMES
from pipeline.storage import open_store, tables
from pipeline.synthetic import files

MG, CT, DOSE, CAD = ("1.2.840.10008.5.1.4.1.1." + end for end in ("1.2", "2", "88.67", "88.50"))
PSEUDONYMS = Pseudonyms(Key(b"e" * 32, "canary"))
MARKS = Sentinels(PSEUDONYMS, 365)


def shipped(*names: str, rules: str | None = None, keep_times: bool = False) -> Plan:
    return compile_rules(read([RECIPES / name for name in names]), keep_times=keep_times,
                         concepts=concepts.read(RECIPES / rules) if rules else None)


PLANS = {MG: shipped("base.dicom", "mammography.dicom"), CT: shipped("base.dicom", "ct.dicom"),
         DOSE: shipped("base.dicom", "report.dicom", rules="dose_report.toml"),
         CAD: shipped("base.dicom", "report.dicom", rules="mammography_cad.toml")}


def found(plan: Plan, sop_class: str, way: Way, tmp_path: Path) -> tuple[str, ...]:
    """Send one canary through, and return the places whose marks came out."""
    one = make(plan, sop_class, MARKS, way)
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(one.data)
    target.unlink(missing_ok=True)
    subject = Subject(MARKS.patient, PSEUDONYMS, MARKS.days, PSEUDONYMS.shift_seconds(MARKS.patient), "X")
    rewrite(source, target, plan, subject)
    return canary.told(one, MARKS.search(target.read_bytes()))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("sop_class", PLANS)
def test_none_surfaces_under_the_recipes_of_the_product(sop_class: str, way: Way, tmp_path: Path) -> None:
    assert found(PLANS[sop_class], sop_class, way, tmp_path) == ()


def test_none_surfaces_under_any_recipe_for_images(tmp_path: Path) -> None:
    """Also where pixels need a rule or a reading first: then the header alone is looked at."""
    subject = Subject(MARKS.patient, PSEUDONYMS, MARKS.days, PSEUDONYMS.shift_seconds(MARKS.patient), "X")
    looked = set()
    for path in sorted(RECIPES.glob("*.dicom")):
        said, _ = read_header(path.read_text(), path.name)
        for turn, name in enumerate(said.sop_classes if path.name != "report.dicom" else ()):
            plan = shipped(*said.behind, path.name)
            one = make(plan, sop_classes()[name.lower()], MARKS, WAYS[turn % 4])
            (tmp_path / "in").write_bytes(one.data)
            out = header_alone(scan_of(tmp_path / "in"), plan, subject)
            assert canary.told(one, MARKS.search(out)) == (), path.name
            looked.add(path.name)
    assert looked >= {"mammography.dicom", "ct.dicom"}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("sop_class", PLANS)
def test_every_place_would_be_seen(sop_class: str, way: Way) -> None:
    """Whatever the engine let through as it stands would be found, and named."""
    one = make(PLANS[sop_class], sop_class, MARKS, way)
    assert MARKS.search(one.data) >= set(range(4, len(one.places)))
    assert 600 < len(one.places) < PLACES
    ds = dcmread(BytesIO(one.data))       # pydicom reads the whole of it
    assert MARKS.word in str(ds.PatientName)
    assert str(ds.PatientName).endswith(MARKS.accented)
    if sop_class == MG:
        assert MARKS.word in str(ds.ViewCodeSequence[0].PatientName)
        assert MARKS.word in str(ds.ViewCodeSequence[0].RequestAttributesSequence[0].PatientName)
        assert ds[0x0045, 0x0010].value == ds.ViewCodeSequence[0][0x0045, 0x0010].value == "GEMS_SENO_02"
        assert MARKS.word.encode() in ds.ViewCodeSequence[0].get_item(0x00091001).value


def act(plan: Plan, keyword: str, op: Op = Op.KEEP) -> Plan:
    """The plan that a linter with a hole in it would let through."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = dictionary_VR(tag).encode()
    return replace(plan, acts={**plan.acts, tag: Act(op, frozenset({vr}), vr)})


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("keyword", [
    "PatientName", "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "InstitutionName",
    "ReferringPhysicianName", "PatientComments", "ImageComments", "StudyDescription", "StudyDate", "StudyTime",
    "InstanceCreationDate", "AdmittingDate", "PatientAddress"])
def test_an_attribute_kept_as_it_is(keyword: str, way: Way, tmp_path: Path) -> None:
    plan = act(PLANS[MG], keyword)
    assert found(plan, MG, way, tmp_path)


@pytest.mark.parametrize("keyword", ["RequestAttributesSequence", "OtherPatientIDsSequence"])
def test_a_sequence_that_is_entered_where_names_are_kept(keyword: str, tmp_path: Path) -> None:
    assert found(act(PLANS[CT], keyword, Op.DESCEND), CT, WAYS[0], tmp_path) == ()
    plan = act(act(PLANS[CT], keyword, Op.DESCEND), "PatientID")
    assert any(place.startswith(f"{keyword}.PatientID") for place in found(plan, CT, WAYS[0], tmp_path))


def test_birth_dates_that_move_and_private_elements_by_number(tmp_path: Path) -> None:
    assert found(act(PLANS[MG], "PatientBirthDate", Op.DATE), MG, WAYS[0], tmp_path)
    assert found(act(PLANS[MG], "InstanceCreationDate", Op.DATE), MG, WAYS[0], tmp_path) == ()    # of the person's own
    private = {**PLANS[MG].private, (0x0045, "GEMS_SENO_02"): frozenset(range(256))}
    # what the officer approved is not planted, another creator's is
    assert found(replace(PLANS[MG], private=private), MG, WAYS[0], tmp_path) == ()


def test_times_that_move_are_no_marks_and_times_that_stay_are(tmp_path: Path) -> None:
    recipe = tmp_path / "times.dicom"
    recipe.write_text("FORMAT dicom\n%header\n# weaker: hours of work are asked for\nREPLACE SeriesTime func:time\n"
                      "# weaker: as SeriesTime\nJITTER AcquisitionDateTime var:days\n")
    plan = compile_rules(read([RECIPES / "base.dicom", recipe]), keep_times=True)
    for way in WAYS:
        assert found(plan, CT, way, tmp_path) == ()
    assert found(act(plan, "SeriesTime"), CT, WAYS[0], tmp_path)


def test_free_text_stays_only_as_it_was_approved(tmp_path: Path) -> None:
    recipe = tmp_path / "text.dicom"
    recipe.write_text("FORMAT dicom\n%header\nREPLACE SeriesDescription func:term\n")
    plan = compile_rules(read([RECIPES / "base.dicom", recipe]), keep_times=False)
    assert found(plan, CT, WAYS[0], tmp_path) == ()


BREAKS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {}


def a_break(function: Callable[[pytest.MonkeyPatch], None]) -> Callable[[pytest.MonkeyPatch], None]:
    BREAKS[function.__name__] = function
    return function


@a_break
def keeps_nested_sequences(patch: pytest.MonkeyPatch) -> None:
    def sequence(work: Any, element: Any, buf: bytes, encoding: Any, depth: int) -> bytes:
        return buf[element[2]:element[4]]
    patch.setattr(elements.Work, "sequence", sequence)


@a_break
def keeps_what_no_rule_names(patch: pytest.MonkeyPatch) -> None:
    whole = elements.Work.level

    def level(work: Any, found: Any, buf: bytes, encoding: Any, depth: int) -> Any:
        out = whole(work, found, buf, encoding, depth)
        return sorted([*out, *((tag, buf[start:end]) for tag, _, start, _, end in found
                               if tag not in work.plan.acts and tag < 0x60000000)])
    patch.setattr(elements.Work, "level", level)


@a_break
def remaps_no_uid(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(elements, "_registered", lambda uid: True)


@a_break
def takes_every_creator_for_the_known_one(patch: pytest.MonkeyPatch) -> None:
    def private(work: Any, found: Any, buf: bytes, encoding: Any) -> Any:
        return [(tag, buf[start:end]) for tag, _, start, _, end in found if tag >> 16 == 0x45]
    patch.setattr(elements.Work, "_private", private)


@a_break
def writes_the_old_preamble(patch: pytest.MonkeyPatch) -> None:
    from pipeline.deidentify import engine

    patch.setattr(engine, "PREAMBLE", MARKS.text(4).encode().ljust(128, b"\0") + b"DICM")


@a_break
def forgets_to_move_dates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(elements.Work, "_move", lambda work, op, raw, tag: raw)


@a_break
def keeps_what_stands_behind_the_pixels(patch: pytest.MonkeyPatch) -> None:
    from pipeline.deidentify import engine

    def longer(source: Any) -> Any:
        source.pixel_end = source.size
        return source
    whole = engine.scan
    patch.setattr(engine, "scan", lambda *args: longer(whole(*args)))


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_engine_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BREAKS[name](monkeypatch)
    assert found(PLANS[MG], MG, WAYS[0], tmp_path)


@pytest.mark.parametrize("attribute", ["_code", "_plain"])
def test_a_broken_reader_of_reports_shows(attribute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.deidentify import report_values

    if attribute == "_plain":
        def plain(values: Any, rule: Any, value_type: str, level: Any) -> Any:
            tag, vr, _ = report_values._PLAIN[value_type]
            return [values._element(tag, vr, level.raw(tag, vr) or b"")]
        monkeypatch.setattr(report_values.Values, "_plain", plain)
    else:
        rules = PLANS[DOSE].concepts
        assert rules
        loose = replace(rules, rules={**rules.rules, (("ZQ1", "99ZQ"), "TEXT"): concepts.ConceptRule("keep")},
                        meanings={**rules.meanings, ("ZQ1", "99ZQ"): "let through"})
        assert found(replace(PLANS[DOSE], concepts=loose), DOSE, WAYS[0], tmp_path)
        return
    assert found(PLANS[DOSE], DOSE, WAYS[0], tmp_path)


# ---- in a part -----------------------------------------------------------------------------------------------------
class Site:
    def __init__(self, folder: Path, plans: dict[str, Plan]) -> None:
        self.folder, self.plans = folder, plans
        self.zones = {zone: open_store((folder / zone).as_uri(), zone) for zone in ("landing", "work", "candidate")}

    def run(self, *objects: bytes, part: str = "p-1") -> dict[str, int]:
        decided = []
        for number, data in enumerate(objects):
            self.zones["landing"].write(f"{number}.dcm", data)
            sop_class = dcmread(BytesIO(data), specific_tags=["SOPClassUID"]).SOPClassUID
            decided.append(Decided({
                "source_uri": f"{self.zones['landing'].url}/{number}.dcm", "bytes": len(data), "issuer": "HOSP-A",
                "source_sha256": hashlib.sha256(data).digest(), "sop_class_uid": str(sop_class),
                "patient_id": "LID4471902"}, ("HOSP-A", "LID4471902"), None))
        job = Job("demo", self.zones["landing"], self.zones["candidate"], PlanSet("r", self.plans), PSEUDONYMS, 365)
        return shard.run(job, self.zones["work"], part, decided)

    def left(self) -> list[str]:
        return [entry.key for zone in ("work", "candidate") for entry in self.zones[zone].list("")]


def test_a_part_holds_nothing_of_its_canaries(tmp_path: Path) -> None:
    site = Site(tmp_path, PLANS)
    assert site.run(files.mammogram(), files.ct(), files.dose_report(), files.cad()) == {"pending": 4}
    rows = tables.read(site.zones["work"], layout.outcomes("demo", "p-1")).to_pylist()
    assert len(rows) == 4
    canary.absent(site.zones["work"], [layout.outcomes("demo", "p-1")], MARKS)
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not [mark for mark in MARKS.marks if mark.lower().encode() in everything.lower()]
    assert not MARKS.search(b"".join(path.read_bytes() for path in tmp_path.rglob("*.dcm")))


@pytest.mark.parametrize(("column", "value"), [
    ("patient", MARKS.patient), ("study", PSEUDONYMS.uid(MARKS.uid(1))), ("instance", PSEUDONYMS.uid(MARKS.uid(3))),
    ("output_key", f"demo/parts/p-1/dicom/{MARKS.patient}/2.25.1/2.25.2/2.25.3.0.dcm")])
def test_a_canary_among_the_outcomes_is_no_candidate(column: str, value: str, tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), "work")
    row = {"source_uri": "file:///x", "source_sha256": b"0" * 32, "status": "pending", column: value}
    tables.write(store, "one.parquet", tables.from_rows(OUTCOMES, [row]))
    with pytest.raises(CanarySurfaced, match="among the objects"):
        canary.absent(store, ["one.parquet"], MARKS)
    tables.write(store, "one.parquet", tables.from_rows(OUTCOMES, [row | {column: "other"}]))
    canary.absent(store, ["one.parquet"], MARKS)


def test_a_weakened_recipe_stops_the_part(tmp_path: Path) -> None:
    recipe = tmp_path / "weak.dicom"
    recipe.write_text("FORMAT dicom\n%header\n# weaker: somebody found it handy\nKEEP PatientComments\n")
    weak = compile_rules(read([RECIPES / "base.dicom", RECIPES / "mammography.dicom", recipe]), keep_times=False)
    site = Site(tmp_path, {MG: weak})
    with pytest.raises(CanarySurfaced, match=r"weak\.dicom: what was planted in PatientComments, ") as caught:
        site.run(files.mammogram())
    assert site.left() == []
    assert MARKS.word not in str(caught.value)
    assert Site(tmp_path, PLANS).run(files.mammogram()) == {"pending": 1}       # mended, it goes on


def test_a_broken_engine_stops_the_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_nested_sequences(monkeypatch)
    site = Site(tmp_path, PLANS)
    with pytest.raises(CanarySurfaced, match=r"Sequence\."):
        site.run(files.mammogram())
    assert site.left() == []


def test_a_canary_that_is_refused_shows_nothing_and_stops_what_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shard.rewrite

    def refusing(source: Path, *args: Any, **options: Any) -> Any:
        if source.name == "canary":
            raise Refusal(Reason.ENGINE_FAILED)
        return real(source, *args, **options)

    def fails(*_: Any) -> Any:
        raise Refusal(Reason.VALUE_MALFORMED)

    monkeypatch.setattr(shard, "rewrite", refusing)
    site = Site(tmp_path, PLANS)
    assert site.run(files.mammogram()) == {"pending": 1}     # its header was looked at all the same
    monkeypatch.setattr(shard, "header_alone", fails)
    with pytest.raises(CanarySurfaced, match="shows nothing"):
        site.run(files.mammogram(), part="p-2")
    assert not [key for key in site.left() if key.endswith("p-2/outcomes.parquet")]
    # where nothing passes there is nothing to show
    assert site.run(files.mammogram(BurnedInAnnotation="YES"), part="p-3") == {"quarantined/pixels_need_cleaning": 1}


def test_every_way_has_its_turn(tmp_path: Path) -> None:
    ways = {canary.flock(PLANS, [MG], MARKS, turn)[0].way for turn in range(8)}
    assert ways == {way.name for way in WAYS}
    assert [one.plan.id for one in canary.flock(PLANS, [MG, CT, MG, "1.2.3"], MARKS, 5)] == sorted(
        {PLANS[MG].id, PLANS[CT].id})


def test_marks_are_the_keys_own() -> None:
    other = Sentinels(Pseudonyms(Key(b"f" * 32, "other")), 365)
    for name in ("word", "number", "root", "patient", "time"):
        assert getattr(other, name) != getattr(MARKS, name)
    assert Sentinels(Pseudonyms(Key(b"e" * 32, "canary")), 365).marks == MARKS.marks


@given(st.binary(min_size=32, max_size=64), st.sampled_from([
    lambda s: s.text(77).lower().encode(), lambda s: s.text(77).encode("utf-16-be"), lambda s: s.accented.encode(),
    lambda s: s.accented.upper().encode("latin-1"), lambda s: s.uid(77).encode(), lambda s: s.number.encode(),
    lambda s: f"{s.birth:%Y%m%d}".encode(), lambda s: f"{s.day(77):%Y%m%d}".encode(), lambda s: s.time.encode()]),
    st.binary(max_size=40).filter(lambda b: not b[-1:].isdigit() and b[-1:] != b"."), st.binary(max_size=40))
def test_a_mark_is_found_in_any_bytes(secret: bytes, mark: Any, before: bytes, after: bytes) -> None:
    marks = Sentinels(Pseudonyms(Key(secret, "x")), 365)
    assert marks.search(before + mark(marks) + after)


def test_nothing_else_is_taken_for_a_mark() -> None:
    noise = b"".join(hashlib.sha256(bytes([n])).hexdigest().encode() for n in range(200)) + os.urandom(1 << 16)
    assert MARKS.search(noise + b"2.25.18612634455254269524 19050101 ZQQBXH") == set()
    whole = b"".join((RECIPES / name).read_bytes() for name in ("base.dicom", "mammography.dicom"))
    assert MARKS.search(whole) == set()

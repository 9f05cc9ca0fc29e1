"""Structured reports by concept rules: what of a content tree passes, and that what passes is a tree."""

import hashlib
import io

import pydicom
import pytest
import reports_kit as kit
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.sr.coding import Code
from reports_kit import (
    CONTAINS,
    CONTEXT,
    DCM,
    MGY,
    MODIFIER,
    SCT,
    code,
    container,
    image,
    item,
    num,
    refers,
    report,
    said,
    text,
)

from pipeline import layout
from pipeline.deidentify import second_look
from pipeline.deidentify.content import extract
from pipeline.deidentify.keys import Key
from pipeline.deidentify.plan import RECIPES, PlanSet
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.shard import Decided, Job, run
from pipeline.model import Reason, Refusal
from pipeline.storage import open_store, tables
from pipeline.synthetic import files

DOSE = "1.2.840.10008.5.1.4.1.1.88.67"
NOT_LISTED = Code("4471", "99VENDOR", "Larkspur^Olwen")
GLANDULAR = DCM.AverageGlandularDose


@pytest.fixture(scope="module")
def plan():
    return kit.compiled(RECIPES / "dose_report.toml")


@pytest.fixture
def engine(tmp_path, pseudonyms, plan):
    return kit.Engine(tmp_path, plan, pseudonyms)


@pytest.fixture
def refused(engine):
    def refused(data):
        with pytest.raises(Refusal) as refusal:
            engine(data)
        assert not engine.folder.joinpath("out.dcm").exists()
        return refusal.value.reason
    return refused


# ---- one item at a time --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("given, kept", [
    (num(DCM.KVP, "28", Code("kV", "UCUM", "kV")), "28 kV"),
    (num(DCM.KVP, "28", Code("kV", "99X", "kV")), None),
    (num(DCM.KVP, "28", Code("Larkspur", "UCUM", "kV")), None),
    (num(Code("113733", "99X", "KVP"), "28", Code("kV", "UCUM", "kV")), None),
    (said(DCM.XRayGrid, DCM.FixedGrid), "111641"),
    (said(DCM.XRayGrid, Code("gridin", "99HOLX", "Grid in")), "gridin"),
    (said(DCM.XRayGrid, Code("gridout", "99HOLX", "Grid out")), None),
    (said(DCM.XRayGrid, Code("", "", "Larkspur")), None),
    (item(CONTAINS, "CODE", DCM.XRayGrid, ConceptCodeSequence=[]), None),
    (said(SCT.AnatomicalStructure, Code("T-04000", "SRT", "Breast")), "T-04000"),
    (said(Code("T-D0005", "SRT", "Anatomy"), Code("T-04000", "SNM3", "Breast")), "T-04000"),
    (text(DCM.Comment, "Larkspur moved"), None),
    (text(DCM.AcquisitionProtocol, "ROUTINE"), "ROUTINE"),
    (text(DCM.AcquisitionProtocol, "ROUTINE Larkspur"), None),
    (text(DCM.PersonName, "Larkspur", kind="TEXT"), None),
    (text(DCM.DatetimeStarted, "20180614101500", kind="DATETIME"), "20180306"),
    (text(DCM.DatetimeStarted, "in June", kind="DATETIME"), None),
    (text(DCM.CalibrationDatetime, "20180614", kind="DATETIME"), None),
    (text(DCM.DatetimeStarted, "20180614", kind="DATE"), None),
    (text(DCM.IrradiationEventUID, "1.2.840.10008.1.1", kind="UIDREF"), "1.2.840.10008.1.1"),
    (text(DCM.IrradiationEventUID, "11090", kind="UIDREF"), None),
    (text(DCM.IrradiationEventUID, "", kind="UIDREF"), None),
    (item(CONTAINS, "WAVEFORM", DCM.KVP), None),
    (item(CONTAINS, "TEXT", NOT_LISTED, TextValue="x"), None),
], ids=lambda given: given.ValueType if isinstance(given, pydicom.Dataset) else str(given))
def test_a_value_passes_as_its_rule_says(engine, given, kept):
    out = engine(report(given))
    found = [kit.tree(child)[2] for child in out.get("ContentSequence", ())]
    assert found == ([kept] if kept else [])
    assert engine.tally.kept == 1 + len(found) and engine.tally.dropped.total() == 1 - len(found)
    assert b"Larkspur" not in engine.raw


@pytest.mark.parametrize("number", ["1.5 ", "1e-3", "-0.5", ".5", "+1"])
def test_a_number_keeps_its_value(engine, number):
    out = engine(report(num(GLANDULAR, number, MGY)))
    assert out.ContentSequence[0].MeasuredValueSequence[0].NumericValue == float(number)


@pytest.mark.parametrize("number", ["1,5", "Larkspur", "1\\2", "NaN", "12345678901234567", "943 476 5919"])
def test_what_is_no_decimal_string_is_dropped(engine, number):
    odd = num(GLANDULAR, "1.5", MGY)
    odd.MeasuredValueSequence[0].add_new(0x0040A30A, "UT", number)     # implicit VR does not show it
    out = engine(report(odd, syntax="implicit"))
    assert "ContentSequence" not in out and engine.tally.dropped == {"malformed": 1}


def test_an_empty_number_stands_and_a_qualifier_with_it(engine):
    qualifier = code(DCM.MeasurementFailure)
    out = engine(report(item(CONTAINS, "NUM", GLANDULAR, MeasuredValueSequence=[],
                             NumericValueQualifierCodeSequence=qualifier)))
    assert list(out.ContentSequence[0].MeasuredValueSequence) == []
    assert out.ContentSequence[0].NumericValueQualifierCodeSequence[0].CodeMeaning == "Measurement failure"


def test_meanings_are_the_dictionary_s_and_never_the_report_s(engine):
    out = engine(report(
        num(Code("111631", "DCM", "Larkspur"), "1", Code("mGy", "UCUM", "Larkspur"),
            said(Code("G-C171", "SRT", "Larkspur"), Code("T-04020", "SRT", "Larkspur"), relation=MODIFIER)),
        title=Code("113701", "DCM", "Larkspur")))
    assert b"Larkspur" not in engine.raw
    dose = out.ContentSequence[0]
    assert dose.ConceptNameCodeSequence[0].CodeMeaning == "Average Glandular Dose"
    side = dose.ContentSequence[0]
    assert (side.ConceptNameCodeSequence[0].CodeMeaning, side.ConceptCodeSequence[0].CodeMeaning,
            side.ConceptCodeSequence[0].CodingSchemeDesignator) == ("Laterality", "Right breast", "SRT")


def test_of_a_code_only_value_scheme_and_meaning_pass(engine):
    given = said(DCM.XRayGrid, DCM.FixedGrid)
    answer = given.ConceptCodeSequence[0]
    answer.CodingSchemeVersion, answer.MappingResource, answer.ContextUID = "Larkspur", "LARKSPUR", "1.2.3.4.5.6.7"
    answer.EquivalentCodeSequence = code(("1", "99X", "Larkspur"))
    given.add_new(0x00091010, "LO", "Larkspur")
    given.ReferencedSOPSequence = image("1.2.3").ReferencedSOPSequence
    out = engine(report(given))
    assert [e.keyword for e in out.ContentSequence[0].ConceptCodeSequence[0]] == [
        "CodeValue", "CodingSchemeDesignator", "CodeMeaning"]
    assert b"arkspur" not in engine.raw.lower().replace(b"l", b"") and b"LARKSPUR" not in engine.raw
    assert "ReferencedSOPSequence" not in out.ContentSequence[0]


def test_a_rule_may_list_the_answers_and_the_templates(tmp_path, pseudonyms):
    rules = (RECIPES / "dose_report.toml").read_text().replace(
        '"111635 DCM" = "X-Ray Grid"', '"111635 DCM" = { meaning = "X-Ray Grid", values = ["111646 DCM"] }')
    (tmp_path / "rules.toml").write_text(rules)
    engine = kit.Engine(tmp_path, kit.compiled(tmp_path / "rules.toml"), pseudonyms)
    filters = [container(DCM.XRayFilters), container(DCM.XRayFilters)]
    for ds, template in zip(filters, ("10003", "4711"), strict=True):
        ds.ContentTemplateSequence = [pydicom.Dataset()]
        ds.ContentTemplateSequence[0].MappingResource = "DCMR"
        ds.ContentTemplateSequence[0].TemplateIdentifier = template
    out = engine(report(said(DCM.XRayGrid, DCM.FixedGrid), said(DCM.XRayGrid, DCM.NoGrid), *filters))
    assert [kit.tree(ds)[2] for ds in out.ContentSequence if ds.ValueType == "CODE"] == ["111646"]
    assert engine.tally.dropped == {"code_not_listed": 1}
    rows = extract(engine.raw, engine.result.encoding).to_pylist()
    assert [row["template"] for row in rows] == ["10001", None, "10003", None]


# ---- what an item stands beside ------------------------------------------------------------------------------------
def test_a_device_is_known_by_the_pseudonym_of_headers(engine, pseudonyms):
    observer = [said(DCM.ObserverType, DCM.Device, relation=CONTEXT)]
    first = [text(DCM.DeviceObserverManufacturer, "ACME"), text(DCM.DeviceObserverModelName, "Selenia"),
             text(DCM.DeviceObserverSerialNumber, "X 1")]
    second = [text(DCM.DeviceObserverSerialNumber, "x  1"), text(DCM.DeviceObserverManufacturer, "Other")]
    third = [text(DCM.DeviceObserverSerialNumber, " ")]
    out = engine(report(*observer, *first, *observer, *second, *observer, *third))
    serials = [str(i.TextValue) for i in out.ContentSequence
               if i.ConceptNameCodeSequence[0].CodeValue == "121016"]
    assert serials == [pseudonyms.device("acme", "SELENIA", "x 1"), pseudonyms.device("Other", "", "X 1")]
    assert engine.tally.dropped == {"no_value": 1} and engine.tally.below == 0


def test_observers_are_pseudonyms_and_nobody_has_verified_it(engine, pseudonyms):
    data = files.dose_report(quirk="verified")
    out = engine(data)
    names = [str(i.PersonName) for i in kit.walk(out) if i.get("ValueType") == "PNAME"]
    assert names == [pseudonyms.operator("HOSP-A", str(pydicom.dcmread(io.BytesIO(data)).OperatorsName))]
    assert out.VerificationFlag == "UNVERIFIED" and "VerifyingObserverSequence" not in out
    for word in files.sentinels():
        assert word.encode() not in engine.raw


def test_a_modifier_that_cannot_pass_takes_its_number_with_it(engine):
    secret = said(SCT.Laterality, Code("L", "99X", "left"), relation=MODIFIER)
    unknown = text(NOT_LISTED, "left", relation=MODIFIER)
    dropped = said(DCM.LanguageOfContentItemAndDescendants, Code("en", "RFC5646", "English"), relation=MODIFIER)
    out = engine(report(
        num(GLANDULAR, "1", MGY, secret), num(GLANDULAR, "2", MGY, unknown), num(GLANDULAR, "3", MGY, dropped),
        container(DCM.XRayFilters, secret, num(DCM.XRayFilterThicknessMinimum, "4", Code("mm", "UCUM", "mm")))))
    assert [kit.tree(i)[2] for i in kit.walk(out) if i.ValueType == "NUM"] == ["3 mGy", "4 mm"]
    assert engine.tally.dropped == {"modifier_lost": 2, "code_not_listed": 2, "not_listed": 1, "by_rule": 1}
    assert (engine.tally.items, engine.tally.kept, engine.tally.below) == (10, 4, 0)


def test_with_an_item_goes_all_below_it(engine):
    inner = container(DCM.XRayFilters, num(GLANDULAR, "1", MGY), text(DCM.Comment, "x"))
    out = engine(report(container(NOT_LISTED, inner, num(GLANDULAR, "1", MGY)), num(GLANDULAR, "2", MGY)))
    assert [kit.tree(i) for i in out.ContentSequence] == [("NUM", "111631", "2 mGy", [])]
    assert (engine.tally.items, engine.tally.kept, engine.tally.dropped, engine.tally.below) == (
        7, 2, {"not_listed": 1}, 4)


def test_evidence_and_references_are_renamed_alike(engine, pseudonyms):
    study, series, instance = "1.2.3.1", "1.2.3.2", "1.2.3.3"
    evidence, of_series = pydicom.Dataset(), pydicom.Dataset()
    of_series.SeriesInstanceUID, of_series.RetrieveAETitle = series, "LARKSPUR"
    of_series.ReferencedSOPSequence = image(instance).ReferencedSOPSequence
    evidence.StudyInstanceUID, evidence.ReferencedSeriesSequence = study, [of_series]
    out = engine(report(image(instance, name=DCM.AcquiredImage), CurrentRequestedProcedureEvidenceSequence=[evidence],
                        PredecessorDocumentsSequence=[evidence], PertinentOtherEvidenceSequence=[evidence]))
    new = pseudonyms.uid(instance)
    assert out.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == new
    kept = out.CurrentRequestedProcedureEvidenceSequence[0]
    assert kept.StudyInstanceUID == pseudonyms.uid(study)
    assert kept.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == new
    assert not {"PredecessorDocumentsSequence", "PertinentOtherEvidenceSequence"} & {e.keyword for e in out}
    assert b"1.2.3.3" not in engine.raw and b"LARKSPUR" not in engine.raw


# ---- references between items --------------------------------------------------------------------------------------
@pytest.fixture
def cad(tmp_path, pseudonyms):
    return kit.Engine(tmp_path, kit.compiled(RECIPES / "mammography_cad.toml"), pseudonyms)


def _mark(*place):
    drawn = item("HAS PROPERTIES", "SCOORD", DCM.Center, refers("SELECTED FROM", *place), GraphicType="POINT",
                 GraphicData=[165.0, 2433.0])
    return said(DCM.SingleImageFinding, SCT.CalcificationCluster, drawn)


def test_what_refers_to_an_item_finds_it_where_it_went(cad):
    library = container(DCM.ImageLibrary, text(DCM.Comment, "x"), image("1.2.3.1"), image("1.2.3.2"))
    out = cad(report(text(DCM.Comment, "x"), library, _mark(1, 2, 3), _mark(1, 2, 1), _mark(1, 9),
                     title=DCM.MammographyCADReport))
    first, *marks = out.ContentSequence
    assert len(first.ContentSequence) == 2
    assert [kit.tree(mark)[3] for mark in marks] == [
        [("SCOORD", "111010", None, [("REFERENCE", None, [1, 1, 2], [])])], [], []]
    assert cad.tally.dropped == {"by_rule": 2, "reference_lost": 4}
    rows = {row["value_type"]: row for row in extract(cad.raw, cad.result.encoding).to_pylist()}
    assert rows["REFERENCE"]["text"] == str(rows["IMAGE"]["node"]) and rows["IMAGE"]["node"] == 4
    assert rows["SCOORD"]["text"] == "POINT 165 2433"


def test_a_cad_report_passes_with_its_findings(cad):
    out = cad(files.cad())
    assert {"IMAGE", "CODE", "CONTAINER"} <= {i.ValueType for i in kit.walk(out)}
    assert cad.tally.dropped == {}


# ---- what is refused -----------------------------------------------------------------------------------------------
def test_a_tree_that_breaks_the_standard_is_refused(refused):
    good = num(GLANDULAR, "1", MGY)
    no_name, no_relation, bad_type, bad_relation = (num(GLANDULAR, "1", MGY) for _ in range(4))
    del no_name.ConceptNameCodeSequence, no_relation.RelationshipType
    bad_type.ValueType, bad_relation.RelationshipType = "GUESS", "NEAR"
    for one in (no_name, no_relation, bad_type, bad_relation):
        assert refused(report(good, one)) is Reason.REPORT_MALFORMED
        assert refused(report(good, container(DCM.XRayFilters, one))) is Reason.REPORT_MALFORMED
    assert refused(report(good, ValueType="TEXT")) is Reason.REPORT_MALFORMED
    assert refused(report(good, ContinuityOfContent="LARKSPUR")) is Reason.REPORT_MALFORMED


def test_another_title_is_refused(refused):
    assert refused(report(title=DCM.MammographyCADReport)) is Reason.REPORT_NOT_COVERED
    assert refused(report(title=Code("113701", "99X", "X-Ray Radiation Dose Report"))) is Reason.REPORT_NOT_COVERED


def test_pixels_in_a_report_are_refused(refused):
    assert refused(report(BitsAllocated=8, PixelRepresentation=0, PixelData=b"\0\0")) is Reason.UNSUPPORTED_STRUCTURE


def test_nesting_has_a_limit(refused, engine):
    def nest(depth):
        return container(DCM.XRayFilters, *([nest(depth - 1)] if depth > 1 else [num(GLANDULAR, "1", MGY)]))

    engine(report(nest(28)))
    assert engine.tally.kept == 30
    assert refused(report(nest(33))) is Reason.NESTING_TOO_DEEP


@pytest.mark.parametrize("syntax", ["implicit", "big", "deflated"])
def test_other_encodings_say_the_same(engine, syntax):
    content = (num(GLANDULAR, "1.5", MGY, said(SCT.Laterality, SCT.LeftBreast, relation=MODIFIER)),
               image("1.2.3.4", name=DCM.AcquiredImage), text(DCM.DeviceObserverManufacturer, "Älg"))
    plain = engine(report(*content))
    other = engine(report(*content, syntax=syntax))
    assert [kit.tree(i) for i in other.ContentSequence] == [kit.tree(i) for i in plain.ContentSequence]
    assert other.ContentSequence[2].TextValue == "Älg"


# ---- any tree ------------------------------------------------------------------------------------------------------
MARK = "LARKSPUR"
LISTED = [num(GLANDULAR, "1.25", MGY), said(DCM.XRayGrid, DCM.FixedGrid),
          container(DCM.XRayFilters), text(DCM.IrradiationEventUID, "1.2.3.4.5", kind="UIDREF"),
          image("1.2.3.6", name=DCM.AcquiredImage), said(SCT.Laterality, SCT.LeftBreast),
          text(DCM.AcquisitionProtocol, "ROUTINE"), text(DCM.DeviceObserverSerialNumber, MARK),
          text(DCM.DatetimeStarted, "20180614101500", kind="DATETIME"),
          text(DCM.PersonObserverName, MARK, kind="PNAME")]
OTHERS = [text(DCM.DatetimeStarted, "2018", kind="TEXT"),
          num(Code("1", "99X", MARK), "1", MGY), num(GLANDULAR, "2", Code("1", "99X", MARK)),
          said(DCM.XRayGrid, Code("1", "99X", MARK)), text(DCM.Comment, MARK), text(NOT_LISTED, MARK),
          container(Code("1", "99X", MARK)), text(DCM.AcquisitionProtocol, MARK),
          text(DCM.IrradiationEventUID, MARK, kind="UIDREF"), item(CONTAINS, "TABLE"),
          text(DCM.PersonName, MARK, kind="TEXT"), item(CONTAINS, "IMAGE", ReferencedSOPSequence=[]),
          item(CONTAINS, "SCOORD", DCM.Center, GraphicType=MARK, GraphicData=[1.0, 2.0])]
RELATIONS = ["CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES", "INFERRED FROM", "SELECTED FROM"]


def _grown(children):
    def grow(parts):
        one, relation, below = parts
        ds = pydicom.Dataset()
        ds.update(one)
        ds.RelationshipType = relation
        if below and "ReferencedContentItemIdentifier" not in ds:
            ds.ContentSequence = below
        return ds

    references = st.lists(st.integers(1, 4), max_size=3).map(lambda place: refers(CONTAINS, 1, *place))
    return st.tuples(st.one_of(st.sampled_from(LISTED), st.sampled_from(OTHERS), references),
                     st.sampled_from(RELATIONS), children).map(grow)


TREES = st.lists(st.recursive(_grown(st.just([])), lambda inner: _grown(st.lists(inner, max_size=4)), max_leaves=25),
                 max_size=5)


def _place(ds, place):
    for number in place[1:]:
        ds = ds.ContentSequence[number - 1]
    return ds


@given(TREES, st.sampled_from(["explicit", "implicit"]))
@settings(max_examples=80, deadline=None)
def test_any_tree_comes_out_as_a_tree_of_listed_items(tmp_path_factory, plan, content, syntax):
    engine = kit.Engine(tmp_path_factory.mktemp("tree"), plan, Pseudonyms(Key(bytes(range(32)), "k")))
    data = report(*content, syntax=syntax)
    out = engine(data)
    assert MARK.encode() not in engine.raw and b"1.2.3.4.5" not in engine.raw
    given_items, kept_items = list(kit.walk(pydicom.dcmread(io.BytesIO(data)))), list(kit.walk(out))
    tally = engine.tally
    assert (tally.items, tally.kept) == (len(given_items), len(kept_items))
    assert tally.kept + tally.dropped.total() + tally.below == tally.items and tally.below >= 0
    rules = engine.plan.concepts
    for kept in kept_items[1:]:
        assert kept.RelationshipType in RELATIONS
        if "ReferencedContentItemIdentifier" in kept:
            place = kept.ReferencedContentItemIdentifier
            there = _place(out, [place] if isinstance(place, int) else place)
            assert "ValueType" in there
            continue
        name = kept.ConceptNameCodeSequence[0]
        rule = rules.rule((name.CodeValue, name.CodingSchemeDesignator), kept.ValueType)
        assert rule and rule.action != "drop"
        value = {"NUM": "MeasuredValueSequence", "CODE": "ConceptCodeSequence", "TEXT": "TextValue",
                 "PNAME": "PersonName", "UIDREF": "UID", "DATETIME": "DateTime", "IMAGE": "ReferencedSOPSequence",
                 "CONTAINER": "ContinuityOfContent"}[kept.ValueType]
        assert value in kept
    rows = extract(engine.raw, engine.result.encoding).to_pylist()
    assert [(r["node"], r["value_type"], r["concept"]) for r in rows] == [
        (n, ds.get("ValueType", "REFERENCE"), ds.ConceptNameCodeSequence[0].CodeValue if "ValueType" in ds else None)
        for n, ds in enumerate(kept_items, 1)]


# ---- a part --------------------------------------------------------------------------------------------------------
@pytest.fixture
def part(tmp_path, pseudonyms, plan):
    """Return a function that de-identifies objects of one person: counts, content, outcomes, outputs, facts."""
    zones = {zone: open_store((tmp_path / zone).as_uri(), zone) for zone in ("landing", "work", "candidate")}

    def do(*objects):
        decided = []
        for number, data in enumerate(objects):
            zones["landing"].write(f"{number}.dcm", data)
            row = {"source_uri": f"{zones['landing'].url}/{number}.dcm", "bytes": len(data), "issuer": "HOSP-A",
                   "source_sha256": hashlib.sha256(data).digest(), "sop_class_uid": DOSE, "patient_id": "LID4471902"}
            decided.append(Decided(row, ("HOSP-A", "LID4471902"), None))
        job = Job("sr", zones["landing"], zones["candidate"], PlanSet("r", {DOSE: plan}), pseudonyms, 365)
        counts = run(job, zones["work"], "p-1", decided)
        key = layout.content("sr", "p-1")
        content = tables.read(zones["candidate"], key).to_pylist() if zones["candidate"].stat(key) else None
        outcomes = tables.read(zones["work"], layout.outcomes("sr", "p-1")).to_pylist()
        outputs = [pydicom.dcmread(io.BytesIO(zones["candidate"].read(o["output_key"]))) for o in outcomes
                   if o["output_key"]]
        return counts, content, outcomes, outputs, tables.read(zones["candidate"], layout.facts("sr", "p-1"))
    return do


def test_a_part_says_what_its_reports_hold(part):
    one, two = files.dose_report(), report(num(GLANDULAR, "1.25", MGY), SOPInstanceUID="1.2.3.4.99")
    counts, content, outcomes, outputs, facts = part(one, two, report(title=NOT_LISTED, SOPInstanceUID="1.2.3.4.98"))
    assert counts == {"pending": 2, "quarantined/report_not_covered": 1}
    assert [o["items"] for o in outcomes][1:] == [2, None] and outcomes[1]["items_dropped"] == 0
    assert len(content) == outcomes[0]["items"] + 2
    assert content == sorted(content, key=lambda row: (row["instance"], row["node"]))
    by_instance = {ds.SOPInstanceUID: ds for ds in outputs}
    for row in content:
        ds = by_instance[row["instance"]]
        assert (row["patient"], row["study"]) == (ds.PatientID, ds.StudyInstanceUID)
    dose = [row for row in content if row["concept"] == "111631" and row["number"] == "1.25"]
    assert [(r["unit"], r["concept_meaning"], r["parent"], r["depth"], r["relationship"]) for r in dose] == [
        ("mGy", "Average Glandular Dose", 1, 1, "CONTAINS")]
    assert not [name for name in facts.column_names if name.startswith("ContentSequence")]


def test_a_part_without_reports_has_no_content(part):
    assert part(report(title=NOT_LISTED))[1] is None


def test_an_event_of_a_report_and_of_an_image_stay_one(part, pseudonyms):
    content = part(report(text(DCM.IrradiationEventUID, "1.2.3.4.5", kind="UIDREF"), IrradiationEventUID="1.2.3.4.5"))
    (event,) = (row["text"] for row in content[1] if row["concept"] == "113769")
    assert event == content[3][0].IrradiationEventUID == pseudonyms.uid("1.2.3.4.5")


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
@pytest.mark.parametrize("where, outcome", [
    (said(DCM.XRayGrid, DCM.FixedGrid), "pending"),             # the dictionary's word
    (text(DCM.DeviceObserverModelName, "fixed to the wall"), "quarantined/residual_identifier"),
])
def test_a_dictionary_s_word_is_nobody_s_name_but_in_free_text_it_is(part, where, outcome, syntax):
    assert part(report(where, PatientName="FIXED^OLWEN", syntax=syntax))[0] == {outcome: 1}


@pytest.mark.parametrize("value, meaning, found", [("111641", "Fixed grid", False), ("111641", "Fixed grids", True),
                                                   ("111640", "Fixed grid", True), ("111641", "Grid of Fixed", True)])
def test_only_the_meaning_that_the_dictionary_gives_the_code_is_passed_over(plan, value, meaning, found):
    data = report(said(DCM.XRayGrid, Code(value, "DCM", meaning)))
    tokens = second_look.Tokens.of([("name", "FIXED")], vocabulary=plan.concepts.vocabulary())
    assert ("name" in {hit.kind for hit in second_look.search(data, tokens)}) == found


@pytest.mark.parametrize("tell", [
    lambda word: {"content": [text(DCM.PersonObserverName, word, kind="PNAME")]},
    lambda word: {"VerifyingObserverSequence": [_observer(word)]},
])
def test_names_below_the_top_are_searched_for(part, tell):
    told = tell("Vermilingua^Ada")
    kept = text(DCM.DeviceObserverModelName, "as Vermilingua likes it")
    assert part(report(kept, *told.pop("content", ()), **told))[0] == {"quarantined/residual_identifier": 1}


def _observer(name):
    ds = pydicom.Dataset()
    ds.VerifyingObserverName = name
    return ds


@pytest.mark.long
def test_a_report_of_160_000_items_passes_within_the_limits(part):
    event = container(DCM.IrradiationEventXRayData, *(num(GLANDULAR, "1.25", MGY, said(SCT.Laterality, SCT.LeftBreast,
                      relation=MODIFIER)) for _ in range(20)), text(DCM.Comment, MARK))
    raw = report(event)
    start = raw.index(b"\x40\x00\x30\xa7SQ") + 12     # the first is the top's
    end = start + int.from_bytes(raw[start - 4:start], "little")
    items = raw[start:end] * 3810
    data = raw[:start - 4] + len(items).to_bytes(4, "little") + items + raw[end:]
    counts, content, outcomes, *_ = part(data)
    assert counts == {"pending": 1}
    assert (outcomes[0]["items"], outcomes[0]["items_dropped"]) == (1 + 41 * 3810, 3810)
    assert len(content) == 1 + 41 * 3810

"""Which images and events are one irradiation, and what is taken of each; hand-made headers and reports."""

from collections import Counter
from decimal import Decimal

import dose_kit as kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import layout
from pipeline.curate import terms, units
from pipeline.curate.build import build
from pipeline.curate.limits import QUANTITIES
from pipeline.errors import NotFound

MG = {
    "Modality": ["MG"], "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.1.2"], "Manufacturer": ["HOLOGIC, Inc."],
    "ImageLaterality": ["L"], "ViewPosition": ["CC"], "PresentationIntentType": ["FOR PRESENTATION"], "KVP": ["28"],
    "ExposureInuAs": ["90200"], "ExposureTime": ["854"], "XRayTubeCurrent": ["100"], "BodyPartThickness": ["43"],
    "AnodeTargetMaterial": ["TUNGSTEN"], "FilterMaterial": ["RHODIUM"], "OrganDose": ["0.01300"],
    "CompressionForce": ["90"],
}  # fmt: skip
RAW = {**MG, "PresentationIntentType": ["FOR PROCESSING"]}
EVENT = [
    ("T-D0005", ("T-04000", "SRT"), ("G-C171", ("G-A101", "SRT"))), ("111031", ("R-10242", "SNM3")),
    ("111631", ("1.30", "mGy")), ("113733", ("28.00", "kV")), ("113736", ("90200.00", "uAs")),
    ("111633", ("43", "mm")), ("111632", ("C-164F9", "SRT")), ("113757", ("C-167F9", "SRT")),
]  # fmt: skip
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"


@pytest.fixture
def site(tmp_path):
    return kit.Site(tmp_path)


def kinds(made):
    return Counter((row["quantity"], row["kind"]) for row in made["discrepancies"].to_pylist())


def shown(made):
    """Return the images of each exposure."""
    found = {}
    for row in made["instances"].to_pylist():
        found.setdefault(row["exposure_id"], set()).add(row["sop_instance_uid"])
    return {frozenset(images) for exposure, images in found.items() if exposure}


# ---- images of one exposure ----------------------------------------------------------------------------------------
def test_images_of_one_event_are_one_exposure(site):
    site.image({**MG, "IrradiationEventUID": ["e1"]}, instance="i1")
    site.image({**RAW, "IrradiationEventUID": ["e1"], "OrganDose": None}, instance="i2")
    site.image({**MG, "IrradiationEventUID": ["e2"]}, instance="i3")
    made = site.build()
    rows = {row["exposure_id"]: row for row in made["exposures"].to_pylist()}
    assert set(rows) == {"e1", "e2"}
    assert (rows["e1"]["sop_instance_uid"], rows["e1"]["n_images"]) == ("i2", 2)
    assert rows["e1"]["average_glandular_dose_mgy"] == 1.3         # of the other image, where one states none
    assert shown(made) == {frozenset({"i1", "i2"}), frozenset({"i3"})}


def test_a_copy_names_its_source_through_a_chain_and_the_event_goes_along(site):
    site.image(RAW, instance="a")
    site.image({**MG, "SourceImageSequence.ReferencedSOPInstanceUID": ["a"]}, instance="b")
    site.image({**MG, "SourceImageSequence.ReferencedSOPInstanceUID": ["b"], "IrradiationEventUID": ["e"]},
               instance="c")  # fmt: skip
    site.image({**MG, "SourceImageSequence.ReferencedSOPInstanceUID": ["away"], "KVP": ["31"]}, instance="d")
    site.image({**MG, "SourceImageSequence.ReferencedSOPInstanceUID": ["away"], "KVP": ["31"]}, instance="f")
    assert shown(site.build()) == {frozenset("abc"), frozenset("df")}


@pytest.mark.parametrize("other", [{"ImageLaterality": ["R"]}, {"ViewPosition": ["MLO"]}])
def test_a_source_of_another_side_or_view_is_no_source(site, other):
    site.image(RAW, instance="a")
    site.image({**MG, **other, "SourceImageSequence.ReferencedSOPInstanceUID": ["a"]}, instance="b")
    assert shown(site.build()) == {frozenset("a"), frozenset("b")}


def test_twins_without_a_reference_are_one_only_where_there_is_no_choice(site):
    site.image(RAW, instance="a", order=1)
    site.image(MG, instance="b", order=1)
    site.image({**RAW, "ImageLaterality": ["R"]}, instance="c", order=2)
    site.image({**MG, "ImageLaterality": ["R"]}, instance="d", order=3)         # another moment: another exposure
    site.image({**RAW, "ViewPosition": ["MLO"]}, instance="e")
    site.image({**MG, "ViewPosition": ["MLO"]}, instance="f")
    site.image({**MG, "ViewPosition": ["MLO"]}, instance="g")                   # f or g: nobody can tell
    site.image({**RAW, "ViewPosition": ["ML"]}, instance="h")
    site.image({**MG, "ViewPosition": ["ML"], "ExposureInuAs": ["90300"]}, instance="i")
    made = site.build()
    assert shown(made) == {frozenset("ab"), *map(frozenset, "cdefghi")}
    ambiguous = {r["exposure_id"] for r in made["discrepancies"].to_pylist() if r["kind"] == "ambiguous_copy"}
    assert ambiguous == {"d", "f", "g"}


def test_an_event_uid_of_two_views_or_two_studies_is_not_believed(site):
    site.image({**MG, "IrradiationEventUID": ["e"]}, instance="a")
    site.image({**MG, "IrradiationEventUID": ["e"], "ViewPosition": ["MLO"]}, instance="b")
    site.image({**MG, "IrradiationEventUID": ["x"]}, instance="c", study="2")
    site.image({**MG, "IrradiationEventUID": ["x"]}, instance="d", study="3", patient="PB")
    made = site.build()
    assert made["exposures"]["exposure_id"].to_pylist() == ["a", "b", "c", "d"]
    assert kinds(made) == {("exposure", "event_uid_reused"): 4}


def test_a_synthesised_image_is_no_irradiation(site):
    tomo = {**MG, "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"], "IrradiationEventUID": ["e"]}
    site.image(tomo, instance="a")
    site.image({**tomo, "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, instance="b")
    site.image({**MG, "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "GENERATED_2D"]}, instance="c")
    site.image({**MG, "IrradiationEventUID": ["e1", "e2"], "ViewPosition": ["MLO"]}, instance="d")    # of two events
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    assert (row["exposure_id"], row["is_tomosynthesis"], row["n_images"]) == ("e", True, 2)


def test_repeats_by_acquisition_order(site):
    partial = {"PartialView": ["YES"]}
    for n, (side, order, more) in enumerate([("L", 3, {}), ("L", 1, {}), ("R", 2, {}), ("R", 4, partial)]):
        site.image({**MG, "ImageLaterality": [side], "KVP": [str(25 + n)], **more}, instance=f"i{n}", order=order)
    site.image({**MG, "KVP": ["30"]}, instance="j", study="2")
    site.image({**MG, "KVP": ["31"]}, instance="k", study="2")
    rows = {r["exposure_id"]: (r["acquisition_order"], r["is_repeat"]) for r in site.build()["exposures"].to_pylist()}
    assert rows == {"i0": (3, True), "i1": (1, False), "i2": (2, False), "i3": (4, None), "j": (None, None),
                    "k": (None, None)}  # fmt: skip


def test_ranks_of_two_parts_are_not_compared(site):
    site.image({**MG, "KVP": ["25"]}, instance="a", order=1)
    site.image({**MG, "KVP": ["26"]}, instance="b", order=1, part="p-2")
    rows = site.build()["exposures"].to_pylist()
    assert [(r["acquisition_order"], r["is_repeat"]) for r in rows] == [(None, None), (None, None)]


# ---- numbers that cannot be ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("changed", "column", "kind"), [
    ({"OrganDose": ["0"]}, "average_glandular_dose_mgy", "zero"),
    ({"BodyPartThickness": ["430"]}, "body_part_thickness_mm", "implausible"),
    ({"BodyPartThickness": ["-1"]}, "body_part_thickness_mm", "implausible"),
    ({"KVP": ["900"]}, "kvp_kv", "implausible"),
    ({"ExposureInuAs": ["90200000"], "ExposureTime": ["854"]}, "exposure_mas", "implausible"),
    # 48500 µAs written as mAs, beside 100 mA × 4 ms
    ({"ExposureInuAs": None, "Exposure": ["1500"], "ExposureTime": ["4"]}, "exposure_mas", "unit_contradiction"),
    # 9 kPa × 10000 mm2 = 90 N; 9 is dekanewton
    ({"CompressionForce": ["9"], "CompressionPressure": ["9"], "CompressionContactArea": ["10000"]},
     "compression_force_n", "unit_contradiction"),
])  # fmt: skip
def test_a_number_that_cannot_be_is_null_and_told(site, changed, column, kind):
    site.image({**MG, **changed}, instance="a")
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    assert (row[column], row[f"{column}_source"]) == (None, None)
    assert kinds(made) == {(column, kind): 1}
    assert made.malformed == {column: 1}


@pytest.mark.parametrize("force", ["90", "0", "120"])
def test_a_force_that_can_be_stays(site, force):
    site.image({**MG, "CompressionForce": [force], "CompressionPressure": ["9"], "CompressionContactArea": ["10000"]},
               instance="a")  # fmt: skip
    made = site.build()
    assert made["exposures"]["compression_force_n"].to_pylist() == [float(force)]
    assert made.rows("discrepancies") == 0


def test_a_tomosynthesis_object_states_its_exposure_per_projection(site):
    tomo, projection = "XRay3DAcquisitionSequence.", "XRay3DAcquisitionSequence.PerProjectionAcquisitionSequence."
    site.image({
        "Modality": ["MG"], "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.13.1.3"], "ViewPosition": ["MLO"],
        "SharedFunctionalGroupsSequence.FrameAnatomySequence.FrameLaterality": ["R"], projection + "KVP": ["31"] * 3,
        projection + "ExposureInmAs": ["4.1", "4.2", "4.3"], projection + "ExposureTimeInms": ["40"] * 3,
        projection + "XRayTubeCurrentInmA": ["100"] * 3, tomo + "BodyPartThickness": ["50"],
        tomo + "CompressionForce": ["80.5"], tomo + "AnodeTargetMaterial": ["TUNGSTEN"],
    }, instance="a")  # fmt: skip
    (row,) = site.build()["exposures"].to_pylist()
    assert (row["laterality"], row["view"], row["is_tomosynthesis"]) == ("R", "MLO", True)
    assert (row["kvp_kv"], row["exposure_mas"], row["exposure_time_ms"], row["tube_current_ma"]) == (31, 12.6, 120, 100)
    assert row["exposure_mas_source"] == "ExposureInmAs (0018,9332) mAs, sum of projections"
    assert (row["body_part_thickness_mm"], row["compression_force_n"], row["anode"]) == (50, 80.5, "TUNGSTEN")


# ---- headers and reports -------------------------------------------------------------------------------------------
def test_header_and_report_of_one_event_agree(site):
    site.image({**MG, "IrradiationEventUID": ["e"], "HalfValueLayer": None}, instance="a")
    site.report(kit.tree("r", [("113769", "e"), *EVENT, ("111634", ("0.535", "mm"))]))
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    said = (row["basis"], row["report_match"], row["report_uid"], row["sop_instance_uid"])
    assert said == ("both", "event", "r", "a")
    assert (row["average_glandular_dose_mgy"], row["half_value_layer_mm"]) == (1.3, 0.535)
    assert row["half_value_layer_mm_source"] == "111634 DCM mm, report"
    assert made.rows("discrepancies") == 0


def test_what_header_and_report_do_not_agree_on_is_a_row(site):
    site.image({**MG, "IrradiationEventUID": ["e"]}, instance="a")
    event = [one for one in EVENT if one[0] not in ("111631", "111632")]
    site.report(kit.tree("r", [("113769", "e"), *event, ("111631", ("1.90", "mGy")), ("111632", ("C-150F9", "SRT"))]))
    rows = site.build()["discrepancies"].to_pylist()
    assert [(r["quantity"], r["kind"], r["header_value"], r["report_value"], r["header_term"], r["report_term"])
            for r in rows] == [
        ("anode", "header_report_differ", None, None, "TUNGSTEN", "MOLYBDENUM"),
        ("average_glandular_dose_mgy", "header_report_differ", 1.3, 1.9, None, None)]  # fmt: skip


@pytest.mark.parametrize(("event", "how"), [
    ([("113795", {"image": "a"})], "image"), ([("113769", "e9"), ("113795", {"image": "a"})], "image"), ([], "view"),
])  # fmt: skip
def test_an_event_finds_its_image_without_a_common_uid(site, event, how):
    site.image(MG, instance="a")
    site.report(kit.tree("r", [*event, *EVENT]))
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    assert (row["exposure_id"], row["basis"], row["report_match"]) == ("a", "both", how)


def test_two_events_that_could_be_one_image_stay_apart(site):
    site.image(MG, instance="a")
    site.report(kit.tree("r", [("113769", "e1"), *EVENT], [("113769", "e2"), *EVENT]))
    made = site.build()
    assert sorted(r["basis"] for r in made["exposures"].to_pylist()) == ["header", "report", "report"]
    assert kinds(made) == {("exposure", "ambiguous_report_event"): 2, ("exposure", "no_image"): 2,
                           ("exposure", "no_report_event"): 1}  # fmt: skip


def test_events_with_other_uids_than_the_images_are_other_exposures(site):
    site.image({**MG, "IrradiationEventUID": ["e1"]}, instance="a")
    site.report(kit.tree("r", [("113769", "e2"), *EVENT]))
    made = site.build()
    assert made["exposures"]["exposure_id"].to_pylist() == ["e1", "e2"]
    assert kinds(made) == {("exposure", "no_image"): 1, ("exposure", "no_report_event"): 1}


@pytest.mark.parametrize(("changed", "column", "kind"), [
    (("111631", ("1.30", "furlong")), "average_glandular_dose_mgy", "unit_unknown"),
    (("111631", ("0", "mGy")), "average_glandular_dose_mgy", "zero"),
    (("111633", ("430", "cm")), "body_part_thickness_mm", "implausible"),
    (("111632", ("1", "99X")), "anode", "unknown_term"),
    (("111031", ("1", "99X")), "view", "unknown_term"),
])  # fmt: skip
def test_what_a_report_states_wrongly_is_null_and_told(site, changed, column, kind):
    event = [one for one in EVENT if one[0] != changed[0]]
    site.report(kit.tree("r", [("113769", "e"), *event, changed]))
    made = site.build()
    assert made["exposures"][column].to_pylist() == [None]
    assert kinds(made) == {(column, kind): 1, ("exposure", "no_image"): 1}
    assert {r["exposure_id"] for r in made["discrepancies"].to_pylist()} == {"e"}
    assert made.malformed == {column: 1}


@pytest.mark.parametrize(("stated", "expected"), [
    (("1.30", "mGy"), 1.3), (("0.013", "dGy"), 1.3), (("0.00130", "Gy"), 1.3), (("1300", "uGy"), 1.3),
])  # fmt: skip
def test_units_of_dose(site, stated, expected):
    event = [one for one in EVENT if one[0] != "111631"]
    site.report(kit.tree("r", [("113769", "e"), *event, ("111631", stated)]))
    assert site.build()["exposures"]["average_glandular_dose_mgy"].to_pylist() == [expected]


def test_compression_of_a_report(site):
    site.report(kit.tree("r", [("113769", "e"), *EVENT, ("111647", ("90", "N")), ("111648", ("9", "kPa")),
                               ("111649", ("100", "cm2"))]))  # fmt: skip
    (row,) = site.build()["exposures"].to_pylist()
    assert (row["compression_force_n"], row["compression_pressure_kpa"], row["compression_contact_area_mm2"]) == (
        90, 9, 10_000)  # fmt: skip


def test_dose_of_one_projection_is_not_taken_for_the_sweep(site):
    event = [("113769", "e"), *EVENT, ("113721", ("113613", "DCM"))]
    site.report(kit.tree("r", event), {"Modality": ["SR"], "Manufacturer": ["SIEMENS"]})
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    assert (row["is_tomosynthesis"], row["average_glandular_dose_mgy"]) == (True, None)
    assert kinds(made) == {("average_glandular_dose_mgy", "one_projection"): 1, ("exposure", "no_image"): 1}


def test_an_event_without_a_uid_and_a_report_without_events(site):
    site.report(kit.tree("r1", EVENT))
    site.report(kit.tree("r2", study="2"))
    site.report(kit.tree("r3", study="3", template="1500"))
    made = site.build()
    (row,) = made["exposures"].to_pylist()
    assert row["exposure_id"].startswith("2.25.")
    assert kinds(made) == {("exposure", "no_event_uid"): 1, ("exposure", "no_image"): 1, ("exposure", "no_event"): 1,
                           ("exposure", "wrong_template"): 1}  # fmt: skip
    assert site.build()["exposures"]["exposure_id"].to_pylist() == [row["exposure_id"]]


def test_the_same_event_in_two_reports_is_one_exposure(site):
    event = [one for one in EVENT if one[0] != "111631"]
    site.report(kit.tree("r1", [("113769", "e"), *EVENT]))
    site.report(kit.tree("r2", [("113769", "e"), *event, ("111631", ("1.4", "mGy"))], [("113769", "f"), *EVENT]))
    made = site.build()
    assert [(r["exposure_id"], r["report_uid"]) for r in made["exposures"].to_pylist()] == [("e", "r2"), ("f", "r2")]
    assert kinds(made)["average_glandular_dose_mgy", "reports_differ"] == 1


def test_totals_that_the_events_do_not_add_up_to(site):
    total = ("111637", ("2.60", "mGy"), ("G-C171", ("T-04030", "SRT")))
    site.report(kit.tree("r", [("113769", "e"), *EVENT], totals=[total]))
    made = site.build()
    (row,) = made["accumulated_doses"].to_pylist()
    assert (row["laterality"], row["value"], row["unit"]) == ("L", 2.6, "mGy")
    (row,) = [r for r in made["discrepancies"].to_pylist() if r["kind"] == "accumulated_differs"]
    assert (row["header_value"], row["report_value"]) == (1.3, 2.6)


def test_rejected_and_repeated_where_a_file_says_so(site):
    yes = ("R-0038D", "SRT")
    site.image({**MG, "IrradiationEventUID": ["e"]}, instance="a")
    site.report(kit.tree("r", [("113769", "e"), *EVENT, ("130503", yes), ("128551", yes)]))
    site.image({**MG, "ViewPosition": ["MLO"]}, instance="b", study="2")
    site.report(kit.tree("k", [("113795", {"image": "b"})], study="2", title=("113001", "DCM"), procedure=None))
    rows = {r["exposure_id"]: (r["is_rejected"], r["is_repeat"]) for r in site.build()["exposures"].to_pylist()}
    assert rows == {"e": (True, True), "b": (True, False)}


def test_a_withheld_report_gives_nothing(site):
    site.image({**MG, "IrradiationEventUID": ["e"]}, instance="a")
    site.report(kit.tree("r", [("113769", "e"), *EVENT], [("113769", "f"), *EVENT]))
    made = site.build(without={"r": "expectation_failed"})
    assert [(r["exposure_id"], r["basis"]) for r in made["exposures"].to_pylist()] == [("e", "header")]
    assert made.rows("discrepancies") == 0


# ---- what holds for anything ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("wanted", sorted(units._FACTORS))
def test_every_unit_goes_there_and_back(wanted):
    for unit in units._FACTORS[wanted]:
        there = units.factor(unit, wanted)
        for value in (Decimal("0.01373"), Decimal("90200"), Decimal("7")):
            assert value * there / there == value
    assert units.factor(wanted, wanted) == 1
    assert units.factor("furlong", wanted) is None


def test_codes_of_materials_in_three_schemes():
    assert {terms.material(*code) for code in (("C-164F9", "SRT"), ("C-16400", "SNM3"), ("26194003", "SCT"))} == {
        "TUNGSTEN"}  # fmt: skip
    assert terms.material("26194003", "99X") is None


SMALL = st.sampled_from
IMAGES = st.lists(st.fixed_dictionaries({
    "study": SMALL("12"), "ImageLaterality": SMALL("LR"), "ViewPosition": SMALL(["CC", "MLO"]),
    "KVP": SMALL(["28", "29"]),
    "PresentationIntentType": SMALL(["FOR PROCESSING", "FOR PRESENTATION"]), "order": SMALL([None, 1, 2]),
    "IrradiationEventUID": SMALL([None, "e1", "e2", "e3"]), "source": SMALL([None, "i0", "i1", "i2", "away"]),
    "ImageType": SMALL([None, "GENERATED_2D"]),
}), max_size=6)  # fmt: skip
EVENTS = st.lists(st.tuples(SMALL("12"), SMALL([None, "e1", "e2", "e4"]), SMALL([None, "i0", "i1"])), max_size=4)


@settings(max_examples=6, deadline=None)      # each builds a candidate
@given(IMAGES, EVENTS)
def test_every_image_of_an_exposure_is_of_one_and_none_is_made_up(tmp_path_factory, images, events):
    site = kit.Site(tmp_path_factory.mktemp("site"))
    for n, one in enumerate(images):
        one = dict(one)
        study, order, source = one.pop("study"), one.pop("order"), one.pop("source")
        elements = {**MG, **{path: None if value is None else [value] for path, value in one.items()}}
        elements["SourceImageSequence.ReferencedSOPInstanceUID"] = [source] if source and source != f"i{n}" else None
        site.image(elements, instance=f"i{n}", study=study, patient=f"P{study}", order=order)
    for n, (study, uid, image) in enumerate(events):
        event = [*([("113769", uid)] if uid else []), *([("113795", {"image": image})] if image else []), *EVENT]
        site.report(kit.tree(f"r{n}", event, study=study, patient=f"P{study}"))
    if not site.rows:
        return
    made = site.build()
    exposures = made["exposures"].to_pylist()
    ids = [row["exposure_id"] for row in exposures]
    assert len(set(ids)) == len(ids) <= len(images) + len(events)
    per = Counter(row["exposure_id"] for row in made["instances"].to_pylist() if row["exposure_id"])
    assert per == {row["exposure_id"]: row["n_images"] for row in exposures if row["n_images"]}
    own = {f"i{n}" for n, one in enumerate(images) if one["ImageType"] is None}
    instances = {row["sop_instance_uid"]: row for row in made["instances"].to_pylist()}
    assert all(instances[uid]["exposure_id"] for uid in own)
    for row in exposures:
        mine = [i for i in instances.values() if i["exposure_id"] == row["exposure_id"]]
        assert {(i["study_uid"], i["laterality"], i["view"]) for i in mine} <= {
            (row["study_uid"], row["laterality"], row["view"])}  # fmt: skip
        assert row["basis"] == ("report" if not mine else "both" if row["report_uid"] else "header")
    told = [row["report_uid"] for row in exposures if row["report_uid"]]
    assert len(told) <= len(events)


def test_limits_of_mammograms_are_within_those_of_all():
    for quantity in QUANTITIES:
        assert quantity.low <= quantity.mammogram[0] < quantity.mammogram[1] <= quantity.high


def test_a_part_whose_reports_lost_their_content_is_not_passed_over(site):
    site.report(kit.tree("2.25.9", EVENT), {"Modality": ["SR"], "SOPClassUID": [DOSE_REPORT]})
    assert site.build()["exposures"].num_rows == 1
    site.store.delete(layout.content(kit.PROJECT, "p-1"))
    with pytest.raises(NotFound):
        build(site.store, kit.PROJECT, {"parts": ["p-1"], "held": {}, "clinical": None})

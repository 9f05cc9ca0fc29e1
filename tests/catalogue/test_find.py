"""The catalogue holds what the released images hold, and a filter finds what a slow reading of each image finds."""

from __future__ import annotations

import hashlib
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogue_kit import catalogue, holds, part_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import layout
from pipeline.catalogue import build, find
from pipeline.catalogue.filter import Both, Literal, Not, parse
from pipeline.catalogue.filter import Test as One
from pipeline.errors import NotFound, SchemaTooNew
from pipeline.schemas import SCHEMA_VERSION
from pipeline.storage import open_store, tables

GE = "(0045,GEMS_SENO_02,49)"
ACME = "(0045,ACME Ltd.,49)"      # nobody says what its VR is: the literal decides
VALUES = {      # what a file may have there, in order and out of it
    "Modality": ["MG", "CT", "", "mg"],
    "Manufacturer": ["HOLOGIC, Inc.", "Hologic", "GE_100%", "50% O'Brien", "é", ""],
    "CompressionForce": ["150", "150.0", "151", "1.5e2", "12,5", "", "-3", "1e999", " ", "+7", "nan", "1_0"],
    "ExposureTime": ["100", "0", "2147483648", "x"],
    "PositionerPrimaryAngle": ["0.1", "0.10000000149011612", "45"],
    "EstimatedDoseSaving": ["0.1"],
    "DepthOfScanField": ["3"],
    "OverlayRows": ["5"],
    "DistanceSourceToPatientAtFocus": ["1"],
    "StudyDate": ["20190131", "20190201", "20190230", "2019.01.31", "00000101", "30000101", ""],
    "PatientAge": ["050Y", "055Y", "006M", "090Y", ""],
    "ImageType": ["DERIVED", "ORIGINAL", "PRIMARY", "TOMO"],
    "ViewCodeSequence.CodeValue": ["R-10242", "399162004"],
    GE: ["5", "41.5", "thick"],
    ACME: ["5", "41.5", "thick"],
    "TableTopVerticalPosition": ["0.1"],
    "RotationAngle": ["0.10000000149011612"],
}
FLOAT = "RecommendedDisplayFrameRateInFloat"     # FL in PS3.6
VALUES[FLOAT] = ["0.10000000149011612", "0.1", "2.5", "1e39"]
OPS = ["=", "<", "<=", ">", ">=", "in", "between", "like", "ilike", "is null"]
LITERALS = {
    "number": [Literal(t, True) for t in ("150", "0", "-3", "1e2", "0.1", "41.5", "2147483647")],
    "text": [Literal(t, False) for t in ("MG", "HOLOGIC, Inc.", "50% O'Brien", "5", "TOMO", "", "é")],
    "date": [Literal(t, False) for t in ("2019-01-31", "2019-02-01", "2019-12-31")],
    "age": [Literal("50", True), Literal("055Y", False), Literal("0", True)],
    "like": [Literal(t, False) for t in ("%", "HOLOGIC%", "_G", "%50\\%%", "2019%", "%o'b%", "_", "")],
}


def images(count: int, seed: int = 1):
    rng = random.Random(seed)
    out = []
    for n in range(count):
        person = f"p{rng.randrange(count // 8 + 1):03d}"
        study = f"{person}.{rng.randrange(2)}"
        series = f"{study}.{rng.randrange(3)}"
        facts = {}
        for path, values in VALUES.items():
            how = rng.random()
            if how < 0.8:
                facts[path] = [] if how < 0.1 else rng.choices(values, k=1 if how < 0.6 else rng.randrange(2, 4))
        out.append(((person, study, series, f"{series}.{n}"), facts))
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    every = images(240)
    folder = tmp_path_factory.mktemp("catalogue")
    return every, catalogue(folder, {"p-1": every[:100], "p-2": every[100:]})


def _test(path):
    from pipeline.catalogue.elements import element

    kind = {"float32": "number"}.get(element(path).kind, element(path).kind)
    kinds = ["number", "text"] if kind == "unknown" else [kind]
    ops = [op for op in OPS if kind != "text" or op not in ("<", "<=", ">", ">=", "between")]

    @st.composite
    def one(draw):
        op, kind = draw(st.sampled_from(ops)), draw(st.sampled_from(kinds))
        if op == "is null":
            return One(path, op)
        if kind == "text" and op in ("<", "<=", ">", ">=", "between"):
            op = "="
        literal = st.sampled_from(LITERALS["like" if op in ("like", "ilike") else kind])
        size = {"between": 2, "in": draw(st.integers(1, 3))}.get(op, 1)
        return One(path, op, tuple(draw(literal) for _ in range(size)))

    return one()


leaves = st.sampled_from(sorted(VALUES)).flatmap(_test)
trees = st.recursive(leaves, lambda below: st.builds(Not, below) | st.builds(
    lambda word, parts: Both(word, tuple(parts)), st.sampled_from(["and", "or"]),
    st.lists(below, min_size=2, max_size=3)), max_leaves=5)


def agrees(world, tree):
    every, made = world
    found = [ids for ids, facts in every if holds(tree, facts)]
    counts = made.count(made.ask(str(tree)))
    assert (counts.people, counts.studies, counts.series, counts.images) == (
        *(len({ids[n] for ids in found}) for n in range(3)), len(found))


@given(trees)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_filter_finds_what_a_slow_reading_finds(world, tree):
    agrees(world, tree)


@pytest.mark.parametrize("text", [
    "StudyDate < '2000-01-01'", "StudyDate > '2999-12-31' or StudyDate between 20190131 and '20190131'",
    f"{FLOAT} = 0.1", f"{FLOAT} < 0.1", f"{FLOAT} > 1e38", "PositionerPrimaryAngle = 0.1", "CompressionForce = 150",
    "CompressionForce > 1e308", "CompressionForce in (-3, 7)", f"{GE} >= 5", f"{ACME} = 'thick'", f"{ACME} > 5",
    "PatientAge < 1", "Manufacturer like '50\\% O''Brien'", "Manufacturer like '_'", "Manufacturer ilike 'É'",
    "Modality = ''", "not Modality in ('MG', 'CT')", "Modality is null",
    "not (Modality is not null or StudyDate is null)",
    "not (CompressionForce > 0 and Modality = 'MG')", "not (CompressionForce > 0 or Modality = 'MG')",
])
def test_the_corners_are_found_as_a_slow_reading_finds_them(world, text):
    tree = parse(text)
    if "20190131" in text:      # the slow reading knows one way to write a date
        tree = parse(text.replace("20190131 and '20190131'", "'2019-01-31' and '2019-01-31'"))
    every, made = world
    found = [ids for ids, facts in every if holds(tree, facts)]
    assert made.count(made.ask(text)).images == len(found)


@pytest.mark.long
@given(trees)
@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_filter_finds_what_a_slow_reading_finds(world, tree):
    agrees(world, tree)


@pytest.mark.parametrize("by", ["patient", "study", "series"])
def test_what_is_listed_is_what_was_found_each_once(world, by):
    every, made = world
    text = "CompressionForce >= 150 and ImageType = 'TOMO' or StudyDate between '2019-01-01' and '2019-12-31'"
    width = {"patient": 1, "study": 2, "series": 3}[by]
    found = sorted({ids[:width] for ids, facts in every if holds(parse(text), facts)})
    assert made.rows_of(made.ask(text), by) == found != []


def test_one_image_meets_the_whole_filter(tmp_path):
    """Two views of one series, each meeting one half: no image meets both, so nothing is found."""
    ids = ("p", "s", "r")
    made = catalogue(tmp_path, {"p-1": [
        ((*ids, "i1"), {"Modality": ["MG"], "CompressionForce": ["160"], "ImageLaterality": ["L"]}),
        ((*ids, "i2"), {"Modality": ["MG"], "CompressionForce": ["90"], "ImageLaterality": ["R"]})]})
    assert made.count(made.ask("CompressionForce > 150 and ImageLaterality = 'R'")).series == 0
    assert made.count(made.ask("CompressionForce > 150 and ImageLaterality = 'L'")).series == 1


def test_values_that_cannot_be_read_are_counted(tmp_path):
    rows = [((f"p{n}", "s", "r", f"i{n}"), {"CompressionForce": [v]}) for n, v in enumerate(["150", "12,5", "x", ""])]
    made = catalogue(tmp_path, {"p-1": rows})
    counts = made.count(made.ask("CompressionForce > 1"))
    assert (counts.images, counts.unreadable) == (1, {"CompressionForce": (2, 2)})
    assert made.count(made.ask("CompressionForce is null")).images == 1


def test_it_holds_every_kept_element_of_the_released_images_and_of_no_other(tmp_path, monkeypatch):
    """Many small row groups, several parts, elements that one part alone has; what is withheld leaves no trace."""
    monkeypatch.setattr(build, "ROWS", 7)
    every = images(60)
    every[3][1]["SecretPath"] = ["WITHHELD-VALUE"]
    without = {every[3][0][3], every[44][0][3]}
    made = catalogue(tmp_path, {"p-2": every[:25], "p-1": every[25:31], "p-3": every[31:]}, without)
    table = pq.read_table(made.path)
    kept = sorted((ids, facts) for ids, facts in every if ids[3] not in without)
    assert [tuple(row.values()) for row in table.select(table.column_names[:4]).to_pylist()] == [i for i, _ in kept]
    paths = table.column_names[4:]
    assert paths == sorted({path for _, facts in every for path in facts})
    for row, (_, facts) in zip(table.to_pylist(), kept, strict=True):
        assert {path: row[path] for path in paths if row[path] is not None} == facts
    assert b"WITHHELD" not in made.path.read_bytes()
    assert pq.ParquetFile(made.path).num_row_groups > 5
    for path in paths:
        stating = [ids for ids, facts in kept if any(facts.get(path) or ())]
        assert made.stated[path] == (len(stating), len({ids[0] for ids in stating}))
    assert made.rows == 58


def test_nothing_of_the_parts_shows(tmp_path):
    """The same images in other parts give the same bytes: who landed together cannot be seen."""
    every = images(80)
    digests = set()
    for name, cut in (("a", 10), ("b", 55)):
        (tmp_path / name).mkdir()
        made = catalogue(tmp_path / name, {"p-1": every[:cut], "p-2": every[cut:]})
        digests.add(hashlib.sha256(made.path.read_bytes()).hexdigest())
        assert not set(pq.read_schema(made.path).names) & {"key", "sha256", "bytes", "acquisition_order"}
    assert len(digests) == 1


def test_reports_items_are_left_to_their_own_tables(tmp_path):
    report = {"Modality": ["SR"], "ContentSequence.TextValue": ["x"],
              "ContentSequence.ContentSequence.NumericValue": ["1"]}
    made = catalogue(tmp_path, {"p-1": [(("p", "s", "r", "i"), report)]})
    assert set(made.stated) == {"Modality"}


def test_an_empty_release_has_an_empty_catalogue(tmp_path):
    made = catalogue(tmp_path, {"p-1": images(5)}, {ids[3] for ids, _ in images(5)})
    assert made.rows == 0
    assert made.count(made.ask("Modality = 'MG'")).images == 0
    (tmp_path / "none").mkdir()
    assert catalogue(tmp_path / "none", {}).rows == 0


def test_the_dictionary_s_entry_names_tag_and_vr(tmp_path):
    store = open_store(f"file://{tmp_path}/zone", "candidate")
    part_of(store, "p-1", [(("p", "s", "r", "i"), {"CompressionForce": ["1"], GE: ["2"],
                                                  "ViewCodeSequence.CodeValue": ["x"], "00190001": ["y"]})])
    entry = build.write(store, "proj", ["p-1"], (), tmp_path / "c.parquet").entry
    sources = {column["name"]: column["source"] for column in entry["columns"]}
    assert sources["CompressionForce"] == "CompressionForce (0018,11A2), DS"
    assert sources["ViewCodeSequence.CodeValue"] == "CodeValue (0008,0100), SH"
    assert sources["00190001"] == "00190001 (0019,0001), UN"
    assert sources[GE].startswith(f"{GE.split(',')[0]},") or "(0045,xx49)" in sources[GE]
    assert entry["columns"][0]["name"] == "patient_id" and entry["rows"] == 1


def test_a_missing_or_newer_file_is_refused(tmp_path):
    store = open_store(f"file://{tmp_path}", "candidate")
    with pytest.raises(NotFound), find.opened(store, "catalogue.parquet"):
        pass
    newer = {"schema_version": str(SCHEMA_VERSION + 1), "stated": "{}"}
    tables.write(store, "catalogue.parquet", pa.table({"patient_id": ["p"]}).replace_schema_metadata(newer))
    with pytest.raises(SchemaTooNew), find.opened(store, "catalogue.parquet"):
        pass
    part_of(store, "p-1", images(2))
    facts = tables.read(store, layout.facts("proj", "p-1"))
    tables.write(store, layout.facts("proj", "p-1"), facts.replace_schema_metadata(newer))
    with pytest.raises(SchemaTooNew):
        build.write(store, "proj", ["p-1"], (), tmp_path / "out.parquet")


@pytest.mark.parametrize(("count", "people", "says"), [
    (0, 0, "none"), (3, 3, "fewer than 10 people"), (400, 9, "fewer than 10 people"), (12, 10, "10"),
    (13, 13, "15"), (331_466, 50_000, "331,465"), (10, 10, "10"),
])
def test_a_count_as_it_is_shown(count, people, says):
    assert find.shown(count, people) == says


def test_a_stricter_reader_sees_less():
    assert find.shown(40, 15, fewest=20) == "fewer than 20 people"
    assert find.shown(1234, 500, round_to=100) == "1,200"


def test_the_database_reaches_no_file(world):
    """Even an expression that got past the language could not read: the database has no way out."""
    from pipeline.catalogue.ask import Question

    _, made = world
    for sql in ("(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "(SELECT count(*) FROM '/etc/hostname') > 0"):
        with pytest.raises(Exception, match=r"(?i)permission|disabled|exist"):
            made.count(Question(sql, (), (), {}))
    assert parse("Modality = 'MG'")

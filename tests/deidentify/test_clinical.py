import gzip
import io
import os
import random
import zipfile
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from pipeline import layout
from pipeline.deidentify import clinical, clinical_files, crosswalk, nhs
from pipeline.deidentify.keys import Key
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import ClinicalRefused
from pipeline.storage import tables

CORPUS = Path(os.environ.get("TRE_CORPUS", Path(__file__).parents[2].parent / "shared" / "corpus")) / "clinical/nhs_bss"


def number(n: int) -> str:
    return next(f"{k:09d}{d}" for k in range(943_000_000 + 20 * n, 943_000_999 + 20 * n)
                if (d := nhs.check_digit(f"{k:09d}")) is not None)


ONE, TWO, THREE, FOUR = (number(n) for n in range(1, 5))
WALK = crosswalk.parse("issuer,local_id,nhs_number,superseded_nhs_number\n"
                       f"RXX,1,{ONE},\nRXX,2,{TWO},\n,,{TWO},{THREE}\n".encode())
COLUMNS = {
    "nhs_number": {"role": "identity"},
    "episode_id": {"role": "identifier"},
    "invited": {"role": "event_date", "required": True},
    "outcome": {"role": "category", "values": ["normal", "recall"]},
    "size": {"role": "number", "unit": "mm"},
    "note": {"role": "drop"},
}
HEADER = "nhs_number,episode_id,invited,outcome,size,note\n"
GOOD = f"{ONE},E1,2020-03-01,normal,12.5,SENTINELNOTE\n"


@pytest.fixture
def run(make_config, tmp_path, pseudonyms):
    """Return a runner over one file's text; keywords are those of `pseudonymise`, `columns` and sections."""
    def go(text, *, columns=COLUMNS, name="episodes.csv", walk=WALK, permitted=None, keys=pseudonyms, **sections):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        config = make_config(clinical=[{"table": "episodes", "file": tmp_path / name, "columns": columns}], **sections)
        return clinical.pseudonymise(config, keys, walk, permitted)
    return go


def held(snapshot):
    rows = snapshot.outcomes.to_pylist()
    return [(row["row"], row["reason"], row["column"]) for row in rows if row["status"] == "held"]


def test_a_row_is_pseudonymised(run, pseudonyms):
    snapshot = run(HEADER + GOOD)
    (row,) = snapshot.tables["episodes"].to_pylist()
    patient = pseudonyms.person(layout.NHS_ISSUER, ONE)
    days = pseudonyms.shift_days(patient, 365)
    assert row == {"patient_id": patient, "episode_id": pseudonyms.identifier("episode_id", "E1"),
                   "invited": date(2020, 3, 1) + timedelta(days=days), "outcome": "normal", "size": 12.5}
    assert snapshot.counts == {"episodes": {"linked": 1}} and layout.ID.fullmatch(snapshot.id)
    metadata = snapshot.tables["episodes"].schema.metadata
    assert metadata == {b"schema_version": b"1", b"table": b"episodes"}


def test_nothing_of_the_person_is_in_the_bytes(run):
    snapshot = run(HEADER + GOOD)
    data = b"".join(tables.to_bytes(t) for t in (*snapshot.tables.values(), snapshot.outcomes))
    assert not any(token in data for token in (ONE.encode(), b"SENTINEL", b"2020-03-01", b"E1\0"))


def test_superseded_and_spaced_numbers_are_one_person_and_intervals_are_kept(run):
    rows = [f"{TWO[:3]} {TWO[3:6]} {TWO[6:]},a,2020-03-01,,,", f"{THREE},b,15/03/2020,,,", f"{TWO},c,2023-03-01,,,"]
    found = run(HEADER + "\n".join(rows)).tables["episodes"].to_pylist()
    assert len({row["patient_id"] for row in found}) == 1
    days = sorted(row["invited"] for row in found)
    assert [(d - days[0]).days for d in days] == [0, 14, 1095] and days[-1] < date(2023, 3, 1)


def test_rows_are_held_by_reason_and_counted(run):
    bad = ONE[:9] + str((int(ONE[9]) + 1) % 10)
    good = "E,2020-03-01,normal,1,\n"
    snapshot = run(HEADER + "".join([
        *(f"{who},{good}" for who in ("", bad, "7777777777", FOUR, ONE, TWO)),
        f"{ONE},E,,normal,1,\n", f"{ONE},E,2020-03-32,normal,1,\n",
        f"{ONE},E,2020-05-19 10:16:01.624494+01,normal,1,\n",
        f"{ONE},E,1/3/2020,normal,1,\n", f"{ONE},E,2020-03-01,Normal,1,\n", f"{ONE},E,2020-03-01,normal,nan,\n",
        f"{ONE},E,2020-03-01,normal,1e999,\n", f"{ONE},E,2020-03-01,normal,1_0,\n", f"{ONE},,2020-03-01,,,\n",
    ]), permitted=frozenset({layout.person(layout.NHS_ISSUER, ONE)}))
    assert held(snapshot) == [
        (1, "person_id_missing", "nhs_number"), (2, "person_not_linked", "nhs_number"),
        (3, "person_not_linked", "nhs_number"), (4, "person_not_linked", "nhs_number"),
        (6, "person_not_permitted", "nhs_number"), (7, "value_missing", "invited"), (8, "value_malformed", "invited"),
        (9, "value_malformed", "invited"), (10, "value_malformed", "invited"), (11, "value_not_listed", "outcome"),
        (12, "value_malformed", "size"), (13, "value_malformed", "size"), (14, "value_malformed", "size"),
    ]
    assert snapshot.tables["episodes"].num_rows == 2 == snapshot.counts["episodes"]["linked"]
    assert sum(snapshot.counts["episodes"].values()) == 15 == snapshot.outcomes.num_rows
    empty = [row for row in snapshot.tables["episodes"].to_pylist() if row["outcome"] is None]
    assert empty and empty[0]["episode_id"] is None and empty[0]["size"] is None


@pytest.mark.parametrize("nobodys", ["1900-01-01", "01/01/1970", "9999-12-31", "0001-01-01"])
def test_a_date_that_is_nobodys_is_none_for_moved_it_would_tell_the_days(run, nobodys):
    row = f"{ONE},E1,{nobodys},normal,12.5,\n"
    assert held(run(HEADER + row)) == [(1, "value_missing", "invited")]
    columns = COLUMNS | {"invited": {"role": "event_date"}}
    (found,) = run(HEADER + row, columns=columns).tables["episodes"].to_pylist()
    assert found["invited"] is None and found["size"] == 12.5


def test_a_persons_number_is_no_number(run):
    """A row whose cells slipped: what is written as a measure is somebody's NHS number."""
    rows = [f"{ONE},E,2020-03-01,normal,{number},\n" for number in (ONE, f"{THREE}.0", TWO, "9434765", FOUR)]
    assert held(run(HEADER + "".join(rows))) == [(n, "value_malformed", "size") for n in (1, 2, 3)]


def test_nobody_is_permitted_by_an_empty_set(run):
    assert run(HEADER + GOOD, permitted=frozenset()).counts == {"episodes": {"person_not_permitted": 1}}


def test_repeats_are_kept_and_counted(run):
    snapshot = run(HEADER + GOOD * 3)
    assert snapshot.tables["episodes"].num_rows == 3 and snapshot.repeats == {"episodes": 2}


@pytest.mark.parametrize(("header", "says"), [
    ("nhs_number,episode_id,invited,outcome,size,note,JANESMITH\n", "position: 7"),
    ("nhs_number,episode_id,invited,outcome,note\n", "missing: size"),
    ("nhs_number,episode_id,invited,outcome,size,size\n", "position: 6"),
    ("", "missing: nhs_number"),
])
def test_undeclared_and_missing_columns_refuse_the_file(run, header, says):
    with pytest.raises(ClinicalRefused, match=says) as caught:
        run(header + GOOD)
    assert "JANE" not in str(caught.value)


@pytest.mark.parametrize(("text", "says"), [
    (HEADER + f'{ONE},"SENTINEL\n', "line 2: not CSV"), (HEADER + GOOD + f'{ONE},"SENT"INEL"\n', "line 3: not CSV"),
    ((HEADER + GOOD).encode("utf-16"), "UTF-8"), (("é" + HEADER + GOOD).encode("latin-1"), "UTF-8"),
    (HEADER + f'{ONE},E,2020-03-01,,,"he said\n' + GOOD + f'{ONE},E,2020-03-01,,,end"\n', "line 4: a quoted field"),
])
def test_a_malformed_file_is_refused_without_a_cell(run, text, says):
    with pytest.raises(ClinicalRefused, match=says) as caught:
        run(text)
    assert "SENTINEL" not in str(caught.value) and ONE not in str(caught.value)


def test_other_files_are_refused(run, make_config, pseudonyms, tmp_path):
    with pytest.raises(ClinicalRefused, match=r"only \.csv"):
        run(HEADER + GOOD, name="episodes.xlsx")
    with pytest.raises(ClinicalRefused, match="damaged"):
        run(gzip.compress((HEADER + GOOD).encode())[:-9], name="a.csv.gz")
    with pytest.raises(ClinicalRefused, match="cannot be read"):
        clinical.pseudonymise(make_config(clinical=[
            {"table": "episodes", "file": tmp_path / "none.csv", "columns": COLUMNS}]), pseudonyms, WALK, None)
    with pytest.raises(ClinicalRefused, match="patient_id"):
        run("nhs_number,patient_id\n", columns={"nhs_number": {"role": "identity"}, "patient_id": {"role": "number"}})


def test_gzip_gives_what_the_plain_file_gives(run):
    plain, packed = run(HEADER + GOOD), run(gzip.compress((HEADER + GOOD).encode()), name="episodes.csv.gz")
    assert packed.tables == plain.tables and packed.id == plain.id


def test_same_rows_same_bytes_whatever_their_order(run):
    rows = [f"{who},E{n},2020-01-{n + 1:02d},{('normal', 'recall', '')[n % 3]},{n or ''},x\n"
            for n in range(28) for who in (ONE, TWO)]
    first = run(HEADER + "".join(rows))
    random.Random(1).shuffle(rows)
    second = run(HEADER + "".join(rows))
    assert tables.to_bytes(first.tables["episodes"]) == tables.to_bytes(second.tables["episodes"])
    assert run(HEADER + "".join(rows)).id == second.id != first.id      # the input is part of the id


def test_another_projects_key_shares_nothing(run, pseudonyms):
    ours, theirs = run(HEADER + GOOD), run(HEADER + GOOD, keys=Pseudonyms(Key(bytes(32), "o")))
    (a,), (b,) = (s.tables["episodes"].to_pylist() for s in (ours, theirs))
    assert ours.id != theirs.id and a["patient_id"] != b["patient_id"] and a["episode_id"] != b["episode_id"]


def test_not_linked_goes_by_the_one_issuer(run, pseudonyms):
    columns = {"local": {"role": "identity"}, "size": {"role": "number"}}
    walk = crosswalk.Crosswalk({}, {})
    snapshot = run("local,size\n 12 ,1\n,2\n", columns=columns, walk=walk, project={"linked": False},
                   stage={"issuer": "RXX"})
    assert snapshot.tables["episodes"]["patient_id"].to_pylist() == [pseudonyms.person("RXX", "12")]
    assert held(snapshot) == [(2, "person_id_missing", "local")]
    with pytest.raises(ClinicalRefused, match="issuer"):
        run("local,size\n12,1\n", columns=columns, walk=walk, project={"linked": False})


def test_no_table_is_a_snapshot_without_an_id(make_config, pseudonyms):
    snapshot = clinical.pseudonymise(make_config(), pseudonyms, WALK, None)
    assert (snapshot.id, snapshot.tables, snapshot.counts, snapshot.outcomes.num_rows) == (None, {}, {}, 0)


def test_identifiers_of_a_person_are_given_for_the_second_look(make_config, tmp_path):
    (tmp_path / "e.csv").write_text(f"{HEADER}{GOOD}{THREE},E9,2020-03-01,,,\n{FOUR},E7,2020-03-01,,,\n")
    config = make_config(clinical=[{"table": "episodes", "file": tmp_path / "e.csv", "columns": COLUMNS}])
    assert clinical.identifiers(config, WALK) == {
        (layout.NHS_ISSUER, ONE): {ONE, "E1"}, (layout.NHS_ISSUER, TWO): {THREE, "E9"}}


# ---- real NHS breast-screening extracts ---------------------------------------------------------------------------
EPISODE = {
    "nhs_number": {"role": "identity"}, "episode_id": {"role": "identifier"},
    "episode_type": {"role": "category", "values": list("CEFGHNRST")}, "episode_date": {"role": "event_date"},
    "appointment_made": {"role": "category", "values": ["True", "False", "TRUE", "FALSE"]},
    "date_of_foa": {"role": "event_date"}, "date_of_as": {"role": "event_date"},
    "end_code": {"role": "category", "values": ["SC", "DNA", "DNR", "WF", "WO", "PC", "WB", "WC", "WM"]},
    "bso_batch_id": {"role": "identifier"},
    **{name: {"role": "drop"} for name in (
        "change_db_date_time", "early_recall_date", "call_recall_status_authorised_by", "end_code_last_updated",
        "bso_organisation_code", "reason_closed_code", "end_point", "final_action_code")},
}


def read(name):
    return (gzip.open if name.endswith(".gz") else open)(CORPUS / name, "rt").read()


def link(text):
    """Return a crosswalk that knows every valid number of an extract."""
    known = {w for line in text.splitlines() if (w := nhs.normalise(line[:10]))}
    return crosswalk.parse(("issuer,local_id,nhs_number\nR,0,\n" + "".join(f"R,{w}L,{w}\n" for w in known)).encode())


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "linked", "mended"), [
    ("bss_episodes_10_rows.csv", 3, 10), ("bss_episodes_10_rows.csv.gz", 3, 10), ("bss_episodes_add_one_row.csv", 0, 1),
    ("bss_episodes_update_one_row.csv", 0, 1), ("bss_episodes_test_data_20240930.csv", 0, 0),
])
def test_an_extract_is_loaded_and_its_invalid_numbers_held(run, name, linked, mended):
    """Most numbers in these extracts have a wrong check digit, or ten equal digits; `mended`: with right ones."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    text = read(name)
    header, *rows = text.splitlines()
    right = "\n".join([header, *(f"{row[:9]}{nhs.check_digit(row[:9])}{row[10:]}" for row in rows)])
    for extract, expected in ((text, linked), (right, mended)):
        snapshot = run(extract, columns=EPISODE, walk=link(extract))
        assert snapshot.counts["episodes"].get("linked", 0) == expected == snapshot.tables["episodes"].num_rows
        assert snapshot.counts["episodes"].get("person_not_linked", 0) == len(rows) - expected
        assert all(row["episode_date"] for row in snapshot.tables["episodes"].to_pylist())


@pytest.mark.corpus
@pytest.mark.parametrize("name", [
    "bss_episodes_10_rows_CORRUPT_5256-10.csv.gz", "bss_episodes_invalidheader_one_row.csv",
    "bss_subjects_test_data_20240930.csv",      # another table than the one declared
])
def test_a_corrupt_or_undeclared_extract_is_refused(run, name):
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    with pytest.raises(ClinicalRefused):
        run((CORPUS / name).read_bytes(), name=name.replace("_CORRUPT_5256-10", ""), columns=EPISODE)


# ---- one bad row ---------------------------------------------------------------------------------------------------
def test_a_bad_row_is_held_and_the_rest_goes_on(run):
    latin = f"{ONE},E2,2020-03-01,normal,1,café\n{ONE},é,2020-03-01,normal,1,\n".encode("latin-1")
    snapshot = run((HEADER + GOOD + f"{ONE},SENTINEL\n" + f"{ONE},E,2020-03-01,normal,1,a,b\n").encode() + latin
                   + f"{ONE}\0,E,2020-03-01,normal,1,\n".encode() + GOOD.encode())
    assert held(snapshot) == [(2, "value_malformed", None), (3, "value_malformed", None),
                              (5, "charset_unsupported", "episode_id"), (6, "person_not_linked", "nhs_number")]
    assert snapshot.counts == {"episodes": {"charset_unsupported": 1, "linked": 3, "person_not_linked": 1,
                                            "value_malformed": 2}}


def test_a_quoted_line_break_in_a_column_to_drop_is_no_bad_row(run):
    assert run(HEADER + f'{ONE},E1,2020-03-01,normal,1,"one, two,\nthree, four, five, six, seven"\n' + GOOD).counts == {
        "episodes": {"linked": 2}}


def test_bad_bytes_are_no_identifier_for_the_second_look(make_config, tmp_path):
    (tmp_path / "e.csv").write_bytes((HEADER + GOOD).encode() + f"{ONE},é,2020-03-01,,,\n{ONE}\n".encode("latin-1"))
    config = make_config(clinical=[{"table": "episodes", "file": tmp_path / "e.csv", "columns": COLUMNS}])
    assert clinical.identifiers(config, WALK) == {(layout.NHS_ISSUER, ONE): {ONE, "E1"}}


def test_many_rows_are_kept_in_columns_and_in_order(run, monkeypatch):
    rows = "".join(f"{ONE},E{n},2020-03-01,normal,{n % 97},\n" for n in range(1000))
    whole = run(HEADER + rows)
    monkeypatch.setattr(clinical, "CHUNK", 7)
    monkeypatch.setattr(clinical_files, "BATCH", 11)
    again = run(HEADER + rows)
    assert again.id == whole.id and again.tables == whole.tables and again.outcomes == whole.outcomes
    sizes = [(row["episode_id"], row["size"]) for row in whole.tables["episodes"].to_pylist()]
    assert sizes == sorted(sizes) and len(sizes) == 1000


# ---- Parquet -------------------------------------------------------------------------------------------------------
def parquet(**columns):
    """Return a Parquet file of these columns, the others of COLUMNS empty."""
    n = len(next(iter(columns.values())))
    given = {name: columns.get(name, pa.nulls(n)) for name in COLUMNS}
    sink = io.BytesIO()
    pq.write_table(pa.table({**given, **columns}), sink)
    return sink.getvalue()


TYPED = {
    "nhs_number": pa.array([int(ONE), int(ONE), None]),
    "episode_id": pa.array([17, None, 18], pa.int32()),
    "invited": pa.array([date(2020, 3, 1), date(2020, 3, 2), date(2020, 3, 3)]),
    "outcome": pa.array(["normal", "recall", "normal"]).dictionary_encode(),
    "size": pa.array([12.5, None, 1.0]),
}


def test_a_typed_parquet_file_gives_what_the_csv_gives(run):
    text = f"{HEADER}{ONE},17,2020-03-01,normal,12.5,x\n{ONE},,2020-03-02,recall,,y\n,18,2020-03-03,normal,1.0,\n"
    plain, typed = run(text), run(parquet(**TYPED), name="episodes.parquet")
    assert typed.tables["episodes"].num_rows == 2
    assert typed.tables == plain.tables and typed.outcomes == plain.outcomes and typed.counts == plain.counts


@pytest.mark.parametrize("column", [
    {"nhs_number": pa.array([ONE])}, {"nhs_number": pa.array([ONE], pa.large_string())},
    {"nhs_number": pa.array([ONE]).dictionary_encode()}, {"nhs_number": pa.array([int(ONE)], pa.uint64())},
    {"invited": pa.array([datetime(2020, 3, 1)], pa.timestamp("ns"))}, {"invited": pa.array(["01/03/2020"])},
    {"invited": pa.array([datetime(2020, 3, 1)], pa.timestamp("s"))},
    {"invited": pa.array([date(2020, 3, 1)], pa.date64())},
    {"size": pa.array([12.5], pa.float32())}, {"size": pa.array([Decimal("12.50")])}, {"size": pa.array(["12.5"])},
    {"outcome": pa.array(["normal"])},
])
def test_every_type_that_can_be_told_is_read(run, column):
    columns = {**{name: values.slice(0, 1) for name, values in TYPED.items()}, **column}
    assert run(parquet(**columns), name="e.parquet").tables == run(
        f"{HEADER}{ONE},17,2020-03-01,normal,12.5,\n").tables


@pytest.mark.parametrize(("column", "reason"), [
    ({"invited": pa.array([datetime(2020, 3, 1, 10)], pa.timestamp("us"))}, "value_malformed"),
    ({"size": pa.array([float("nan")])}, "value_malformed"), ({"outcome": pa.array(["other"])}, "value_not_listed"),
    ({"nhs_number": pa.array([12])}, "person_not_linked"), ({"invited": pa.nulls(1)}, "value_missing"),
    ({"episode_id": pa.array([b"\xe9"]).cast(pa.binary()).view(pa.string())}, "charset_unsupported"),
])
def test_a_typed_value_that_is_not_what_its_role_says_holds_the_row(run, column, reason):
    columns = {**{name: values.slice(0, 1) for name, values in TYPED.items()}, **column}
    snapshot = run(parquet(**columns), name="e.parquet")
    assert snapshot.counts == {"episodes": {reason: 1}} and held(snapshot) == [(1, reason, *column)]


@pytest.mark.parametrize("column", [
    {"nhs_number": pa.array([9990065240.0])}, {"invited": pa.array([datetime(2020, 3, 1)], pa.timestamp("us", "UTC"))},
    {"size": pa.array([True])}, {"outcome": pa.array([[1]])}, {"note": pa.array([{"SENTINEL": 1}])},
    {"episode_id": pa.array([b"E1"])}, {"outcome": pa.array([1.0])}, {"invited": pa.array([20200301])},
])
def test_a_type_that_would_be_a_guess_refuses_the_file(run, column):
    columns = {**{name: values.slice(0, 1) for name, values in TYPED.items()}, **column}
    with pytest.raises(ClinicalRefused, match=next(iter(column))) as caught:
        run(parquet(**columns), name="e.parquet")
    assert "SENTINEL" not in str(caught.value)


def test_a_local_id_may_not_be_a_number_of_parquet(run):
    """It would have lost the zeros that tell one person from another."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"local": [12], "size": [1.0]}), sink)
    columns = {"local": {"role": "identity"}, "size": {"role": "number"}}
    with pytest.raises(ClinicalRefused, match="local"):
        run(sink.getvalue(), name="e.parquet", columns=columns, walk=crosswalk.Crosswalk({}, {}),
            project={"linked": False}, stage={"issuer": "RXX"})


def test_damaged_parquet_is_refused_wherever_it_is_damaged(run):
    whole = parquet(**{name: pa.concat_arrays([values] * 50) for name, values in TYPED.items()})
    good = run(whole, name="e.parquet")
    for at in range(0, len(whole), max(1, len(whole) // 60)):
        for broken in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1:]):
            try:
                found = run(broken, name="e.parquet")
            except ClinicalRefused as refused:
                assert ONE not in str(refused)
            else:       # a byte that says nothing of the rows, or a value that is another: never fewer rows
                assert sum(found.counts["episodes"].values()) == sum(good.counts["episodes"].values())
    with pytest.raises(ClinicalRefused, match="what the file's name says"):
        run(whole, name="e.csv")
    with pytest.raises(ClinicalRefused, match="what the file's name says"):
        run(HEADER + GOOD, name="e.parquet")


def test_parquet_that_gives_fewer_rows_than_it_says_is_refused(run):
    """One bit of its footer turned, and pyarrow reads fewer rows without a word."""
    whole = parquet(**{name: pa.concat_arrays([values] * 50) for name, values in TYPED.items()})

    def fewer(data):
        try:
            with pq.ParquetFile(pa.BufferReader(data)) as file:
                got = sum(batch.num_rows for batch in file.iter_batches(columns=list(TYPED), use_threads=False))
                return got < 150 == file.metadata.num_rows
        except (pa.ArrowException, OSError, UnicodeDecodeError):
            return False

    turned = (whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1:]
              for at in range(len(whole) - 9, 0, -1) for bit in range(8))
    with pytest.raises(ClinicalRefused, match="damaged"):
        run(next(filter(fewer, turned)), name="e.parquet")


def test_undeclared_columns_of_parquet_are_refused(run):
    with pytest.raises(ClinicalRefused, match="position: 7") as caught:
        run(parquet(**TYPED, JANESMITH=pa.nulls(3)), name="e.parquet")
    assert "JANE" not in str(caught.value)


# ---- OMOP tables, a prototype's JSON, and what hospitals do to files -------------------------------------------------
def omop(name):
    """Return the bytes of one OMOP table of the corpus, and columns declared as a project would."""
    path = CORPUS.parent / "omop_synthea27nj" / "Synthea27Nj_5.4.zip"
    if not path.is_file():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    data = zipfile.ZipFile(path).read(f"{name}.csv")
    header = data.split(b"\n", 1)[0].decode().strip().split(",")
    roles = {c: "identity" if c == "person_id" else "event_date" if c.endswith("_date") else "number" if c in (
        "value_as_number", "quantity", "year_of_birth") else "identifier" if c.endswith("occurrence_id") else "drop"
        for c in header}
    return data, {c: {"role": role} for c, role in roles.items()}


OMOP = {"walk": crosswalk.Crosswalk({}, {}), "project": {"linked": False}, "stage": {"issuer": "OMOP"}}


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "rows"), [
    ("PERSON", 28), ("DEATH", 3), ("OBSERVATION_PERIOD", 28), ("CONDITION_OCCURRENCE", 470), ("VISIT_OCCURRENCE", 1791),
    ("MEASUREMENT", 10040), ("DRUG_EXPOSURE", 883), ("PROCEDURE_OCCURRENCE", 1649),
])
def test_an_omop_table_is_loaded_and_the_same_from_typed_parquet(run, name, rows):
    data, columns = omop(name)
    plain = run(data, columns=columns, **OMOP)
    assert plain.counts == {"episodes": {"linked": rows}}
    text = pacsv.ConvertOptions(column_types={"person_id": pa.string()})
    sink = io.BytesIO()
    pq.write_table(pacsv.read_csv(io.BytesIO(data), convert_options=text), sink)
    assert run(sink.getvalue(), name="e.parquet", columns=columns, **OMOP).tables == plain.tables


@pytest.mark.corpus
def test_mixed_and_foreign_extracts(run, tmp_path):
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    text = read("bss_episodes_10_rows.csv")
    lines = text.encode().split(b"\n")
    lines[3] = lines[3].replace(b"CNO", "CÑÖ".encode("cp1252"))             # in a column to drop, and in a kept one
    lines[5:5] = [read("bss_subjects_test_data_20240930.csv").splitlines()[1].encode()]
    snapshot = run(b"\n".join(lines), columns=EPISODE, walk=link(text))
    assert sum(snapshot.counts["episodes"].values()) == 11
    assert {(3, "charset_unsupported", "bso_batch_id"), (5, "value_malformed", None)} <= set(held(snapshot))
    whole = run(text, columns=EPISODE, walk=link(text)).counts["episodes"]["linked"]
    assert 0 < snapshot.counts["episodes"]["linked"] <= whole
    for name in ("appointments", "episodes", "participants"):
        with pytest.raises(ClinicalRefused, match="only"):
            run((CORPUS.parent / "nhs_prototype" / f"{name}.json.gz").read_bytes(), name="e.json.gz", columns=EPISODE)

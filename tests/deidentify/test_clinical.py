import gzip
import os
import random
from datetime import date, timedelta
from pathlib import Path

import pytest

from pipeline import layout
from pipeline.deidentify import clinical, crosswalk, nhs
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
    (HEADER + GOOD + f"{ONE},SENTINEL\n", "line 3: 2 fields"), (HEADER + f'{ONE},"SENTINEL\n', "not CSV"),
    ((HEADER + GOOD).encode("utf-16"), "UTF-8"), ((HEADER + "é").encode("latin-1"), "UTF-8"),
    ((HEADER + f"{ONE}\0").encode(), "line 2"),
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

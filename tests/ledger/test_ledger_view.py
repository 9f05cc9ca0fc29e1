"""One row per object: every status, every default, both file formats."""

from __future__ import annotations

import csv
import json
import stat

import pyarrow.parquet as pq
import pytest
from ledger_kit import CONFIG, PROJECT, A, B, sha, uri

from pipeline import layout
from pipeline.errors import NotFound, SchemaTooNew, UsageError
from pipeline.ledger import ledger
from pipeline.model import Status
from pipeline.schemas import LEDGER, arrow_schema

PENDING = ("pending", None)


@pytest.fixture
def full(world):
    """A candidate that is published, with an object of every status, and a batch that came later."""
    world.batch("1", {
        "rej": ("rejected", "not_dicom"), "dup": ("duplicate", "same_bytes"),
        "con": ("conflict", "same_uid_other_bytes"),
        **dict.fromkeys(("pub", "out", "quar", "held", "exp", "both", "gone", "policy"), PENDING)})
    world.part("1", {"pub": PENDING, "gone": PENDING, "held": PENDING, "both": PENDING, "exp": PENDING,
                     "quar": ("quarantined", "vr_mismatch"), "out": ("withheld", "person_not_linked"),
                     "policy": ("rejected", "date_not_eligible")})
    world.build(A, "1", held={"held": "study_quarantined", "both": "study_quarantined"},
                withheld={"exp": "expectation_failed", "both": "expectation_failed"})
    world.batch("2", {"late": PENDING})
    return world


def test_every_status(full):
    release = full.publish(1, A, ["pub", "gone"])
    full.recall("gone")
    assert full.fates() == {
        "rej": ("rejected", "not_dicom", None), "dup": ("duplicate", "same_bytes", None),
        "con": ("conflict", "same_uid_other_bytes", None), "quar": ("quarantined", "vr_mismatch", None),
        "held": ("withheld", "study_quarantined", None), "both": ("withheld", "study_quarantined", None),
        "exp": ("withheld", "expectation_failed", None), "out": ("withheld", "person_not_linked", None),
        "policy": ("rejected", "date_not_eligible", None), "late": ("pending", None, None),
        "pub": ("published", None, release), "gone": ("recalled", "recalled", release)}
    assert full.identity() == {}
    full.part("2", {"pub": PENDING})
    full.build(B, "2")
    full.publish(2, B, ["pub"])
    superseded = full.fates(candidate_id=A)
    assert superseded["pub"] == ("superseded", None, release)
    assert superseded["gone"] == ("recalled", "recalled", release)
    assert full.identity(candidate_id=A) == {}
    seen = {status for fates in (full.fates(), superseded) for status, _, _ in fates.values()} | {"published"}
    assert seen == {s.value for s in Status} - {"missing"}      # nothing expects objects from PACS yet


def test_the_row_itself(full):
    release = full.publish(1, A, ["pub", "gone"])
    got = full.ledger()
    table = pq.read_table(full.root / "ledger.parquet")
    assert table.schema.equals(arrow_schema(LEDGER), check_metadata=True)
    assert table["source_uri"].to_pylist() == sorted(table["source_uri"].to_pylist())
    row = next(r for r in table.to_pylist() if r["source_uri"] == uri("pub"))
    assert row == {"source_uri": uri("pub"), "source_sha256": sha("pub"), "status": "published", "reason": None,
                   "candidate_id": A, "release_id": release, "released_key": layout.image(PROJECT, "P/pub.dcm")}
    assert (got.candidate, got.release, got.objects, got.holds) == (A, release, 12, True)
    assert got.counts["published"] == {"": 2}
    assert got.counts["withheld"] == {"expectation_failed": 1, "person_not_linked": 1, "study_quarantined": 2}
    assert stat.S_IMODE((full.root / "ledger.parquet").stat().st_mode) == 0o600
    again = (full.root / "ledger.parquet").read_bytes()
    full.ledger()
    assert (full.root / "ledger.parquet").read_bytes() == again


def test_csv(full):
    full.publish(1, A, ["pub", "gone"])
    full.ledger("ledger.csv")
    with (full.root / "ledger.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == LEDGER.names()
    row = next(r for r in rows if r["source_uri"] == uri("quar"))
    assert (row["source_sha256"], row["status"], row["reason"]) == (sha("quar").hex(), "quarantined", "vr_mismatch")
    assert len(rows) == 12
    with pytest.raises(UsageError):
        full.ledger("ledger.xlsx")
    assert [p.name for p in full.root.iterdir() if "ledger" in p.name] == ["ledger.csv"]


def test_which_candidate(world):
    assert world.ledger().objects == 0
    world.batch("1", {1: PENDING, 2: ("rejected", "empty")})
    assert world.fates() == {"1": ("pending", None, None), "2": ("rejected", "empty", None)}
    assert world.ledger().candidate is None
    world.part("1", {1: ("quarantined", "engine_failed")})
    world.part("2", {1: PENDING})
    world.build(A, "1")
    world.build(B, "2")
    assert world.ledger().candidate == B                            # the latest
    assert world.fates(candidate_id=A)["1"] == ("quarantined", "engine_failed", None)
    first = world.publish(1, A, [])
    assert world.ledger().candidate == A                            # the current release's
    assert world.ledger(candidate_id=B).release is None
    second = world.publish(2, B, [1])
    assert world.ledger(release_id=first).candidate == A
    assert world.fates(release_id=second)["1"] == ("published", None, second)
    for bad in ({"release_id": "0009-aaaaaaaaaaaa"}, {"candidate_id": "c-" + "9" * 24}):
        with pytest.raises(NotFound):
            world.ledger(**bad)
    for bad in ({"release_id": first, "candidate_id": B}, {"candidate_id": A, "all_candidates": True}):
        with pytest.raises(UsageError):
            world.ledger(**bad)


def test_all_candidates(full):
    full.part("2", {"pub": PENDING, "late": PENDING})
    full.build(B, "2")
    full.publish(1, A, ["pub", "gone"])
    got = full.ledger(all_candidates=True)
    rows = pq.read_table(full.root / "ledger.parquet").to_pylist()
    assert len({(r["source_uri"], r["source_sha256"], r["candidate_id"]) for r in rows}) == len(rows) == 24
    assert got.objects == 24
    assert {r["candidate_id"]: r["status"] for r in rows if r["source_uri"] == uri("pub")} == {
        A: "published", B: "pending"}


def test_an_object_with_other_bytes_under_the_same_name_is_another(world):
    world.batch("1", {"a": PENDING})
    world.batch("2", {"a/2": PENDING})
    world.part("1", {"a": ("quarantined", "source_changed")})
    world.part("2", {"a/2": PENDING})
    world.build(A, "12")
    world.ledger()
    rows = pq.read_table(world.root / "ledger.parquet").to_pylist()
    assert {(r["source_sha256"], r["status"]) for r in rows} == {(sha("a"), "quarantined"), (sha("a/2"), "pending")}
    assert (len(rows), world.identity()) == (2, {})


def test_a_release_that_nobody_was_given_is_not_published(full):
    """A publisher killed between manifest.json and current.json."""
    full.publish(1, A, ["pub", "gone"], current=False)
    assert full.fates()["pub"] == ("pending", None, None)
    assert full.identity() == {}


def test_a_missing_or_newer_table_is_an_error_not_a_wrong_ledger(full):
    full.work.delete(layout.outcomes(PROJECT, "p-" + "1" * 24))
    with pytest.raises(NotFound):
        full.ledger()
    doc = json.loads(full.candidate.read(layout.latest_candidate(PROJECT)))
    full.candidate.write(layout.latest_candidate(PROJECT), json.dumps({**doc, "schema_version": 2}).encode())
    with pytest.raises(SchemaTooNew):
        full.ledger()


def test_nothing_is_written_to_any_zone(full):
    def everything():
        return {(s.url, e.key, e.version) for s in (full.work, full.candidate, full.release) for e in s.list()}

    before = everything()
    full.ledger()
    ledger.summary(CONFIG, full.work, full.candidate, full.release)
    assert everything() == before

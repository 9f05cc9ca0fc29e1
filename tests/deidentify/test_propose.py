"""Terms are proposed from headers alone, with the people who share them; what is rarer is counted, never written."""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import pytest

from pipeline.deidentify.plan import PlanSet
from pipeline.deidentify.propose import HEADER, Proposal, propose, tags_of, write
from pipeline.deidentify.shard import Decided
from pipeline.deidentify.terms import NOTHING, Terms, read
from pipeline.errors import UsageError
from pipeline.model import Reason
from pipeline.storage import open_store
from pipeline.synthetic import files

SERIES = 0x0008103E


class Landed:
    """A landing, and the rows of its shard."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.store = open_store(f"file://{folder}", "landing")
        self.rows: list[Decided] = []

    def add(self, person: int, description: str | None, reason: Reason | None = None, **options: object) -> None:
        n = len(self.rows)
        data = files.mammogram(patient_id=f"LID{person:07}", seed=n, planted=False, series_uid=f"1.2.3.{n}",
                               **{"SeriesDescription": description, **options})
        self.put(f"{n}.dcm", data, person, f"1.2.3.{n}", reason)

    def put(self, key: str, data: bytes, person: int, series: str, reason: Reason | None = None) -> None:
        self.store.write(key, data)
        row = {"source_uri": f"{self.store.url}/{key}", "series_uid": series, "bytes": len(data)}
        self.rows.append(Decided(row, ("HOSP-A", str(person)), reason))

    def propose(self, people: int = 5, approved: Terms = NOTHING) -> Proposal:
        half = len(self.rows) // 2
        shards = [self.rows[:half], self.rows[half:]]
        return propose(self.store, shards, {SERIES: "SeriesDescription"}, approved, people)


@pytest.fixture
def landed(tmp_path: Path) -> Landed:
    return Landed(tmp_path / "landing")


def test_people_are_counted_not_series(landed: Landed) -> None:
    for person in range(5):
        landed.add(person, "L  mlo" if person else "L MLO")
    for _ in range(9):
        landed.add(1, "R MLO")          # nine series of one woman
    landed.add(2, "L MLO", Reason.PERSON_NOT_PERMITTED)
    landed.add(7, "r mlo")
    landed.add(8, None)
    found = landed.propose()
    assert [(t.term, t.people, t.series) for t in found.terms] == [("L mlo", 5, 5)]     # as most of them spell it
    assert found.rare == found.empty == {"SeriesDescription": 1}
    assert found.series == 16


def test_what_looks_like_an_identifier_is_counted_only(landed: Landed) -> None:
    for person in range(6):
        landed.add(person, "SEEN 12.03.2019")
        landed.add(person, "AX T2")
    found = landed.propose()
    assert [t.term for t in found.terms] == ["AX T2"]
    assert dict(found.refused) == {"SeriesDescription": 1}


def test_a_word_of_a_name_is_noted(landed: Landed) -> None:
    for person in range(6):
        landed.add(person, "CT for Dr Oakenshaw", referrer="OAKENSHAW^PERCIVAL")
        landed.add(person, "CT THORAX")
    noted = {t.term: bool(t.note) for t in landed.propose().terms}
    assert noted == {"CT for Dr Oakenshaw": True, "CT THORAX": False}


def test_one_object_of_a_series_and_of_it_the_header(landed: Landed) -> None:
    big = files.mammogram(SeriesDescription="L MLO", series_uid="1.2.3.0", rows=1400, columns=1000, planted=False)
    for person in range(5):
        landed.put(f"{person}.dcm", big[:1 << 20], person, f"1.2.3.{person}")      # cut within the pixels: still read
    landed.put("torn.dcm", big[:300], 9, "1.2.3.9")
    landed.put("whole.dcm", files.mammogram(SeriesDescription="L MLO", transfer_syntax="deflated"), 9, "1.2.3.9")
    found = landed.propose()
    assert [(t.term, t.people) for t in found.terms] == [("L MLO", 6)]
    assert (found.series, found.unreadable) == (6, 1)


def test_what_is_approved_stays_approved(landed: Landed, tmp_path: Path) -> None:
    for person in range(6):
        landed.add(person, "l mlo")
    path = tmp_path / "terms.csv"
    path.write_text("attribute,term,people,approver,date\nSeriesDescription,L MLO,120,R Hale,2026-11-20\n"
                    "SeriesDescription,GONE,40,R Hale,2026-11-20\n")
    found = landed.propose(approved=read(path, 5))
    assert [(t.term, t.people, t.approver) for t in found.terms] == [("L MLO", 120, "R Hale"), ("GONE", 40, "R Hale")]
    write(tmp_path / "out.csv", found)
    assert read(tmp_path / "out.csv", 5).by_tag == read(path, 5).by_tag


def test_a_proposal_is_a_file_of_its_owner_and_no_list_yet(landed: Landed, tmp_path: Path) -> None:
    for person in range(5):
        landed.add(person, "L MLO")
    out = tmp_path / "out.csv"
    write(out, landed.propose())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert list(csv.reader(out.open())) == [[*HEADER], ["SeriesDescription", "L MLO", "5", "5", "", "", ""]]
    with pytest.raises(Exception, match="not approved"):
        read(out, 5)
    with pytest.raises(UsageError):
        write(out, Proposal())


def test_only_free_text_may_be_proposed() -> None:
    plans = PlanSet("r-0", {})
    assert tags_of(plans, ["ProtocolName", "SeriesDescription"]) == {0x0008103E: "SeriesDescription",
                                                                    0x00181030: "ProtocolName"}
    for name in ("PatientName", "AccessionNumber", "PatientAddress", "StudyDate", "KVP", "Nonsense"):
        with pytest.raises(UsageError):
            tags_of(plans, [name])
    with pytest.raises(UsageError, match="keeps free text"):
        tags_of(plans, [])

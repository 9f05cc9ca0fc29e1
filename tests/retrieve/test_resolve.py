"""What a PACS says it has: lists that are cut short, that do not end or name nothing; NHS numbers by the crosswalk."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit
from faulty import options, serving
from test_retrieve_faults import Asked, by_accession

from pipeline import config, layout
from pipeline.errors import CohortRefused
from pipeline.retrieve.dimse import Dimse
from pipeline.retrieve.run import opened
from pipeline.storage import tables

pytestmark = pytest.mark.integration
NUMBERS = ("9434765919", "9434765870", "9876543210")     # synthetic, with a right check digit


def words(asked: Asked) -> list[str]:
    rows = tables.read(asked.work, layout.retrieval_rows(asked.name, asked.id), ["words"])
    return [text for text in rows["words"].to_pylist() if text]


@pytest.mark.parametrize("most", [{"IMAGE": 1}, {"SERIES": 1}])
def test_a_list_that_is_cut_short_is_fetched_and_asked_for_again(
    most: dict[str, int], shelf: kit.Shelf, tmp_path: Path
) -> None:
    with serving(shelf.images, counts=True) as pacs:
        whole = by_accession(kit.config(tmp_path / "whole", **options(pacs)))
        assert (whole.found["rows"], whole.found["instances"]) == ({"found": 1}, 5)
        pacs.most = most
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        assert asked.found["rows"] == {"failed": 1} and asked.found["refused"] == [[2, "pacs_failed"]]
        pacs.most = {}
        assert asked.fetch()["ended"] == {"complete": 1}
    assert words(asked) == ["The PACS lists less of a study than it says it has"]
    assert 0 < asked.landed() < 5 and asked.result()["again"] == 1
    assert "ACC1" in asked.work.read(layout.retrieval_again(asked.name, asked.id)).decode()


@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
def test_a_study_of_which_nothing_is_listed_is_not_passed_over(level: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, most={level: 0}) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs)), ",,,,,2018-06-14,2018-06-14,MG")
    assert (asked.found["rows"], asked.result()["again"]) == ({"failed": 1}, 1)


@pytest.mark.parametrize("name", ["", "*", "1.2?", "../1.2"])
def test_what_is_answered_without_a_uid_is_asked_for_no_further(name: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, named=name) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
    assert asked.found["rows"] == {"failed": 1} and asked.found["instances"] == 0
    assert {entry[1] for entry in pacs.asked} == {"STUDY"}


def test_answers_without_an_end_are_stopped(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, endless=True) as pacs, pytest.raises(CohortRefused):
        by_accession(kit.config(tmp_path, **options(pacs, cohort_instances=50)))


def test_the_same_question_put_otherwise_is_another_retrieval(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, untold=frozenset({"IssuerOfPatientID"})) as pacs:
        first = Asked(kit.config(tmp_path, **options(pacs)), ",LID1001,HOSP-A,,,,,")
        other = Asked(kit.config(tmp_path, **options(pacs, issuer="HOSP-B")), ",LID1001,HOSP-A,,,,,")
    assert first.found["rows"] == {"found": 1} and other.found["rows"] == {"refused": 1}


def test_a_question_does_not_wait_for_its_first_half_to_be_acknowledged(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs, opened(kit.config(tmp_path, **options(pacs))) as peer:
        assert isinstance(peer, Dimse)
        assert list(peer.find("STUDY", {"AccessionNumber": "ACC1"}))
        wire = peer._finding.dul.socket.socket
        assert wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# ---- NHS numbers by the crosswalk ----------------------------------------------------------------------------------
def linked(root: Path, pacs: Any, crosswalk: str) -> Any:
    (root / "crosswalk.csv").write_text(f"issuer,local_id,nhs_number,superseded_nhs_number\n{crosswalk}")
    file = kit.project_file(root, **options(pacs, nhs_numbers="crosswalk"))
    text = file.read_text().replace("linked = false", "linked = true")
    file.write_text(text.replace("[deidentify]", '[deidentify]\ncrosswalk = "crosswalk.csv"'))
    return config.load(file)


def test_a_person_is_asked_for_by_every_local_id_of_the_crosswalk(
    shelf: kit.Shelf, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, old = NUMBERS
    with serving(shelf.images) as pacs:
        made = linked(tmp_path, pacs, f"HOSP-A,LID1001,{one},\nHOSP-A,LID2002,{one},\nHOSP-A,LID3003,{two},{old}\n")
        asked = Asked(made, f"{one[:3]} {one[3:6]} {one[6:]},,,,,,,")
        assert (asked.found["rows"], asked.found["studies"], asked.found["instances"]) == ({"found": 1}, 3, 10)
        assert asked.fetch()["ended"] == {"complete": 3}
        assert Asked(made, f"{old},,,,,,,").found["rows"] == {"none": 1}, "the old number stands for the new one"
        found = Asked(made, f"{NUMBERS[0]},,,ACC2,,,,").found
        assert (found["studies"], found["left_out"]) == (1, {}), "her accession alone"
    assert asked.landed() == 10
    said = "".join(capsys.readouterr()) + repr(asked.found)
    assert not any(text in said for text in (*NUMBERS, "LID1001", "LID2002"))


@pytest.mark.parametrize(("crosswalk", "why"), [
    (f"HOSP-A,LID9999,{NUMBERS[1]},\n", "not_linked"),
    (f"HOSP-A,LID1001,{NUMBERS[0]},\nHOSP-A,LID1001,{NUMBERS[1]},\n", "not_linked"),       # two people: nobody
    (f"HOSP-A,LID*,{NUMBERS[0]},\n", "wildcard"),
    (f"HOSP-A,LIDÉ,{NUMBERS[0]},\n", "not_ascii"),
    (f"HOSP-B,LID1001,{NUMBERS[0]},\n", "not_what_was_asked"),                              # another's of that id
])
def test_a_person_whom_the_crosswalk_does_not_tell_is_not_asked_for(
    crosswalk: str, why: str, shelf: kit.Shelf, tmp_path: Path
) -> None:
    with serving(shelf.images) as pacs:
        asked = Asked(linked(tmp_path, pacs, crosswalk), f"{NUMBERS[0]},,,,,,,")
    assert asked.found["refused"] == [[2, why]] and asked.found["instances"] == 0
    assert len(pacs.asked) == (why == "not_what_was_asked")

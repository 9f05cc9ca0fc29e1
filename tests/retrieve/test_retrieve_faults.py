"""What a PACS does wrong: every study ends complete, partial or failed, by set, and nothing unasked is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import retrieve_kit as kit
from faulty import options, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import config, layout, steps
from pipeline.dicom.inspect import inspect
from pipeline.errors import CohortRefused, PacsUnreachable, StoreUnreachable
from pipeline.ledger.ledger import summary
from pipeline.retrieve.cohort import COLUMNS
from pipeline.storage import open_store, tables
from pipeline.storage.base import disk_full
from pipeline.storage.local import LocalStore

pytestmark = pytest.mark.integration


class Asked:
    """One retrieval of one study, start to end."""

    def __init__(self, made: Any, cells: str, **how: Any) -> None:
        self.made, self.name = made, made.name
        self.landing, self.work = kit.zones(made)
        path = Path(made.zones.work.removeprefix("file://")).parent / "cohort.csv"
        path.write_text(",".join(COLUMNS) + "\n" + cells + "\n")
        self.found = steps.ask_pacs(made, cohort=str(path), **how)
        self.id = self.found["retrieval"]

    def fetch(self, **how: Any) -> dict[str, Any]:
        self.done = steps.retrieve(self.made, self.id, **how)
        return self.done

    def result(self) -> dict[str, Any]:
        return steps.reconcile(self.made, self.id)

    def documents(self) -> list[dict[str, Any]]:
        prefix = layout.retrieval_study(self.name, self.id, "").removesuffix(".json")
        return [json.loads(self.work.read(entry.key)) for entry in self.work.list(prefix)]

    @property
    def document(self) -> dict[str, Any]:
        (one,) = self.documents()
        return one

    def landed(self) -> int:
        return len(list(self.landing.list("retrieved/")))

    def ledger(self) -> dict[str, Any]:
        zones = [open_store(getattr(self.made.zones, name), name) for name in ("candidate", "release")]
        found = summary(self.made, self.work, *zones)
        assert found.holds, found.findings
        return found.counts


def by_accession(made: Any, accession: str = "ACC1", **how: Any) -> Asked:
    return Asked(made, f",,,{accession},,,,", **how)


def test_nothing_wrong(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        asked.fetch()
    assert (asked.document["state"], asked.document["requests"]) == ("complete", 1)
    assert pacs.asked[-1] == ("get", "STUDY", 0)
    assert asked.result()["landed"] == asked.landed() == 5


@pytest.mark.parametrize("service", ["c-get", "c-move"])
def test_a_partial_retrieve_that_reports_success_is_caught(service: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    lost = shelf.of("ACC1")[0]
    with serving(shelf.images, withheld=frozenset({lost.sop})) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs, service)))
        asked.fetch()
    doc = asked.document
    assert (doc["state"], doc["missing"], doc["refused"]) == ("partial", 1, False)
    assert doc["words"] == ["0x0000 Success"]
    kind = service.removeprefix("c-")
    assert [entry for entry in pacs.asked if entry[0] == kind] == [(kind, "STUDY", 0), (kind, "IMAGE", 1)]
    assert asked.result() | {"bytes": 0} == {
        "retrieval": asked.id, "studies": {"partial": 1}, "landed": 4, "owed": 5, "missing": 1, "bytes": 0,
        "not_asked": 0, "repeated": 0, "conflicting": 0, "rows": {"found": 1}, "again": 1}
    assert asked.ledger()["missing"] == {"not_sent": 1}
    again = asked.work.read(layout.retrieval_again(asked.name, asked.id)).decode()
    assert lost.study in again and lost.sop not in again
    # Another run, with the exported cohort, once the PACS has mended: the rest is there, and the ledger says so.
    steps.stage(asked.made)
    with serving(shelf.images, receive=pacs.receive) as pacs:
        made = kit.config(tmp_path, **options(pacs, service))
        (tmp_path / "again.csv").write_text(again)
        found = steps.ask_pacs(made, cohort=str(tmp_path / "again.csv"))
        assert (found["instances"], found["left_out"]) == (1, {"held": 4})
        assert steps.retrieve(made, found["retrieval"])["ended"] == {"complete": 1}
        assert pacs.asked[-1][1:] == ("IMAGE", 1), "what has landed is not asked for again"
    steps.stage(made)
    assert "missing" not in asked.ledger()


def test_an_association_dropped_in_mid_series_goes_on_by_series(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, drops=2) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        asked.fetch()
    doc = asked.document
    assert doc["state"] == "complete" and "dropped" in doc["words"][0]
    gets = [entry[1:] for entry in pacs.asked if entry[0] == "get"]
    assert gets[0] == ("STUDY", 0)
    assert sorted(gets[1:]) == [("IMAGE", 2), ("SERIES", 0)], "two images of four had come; the report had not"
    assert asked.document["repeated"] == 0


def test_sent_twice_is_kept_once(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, twice=True) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        asked.fetch()
    assert (asked.document["state"], asked.document["repeated"], asked.landed()) == ("complete", 5, 5)


def test_one_instance_with_other_bytes_is_kept_beside_the_first_and_staging_calls_it_a_conflict(
    shelf: kit.Shelf, tmp_path: Path
) -> None:
    other = shelf.of("ACC1")[0].dataset
    other.KVP = "99"
    with serving(shelf.images, stranger=kit.written(other)) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        asked.fetch()
    assert (asked.document["state"], asked.document["conflicting"], asked.landed()) == ("complete", 1, 6)
    assert steps.stage(asked.made)["counts"]["conflict/same_uid_other_bytes"] == 2


@pytest.mark.parametrize("service", ["c-get", "c-move"])
def test_what_was_not_asked_for_is_kept_out_and_counted(service: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, stranger=shelf.of("ACC2")[0]) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs, service)))
        asked.fetch()
    assert (asked.document["state"], asked.document["not_asked"], asked.landed()) == ("complete", 1, 5)
    assert asked.document["words"][-1].startswith("0xB000"), "the PACS was told that we did not take it"


@pytest.mark.parametrize("key", ["AccessionNumber", "PatientID", "StudyInstanceUID", "StudyDate", "ModalitiesInStudy"])
def test_a_key_that_is_ignored_stops_the_row(key: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    rows = {"AccessionNumber": ",,,ACC1,,,,", "PatientID": ",LID1001,HOSP-A,,,,,", "StudyDate":
            ",,,,,2018-06-14,2018-06-14,MG", "ModalitiesInStudy": ",,,,,2018-06-01,2018-06-30,CT",
            "StudyInstanceUID": f",,,,{shelf.study('ACC1')},,,"}
    with serving(shelf.images, ignores=frozenset({key})) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs)), rows[key])
    assert asked.found["rows"] == {"refused": 1}
    assert asked.found["refused"] == [[2, "not_what_was_asked"]]
    assert asked.found["instances"] == 0
    assert not [entry for entry in pacs.asked if entry[1] != "STUDY"], "nothing more was asked of it"


def test_a_local_id_of_another_issuer_is_not_that_person(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs)), ",LID1001,HOSP-B,,,,,")
    assert asked.found["refused"] == [[2, "not_what_was_asked"]]


def test_more_studies_than_a_row_may_have(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs, row_studies=1)), ",LID1001,HOSP-A,,,,,")
    assert asked.found["refused"] == [[2, "row_studies"]] and asked.found["studies"] == 0


@pytest.mark.parametrize(("status", "said"), [
    (0xA702, "0xA702 Refused: out of resources, unable to perform sub-operations"),
    (0xC001, "0xC001 Failed: unable to process"),
    (0xA900, "0xA900 Error: the identifier or data set does not match the SOP class"),
])
def test_a_refusal_ends_the_study_as_failed_in_words(status: int, said: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, status=status) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        asked.fetch()
    assert (asked.document["state"], asked.document["words"]) == ("failed", [said])
    assert asked.ledger()["missing"] == {"pacs_failed": 5}
    assert asked.result()["again"] == 1
    busy = len([entry for entry in pacs.asked if entry[0] == "get"])
    assert (busy == 1) == (status == 0xA702), "who says that it has no room is not asked three times"


@pytest.mark.parametrize("service", ["c-get", "c-move"])
def test_one_that_never_answers_is_left_in_time(service: str, shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs, service, timeout_seconds=1)))
        pacs.silent = 2.5
        done = asked.fetch()
    assert (done["left"], done["why"], asked.documents()) == (1, "not_reached", [])


def test_one_that_takes_no_association_is_unreachable(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, rejects=True) as pacs, pytest.raises(PacsUnreachable):
        by_accession(kit.config(tmp_path, **options(pacs)))


def test_what_is_sent_after_the_move_has_ended_is_waited_for(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, late=0.5) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs, "c-move", late_seconds=2)))
        asked.fetch()
    assert (asked.document["state"], asked.document["requests"], asked.landed()) == ("complete", 1, 5)


def test_what_comes_while_another_study_is_fetched_counts_for_its_own(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images, late=1.2) as pacs:
        made = kit.config(tmp_path, **options(pacs, "c-move", late_seconds=0.3))
        asked = Asked(made, ",LID1001,HOSP-A,,,,,")
        asked.fetch()
    states = [doc["state"] for doc in asked.documents()]
    assert asked.landed() == sum(doc["owed"] - doc["missing"] for doc in asked.documents())
    assert "failed" not in states[:1] or asked.landed() == 0


def test_only_the_pacs_may_send(shelf: kit.Shelf, tmp_path: Path) -> None:
    from pipeline.retrieve.run import opened

    with serving(shelf.images) as pacs:
        with opened(kit.config(tmp_path, **options(pacs, "c-move"))):
            assert pacs.store(shelf.images[0]) == 0x0124, "nobody asked for it"
        with opened(kit.config(tmp_path, **options(pacs, "c-move", senders=["ANOTHER"]))):
            assert pacs.store(shelf.images[0]) is None


@pytest.mark.parametrize("cap", ["cohort_studies", "cohort_instances"])
def test_more_than_a_cohort_may_have_is_refused_before_anything_moves(
    cap: str, shelf: kit.Shelf, tmp_path: Path
) -> None:
    with serving(shelf.images) as pacs, pytest.raises(CohortRefused):
        Asked(kit.config(tmp_path, **options(pacs, **{cap: 1})), ",LID1001,HOSP-A,,,,,")
    assert not [entry for entry in pacs.asked if entry[0] != "find"]


def test_filters_leave_out_before_anything_moves(shelf: kit.Shelf, tmp_path: Path) -> None:
    def left_out(**only: Any) -> dict[str, int]:
        made = kit.config(tmp_path, **options(pacs, only=only))
        return dict(by_accession(made).found["left_out"])

    with serving(shelf.images) as pacs:
        assert left_out(modalities=["MG"]) == {"modality": 1}
        assert left_out(sop_classes=["X-Ray Radiation Dose SR Storage"]) == {"sop_class": 4}
        assert left_out(study_dates={"earliest": "2019-01-01", "latest": "2020-01-01"}) == {"date": 5}
        assert left_out(manufacturers=["siemens*"]) == {"manufacturer": 5}
        assert left_out(not_series_descriptions=["l mlo*"])["series_description"] >= 1
        made = kit.config(tmp_path, **options(pacs, only={"sop_classes": ["X-Ray Radiation Dose SR Storage"]}))
        asked = by_accession(made)
        asked.fetch()
    assert (asked.landed(), asked.document["not_asked"]) == (1, 0)
    assert pacs.asked[-1][:2] == ("get", "SERIES")


def test_what_pacs_does_not_tell_keeps_nothing_back(shelf: kit.Shelf, tmp_path: Path) -> None:
    untold = frozenset({"SOPClassUID", "Manufacturer", "ModalitiesInStudy"})
    with serving(shelf.images, untold=untold) as pacs:
        made = kit.config(tmp_path, **options(pacs, only={"manufacturers": ["siemens*"]}))
        asked = Asked(made, ",,,,,2018-06-01,2018-06-30,MG")
        asked.fetch()
    assert asked.document["state"] == "complete" and asked.landed() == 5


def test_nothing_of_a_patient_is_said(shelf: kit.Shelf, tmp_path: Path, capsys: Any) -> None:
    with serving(shelf.images, withheld=frozenset({shelf.images[0].sop})) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        said = json.dumps([asked.found, asked.fetch(), asked.result(), asked.documents()])
    said += "".join(capsys.readouterr())
    for word in ("ACC1", "LID1001", "QUILL", shelf.images[0].sop, shelf.images[0].study):
        assert word not in said


def test_a_slice_shares_the_studies_out(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs)), ",LID1001,HOSP-A,,,,,")
        assert [asked.fetch(group=n, groups=2)["ended"] for n in range(2)] == [{"complete": 1}, {"complete": 1}]
    assert asked.result()["studies"] == {"complete": 2}




KILLED = "import sys\nfrom pipeline import steps\nsteps.retrieve(sys.argv[1], sys.argv[2])\n"


def test_after_a_kill_nothing_that_landed_is_asked_for_again(shelf: kit.Shelf, tmp_path: Path) -> None:
    running: list[subprocess.Popen[bytes]] = []

    def kill() -> None:
        running[0].kill()
        running[0].wait()

    with serving(shelf.images) as pacs:
        file = kit.project_file(tmp_path, **options(pacs))
        asked = by_accession(config.load(file))
        pacs.at = {3: kill}
        (tmp_path / "tmp").mkdir()
        running.append(subprocess.Popen([sys.executable, "-c", KILLED, str(file), asked.id],
                                        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")}))
        assert running[0].wait(60) == -9
        assert list((tmp_path / "tmp").iterdir()) == [], "no image is left where the machine keeps what is temporary"
        assert (asked.landed(), asked.documents()) == (3, [])
        pacs.at, before = {}, len(pacs.asked)
        assert asked.fetch()["ended"] == {"complete": 1}
        assert sum(max(entry[2], 1) for entry in pacs.asked[before:]) == 2
    assert (asked.landed(), asked.document["repeated"], asked.document["missing"]) == (5, 0, 0)
    assert not list((tmp_path / "landing").glob(".tre-*")), "what the killed one had begun is cleared away"


@pytest.mark.parametrize("service", ["c-get", "c-move"])
def test_a_disk_without_room_here_is_not_the_pacs_s_fault(
    service: str, shelf: kit.Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise disk_full("landing")

    with serving(shelf.images) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs, service)))
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "adopt", full)
            with pytest.raises(StoreUnreachable):
                asked.fetch()
        assert asked.documents() == [] and len([one for one in pacs.asked if one[0] != "find"]) == 1
        assert asked.fetch()["ended"] == {"complete": 1}
    assert asked.fetch() == {"retrieval": asked.id, "ended": {}, "left": 0, "wait_seconds": 0.0, "why": None}


def test_the_owed_set_is_asked_of_pacs_once(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        made = kit.config(tmp_path, **options(pacs))
        first, n = by_accession(made), len(pacs.asked)
        again = by_accession(made)
        assert (again.found, len(pacs.asked)) == (first.found, n)
        assert by_accession(made, attempt=1).id != first.id
        assert len(pacs.asked) > n


def test_a_pacs_that_fails_again_and_again_is_left_in_peace(shelf: kit.Shelf, tmp_path: Path) -> None:
    with serving(shelf.images) as pacs:
        made = kit.config(tmp_path, **options(pacs, failures_before_pause=2, pause_minutes=30))
        asked = Asked(made, ",LID1001,HOSP-A,,,,,")
        pacs.status = 0xA702
        done = asked.fetch()
        assert (done["ended"], done["left"]) == ({"failed": 2}, 0)
        done = asked.fetch(again=True)
        assert (done["left"], done["why"]) == (2, "pacs_failing")
        assert 1700 < done["wait_seconds"] <= 1800
        assert len([entry for entry in pacs.asked if entry[0] == "get"]) == 2


def test_no_more_studies_an_hour_than_allowed(shelf: kit.Shelf, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("pipeline.retrieve.kind.BURST", 1)
    with serving(shelf.images) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs, studies_an_hour=60)), ",LID1001,HOSP-A,,,,,")
        done = asked.fetch()
    assert (done["ended"], done["left"], done["why"]) == ({"complete": 1}, 1, "studies_an_hour")
    assert 30 < done["wait_seconds"] <= 60


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_goes_wrong_every_instance_is_landed_or_missing_and_never_both(
    data: st.DataObject, shelf: kit.Shelf
) -> None:
    owed = {one.sop for one in shelf.images if one.head.PatientID == "LID1001"}
    withheld = data.draw(st.sets(st.sampled_from(sorted(owed))))
    drops = data.draw(st.none() | st.integers(0, 6))
    twice, unasked = data.draw(st.booleans()), data.draw(st.sampled_from([None, shelf.of("ACC2")[0]]))
    status = data.draw(st.sampled_from([None, None, 0xA702, 0xC000]))
    with tempfile.TemporaryDirectory() as folder, serving(
        shelf.images, withheld=frozenset(withheld), drops=drops, twice=twice, stranger=unasked
    ) as pacs:
        asked = Asked(kit.config(Path(folder), **options(pacs)), ",LID1001,HOSP-A,,,,,")
        pacs.status = status
        asked.fetch()
        result = asked.result()
        landed = {str(inspect(path, 1 << 30).sop_instance_uid) for path in Path(folder, "landing").rglob("*.dcm")}
        missing = set()
        for entry in asked.work.list(layout.retrieval_missing(asked.name, asked.id)):
            missing |= set(tables.read(asked.work, entry.key)["sop_instance_uid"].to_pylist())
    assert landed | missing == owed and not landed & missing
    assert (result["owed"], result["landed"], result["missing"]) == (len(owed), len(landed), len(missing))
    if status is None:
        assert missing <= withheld | (set() if drops is None else owed)


def test_a_study_has_ended_only_once_what_landed_is_durable(
    shelf: kit.Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    settle, write = LocalStore.settle, LocalStore.write

    def settling(self: LocalStore) -> None:
        done.append("settled")
        settle(self)

    def writing(self: LocalStore, key: str, data: bytes) -> None:
        done.append("ended" if "/studies/" in key else "")
        write(self, key, data)

    with serving(shelf.images) as pacs:
        asked = by_accession(kit.config(tmp_path, **options(pacs)))
        monkeypatch.setattr(LocalStore, "settle", settling)
        monkeypatch.setattr(LocalStore, "write", writing)
        asked.fetch()
    assert [what for what in done if what] == ["settled", "ended"]


def test_quiet_hours_that_begin_between_two_rows_are_slept_through(
    shelf: kit.Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, slept = iter([0.0, 0.0, 7200.0, 60.0, 0.0]), list[float]()
    monkeypatch.setattr("pipeline.retrieve.kind.Kindness.quiet", lambda self, now: next(answers))
    monkeypatch.setattr("pipeline.retrieve.run.time.sleep", slept.append)
    with serving(shelf.images) as pacs:
        asked = Asked(kit.config(tmp_path, **options(pacs)), ",,,ACC1,,,,\n,,,ACC3,,,,")
        assert len(pacs.opened) == 2, "no association is held meanwhile"
    assert asked.found["rows"] == {"found": 2}
    assert [seconds for seconds in slept if seconds >= 1] == [60, 60]


def test_a_pacs_that_is_left_in_peace_is_not_asked_what_it_has_either(shelf: kit.Shelf, tmp_path: Path) -> None:
    from pipeline.retrieve.kind import Kindness

    with serving(shelf.images) as pacs:
        made = kit.config(tmp_path, **options(pacs, failures_before_pause=1))
        assert made.retrieve
        Kindness(made.retrieve, kit.zones(made)[1], made.name).told(well=False)
        asked = by_accession(made)
    assert (asked.found["why"], pacs.asked) == ("pacs_failing", [])

"""One person is one pseudonym and nobody else's, through the whole way: images, tables, references, dates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from small_site import Site, nhs

from pipeline import steps
from pipeline.errors import CrosswalkRefused
from pipeline.synthetic import files
from pipeline.synthetic.encode import uid
from tests.helpers import officers

pytestmark = pytest.mark.xdist_group("linkage")

# Who is who. HOSP-A and HOSP-B both have a patient A1; they are two people.
ANNA, BRIGID, CERYS, CERYS_ONCE, HELEN, HELEN_NEW = (nhs(n) for n in (100, 200, 300, 400, 500, 600))
OTHER = nhs(700)
WRONG_DIGIT = ANNA[:9] + str((int(ANNA[9]) + 1) % 10)
CROSSWALK = [
    ("HOSP-A", "A1", ANNA, ""), ("HOSP-B", "B9", f"{ANNA[:3]} {ANNA[3:6]} {ANNA[6:]}", ""),
    ("HOSP-B", "A1", BRIGID, ""),
    ("HOSP-A", "C1", CERYS_ONCE, ""), ("HOSP-B", "C2", f"{CERYS[:3]}-{CERYS[3:6]}-{CERYS[6:]}", ""),
    ("", "", CERYS, CERYS_ONCE),
    ("HOSP-A", "D1", BRIGID, ""), ("HOSP-A", "D1", OTHER, ""),          # two numbers
    ("HOSP-A", "D2", BRIGID, ""), ("HOSP-A", "D2", WRONG_DIGIT, ""),    # one of two is no number
    ("HOSP-A", "E1", WRONG_DIGIT, ""), ("HOSP-A", "E2", "1111111111", ""), ("HOSP-A", "E3", "", ""),
    ("HOSP-A", "H1", HELEN, ""),
]
PERMITTED = [ANNA, BRIGID, CERYS, HELEN, HELEN_NEW, OTHER]

# label → issuer, local id, study date; None where nobody may be told. The kV says which image is which in the release.
STUDIES = {
    "anna-1": ("HOSP-A", "A1", "20160229"), "anna-2": ("HOSP-B", "B9", "20180614"),
    "anna-3": ("HOSP-A", "A1", "20210301"),
    "brigid": ("HOSP-B", "A1", "20180614"),
    "cerys-1": ("HOSP-A", "C1", "20170101"), "cerys-2": ("HOSP-B", "C2", "20191231"),
    "helen": ("HOSP-A", "H1", "20190505"),
}
HELD = {
    "two-numbers": ("D1", "person_ambiguous"), "one-invalid": ("D2", "person_ambiguous"),
    "wrong-digit": ("E1", "person_not_linked"), "repeated-digit": ("E2", "person_not_linked"),
    "no-number": ("E3", "person_not_linked"), "unknown": ("G1", "person_not_linked"),
    "number-as-id": (ANNA, "person_not_linked"),        # a local id is never taken for an NHS number by its shape
}
PERSON = {"anna-1": "anna", "anna-2": "anna", "anna-3": "anna", "brigid": "brigid", "cerys-1": "cerys",
          "cerys-2": "cerys", "helen": "helen"}


def _objects() -> dict[str, bytes]:
    """Each study is one exposure: the image for processing, and the one for presentation that refers to it."""
    made = {}
    for n, (label, (issuer, local, day)) in enumerate(STUDIES.items()):
        common: dict[str, Any] = {
            "rows": 16, "columns": 16, "issuer": issuer, "patient_id": local, "study_date": day, "KVP": f"{25 + n}",
            "accession": f"ACC77{n:03d}", "patient_name": f"{PERSON[label].upper()}WORTHY^WINIFREDE"}
        shown = uid("shown", label)
        made[label] = files.mammogram(**common, sop_instance_uid=shown)
        made[f"{label}.raw"] = files.mammogram(**common, intent="FOR PROCESSING", sop_instance_uid=uid("raw", shown))
    for label, (local, _) in HELD.items():
        made[label] = files.mammogram(rows=16, columns=16, patient_id=local, accession=f"AC{label}")
    return made


def _episode(number: str, study_date: str, n: int) -> dict[str, str]:
    when = date.fromisoformat(f"{study_date[:4]}-{study_date[4:6]}-{study_date[6:]}")
    return {"nhs_number": number, "episode_id": str(700000 + n), "episode_type": "R", "appointment_made": "True",
            "episode_date": (when - timedelta(days=21)).isoformat(), "date_of_foa": f"{when:%d/%m/%Y}",
            "end_code": "SC", "final_action_code": "RR"}


def _episodes() -> list[dict[str, str]]:
    """A row a study. Anna's second number is spaced and Cerys's first is superseded; the last three are nobody's."""
    numbers = {"anna": ANNA, "brigid": BRIGID, "cerys": CERYS, "helen": HELEN}
    rows = [_episode(numbers[PERSON[label]], day, n) for n, (label, (_, _, day)) in enumerate(STUDIES.items())]
    rows[1]["nhs_number"] = f"{ANNA[:3]} {ANNA[3:6]} {ANNA[6:]}"
    rows[4]["nhs_number"] = CERYS_ONCE
    return [*rows, *(_episode(number, "20180101", 50 + n) for n, number in enumerate(
        (WRONG_DIGIT, "1111111111", HELEN_NEW)))]


@pytest.fixture(scope="module", autouse=True)
def _officers() -> Iterator[None]:
    with officers.listed():
        yield


class Linked:
    """A site that was published, and what its release says by label and by person."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.site = Site(folder, _objects(), list(CROSSWALK), PERMITTED, _episodes(), **options).lay()
        self.site.stage()
        self.read(self.site.release())

    def read(self, released: dict[str, Any]) -> None:
        self.released = released
        labels = list(STUDIES)
        self.images: dict[str, pydicom.Dataset] = {}
        for image in self.site.images(released):
            raw = image.PresentationIntentType == "FOR PROCESSING"
            self.images[labels[round(float(image.KVP)) - 25] + ".raw" * raw] = image
        self.by_person: dict[str, set[str]] = defaultdict(set)
        for label, person in PERSON.items():
            self.by_person[person] |= {self.images[name].PatientID for name in (label, f"{label}.raw")
                                       if name in self.images}

    def table(self, name: str) -> list[dict[str, Any]]:
        return self.site.table(self.released, name)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Linked:
    return Linked(tmp_path_factory.mktemp("linked"))


def test_a_person_has_one_pseudonym_everywhere_and_shares_it_with_nobody(linked: Linked) -> None:
    assert set(linked.images) == {name for label in STUDIES for name in (label, f"{label}.raw")}
    assert {person: len(ids) for person, ids in linked.by_person.items()} == dict.fromkeys(linked.by_person, 1)
    pseudonyms = {person: next(iter(ids)) for person, ids in linked.by_person.items()}
    assert len(set(pseudonyms.values())) == 4
    assert {row["patient_id"] for row in linked.table("patients")} == set(pseudonyms.values())
    studies = {image.StudyInstanceUID: label.removesuffix(".raw") for label, image in linked.images.items()}
    assert sorted(studies.values()) == sorted(STUDIES)
    for table in ("studies", "series", "instances", "exposures"):
        rows = linked.table(table)
        assert len(rows) == len(STUDIES) * (1 if table in ("studies", "exposures") else 2)    # a raw copy is no other
        for row in rows:
            assert row["patient_id"] == pseudonyms[PERSON[studies[row["study_uid"]]]]
    counts = {row["patient_id"]: row["n_studies"] for row in linked.table("patients")}
    assert {person: counts[name] for person, name in pseudonyms.items()} == {
        "anna": 3, "brigid": 1, "cerys": 2, "helen": 1}
    episodes = defaultdict(int)
    for row in linked.table("episodes"):
        episodes[row["patient_id"]] += 1
    assert {person: episodes.pop(name) for person, name in pseudonyms.items()} == {
        "anna": 3, "brigid": 1, "cerys": 2, "helen": 1}
    assert not episodes


def test_a_persons_dates_move_together_and_keep_their_intervals(linked: Linked) -> None:
    shifts: dict[str, set[int]] = defaultdict(set)
    for label, (_, _, day) in STUDIES.items():
        for name in (label, f"{label}.raw"):
            for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
                shifts[PERSON[label]].add((_day(str(linked.images[name][keyword].value)) - _day(day)).days)
    pseudonym = {next(iter(ids)): person for person, ids in linked.by_person.items()}
    landed = {person: sorted(_day(day) for label, (_, _, day) in STUDIES.items() if PERSON[label] == person)
              for person in linked.by_person}
    for column, before in (("date_of_foa", 0), ("episode_date", 21)):
        out: dict[str, list[date]] = defaultdict(list)
        for row in linked.table("episodes"):
            out[pseudonym[row["patient_id"]]].append(row[column] + timedelta(days=before))
        for person, days in out.items():
            shifts[person] |= {(new - old).days for new, old in zip(sorted(days), landed[person], strict=True)}
    for row in linked.table("patients"):
        first = landed[pseudonym[row["patient_id"]]][0]
        shifts[pseudonym[row["patient_id"]]].add((row["first_study_date"] - first).days)
    assert {person: len(days) for person, days in shifts.items()} == dict.fromkeys(linked.by_person, 1)
    assert all(-365 <= day <= -1 for days in shifts.values() for day in days)
    assert len({next(iter(days)) for days in shifts.values()}) > 1


def _day(text: str) -> date:
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def test_references_resolve_inside_the_release(linked: Linked) -> None:
    for label in STUDIES:
        shown, raw = linked.images[label], linked.images[f"{label}.raw"]
        (source,) = shown.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == raw.SOPInstanceUID == raw.file_meta.MediaStorageSOPInstanceUID
        assert shown.StudyInstanceUID == raw.StudyInstanceUID
        assert shown.FrameOfReferenceUID == raw.FrameOfReferenceUID
    assert len({image.SOPInstanceUID for image in linked.images.values()}) == 2 * len(STUDIES)
    assert len({image.FrameOfReferenceUID for image in linked.images.values()}) == len(STUDIES)
    landed = {pydicom.dcmread(path).FrameOfReferenceUID for path in (linked.site.folder / "landing").iterdir()}
    assert landed.isdisjoint(image.FrameOfReferenceUID for image in linked.images.values())


def test_who_cannot_be_told_is_held_by_reason(linked: Linked) -> None:
    fates = linked.site.fates()
    expected = {label: ("withheld", reason) for label, (_, reason) in HELD.items()}
    assert {label: fates[label] for label in HELD} == expected
    assert all(fates[name] == ("published", None) for name in linked.images)
    manifest = next((linked.site.folder / "candidate").rglob("candidate.json")).read_text()
    assert '"person_not_linked": 3' in manifest, "three clinical rows are nobody's, and the candidate says so"


def test_another_project_shares_nothing(linked: Linked, tmp_path: Path) -> None:
    """Same people, same images, another name and another key."""
    other = Linked(tmp_path / "other", name="other-project", secret="another key")
    assert set(other.images) == set(linked.images)

    def told(one: Linked) -> dict[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for image in one.images.values():
            found["people"].add(image.PatientID)
            found["devices"] |= {image.DeviceSerialNumber, image.DetectorID}
            found["operators"].add(str(image.OperatorsName))
            for element in [*image.file_meta, *image.iterall()]:
                software = element.keyword == "ImplementationClassUID"      # the product's own
                if element.VR == "UI" and str(element.value).startswith("2.25.") and not software:
                    found["uids"].add(str(element.value))
        for table in ("patients", "studies", "series", "instances", "exposures", "episodes"):
            for row in one.table(table):
                for column in ("patient_id", "study_uid", "series_uid", "sop_instance_uid", "device_id", "operator_id",
                               "episode_id", "sha256", "path"):
                    if row.get(column):
                        found[column].add(row[column])
        found["files"] = {path.name for path in (one.site.folder / "release").rglob("*.dcm")}
        found["ids"] = {path.name for zone in ("candidate", "release") for path in (one.site.folder / zone).rglob("*")
                        if path.name[:2] in ("c-", "p-", "q-", "00")}
        return found

    here, there = told(linked), told(other)
    assert here.keys() == there.keys()
    for what in here:
        assert here[what], what
        assert here[what].isdisjoint(there[what]), what


def test_a_changed_crosswalk_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    """Helen's local id leads to another person. Nothing moves; once accepted, no image of hers is under the old one."""
    linked = Linked(tmp_path / "changed")
    site = linked.site
    (old,) = linked.by_person["helen"]
    before = site.digests("work", "candidate", "release")
    site.crosswalk = [("HOSP-A", "H1", HELEN_NEW, "") if row[1] == "H1" else row for row in CROSSWALK]
    site.tables()
    with pytest.raises(CrosswalkRefused) as refused:
        steps.pending_shards(site.project)
    assert not {old, HELEN, HELEN_NEW, "H1"} & set(str(refused.value).split())
    assert site.digests("work", "candidate", "release") == before

    for part in (site.folder / "work").rglob("shards/*.parquet"):       # a task that was queued before does its part
        steps.deidentify(site.project, part.parent.parent.name, int(part.stem))
    with pytest.raises(CrosswalkRefused):
        steps.assemble(site.project)
    candidates = site.digests("candidate", "release")
    assert {key: digest for key, digest in candidates.items() if "/parts/" not in key} == {
        key: digest for key, digest in before.items() if key[:4] != "work" and "/parts/" not in key}

    site.edit("date_shift_days = 365", "date_shift_days = 365\naccept_crosswalk_changes = true")
    linked.read(site.release())
    (new,) = linked.by_person["helen"]
    assert new != old
    assert linked.images["helen"].PatientID == linked.images["helen.raw"].PatientID == new
    for table in ("patients", "studies", "series", "instances", "exposures", "episodes"):
        people = [row["patient_id"] for row in linked.table(table)]
        assert new in people and old not in people, table
    assert old not in {image.PatientID for image in linked.images.values()}
    assert not any(old in row["path"] for row in linked.table("instances"))

    site.edit("\naccept_crosswalk_changes = true", "")      # for one build: who she is now is who is known
    assert steps.pending_shards(site.project) == []

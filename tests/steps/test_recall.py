"""Recall, by the steps and over a whole site: what goes, what stays as it was, and what is left behind to prove it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pydicom
import pytest
from steps_kit import NAME, Site, keep, killed, make, put_back

from pipeline import layout, steps
from pipeline.errors import ApprovalRefused, NotFound, PublishRefused, RecallRefused, UsageError
from pipeline.publish.verify import verify
from pipeline.synthetic import files

pytestmark = pytest.mark.xdist_group("steps")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with one release, and beside it a copy of all that it holds."""
    site = make(tmp_path_factory.mktemp("recall") / "site", women=3)
    site.everything()
    return keep(site)


@pytest.fixture
def site(once: Site) -> Iterator[Site]:
    """The site as it was after its release; the test may do what it likes with it."""
    yield once
    put_back(once)


def landed(site: Site) -> dict[str, pydicom.Dataset]:
    """Key below landing → header, of every published object."""
    return {key: pydicom.dcmread(site.folder / "landing" / key, stop_before_pixels=True)
            for key, (status, _) in site.ledger().items() if status == "published"}


def someone(site: Site) -> tuple[str, set[str]]:
    """A person with several published images, as ISSUER:LOCALID, and the keys of all that is published of them."""
    numbers = {(issuer, local): number for issuer, local, number in
               (line.split(",")[:3] for line in (site.folder / "crosswalk.csv").read_text().splitlines()[1:])}
    people: dict[str, set[str]] = {}
    names: dict[str, str] = {}
    for key, header in landed(site).items():
        pair = (header.get("IssuerOfPatientID") or "HOSP-A", header.PatientID)
        if pair in numbers:
            number = numbers[pair].replace(" ", "")
            people.setdefault(number, set()).add(key)
            names[number] = ":".join(pair)
    number = max(people, key=lambda n: (len(people[n]), n))
    return names[number], people[number]


def order(site: Site, **what: Any) -> str:
    return str(steps.order_recall(site.project, "withdrawn", "officer", "engineer", **what)["recall"])


def carry_out(site: Site, recall: str) -> dict[str, Any]:
    steps.recall(site.project, recall)
    site.deidentify()
    site.candidate()
    return steps.finish_recall(site.project, recall)


def release_again(site: Site) -> dict[str, Any]:
    return site.release(steps.newest_candidate(site.project))


def url(site: Site, release: str) -> str:
    return f"file://{(site.folder / 'release').resolve()}/{NAME}/releases/{release}"


def instances_of(site: Site, release: str) -> dict[str, tuple[str, str]]:
    table = site.folder / "release" / NAME / "releases" / release / "tables/instances.parquet"
    return {uid: (path, sha) for uid, path, sha in
            duckdb.sql(f"select sop_instance_uid, path, sha256 from '{table}'").fetchall()}


def everything_said(site: Site, recall: str) -> str:
    zones = [site.folder / zone / NAME for zone in ("work", "release")]
    return "".join((zone / "certificates" / f"{recall}.{form}").read_text()
                   for zone in zones for form in ("json", "txt"))


def test_a_person_is_taken_back(site: Site) -> None:
    """The next release is without them, everybody else's bytes are what they were, the older one still verifies."""
    (first,) = [path.name for path in (site.folder / "release" / NAME / "releases").iterdir()]
    before, images = site.digests("release"), instances_of(site, first)
    clinical = f"{site.folder}/release/{NAME}/releases/*/tables/episodes.parquet"
    rows_before = duckdb.sql(f"select count(*) from '{clinical}'").fetchall()[0][0]
    person, keys = someone(site)
    recall = order(site, people=[person])
    done = steps.recall(site.project, recall)
    assert done["instances"] >= len(keys)       # and what was quarantined of theirs
    found = verify(url(site, first))
    assert (found.recalled, found.missing, found.changed) == (len(keys), [], [])
    assert {key: status for key, status in site.ledger().items() if status[0] == "recalled"}.keys() == keys
    site.deidentify()
    site.candidate()
    finished = steps.finish_recall(site.project, recall)
    assert finished["first_release_without"] is None
    second = release_again(site)["release"]

    after = instances_of(site, second)
    gone = set(images) - set(after)
    assert len(gone) == len(keys)
    assert after == {uid: row for uid, row in images.items() if uid not in gone}       # same digests, same paths
    pointer = f"release/{NAME}/current.json"
    kept = {k: v for k, v in site.digests("release").items() if k in before and k != pointer}
    assert kept == {k: v for k, v in before.items() if k in kept}                       # nothing was rewritten …
    lost = set(before) - set(kept) - {pointer}
    assert {Path(k).name.rpartition(".dcm")[0][:-13] for k in lost} == gone            # … and only theirs went
    older, newer = verify(url(site, first)), verify(url(site, second))
    assert (older.recalled, older.missing, older.changed) == (len(keys), [], [])
    assert (newer.recalled, newer.missing, newer.images) == (0, [], len(after))
    now = site.ledger()
    assert {now[key] for key in keys} == {("recalled", "recalled")}
    assert {key for key, (status, _) in now.items() if status == "published"} == set(landed(site))
    (patient,) = {images[uid][0].split("/")[0] for uid in gone}
    tables = f"{site.folder}/release/{NAME}/releases/{second}/tables/"
    for table in ("patients", "studies", "series", "instances", "exposures", "episodes"):
        assert duckdb.sql(f"select count(*) from '{tables}{table}.parquet' where patient_id = '{patient}'") \
            .fetchall() == [(0,)]
    assert duckdb.sql(f"select count(*) from '{tables}episodes.parquet'").fetchall()[0][0] < rows_before
    # nothing of theirs in the candidate zone, by name or by row
    for path in (site.folder / "candidate").rglob("*"):
        assert patient not in str(path)
        if path.suffix == ".parquet":
            assert patient.encode() not in path.read_bytes()
    certified = steps.finish_recall(site.project, recall)
    assert certified["first_release_without"] == second
    assert certified["rows_in_older_releases"].keys() == {first}
    said = everything_said(site, recall)
    public = (site.folder / "release" / NAME / "certificates" / f"{recall}.json").read_text()
    assert "officer" in said and "officer" not in public and "engineer" not in public
    assert json.loads(public)["removed"]["by_zone"]["release"] == len(keys)
    held = {}       # what the older release still says of them, table by table, its catalogue too
    for path in (site.folder / "release" / NAME / "releases" / first).rglob("*.parquet"):
        if "patient_id" in duckdb.sql(f"select * from '{path}' limit 0").columns:
            (rows,), = duckdb.sql(f"select count(*) from '{path}' where patient_id = '{patient}'").fetchall()
            held |= {path.stem: rows} if rows else {}
    assert json.loads(public)["remains"]["rows_in_older_releases"] == {first: held}
    assert held.keys() >= {"patients", "instances", "exposures", "episodes", "catalogue"}
    assert all(o["sha256"] for o in json.loads(public)["removed"]["objects"])
    stones = "".join(path.read_text() for path in (site.folder / "release" / NAME / "tombstones").iterdir())
    words = {*site.truth.sentinels, *site.truth.population.uids, person, person.split(":")[1], patient}
    assert [word for word in words if len(word) >= 6 and word in said + stones] == []
    # the same again is the same order, and changes nothing
    settled = site.digests("work", "candidate", "release")
    assert order(site, people=[person]) == recall
    carry_out(site, recall)
    assert site.digests("work", "candidate", "release") == settled


def test_instances_by_uid_digest_and_released_uid(site: Site) -> None:
    (first,) = [path.name for path in (site.folder / "release" / NAME / "releases").iterdir()]
    headers = landed(site)
    one, two = sorted(headers)[:2]
    released = sorted(instances_of(site, first))
    lines = [headers[one].SOPInstanceUID, hashlib.sha256((site.folder / "landing" / two).read_bytes()).hexdigest()]
    recall = order(site, instances=[*lines, released[0]])
    carry_out(site, recall)
    second = release_again(site)["release"]
    missing = set(released) - set(instances_of(site, second))
    assert released[0] in missing
    assert 2 <= len(missing) <= 3
    assert site.ledger()[one] == site.ledger()[two] == ("recalled", "recalled")


def test_what_lands_again_stays_out(site: Site) -> None:
    """The same bytes, the same instance with other bytes, and a new image of a person who was recalled."""
    person, keys = someone(site)
    header = landed(site)[sorted(keys)[0]]
    carry_out(site, order(site, people=[person]))
    release_again(site)
    for batch in (site.folder / "work" / NAME / "seen").iterdir():      # even where staging has forgotten them
        batch.unlink()
    landing = site.folder / "landing"
    shutil.copy2(landing / sorted(keys)[0], landing / "again.dcm")
    common = {"patient_id": header.PatientID, "issuer": header.get("IssuerOfPatientID"),
              "patient_name": str(header.PatientName), "study_date": header.StudyDate,
              "birth_date": header.PatientBirthDate}
    for name, more in (("other-bytes.dcm", {"seed": "x", "sop_instance_uid": header.SOPInstanceUID}),
                       ("new.dcm", {"seed": "y"})):
        (landing / name).write_bytes(files.mammogram(**common, **more))
        shutil.copystat(landing / sorted(keys)[0], landing / name)
    assert site.stage()["batch"]
    site.deidentify()
    release_again(site) if site.candidate() else None
    now = site.ledger()
    assert {now[name] for name in ("again.dcm", "other-bytes.dcm", "new.dcm")} <= {
        ("recalled", "recalled"), ("conflict", "same_uid_other_bytes"), ("duplicate", "same_bytes")}
    assert now["new.dcm"] == ("recalled", "recalled")


def test_a_candidate_that_waits_is_taken_away(site: Site) -> None:
    """Approved or not, a candidate made before the recall cannot be published after it: it is not there any more, and
    where it is put back (a backup, a build that was started before), its tombstones keep it out."""
    person, keys = someone(site)
    suites = site.project.read_text().replace("date_shift_days = 365", "date_shift_days = 364")
    site.project.write_text(suites)
    site.deidentify()
    waiting = site.candidate()
    steps.approve(site.project, waiting["candidate"], waiting["digest"], "officer", "engineer", "approve")
    candidate, kept = site.folder / "candidate", site.folder / "candidate before"
    shutil.copytree(candidate, kept)
    steps.recall(site.project, order(site, people=[person]))
    assert not (candidate / NAME / "candidates" / waiting["candidate"]).exists()
    with pytest.raises((NotFound, PublishRefused)):
        steps.publish(site.project, waiting["candidate"])
    stones = list((site.folder / "release" / NAME / "tombstones").iterdir())
    assert len(stones) > len(keys)      # an image each, and the person
    shutil.rmtree(candidate)
    kept.rename(candidate)
    with pytest.raises(PublishRefused, match="recalled"):
        steps.publish(site.project, waiting["candidate"])


def test_what_a_killed_publisher_left_is_removed(site: Site) -> None:
    """Tables of a release that nobody was given hold rows of theirs, and no later publication would finish it."""
    site.project.write_text(site.project.read_text().replace("date_shift_days = 365", "date_shift_days = 364"))
    site.deidentify()
    sealed = site.candidate()
    steps.approve(site.project, sealed["candidate"], sealed["digest"], "officer", "engineer", "approve")
    assert killed("publish", "write", 3, site.project, sealed["candidate"])
    releases = site.folder / "release" / NAME / "releases"
    assert len(list(releases.glob("*/tables/instances.parquet"))) == 2
    steps.recall(site.project, order(site, people=[someone(site)[0]]))
    assert len(list(releases.iterdir())) == 1


def test_the_published_candidate_cannot_be_published_again(site: Site) -> None:
    candidate = steps.newest_candidate(site.project)["candidate"]
    steps.recall(site.project, order(site, people=[someone(site)[0]]))
    with pytest.raises(PublishRefused, match="recalled"):
        steps.publish(site.project, candidate)


def test_finish_waits_for_a_candidate_without_them(site: Site) -> None:
    recall = order(site, people=[someone(site)[0]])
    steps.recall(site.project, recall)
    with pytest.raises(RecallRefused, match="no candidate"):
        steps.finish_recall(site.project, recall)


def test_refused_before_anything_is_written(once: Site) -> None:
    before = once.digests("work", "candidate", "release")
    person, _ = someone(once)
    for error, reason, approver, what in [
        (UsageError, "because Jane asked", "officer", {"people": [person]}),
        (UsageError, "withdrawn", "officer", {}),
        (UsageError, "withdrawn", "officer", {"people": ["nobody"]}),
        (UsageError, "withdrawn", "officer", {"instances": ["not a uid"]}),
        (NotFound, "withdrawn", "officer", {"people": ["HOSP-A:NOBODY-0"]}),
        (NotFound, "withdrawn", "officer", {"instances": ["1.2.3.4"]}),
        (ApprovalRefused, "withdrawn", "", {"people": [person]}),
    ]:
        with pytest.raises(error) as refused:
            steps.order_recall(once.project, reason, approver, "engineer", **what)
        assert "Jane" not in str(refused.value) and "NOBODY" not in str(refused.value)
    dry = steps.order_recall(once.project, "withdrawn", "officer", "engineer", people=[person], dry_run=True)
    assert dry["instances"] > 0 and dry["releases"] == 1
    assert once.digests("work", "candidate", "release") == before
    assert not (once.folder / "work" / layout.recalls(NAME)).exists()


@pytest.mark.parametrize(("step", "method", "after"), [
    ("finish_recall", "purge", 9),
    *(pytest.param(*kill, marks=pytest.mark.long) for kill in (
        ("recall", "create", 1), ("recall", "create", 9), ("recall", "purge", 0), ("recall", "purge", 2),
        ("recall", "purge", 9),
        ("finish_recall", "purge", 0), ("finish_recall", "purge", 12), ("finish_recall", "purge", 14),
        ("finish_recall", "write", 0), ("finish_recall", "write", 1), ("finish_recall", "write", 2)))])
def test_killed_in_the_middle_and_again(step: str, method: str, after: int, site: Site) -> None:
    """After any kill the same run again ends as if there had been none; nobody else's image is ever touched."""
    person, keys = someone(site)
    recall = order(site, people=[person])
    others = len(landed(site)) - len(keys)
    if step == "finish_recall":
        steps.recall(site.project, recall)
        site.deidentify()
        site.candidate()
    assert killed(step, method, after, site.project, recall)
    assert len(list((site.folder / "release").rglob("*.dcm"))) >= others
    carry_out(site, recall)
    assert len(list((site.folder / "release").rglob("*.dcm"))) == others
    public = json.loads((site.folder / "release" / NAME / "certificates" / f"{recall}.json").read_text())
    assert public["removed"]["by_zone"]["release"] == len(keys)
    assert public["instances"] >= len(keys)
    (first,) = [path.name for path in (site.folder / "release" / NAME / "releases").iterdir()]
    assert verify(url(site, first)).recalled == len(keys)

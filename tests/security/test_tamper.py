"""What was approved is what is published, or nothing is; and what was published can be checked, bit by bit."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from small_site import LANDED_AT, Site, nhs

from pipeline import layout, steps
from pipeline.deidentify.plan import RECIPES
from pipeline.errors import ApprovalRefused, FilesNotApproved, PeopleListRefused, PublishRefused, VerifyFailed
from pipeline.publish.verify import verify
from pipeline.synthetic import files
from tests.helpers import officers

pytestmark = pytest.mark.xdist_group("tamper")

ANNA, BRIGID = nhs(100), nhs(200)
SUITES = Path(__file__).parents[2] / "expectations"


def _site(folder: Path) -> Site:
    """Two people, four images, recipes and suites of the project's own."""
    objects = {f"{local}-{side}": files.mammogram(rows=16, columns=16, patient_id=local, laterality=side)
               for local in ("A1", "B1") for side in "LR"}
    own = [("demo = true", "demo = false"), ('"base.dicom"', '"recipes/base.dicom"'),
           ('"mammography.dicom"', '"recipes/mammography.dicom"'), ('"ct.dicom"', '"recipes/ct.dicom"'),
           ("[[clinical]]", '[validate]\nsuites = "suites"\n\n[[clinical]]')]
    episodes = [{"nhs_number": number, "episode_id": "800001", "episode_type": "C", "appointment_made": "True",
                 "episode_date": "2018-06-01", "date_of_foa": "2018-06-14", "end_code": "SC", "final_action_code": "RR"}
                for number in (ANNA, BRIGID)]
    shutil.copytree(RECIPES, folder / "recipes")
    shutil.copytree(SUITES, folder / "suites")
    return Site(folder, objects, [("HOSP-A", "A1", ANNA, ""), ("HOSP-A", "B1", BRIGID, "")], [ANNA, BRIGID], episodes,
                replace=tuple(own)).lay()


class Approved:
    """A candidate that was approved and not published."""

    def __init__(self, folder: Path) -> None:
        self.site = _site(folder)
        self.site.stage()
        self.sealed = self.site.seal()
        self.refused = 0
        project, candidate, digest = self.site.project, self.sealed["candidate"], self.sealed["digest"]
        for attempt in (lambda: steps.approve(project, candidate, digest, "tester", "engineer", "approve"),
                        lambda: self.site.approve(self.sealed, approver="engineer"),
                        lambda: self.site.approve(self.sealed, key="engineer"),
                        lambda: self.site.approve({**self.sealed, "digest": "0" * 64})):
            try:
                attempt()
            except (ApprovalRefused, FilesNotApproved):
                self.refused += 1
        self.folder = project.parent / "approvals"
        self.before = set(self.folder.iterdir())
        self.unanswered = steps.newest_candidate(self.site.project)["decision"] is None
        self.site.approve(self.sealed)
        (self.signed,) = set(self.folder.iterdir()) - self.before

    def publish(self) -> dict[str, Any]:
        return steps.publish(self.site.project, self.sealed["candidate"])

    def path(self, name: str) -> Path:
        return self.site.key("candidate", layout.in_candidate(self.site.name, self.sealed["candidate"], name))

    def nothing_published(self) -> bool:
        """No release can be seen: neither a manifest nor a pointer."""
        release = self.site.folder / "release"
        return not [*release.rglob("manifest.json"), *release.rglob("current.json")]


@pytest.fixture(scope="module", autouse=True)
def _officers() -> Iterator[None]:
    with officers.listed():
        yield


@pytest.fixture(scope="module")
def approved(tmp_path_factory: pytest.TempPathFactory) -> Approved:
    return Approved(tmp_path_factory.mktemp("tamper") / "site")


@contextmanager
def _flipped(path: Path, at: float = 0.5) -> Iterator[None]:
    """One bit of the file is another, for a while."""
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(len(bad) * at)] ^= 1
    path.write_bytes(bad)
    try:
        yield
    finally:
        path.write_bytes(good)


@contextmanager
def _changed(path: Path, old: str, new: str) -> Iterator[None]:
    good = path.read_text()
    assert old in good
    path.write_text(good.replace(old, new))
    try:
        yield
    finally:
        path.write_text(good)


# ---- after approval, before publication --------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["candidate.json", "plan.json", "images.parquet", "withheld.parquet",
                                  "tables/instances.parquet", "tables/episodes.parquet", "validation/exposures.json",
                                  "report.html", "dictionary.json"])
def test_a_byte_changed_in_a_candidate_is_refused(approved: Approved, name: str) -> None:
    with _flipped(approved.path(name)), pytest.raises((PublishRefused, ApprovalRefused)):
        approved.publish()
    assert approved.nothing_published()


def test_a_byte_changed_in_an_image_is_refused(approved: Approved) -> None:
    image = next((approved.site.folder / "candidate").rglob("*.dcm"))
    digest = image.name.split(".")[-2]
    with _flipped(image), pytest.raises(PublishRefused):
        approved.publish()
    assert approved.nothing_published()
    assert not [path for path in (approved.site.folder / "release").rglob("*.dcm") if digest in path.name]


def test_images_and_the_table_of_them_changed_together_are_refused(approved: Approved) -> None:
    """Whoever can write to the zone can make all agree but the digest that was approved."""
    path = approved.path("candidate.json")
    with _changed(path, '"title": "', '"title": "A '), pytest.raises(ApprovalRefused):
        approved.publish()
    assert approved.nothing_published()


def _recipe(site: Site) -> Any:
    return _changed(site.folder / "recipes" / "mammography.dicom", "KEEP OrganDose\n", "")


def _suite(site: Site) -> Any:
    return _changed(site.folder / "suites" / "episodes.json", '"House rule"', '"Our rule"')


@contextmanager
def _new_suite(site: Site) -> Iterator[None]:
    path = site.folder / "suites" / "letters.json"
    path.write_text((site.folder / "suites" / "episodes.json").read_text().replace('"episodes"', '"letters"'))
    try:
        yield
    finally:
        path.unlink()


def _days(site: Site) -> Any:
    return _changed(site.project, "date_shift_days = 365", "date_shift_days = 300")


def _latest(site: Site) -> Any:
    return _changed(site.project, "latest = 2024-12-31", "latest = 2023-12-31")


def _times(site: Site) -> Any:
    return _changed(site.project, "date_shift_days = 365", "date_shift_days = 365\nkeep_times = true")


@pytest.mark.parametrize(("change", "words"), [
    (_recipe, "a recipe"), (_suite, "suite episodes"), (_new_suite, "suite letters"), (_days, "the project file"),
    (_latest, "the project file"), (_times, "a recipe, the project file")])
def test_what_changed_after_approval_is_refused_by_name(
    approved: Approved, change: Callable[[Site], Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is needed to find that out; and before an officer has signed the change, that alone is refused."""
    monkeypatch.setenv("TRE_KEY_DIR", "/nowhere")
    with change(approved.site):
        with pytest.raises(FilesNotApproved):
            approved.publish()
        signed = officers.sign(approved.site.project)
        with pytest.raises(PublishRefused) as refused:
            approved.publish()
        signed.unlink()
    assert refused.value.message == f"Changed since this candidate was built: {words}."
    assert refused.value.hint == "Build a new candidate."
    assert approved.nothing_published()


def test_the_approval_record_cannot_be_turned_to_other_bytes(approved: Approved) -> None:
    path = approved.site.key("candidate", layout.approval(approved.site.name, approved.sealed["candidate"]))
    for name, value in (("digest", "0" * 64), ("approver", "Engineer"), ("decision", "reject"), ("candidate", "c-0")):
        doc = json.loads(path.read_text())
        with _changed(path, json.dumps(doc[name]), json.dumps(value)), pytest.raises(ApprovalRefused):
            approved.publish()
    assert approved.nothing_published()


def test_nobody_answers_but_an_officer_with_a_key_of_their_own(approved: Approved) -> None:
    """Not by a click that no key stands behind, not under a name that is not listed, not with another's key, and not of
    other bytes."""
    assert approved.refused == 4
    assert approved.unanswered


def test_a_record_that_no_signature_stands_behind_publishes_nothing(approved: Approved) -> None:
    """Whoever can write to the candidate zone can write the record; the signature is of these bytes, this project,
    this day, this officer."""
    record = json.loads(approved.site.key("candidate", layout.approval(approved.site.name,
                                                                      approved.sealed["candidate"])).read_text())
    assert (record["decision"], record["approver"]) == ("approve", "tester")
    text = approved.signed.read_text()
    for old, new in ((approved.sealed["digest"], "0" * 64), (f'project = "{approved.site.name}"', 'project = "*"'),
                     (f"expires = {TODAY + timedelta(30)}", f"expires = {TODAY + timedelta(60)}"),
                     ('kind = "candidate"', 'kind = "recipe"'), ('approver = "tester"', 'approver = "engineer"')):
        with _changed(approved.signed, old, new), pytest.raises(ApprovalRefused, match="has not the signatures"):
            approved.publish()
    path = approved.site.key("candidate", layout.approval(approved.site.name, approved.sealed["candidate"]))
    with _changed(path, '"tester"', '"somebody"'), pytest.raises(ApprovalRefused, match="has not the signatures"):
        approved.publish()      # who it says answered is not who signed
    approved.signed.unlink()
    with pytest.raises(ApprovalRefused, match="nobody has approved it"):
        approved.publish()
    approved.signed.write_text(text)
    two = officers.write_list(approved.site.folder.parent / "two" / "officers.toml",
                              {"tester": ["*"], "second": ["*"]}, approvers={approved.site.name: 2})
    with officers.listed(two):
        signed = officers.sign(approved.site.project, by="second")
        with pytest.raises(ApprovalRefused, match="1 of 2 approvers"):
            approved.publish()
        signed.unlink()
    assert approved.nothing_published()


def test_what_is_published_is_what_was_judged(approved: Approved, monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher is told the digest: a manifest and a record that change meanwhile are not what was signed."""
    from pipeline.publish import process

    whole = process.run
    monkeypatch.setattr(process, "run", lambda config, candidate, digest, **more: whole(
        config, candidate, "0" * 64, **more))
    with pytest.raises(PublishRefused, match="changed while"):
        approved.publish()
    assert approved.nothing_published()


def test_two_officers_are_two_signatures_and_one_rejection_is_enough(approved: Approved, tmp_path: Path) -> None:
    site = approved.site
    two = officers.write_list(tmp_path / "two" / "officers.toml", {"tester": ["*"], "second": ["*"]},
                              approvers={site.name: 2})
    key = site.key("candidate", layout.approval(site.name, approved.sealed["candidate"]))
    record, asked = key.read_bytes(), (site.project, approved.sealed["candidate"], approved.sealed["digest"])
    key.unlink()
    made = []
    try:
        with officers.listed(two):
            for name, left in (("tester", 1), ("second", 0)):
                before = set(approved.folder.iterdir())
                done = steps.sign_candidate(*asked, name, "approve", officers.key(name))
                made += set(approved.folder.iterdir()) - before
                assert (done["needed"] - done["signed"], done["decision"]) == (left, None if left else "approve")
            key.unlink()
            done = steps.sign_candidate(*asked, "second", "reject", officers.key("second"))
            assert done["decision"] == "reject"
            with pytest.raises(ApprovalRefused, match="Another answer"):
                steps.sign_candidate(*asked, "tester", "approve", officers.key("tester"))
            with pytest.raises(ApprovalRefused, match="Rejected"):
                steps.candidate_answer(site.project, approved.sealed["candidate"])
    finally:
        key.write_bytes(record)
        for path in {*approved.folder.iterdir()} - {*approved.before, approved.signed}:
            path.unlink()


# ---- the permitted people ----------------------------------------------------------------------------------------
TODAY = date.today()
GOOD = [f"# as-of: {TODAY}", "person", ANNA, BRIGID, "# end: 2"]
LISTS = {
    "stale": [f"# as-of: {TODAY - timedelta(days=8)}", *GOOD[1:]],
    "of a day to come": [f"# as-of: {TODAY + timedelta(days=2)}", *GOOD[1:]],
    "truncated": GOOD[:-1],
    "truncated inside": [*GOOD[:3], GOOD[4]],
    "empty": [GOOD[0], "person", "# end: 0"],
    "nothing": [],
    "undated": GOOD[1:],
}


@pytest.mark.parametrize("why", [*LISTS, "missing"])
def test_with_a_bad_list_of_people_nobody_passes(approved: Approved, why: str) -> None:
    site = approved.site
    before = _changing(site)
    try:
        if why == "missing":
            (site.folder / "permitted.csv").unlink()
        else:
            site.people(LISTS[why])
        late = site.folder / "landing" / "late"
        late.write_bytes(files.mammogram(rows=16, columns=16, patient_id="A1", accession="ACC123456"))
        os.utime(late, (LANDED_AT, LANDED_AT))
        for step in (steps.stage, steps.pending_shards, steps.clinical, steps.assemble):
            with pytest.raises(PeopleListRefused):
                step(site.project)
        assert _changing(site) == before
    finally:
        late.unlink()
        site.people(GOOD)


def _changing(site: Site) -> dict[str, str]:
    """What stands in the zones, without what a refused attempt is entered in."""
    return {key: digest for key, digest in site.digests("work", "candidate", "release").items()
            if "/leases/" not in key and "/audit/" not in key}


# ---- after publication (last: here the site is published) --------------------------------------------------------
def test_the_untouched_candidate_is_published_and_each_flipped_bit_is_named(approved: Approved) -> None:
    with _changed(approved.site.project, 'title = "Synthetic', 'title = "A synthetic'):      # it changes no data
        officers.sign(approved.site.project)
        released = approved.publish()
    folder, project = approved.site.folder / "release", approved.site.name
    url = f"{folder.resolve().as_uri()}/{project}"
    assert verify(url).images == 4
    name = released["release"]
    objects = [path for path in sorted((folder / project).rglob("*"))
               if path.is_file() and path.name != "run.json" and "leases" not in path.parts]
    assert {path.suffix for path in objects} >= {".dcm", ".parquet", ".json", ".html", ".md"}
    for path in objects:
        for at in (0.0, 0.5, 0.999):
            with _flipped(path, at), pytest.raises(VerifyFailed) as found:
                verify(url)
            key = str(path.relative_to(folder))
            # current.json follows from the manifest: where the two differ, both are named
            alone = found.value.message.endswith(f"changed: {key}.")
            assert alone or path.name in ("manifest.json", "current.json")
            assert key in found.value.message
    with _changed(folder / project / "current.json", '"release":', '"relesse":'), pytest.raises(VerifyFailed) as found:
        verify(url)
    assert f"{project}/current.json" in found.value.message
    assert verify(f"{url}/releases/{name}").images == 4

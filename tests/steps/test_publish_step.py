"""What was approved yesterday is published today only if it may still be: nobody withdrawn, recalled or superseded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from steps_kit import NAME, Site, keep, make, put_back

from pipeline import config, steps
from pipeline.errors import PeopleListRefused, PublishRefused, SuiteRefused
from pipeline.govern import audit_log
from pipeline.storage import open_store

pytestmark = pytest.mark.xdist_group("steps")


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a candidate that was approved and not published, and beside it a copy of all that it holds."""
    site = make(tmp_path_factory.mktemp("approved") / "site", women=3)
    site.stage()
    site.deidentify()
    approve(site, site.candidate())
    return keep(site)


@pytest.fixture
def site(once: Site) -> Iterator[Site]:
    yield once
    put_back(once)


def approve(site: Site, sealed: dict[str, str]) -> str:
    steps.approve(site.project, sealed["candidate"], sealed["digest"], "officer", "engineer", "approve")
    return sealed["candidate"]


def permit(site: Site, keep: int) -> None:
    """Leave so many people on the list of permitted people."""
    people = site.folder / "permitted.csv"
    lines = people.read_text().splitlines()
    numbers = [line for line in lines if not line.startswith("#") and line.strip().isdigit()]
    people.write_text("\n".join([*lines[:2], *numbers[:keep], f"# end: {keep}", ""]))


def releases(site: Site) -> list[Path]:
    return sorted((site.folder / "release" / NAME).glob("releases/*/manifest.json"))


def test_who_withdrew_after_the_build_is_not_published(site: Site) -> None:
    candidate = steps.newest_candidate(site.project)["candidate"]
    permit(site, 1)
    with pytest.raises(PublishRefused, match="people of this candidate may no longer be used"):
        steps.publish(site.project, candidate)
    assert not releases(site) and not list((site.folder / "release").rglob("*.dcm"))
    site.deidentify()
    assert steps.publish(site.project, approve(site, site.candidate()))["images"]


def test_a_stale_list_lets_nobody_be_published(site: Site) -> None:
    people = site.folder / "permitted.csv"
    people.write_text("\n".join(["# as-of: 2020-01-01", *people.read_text().splitlines()[1:], ""]))
    with pytest.raises(PeopleListRefused, match="days old"):
        steps.publish(site.project, steps.newest_candidate(site.project)["candidate"])
    assert not releases(site)


def test_an_order_that_nobody_has_carried_out_yet_keeps_its_people_out(site: Site) -> None:
    """Between the order and its tombstones, too."""
    candidate = steps.newest_candidate(site.project)["candidate"]
    pair = (site.folder / "crosswalk.csv").read_text().splitlines()[1].split(",")[:2]
    steps.order_recall(site.project, "withdrawn", "officer", "engineer", people=[":".join(pair)])
    with pytest.raises(PublishRefused, match="recalled"):
        steps.publish(site.project, candidate)
    assert not releases(site) and not list((site.folder / "release").rglob("*.dcm"))


def test_an_order_for_an_instance_likewise(site: Site) -> None:
    candidate = steps.newest_candidate(site.project)["candidate"]
    image = next((site.folder / "candidate" / NAME / "parts").rglob("*.dcm"))
    steps.order_recall(site.project, "sent_in_error", "officer", "engineer", instances=[image.name.rpartition(".")[0]
                       .rpartition(".")[0]])
    with pytest.raises(PublishRefused, match="recalled"):
        steps.publish(site.project, candidate)
    assert not releases(site)


def test_an_older_candidate_is_not_published_after_a_newer_one(site: Site) -> None:
    """Approved, never published, superseded: whoever clears its task in Airflow publishes nothing."""
    older = steps.newest_candidate(site.project)["candidate"]
    crosswalk = site.folder / "episodes.csv"
    crosswalk.write_text("\n".join(crosswalk.read_text().splitlines()[:-1]) + "\n")
    newer = site.candidate()
    assert newer["candidate"] != older
    with pytest.raises(PublishRefused, match="newer candidate"):
        steps.publish(site.project, older)
    assert not releases(site)
    steps.publish(site.project, approve(site, newer))
    with pytest.raises(PublishRefused, match="newer candidate"):
        steps.publish(site.project, older)
    assert len(releases(site)) == 1


def test_what_is_current_may_be_published_again_although_a_newer_waits(site: Site) -> None:
    """A publisher that was killed after its last write, or a task that is cleared: nothing changes."""
    older = steps.newest_candidate(site.project)["candidate"]
    done = steps.publish(site.project, older)
    made = site.config()
    work, release = (open_store(getattr(made.zones, zone), zone) for zone in ("work", "release"))
    heads = audit_log.released_heads(release, NAME)
    assert list(heads) == [done["release"]] and audit_log.verify(work, NAME, heads[done["release"]]).wrong == ()
    episodes = site.folder / "episodes.csv"
    episodes.write_text("\n".join(episodes.read_text().splitlines()[:-1]) + "\n")
    assert site.candidate()["candidate"] != older
    assert steps.publish(site.project, older)["release"] == done["release"]
    assert json.loads((site.folder / "release" / NAME / "current.json").read_text())["release"] == done["release"]


def test_a_candidate_is_checked_by_the_suites_that_it_names(site: Site) -> None:
    """Not by what stands there when its turn comes, hours later: the seal names the first."""
    suites = site.folder / "suites"
    shutil.copytree(config.PRODUCT / "expectations", suites)
    site.project.write_text(f'{site.project.read_text()}\n[validate]\nsuites = "suites"\n')
    assembled = steps.assemble(site.project)
    steps.curate(site.project, assembled["candidate"])
    suite = suites / "exposures.json"
    suite.write_text(suite.read_text() + "\n")
    with pytest.raises(SuiteRefused, match=r"exposures\.json: changed since"):
        steps.validate(site.project, assembled["candidate"])

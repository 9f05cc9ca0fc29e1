"""Kill -9 at every place where a recall changes a zone; carried out again, it ends as if nobody had disturbed it."""

from __future__ import annotations

import dataclasses
import json
import signal
from typing import Any

import pytest
from faults_kit import NAME, Bench
from points import RECALL_POINTS, RECALL_STEPS, Point, named

from pipeline.publish.verify import examine

pytestmark = pytest.mark.xdist_group("faults")
FEW = {"tombstones", "a waiting candidate's manifest", "certificate"}      # of each step; the rest are `long`


class Recall(Bench):
    """The same folder with a release, half a release after it, and somebody to be taken back."""

    recall = ""
    person = ""

    def words(self, *steps: str) -> list[list[Any]]:
        given = {"order_recall": [self.person], "recall": [self.recall], "finish_recall": [self.recall]}
        return [[step, *given[step]] if step in given else super(Recall, self).words(step)[0] for step in steps]

    def build(self, known: str) -> None:
        self.do("deidentify", known=known)
        self.candidate = self.do("assemble", known=known).answer["results"][0]["candidate"]
        self.do("curate", "validate", known=known)


@pytest.fixture(scope="module")
def recalled(bench: Bench) -> Recall:
    """What an undisturbed recall leaves after each step, and every change that it makes."""
    made = Recall(**{f.name: getattr(bench, f.name) for f in dataclasses.fields(bench)})
    made.order, made.file, made.changes = RECALL_STEPS, "recall.toml", []
    made.project.write_text(bench.project.read_text().replace("date_shift_days = 365", "date_shift_days = 364"))
    issuer, local, *_ = (made.folder / "crosswalk.csv").read_text().splitlines()[1].split(",")
    made.person = f"{issuer}:{local}"
    made.restore("publish")
    made.build(str(made.folder / "waiting.pickle"))
    made.do("approve")
    half = {"kind": "dying", "zone": "release", "method": "write", "key": ".*/manifest\\.json", "when": "before"}
    assert made.run(*made.words("publish"), fault=half).code == -signal.SIGKILL
    assert len(list((made.folder / "release").glob("*/releases/*"))) == 2
    made.save("waiting")
    record = made.folder / "recall.jsonl"
    for step in RECALL_STEPS[1:]:
        if step == "rebuilt":
            made.build(str(made.folder / "rebuilt.pickle"))
        else:
            done = made.do(step, fault={"kind": "recording", "to": str(record)})
            made.recall = done.answer["results"][0]["recall"]
        made.save(step)
    made.changes = [tuple(json.loads(line)) for line in record.read_text().splitlines()]
    return made


def test_every_change_of_a_recall_has_a_name(recalled: Recall) -> None:
    unnamed = {change for change in recalled.changes if len(named(RECALL_POINTS, *change)) != 1}
    assert not unnamed
    unused = {(p.step, p.name) for p in RECALL_POINTS if not any(p.fits(*change) for change in recalled.changes)}
    assert not unused


def nobody_else(recalled: Recall) -> int:
    """Whatever moment it is: of the release that was given, nothing is missing or changed but what has its tombstone.
    Return how many images are gone."""
    found = examine(recalled.release_url() or "")
    assert (found.missing, found.changed) == ([], [])
    assert found.images + found.recalled + len(found.not_removed) == examined(recalled)
    return found.recalled


def examined(recalled: Recall) -> int:
    manifest = next((recalled.folder / "saved/publish/release" / NAME / "releases").glob("*/manifest.json"))
    return int(json.loads(manifest.read_text())["images"]["count"])


def killed_at(point: Point, when: str, recalled: Recall) -> None:
    recalled.before(point.step)
    many = sum(point.fits(*change) for change in recalled.changes)
    fault = {"kind": "dying", "zone": point.zone, "method": point.method, "key": point.pattern.pattern, "when": when,
             "nth": many // 2 + 1}
    assert recalled.run(*recalled.words(point.step), fault=fault).code == -signal.SIGKILL
    nobody_else(recalled)
    done = recalled.do(point.step, "ledger_summary")
    assert done.answer["results"][1]["holds"]
    assert recalled.digests() == recalled.states[point.step]
    gone = nobody_else(recalled)
    if point.step != "order_recall":
        assert 0 < gone < examined(recalled)
    if point.step == "finish_recall":
        whole(recalled, gone)


def whole(recalled: Recall, gone: int) -> None:
    """The certificate says all that went, also before the kill: each image, of each candidate, in each zone."""
    doc = json.loads((recalled.folder / "work" / NAME / "certificates" / f"{recalled.recall}.json").read_text())
    assert doc["removed"]["by_zone"] == {"release": 2 * gone, "candidate": 2 * gone}
    assert len(doc["removed"]["objects"]) == 4 * gone
    assert all(one["sha256"] for one in doc["removed"]["objects"])


def cases(chosen: bool) -> list[object]:
    turns = [(p, when) for p in RECALL_POINTS for when in ("before", "after")]
    few = [(p, when) for p, when in turns if p.name in FEW and when == "after"]
    return [pytest.param(p, when, id=f"{p.step}-{when}-{p.name.replace(' ', '-')}")
            for p, when in (few if chosen else [one for one in turns if one not in few])]


@pytest.mark.parametrize(("point", "when"), cases(chosen=True))
def test_a_recall_killed_at(point: Point, when: str, recalled: Recall) -> None:
    killed_at(point, when, recalled)


@pytest.mark.long
@pytest.mark.parametrize(("point", "when"), cases(chosen=False))
def test_a_recall_killed_anywhere_else(point: Point, when: str, recalled: Recall) -> None:
    killed_at(point, when, recalled)

"""Every DAG from end to end under dag.test(): real steps, real files, the approval answered over Airflow's REST API."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.deidentify.keys import create_key
from pipeline.publish.verify import verify
from pipeline.synthetic.demo import LANDED_AT, write_demo
from pipeline.synthetic.population import population

NAME = "demo-screening"
WRONG = "0" * 64
SAFE = re.compile(
    r"[bpcqrx]-[0-9a-f]{24}|[0-9a-f]{64}|\d{4}-[0-9a-f]{12}|[a-z][a-z0-9_]*(/[a-z_]*)?"  # ids, digests, releases, words
)

pytestmark = pytest.mark.xdist_group("airflow")


@dataclass(frozen=True)
class Ran:
    runs: list[dict[str, Any]]
    log: str
    root: Path
    home: Path
    sentinels: frozenset[str]

    def of(self, dag: str, n: int = 0) -> dict[str, Any]:
        return [run for run in self.runs if run["dag"].endswith(f"__{dag}")][n]

    def states(self, dag: str, n: int = 0) -> dict[str, str]:
        return {task: state for task, (state, _) in self.of(dag, n)["tasks"].items()}


@pytest.fixture(scope="module")
def ran(inside: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("project")
    truth = write_demo(root, women=2)
    create_key(root / "keys", NAME)
    create_key(root / "keys", "refused")
    text = (root / "project.toml").read_text().replace("[stage]", "[stage]\nshard_instances = 20")
    text += '\n[approve]\nofficers = ["officer"]\n'
    (root / "project.toml").write_text(text)
    (root / "bad.dicom").write_text("FORMAT dicom\n%header\nKEEP contains:Name\n")
    refused = text.replace(f'name = "{NAME}"', 'name = "refused"').replace('"base.dicom"', '"bad.dicom"')
    (root / "refused.toml").write_text(refused)
    late = root / "late.dcm"
    first = population(2, 1).landed[0]
    another = {**first.options, "seed": "late", "sop_instance_uid": None}
    late.write_bytes(type(first)(first.key, first.kind, another, first.woman, first.fate).data())
    os.utime(late, (LANDED_AT, LANDED_AT))
    woman = population(2, 1).women[0]
    (root / "people.txt").write_text(":".join(next(iter(woman.locals.items()))))
    stage, build, release = (f"{NAME}__{dag}" for dag in ("stage", "build_candidate", "release"))
    officer = {"user": "officer", "choice": "Approve"}
    steps = [
        {"dag": stage, "conf": {"dry_run": True}},
        {"dag": stage},
        {"dag": build},
        {"dag": release, "answers": [{"user": "stranger", "choice": "Approve"}, {**officer, "digest": WRONG}]},
        {"dag": release, "answers": [officer, {"user": "officer", "choice": "Reject"}]},
        {"dag": stage},
        {"dag": build},
        {"dag": release},
        {"dag": stage, "land": [str(late), str(root / "landing" / "late.dcm")]},
        {"dag": build},
        {"dag": release, "answers": [{"user": "officer", "choice": "Reject"}]},
        {"dag": f"{NAME}__recall", "recall": [str(root / "project.toml"), str(root / "people.txt")]},
        {"dag": "refused__stage"},
        {"dag": "refused__build_candidate"},
    ]
    env = {"TRE_PROJECTS_DIR": str(root), "TRE_KEY_DIR": str(root / "keys")}
    done = inside("runs", env=env, steps=steps)
    return Ran(done.result, done.log, root, done.home, truth.sentinels)


def test_a_dry_run_counts_and_announces_nothing(ran: Ran) -> None:
    assert ran.states("stage") == {"stage": "success", "announce": "skipped"}
    (said,) = ran.of("stage")["xcoms"]
    assert said[2]["instances"] > 20


def test_a_batch_is_staged_and_announced(ran: Ran) -> None:
    assert ran.states("stage", 1) == {"stage": "success", "announce": "success"}


def test_build_maps_over_the_shards_and_seals_a_candidate(ran: Ran) -> None:
    states = ran.states("build_candidate")
    assert {"deidentify[0]", "deidentify[1]"} <= set(states)
    assert set(states.values()) == {"success"}


def test_only_an_officer_may_answer_and_only_with_the_digest_that_was_shown(ran: Ran) -> None:
    run = ran.of("release")
    assert run["replies"] == [403, 200]
    assert run["state"] == "failed"
    assert ran.states("release")["record"] == "failed"
    assert ran.states("release")["publish"] == "upstream_failed"


def test_an_officer_sees_the_summary_and_the_digest_and_silence_means_reject(ran: Ran) -> None:
    run = ran.of("release", 1)
    assert re.search(r"Candidate: c-[0-9a-f]{24}", run["body"])
    assert "Data steward" in run["body"]
    assert re.search(r"Read first, in full: file://\S+/candidates/c-[0-9a-f]{24}/candidate\.html", run["body"])
    assert run["shown"] in json.dumps(run["xcoms"])
    assert run["defaults"] == ["Reject"]


def test_an_approval_publishes_a_release_that_verifies(ran: Ran) -> None:
    run = ran.of("release", 1)
    assert (run["state"], run["replies"]) == ("success", [200, 409])
    assert set(ran.states("release", 1).values()) == {"success"}
    found = verify(f"file://{ran.root}/release/{NAME}")
    assert (found.missing, found.changed, found.extra) == ([], [], [])
    assert found.images > 0


def test_a_second_round_with_nothing_new_does_and_asks_nothing(ran: Ran) -> None:
    assert ran.states("stage", 2)["announce"] == "skipped"
    build = ran.states("build_candidate", 1)
    assert (build["deidentify"], build["announce"]) == ("skipped", "skipped")
    assert build["validate"] == "success"
    assert set(ran.states("release", 2).values()) == {"skipped"}


def test_a_late_object_makes_one_new_part_and_a_new_candidate(ran: Ran) -> None:
    states = ran.states("build_candidate", 2)
    assert [task for task in states if task.startswith("deidentify")] == ["deidentify[0]"]
    assert ran.of("release", 3)["shown"] != ran.of("release", 1)["shown"]


def test_a_rejection_ends_the_run_as_failed_is_recorded_and_publishes_nothing(ran: Ran) -> None:
    run = ran.of("release", 3)
    assert run["state"] == "failed"
    assert ran.states("release", 3)["publish"] == "upstream_failed"
    records = [json.loads(path.read_text()) for path in (ran.root / "candidate" / NAME / "approvals").iterdir()]
    assert sorted(record["decision"] for record in records) == ["approve", "reject"]
    assert {record["approver"] for record in records} == {"officer"}
    assert {record["triggered_by"] for record in records} == {"dag_test"}
    releases = {path.name for path in (ran.root / "release" / NAME / "releases").iterdir()}
    assert len(releases) == 1


def test_a_recall_takes_back_and_asks_for_a_release_without(ran: Ran) -> None:
    run = ran.of("recall")
    assert (run["state"], set(ran.states("recall").values())) == ("success", {"success"})
    found = verify(f"file://{ran.root}/release/{NAME}")
    assert found.recalled > 0
    assert (found.missing, found.changed) == ([], [])
    (certificate,) = (ran.root / "release" / NAME / "certificates").glob("*.json")
    assert json.loads(certificate.read_text())["removed"]["by_zone"]["release"] == found.recalled
    latest = json.loads((ran.root / "candidate" / NAME / "latest.json").read_text())["candidate"]
    assert not (ran.root / "candidate" / NAME / "approvals" / f"{latest}.json").exists()


def test_a_refused_recipe_fails_at_once_and_fails_the_run(ran: Ran) -> None:
    run = ran.of("build_candidate", 3)
    assert run["dag"] == "refused__build_candidate"
    assert run["state"] == "failed"
    assert run["tasks"]["pending_shards"] == ["failed", 1]
    assert "RecipeRefused" in ran.log


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


def test_xcom_carries_ids_and_counts_alone(ran: Ran) -> None:
    seen = 0
    for run in ran.runs:
        for task, _, value in run["xcoms"]:
            if task == "ask":  # Airflow's own answer: who, when, what
                assert set(value) == {"chosen_options", "params_input", "responded_at", "responded_by_user"}
                continue
            for leaf in leaves(value):
                seen += 1
                assert leaf is None or isinstance(leaf, bool | int) or SAFE.fullmatch(leaf) or leaf == "", (
                    task,
                    type(leaf),
                )
    assert seen > 100


def test_nothing_of_a_person_is_in_the_logs_or_in_airflow_s_database(ran: Ran) -> None:
    words = {word.encode() for word in ran.sentinels if len(word) >= 6}
    assert len(words) > 30
    places = [path.read_bytes() for path in ran.home.rglob("*") if path.is_file()]
    assert {"log.txt", "airflow.db"} <= {path.name for path in ran.home.iterdir()}
    numbered = dict(enumerate(sorted(words)))
    assert [n for n, word in numbered.items() if any(word in place for place in places)] == []

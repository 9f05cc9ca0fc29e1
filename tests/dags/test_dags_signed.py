"""The release DAG of a project that is no demo: an officer's key lets it publish, and nothing that Airflow knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import steps
from pipeline.deidentify.keys import create_key
from pipeline.publish.verify import verify
from pipeline.synthetic.demo import write_demo
from tests.helpers import officers

NAME = "demo-screening"

pytestmark = pytest.mark.xdist_group("airflow")


def test_it_waits_for_signatures_publishes_by_them_and_ends_at_a_rejection(
    inside: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    write_demo(root, women=1)
    create_key(tmp_path / "keys", NAME)
    monkeypatch.setenv("TRE_KEY_DIR", str(tmp_path / "keys"))
    project = root / "project.toml"
    project.write_text(project.read_text().replace("demo = true", "demo = false") + officers.SECTION)
    env = {"TRE_PROJECTS_DIR": str(root), "TRE_KEY_DIR": str(tmp_path / "keys"),
           "TRE_OFFICERS": str(officers.usual_list())}  # fmt: skip
    release = {"dag": f"{NAME}__release"}
    with officers.listed():
        officers.sign(project)
        steps.stage(project)
        first = build(project)
        steps.sign_candidate(project, *first, "tester", "approve", officers.key("tester"))
        (published,) = inside("runs", env=env, steps=[release]).result
        episodes = root / "episodes.csv"
        episodes.write_text("\n".join(episodes.read_text().splitlines()[:-1]) + "\n")
        second = build(project)
        assert first != second
        assert steps.candidate_answer(project, second[0])["decision"] is None       # it would wait
        steps.sign_candidate(project, *second, "tester", "reject", officers.key("tester"))
        (rejected,) = inside("runs", env=env, steps=[release]).result
    assert (published["state"], {state for state, _ in published["tasks"].values()}) == ("success", {"success"})
    assert set(published["tasks"]) == {"newest", "signed", "publish", "ledger"}
    assert {value[0] for value in rejected["tasks"].values()} == {"skipped"}
    found = verify(f"{(root / 'release').resolve().as_uri()}/{NAME}")
    assert found.current and found.images > 0 and found.release == f"0001-{first[0][2:14]}"


def build(project: Path) -> tuple[str, str]:
    """Return the candidate and its digest."""
    for one in steps.pending_shards(project):
        steps.deidentify(project, one["batch"], one["shard"])
    candidate = steps.assemble(project)["candidate"]
    steps.curate(project, candidate)
    sealed = steps.validate(project, candidate)
    return sealed["candidate"], sealed["digest"]

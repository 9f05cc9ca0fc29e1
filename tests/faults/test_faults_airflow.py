"""Three tasks of a real Airflow (scheduler, LocalExecutor, API) are killed with -9; Airflow tries again by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from faults_kit import HERE, ROOT, Bench, Zygote, make

from infra.demo.local_airflow import airflow
from infra.demo.run import follow, newest_run

pytestmark = [pytest.mark.long, pytest.mark.integration, pytest.mark.xdist_group("faults")]


def test_tasks_killed_in_airflow(bench: Bench, zygote: Zygote, tmp_path: Path) -> None:
    made = make(tmp_path / "site", zygote)
    marks = tmp_path / "marks"
    marks.mkdir()
    env = {**made.env, "TRE_PROJECTS_DIR": str(made.folder), "FAULTS_MARKS": str(marks),
           "PYTHONPATH": os.pathsep.join([str(HERE / "fatal"), str(ROOT)])}
    with airflow(tmp_path / "airflow", tmp_path / "logs", env) as flow:
        flow.up()
        follow(flow, 0)
        tries = {}
        for step in ("stage", "build_candidate", "release"):
            dag = f"demo-screening__{step}"
            run = newest_run(flow, dag)
            for ti in flow.ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]:
                tries[ti["task_id"], ti["map_index"]] = ti["try_number"]
    assert {mark.name for mark in marks.iterdir()} == {"stage", "deidentify", "publish"}
    again = sorted(task for (task, _), n in tries.items() if n > 1)
    assert again == ["deidentify", "publish", "stage"]
    expected = {key: digest for key, digest in bench.states["publish"].items() if not key.startswith("work/")}
    assert made.digests("candidate", "release") == expected
    assert len(made.releases()) == 1
    made.whole()
    assert made.do("ledger_summary").answer["results"][0]["holds"]

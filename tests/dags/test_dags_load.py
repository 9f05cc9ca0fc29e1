"""Every DAG loads, is put together as it says, costs little to parse, and a broken project file harms no other."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import config
from pipeline.synthetic.project import project_text
from tests.helpers import officers

ROOT = Path(__file__).parents[2]
ZONES = ("LANDING", "WORK", "CANDIDATE", "RELEASE")
HEAVY = {
    "great_expectations",
    "pandas",
    "matplotlib",
    "duckdb",
    "pyarrow",
    "boto3",
    "botocore",
    "deid",
    "pydicom",
    "numpy",
}
NAME = "demo-screening"

ASKS = """
[retrieve]
host = "pacs.example"
called_ae = "PACS"
associations = 3
schedule = "30 19 * * *"
scheduled_modality = "MG"
"""

pytestmark = pytest.mark.xdist_group("airflow")


@pytest.fixture(scope="module")
def parsed(inside: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("projects")
    shutil.copy(ROOT / "infra" / "projects" / f"{NAME}.toml", folder)
    text = (folder / f"{NAME}.toml").read_text()
    (folder / "broken.toml").write_text(text.replace('name = "demo-screening"', 'name = "broken"\ntypo = 1', 1))
    nightly = text.replace('name = "demo-screening"', 'name = "nightly"').replace(
        "[stage]", '[stage]\nschedule = "0 2 * * *"'
    )
    (folder / "nightly.toml").write_text(nightly)
    (folder / "notcron.toml").write_text(
        nightly.replace("0 2 * * *", "every full moon").replace('"nightly"', '"notcron"')
    )
    asks = text.replace('name = "demo-screening"', 'name = "asks"') + ASKS
    (folder / "asks.toml").write_text(asks)
    (folder / "badcron.toml").write_text(
        asks.replace('"asks"', '"badcron"').replace("30 19 * * *", "now and then").replace(
            "[stage]", '[stage]\nschedule = "0 2 * * *"'))
    env = {"TRE_PROJECTS_DIR": str(folder)} | {f"TRE_DEMO_{zone}": f"file:///nowhere/{zone}" for zone in ZONES}
    result: dict[str, Any] = inside("parse", env=env).result
    return result


def test_each_project_has_its_dags_and_a_broken_file_harms_no_other(parsed: dict[str, Any]) -> None:
    what = ("stage", "build_candidate", "release", "recall")
    wanted = {f"{project}__{dag}" for project in (NAME, "nightly", "asks") for dag in what} | {"asks__retrieve"}
    assert set(parsed["dags"]) == wanted


def test_a_refused_project_file_is_an_import_error_that_names_file_and_line(parsed: dict[str, Any]) -> None:
    assert [Path(file).name for file in parsed["errors"]] == ["tre_refused_projects.py"]
    (said,) = parsed["errors"].values()
    assert "broken.toml:7: project.typo: unknown key" in said
    assert re.search(r"notcron\.toml:\d+: stage\.schedule: ", said)
    line = int(re.search(r"badcron\.toml:(\d+): retrieve\.schedule: ", said)[1])  # type: ignore[index]
    assert line > 100, "that of its own section, at the end of the file"


def test_a_project_that_nobody_approved_has_a_recall_and_nothing_else_and_is_named(
    inside: Callable[..., Any], tmp_path: Path
) -> None:
    folder = tmp_path / "projects"
    folder.mkdir()
    zones = (f"file://{tmp_path}/{zone.lower()}" for zone in ZONES)
    text = project_text(*zones).replace("demo = true", "demo = false") + officers.SECTION
    for name in ("signed", "changed", "unsigned"):
        (folder / f"{name}.toml").write_text(text.replace(NAME, name))
    env = {"TRE_PROJECTS_DIR": str(folder), "TRE_OFFICERS": str(officers.usual_list())}
    with officers.listed():
        officers.sign(folder / "signed.toml")
        officers.sign(folder / "changed.toml", "changed.toml")
    (folder / "changed.toml").write_text((folder / "changed.toml").read_text() + "# later\n")
    parsed = inside("parse", env=env).result
    what = {"signed": ("stage", "build_candidate", "release", "recall"), "changed": ("recall",),
            "unsigned": ("recall",)}  # fmt: skip
    assert set(parsed["dags"]) == {f"{name}__{dag}" for name, dags in what.items() for dag in dags}
    tasks = parsed["dags"]["signed__release"]["tasks"]      # no demo: nobody's click approves
    order = ["newest", "signed", "publish", "ledger"]
    assert set(tasks) == set(order)
    assert all(after in tasks[before]["downstream"] for before, after in itertools.pairwise(order))
    assert all(task["trigger_rule"] == "all_success" for task in tasks.values())
    assert (tasks["publish"]["pool"], bool(parsed["dags"]["signed__release"]["deadline"])) == ("tre_publish", True)
    (said,) = parsed["errors"].values()
    assert re.search(r"changed\.toml: Not approved.*changed\.toml \(project, [0-9a-f]{12}\): .*other bytes", said)
    assert "unsigned.toml (project, " in said
    assert "signed.toml: Not" not in said.replace("unsigned", "")
    assert not {name.partition(".")[0] for name in parsed["loaded"]} & HEAVY


def test_parsing_loads_nothing_heavy(parsed: dict[str, Any]) -> None:
    roots = {name.partition(".")[0] for name in parsed["loaded"]}
    assert not roots & HEAVY
    rooms = [name for name in parsed["loaded"] if name.startswith("pipeline.")]
    assert set(rooms) <= {"pipeline.config", "pipeline.sections", "pipeline.errors", "pipeline.layout", *(
        f"pipeline.govern{name}" for name in ("", ".approved", ".officers", ".signatures"))}


def test_stage_runs_by_hand_or_by_cron_and_announces_a_batch(parsed: dict[str, Any]) -> None:
    by_hand, nightly = parsed["dags"][f"{NAME}__stage"], parsed["dags"]["nightly__stage"]
    assert (by_hand["cron"], nightly["cron"]) == (None, "0 2 * * *")
    assert by_hand["tasks"]["stage"]["downstream"] == ["announce"]
    assert by_hand["tasks"]["announce"]["outlets"] == [f"tre://{NAME}/batches"]
    assert by_hand["params"]["project"]["const"] == NAME
    assert by_hand["params"]["dry_run"]["type"] == "boolean"


def test_build_candidate_maps_over_shards_and_ends_with_a_sealed_candidate(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"][f"{NAME}__build_candidate"]
    tasks = dag["tasks"]
    order = ["pending_shards", "deidentify", "clinical", "assemble", "curate", "validate", "announce"]
    assert all(after in tasks[before]["downstream"] for before, after in itertools.pairwise(order))
    assert dag["woken_by"] == [f"tre://{NAME}/batches"]
    assert (dag["max_active_runs"], tasks["deidentify"]["mapped"]) == (1, True)
    assert (tasks["deidentify"]["pool"], tasks["validate"]["pool"]) == ("tre_deidentify", "tre_validate")
    assert tasks["announce"]["outlets"] == [f"tre://{NAME}/candidates"]


def test_release_publishes_only_through_an_approval(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"][f"{NAME}__release"]
    tasks = dag["tasks"]
    order = ["newest", "ask", "record", "publish", "ledger"]
    assert all(after in tasks[before]["downstream"] for before, after in itertools.pairwise(order))
    assert all(task["trigger_rule"] == "all_success" for task in tasks.values())
    assert dag["woken_by"] == [f"tre://{NAME}/candidates"]
    assert tasks["publish"]["pool"] == "tre_publish"
    assert dag["deadline"]


def test_recall_takes_an_order_s_id_and_nothing_else(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"][f"{NAME}__recall"]
    tasks = dag["tasks"]
    order = ["withdraw", "pending_shards", "deidentify", "clinical", "assemble", "curate", "validate", "finish"]
    assert all(after in tasks[before]["downstream"] for before, after in itertools.pairwise([*order, "announce"]))
    assert set(dag["params"]) == {"project", "recall"}
    assert dag["params"]["recall"]["pattern"] == "^x-[0-9a-f]{24}$"
    assert (dag["woken_by"], dag["cron"], tasks["withdraw"]["pool"]) == ([], None, "tre_publish")


def test_retrieve_waits_without_holding_a_slot_and_takes_no_more_than_a_file_s_name(parsed: dict[str, Any]) -> None:
    dag = parsed["dags"]["asks__retrieve"]
    tasks = dag["tasks"]
    assert dag["cron"] == "30 19 * * *" and dag["max_active_runs"] == 1
    assert [tasks[name]["pool"] for name in ("find", "fetch", "reconcile")] == ["tre_pacs", "tre_pacs", "default_pool"]
    assert tasks["fetch"]["mapped"] and "fetch" in tasks["find"]["downstream"]
    assert tasks["fetch"]["downstream"] == ["reconcile"]
    pattern = dag["params"]["cohort"]["pattern"]
    assert re.search(pattern, "2024-01.csv") and not re.search(pattern, "../x.csv") and not re.search(pattern, "LID 1")


def test_no_run_can_succeed_over_a_failed_task(parsed: dict[str, Any]) -> None:
    for dag in parsed["dags"].values():
        assert {task["trigger_rule"] for task in dag["tasks"].values()} <= {"all_success", "none_failed"}


def test_every_task_retries_by_policy_tells_of_failure_and_stands_in_a_known_pool(parsed: dict[str, Any]) -> None:
    pools = {"default_pool", *json.loads((ROOT / "infra" / "pools.json").read_text())}
    for dag in parsed["dags"].values():
        assert dag["doc"].startswith("### ")
        for task in dag["tasks"].values():
            assert task["policy"] == "ExceptionRetryPolicy"
            assert task["retries"] > 0
            assert task["on_failure"]
            assert task["pool"] in pools


def test_no_dag_file_is_named_like_a_package() -> None:
    assert all(path.name.startswith(("tre_", "__init__")) for path in (ROOT / "dags").glob("*.py"))


def test_pools_of_one_stay_pools_of_one() -> None:
    pools = json.loads((ROOT / "infra" / "pools.json").read_text())
    assert pools["tre_publish"]["slots"] == pools["tre_validate"]["slots"] == 1


def test_the_demo_project_is_the_synthetic_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = [f"file:///demo/{zone.lower()}" for zone in ZONES]
    for zone, url in zip(ZONES, urls, strict=True):
        monkeypatch.setenv(f"TRE_DEMO_{zone}", url)
    (tmp_path / "project.toml").write_text(project_text(*urls, whole=True))
    demo = config.load(ROOT / "infra" / "projects" / f"{NAME}.toml")
    ours, theirs = (json.loads(c.meaning()) for c in (demo, config.load(tmp_path / "project.toml")))
    differing = {section for section in ours.keys() | theirs.keys() if ours.get(section) != theirs.get(section)}
    assert differing == {"audit", "validate"}, "its audits and its small groups are the demo's own"
    assert demo.project.demo

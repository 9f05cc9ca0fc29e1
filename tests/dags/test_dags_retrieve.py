"""The retrieve DAG from end to end under dag.test(), with a PACS on loopback: by cohort file, and by study date."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "retrieve"))

import retrieve_kit as kit
from faulty import options, serving

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("airflow")]
NAME = f"{kit.PROJECT}__retrieve"


@pytest.fixture(scope="module")
def ran(inside: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, shelf = tmp_path_factory.mktemp("asking"), kit.Shelf.made()
    (root / "cohorts").mkdir()
    (root / "cohorts" / "first.csv").write_text("accession_number\nACC1\n")
    (root / "cohorts" / "second.csv").write_text("accession_number\nACC3\nACC?\n")
    with serving(shelf.images) as pacs:
        kit.project_file(root, **options(pacs, scheduled_modality="MG", schedule="30 19 * * *", associations=2))
        steps = [
            {"dag": NAME, "conf": {"cohort": "first.csv"}},
            {"dag": NAME, "conf": {"study_date": "2021-03-02"}},
            {"dag": NAME},
            {"dag": NAME, "conf": {"cohort": "second.csv"}},
        ]
        done = inside("runs", env={"TRE_PROJECTS_DIR": str(root)}, steps=steps)
    return {"runs": done.result, "log": done.log, "root": root, "shelf": shelf}


def test_a_cohort_file_ends_in_landing_and_reconciled(ran: dict[str, Any]) -> None:
    run = ran["runs"][0]
    assert run["state"] == "success", ran["log"][-3000:]
    assert {name: state for name, (state, _) in run["tasks"].items()} == {
        "find": "success", "fetch[0]": "success", "fetch[1]": "success", "reconcile": "success"}
    (result,) = [value for task, key, value in run["xcoms"] if task == "reconcile" and key == "return_value"]
    assert (result["studies"], result["owed"], result["missing"]) == ({"complete": 1}, 5, 0)


def test_a_study_date_asks_for_the_project_s_modality(ran: dict[str, Any]) -> None:
    (result,) = [value for task, key, value in ran["runs"][1]["xcoms"] if task == "reconcile" and key == "return_value"]
    assert result["owed"] == 2, "the mammograms of that day, and not the CT of another person"
    assert len(list((ran["root"] / "landing" / "retrieved" / result["retrieval"]).rglob("*.dcm"))) == 2


def test_by_hand_a_run_says_what_it_is_of(ran: dict[str, Any]) -> None:
    assert ran["runs"][2]["state"] == "failed"
    assert ran["runs"][2]["tasks"]["find"][0] == "failed"


def test_a_run_that_lacks_something_is_not_green(ran: dict[str, Any]) -> None:
    run = ran["runs"][3]
    assert (run["state"], run["tasks"]["reconcile"][0]) == ("failed", "failed")
    assert run["tasks"]["fetch[0]"][0] == "success", "what could be had has landed"


def test_nothing_of_a_patient_is_in_airflow(ran: dict[str, Any]) -> None:
    said = repr(ran["runs"]) + ran["log"]
    first = ran["shelf"].images[0]
    for word in ("ACC1", "ACC3", "LID1001", "QUILL", first.sop, first.study):
        assert word not in said


def test_a_run_of_a_date_asks_for_the_study_date_before_it(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "dags"))
    import ast

    source = (Path(__file__).parents[2] / "dags" / "tre_retrieve.py").read_text()
    tree = ast.parse(source)
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "which"]
    names: dict[str, Any] = {}
    exec("from __future__ import annotations\nfrom datetime import timedelta\nfrom zoneinfo import ZoneInfo\n"
         + ast.unparse(wanted[0]), names)  # Airflow itself is not imported by a test
    made = kit.config(tmp_path, scheduled_modality="MG", schedule="30 19 * * *", lag_days=2)
    nothing = {"cohort": None, "study_date": None}
    summer = datetime(2024, 7, 8, 23, 30, tzinfo=UTC)      # the 9th in London
    assert names["which"](made, nothing, summer) == {"study_date": "2024-07-07"}
    named = names["which"](made, {**nothing, "cohort": "a.csv"}, summer)["cohort"]
    assert named.endswith("/cohorts/a.csv")

"""Runs inside a process of its own, with an Airflow of its own; the tests beside it read what it writes.

Airflow takes over a process's logging and reads its settings at import, so no test imports it.
`python inside.py FUNCTION ARGUMENTS.json RESULT.json`
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

DAGS = Path(__file__).resolve().parents[2] / "dags"
USERS = {"engineer": "admin", "officer": "user", "stranger": "user"}


def settings(home: Path) -> dict[str, str]:
    """The environment of a small Airflow in `home`, on SQLite."""
    (home / "passwords.json").write_text(json.dumps({user: f"{user}-password" for user in USERS}))
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "0" * 64,
        "AIRFLOW__API__BASE_URL": "http://127.0.0.1:8080",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


def bag() -> Any:
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=DAGS, bundle_path=DAGS, bundle_name="dags-folder")


# ---- what the DAG files say ----------------------------------------------------------------------------------------
def parse() -> dict[str, Any]:
    """Parse the DAGs folder; return import errors, the modules that parsing loaded, and each DAG's structure."""
    import airflow.dag_processing.dagbag  # noqa: F401 - counted as Airflow's own, not as the DAG files'

    before = set(sys.modules)
    found = bag()
    loaded = sorted(set(sys.modules) - before)
    return {
        "errors": found.import_errors,
        "loaded": loaded,
        "dags": {dag_id: structure(dag) for dag_id, dag in found.dags.items()},
    }


def structure(dag: Any) -> dict[str, Any]:
    asset = getattr(dag.timetable, "asset_condition", None)
    return {
        "doc": dag.doc_md,
        "woken_by": [one.uri for one in asset.objects] if asset else [],
        "cron": getattr(dag.timetable, "expression", None),
        "max_active_runs": dag.max_active_runs,
        "params": {name: dag.params.get_param(name).schema for name in dag.params},
        "deadline": bool(dag.deadline),
        "tasks": {
            task.task_id: {
                "downstream": sorted(task.downstream_task_ids),
                "pool": task.pool,
                "trigger_rule": task.trigger_rule.value,
                "mapped": bool(task.is_mapped),
                "retries": task.retries,
                "policy": type(task.retry_policy).__name__,
                "on_failure": bool(task.on_failure_callback),
                "outlets": [outlet.uri for outlet in task.outlets],
            }
            for task in dag.tasks
        },
    }


# ---- what a task makes of an error ---------------------------------------------------------------------------------
def errors(value: str, alerts: str) -> dict[str, Any]:
    """Raise errors in a step whose text quotes `value`; return what is left of them, and what the policy decides."""
    sys.path.insert(0, str(DAGS))
    import traceback
    import types

    import tre_tasks

    import pipeline
    from pipeline.errors import KeyRefused, LeaseHeld, RecipeRefused, StoreUnreachable

    def raising(error: Exception) -> Any:
        def step(project: str) -> None:
            try:
                raise KeyError(value)
            except KeyError as first:
                raise error from first

        return step

    cases = {
        "unforeseen": ValueError(f"could not read {value}"),
        "recipe": RecipeRefused("a.dicom:3: refused"),
        "key": KeyRefused("no key"),
        "store": StoreUnreachable("no answer"),
        "lease": LeaseHeld("held"),
    }
    pipeline.steps = sys.modules["pipeline.steps"] = types.ModuleType("pipeline.steps")  # type: ignore[attr-defined]
    result: dict[str, Any] = {}
    for name, error in cases.items():
        setattr(pipeline.steps, name, raising(error))
        try:
            tre_tasks.run_step(name, "project.toml")
        except Exception as left:
            said = "".join(traceback.format_exception(left))
            decision = tre_tasks.RETRY_POLICY.evaluate(left, try_number=1, max_tries=3)
            result[name] = {"type": type(left).__name__, "said": said, "decision": decision.action.value}

    seen: list[str] = []

    def looks(project: str) -> dict[str, Any]:
        seen.extend(name for name in os.environ if name.startswith("TRE_"))
        return {}

    os.environ |= {"TRE_KEY_DIR": "/keys", "TRE_LANDING_SECRET_ACCESS_KEY": "s", "TRE_CANDIDATE_SECRET_ACCESS_KEY": "s"}
    pipeline.steps.curate = looks  # type: ignore[attr-defined]
    tre_tasks.run_step("curate", "project.toml")
    result["curate_sees"] = seen
    result["afterwards"] = os.environ.get("TRE_KEY_DIR")

    os.environ["TRE_ALERT_COMMAND"] = (
        f"{sys.executable} -c 'import sys; open(sys.argv[1], \"w\").write(sys.argv[2])' {alerts}"
    )
    ti = types.SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=2)
    tre_tasks.task_failed({"ti": ti, "exception": ValueError(value)})
    tre_tasks.approval_waits("p", {"dag_run": {"state": "failed", "dag_id": "d", "dag_run_id": "r"}})
    return result


# ---- whole runs ----------------------------------------------------------------------------------------------------
def runs(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run DAGs in turn: {"dag", "conf"?, "answers"?: [{"user", "choice", "digest"?}], "land"?: [from, to],
    "recall"?: [project file, list of people]} each; a recall is ordered first, and its id is the run's conf."""
    results = []
    for step in steps:
        if step.get("land"):
            source, target = map(Path, step["land"])
            source.rename(target)
        if step.get("recall"):
            from pipeline import steps as room

            file, people = step["recall"]
            ordered = room.order_recall(file, "withdrawn", "officer", "engineer", people=[Path(people).read_text()])
            step["conf"] = {"recall": ordered["recall"]}
        results.append(run(bag().dags[step["dag"]], step.get("conf"), step.get("answers", [])))
    return results


def run(dag: Any, conf: dict[str, Any] | None, answers: list[dict[str, str]]) -> dict[str, Any]:
    """Run one DAG to its end; return its state, its tasks, every XCom it pushed, and how each answer was received."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    replies: list[int] = []
    asked: dict[str, Any] = {}
    over = threading.Event()
    officer = threading.Thread(target=reply, args=(dag.dag_id, answers, over, replies, asked))
    if answers:
        officer.start()
    dag.deadline = None  # dag.test() of this Airflow cannot end a run that has one; the real scheduler can
    try:
        done = dag.test(run_conf=conf)
    finally:
        over.set()
        if answers:
            officer.join()
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(XComModel.run_id == done.run_id)).all()
        xcoms = [[row.task_id, row.key, row.value] for row in rows]
        tasks = {
            f"{ti.task_id}{f'[{ti.map_index}]' if ti.map_index >= 0 else ''}": [str(ti.state), ti.try_number]
            for ti in done.get_task_instances(session=session)
        }
    return {"dag": dag.dag_id, "state": str(done.state), "tasks": tasks, "xcoms": xcoms, "replies": replies} | asked


def reply(
    dag_id: str, answers: list[dict[str, str]], over: threading.Event, replies: list[int], asked: dict[str, Any]
) -> None:
    """Answer the approval of this DAG over the REST API, as each user in turn, as soon as it is asked."""
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    with TestClient(create_app()) as client:

        def log_in(user: str) -> None:
            login = {"username": user, "password": f"{user}-password"}
            token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
            client.headers["Authorization"] = f"Bearer {token}"

        log_in("officer")
        path = f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false"
        while not (waiting := client.get(path).raise_for_status().json()["hitl_details"]):
            if over.wait(0.2):
                return
        ti, shown = waiting[0]["task_instance"], waiting[0]["params"]["digest"]["value"]
        asked |= {"body": waiting[0]["body"], "defaults": waiting[0]["defaults"], "shown": shown}
        path = f"/api/v2/dags/{dag_id}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/-1/hitlDetails"
        for answer in answers:
            log_in(answer["user"])
            params = {"digest": answer.get("digest", shown)}
            body = {"chosen_options": [answer["choice"]], "params_input": params}
            replies.append(client.patch(path, json=body).status_code)


def main(function: str, arguments: Path, result: Path) -> None:
    os.environ.update(settings(result.parent))
    from airflow.utils import db

    db.initdb()
    found = globals()[function](**json.loads(arguments.read_text()))
    result.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

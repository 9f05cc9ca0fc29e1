"""Runs DAGs under dag.test() in a process of its own, with an Airflow of its own, and prints what happened as JSON.

Airflow takes over a process's logging and reads its settings at import, so tests start this file and read its answer.
`python driver.py scenario.json`: {"home", "dags", "runs": [{"dag", "conf", "answer": {"user", "choice", "digest"}}]}
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

USERS = {"engineer": "admin", "officer": "user", "stranger": "user"}


def settings(home: Path, dags: Path) -> dict[str, str]:
    """The environment of a small Airflow in `home`, on SQLite."""
    (home / "passwords.json").write_text(json.dumps({user: f"{user}-password" for user in USERS}))
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "0" * 64,
        "AIRFLOW__API__BASE_URL": "http://127.0.0.1:8080",
    }


def run(dag: Any, conf: dict[str, Any] | None, answer: dict[str, str] | None) -> dict[str, Any]:
    """Run one DAG to its end; return its state, its tasks and every XCom it pushed."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    replies: list[int] = []
    if answer:
        threading.Thread(target=reply, args=(dag.dag_id, answer, replies), daemon=True).start()
    dag.deadline = None  # dag.test() of this Airflow cannot end a run that has one; the real scheduler can
    done = dag.test(run_conf=conf)
    with create_session() as session:
        rows = session.scalars(select(XComModel).where(XComModel.run_id == done.run_id)).all()
        xcoms = [[row.task_id, row.key, row.value] for row in rows]
        tasks = {
            f"{ti.task_id}{f'[{ti.map_index}]' if ti.map_index >= 0 else ''}": [str(ti.state), ti.try_number]
            for ti in done.get_task_instances(session=session)
        }
    return {"dag": dag.dag_id, "state": str(done.state), "tasks": tasks, "xcoms": xcoms, "replies": replies}


def reply(dag_id: str, answer: dict[str, str], replies: list[int]) -> None:
    """Answer the approval of this DAG as `answer["user"]`, over the REST API, as soon as it is asked."""
    from airflow.api_fastapi.app import create_app
    from fastapi.testclient import TestClient

    with TestClient(create_app()) as client:
        login = {"username": answer["user"], "password": f"{answer['user']}-password"}
        token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        while True:
            path = f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails?response_received=false"
            waiting = client.get(path).raise_for_status().json()["hitl_details"]
            if waiting and waiting[0]["task_instance"]["state"] == "awaiting_input":
                break
            time.sleep(0.2)
        ti, shown = waiting[0]["task_instance"], waiting[0]["params"]["digest"]["value"]
        for user_answer in (answer, *answer.get("then", ())):
            if user_answer["user"] != login["username"]:
                login = {"username": user_answer["user"], "password": f"{user_answer['user']}-password"}
                token = client.post("/auth/token", json=login).raise_for_status().json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
            digest = user_answer.get("digest", shown)
            body = {"chosen_options": [user_answer["choice"]], "params_input": {"digest": digest}}
            path = f"/api/v2/dags/{dag_id}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}/-1/hitlDetails"
            replies.append(client.patch(path, json=body).status_code)


def main(scenario: dict[str, Any]) -> None:
    home, folder = Path(scenario["home"]), Path(scenario["dags"])
    os.environ.update(settings(home, folder))

    from airflow.utils import db

    db.initdb()

    from airflow.dag_processing.dagbag import BundleDagBag

    results = []
    for step in scenario["runs"]:
        bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")
        results.append(run(bag.dags[step["dag"]], step.get("conf"), step.get("answer")))
    (home / "results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))

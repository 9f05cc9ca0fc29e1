"""The DAGs of every project: one set for each project file. What is refused shows in tre_refused_projects.py."""

from __future__ import annotations

from airflow.sdk import DAG
from tre_build import build, project_files

for path in project_files():
    try:
        dags: list[DAG] = list(build(path))
    except Exception:  # noqa: S112, BLE001 - one broken file must not take the other projects' DAGs away
        continue
    globals().update({dag.dag_id: dag for dag in dags})

"""Holds no DAG. Where a project file is refused, or runs what no officer approved, this file's import error, shown by
Airflow, says which, where and why.

It stands apart from tre_projects.py because Airflow takes away every DAG of a file that does not import. Airflow looks
at files that contain the words airflow and dag.
"""

from __future__ import annotations

from tre_build import build, project_files, unapproved

from pipeline import config
from pipeline.errors import ProjectFileError

refused: list[str] = []
for path in project_files():
    try:
        list(build(path))
        if said := unapproved(config.load(path)):
            refused.append(f"{path}: {said}")
    except ProjectFileError as error:
        refused.append(str(error))
    except Exception as error:  # noqa: BLE001 - what this Airflow will not take of it
        refused.append(f"{path}: {type(error).__name__}: {error}")
if refused:
    raise ProjectFileError("\n".join(refused))

"""A project that has a `[retrieve]` section asks a PACS: find, retrieve, reconcile. One DAG, by cron and by hand.

What may not be asked for now (quiet hours, so many studies an hour, a PACS that fails) is waited for by rescheduling:
the task gives its slot back meanwhile, and Airflow shows it as `up_for_reschedule`, its log the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from airflow.sdk import DAG, Param, PokeReturnValue
from airflow.sdk import task as airflow_task
from tre_tasks import run_step

from pipeline.config import ProjectConfig
from pipeline.errors import RetrievalIncomplete, UsageError

POOL = "tre_pacs"       # associations of all projects together
WAITS: dict[str, Any] = {"mode": "reschedule", "poke_interval": 60.0, "timeout": timedelta(days=7), "pool": POOL}
HINT = "`tre retrieve status`, and again.csv and rows.parquet of this retrieval in the work zone, tell what and why."
DOC = """
### Retrieve
Asks the PACS of the project file for one study date, or for a cohort file: writes down which instances PACS owes
(**find**), has them sent to landing (**fetch**), and says of every study whether it is complete, partial or failed
(**reconcile**, which fails where anything is lacking). By cron it asks for the study date some days before the run's
own (`lag_days`), so a backfill over dates retrieves the studies of those dates. By hand, give **cohort**, the name of a
file in the project's folder of cohorts, or **study_date**. What has landed is not asked for again; **attempt** 1, 2 …
asks PACS anew what it has. Never type a name or a number of a person into Airflow.
"""


def retrieve_dag(project: ProjectConfig, new_dag: Callable[..., DAG]) -> DAG:
    """Return the DAG of a project with `[retrieve]`. `new_dag` as in tre_build.py."""
    asked, file = project.retrieve, str(project.path)
    assert asked
    groups = 1 if asked.service == "c-move" else asked.associations     # C-MOVE sends to one port
    params = {
        "cohort": Param(None, "A file of the project's folder of cohorts, by its name alone.", type=["null", "string"],
                        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}\.csv$", title="Cohort file"),
        "study_date": Param(None, "YYYY-MM-DD; instead of a cohort file.", type=["null", "string"], format="date",
                            title="Study date"),
        "attempt": Param(0, "Ask PACS anew what it has: another number than before.", type="integer", minimum=0,
                         maximum=99, title="Attempt"),
        "again": Param(False, "Ask once more for studies that did not come whole.", type="boolean", title="Again"),
    }
    with new_dag(project, "retrieve", DOC, schedule=asked.schedule or None, max_active_runs=1, params=params) as dag:

        @airflow_task.sensor(**WAITS)
        def find(params: dict[str, Any], logical_date: datetime | None = None, dag_run: Any = None) -> PokeReturnValue:
            by_hand = dag_run is None or dag_run.run_type == "manual"
            what = which(project, params, None if by_hand else logical_date)
            found = run_step("ask_pacs", file, attempt=params["attempt"], **what)
            return PokeReturnValue(is_done=not found["why"], xcom_value=found)

        @airflow_task.sensor(**WAITS, map_index_template="{{ task.op_kwargs['group'] }}")
        def fetch(found: dict[str, Any], group: int, params: dict[str, Any]) -> PokeReturnValue:
            done = run_step("retrieve", file, found["retrieval"], group=group, groups=groups, again=params["again"])
            return PokeReturnValue(is_done=not done["left"], xcom_value=done)

        @airflow_task(multiple_outputs=False)
        def reconcile(found: dict[str, Any]) -> dict[str, Any]:
            result = run_step("reconcile", file, found["retrieval"])
            refused = result["rows"].get("refused", 0)
            if result["again"] or refused:      # a run that lacks something is not green
                raise RetrievalIncomplete(f"Not whole: {result['again']} studies, rows; {refused} refused.", hint=HINT)
            return result

        found = find()
        fetch.partial(found=found).expand(group=list(range(groups))) >> reconcile(found)
    return dag


def which(project: ProjectConfig, params: dict[str, Any], logical_date: datetime | None) -> dict[str, str]:
    """Return what a run asks for: its cohort file or study date, else the date that its own stands for."""
    asked = project.retrieve
    assert asked
    if params["cohort"]:
        return {"cohort": str(project.beside(asked.cohorts) / params["cohort"])}
    if params["study_date"]:
        return {"study_date": params["study_date"]}
    if logical_date is None:
        raise UsageError("A run by hand asks for a cohort file or a study date.", hint="Give cohort or study_date.")
    day = logical_date.astimezone(ZoneInfo(asked.timezone)).date() - timedelta(days=asked.lag_days)
    return {"study_date": day.isoformat()}

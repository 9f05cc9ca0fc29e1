"""One project file in, its DAGs out: stage, build_candidate, release, recall, and retrieve where it asks a PACS.

Events only wake a DAG. What there is to do is computed by the steps, as a set difference over the zones, so a lost, a
doubled or an early event does no harm.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from inspect import cleandoc
from pathlib import Path
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    DeadlineAlert,
    DeadlineReference,
    Param,
    PokeReturnValue,
    SyncCallback,
    get_current_context,
)
from airflow.sdk import task as airflow_task
from airflow.sdk.exceptions import AirflowSkipException, AirflowTimetableInvalid
from airflow.sdk.execution_time.hitl import HITLUser
from tre_retrieve import retrieve_dag
from tre_tasks import RETRY_POLICY, AskOfficer, approval_waits, record_answer, run_step, task_failed

from pipeline import config
from pipeline.errors import ProjectFileError, TreError

MOST_TASKS = 512  # of one mapped task; Airflow refuses more than 1024

DEFAULTS: dict[str, Any] = {
    "owner": "data-engineering",
    "retries": 4,
    "retry_delay": timedelta(seconds=20),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=30),
    "retry_policy": RETRY_POLICY,
    "on_failure_callback": task_failed,
}


def task(**options: Any) -> Any:
    """Airflow's decorator; a step's result is one XCom, not one a key."""
    return airflow_task(multiple_outputs=False, **options)


def project_files() -> list[Path]:
    """The project files: those in TRE_PROJECTS_DIR, else in infra/projects beside this folder."""
    folder = os.environ.get("TRE_PROJECTS_DIR") or Path(__file__).resolve().parents[1] / "infra" / "projects"
    return sorted(Path(folder).glob("*.toml"))


def build(path: Path) -> Iterator[DAG]:
    """Yield the DAGs of one project file: where it runs something that no officer approved, recall's alone.

    Raises ProjectFileError, which names file and line.
    """
    project = config.load(path)
    batches = Asset(name=f"{project.name}.batches", uri=f"tre://{project.name}/batches")
    candidates = Asset(name=f"{project.name}.candidates", uri=f"tre://{project.name}/candidates")
    staging = stage_dag(project, batches)
    asking = retrieve_dag(project, new_dag) if project.retrieve else None
    for section, dag in (("stage", staging), ("retrieve", asking)):
        try:
            if dag:
                dag.validate()
        except AirflowTimetableInvalid as error:
            lines = list(enumerate(path.read_text().splitlines(), 1))
            begin = next(n for n, text in lines if text.strip() == f"[{section}]")
            line = next(n for n, text in lines[begin:] if text.startswith("schedule"))
            raise ProjectFileError(f"{path}:{line}: {section}.schedule: {error}") from None
    if not unapproved(project):
        yield staging
        yield build_candidate_dag(project, batches, candidates)
        yield release_dag(project, candidates)
        if asking:
            yield asking
    yield recall_dag(project, candidates)


def unapproved(project: config.ProjectConfig) -> str:
    """Return what the project runs without an officer's approval, by name; empty where everything is approved."""
    from pipeline.govern.approved import require

    try:
        require(project, datetime.now(UTC).date())
    except TreError as error:
        return str(error)
    return ""


def new_dag(project: config.ProjectConfig, what: str, doc_md: str, **options: Any) -> DAG:
    shown = Param(
        project.name,
        "The project of this DAG. It cannot be changed here.",
        type="string",
        const=project.name,
        title="Project",
    )
    about = f"Project: **{project.project.title}**. Data steward: {project.project.data_steward}."
    return DAG(
        dag_id=f"{project.name}__{what}",
        doc_md=f"{cleandoc(doc_md)}\n\n{about}",
        start_date=datetime(2024, 1, 1),
        catchup=False,
        default_args=DEFAULTS,
        tags=["tre", project.name, *(["demo"] if project.project.demo else [])],
        params={"project": shown, **options.pop("params", {})},
        auto_register=False,  # tre_projects.py registers; tre_refused_projects.py only looks
        **options,
    )


def stage_dag(project: config.ProjectConfig, batches: Asset) -> DAG:
    file = str(project.path)
    doc = """
    ### Stage
    Looks at the landing zone once, freezes what has arrived and is quiet into a *batch*, reads every object's bytes and
    gives each one row: admitted, or the reason why not. Nothing is changed in the landing zone. Running it again does
    no harm: what was staged is not staged twice. **dry_run** counts and writes nothing.
    """
    dry_run = Param(False, "Count objects, bytes and shards; write nothing.", type="boolean", title="Dry run")
    schedule = project.stage.schedule or None
    with new_dag(project, "stage", doc, schedule=schedule, max_active_runs=1, params={"dry_run": dry_run}) as dag:

        @task()
        def stage(params: dict[str, Any]) -> dict[str, Any]:
            return run_step("stage", file, dry_run=params["dry_run"])

        @task(outlets=[batches])
        def announce(staged: dict[str, Any], *, outlet_events: Any) -> None:
            if not staged.get("batch") or staged.get("dry_run"):
                raise AirflowSkipException("No new batch.")
            outlet_events[batches].extra = {"batch": staged["batch"]}

        announce(stage())
    return dag


def build_tasks(file: str, candidates: Asset) -> tuple[Any, Any, Any]:
    """Add to the DAG at hand the tasks that make a candidate; return the first, the one that seals, and the last."""

    @task()
    def pending_shards() -> list[list[dict[str, Any]]]:
        """The shards to do, one to a task; several to a task only where there are more than Airflow can map."""
        pending = run_step("pending_shards", file)
        return [group for n in range(MOST_TASKS) if (group := pending[n::MOST_TASKS])]

    @task(pool="tre_deidentify", map_index_template="{{ label }}")
    def deidentify(shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        get_current_context()["label"] = " ".join(f"{s['batch']}/{s['shard']}" for s in shards[:3])
        return [run_step("deidentify", file, s["batch"], s["shard"]) for s in shards]

    # Nothing to de-identify skips the mapped task; the candidate may still be new (people, suites, clinical data).
    @task(trigger_rule="none_failed")
    def clinical() -> dict[str, Any]:
        return run_step("clinical", file)

    @task()
    def assemble() -> dict[str, Any]:
        return run_step("assemble", file)

    @task()
    def curate(assembled: dict[str, Any]) -> dict[str, Any]:
        return run_step("curate", file, assembled["candidate"])

    @task(pool="tre_validate")
    def validate(assembled: dict[str, Any]) -> dict[str, Any]:
        return run_step("validate", file, assembled["candidate"])

    @task(outlets=[candidates])
    def announce(validated: dict[str, Any], *, outlet_events: Any) -> None:
        if run_step("newest_candidate", file)["decision"]:
            raise AirflowSkipException("The same candidate as before, and it has been decided.")
        outlet_events[candidates].extra = {"candidate": validated["candidate"], "digest": validated["digest"]}

    assembled = assemble()
    validated = validate(assembled)
    announced = announce(validated)
    pending = pending_shards()
    deidentify.expand(shards=pending) >> clinical() >> assembled
    curate(assembled) >> validated >> announced
    return pending, validated, announced


def build_candidate_dag(project: config.ProjectConfig, batches: Asset, candidates: Asset) -> DAG:
    file = str(project.path)
    doc = """
    ### Build a candidate
    De-identifies every staged shard that has no part under today's recipes, key and people, pseudonymises the clinical
    tables, puts the parts together into a *candidate*, builds its tables and validates them. Woken by a new batch;
    start it by hand after a change of recipe, crosswalk, permitted people or suite. What is done is not done again.
    An object that cannot be de-identified is quarantined by reason and the rest goes on; a refused recipe or a missing
    key stops the run at once.
    """
    with new_dag(project, "build_candidate", doc, schedule=[batches], max_active_runs=1) as dag:
        build_tasks(file, candidates)
    return dag


def release_dag(project: config.ProjectConfig, candidates: Asset) -> DAG:
    file = str(project.path)
    if not project.project.demo:
        return signed_release_dag(project, candidates)
    officers = [HITLUser(id=name, name=name) for name in project.approve.officers]
    wait = timedelta(hours=project.approve.timeout_hours)
    doc = f"""
    ### Release
    Shows an officer what the newest candidate holds and waits for **Approve** or **Reject** (Required Actions). The
    answer carries the digest of the candidate that was shown and stands for that candidate alone. Approve publishes it;
    Reject (which is recorded), or no answer within {project.approve.timeout_hours} hours, ends this run as failed,
    and nothing is published. Whoever started the run cannot approve it. A newer candidate supersedes one that waits:
    approving the old one is then refused. A candidate is decided once: where publishing failed after an approval,
    clear `publish` in that run, rather than start another. `tre release verify` proves afterwards that the release is
    what its manifest says.
    """
    waits = alert_that_an_approval_waits(project, wait)
    # Several runs may wait for an answer, so that an old candidate does not hold up a new one; one at a time publishes.
    with new_dag(project, "release", doc, schedule=[candidates], max_active_runs=8, deadline=waits) as dag:

        @task()
        def newest() -> dict[str, Any]:
            """Whichever run asks, it asks about the newest: several events may have become one run."""
            found = run_step("newest_candidate", file)
            if found["decision"]:
                raise AirflowSkipException(f"{found['candidate']} has been decided: {found['decision']}.")
            return found

        chosen = newest()
        ask = AskOfficer(
            task_id="ask",
            project_file=file,
            chosen=chosen,
            subject=f"Publish a release of {project.name}?",
            defaults="Reject",
            response_timeout=wait,
            assigned_users=officers or None,
        )

        @task()
        def record(chosen: dict[str, Any], answer: dict[str, Any], *, dag_run: Any) -> dict[str, Any]:
            return record_answer(file, chosen, answer, dag_run.triggering_user_name or "airflow")

        publish_tasks(file, chosen, record(chosen, ask.output))
    return dag


def signed_release_dag(project: config.ProjectConfig, candidates: Asset) -> DAG:
    """A project that is no demo: who may click in Airflow is Airflow's matter, so it waits for officers' signatures."""
    file, wait = str(project.path), timedelta(hours=project.approve.timeout_hours)
    doc = f"""
    ### Release
    Writes the newest candidate's page, waits for officers' signatures on exactly that candidate
    (`tre approve PROJECT.toml --candidate --as NAME`, or `--reject`), and publishes it. Nothing that is clicked here
    approves. A rejection, a newer candidate, or no answer within {project.approve.timeout_hours} hours ends this run as
    failed, and nothing is published. Where publishing failed after an approval, clear `publish` in that run.
    `tre release verify` proves afterwards that the release is what its manifest says.
    """
    waits = alert_that_an_approval_waits(project, wait)
    with new_dag(project, "release", doc, schedule=[candidates], max_active_runs=8, deadline=waits) as dag:

        @task()
        def newest() -> dict[str, Any]:
            found = run_step("newest_candidate", file)
            if found["decision"] == "reject":
                raise AirflowSkipException(f"{found['candidate']} has been rejected.")
            run_step("candidate_page", file, found["candidate"])
            return {name: found[name] for name in ("candidate", "digest")}

        @airflow_task.sensor(mode="reschedule", poke_interval=60.0, timeout=wait)
        def signed(chosen: dict[str, Any]) -> PokeReturnValue:
            found = run_step("candidate_answer", file, chosen["candidate"])
            return PokeReturnValue(is_done=found["decision"] == "approve", xcom_value=found)

        chosen = newest()
        publish_tasks(file, chosen, signed(chosen))
    return dag


def alert_that_an_approval_waits(project: config.ProjectConfig, wait: timedelta) -> DeadlineAlert:
    return DeadlineAlert(
        name="an approval waits",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=min(wait / 2, timedelta(hours=24)),
        callback=SyncCallback(approval_waits, kwargs={"project": project.name}),
    )


def publish_tasks(file: str, chosen: Any, answered: Any) -> None:
    """Add to the DAG at hand what comes after the answer."""

    @task(pool="tre_publish", max_active_tis_per_dag=1)
    def publish(chosen: dict[str, Any], *, run_id: str) -> dict[str, Any]:
        return run_step("publish", file, chosen["candidate"], run_id=run_id)

    @task()
    def ledger() -> dict[str, Any]:
        return run_step("ledger_summary", file)

    answered >> publish(chosen) >> ledger()


def recall_dag(project: config.ProjectConfig, candidates: Asset) -> DAG:
    file = str(project.path)
    doc = """
    ### Recall
    Carries out a recall order. The order is made on the identifiable side by `tre recall … --order-only`, which prints
    its id; this DAG takes the id and nothing else, so that no identity is in Airflow. **withdraw** writes tombstones
    and removes the images, with all versions, from the release zone and the candidate zone. Then a candidate is built
    without them, and **finish** removes the older parts that held them and writes the certificate. The next release is
    approved as always. Run it again with the same id after any stop, and after that release: the certificate then names
    it.
    """
    order = Param(
        None,
        "The id of the order, as tre recall printed it. Never a name or a number of a person.",
        type="string",
        pattern=r"^x-[0-9a-f]{24}$",
        title="Recall order",
    )
    with new_dag(project, "recall", doc, schedule=None, max_active_runs=1, params={"recall": order}) as dag:

        @task(pool="tre_publish")
        def withdraw(params: dict[str, Any]) -> dict[str, Any]:
            return run_step("recall", file, params["recall"])

        @task()
        def finish(params: dict[str, Any]) -> dict[str, Any]:
            return run_step("finish_recall", file, params["recall"])

        pending, validated, announced = build_tasks(file, candidates)
        withdraw() >> pending
        validated >> finish() >> announced
    return dag

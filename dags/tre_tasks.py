"""What every task of a project goes through: the step, its errors without values, when to try again, whom to tell.

A task calls one function of `pipeline.steps`. Its arguments and its result are ids and counts. Nothing heavy is
imported here: this module is read each time a DAG file is parsed.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator, HITLOperator
from airflow.sdk import Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.definitions.retry_policy import ExceptionRetryPolicy, RetryAction, RetryRule

from pipeline.errors import ApprovalRefused, Disposition, LeaseHeld, PacsUnreachable, StoreUnreachable, TreError

# A step that has no business with the identifiable zone runs without its key and credentials in the environment. On one
# machine under LocalExecutor there is one user, so this is a discipline and not a wall.
CREDENTIALS = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
IDENTIFIABLE = ("TRE_KEY_DIR", *(f"TRE_{zone}_{name}" for zone in ("LANDING", "WORK") for name in CREDENTIALS))
HIDDEN = dict.fromkeys(("curate", "validate", "newest_candidate", "candidate_summary", "candidate_page",
                        "candidate_answer"), IDENTIFIABLE)
# A recall is carried out with the work zone, where its order stands, and without what could open landing or the key. An
# approval needs it for its entry in the audit log, and for nothing else (docs/adr/0007-audit-log.md).
BUT_WORK = tuple(name for name in IDENTIFIABLE if not name.startswith("TRE_WORK_"))
HIDDEN |= dict.fromkeys(("ask_pacs", "retrieve", "reconcile"), ("TRE_KEY_DIR",))     # before any pseudonym
HIDDEN |= dict.fromkeys(("approve", "recall", "finish_recall"), BUT_WORK)


class StepFailed(TreError):
    """An error nobody foresaw: its type and where it was raised, never its text, which may quote a value."""

    code, disposition = "unforeseen", Disposition.RETRY


# An error that a second try cannot mend fails at once. A store that does not answer, a lease that is held, and anything
# unforeseen is tried again, later each time, as often as the task's `retries` allow.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule([StoreUnreachable, PacsUnreachable, LeaseHeld, StepFailed], RetryAction.RETRY,
                  reason="a later try may succeed"),
        RetryRule(TreError, RetryAction.FAIL, reason="a second try cannot mend this"),
    ]
)


def run_step(name: str, project_file: str, *args: Any, **options: Any) -> dict[str, Any]:
    """Call `pipeline.steps.<name>(project_file, …)` and return its ids and counts. Raises TreError only."""
    from pipeline import observe, steps

    observe.quiet()
    events_to_airflow()
    failure: TreError
    try:
        with hidden(HIDDEN.get(name, ())), bare_main():
            return getattr(steps, name)(project_file, *args, **options)
    except TreError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - whatever it is, its text goes no further
        failure = StepFailed(f"Step {name}: {observe.describe(error)}")
    # Raised outside the handler: an exception chained to this one would be logged with its own text.
    failure.__cause__ = failure.__context__ = None
    raise failure.with_traceback(None)


@contextmanager
def hidden(names: tuple[str, ...]) -> Iterator[None]:
    """Take these variables out of the environment meanwhile."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def bare_main() -> Iterator[None]:
    """Let a step start processes: each imports the main module anew, and Airflow's own fails inside a task."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def events_to_airflow() -> None:
    """Let the product's events (ids and counts) into the task's log."""
    log = logging.getLogger("tre")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.INFO)


# ---- approval ----------------------------------------------------------------------------------------------------
class AskOfficer(ApprovalOperator):
    """Show an officer the candidate's summary and wait for Approve or Reject.

    The digest of exactly what is shown is a field of the form, so it comes back with the answer: an answer to an older
    question, or one given without reading, cannot approve this candidate. The decision is recorded by the next task,
    whichever it is, so nothing is skipped here.
    """

    template_fields = (*ApprovalOperator.template_fields, "chosen")

    def __init__(self, *, project_file: str, chosen: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project_file, self.chosen = project_file, chosen  # chosen: {"candidate", "digest"}

    def execute(self, context: Any) -> Any:
        digest = self.chosen["digest"]
        summary = run_step("candidate_summary", self.project_file, self.chosen["candidate"])
        if summary["digest"] != digest:
            raise ApprovalRefused("The candidate has changed since this run chose it.", hint="Start the DAG again.")
        said = f"Read first, in full: {summary['page']}"
        self.body = "\n".join([said, "", "```", *summary["lines"], "```"])
        field = Param(
            digest,
            "What is approved: the digest of the candidate's manifest.",
            source="task",
            type="string",
            const=digest,
            title="Candidate digest",
        )
        self.params = ParamsDict({"digest": field})
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        return HITLOperator.execute_complete(self, context, event)


def record_answer(
    project_file: str, chosen: dict[str, str], answer: dict[str, Any], triggered_by: str
) -> dict[str, Any]:
    """Record who decided what of the candidate. Raises ApprovalRefused where that is not a valid approval.

    `answer` is Airflow's own: chosen_options, params_input, responded_by_user (None where nobody answered in time).
    """
    approved = answer["chosen_options"] == [ApprovalOperator.APPROVE]
    if not answer["responded_by_user"]:
        raise ApprovalRefused("Nobody answered in time, and silence rejects: nothing is published.")
    if approved and answer["params_input"].get("digest") != chosen["digest"]:
        raise ApprovalRefused("The answer does not carry the digest of this candidate.", hint="Start the DAG again.")
    officer, decision = answer["responded_by_user"]["name"], "approve" if approved else "reject"
    record = run_step("approve", project_file, chosen["candidate"], chosen["digest"], officer, triggered_by, decision)
    if not approved:
        raise ApprovalRefused("Rejected by an officer. The rejection is recorded, nothing is published.")
    return record


# ---- whom to tell ------------------------------------------------------------------------------------------------
def task_failed(context: Any) -> None:
    """on_failure_callback of every task."""
    ti, error = context["ti"], context.get("exception")
    alert(
        "task_failed",
        dag=ti.dag_id,
        run=ti.run_id,
        task=ti.task_id,
        map_index=ti.map_index,
        try_number=ti.try_number,
        reason=getattr(error, "code", type(error).__name__),
    )


def approval_waits(project: str, context: Any) -> None:
    """Deadline of a release run: it still waits for an officer. A run that has ended since then is no matter."""
    run = context["dag_run"]
    if run["state"] == "running":
        alert("approval_waits", project=project, dag=run["dag_id"], run=run["dag_run_id"])


def alert(name: str, **ids: str | int) -> None:
    """Log an event and hand it, as one JSON argument, to the command in TRE_ALERT_COMMAND where that is set."""
    event = json.dumps({"event": name, **ids}, sort_keys=True)
    logging.getLogger("tre.alert").warning("%s", event)
    if command := os.environ.get("TRE_ALERT_COMMAND"):
        try:
            subprocess.run([*shlex.split(command), event], timeout=30, check=True, capture_output=True)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            logging.getLogger("tre.alert").error("TRE_ALERT_COMMAND failed: %s", type(error).__name__)

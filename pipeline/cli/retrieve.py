"""`tre retrieve`: from a cohort file to landing, and what became of it. Writes go through steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, facts, size, table
from pipeline.errors import RetrievalIncomplete, UsageError

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig

EXAMPLES = examples(
    "tre retrieve cohort.csv --project PROJECT.toml --find-only     what PACS has of them; no image moves",
    "tre retrieve cohort.csv --project PROJECT.toml                 again after any stop: nothing is asked for twice",
    "tre retrieve cohort.csv --project PROJECT.toml --again         once more for what did not come whole",
    "tre retrieve cohort.csv --project PROJECT.toml --dose-reports  doses, and not one image",
    "tre retrieve status --project PROJECT.toml",
)
DOSE_REPORTS = ("X-Ray Radiation Dose SR Storage", "Enhanced X-Ray Radiation Dose SR Storage",
                "Radiopharmaceutical Radiation Dose SR Storage", "Patient Radiation Dose SR Storage")
WHY = {"quiet_hours": "quiet hours of the PACS", "studies_an_hour": "no more studies an hour by the project file",
       "pacs_failing": "the PACS failed several times; it is left in peace", "not_reached": "the PACS was not reached"}


def retrieve(
    cohort: Annotated[
        str, typer.Argument(metavar="COHORT.csv | status", help="The cohort file; or the word status.",
                            show_default=False)
    ],
    project_file: Annotated[
        Path, typer.Option("--project", metavar="PROJECT.toml", help="The project file.", show_default=False)
    ],
    find_only: Annotated[bool, typer.Option("--find-only", help="Ask what PACS has, and stop there.")] = False,
    dose_reports: Annotated[
        bool, typer.Option("--dose-reports", help="Dose reports alone: what was done, without an image.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask once more for studies that did not come whole.")] = False,
    anew: Annotated[
        int, typer.Option("--anew", metavar="N", min=0, help="Ask PACS anew what it has: 1 the second time, 2 …")
    ] = 0,
    wait: Annotated[
        bool, typer.Option(help="Wait through quiet hours and pauses; else stop there and say for how long.")
    ] = True,
    landing: project.Landing = None,
    work: project.Work = None,
) -> None:
    """Ask PACS for a cohort: find it, write down what PACS owes, fetch it into landing, reconcile.

    A cohort file is a CSV with any of the columns nhs_number, local_id, issuer, accession_number, study_instance_uid,
    date_from, date_to, modality. Start it again after any stop.
    """
    config = project.load(project_file, landing=landing, work=work)
    if cohort == "status":
        status(config)
        return
    from pipeline import steps

    if dose_reports:
        config = reports_alone(config)
    found = steps.ask_pacs(config, cohort=cohort, attempt=anew, wait=wait)
    if found["why"]:
        _later(found)
        return
    say_found(found)
    if find_only:
        return
    while (done := steps.retrieve(config, found["retrieval"], again=again))["left"]:
        if not wait:
            steps.reconcile(config, found["retrieval"])
            _later(done)
            return
        print(f"{done['left']:,} studies left. Waiting {_span(done['wait_seconds'])}: {WHY[done['why']]}.", flush=True)
        time.sleep(min(done["wait_seconds"], 600) + 0.1)
    _close(config, steps.reconcile(config, found["retrieval"]))


def reports_alone(config: ProjectConfig) -> ProjectConfig:
    """Return the project asking for dose reports and for nothing else (PS3.6: X-Ray and other Radiation Dose SR)."""
    from pipeline.retrieve.run import settings

    asked = settings(config)
    only = asked.only.model_copy(update={"sop_classes": DOSE_REPORTS, "modalities": ("SR",)})
    return config.model_copy(update={"retrieve": asked.model_copy(update={"only": only})})


def say_found(found: dict[str, Any]) -> None:
    """Print what PACS has of a cohort."""
    from pipeline.retrieve.cohort import REFUSALS

    facts({"retrieval": found["retrieval"], **{f"rows {state}": n for state, n in found["rows"].items()},
           "studies": found["studies"], "instances owed": found["instances"],
           **{f"left out: {why}": n for why, n in found["left_out"].items()}})
    for line, reason in found["refused"]:
        print(f"  line {line}: {reason}. {REFUSALS.get(reason, 'The PACS failed; its words are in rows.parquet.')}")


def status(config: ProjectConfig) -> None:
    """List the retrievals of a project, and how the PACS is treated now."""
    from pipeline.retrieve import run
    from pipeline.retrieve.kind import Kindness

    store = project.reading(config)[0]
    rows = []
    for retrieval in run.known(config, store):
        counts = run.progress(config, store, retrieval)
        rows.append((retrieval, *(f"{counts[name]:,}" for name in PROGRESS)))
    table(f"Retrievals of {config.name}", ("retrieval", *PROGRESS), rows, right=PROGRESS)
    now = Kindness(run.settings(config), store, config.name).shown()
    for why in ("quiet_hours", "pacs_failing"):
        if now[why]:
            print(f"Nothing is asked for another {_span(now[why])}: {WHY[why]}.")


PROGRESS = ("studies", "complete", "partial", "failed", "waiting", "owed", "missing")


def _close(config: ProjectConfig, result: dict[str, Any]) -> None:
    from pipeline import layout

    print()
    facts({**{f"studies {state}": n for state, n in result["studies"].items()}, "instances owed": result["owed"],
           "landed": result["landed"], "missing": result["missing"], "their size": size(result["bytes"])})
    facts({f"  {what}": result[name] for name, what in (
        ("not_asked", "sent without being asked for, kept out"), ("repeated", "sent twice, kept once"),
        ("conflicting", "sent twice with other bytes, both kept")) if result[name]})
    if result["again"]:
        where = f"{config.zones.work}/{layout.retrieval_again(config.name, result['retrieval'])}"
        raise RetrievalIncomplete(
            f"{result['again']} studies or rows did not come whole.",
            hint=f"Words of the PACS: studies/*.json beside {where}, which is a cohort file for another run.")


def _later(found: dict[str, Any]) -> None:
    if found["why"] not in WHY:
        raise UsageError("Nothing to wait for.")
    print(f"Not now: {WHY[found['why']]}. Start it again in {_span(found['wait_seconds'])}.")


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 90 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"

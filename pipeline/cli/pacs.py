"""`tre pacs`: what a PACS has, and what it can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, table
from pipeline.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="What a PACS has, and what it can do.")
COUNTS = ("people", "studies", "instances")


@app.command("count", epilog=examples(
    "tre retrieve cohort.csv --project PROJECT.toml --find-only      asks PACS; no image moves",
    "tre pacs count PROJECT.toml --by modality --by year",
    "tre pacs count PROJECT.toml --by manufacturer --only modality=MG",
))
def count(
    project_file: project.ProjectFile,
    by: Annotated[
        list[str] | None, typer.Option("--by", help="modality, year, month, manufacturer, sop_class or left_out.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option("--only", metavar="NAME=VALUE", help="Count these alone.")] = None,
    work: project.Work = None,
) -> None:
    """Count what PACS said it has of the cohorts that were asked for: no image needs to have moved.

    Groups of fewer people than [audit] minimum are kept back.
    """
    from pipeline.retrieve import harvest

    config = project.load(project_file, work=work)
    pairs = [text.partition("=") for text in only or ()]
    if any(not value for _, _, value in pairs):
        raise UsageError("--only takes NAME=VALUE.")
    names = by or ["modality"]
    groups = harvest.count(config, project.reading(config)[0], names, {name: value for name, _, value in pairs})
    kept = f"<{config.audit.minimum}"
    rows = [(*group.values, *((f"{group.people:,}", f"{group.studies:,}", f"{group.instances:,}")
                              if group.people is not None else (kept, "", ""))) for group in groups]
    table(f"What PACS has for {config.name}", (*names, *COUNTS), rows, right=COUNTS)




@app.command("assess", epilog=examples(
    "tre pacs assess PROJECT.toml --test-patient ZZTEST01 --out pacs.html",
))
def assess(
    project_file: project.ProjectFile,
    test_patient: Annotated[
        str, typer.Option("--test-patient", metavar="ID", show_default=False,
                          help="Patient ID of a test patient with a study there. Never a real person's.")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.html", help="Where the page goes.")] = Path("pacs.html"),
) -> None:
    """Try what a PACS really does: levels, keys, services, transfer syntaxes, DICOMweb; write a page of it.

    One thing after another, with pauses, outside quiet hours, and with nothing but the test patient's studies. What is
    retrieved is not kept. The page can go into a procurement file.
    """
    from datetime import date

    from pipeline.retrieve.assess import assess as run
    from pipeline.retrieve.assess_page import page
    from pipeline.retrieve.kind import Kindness
    from pipeline.retrieve.run import settings

    config = project.load(project_file)
    asked, work = settings(config), project.reading(config)[0]
    if not test_patient.strip() or any(c in test_patient for c in "*?\\"):
        raise UsageError("A test patient has a Patient ID without *, ? or a backslash.")
    if Kindness(asked, work, config.name).quiet(work.now()):
        raise UsageError("It is quiet hours of this PACS.", hint="Assess it when the project file lets it be asked.")
    tried = run(config, test_patient.strip(), lambda one: print(f"{one.verdict:<8} {one.area}: {one.what}", flush=True))
    out.write_bytes(page(asked, tried, date.today()))
    print(f"\n{sum(one.verdict == 'yes' for one in tried)} of {len(tried)} done as asked. Page: {out}")

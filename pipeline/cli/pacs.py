"""`tre pacs`: what a PACS has, and what it can do."""

from __future__ import annotations

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



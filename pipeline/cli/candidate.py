"""`tre candidate`: what an officer reads of a candidate before answering."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples

app = typer.Typer(no_args_is_help=True, help="What waits for an officer's approval.")


@app.callback()
def _candidate() -> None:
    """Candidates are approved by tre approve PROJECT.toml --candidate; a demo's, also in Airflow."""


@app.command("page", epilog=examples(
    "tre candidate page PROJECT.toml                     the newest candidate",
    "tre candidate page PROJECT.toml --to candidate.html",
))  # fmt: skip
def page(
    project_file: project.ProjectFile,
    candidate_id: Annotated[str | None, typer.Argument(metavar="[CANDIDATE]", show_default=False)] = None,
    to: Annotated[Path | None, typer.Option(help="Also write it to this file.", show_default=False)] = None,
    candidate: project.Candidate = None,
    release: project.Release = None,
) -> None:
    """Make a candidate's page anew, and say where it is: people, fields, what was left out, what has changed.

    It is compared with the release before, and says who approved what runs as that stands today.
    """
    from pipeline import layout, steps
    from pipeline.side import zone

    config = project.load(project_file, candidate=candidate, release=release)
    name = candidate_id or steps.newest_candidate(config)["candidate"]
    print(steps.candidate_page(config, name)["page"])
    if to:
        to.write_bytes(zone(config, "candidate").read(layout.candidate_page(config.name, name)))

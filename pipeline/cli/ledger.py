"""`tre ledger`: the fate of every landed object, as a file or as counts. Reads only, in the identifiable zone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, totals
from pipeline.errors import LedgerBroken, UsageError

EXAMPLES = examples(
    "tre ledger PROJECT.toml summary                            counts by status and reason",
    "tre ledger PROJECT.toml --out ledger.parquet               a row per landed object",
    "tre ledger PROJECT.toml --release 0001-5d2c8f0a91be summary",
)


def ledger(
    project_file: project.ProjectFile,
    what: Annotated[Literal["summary"] | None, typer.Argument(help="Print counts only.", show_default=False)] = None,
    release: Annotated[str | None, typer.Option(help="Of this release, by its id.", show_default=False)] = None,
    candidate: Annotated[str | None, typer.Option(help="Of this candidate, by its id.", show_default=False)] = None,
    all_candidates: Annotated[bool, typer.Option("--all", help="A row per object and candidate.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Write it here, .parquet or .csv. It names sources: keep it in the identifiable zone."),
    ] = None,
) -> None:
    """Tell what became of every landed object: one status each, and a reason where it went no further.

    Of the current release, else of the latest candidate. Ends with 62 where an object has no fate or two.
    """
    from pipeline.ledger import ledger as room

    if out is None and what is None:
        raise UsageError("Say summary, or where the ledger goes.", hint="tre ledger PROJECT.toml --out FILE")
    config = project.load(project_file)
    found = room.build(
        config, *project.reading(config), out, release_id=release, candidate_id=candidate, all_candidates=all_candidates
    )
    of = f", candidate {found.candidate}" if found.candidate else ""
    totals(f"{config.name}{of}, release {found.release}" if found.release else f"{config.name}{of}", found.counts)
    if out is not None:
        print(f"{found.objects:,} rows in {out}")
    if not found.holds:
        broken = ", ".join(f"{name} {n}" for name, n in sorted(found.findings.items()))
        raise LedgerBroken(f"The ledger does not hold: {broken}.", hint="Stop publishing; see docs/runbook.md.")
    print("Every inventoried object stands here exactly once.")

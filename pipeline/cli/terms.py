"""`tre terms`: free text that a project may keep, each term approved by an officer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, facts, table

app = typer.Typer(no_args_is_help=True, help="Propose and check approved terms of free text.")


@app.command("propose", epilog=examples(
    "tre terms propose PROJECT.toml --out terms-proposed.csv",
    "tre terms propose PROJECT.toml --attribute SeriesDescription --attribute ProtocolName -k 20 --out proposed.csv",
))  # fmt: skip
def propose(
    project_file: project.ProjectFile,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The proposal: a new CSV.", show_default=False)],
    attribute: Annotated[
        list[str] | None,
        typer.Option(metavar="KEYWORD", help="An attribute. Else all for which a recipe says func:term."),
    ] = None,
    people: Annotated[
        int | None, typer.Option("-k", min=5, metavar="N", help="People a term must be seen in.",
                                 show_default="the project file's terms_people, 10 where it says none")
    ] = None,
    landing: project.Landing = None,
    work: project.Work = None,
) -> None:
    """Read the headers of what landed, one object a series, and write the terms that k people or more share.

    An officer reads the file line by line: fills in approver and date, or
    deletes the line. Then it is the project's list: \\[deidentify] terms.
    Rarer terms, and those that look like an identifier, are counted and
    written nowhere.
    """
    from pipeline import steps

    config = project.load(project_file, landing=landing, work=work)
    done = steps.propose_terms(config, str(out), attributes=attribute or (), people=people)
    facts({"series read": done["series"], "series that cannot be read": done["unreadable"],
           "terms proposed": done["proposed"], "approved before": done["already_approved"]})
    rows = [(name, *(f"{done[what].get(name, 0):,}" for what in ("rare", "looks_like_identifier", "empty")))
            for name in done["attributes"]]
    columns = ("attribute", f"terms of fewer than {done['least']} people", "like an identifier", "series without")
    table("Not proposed", columns, rows, right=columns[1:])
    print(f"Written to {out}. Approve line by line: approver and date, or delete the line.")


@app.command("lint", epilog=examples("tre terms lint PROJECT.toml"))
def lint(project_file: project.ProjectFile) -> None:
    """Read the project's approved terms strictly. Ends with 18 where a line is refused."""
    from pipeline.deidentify.plan import load_plans
    from pipeline.deidentify.terms import read

    config = project.load(project_file)
    given = config.deidentify.terms
    found = read(config.beside(given) if given else None, config.deidentify.terms_people)
    load_plans(config)      # no term of an attribute that no recipe asks for
    counts: dict[str, int] = {}
    for line in found.lines:
        counts[line.attribute] = counts.get(line.attribute, 0) + 1
    facts({**counts, "terms": found.count, "SHA-256": found.sha256 or "no list"})

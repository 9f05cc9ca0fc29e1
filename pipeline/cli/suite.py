"""`tre suite`: expectation suites of a project's own clinical tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import examples
from pipeline.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Draft expectation suites for the clinical tables of a project.")


@app.callback()
def _group() -> None:
    """Draft expectation suites for the clinical tables of a project."""


@app.command("draft", epilog=examples("tre suite draft project.toml --out suites"))
def draft(
    project: Annotated[Path, typer.Argument(help="Project file.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write them.")] = Path("suites"),
) -> None:
    """Write a suite for each clinical table, from what the project file declares; a file that is there stays.

    Read and change them, then name their directory in [validate] suites: each goes before the product's of its name.
    """
    from pipeline.config import load
    from pipeline.validate.draft import draft as drafted

    config = load(project)
    if not config.clinical:
        raise UsageError("The project file declares no clinical table.")
    out.mkdir(parents=True, exist_ok=True)
    for declared in config.clinical:
        path = out / f"{declared.table}.json"
        if path.exists():
            print(f"{path}: is there, left as it is")
        else:
            path.write_bytes(drafted(declared))
            print(f"{path}: drafted")

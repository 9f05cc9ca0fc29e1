"""`tre recipe`: read recipes before anybody runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import examples
from pipeline.errors import RecipeRefused

app = typer.Typer(no_args_is_help=True, help="Read de-identification recipes strictly.")


@app.command(
    "lint",
    epilog=examples("tre recipe lint deid_recipes/*.dicom", "tre recipe lint my-project/mammography.dicom"),
)
def lint(files: Annotated[list[Path], typer.Argument(help="Recipe files.", show_default=False)]) -> None:
    """Refuse what deid would ignore, guess or leave alone: file, line, what deid would have done, the mend.

    Ends with 11 where a recipe is refused.
    """
    from pipeline.deidentify import linter

    findings = linter.lint(files)
    for f in findings:
        print(f"{f.file}:{f.line}: {f.rule}\n    deid: {f.deid_does}\n    mend: {f.mend}")
    if findings:
        raise RecipeRefused(f"{len(findings)} findings in {len({str(f.file) for f in findings})} files.")
    print(f"{len(files)} {'recipe' if len(files) == 1 else 'recipes'}, nothing refused.")

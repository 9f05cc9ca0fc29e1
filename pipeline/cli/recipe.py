"""`tre recipe`: read recipes before anybody runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import recipe_coverage, recipe_review, recipe_test
from pipeline.cli.show import examples
from pipeline.errors import RecipeRefused

app = typer.Typer(no_args_is_help=True, help="Read de-identification recipes strictly.")
app.add_typer(recipe_coverage.app)
app.command("review", epilog=recipe_review.EXAMPLES)(recipe_review.review)
app.command("test", epilog=recipe_test.EXAMPLES)(recipe_test.test)


@app.command(
    "lint",
    epilog=examples("tre recipe lint deid_recipes/*", "tre recipe lint my-project/mammography.dicom"),
)
def lint(files: Annotated[list[Path], typer.Argument(help="Recipe files.", show_default=False)]) -> None:
    """Refuse what deid would ignore, guess or leave alone: file, line, what deid would have done, the mend.

    A recipe that says `# behind:` is read with those it stands behind; the others are read together, as one set.
    Concept rules for structured reports (.toml) are read as strictly. Ends with 11 where a recipe is refused.
    """
    from pipeline.deidentify import concepts, header, linter

    recipes, rules = concepts.split([str(file) for file in files])
    findings = dict.fromkeys(finding for one in header.sets(recipes) for finding in linter.lint(one))
    flaws = [flaw for file in rules for flaw in concepts.lint(file)]
    for f in findings:
        print(f"{f.file}:{f.line}: {f.rule}\n    deid: {f.deid_does}\n    mend: {f.mend}")
    for flaw in flaws:
        print(f"{flaw.file}:{flaw.line}: {flaw.rule}\n    what: {flaw.what}\n    mend: {flaw.mend}")
    if findings or flaws:
        refused = {f.file for f in findings} | {flaw.file for flaw in flaws}
        raise RecipeRefused(f"{len(findings) + len(flaws)} found in {len(refused)} of {len(files)} files.")
    print(f"{len(files)} {'recipe' if len(files) == 1 else 'recipes'}, nothing refused.")

"""`tre recipe coverage` and `tre recipe list`: recipes beside the standard, and what each is for."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.show import examples, facts, table
from pipeline.errors import RecipeRefused

if TYPE_CHECKING:
    from pipeline.deidentify.coverage import Row

COLUMNS = ("tag", "attribute", "basic_profile", "option", "standard", "recipe", "verdict", "where", "reason", "note")

app = typer.Typer()


@app.command("coverage", epilog=examples(
    "tre recipe coverage deid_recipes/mammography.dicom",
    "tre recipe coverage deid_recipes/base.dicom my-project/own.dicom",
    "tre recipe coverage deid_recipes/mr.dicom --all",
    "tre recipe coverage deid_recipes/dose_report.toml --csv coverage.csv"))
def coverage(
    files: Annotated[list[Path], typer.Argument(help="Recipe files of one set, as a project lists them. Those that one "
                                                     "says it stands behind come by themselves.", show_default=False)],
    to_csv: Annotated[Path | None, typer.Option("--csv", help="Write every row to this file ('-': print it).")] = None,
    every: Annotated[bool, typer.Option("--all", help="Print rows of which nothing stays, too.")] = False,
    keep_times: Annotated[bool, typer.Option(help="As in a project that keeps times, moved.")] = False,
) -> None:
    """Set a recipe beside PS3.15 Table E.1-1, row by row: stricter, equal or weaker.

    The standard's action is that of the Basic Profile, or of the options that the recipe claims (# claims: …). Ends
    with 11 where a weaker rule has no reason beside it, or the linter refuses the recipe.
    """
    from pipeline.deidentify import concepts, coverage, header, linter

    whole = header.with_behind(files)
    recipes, rules = concepts.split([str(file) for file in whole])
    found = linter.lint(recipes)
    flaws = [f"{flaw.file}:{flaw.line}: {flaw.rule}" for file in rules for flaw in concepts.lint(file)]
    other = [f"{f.file}:{f.line}: {f.rule}" for f in found if f.rule != "weaker"] + flaws
    if other:
        raise RecipeRefused(f"{len(other)} findings: {', '.join(other[:3])}.",
                            hint="`tre recipe lint` tells what deid would have done, and the mend.")
    parsed = linter.parse(recipes)
    rows = coverage.compare(parsed, keep_times=keep_times, concepts=bool(rules))
    if to_csv and str(to_csv) == "-":
        _write(sys.stdout, rows)
    else:
        if to_csv:
            with to_csv.open("w", newline="", encoding="utf-8") as file:
                _write(file, rows)
        _print(rows, [path.name for path in whole], parsed.claims, every)
        kept = {rule.field for rule in parsed if rule.action != "REMOVE"}
        print(f"{len(kept - {row.attribute for row in rows} - {r.field for r in parsed if r.field[0] == '('})} rules "
              "are about attributes that the table does not name.")
    bare = [row for row in rows if row.verdict == "weaker" and not row.reason]
    if bare:
        raise RecipeRefused(f"{len(bare)} weaker rules have no reason: {', '.join(row.where for row in bare[:3])}.",
                            hint="Write '# weaker: …' above each, or remove the rule.")


def _print(rows: list[Row], files: list[str], claims: Sequence[str], every: bool) -> None:
    from pipeline.deidentify import coverage
    from pipeline.deidentify.profile import EDITION, OPTIONS, SAFE_EDITION

    order = {"weaker": 0, "equal": 1, "stricter": 2}
    shown = [row for row in rows if every or row.verdict == "weaker" or coverage.LEAVES[row.recipe]]
    columns = ("tag", "attribute", "Basic Profile", "under options", "recipe", "verdict", "where", "why")
    table(" + ".join(files), columns,
          [(row.tag, row.attribute, row.basic, f"{row.standard} ({row.option})" if row.option else row.standard,
            row.recipe, row.verdict, row.where, row.reason or row.note)
           for row in sorted(shown, key=lambda row: order[row.verdict])])
    counts = Counter(row.verdict for row in rows)
    moved = any(row.recipe == "moved" and "Time" in row.attribute for row in rows)
    codes = coverage.codes(rows, times_moved=moved)
    facts({**{f"rows {verdict}": counts[verdict] for verdict in order},
           "not shown: nothing stays": len(rows) - len(shown),
           "claimed by the recipes": ", ".join(f"{code} {OPTIONS[code][0]}" for code in claims) or "no option",
           "stated in each object": ", ".join(f"{code} {meaning}" for code, meaning in codes) or "no profile"})
    print(EDITION)
    if any(row.tag[6:8] == "xx" for row in rows):
        print(SAFE_EDITION)


def _write(file: object, rows: list[Row]) -> None:
    writer = csv.writer(file)       # type: ignore[arg-type]
    writer.writerow(COLUMNS)
    writer.writerows((row.tag, row.attribute, row.basic, row.option, row.standard, row.recipe, row.verdict, row.where,
                      row.reason, row.note) for row in rows)


@app.command("list", epilog=examples("tre recipe list", "tre recipe list --toml >> my-project.toml"))
def shipped(
    toml: Annotated[bool, typer.Option("--toml", help="As sections of a project file, to take over from.")] = False,
) -> None:
    """Say which SOP classes each shipped recipe is for, and behind which it stands."""
    from pipeline.deidentify import header
    from pipeline.deidentify.plan import RECIPES

    rows = []
    for path in sorted(p for p in RECIPES.iterdir() if p.suffix in (".dicom", ".toml")):
        names = header.of(path).sop_classes
        if names and toml:
            files = ", ".join(f'"{one.name}"' for one in header.with_behind([path]))
            print(f"[[deidentify.recipes]]\nfiles = [{files}]\nsop_classes = [")
            print("".join(f'  "{name}",\n' for name in names) + "]\n")
        elif names:
            rows.append((" + ".join(one.name for one in header.with_behind([path])), "\n".join(names)))
    if not toml:
        table("recipes", ("files", "for"), rows)

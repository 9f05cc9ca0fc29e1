"""`tre recipe test`: does the recipe do what it says, and would anybody notice if it did not?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.show import examples, facts, table
from pipeline.errors import RecipeFailed

if TYPE_CHECKING:
    from pipeline.trial import Verdict

EXAMPLES = examples(
    "tre recipe test",
    "tre recipe test deid_recipes/mammography.dicom",
    "tre recipe test deid_recipes/base.dicom my-project/own.dicom --people 20 --no-mutants",
)


def test(
    files: Annotated[list[Path] | None, typer.Argument(
        help="Files of one recipe set; those it stands behind come by themselves. None: every set that is shipped.",
        show_default=False)] = None,
    people: Annotated[int, typer.Option(min=1, max=1000, help="People in the answer key.")] = 8,
    keep_times: Annotated[bool, typer.Option("--keep-times", help="As in a project that keeps times, moved.")] = False,
    mutants: Annotated[bool, typer.Option(help="Also make the recipe worse, rule by rule.")] = True,
) -> None:
    """Run a recipe set on a synthetic answer key, then weaken it rule by rule: the key must notice each time.

    Planted is every attribute of PS3.15 Table E.1-1 and all that the recipe names, at the top and in sequences, with a
    value of its own for each person. What must become of it is asked in the ten actions of the MIDI-B challenge. An
    object that does not come out fails every one. The second look is off; what it would have stopped is told apart.

    Ends with 19 where an identifier is left, something claimed is lost, or a weakened recipe goes unnoticed.
    """
    from pipeline import trial

    sets = [files] if files else trial.shipped()
    verdicts = [trial.run(one, people=people, keep_times=keep_times, mutate=mutants) for one in sets]
    for verdict in verdicts:
        _show(verdict)
    if len(verdicts) > 1:
        _all(verdicts)
    bad = [verdict for verdict in verdicts if not verdict.passed]
    if bad:
        raise RecipeFailed(f"{len(bad)} of {len(verdicts)} recipe sets failed the test.",
                           hint="What is left, lost or unnoticed is named above, by attribute or by file and line.")


def _show(verdict: Verdict) -> None:
    from pipeline.synthetic.asked import ACTIONS

    table(" + ".join(verdict.files), ("action", "asked", "passed"),
          [(kind, f"{verdict.asked[kind]:,}", f"{verdict.asked[kind] - verdict.failed[kind]:,}")
           for kind in ACTIONS if verdict.asked[kind]], right=("asked", "passed"))
    lines = {
        "answer key": f"{verdict.people} people, {verdict.objects} objects, {verdict.asked.total():,} actions",
        "residual": f"{verdict.residual_per_1000:,.0f} identifiers per 1,000 patients",
        "utility kept": f"{100 * verdict.utility:.2f} % of what the recipe claims to keep",
        "weaker than PS3.15": f"{', '.join(verdict.weaker) or 'nothing'} (each with its reason beside the rule)"}
    if verdict.mutants:
        able = verdict.mutants - verdict.equals.total()
        lines |= {
            "mutants": f"{able - len(verdict.survivors):,} of {able:,} noticed: {verdict.by_residual:,} by a residual, "
                       f"{verdict.by_loss:,} by lost utility, {verdict.by_refusal:,} by no output",
            "second look": f"off here; it would have stopped {verdict.second_look:,} of the {verdict.by_residual:,} "
                           "weakened recipes that left a residual"}
        lines |= {f"equal by proof: {n}": reason for reason, n in sorted(verdict.equals.items())}
    facts(lines)
    for title, counts in (("left", verdict.residuals), ("lost", verdict.lost), ("no output", verdict.refused)):
        for name, n in sorted(counts.items()):
            print(f"  {title}: {name} ({n})")
    for where, what in verdict.survivors:
        print(f"  {where}: not noticed: {what}")
    print()


def _all(verdicts: list[Verdict]) -> None:
    table("All recipe sets", ("set", "residual per 1,000", "utility", "mutants", "not noticed"),
          [(" + ".join(v.files), f"{v.residual_per_1000:,.0f}", f"{100 * v.utility:.2f} %", f"{v.mutants:,}",
            len(v.survivors)) for v in verdicts], right=("residual per 1,000", "utility", "mutants", "not noticed"))

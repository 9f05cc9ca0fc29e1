"""`tre release assure`: how many leaks a release may hold, by people who look at drawn instances."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import examples, facts
from pipeline.errors import UsageError

EXAMPLES = examples(
    "tre release assure --bound 1000      how many to review, to show fewer than 1,000 per 100,000",
    "tre release assure URL --sample 300 --out review",
    "tre release assure URL --record review/verdicts.csv --project PROJECT.toml",
)


def assure(
    url: Annotated[str | None, typer.Argument(help="URL of a release.", show_default=False)] = None,
    sample: Annotated[int | None, typer.Option(min=1, metavar="N", help="Draw so many instances.")] = None,
    seed: Annotated[str | None, typer.Option(help="Of the draw: the same seed draws the same.",
                                             show_default="a new one")] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder, in the TRE.")] = Path("review"),
    record: Annotated[Path | None, typer.Option(metavar="FILE", help="A sheet of verdicts that is filled in.")] = None,
    project_file: Annotated[Path | None, typer.Option("--project", metavar="PROJECT.toml", help="Whose release it is: "
                                                      "the verdicts are recorded in its work zone.")] = None,
    bound: Annotated[float | None, typer.Option(min=0.001, max=99_999, metavar="X", help="Tell how many to review so "
                                                "that no leak found shows fewer than X per 100,000.")] = None,
) -> None:
    """Draw instances for review; record the verdicts; print the upper 95 % bound of leaks per 100,000.

    Drawing writes pages with every element and picture, and a sheet to fill
    in: clean or leak. Recording checks that every drawn instance has one
    verdict, enters them in the audit log, and prints the exact bound. Where a
    leak was found it writes a recall proposal for an officer.
    """
    from pipeline.publish import bound as room

    if bound is not None and not (sample or record):
        n = room.needed(bound / 100_000)
        print(f"To show fewer than {bound:,g} leaks per 100,000 instances (95 %), review {n:,} and find none.")
    elif url is None or (sample is None) == (record is None) or bound is not None:
        raise UsageError("Give a release, and --sample or --record; or --bound alone.")
    elif sample is not None:
        _draw(url, sample, seed, out)
    elif record is not None:
        _record(url, record, project_file)


def _draw(url: str, sample: int, seed: str | None, out: Path) -> None:
    from pipeline.publish import assure as room
    from pipeline.publish import bound

    drawn = room.draw(url, sample, seed)
    pages = room.write(url, drawn, out)
    facts({"release": drawn.release, "instances": drawn.population, "drawn": len(drawn.rows), "seed": drawn.seed,
           "pages": f"{pages[0]} and {len(pages) - 1} more" if len(pages) > 1 else str(pages[0]),
           "if none leaks": f"fewer than {100_000 * bound.upper(0, len(drawn.rows)):,.0f} per 100,000 (95 %)"})
    print(f"Fill in {out / room.SHEET}: clean or leak for each, and who looked. Then --record it.")


def _record(url: str, sheet: Path, project_file: Path | None) -> None:
    from pipeline import steps
    from pipeline.cli import project

    if project_file is None:
        raise UsageError("Recording needs --project: the verdicts stand in its work zone.")
    config = project.load(project_file)
    found = steps.record_assurance(config, url, str(sheet))
    facts({
        "release": found["release"],
        "instances": found["population"],
        "reviewed": f"{found['drawn']:,} by {', '.join(found['reviewers'])}",
        "leaks": found["leaks"],
        "estimate": f"{found['per_100000']:,} per 100,000",
        "upper 95 % bound": f"{found['upper_per_100000']:,} per 100,000 (exact binomial)",
        "in this release": f"at most {found['at_most']:,} instances, {found['at_most_per_100000']:,} per 100,000 "
                           "(95 %, exact for a finite release)",
        "verdicts SHA-256": found["digest"],
        "record": f"{config.zones.work}/{found['record']}/record.json",
    })
    if found["leaks"]:
        where = f"{config.zones.work}/{found['record']}/recall-proposal.txt"
        print(f"\nA leak was found. Stop: close access to the release, tell the data steward and the IG officer.\n"
              f"Proposed for recall: {found['proposed']:,} instances, all of the studies that leak: {where}\n"
              f"An officer decides; then, in the identifiable zone:\n"
              f"  tre recall {project_file} --instances FILE --reason identifier_found --approver NAME")

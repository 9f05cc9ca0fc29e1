"""`tre find` and `tre cohort`: ask a catalogue, and turn what was found into the ids of the source."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, facts, table
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.catalogue.find import By, Catalogue
    from pipeline.storage import ObjectStore

EXAMPLES = examples(
    "tre find \"Modality = 'MG' and CompressionForce > 150 and Manufacturer like 'HOLOGIC%'\" --release URL",
    "tre find \"StudyDate between '2019-01-01' and '2019-12-31' and not ImageLaterality is null\" --release URL",
    "tre find \"PatientAge >= 50 and ViewPosition in ('CC', 'MLO')\" --project PROJECT.toml     the newest candidate",
    "tre find \"OrganDose is null\" --release URL --by series --list     pseudonyms, nothing else",
    "tre find --columns --release URL     every element that there is, and how often",
)
ByOption = Annotated[str, typer.Option("--by", metavar="patient|study|series", help="What --list and --csv list.")]
_NOTE = "Rounded to {round_to}. What is of fewer than {fewest} people is not told."


def find(
    filter_: Annotated[
        str, typer.Argument(metavar="FILTER", help="Which images: see docs/catalogue.md.", show_default=False)
    ] = "",
    release: Annotated[
        str | None, typer.Option(metavar="URL", help="A release, or a project's current one.", show_default=False)
    ] = None,
    project_file: Annotated[
        Path | None, typer.Option("--project", metavar="PROJECT.toml", help="Its newest candidate.", show_default=False)
    ] = None,
    candidate: Annotated[
        str | None, typer.Option(metavar="ID", help="With --project: this candidate.", show_default=False)
    ] = None,
    columns: Annotated[bool, typer.Option("--columns", help="List the elements that a filter may name.")] = False,
    by: ByOption = "study",
    list_: Annotated[bool, typer.Option("--list", help="Print what is found, by pseudonym only.")] = False,
    csv_file: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write what is found there, by pseudonym only.")
    ] = None,
    round_to: Annotated[int, typer.Option(min=5, help="Round counts to this.")] = 5,
    fewest: Annotated[int, typer.Option(min=10, help="Do not tell counts of fewer people than this.")] = 10,
) -> None:
    """Count the people, studies, series and images that a filter finds, over a release or a candidate.

    A filter holds for an image where every part of it does: CompressionForce > 150 and ViewPosition = 'CC' is one view
    with that force. Counts are rounded, and small numbers are not told; both limits can be made stricter.
    """
    if by not in ("patient", "study", "series"):
        raise UsageError("--by is patient, study or series.")
    if columns == bool(filter_):
        raise UsageError("Give a filter, or --columns for what it may name.", hint="tre find --help has examples.")
    with _catalogue(release, project_file, candidate) as catalogue:
        if columns:
            _columns(catalogue, round_to, fewest)
        else:
            _find(catalogue, filter_, by, list_, csv_file, round_to, fewest)  # type: ignore[arg-type]


@contextmanager
def _catalogue(release: str | None, project_file: Path | None, candidate: str | None) -> Iterator[Catalogue]:
    from pipeline import layout, steps
    from pipeline.catalogue.find import opened
    from pipeline.storage import open_store

    if (release is None) == (project_file is None) or (candidate and release):
        raise UsageError("Say where: --release URL, or --project PROJECT.toml with or without --candidate ID.")
    store: ObjectStore
    if release is not None:
        from pipeline.publish.verify import locate

        store, name, one = locate(release)
        key = layout.in_release(name, one, layout.CATALOGUE)
    else:
        assert project_file is not None
        config = project.load(project_file)
        candidate = candidate or str(steps.newest_candidate(config)["candidate"])
        if not layout.ID.fullmatch(candidate):
            raise UsageError("Not the id of a candidate.", hint="See `tre status` for ids.")
        store, key = open_store(config.zones.candidate, "candidate"), layout.catalogue(config.name, candidate)
    with opened(store, key) as catalogue:
        yield catalogue


def _columns(catalogue: Catalogue, round_to: int, fewest: int) -> None:
    from pipeline.catalogue.elements import element
    from pipeline.catalogue.find import shown

    rows = []
    for path, (images, people) in sorted(catalogue.stated.items()):
        known = element(path)
        rows.append((path, known.tag, known.vr, known.name, shown(images, people, round_to=round_to, fewest=fewest)))
    table("Elements", ("name in a filter", "tag", "VR", "meaning", "images that state it"), rows,
          right=("images that state it",))
    print(_NOTE.format(round_to=round_to, fewest=fewest))


def _find(catalogue: Catalogue, text: str, by: By, list_: bool, csv_file: Path | None, round_to: int,
          fewest: int) -> None:
    from pipeline.catalogue.filter import FilterError
    from pipeline.catalogue.find import IDS, shown

    try:
        asked = catalogue.ask(text)
    except FilterError as error:
        _point(text, error.at)
        raise
    if list_:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(IDS[by])
        lines.writerows(catalogue.rows_of(asked, by))
        return
    found = catalogue.count(asked)

    def say(count: int, people: int = found.people) -> str:
        return shown(count, people, round_to=round_to, fewest=fewest)

    facts({"people": say(found.people), "studies": say(found.studies), "series": say(found.series),
           "images": say(found.images)})
    for path, (images, people) in found.unreadable.items():
        print(f"{path}: a value that cannot be read as its VR asks, and was passed over, in {say(images, people)} "
              "images")
    print(_NOTE.format(round_to=round_to, fewest=fewest))
    if csv_file is not None:
        rows = catalogue.rows_of(asked, by)
        try:
            descriptor = os.open(csv_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"The file for the result cannot be made ({error.strerror}).") from None
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            lines = csv.writer(stream, lineterminator="\n")
            lines.writerow(IDS[by])
            lines.writerows(rows)
        print(f"Written by pseudonym to {csv_file}.")


def _point(text: str, at: int) -> None:
    """Show the filter with a mark below where it fails, a line's width of it."""
    start = max(0, at - 60)
    line = "".join(c if c.isprintable() else " " for c in text[start:at + 40])
    print(f"  {line}\n  {' ' * (at - start)}^", file=sys.stderr)


# ---- the identifiable side ---------------------------------------------------------------------------------------
cohort = typer.Typer(no_args_is_help=True, help="From a result's pseudonyms to the source's ids. Identifiable zone.")


@cohort.command("resolve", epilog=examples(
    "tre cohort resolve found.csv --project PROJECT.toml --out cohort.csv --by NAME --reason \"dose audit, paper 12\"",
))  # fmt: skip
def resolve(
    result: Annotated[
        Path, typer.Argument(metavar="RESULT.csv", help="What `tre find --csv` wrote.", show_default=False)
    ],
    project_file: Annotated[
        Path, typer.Option("--project", metavar="PROJECT.toml", help="The project file.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="A new file in the identifiable zone.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why, and by which paper. No names of patients.", show_default=False)],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who asks.", show_default=False)],
    work: project.Work = None,
) -> None:
    """Turn a result into NHS numbers, issuers, local ids and Study Instance UIDs as they came.

    Whoever may not be used today (recalled, not permitted, not linked) is left out and counted. Nothing but counts is
    printed; the file is readable by its owner alone; the audit log has an entry of it.
    """
    from pipeline import steps

    done = steps.resolve_cohort(project.load(project_file, work=work), str(result), str(out), reason, by)
    facts({"asked for": done["asked"], "found": done["found"], "people": done["people"], "studies": done["studies"],
           **{f"studies left out: {code}": n for code, n in done["left_out"].items()}})
    print(f"Written to {out}. It names people: keep it in the identifiable zone, and delete it when it is used.")

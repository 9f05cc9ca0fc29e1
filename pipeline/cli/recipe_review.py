"""`tre recipe review`: what a recipe set does, as a page for those who answer for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.show import examples, facts
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.deidentify.review import Reviewed

EXAMPLES = examples(
    "tre recipe review deid_recipes/mammography.dicom --out review.html",
    "tre recipe review --project PROJECT.toml --out reviews      a page for each set that the project runs",
    "tre recipe review new/ct.dicom --against old/ct.dicom --out review.html",
    "tre recipe review deid_recipes/ct.dicom --candidate file:///srv/tre/candidate/study/candidates/c-1 --out r.html",
)


def review(
    out: Annotated[Path, typer.Option("--out", help="The page; with --project the folder of pages.")],
    files: Annotated[list[Path] | None, typer.Argument(
        help="The files of one recipe set. Those that one says it stands behind come by themselves.",
        show_default=False)] = None,
    project: Annotated[Path | None, typer.Option(
        "--project", metavar="PROJECT.toml", show_default=False,
        help="Instead of files: every set that this project runs, with its options.")] = None,
    against: Annotated[list[Path] | None, typer.Option(
        "--against", help="A file of the set as it was; may be repeated.", show_default=False)] = None,
    candidate: Annotated[str, typer.Option("--candidate", help="URL of a candidate's folder, or of a Parquet file of "
                                                               "facts: count the series that are touched.")] = "",
    keep_times: Annotated[bool, typer.Option("--keep-times", help="As in a project that keeps times, moved.")] = False,
) -> None:
    """Write one page in plain words: what happens to each attribute, what is weaker than the standard, what changes.

    For those who answer for a project's data, not for those who write recipes. Holds no value of any patient.
    """
    from pipeline.deidentify import review as room

    if project:
        if files or against or keep_times:
            raise UsageError("--project brings its own files and options.",
                             hint="To compare a set: tre recipe review FILES --against OLD FILES --out review.html")
        _project(project, out, candidate)
        return
    if not files:
        raise UsageError("Name the files of a recipe set, or --project PROJECT.toml.",
                         hint="tre recipe list shows the sets that are shipped.")
    new = room.review(files, keep_times=keep_times)
    _page(new, out, room.review(against, keep_times=keep_times) if against else None, candidate)


def _project(path: Path, folder: Path, candidate: str) -> None:
    from pipeline import config
    from pipeline.deidentify import review as room

    said = config.load(path)
    folder.mkdir(parents=True, exist_ok=True)
    for number, use in enumerate(said.deidentify.recipes, 1):
        new = room.review([said.recipe(name) for name in use.files], keep_times=said.deidentify.keep_times)
        if use.sop_classes:
            new = replace(new, sop_classes=tuple(use.sop_classes))
        _page(new, folder / f"{number}-{Path(use.files[-1]).stem}.html", None, candidate)


def _page(new: Reviewed, out: Path, old: Reviewed | None, candidate: str) -> None:
    from pipeline.deidentify import review as room
    from pipeline.deidentify import review_page

    changes = room.differences(new, old) if old else None
    touched: dict[str, list[tuple[str, str]]] | None = None
    kinds: list[tuple[str, str]] = []
    if candidate:
        names = [change.attribute for change in changes if change.attribute] if changes is not None else [
            line.attribute for line in new.lines if line.does != "removed"]
        touched, kinds = review_page.series(candidate, names)
    out.write_bytes(review_page.page(new, changes, old, touched, kinds))
    ways = [change.direction for change in changes or ()]
    facts({"page": out, "attributes that stay": sum(line.does != "removed" for line in new.lines),
           "weaker than PS3.15": sum(line.verdict == "weaker" for line in new.lines),
           **({"more exposed": ways.count("more"), "less exposed": ways.count("less"),
               "otherwise": ways.count("other")} if changes is not None else {})})

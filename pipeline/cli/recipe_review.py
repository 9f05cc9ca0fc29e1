"""`tre recipe review`: what a recipe set does, as a page for those who answer for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.show import examples, facts

EXAMPLES = examples(
    "tre recipe review deid_recipes/mammography.dicom --out review.html",
    "tre recipe review new/ct.dicom --against old/ct.dicom --out review.html",
    "tre recipe review deid_recipes/ct.dicom --candidate file:///srv/tre/candidate/study/candidates/c-1 --out r.html",
)


def review(
    files: Annotated[list[Path], typer.Argument(
        help="The files of one recipe set. Those that one says it stands behind come by themselves.",
        show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The page.")],
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
    from pipeline.deidentify import review_page

    new = room.review(files, keep_times=keep_times)
    old = room.review(against, keep_times=keep_times) if against else None
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

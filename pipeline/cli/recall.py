"""`tre recall`: take a person or single instances back, after publication or before. Runs in the identifiable zone."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import steps
from pipeline.cli import project
from pipeline.cli.show import examples, facts
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig

EXAMPLES = examples(
    "tre recall PROJECT.toml --person-file people.txt --reason withdrawn --approver NAME --dry-run",
    "tre recall PROJECT.toml --person-file - --reason withdrawn --approver NAME     (lines from standard input)",
    "tre recall PROJECT.toml --instances uids.txt --reason identifier_found --approver NAME",
    "tre recall PROJECT.toml --order x-…     carry an order on, or certify it after the next release",
)


def recall(
    project_file: project.ProjectFile,
    person: Annotated[
        list[str] | None,
        typer.Option(metavar="ISSUER:LOCALID", help="A person. Others here can see it: prefer --person-file."),
    ] = None,
    person_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="People, one a line: ISSUER:LOCALID, or an NHS number. - is standard input."),
    ] = None,
    instances: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Instances, one a line: SOP Instance UID, as landed or as released, or the "
                     "SHA-256 of the landed bytes. - is standard input."),
    ] = None,
    reason: Annotated[
        str, typer.Option(help="withdrawn, sent_in_error, wrong_person, identifier_found, not_permitted or other.")
    ] = "",
    approver: Annotated[str, typer.Option(metavar="NAME", help="The officer who approves it.")] = "",
    order: Annotated[
        str | None, typer.Option(metavar="ID", help="An order that stands: carry it on, certify it.")
    ] = None,
    order_only: Annotated[
        bool, typer.Option("--order-only", help="Write the order and stop: the recall DAG carries it out.")
    ] = False,
    landing: project.Landing = None,
    work: project.Work = None,
    candidate: project.Candidate = None,
    release: project.Release = None,
    dry_run: project.DryRun = False,
) -> None:
    """Take a person or instances back: out of the next release, and their images out of every release.

    Writes an order and tombstones, removes the images with all versions,
    builds a candidate without them, removes the older parts that held them,
    and certifies it. The next release is approved and published as always.
    After any stop, start it again.
    """
    config = project.load(project_file, landing=landing, work=work, candidate=candidate, release=release)
    if order is None:
        order = _order(config, person or [], person_file, instances, reason, approver, dry_run)
        if dry_run or order_only:
            return
    elif person or person_file or instances or dry_run:
        raise UsageError("--order carries on an order that stands, and takes nothing else.")
    _carry_out(config, order)


def _order(config: ProjectConfig, person: list[str], person_file: str | None, instances: str | None, reason: str,
           approver: str, dry_run: bool) -> str:
    if person:
        print("warning: --person is seen by whoever lists this machine's processes, and stays in the shell's history. "
              "Use --person-file.", file=sys.stderr)
    people = [*person, *_lines(person_file)]
    made = steps.order_recall(config, reason, approver, getpass.getuser(), people=people, instances=_lines(instances),
                              dry_run=dry_run)
    facts({
        "recall": made["recall"] + (" (ordered before)" if made["ordered_before"] else ""),
        "landed objects": made["landed"],
        "de-identified instances": made["instances"],
        "parts that hold them": made["parts"],
        "candidates that hold them": made["candidates"],
        "releases that hold them": made["releases"],
    })
    return str(made["recall"])


def _carry_out(config: ProjectConfig, order: str) -> None:
    from pipeline.cli.flow import build_all

    done = steps.recall(config, order)
    facts({"withdrawn": f"{done['instances']} instances; {done['objects']} objects"})
    built = build_all(config)
    found = steps.finish_recall(config, order)
    print()
    facts({
        "objects removed": f"{found['removed']['release']} in the release zone, "
                           f"{found['removed']['candidate']} in the candidate zone",
        "first release without": found["first_release_without"] or "none yet: approve and publish the candidate",
        "candidate": built["candidate"],
        "rows in older releases": sum(found["rows_in_older_releases"].values()),
        "certificate": f"{config.zones.work}/{config.name}/certificates/{order}.txt",
    })


def _lines(name: str | None) -> list[str]:
    from pipeline.deidentify.recall import lines_of

    if name is None:
        return []
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UsageError("A list for a recall cannot be read.", hint="Give a file of text in UTF-8, or -.") from None
    if not (found := lines_of(text)):
        raise UsageError("A list for a recall is empty.")
    return found

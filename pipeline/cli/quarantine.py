"""`tre quarantine`: what could not be de-identified safely, and what is done about it. Opaque ids, reasons and tags."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, facts, size, table

if TYPE_CHECKING:
    from pipeline.ledger.quarantine import Quarantined

app = typer.Typer(no_args_is_help=True, help="Work through what was quarantined.")
Digest = Annotated[str, typer.Argument(help="The object: the first digits of its SHA-256.", show_default=False)]


@app.command("list", epilog=examples("tre quarantine list PROJECT.toml", "tre quarantine list PROJECT.toml --all"))
def list_(
    project_file: project.ProjectFile,
    everything: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
) -> None:
    """List what the latest candidate holds in quarantine."""
    from pipeline.ledger import quarantine as room

    config = project.load(project_file)
    work, candidate, _ = project.reading(config)
    found = room.listed(config, work, candidate, include_closed=everything)
    rows = [
        (q.short, q.reason, _tag(q.tag), q.modality, size(q.bytes), "closed" if q.closed else "open") for q in found
    ]
    columns = ("object", "reason", "tag", "modality", "size", "state")
    table(f"Quarantine of {config.name}", columns, rows, right=("size",))
    print(f"{len(found):,} {'object' if len(found) == 1 else 'objects'}.")


@app.command("show", epilog=examples("tre quarantine show PROJECT.toml 3fa1c09b77d2"))
def show(project_file: project.ProjectFile, digest: Digest) -> None:
    """Tell what is known of one object: no value, no name."""
    from pipeline.ledger import quarantine as room

    config = project.load(project_file)
    work, candidate, _ = project.reading(config)
    _print(room.show(config, work, candidate, digest))


@app.command("close", epilog=examples('tre quarantine close PROJECT.toml 3fa1c09b77d2 --reason "scanned paper"'))
def close(
    project_file: project.ProjectFile,
    digest: Digest,
    reason: Annotated[str, typer.Option(help="Why nobody will work on it. No names of patients.", show_default=False)],
    who: Annotated[str, typer.Option(help="Who says so.", show_default="you")] = "",
) -> None:
    """Record that nobody will work on an object any more. The ledger still calls it quarantined."""
    from pipeline.ledger import quarantine as room

    config = project.load(project_file)
    work, candidate, _ = project.reading(config)
    _print(room.close(config, work, candidate, digest, reason, who or getpass.getuser()))


def _print(item: Quarantined) -> None:
    facts({
        "object": item.sha256,
        "reason": f"{item.reason}: {item.meaning}",
        "at tag": _tag(item.tag) or "the object as a whole",
        "batch": item.batch or "",
        "part": item.part,
        "SOP class": item.sop_class_uid or "",
        "transfer syntax": item.transfer_syntax_uid or "",
        "modality": item.modality or "",
        "size": size(item.bytes),
        "state": f"closed by {item.closed['who']}, {item.closed['when']}: {item.closed['reason']}"
        if item.closed
        else "open",
    })


def _tag(tag: str | None) -> str:
    """Return GGGGEEEE as DICOM writes a tag."""
    return f"({tag[:4]},{tag[4:]})" if tag and len(tag) == 8 else tag or ""

"""`tre quarantine`: what could not be de-identified safely, and what is done about it. Opaque ids, reasons and tags."""

from __future__ import annotations

import getpass
from collections import Counter
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
    work: project.Work = None,
    candidate: project.Candidate = None,
) -> None:
    """List what the latest candidate holds in quarantine."""
    from pipeline.ledger import quarantine as room

    config = project.load(project_file, work=work, candidate=candidate)
    store, candidates, _ = project.reading(config)
    found = room.listed(config, store, candidates, include_closed=everything)
    rows = [
        (q.short, q.reason, _tag(q.tag), q.modality, size(q.bytes), "closed" if q.closed else "open") for q in found
    ]
    columns = ("object", "reason", "tag", "modality", "size", "state")
    table(f"Quarantine of {config.name}", columns, rows, right=("size",))
    print(f"{len(found):,} {'object' if len(found) == 1 else 'objects'}.")
    for (reason, meaning), n in Counter((q.reason, q.meaning) for q in found).most_common():
        print(f"{n:,} {reason}: {meaning}")


@app.command("show", epilog=examples("tre quarantine show PROJECT.toml 3fa1c09b77d2"))
def show(
    project_file: project.ProjectFile, digest: Digest, work: project.Work = None, candidate: project.Candidate = None
) -> None:
    """Tell what is known of one object: no value, no name. Where text was found in its pixels: where it stands."""
    from pipeline.ledger import looks
    from pipeline.ledger import quarantine as room

    config = project.load(project_file, work=work, candidate=candidate)
    store, candidates, _ = project.reading(config)
    item = room.show(config, store, candidates, digest)
    _print(item)
    if boxes := looks.boxes(config, store, item.sha256, item.part):
        print("text stands at; a rule for pixels that paints it over, for a recipe's %filter section:")
        for box in boxes:
            print(f"coordinates {box}")


@app.command("close", epilog=examples('tre quarantine close PROJECT.toml 3fa1c09b77d2 --reason "scanned paper"'))
def close(
    project_file: project.ProjectFile,
    digest: Digest,
    reason: Annotated[str, typer.Option(help="Why nobody will work on it. No names of patients.", show_default=False)],
    who: Annotated[str, typer.Option(help="Who says so.", show_default="you")] = "",
    work: project.Work = None,
    candidate: project.Candidate = None,
) -> None:
    """Record that nobody will work on an object any more. The ledger still calls it quarantined.

    The audit log has an entry of it.
    """
    from pipeline import steps
    from pipeline.ledger import quarantine as room

    config = project.load(project_file, work=work, candidate=candidate)
    store, candidates, _ = project.reading(config)
    steps.close(config, digest, reason, who or getpass.getuser())
    _print(room.show(config, store, candidates, digest))


@app.command("retry", epilog=examples("tre quarantine retry PROJECT.toml 3fa1c09b77d2"))
def retry(
    project_file: project.ProjectFile, digest: Digest, work: project.Work = None, candidate: project.Candidate = None
) -> None:
    """De-identify the object's shard again, if its recipe, key or person has changed since, or if its reason may pass.

    Where the object would end as before, it says so.
    """
    from pipeline import layout, steps
    from pipeline.ledger import quarantine as room
    from pipeline.model import TRANSIENT, Reason
    from pipeline.stage.batches import read_shard
    from pipeline.storage import tables

    config = project.load(project_file, work=work, candidate=candidate)
    store, candidates, _ = project.reading(config)
    item = room.show(config, store, candidates, digest)
    sha256 = bytes.fromhex(item.sha256)
    if Reason(item.reason) in TRANSIENT:
        steps.retry(config, item.sha256)
    for one in steps.pending_shards(config):
        shard = read_shard(store, config.name, one["batch"], one["shard"])
        if sha256 not in shard["source_sha256"].to_pylist():
            continue
        part = steps.deidentify(config, one["batch"], one["shard"])["part"]
        for row in tables.read(store, layout.outcomes(config.name, part)).to_pylist():
            if row["source_sha256"] == sha256:
                print(f"{item.short}: {row['status']} {row['reason'] or ''}".rstrip())
        print("tre build makes a candidate with it.")
        return
    print("Recipes, key and person are those that quarantined it, so it would end as before. Mend the cause first.")


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

"""`tre audit-log`: read the log of what was done, and check that nobody has touched it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pipeline.cli import project
from pipeline.cli.show import examples, facts, table
from pipeline.errors import AuditLogBroken, NotFound, TreError

app = typer.Typer(no_args_is_help=True, help="Who did what, when and why. Stands in the identifiable zone.")


@app.command("show", epilog=examples("tre audit-log show PROJECT.toml", "tre audit-log show PROJECT.toml --last 20"))
def show(
    project_file: project.ProjectFile,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many.", show_default=False)] = None,
    work: project.Work = None,
) -> None:
    """List the entries, oldest first, and the digest of the newest. No entry tells of a patient."""
    from pipeline.govern import audit_log
    from pipeline.storage import open_store

    config = project.load(project_file, work=work)
    store = open_store(config.zones.work, "work")
    try:
        entries = list(audit_log.entries(store, config.name))
    except ValueError:
        raise AuditLogBroken("An entry of the audit log cannot be read.", hint="tre audit-log verify names it.") \
            from None
    rows = [(e.sequence, e.time, e.who, e.what, e.state if e.of is None else f"{e.state} ({e.of})",
             " ".join(f"{k}={v[:26]}" for k, v in e.ids.items()), " ".join(f"{k}={v}" for k, v in e.counts.items()),
             e.reason) for e in entries[-(last or len(entries)):]]
    table(f"Audit log of {config.name}", ("entry", "time", "who", "what", "state", "ids", "counts", "reason"), rows,
          right=("entry",))
    if entries:
        print(f"Head {entries[-1].sha256}")


@app.command("verify", epilog=examples(
    "tre audit-log verify PROJECT.toml",
    "tre audit-log verify PROJECT.toml --head DIGEST     is the chain still the one whose head was noted?",
))  # fmt: skip
def verify(
    project_file: project.ProjectFile,
    head: Annotated[str | None, typer.Option(metavar="DIGEST", help="A head that was noted earlier.")] = None,
    work: project.Work = None,
    release: project.Release = None,
) -> None:
    """Follow the chain and name the entry that was changed, taken out or moved. Ends with 63 where there is one.

    Each release keeps the head that the log had when it was published, and
    is asked for it. That entries since then were cut off shows only by a
    head that is kept elsewhere: note the one printed here.
    """
    from pipeline.govern import audit_log
    from pipeline.storage import open_store

    config = project.load(project_file, work=work, release=release)
    try:
        released = audit_log.released_heads(open_store(config.zones.release, "release", create=False), config.name)
    except NotFound:        # nothing was ever published
        released = {}
    except TreError as error:
        released = {}
        print(f"warning: the heads that releases keep were not compared: {error}", file=sys.stderr)
    found = audit_log.verify(open_store(config.zones.work, "work"), config.name, head, released)
    facts({"entries": found.entries, "heads kept by releases": len(released),
           "begun and not ended": ", ".join(map(str, found.open)) or "none", "head": found.head})
    if found.wrong:
        raise AuditLogBroken(f"The audit log was touched: {'; '.join(found.wrong[:20])}.",
                             hint="Keep the zone as it is; tell the IG officer.")
    print("Every entry follows from the one before. Keep the head elsewhere: without it nobody can tell a cut end."
          if head is None else "Every entry follows from the one before, and the head that was kept is among them.")

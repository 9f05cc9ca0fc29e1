"""`tre status`: where a project stands, and what waits for whom. Reads only."""

from __future__ import annotations

from pipeline.cli import project
from pipeline.cli.show import examples, facts
from pipeline.errors import TreError

EXAMPLES = examples("tre status PROJECT.toml")


def status(
    project_file: project.ProjectFile,
    work: project.Work = None,
    candidate: project.Candidate = None,
    release: project.Release = None,
) -> None:
    """Tell where a project stands: batches, shards to do, quarantine, newest candidate and its approval, releases."""
    from pipeline import layout, steps
    from pipeline.ledger import quarantine, sources
    from pipeline.stage import batches

    config = project.load(project_file, work=work, candidate=candidate, release=release)
    works, candidates, releases = project.reading(config)
    committed = batches.committed(works, config.name)
    latest = sources.read_json(candidates, layout.latest_candidate(config.name))
    newest = latest["candidate"] if latest else None
    answer = sources.read_json(candidates, layout.approval(config.name, newest)) if newest else None
    published = sources.releases(releases, config.name)
    current = next((r.id for r in reversed(published) if r.standing == "published"), None)
    open_items = quarantine.listed(config, works, candidates)
    try:
        pending: object = len(steps.pending_shards(config))
    except TreError as error:  # who may look need not hold the key
        pending = f"not known: {error.code}"
    facts({
        "project": f"{config.name}: {config.project.title}" + (" (demo)" if config.project.demo else ""),
        "batches": len(committed),
        "shards staged": sum(len(batches.shards(works, config.name, b)) for b in committed),
        "shards to de-identify": pending,
        "in quarantine, open": len(open_items),
        "newest candidate": newest or "none",
        "its approval": _answer(answer) if newest else "",
        "releases": len(published),
        "current release": current or "none",
        "its URL": f"{config.zones.release}/{config.name}/releases/{current}" if current else "",
    })


def _answer(doc: dict[str, object] | None) -> str:
    return f"{doc['decision']} by {doc['approver']}, {doc['when']}" if doc else "nobody has answered"

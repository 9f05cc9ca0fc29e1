"""Which candidate a ledger speaks of, and the small files that say what became of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline import layout
from pipeline.errors import NotFound, SchemaTooNew, UsageError
from pipeline.model import Status
from pipeline.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Release:
    """A release that researchers have been given. `standing`: published (the current one) or superseded."""

    id: str
    sequence: int
    candidate: str
    images_key: str
    standing: str


@dataclass(frozen=True, slots=True)
class Subject:
    """One candidate (None: no candidate was ever built), its inputs, and the release that published it, if any."""

    candidate: str | None
    parts: tuple[str, ...] = ()
    held: tuple[tuple[str, str], ...] = ()
    release: Release | None = None


def read_json(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """Return a small document, or None where it is not there. Raises SchemaTooNew."""
    try:
        doc = json.loads(store.read(key))
    except NotFound:
        return None
    if int(doc.get("schema_version", 0)) > layout.SCHEMA_VERSION:
        raise SchemaTooNew("A document was written by a newer version.", hint="Upgrade tre-ingest.")
    return dict(doc)


def releases(store: ObjectStore, project: str) -> list[Release]:
    """Return the project's releases in sequence, up to the one that current.json names.

    A manifest beyond that is of a publisher that was killed: nobody has been given that release.
    """
    current = read_json(store, layout.current(project)) or {"release": None, "sequence": 0}
    found = []
    for name, key in _marked(store, layout.releases(project), layout.release_manifest("", "")):
        doc = read_json(store, key)
        if doc and doc["sequence"] <= current["sequence"]:
            standing = Status.PUBLISHED if name == current["release"] else Status.SUPERSEDED
            images = layout.in_release(project, name, doc["images"]["table"])
            found.append(Release(name, doc["sequence"], doc["candidate"], images, standing.value))
    return sorted(found, key=lambda r: r.sequence)


def inventories(work: ObjectStore, project: str) -> list[tuple[str, str]]:
    """Return (batch, key) of each committed batch's inventory."""
    return _marked(work, layout.batches(project), layout.inventory("", ""))


def missing(work: ObjectStore, project: str) -> Iterator[str]:
    """Yield the keys of the tables of what PACS owes: asked for, not sent."""
    for retrieval in sorted({entry.key.removeprefix(layout.retrievals(project)).split("/")[0]
                             for entry in work.list(layout.retrievals(project))}):
        yield from (entry.key for entry in work.list(layout.retrieval_missing(project, retrieval)))


def known_candidates(work: ObjectStore, project: str) -> list[str]:
    return [name for name, _ in _marked(work, layout.candidates(project), layout.candidate_inputs("", ""))]


def known_parts(work: ObjectStore, project: str) -> list[str]:
    return [name for name, _ in _marked(work, layout.parts(project), layout.outcomes("", ""))]


def _marked(store: ObjectStore, prefix: str, example: str) -> list[tuple[str, str]]:
    """Return (name, key of the marker) of each directory below `prefix` that holds the marker `example` ends with."""
    marker = example.rpartition("/")[2]
    keys = (entry.key for entry in store.list(prefix))
    return [(key.removeprefix(prefix).split("/")[0], key) for key in keys
            if key.removeprefix(prefix).split("/")[1:] == [marker]]


def default_candidate(candidate: ObjectStore, project: str, published: list[Release]) -> str | None:
    """Return the current release's candidate, else the latest candidate, else None."""
    for release in published:
        if release.standing == Status.PUBLISHED:
            return release.candidate
    latest = read_json(candidate, layout.latest_candidate(project))
    return str(latest["candidate"]) if latest else None


def subject(work: ObjectStore, candidate: ObjectStore, release: ObjectStore, project: str, *,
            release_id: str | None = None, candidate_id: str | None = None) -> Subject:
    """Return the candidate asked for, else the default. Raises NotFound, UsageError (the two ids disagree)."""
    published = releases(release, project)
    wanted: Release | None = None
    if release_id:
        wanted = next((r for r in published if r.id == release_id), None)
        if wanted is None:
            raise NotFound("No release of this project has that id.", hint="See `tre status`.")
        if candidate_id not in (None, wanted.candidate):
            raise UsageError("That release did not publish that candidate.", hint="Give one of the two.")
        candidate_id = wanted.candidate
    candidate_id = candidate_id or default_candidate(candidate, project, published)
    if candidate_id is None:
        return Subject(None)
    given = [r for r in published if r.candidate == candidate_id]
    wanted = wanted or next((r for r in given if r.standing == Status.PUBLISHED), given[-1] if given else None)
    inputs = read_json(work, layout.candidate_inputs(project, candidate_id))
    if inputs is None:
        raise NotFound("The inputs of that candidate are not in the work zone.", hint="See `tre status` for ids.")
    return Subject(candidate_id, tuple(inputs["parts"]), tuple(sorted(inputs["held"].items())), wanted)

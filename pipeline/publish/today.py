"""Is what was approved still what the project would build, of people who may still be used? Asked before a publisher is
started, without the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from pipeline import layout
from pipeline.errors import NotFound, PublishRefused
from pipeline.publish.files import read_json, sha256, stored
from pipeline.storage import ObjectStore, tables

_REBUILD = "Build a new candidate."


def check(
    candidate: ObjectStore,
    project: str,
    candidate_id: str,
    *,
    plan: str,
    recipes: Sequence[Mapping[str, Any]],
    engine: str,
    meaning: str,
    suites: Mapping[str, str],
) -> None:
    """Refuse a candidate that today's recipes, suites or project file would not have made.

    Given are today's: the plan's id, its recipes (each with its digest), the engine's version, the digest of the
    project file's meaning, and the digest of each suite. They are compared with plan.json, whose own digest
    candidate.json holds and the publisher checks. Raises PublishRefused naming what changed, NotFound where there is no
    such candidate.
    """
    try:
        _, made = read_json(candidate, layout.plan(project, candidate_id), "The candidate's plan")
        was = dict(made.get("suites") or {})
        digests = [recipe["digest"] for recipe in made.get("recipes") or ()]
    except NotFound:
        raise NotFound("There is no such candidate.", hint="See `tre status`.") from None
    except (ValueError, TypeError, LookupError):
        raise PublishRefused("The candidate's plan is not the one that was approved.",
                             hint=_REBUILD) from None
    changed = ["the engine"] if made.get("engine") != engine else []
    if digests != [recipe["digest"] for recipe in recipes]:
        changed.append("a recipe")
    changed += [f"suite {name}" for name in sorted(was.keys() | suites.keys()) if was.get(name) != suites.get(name)]
    if made.get("meaning") != meaning:
        changed.append("the project file")
    if made.get("plan") != plan and not changed:
        changed.append("the plan")
    if changed:
        raise PublishRefused(f"Changed since this candidate was built: {', '.join(changed)}.",
                             hint=_REBUILD)


def people(candidate: ObjectStore, project: str, candidate_id: str, *, permitted: Callable[[], AbstractSet[str] | None],
           recalled: AbstractSet[str], instances: AbstractSet[str]) -> None:
    """Refuse a candidate with rows of people who may no longer be used, or of what an order has recalled.

    Between a build and its publication days pass: people withdraw, and a recall order stands before its tombstones do.
    `permitted`: gives today's pseudonyms, or None where the project needs no list. `recalled`, `instances`: pseudonyms
    and output SOP Instance UIDs of all orders. Raises PublishRefused, NotFound where there is no such candidate.
    """
    try:
        _, sealed = read_json(candidate, layout.candidate_manifest(project, candidate_id), "The candidate's manifest")
        listed = {file["name"]: file["sha256"] for file in sealed["files"]}
        digests = {name: listed[f"tables/{name}.parquet"] for name in sealed["totals"]}
    except (ValueError, TypeError, LookupError):
        raise PublishRefused("The candidate's manifest is not the one that was approved.", hint=_REBUILD) from None
    found: set[str] = set()
    for name, digest in digests.items():
        data = stored(candidate, layout.table(project, candidate_id, name)) or b""
        if sha256(data) != digest:
            raise PublishRefused(f"The candidate's tables/{name}.parquet is not what was approved.", hint=_REBUILD)
        table = tables.from_bytes(data, ["patient_id", "sop_instance_uid"])
        if "patient_id" in table.column_names:
            found.update(person for person in table["patient_id"].unique().to_pylist() if person)
        if instances and "sop_instance_uid" in table.column_names \
                and not instances.isdisjoint(table["sop_instance_uid"].unique().to_pylist()):
            raise PublishRefused("This candidate has images that were recalled.", hint=_REBUILD)
    if not recalled.isdisjoint(found):
        raise PublishRefused("This candidate has rows of people who were recalled.", hint=_REBUILD)
    if found and (may := permitted()) is not None and (gone := len(found - may)):
        raise PublishRefused(f"{gone} people of this candidate may no longer be used.",
                             hint="They left the list of permitted people since it was built. Build a new candidate.")

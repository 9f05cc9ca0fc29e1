"""Is what was approved still what the project would build? Compared before a publisher is started, without the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import layout
from pipeline.errors import NotFound, PublishRefused
from pipeline.publish.files import read_json
from pipeline.storage import ObjectStore


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
                             hint="Build a new candidate.") from None
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
                             hint="Build a new candidate.")

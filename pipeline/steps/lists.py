"""What is looked up on the identifiable side and written down for people: cohorts, terms, the ledger in counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.audited import audited
from pipeline.errors import UsageError
from pipeline.side import Identifiable, Project, Result, approved, config_of, zone


@audited("cohort")
def resolve_cohort(project: Project, result: str, out: str, reason: str, by: str) -> Result:
    """Turn a result (a CSV of pseudonyms) into the source's ids, in a new file `out` of the identifiable zone.

    Result: digest (of the result's bytes), asked, found, people, studies, left_out (studies by reason). `out` is
    readable by its owner alone. Raises UsageError (see catalogue.cohort), PeopleListRefused, CrosswalkRefused, and
    FilesNotApproved: the project file says who may be found again.
    """
    from pipeline.catalogue import cohort as room
    from pipeline.stage import batches

    side = approved(project)
    path, asked = room.place(side.config, Path(out)), room.read_result(Path(result))

    def decide(row: Any) -> tuple[str | None, str | None]:
        decided = side.decide(row)
        nhs = decided.person and decided.person[0] == layout.NHS_ISSUER and decided.person[1]
        return decided.reason and str(decided.reason), nhs or None

    inventories = [layout.inventory(side.config.name, b) for b in batches.committed(side.work, side.config.name)]
    made = room.resolve(side.work, side.config, asked, side.parts_done(), inventories, decide)
    room.write(path, made)
    return {"digest": asked.sha256, "asked": len(asked.values), "found": made.found, "people": made.people,
            "studies": len(made.rows), "left_out": dict(sorted(made.left_out.items()))}


@audited("terms_propose")
def propose_terms(project: Project, out: str, *, attributes: Sequence[str] = (), people: int | None = None) -> Result:
    """Write, into a new file `out` of the identifiable zone, the terms of free text that may be approved.

    `people`: who must have a term; at least what the project file says. Result: proposed, already_approved, series,
    unreadable, and by attribute rare, looks_like_identifier, empty. Raises UsageError, TermsRefused.
    """
    from pipeline.catalogue import cohort
    from pipeline.deidentify import propose as room
    from pipeline.stage import batches

    side = Identifiable(project)
    config, name = side.config, side.config.name
    least = max(people or 0, config.deidentify.terms_people)
    if people and people < least:
        raise UsageError(f"The project file asks for {least} people behind a term.", hint="Give -k no smaller number.")
    path, tags = cohort.place(config, Path(out), "proposal"), room.tags_of(side.plans, attributes)
    shards = (side.decided(batch, number) for batch in batches.committed(side.work, name)
              for number in batches.shards(side.work, name, batch))
    found = room.propose(side.landing, shards, tags, side.terms, least)
    room.write(path, found)
    old = sum(1 for term in found.terms if term.approver)
    return {"proposed": len(found.terms) - old, "already_approved": old, "series": found.series,
            "unreadable": found.unreadable, "least": least, "rare": dict(found.rare),
            "looks_like_identifier": dict(found.refused), "empty": dict(found.empty), "attributes": list(tags.values())}


def ledger_summary(project: Project, *, release: str | None = None) -> Result:
    """Return the ledger's totals by status and reason, and whether its identity holds."""
    from pipeline.ledger.ledger import summary

    config = config_of(project)
    found = summary(config, zone(config, "work"), zone(config, "candidate"), zone(config, "release"),
                    release_id=release)
    return {"candidate": found.candidate, "release": found.release, "objects": found.objects, "counts": found.counts,
            "holds": found.holds, "findings": found.findings}

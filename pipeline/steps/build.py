"""A candidate: clinical tables, parts put together, tables, checks, the seal."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.audited import audited
from pipeline.config import ProjectConfig
from pipeline.errors import CandidateFailed, PartsMissing
from pipeline.side import Project, Result, approved, curated_of, plan_of, suites_of, zone


def clinical(project: Project) -> Result:
    """Pseudonymise the clinical tables into one snapshot. Result: clinical (its id), rows and counts by table."""
    from pipeline.storage import tables

    side = approved(project)
    snapshot = side.clinical_snapshot
    if snapshot.id:
        for name, table in snapshot.tables.items():
            tables.write(side.candidate, layout.clinical(side.config.name, snapshot.id, name), table)
        tables.write(side.work, layout.clinical_outcomes(side.config.name, snapshot.id), snapshot.outcomes)
    return {"clinical": snapshot.id, "rows": {name: table.num_rows for name, table in snapshot.tables.items()},
            "counts": snapshot.counts}


@audited("build")
def assemble(project: Project) -> Result:
    """Put the parts and the clinical snapshot of today together. Result: candidate, parts, counts, output (rows of the
    physicist's table that are used, and those left out by reason), output_refused (the first 20: line, reason).

    Raises PartsMissing where a shard has no part yet, CrosswalkRefused where a known person would become another,
    DosimetryRefused where the physicist's tables cannot be used.
    """
    from pipeline.deidentify import assemble as room
    from pipeline.deidentify import canary as canaries
    from pipeline.stage import batches

    side = approved(project)
    config, name = side.config, side.config.name
    wanted = list(side.wanted())
    parts = [w.part for w in wanted]
    lacking = set(parts) - side.parts_done()
    if lacking:
        raise PartsMissing(f"{len(lacking)} shards have no part yet.", hint="De-identify them first.")
    side.guard(wanted, remember=True)
    clinical(side.config)
    snapshot = side.clinical_snapshot
    suites = side.suites()
    digests = [side.crosswalk.digest, side.permitted.digest, *(f"{k}={v}" for k, v in sorted(suites.items())),
               side.schemas_digest(), side.output.digest, side.factors.digest if side.factors else ""]
    identity = room.candidate_id(side.pseudonyms, config, parts, snapshot.id, digests)
    inventories = [layout.inventory(name, batch) for batch in batches.committed(side.work, name)]
    counts, held = room.survey(side.work, name, inventories, parts)
    canaries.absent(side.work, [layout.outcomes(name, part) for part in sorted(set(parts))], side.sentinels)
    about = {"plan": side.plans.id, "canaries": side.sentinels.marks, "engine": side.engine_version(),
             "recipes": list(side.plans.described),
             "method_codes": sorted({code[0] for plan in side.plans.plans.values() for code in plan.codes}),
             "short_names": room.short_names(side.work, name, parts), "emptied": room.emptied(side.work, name, parts),
             "suites": suites, "meaning": side.meaning(), "output_counts": side.output.counts,
             "factors": side.factors.name if side.factors else None}
    room.write(side.work, side.candidate, config, identity, parts=parts, counts=counts, held=held, clinical=snapshot,
               about=about, equipment=side.equipment(wanted), refused=side.output.refused)
    return {"candidate": identity, "parts": len(parts), "counts": counts, **side.approved_as,
            "output": side.output.counts, "output_refused": [list(row) for row in side.output.refused[:20]]}


def curate(project: Project, candidate: str) -> Result:
    """Build the candidate's tables from its parts' facts. Result: candidate, rows by table."""
    from pipeline.curate.build import build

    config = approved(project).config
    store = zone(config, "candidate")
    made = build(store, config.name, plan_of(store, config, candidate))
    for name in made:
        made.put(store, name, layout.curated(config.name, candidate, name))
    store.settle()
    return {"candidate": candidate, "rows": {name: made.rows(name) for name in made},
            "malformed": sum(made.malformed.values()), "contradictions": sum(made.contradictions.values())}


def validate(project: Project, candidate: str) -> Result:
    """Check the tables, withhold what fails, and seal the candidate. Result: candidate, digest, expectations, withheld.

    Raises CandidateFailed where a critical expectation fails: results are written, the candidate is not sealed.
    """
    from pipeline.catalogue.build import write as catalogue
    from pipeline.curate.build import build, images
    from pipeline.publish.candidate import seal
    from pipeline.schemas import IMAGES
    from pipeline.storage import tables
    from pipeline.storage.base import no_room
    from pipeline.validate.run import settle

    config = approved(project).config
    store = zone(config, "candidate")
    plan = plan_of(store, config, candidate)
    made: Any = tables.Stored(store, {name: layout.curated(config.name, candidate, name)
                                      for name in curated_of(store, config, candidate)})

    def rebuild(withheld: Any, dropped: Any) -> dict[str, Any]:
        nonlocal made
        made = build(store, config.name, plan, without=withheld, dropped=dropped)
        return {name: made.path(name) for name in made}

    with made.fetched() as files:
        found = settle(files, suites_of(config), config.validate_.small_groups, rebuild, plan["suites"])
    if found.critical:
        for name, result in found.results.items():
            store.write(layout.validation(config.name, candidate, name), json.dumps(result, sort_keys=True).encode())
        raise CandidateFailed(f"{len(found.critical)} critical expectations failed: {', '.join(found.critical[:5])}.",
                              hint="Read the candidate's validation results, mend the data or the suite, build again.")
    withheld = {**plan["held"], **found.withheld}
    shown = images(store, config.name, plan, without=found.withheld)
    with tempfile.TemporaryDirectory() as folder, no_room("temporary"), made.fetched() as files:
        file = Path(folder) / layout.CATALOGUE
        listed = catalogue(store, config.name, plan["parts"], withheld, file)
        digest = seal(store, config.name, candidate, tables=files, results=found.results, plan=plan,
                      images=shown.path(IMAGES.name), withheld=withheld,
                      catalogue=(file, listed.entry), audits=_audits(config, files, candidate),
                      audit_defaults={"minimum_people": config.audit.minimum,
                                      "outcome": config.audit.outcome and config.audit.outcome.model_dump()})
    return {"candidate": candidate, "digest": digest, "expectations": found.expectations, "failed": found.failed,
            "withheld": len(found.withheld)}


def _audits(config: ProjectConfig, tables: Mapping[str, Path], candidate: str) -> Any:
    """Return the audits that the project publishes with these tables, by name."""
    from pipeline.audit.run import for_release

    if not config.audit.publish:
        return {}
    about = {"title": config.project.title, "project": config.name, "what": "candidate", "id": candidate,
             "demo": config.project.demo}
    outcome = config.audit.outcome
    return for_release(config.audit.publish, tables, about, minimum=config.audit.minimum,
                       outcome=outcome.model_dump() if outcome else None)

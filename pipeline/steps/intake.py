"""Images in: asked of PACS, staged, de-identified, and worked through where they are quarantined."""

from __future__ import annotations

import json
from dataclasses import asdict

from pipeline import layout
from pipeline.audited import audited
from pipeline.side import Identifiable, Project, Result, approved, config_of, zone


def stage(project: Project, *, dry_run: bool = False) -> Result:
    """Freeze what has landed into a batch. Result: batch (None where nothing is new), counts, shards, arriving."""
    from pipeline.stage.run import stage as run

    side = approved(project)
    result = run(side.config, side.landing, side.work, eligible=lambda row: side.decide(row).reason, dry_run=dry_run)
    return {**asdict(result), "dry_run": dry_run}


def ask_pacs(project: Project, *, cohort: str | None = None, study_date: str | None = None, attempt: int = 0,
             wait: bool = False) -> Result:
    """Write down what PACS owes of a cohort file, or of one study date (YYYY-MM-DD) with the project's modality.

    Result: retrieval (its id), rows, refused (line, reason), studies, instances, left_out; or wait_seconds and why, in
    quiet hours (`wait`: they are waited for here). The same again is not asked again, but with another `attempt`.
    Raises CohortRefused, PacsUnreachable, PacsRefused.
    """
    from pipeline.govern.sop_classes import resolve
    from pipeline.retrieve import run

    side = approved(project)
    return run.find(side.config, side.work, side.asked(cohort, study_date), local_ids=side.local_ids,
                    classes=lambda names: resolve(names, side.config.path), held=side.held, attempt=attempt, wait=wait)


def retrieve(project: Project, retrieval: str, *, group: int = 0, groups: int = 1, again: bool = False) -> Result:
    """Fetch into landing what PACS owes, as much of it as kindness allows now. Result: ended (studies by state), left,
    wait_seconds and why. Raises NotFound, PacsUnreachable, PacsRefused."""
    from pipeline.retrieve import run

    side = approved(project)
    return run.get(side.config, side.landing_made, side.work, retrieval, group=group, groups=groups, again=again)


def reconcile(project: Project, retrieval: str) -> Result:
    """Hold what PACS owes against what landed. Result: studies by state, owed, landed, missing, what was kept out, and
    how many rows the cohort file for another run has."""
    from pipeline.retrieve import run

    config = config_of(project)
    return run.reconcile(config, zone(config, "work"), retrieval)


def pending_shards(project: Project) -> list[Result]:
    """Return the shards that have no part under today's recipes, key, people and project file: batch, shard, part.

    Raises CrosswalkRefused where a known person would become another.
    """
    side = approved(project)
    done, wanted = side.parts_done(), list(side.wanted())
    side.guard(wanted, remember=False)
    return [{"batch": w.batch, "shard": w.shard, "part": w.part} for w in wanted if w.part not in done]


def deidentify(project: Project, batch: str, shard: int) -> Result:
    """De-identify one shard into its part. Result: part, counts by `status` or `status/reason`."""
    from pipeline.deidentify.shard import Job, run
    from pipeline.isolate import Limits

    side = approved(project)
    decided = side.decided(batch, shard)
    part = side.part(decided)
    if side.work.stat(layout.outcomes(side.config.name, part)) is not None:
        return {"part": part, "counts": {}, "done_before": True}
    limits = Limits.of(side.config.deidentify.limit_seconds, side.config.deidentify.limit_bytes)
    job = Job(side.config.name, side.landing, side.candidate, side.plans, side.pseudonyms,
              side.config.deidentify.date_shift_days, side.known_identifiers(decided),
              side.config.deidentify.residual_exceptions, limits=limits)
    return {"part": part, "counts": run(job, side.work, part, decided), "done_before": False}


@audited("quarantine_retry")
def retry(project: Project, source_sha256: str) -> Result:
    """Have a quarantined object (its digest in hex) tried again: its shard gets a new part. Result: attempt.

    Parts are immutable, so the attempt is part of the new part's id.
    """
    side = Identifiable(project)
    attempt = side.retries.get(source_sha256, 0) + 1
    doc = json.dumps({"schema_version": layout.SCHEMA_VERSION, "attempt": attempt}).encode()
    side.work.write(layout.retries(side.config.name, source_sha256), doc)
    return {"attempt": attempt}


@audited("quarantine_close")
def close(project: Project, digest: str, reason: str, who: str) -> Result:
    """Record that nobody will work on a quarantined object any more. Result: object (SHA-256 of its bytes, hex)."""
    from pipeline.ledger import quarantine as room

    config = config_of(project)
    found = room.close(config, zone(config, "work"), zone(config, "candidate"), digest, reason, who)
    return {"object": found.sha256}

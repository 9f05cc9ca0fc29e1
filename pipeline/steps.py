"""The verbs that change state. Each takes a project file (or its config) and ids, and returns ids and counts, no value.

DAGs and the command line call the same functions. Every one is idempotent, writes under names derived from its inputs
with its commit marker last, and computes what there is to do as a set difference over the zones. No room is loaded
before its step runs. Whatever stages, de-identifies, builds or publishes begins with `approved`: it refuses a project
of which a recipe, a suite or the file itself has no officer's signature. A recall is never held up by that.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline import layout
from pipeline.audited import audited
from pipeline.config import ProjectConfig
from pipeline.errors import CandidateFailed, PartsMissing, UsageError
from pipeline.side import (
    Identifiable,
    Project,
    account,
    approved,
    config_of,
    curated_of,
    current_release,
    plan_of,
    signed,
    suites_of,
    zone,
)

Result = dict[str, Any]


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
    return run.find(side.config, side.work, side.asked(cohort, study_date), local_ids=side.local_ids, classes=resolve,
                    held=side.held, attempt=attempt, wait=wait)


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
        found = settle(files, suites_of(config), config.validate_.small_groups, rebuild)
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


def newest_candidate(project: Project) -> Result:
    """Return the newest sealed candidate, the digest of its manifest, and the decision that stands (None: no answer).

    Raises NotFound where there is none.
    """
    from pipeline.govern.approval import standing
    from pipeline.publish.candidate import digest

    config = config_of(project)
    store = zone(config, "candidate")
    candidate = str(json.loads(store.read(layout.latest_candidate(config.name)))["candidate"])
    return {"candidate": candidate, "digest": digest(store, config.name, candidate),
            "decision": standing(store, config.name, candidate)}


def candidate_page(project: Project, candidate: str) -> Result:
    """Write the page that an officer reads before answering (publish/page.py). Result: candidate, page (its URL)."""
    from pipeline.publish.page import write

    config = config_of(project)
    key = write(zone(config, "candidate"), zone(config, "release"), config.name, candidate,
                timeout_hours=config.approve.timeout_hours, **signed(config))
    return {"candidate": candidate, "page": f"{config.zones.candidate}/{key}"}


def candidate_summary(project: Project, candidate: str) -> Result:
    """Return what an officer is shown of a candidate: its digest, about twenty lines, and the URL of its page."""
    from pipeline.publish.candidate import digest, summary_lines

    config = config_of(project)
    store = zone(config, "candidate")
    manifest = json.loads(store.read(layout.candidate_manifest(config.name, candidate)))
    return {"candidate": candidate, "digest": digest(store, config.name, candidate),
            "lines": summary_lines(manifest, current_release(config)),
            "page": candidate_page(config, candidate)["page"]}


def approve_files(project: Project, approver: str, private: Any, expires: date, files: Sequence[Any], *,
                  every_project: bool = False) -> Result:
    """Sign files that the project runs, as the officer was shown them (govern.approved.chosen). The audit log has it.

    `private`: the officer's key (govern.signatures.load_key). `every_project`: for any project that names the files.
    Result: files (signed), approvals (the new file's name). Raises FilesNotApproved, OfficersRefused, UsageError.
    """
    from pipeline.govern import approved as room
    from pipeline.govern import audit_log

    config = config_of(project)
    ids = {f"{run.kind} {run.name}": run.sha256 for run in files}
    with audit_log.act(zone(config, "work"), config.name, "approve_files", approver, ids=ids) as doing:
        path = room.approve(config, approver, private, files, today=datetime.now(UTC).date(), expires=expires,
                            every_project=every_project)
        doing.counts["files"] = len(files)
    return {"files": len(files), "approvals": path.name}


@audited()
def approve(project: Project, candidate: str, digest: str, approver: str, triggered_by: str,
            decision: Literal["approve", "reject"]) -> Result:
    """Record who decided what of exactly these bytes. Raises ApprovalRefused."""
    from pipeline.govern.approval import record

    config = config_of(project)
    record(zone(config, "candidate"), config, candidate, digest, approver, triggered_by, decision, datetime.now(UTC))
    return {"candidate": candidate, "digest": digest, "decision": decision}


@audited("publish")
def publish(project: Project, candidate: str, *, run_id: str | None = None, dry_run: bool = False) -> Result:
    """Publish an approved candidate in a process that has neither the key nor landing's credentials.

    Raises PublishRefused where a recipe, a suite or the project file's meaning changed after the candidate was built.
    """
    from pipeline.publish.process import run
    from pipeline.publish.today import check

    side = approved(project)
    check(zone(side.config, "candidate"), side.config.name, candidate, plan=side.plans.id,
          recipes=side.plans.described, engine=side.engine_version(), meaning=side.meaning(), suites=side.suites())
    return run(side.config, candidate, run_id=run_id, dry_run=dry_run)


@audited("recall_order")
def order_recall(project: Project, reason: str, approver: str, requested_by: str, *, people: Sequence[str] = (),
                 instances: Sequence[str] = (), dry_run: bool = False) -> Result:
    """Write an order by which no build lets these pass again. Result: recall (its id), counts; nothing is removed yet.

    `people`: lines ISSUER:LOCALID or NHS numbers; `instances`: lines of original or released SOP Instance UIDs, or
    SHA-256 of landed bytes. The same again is the order that stands. Raises ApprovalRefused, NotFound, UsageError.
    """
    from pipeline.deidentify import recall as room
    from pipeline.govern import recall as orders
    from pipeline.stage import batches

    side = Identifiable(project)
    config, work, name = side.config, side.work, side.config.name
    orders.may_order(config, approver, requested_by)
    why = orders.why(reason)
    inventories = [layout.inventory(name, batch) for batch in batches.committed(work, name)]
    if bool(people) == bool(instances):
        raise UsageError("A recall is of people or of instances.")
    if people:
        meant = room.people(config, side.crosswalk, side.pseudonyms, work, inventories, people)
        named = meant.people | meant.locals
    else:
        outcomes = [layout.outcomes(name, part) for part in sorted(side.parts_done())]
        meant = room.instances(config, side.crosswalk, side.pseudonyms, work, inventories, outcomes, instances)
        named = meant.objects
    recall = orders.order_id(side.pseudonyms.key.secret, name, "people" if people else "instances", named)
    order = orders.Order(
        recall, why, approver, requested_by, work.now().isoformat(timespec="seconds"), frozenset(meant.people),
        frozenset(meant.locals), frozenset(meant.objects), frozenset(meant.uids), frozenset(meant.instances),
        meant.asked)
    before = any(one.id == recall for one in orders.orders(work, name))
    if not dry_run:
        order = orders.write(work, name, order)
    return {"recall": recall, "ordered_before": before, "dry_run": dry_run, "asked": meant.asked,
            "landed": len(meant.objects), **_meant(side, order)}


@audited("recall")
def recall(project: Project, recall: str) -> Result:
    """Carry out an order: tombstones, images out of the release zone, and what the candidate zone holds of them.

    Then build, and `finish_recall`. Result: counts. Raises NotFound, LeaseHeld.
    """
    from pipeline.govern import withdraw as room
    from pipeline.govern.recall import order

    side = Identifiable(project)
    meant, found = room.withdraw(_zones(side), order(side.work, side.config.name, recall))
    return {"recall": recall, "instances": len(found.instances), "objects": len(found.objects),
            "releases": len(meant.rows)}


@audited("recall_certify")
def finish_recall(project: Project, recall: str) -> Result:
    """Remove the older parts and tables that held any of it, look that nothing is left, and certify it.

    Again after the next release, so that the certificate names it. Raises RecallRefused where no candidate without the
    recalled has been built, or something of theirs is still there.
    """
    from pipeline.govern import certificate
    from pipeline.govern import withdraw as room
    from pipeline.govern.recall import order

    side = Identifiable(project)
    zones, asked = _zones(side), order(side.work, side.config.name, recall)
    meant, found = room.sweep(zones, asked)
    doc = certificate.issue(zones, asked, meant, found, side.work.now().isoformat(timespec="seconds"))
    return {"recall": recall, "instances": doc["instances"], "removed": doc["removed"]["by_zone"],
            "replaced": len(doc["removed"]["replaced"]), "first_release_without": doc["first_release_without"],
            "rows_in_older_releases": {k: sum(v.values()) for k, v in meant.rows.items()}}


@audited("cohort")
def resolve_cohort(project: Project, result: str, out: str, reason: str, by: str) -> Result:
    """Turn a result (a CSV of pseudonyms) into the source's ids, in a new file `out` of the identifiable zone.

    Result: digest (of the result's bytes), asked, found, people, studies, left_out (studies by reason). `out` is
    readable by its owner alone. Raises UsageError (see catalogue.cohort), PeopleListRefused, CrosswalkRefused.
    """
    from pipeline.catalogue import cohort as room
    from pipeline.stage import batches

    side = Identifiable(project)
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


@audited("assure")
def record_assurance(project: Project, release: str, sheet: str) -> Result:
    """Check a sheet of verdicts against the sample it is of (`release`: its URL), and record what it shows.

    Result: release, digest (of the sheet), record (where in the work zone), proposed (instances for recall), reviewers,
    and drawn, leaks, population, the estimate and its bounds. Raises UsageError, VerifyFailed.
    """
    from pipeline.publish import assure as room

    config = config_of(project)
    if not f"{release.rstrip('/')}/".startswith(f"{config.zones.release}/{config.name}/"):
        raise UsageError("This is no release of the project.", hint="Give the URL of a release in its release zone.")
    work, verdicts = zone(config, "work"), room.check(release, Path(sheet))
    key = room.record(work, verdicts, work.now().isoformat(timespec="seconds"), account())
    return {"release": verdicts.drawn.release, "digest": verdicts.sha256, "record": key,
            "proposed": len(verdicts.proposed), "reviewers": list(verdicts.reviewers), **verdicts.found}


@audited("quarantine_close")
def close(project: Project, digest: str, reason: str, who: str) -> Result:
    """Record that nobody will work on a quarantined object any more. Result: object (SHA-256 of its bytes, hex)."""
    from pipeline.ledger import quarantine as room

    config = config_of(project)
    found = room.close(config, zone(config, "work"), zone(config, "candidate"), digest, reason, who)
    return {"object": found.sha256}


def ledger_summary(project: Project, *, release: str | None = None) -> Result:
    """Return the ledger's totals by status and reason, and whether its identity holds."""
    from pipeline.ledger.ledger import summary

    config = config_of(project)
    found = summary(config, zone(config, "work"), zone(config, "candidate"), zone(config, "release"),
                    release_id=release)
    return {"candidate": found.candidate, "release": found.release, "objects": found.objects, "counts": found.counts,
            "holds": found.holds, "findings": found.findings}


# ---- what several steps need ---------------------------------------------------------------------------------------
def _zones(side: Identifiable) -> Any:
    from pipeline.govern.withdraw import Zones

    return Zones(side.work, side.candidate, zone(side.config, "release"), side.config.name)


def _meant(side: Identifiable, order: Any) -> Result:
    """Return in counts what an order means in the zones today."""
    from pipeline.govern.withdraw import meaning

    meant = meaning(_zones(side), order)
    return {"instances": len(meant.instances), "parts": len(meant.parts),
            "candidates": len(meant.published | meant.unpublished), "releases": len(meant.rows)}


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

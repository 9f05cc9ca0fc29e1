"""What an officer is shown and answers, publication, and what a review of a release showed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pipeline import layout
from pipeline.audited import audited
from pipeline.errors import ApprovalRefused, UsageError
from pipeline.side import Project, Result, account, approved, config_of, current_release, signed, zone

_SIGN = "An officer reads its page and signs: tre approve PROJECT.toml --candidate --as NAME."


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
    """Record who decided what of exactly these bytes, where no key is asked for: in a demo. Raises ApprovalRefused."""
    from pipeline.govern.approval import record

    config = config_of(project)
    if not config.project.demo:
        raise ApprovalRefused("An answer to this candidate is an officer's who has a key.", hint=_SIGN)
    record(zone(config, "candidate"), config, candidate, digest, approver, triggered_by, decision, datetime.now(UTC))
    return {"candidate": candidate, "digest": digest, "decision": decision}


@audited()
def sign_candidate(project: Project, candidate: str, digest: str, approver: str, decision: Literal["approve", "reject"],
                   private: Any, *, days: int = 30) -> Result:
    """Sign an answer to exactly these bytes with an officer's key (govern.signatures.load_key); once as many officers
    have signed as it takes, or one rejects, record the decision.

    Result: candidate, digest, signed, needed (officers), decision (None: more must sign). Raises ApprovalRefused,
    FilesNotApproved where the list of officers does not have this key under this name, OfficersRefused.
    """
    from pipeline.govern import approval, audit_log
    from pipeline.govern import approved as room

    config, today = config_of(project), datetime.now(UTC).date()
    store = zone(config, "candidate")
    approval.may_answer(store, config, candidate, digest, approver)
    room.known(config, approver, private)
    if decision == "approve":
        room.approve(config, approver, private, [room.Run(room.CANDIDATE, candidate, digest)], today=today,
                     expires=today + timedelta(days))
    verdict = room.of_candidate(config, candidate, digest, today)
    if decision == "reject" or verdict is None or verdict.approved:
        built = audit_log.who_did(zone(config, "work"), config.name, "build", {"candidate": candidate})
        approval.record(store, config, candidate, digest, approver, built or "an unknown account", decision,
                        datetime.now(UTC))
    return {"candidate": candidate, "digest": digest, "signed": len(verdict.by) if verdict else 1,
            "needed": verdict.needed if verdict else 1, "decision": approval.standing(store, config.name, candidate)}


def candidate_answer(project: Project, candidate: str) -> Result:
    """Return the decision that stands for a candidate that waits (None: not yet).

    Raises ApprovalRefused where it was rejected, or a newer one has taken its place.
    """
    from pipeline.govern.approval import standing

    config = config_of(project)
    store = zone(config, "candidate")
    decision = standing(store, config.name, candidate)
    if decision == "reject":
        raise ApprovalRefused("Rejected by an officer. The rejection is recorded, nothing is published.")
    if decision is None and newest_candidate(config)["candidate"] != candidate:
        raise ApprovalRefused("A newer candidate has taken this one's place.", hint="Answer the newer one.")
    return {"candidate": candidate, "decision": decision}


@audited("publish")
def publish(project: Project, candidate: str, *, run_id: str | None = None, dry_run: bool = False) -> Result:
    """Publish an approved candidate in a process that has neither the key nor landing's credentials.

    Raises PublishRefused where a recipe, a suite or the project file's meaning changed after the candidate was built,
    somebody in it may no longer be used or is recalled, or a newer candidate has taken its place; ApprovalRefused where
    the officers' signatures that the project needs are not there (a demo: where nobody has answered).
    """
    from pipeline.govern import approval, audit_log
    from pipeline.govern import recall as orders
    from pipeline.govern.approved import of_candidate
    from pipeline.publish import today
    from pipeline.publish.candidate import digest
    from pipeline.publish.process import run

    side = approved(project)
    store, name = side.candidate, side.config.name
    today.check(store, name, candidate, plan=side.plans.id, recipes=side.plans.described, engine=side.engine_version(),
                meaning=side.meaning(), suites=side.suites())
    asked = orders.orders(side.work, name)
    today.people(store, name, candidate, permitted=side.permitted_pseudonyms,
                 recalled=frozenset().union(*(one.people for one in asked)),
                 instances=frozenset().union(*(one.instances for one in asked)))
    sealed = digest(store, name, candidate)
    verdict = of_candidate(side.config, candidate, sealed, datetime.now(UTC).date())
    answer = approval.check(store, name, candidate, sealed)
    if verdict and (not verdict.approved or answer["approver"] not in {entry.approver for entry in verdict.by}):
        raise ApprovalRefused(f"This candidate has not the signatures that it needs: {verdict.reason()}.", hint=_SIGN)
    return run(side.config, candidate, sealed, head=audit_log.head(side.work, name), run_id=run_id, dry_run=dry_run)


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

"""What an officer is shown and answers, publication, and what a review of a release showed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from pipeline import layout
from pipeline.audited import audited
from pipeline.errors import UsageError
from pipeline.side import Project, Result, account, approved, config_of, current_release, signed, zone


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

    Raises PublishRefused where a recipe, a suite or the project file's meaning changed after the candidate was built,
    somebody in it may no longer be used or is recalled, or a newer candidate has taken its place.
    """
    from pipeline.govern import recall as orders
    from pipeline.publish import today
    from pipeline.publish.process import run

    side = approved(project)
    store, name = side.candidate, side.config.name
    today.check(store, name, candidate, plan=side.plans.id, recipes=side.plans.described, engine=side.engine_version(),
                meaning=side.meaning(), suites=side.suites())
    asked = orders.orders(side.work, name)
    today.people(store, name, candidate, permitted=side.permitted_pseudonyms,
                 recalled=frozenset().union(*(one.people for one in asked)),
                 instances=frozenset().union(*(one.instances for one in asked)))
    return run(side.config, candidate, run_id=run_id, dry_run=dry_run)


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

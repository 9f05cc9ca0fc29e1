"""People and images taken back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline import layout
from pipeline.audited import audited
from pipeline.errors import UsageError
from pipeline.side import Identifiable, Project, Result, zone


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


def _zones(side: Identifiable) -> Any:
    from pipeline.govern.withdraw import Zones

    return Zones(side.work, side.candidate, zone(side.config, "release"), side.config.name)


def _meant(side: Identifiable, order: Any) -> Result:
    """Return in counts what an order means in the zones today."""
    from pipeline.govern.withdraw import meaning

    meant = meaning(_zones(side), order)
    return {"instances": len(meant.instances), "parts": len(meant.parts),
            "candidates": len(meant.published | meant.unpublished), "releases": len(meant.rows)}

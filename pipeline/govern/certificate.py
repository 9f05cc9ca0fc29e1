"""The certificate of a recall: what was removed, what remains and why, who said so, when. JSON, and text to be read.

The one in the work zone names the officer; the one in the release zone names nobody. Keys of zones hold pseudonyms, so
an object is told by the SHA-256 of its key and of its bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pipeline import layout
from pipeline.errors import NotFound
from pipeline.govern.recall import Order
from pipeline.govern.withdraw import Found, Meant, Zones
from pipeline.storage import ObjectStore

_STAFF = ("approver", "requested_by")
REMAINS = (
    "Tombstones in the release zone: they say that something was taken back, so that nobody publishes it again.",
    "Rows of older releases' tables, counted below, under the pseudonym. Published tables are not rewritten: their "
    "digests are what was approved. Close those releases to researchers where the rows must not be read any more.",
    "What landed, and the map from it to the output: in the identifiable zone, which the hospital's own rules govern.",
    "Opaque ids in plans and lists of candidates and in the ledger, without which nobody could prove this recall.",
    "Copies that were made before: of researchers, and backups of the stores. The data steward tells those who hold "
    "them.",
)


def issue(zones: Zones, order: Order, meant: Meant, found: Found, when: str) -> dict[str, Any]:
    """Write both certificates and return the fuller one. Issued again only where something other than time differs."""
    project = zones.project
    objects = [{"zone": zone, "key_sha256": hashlib.sha256(key.encode()).hexdigest(), "sha256": digest or None}
               for (zone, key), digest in found.objects.items()]
    doc: dict[str, Any] = {
        "schema_version": layout.SCHEMA_VERSION, "project": project, "recall": order.id, "reason": order.reason,
        "ordered": order.when, "issued": when, "approver": order.approver, "requested_by": order.requested_by,
        "asked": dict(order.asked),
        "instances": len(found.instances),
        "removed": {"objects": sorted(objects, key=lambda o: (str(o["zone"]), str(o["key_sha256"]))),
                    "by_zone": {zone: sum(o["zone"] == zone for o in objects) for zone in ("release", "candidate")},
                    "replaced": dict(sorted(found.others.items()))},
        "versions": "Every version and delete marker was removed; a second look found none.",
        "first_release_without": _first_without(zones.release, project, meant),
        "remains": {"why": list(REMAINS), "rows_in_older_releases": dict(sorted(meant.rows.items()))},
    }
    key = layout.certificate(project, order.id, "json")
    try:
        before = json.loads(zones.work.read(key))
    except NotFound:
        before = None
    if before is not None and {**before, "issued": when} == doc:
        doc["issued"] = before["issued"]
    for store, shown in ((zones.release, {k: v for k, v in doc.items() if k not in _STAFF}), (zones.work, doc)):
        _put(store, layout.certificate(project, order.id, "txt"), text(shown).encode())
        _put(store, layout.certificate(project, order.id, "json"),
             json.dumps(shown, indent=1, sort_keys=True).encode() + b"\n")
    return doc


def text(doc: Mapping[str, Any]) -> str:
    """Return a certificate as a person reads it."""
    removed = doc["removed"]
    lines = [f"Certificate of recall {doc['recall']}", "", f"Project: {doc['project']}", f"Reason: {doc['reason']}",
             f"Ordered: {doc['ordered']}"]
    lines += [f"Approved by: {doc['approver']}, asked for by: {doc['requested_by']}"] if "approver" in doc else []
    lines += [
        f"Issued: {doc['issued']}", "",
        "Asked for: " + ", ".join(f"{n} {what}" for what, n in sorted(doc["asked"].items())),
        f"De-identified instances that were meant: {doc['instances']}",
        f"Objects removed: {removed['by_zone']['release']} in the release zone, "
        f"{removed['by_zone']['candidate']} in the candidate zone",
        "Parts, clinical snapshots, candidates and unfinished releases removed because they held some of it: "
        f"{len(removed['replaced'])} "
        f"({sum(removed['replaced'].values())} objects; what others had in them was made again)",
        doc["versions"],
        f"First release without them: {doc['first_release_without'] or 'none yet: the candidate waits for approval'}",
        "", "What remains, and why:"]
    lines += [f"- {line}" for line in doc["remains"]["why"]]
    for release, counts in doc["remains"]["rows_in_older_releases"].items():
        lines.append(f"  {release}: " + ", ".join(f"{table} {rows}" for table, rows in sorted(counts.items())))
    lines += ["", "Removed objects (zone, SHA-256 of the key, SHA-256 of the bytes):"]
    lines += [f"  {o['zone']} {o['key_sha256']} {o['sha256'] or 'not known'}" for o in removed["objects"]] or ["  none"]
    return "\n".join(lines) + "\n"


def _first_without(release: ObjectStore, project: str, meant: Meant) -> str | None:
    """Return the first published release after the last that holds any row of the recalled."""
    try:
        current = int(json.loads(release.read(layout.current(project)))["sequence"])
    except NotFound:
        return None
    last = max((int(name.partition("-")[0]) for name in meant.rows), default=0)
    names = sorted({entry.key.removeprefix(layout.releases(project)).split("/")[0]
                    for entry in release.list(layout.releases(project))})
    return next((name for name in names if last < int(name.partition("-")[0]) <= current), None)


def _put(store: ObjectStore, key: str, data: bytes) -> None:
    try:
        if store.read(key) == data:
            return
    except NotFound:
        pass
    store.write(key, data)

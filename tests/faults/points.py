"""Every place where a step changes a zone, by name. Derived from a recorded run, and asserted complete by a test."""

from __future__ import annotations

import re
from dataclasses import dataclass

ID, CANDIDATE, RELEASE = r"[a-z]-[0-9a-f]{24}", r"candidates/c-[0-9a-f]{24}", r"releases/\d{4}-[0-9a-f]{12}"
LEASED = r"json/[0-9a-f]{16}"
STEPS = ("stage", "deidentify", "clinical", "assemble", "curate", "validate", "approve", "publish")


@dataclass(frozen=True)
class Point:
    """A kind of change: the step that makes it, the zone, the store's method, and the key below the project's name."""

    step: str
    name: str
    zone: str
    method: str
    key: str

    def fits(self, step: str, zone: str, method: str, key: str) -> bool:
        return (step, zone, method) == (self.step, self.zone, self.method) and bool(self.pattern.fullmatch(key))

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.key if self.key.startswith(r"\.tre") else rf"[a-z-]+/{self.key}")


def _sealed(name: str, key: str) -> Point:
    return Point("validate", name, "candidate", "write", rf"{CANDIDATE}/{key}")


def _released(name: str, method: str, key: str) -> Point:
    return Point("publish", name, "release", method, rf"{RELEASE}/{key}")


def _entered(step: str) -> tuple[Point, ...]:
    """What the audit log's entries change."""
    return (
        Point(step, "audit lease", "work", "write", rf"leases/audit\.{LEASED}"),
        Point(step, "audit entry", "work", "create", r"audit/\d{8}\.json"),
        Point(step, "audit lease given back", "work", "delete", rf"leases/audit\.{LEASED}"),
    )


POINTS = (
    *(point for step in ("assemble", "approve", "publish") for point in _entered(step)),
    Point("stage", "lease", "work", "write", rf"leases/stage\.{LEASED}"),
    Point("stage", "shards", "work", "write", rf"batches/{ID}/shards/\d{{5}}\.parquet"),
    Point("stage", "seen", "work", "write", r"seen/[0-9a-f]{2}\.parquet"),
    Point("stage", "listing", "work", "write", rf"batches/{ID}/listing\.parquet"),
    Point("stage", "inventory", "work", "write", rf"batches/{ID}/inventory\.parquet"),
    Point("stage", "lease given back", "work", "delete", rf"leases/stage\.{LEASED}"),
    Point("deidentify", "dicom", "candidate", "adopt", rf"parts/{ID}/dicom/.*\.dcm"),
    Point("deidentify", "facts", "candidate", "write", rf"parts/{ID}/facts\.parquet"),
    Point("deidentify", "content", "candidate", "write", rf"parts/{ID}/content\.parquet"),
    Point("deidentify", "outcomes", "work", "write", rf"parts/{ID}/outcomes\.parquet"),
    Point("clinical", "tables", "candidate", "write", rf"clinical/{ID}/[a-z_]+\.parquet"),
    Point("clinical", "outcomes", "work", "write", rf"clinical/{ID}/outcomes\.parquet"),
    Point("assemble", "known people", "work", "write", r"people/known\.parquet"),
    Point("assemble", "clinical tables", "candidate", "write", rf"clinical/{ID}/[a-z_]+\.parquet"),
    Point("assemble", "clinical outcomes", "work", "write", rf"clinical/{ID}/outcomes\.parquet"),
    Point("assemble", "equipment", "candidate", "write", rf"{CANDIDATE}/equipment/[a-z_]+\.parquet"),
    Point("assemble", "plan", "candidate", "write", rf"{CANDIDATE}/plan\.json"),
    Point("assemble", "inputs", "work", "write", rf"{CANDIDATE}/inputs\.json"),
    Point("curate", "curated tables", "candidate", "put_file", rf"{CANDIDATE}/curated/[a-z_]+\.parquet"),
    Point("validate", "tables", "candidate", "put_file", rf"{CANDIDATE}/tables/[a-z_]+\.parquet"),
    _sealed("validation", r"validation/[a-z_]+\.json"),
    Point("validate", "images", "candidate", "put_file", rf"{CANDIDATE}/images\.parquet"),
    _sealed("withheld", r"withheld\.parquet"),
    _sealed("dictionary", r"dictionary\.(json|html)"),
    _sealed("report", r"report\.html"),
    _sealed("checks", r"checks\.html"),
    Point("validate", "catalogue", "candidate", "put_file", rf"{CANDIDATE}/catalogue\.parquet"),
    _sealed("manifest", r"candidate\.json"),
    Point("validate", "latest", "candidate", "write", r"latest\.json"),
    Point("approve", "approval", "candidate", "create", rf"approvals/{ID}\.json"),
    Point("publish", "probe writes", "release", "write", r"\.tre-[0-9a-f]{16}"),
    Point("publish", "probe creates", "release", "create", r"\.tre-[0-9a-f]{16}"),
    Point("publish", "probe puts", "release", "put_file", r"\.tre-[0-9a-f]{16}"),
    Point("publish", "probe cleared", "release", "delete", r"\.tre-[0-9a-f]{16}"),
    Point("publish", "lease", "release", "write", rf"leases/publish\.{LEASED}"),
    Point("publish", "images", "release", "put_file", r"images/.*\.dcm"),
    _released("tables", "put_file", r"tables/[a-z_]+\.parquet"),
    _released("catalogue", "put_file", r"catalogue\.parquet"),
    _released("readme", "write", r"README\.md"),
    _released("dictionary", "put_file", r"dictionary\.(json|html)"),
    _released("report", "put_file", r"report\.html"),
    _released("checks", "put_file", r"checks\.html"),
    _released("validation", "put_file", r"validation/[a-z_]+\.json"),
    _released("manifest", "write", r"manifest\.json"),
    Point("publish", "current", "release", "write", r"current\.json"),
    _released("run", "create", r"run\.json"),
    Point("publish", "lease given back", "release", "delete", rf"leases/publish\.{LEASED}"),
)


# A recall, from a site with a release, an approved candidate that waits, and half a release that nobody was given.
RECALL_STEPS = ("waiting", "order_recall", "recall", "rebuilt", "finish_recall")
PATIENT, UID = r"P[0-9A-Z]+", r"2\.25\.\d+"


def _withdrawn(step: str, *more: Point) -> tuple[Point, ...]:
    """What withdrawing changes, in both steps that do it."""
    return (
        Point(step, "lease", "release", "write", rf"leases/publish\.{LEASED}"),
        Point(step, "tombstones", "release", "create", r"tombstones/.*\.json"),
        Point(step, "images", "release", "purge", rf"images/{PATIENT}/(.*\.)?"),
        *more,
        Point(step, "lease given back", "release", "delete", rf"leases/publish\.{LEASED}"),
    )


RECALL_POINTS = (
    *(point for step in ("order_recall", "recall", "finish_recall") for point in _entered(step)),
    Point("order_recall", "order", "work", "create", rf"recalls/{ID}\.json"),
    *_withdrawn(
        "recall",
        Point("recall", "found", "work", "write", rf"recalls-found/{ID}\.json"),
        Point("recall", "half a release's manifest", "release", "purge", rf"{RELEASE}/manifest\.json"),
        Point("recall", "half a release", "release", "purge", rf"{RELEASE}/"),
        Point("recall", "a waiting candidate's manifest", "candidate", "purge", rf"{CANDIDATE}/candidate\.json"),
        Point("recall", "a waiting candidate", "candidate", "purge", rf"{CANDIDATE}/"),
        Point("recall", "images of parts", "candidate", "purge", rf"parts/{ID}/dicom/{PATIENT}/.*\."),
    ),
    *_withdrawn(
        "finish_recall",
        Point("finish_recall", "parts", "candidate", "purge", rf"parts/{ID}/"),
        Point("finish_recall", "clinical", "candidate", "purge", rf"clinical/{ID}/"),
        Point("finish_recall", "rows of a published candidate", "candidate", "purge",
              rf"{CANDIDATE}/(curated/|tables/|equipment/|(images|catalogue)\.parquet)"),
        Point("finish_recall", "certificate for all", "release", "write", rf"certificates/{ID}\.(txt|json)"),
        Point("finish_recall", "certificate", "work", "write", rf"certificates/{ID}\.(txt|json)"),
    ),
)


def named(points: tuple[Point, ...], step: str, zone: str, method: str, key: str) -> list[Point]:
    """Return the points that a change belongs to: one, where the list is whole and says nothing twice."""
    return [point for point in points if point.fits(step, zone, method, key)]

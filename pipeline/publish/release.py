"""Publish exactly what was approved. A release is visible through its manifest and `current.json`, both written last.

Order: images, tables, README, dictionary, report, validation, manifest.json, current.json. Each step is safe to
repeat: the same candidate gives the same release id and the same bytes, and what is there already is checked and left.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from pipeline import layout, observe
from pipeline.errors import CandidateFailed, NotFound, PublishRefused
from pipeline.publish import readme
from pipeline.publish.candidate import KEPT_BACK, agree
from pipeline.publish.files import (
    SCHEMA_VERSION,
    canonical,
    hex_of,
    pointer,
    put_same,
    read_json,
    sha256,
    sha256_at,
    sha256_of,
    stored,
)
from pipeline.storage import ObjectStore, tables

if TYPE_CHECKING:
    import pyarrow as pa

THREADS = 4  # enough to keep a store busy; each holds one image's file at most
_ORDER = ("tables/", "README.md", "dictionary.", "report.", "validation/")
_REBUILD = "Build and approve a new candidate."


@dataclass(frozen=True, slots=True)
class Published:
    """What stands in the release zone, or in a dry run what would: images and bytes of the release, and of those how
    many were not there before."""

    release: str
    sequence: int
    images: int
    bytes: int
    copied: int
    copied_bytes: int
    manifest_sha256: str
    dry_run: bool = False


def publish(
    candidate: ObjectStore,
    release: ObjectStore,
    project: str,
    candidate_id: str,
    *,
    approval: Mapping[str, Any],
    run_id: str | None = None,
    audit_head: str | None = None,
    dry_run: bool = False,
) -> Published:
    """Copy an approved candidate into the release zone.

    `approval` is the record of the officer's decision: candidate, digest (of candidate.json, hex), decision, approver,
    when. Raises PublishRefused where anything is not what was approved, an image was recalled, or another release came
    first; StoreRefused where the release store fails the probe; LeaseHeld while another publisher is at work. A dry run
    checks and counts, and writes nothing.
    """
    from pipeline.storage import lease, probe

    if not dry_run:
        probe.probe(release)
    with nullcontext() if dry_run else lease.hold(release, layout.lease(project, "publish")):
        return _publish(candidate, release, project, candidate_id, approval, run_id, audit_head, dry_run)


def _publish(
    candidate: ObjectStore,
    release: ObjectStore,
    project: str,
    candidate_id: str,
    approval: Mapping[str, Any],
    run_id: str | None,
    audit_head: str | None,
    dry_run: bool,
) -> Published:
    started = datetime.now(UTC)
    before = stored(release, layout.current(project))
    current = json.loads(before) if before else None
    sealed = _approved(candidate, project, candidate_id, approval)
    files = _checked_files(candidate, project, candidate_id, sealed)
    rows = _images(candidate, project, candidate_id, sealed, release)

    if current and (current["candidate"], current["candidate_sha256"]) == (candidate_id, approval["digest"]):
        name, sequence, predecessor = current["release"], current["sequence"], current["predecessor"]
    else:
        _newest(candidate, project, candidate_id)
        sequence = current["sequence"] + 1 if current else 1
        name = layout.release_id(sequence, candidate_id)
        predecessor = (
            {"release": current["release"], "manifest_sha256": current["manifest_sha256"]} if current else None
        )
    text = readme.text(sealed, name, sequence, predecessor)
    listed = [*files, {"name": "README.md", "bytes": len(text), "sha256": sha256(text)}]
    doc = {
        "schema_version": SCHEMA_VERSION,
        "project": project,
        "title": sealed["title"],
        "demo": sealed["demo"],
        "release": name,
        "sequence": sequence,
        "predecessor": predecessor,
        "candidate": candidate_id,
        "candidate_sha256": approval["digest"],
        "files": sorted(listed, key=lambda f: str(f["name"])),
        "images": {"table": "tables/instances.parquet", "folder": "images", **_count(rows)},
        "totals": sealed["totals"],
        "audit_defaults": sealed["audit_defaults"],
    }
    manifest = canonical(doc)
    if stored(release, layout.release_manifest(project, name)) not in (None, manifest):
        raise PublishRefused(
            "A release of this name stands there with another manifest.",
            hint="Nothing was changed. Build a new candidate with this version of the product.",
        )

    copied = _copy_images(candidate, release, project, rows, dry_run)
    result = Published(
        name, sequence, rows.num_rows, _count(rows)["bytes"], len(copied), sum(copied), sha256(manifest), dry_run
    )
    if dry_run:
        return result
    for file in sorted(listed, key=_place):
        key = layout.in_release(project, name, file["name"])
        if file["name"] == "README.md":
            put_same(release, key, text)
        else:
            with candidate.fetch(layout.in_candidate(project, candidate_id, file["name"])) as path:
                release.put_file(key, path, bytes.fromhex(file["sha256"]))
    release.settle()
    put_same(release, layout.release_manifest(project, name), manifest)
    _make_current(release, project, before, pointer(doc, result.manifest_sha256))
    # Times and people, outside every digest: written once, by the run that came to the end first.
    run = {
        "schema_version": SCHEMA_VERSION,
        "started": started.isoformat(timespec="seconds"),
        "run_id": run_id,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "approver": approval.get("approver"),
        "approved": approval.get("when"),
        "audit_head": audit_head,
    }
    release.create(layout.in_release(project, name, "run.json"), canonical(run))
    return result


def _approved(candidate: ObjectStore, project: str, candidate_id: str, approval: Mapping[str, Any]) -> dict[str, Any]:
    """Return candidate.json, which must be the very bytes that the approval names."""
    if approval.get("decision") != "approve" or approval.get("candidate") != candidate_id:
        raise PublishRefused("The approval given is not an approval of this candidate.")
    try:
        data, sealed = read_json(
            candidate, layout.candidate_manifest(project, candidate_id), "The candidate's manifest"
        )
    except ValueError:
        raise PublishRefused("The candidate's manifest is not JSON.", hint=_REBUILD) from None
    if sha256(data) != approval.get("digest"):
        raise PublishRefused(
            "The candidate is not the one that was approved: its manifest has another digest.",
            hint="Approve it again, or build it again.",
        )
    if (sealed["project"], sealed["candidate"]) != (project, candidate_id):
        raise PublishRefused("The manifest speaks of another candidate.")
    if sha256(stored(candidate, layout.plan(project, candidate_id)) or b"") != sealed["plan_sha256"]:
        raise PublishRefused("The candidate's plan is not the one that was approved.", hint=_REBUILD)
    return sealed


def _newest(candidate: ObjectStore, project: str, candidate_id: str) -> None:
    """Refuse a candidate that was approved and then superseded: it may hold people whom the newer one left out."""
    latest = stored(candidate, layout.latest_candidate(project))
    if latest is None or json.loads(latest)["candidate"] != candidate_id:
        raise PublishRefused("A newer candidate has taken this one's place.", hint="Have the newer one approved.")


def _checked_files(
    candidate: ObjectStore, project: str, candidate_id: str, sealed: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Compare every file with candidate.json; return those that are released."""
    for file in sealed["files"]:
        if sha256_at(candidate, layout.in_candidate(project, candidate_id, file["name"])) != file["sha256"]:
            raise PublishRefused(f"The candidate's {file['name']} is not what was approved.", hint=_REBUILD)
    return [file for file in sealed["files"] if file["name"] not in KEPT_BACK]


def _images(
    candidate: ObjectStore, project: str, candidate_id: str, sealed: Mapping[str, Any], release: ObjectStore
) -> pa.Table:
    """Return images.parquet, by path. They agree with the instances table; none was recalled."""
    approved = {file["name"]: file["sha256"] for file in sealed["files"]}
    try:
        with (candidate.fetch(layout.images_table(project, candidate_id)) as listed,
              candidate.fetch(layout.table(project, candidate_id, "instances")) as told):
            read = {"images.parquet": sha256_of(listed), "tables/instances.parquet": sha256_of(told)}
            if any(approved[name] != digest for name, digest in read.items()):
                raise PublishRefused("The candidate changed while it was published.", hint=_REBUILD)
            agree(listed, told)
            images = tables.from_bytes(listed.read_bytes())
    except CandidateFailed as error:
        raise PublishRefused(error.message, hint=_REBUILD) from None
    rows = images.sort_by("path")
    if _count(rows) != {"count": sealed["images"]["count"], "bytes": sealed["images"]["bytes"]}:
        raise PublishRefused("The candidate's images are not as many as was approved.", hint=_REBUILD)
    gone = {entry.key for entry in release.list(layout.tombstones(project))}
    recalled = {key for one in _rows(rows) if (key := layout.tombstone(project, one["instance"])) in gone}
    if recalled:
        raise PublishRefused(f"{len(recalled)} images of this candidate were recalled.", hint=_REBUILD)
    for name in sealed["totals"]:  # a person's tombstone: they may have no image, and rows in a clinical table
        table = tables.read(candidate, layout.table(project, candidate_id, name))
        people = set(table["patient_id"].unique().to_pylist()) if "patient_id" in table.column_names else set()
        if {layout.tombstone(project, person) for person in people if person} & gone:
            raise PublishRefused("This candidate has rows of people who were recalled.", hint=_REBUILD)
    return rows


def _count(rows: pa.Table) -> dict[str, int]:
    import pyarrow.compute as pc

    return {"count": rows.num_rows, "bytes": pc.sum(rows["bytes"]).as_py() or 0}


def _rows(images: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows; only a few thousand are Python's objects at once."""
    for batch in images.to_batches(max_chunksize=4096):
        yield from batch.to_pylist()


def _copy_images(
    candidate: ObjectStore, release: ObjectStore, project: str, rows: pa.Table, dry_run: bool
) -> list[int]:
    """Copy what is not there yet with the right bytes; return the sizes of what was copied."""

    def copy(row: dict[str, Any]) -> int | None:
        key, digest = layout.image(project, row["path"]), hex_of(row["sha256"])
        there = release.stat(key)
        if dry_run:
            return None if there else int(row["bytes"])
        if there and there.size == row["bytes"] and sha256_at(release, key) == digest:
            return None
        try:
            with candidate.fetch(row["key"]) as path:
                if sha256_of(path) != digest:  # before it moves: no store sees bytes that nobody approved
                    raise PublishRefused("An image of the candidate is not what was approved.", hint=_REBUILD)
                release.put_file(key, path, bytes.fromhex(digest))
        except NotFound:
            raise PublishRefused("An image of the candidate is not there.", hint=_REBUILD) from None
        return int(row["bytes"])

    def all_copied() -> Iterator[int | None]:
        with ThreadPoolExecutor(THREADS) as pool:
            left = _rows(rows)
            while window := list(islice(left, 64)):  # a failure ends the run after one window, not after all
                yield from pool.map(copy, window)

    return [size for size in observe.track(all_copied(), "images", rows.num_rows) if size is not None]


def _place(file: Mapping[str, Any]) -> tuple[int, str]:
    name = str(file["name"])
    return next((i for i, start in enumerate(_ORDER) if name.startswith(start)), len(_ORDER)), name


def _make_current(release: ObjectStore, project: str, before: bytes | None, after: bytes) -> None:
    """Point current.json at the new release, unless another publisher moved it since we read it."""
    key = layout.current(project)
    now = stored(release, key)
    if now == after:
        return
    if now != before:
        raise PublishRefused(
            "The predecessor has moved: another release became current meanwhile.",
            hint="Publish again: the release will follow that one.",
        )
    release.write(key, after)

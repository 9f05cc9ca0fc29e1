"""Prove that a release is what its manifest says. Needs the release zone and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pipeline import layout, observe
from pipeline.errors import NotFound, UsageError, VerifyFailed
from pipeline.publish.files import hex_of, pointer, read_json, sha256, sha256_at, stored
from pipeline.storage import ObjectStore, open_store, tables

THREADS = 4
_UNLISTED = ("manifest.json", "run.json")  # the manifest itself, and times that stand outside every digest


@dataclass(slots=True)
class Verified:
    """What was found. `files`, `images` and `bytes` count what was read and is right; the lists hold release keys.

    `recalled` images have a tombstone and are gone, as they should be; `not_removed` have one and are still there.
    `extra` stand in the release's folder and in no manifest.
    """

    release: str
    manifest_sha256: str
    current: bool = False
    files: int = 0
    images: int = 0
    bytes: int = 0
    recalled: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    not_removed: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)


def locate(url: str) -> tuple[ObjectStore, str, str]:
    """Return (store, project, release) for the URL of a release's folder, or of a project: its current release.

    Raises UsageError where the URL is neither, NotFound where the project has no release, VerifyFailed where
    current.json cannot be read.
    """
    base, _, release = url.rstrip("/").partition("/releases/")
    zone, _, project = base.rpartition("/")
    if not project or "/" in release or zone.endswith(("file:/", "s3:/")):
        raise UsageError(
            "Not the URL of a release.", hint="Give …/PROJECT/releases/RELEASE, or …/PROJECT for its current one."
        )
    try:
        store = open_store(zone, "release", create=False)
    except ValueError as error:
        raise UsageError(f"Not the URL of a release: {error}.") from None
    if not release:
        try:
            _, current = read_json(store, layout.current(project), "The project's current release")
            release = str(current["release"])
            if store.stat(layout.release_manifest(project, release)) is None:
                raise ValueError("no such release")
        except NotFound:
            raise NotFound("There is no current release.", hint="Give …/PROJECT, below the release zone's own URL, or "
                           "…/PROJECT/releases/RELEASE.") from None
        except (ValueError, KeyError):
            raise VerifyFailed(f"changed: {layout.current(project)} names no release that is there.") from None
    return store, project, release


def verify(url: str) -> Verified:
    """Compute the SHA-256 of all that the manifest lists. Raises VerifyFailed naming the keys that are not right."""
    found = examine(url)
    wrong = [
        f"{what}: {key}"
        for what, keys in (
            ("missing", found.missing),
            ("changed", found.changed),
            ("recalled but still there", found.not_removed),
        )
        for key in keys
    ]
    if wrong:
        more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise VerifyFailed(
            f"Release {found.release} is not what its manifest says. {'; '.join(wrong[:20])}{more}.",
            hint="Do not use it; tell the data steward.",
        )
    return found


def examine(url: str) -> Verified:
    """Return what `verify` finds, without judging it. Raises NotFound, SchemaTooNew, VerifyFailed (no manifest)."""
    store, project, release = locate(url)
    key = layout.release_manifest(project, release)
    try:
        data, manifest = read_json(store, key, "The release's manifest")
    except ValueError:
        raise VerifyFailed(f"changed: {key} is not a manifest.") from None
    found = Verified(release, sha256(data))
    if not _pointed(store, project):
        found.changed.append(layout.current(project))
    found.current, stated = _stated(store, project, release)
    if stated not in (None, found.manifest_sha256):
        found.changed.append(key)
        return found  # what it lists cannot be trusted
    try:
        for file in manifest["files"]:
            where = layout.in_release(project, release, file["name"])
            if _tell(found, where, sha256_at(store, where), file["sha256"]):
                found.files, found.bytes = found.files + 1, found.bytes + file["bytes"]
        known = {file["name"] for file in manifest["files"]} | set(_UNLISTED)
        table = layout.in_release(project, release, manifest["images"]["table"])
    except (LookupError, TypeError, AttributeError, ValueError):
        raise VerifyFailed(f"changed: {key} is not a manifest.") from None
    _images(store, project, table, found)
    folder = layout.in_release(project, release, "")
    found.extra = [e.key for e in store.list(folder) if e.key.removeprefix(folder) not in known]
    return found


def _pointed(store: ObjectStore, project: str) -> bool:
    """Return whether current.json is, byte for byte, what follows from the manifest of the release it names. Where
    there is none, nothing was published; a release that another publisher left half done is then looked at alone."""
    data = stored(store, layout.current(project))
    if data is None:
        return True
    try:
        there = stored(store, layout.release_manifest(project, str(json.loads(data)["release"])))
        return there is not None and pointer(json.loads(there), sha256(there)) == data
    except (ValueError, LookupError, TypeError):
        return False


def _stated(store: ObjectStore, project: str, release: str) -> tuple[bool, str | None]:
    """Return whether a release is the current one, and its manifest's digest as current.json, or else the manifest of
    the release that followed it, states it; None where nothing does."""
    current = True
    try:
        step = json.loads(stored(store, layout.current(project)) or b"null")
        while step and step["release"] != release:
            data = stored(store, layout.release_manifest(project, step["release"]))
            if data is None or sha256(data) != step["manifest_sha256"]:
                return False, None  # a later release is not right: it says nothing of this one
            step, current = json.loads(data)["predecessor"], False
        return bool(step) and current, step and str(step["manifest_sha256"])
    except (ValueError, LookupError, TypeError):
        raise VerifyFailed(f"changed: {layout.current(project)} cannot be understood.") from None


def _images(store: ObjectStore, project: str, table: str, found: Verified) -> None:
    if table in found.missing or table in found.changed:
        return  # said already; what it lists cannot be trusted
    rows = tables.read(store, table, ["sop_instance_uid", "path", "sha256", "bytes"])
    gone = {entry.key for entry in store.list(layout.tombstones(project))}

    def look(row: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        return row, sha256_at(store, layout.image(project, row["path"]))

    def looked() -> Iterator[tuple[dict[str, Any], str | None]]:
        with ThreadPoolExecutor(THREADS) as pool:
            left = (row for batch in rows.to_batches(max_chunksize=4096) for row in batch.to_pylist())
            while window := list(islice(left, 256)):
                yield from pool.map(look, window)

    for row, digest in observe.track(looked(), "images", rows.num_rows):
        key = layout.image(project, row["path"])
        if layout.tombstone(project, row["sop_instance_uid"]) in gone:
            if digest is None:
                found.recalled += 1
            else:
                found.not_removed.append(key)
        elif _tell(found, key, digest, hex_of(row["sha256"])):
            found.images, found.bytes = found.images + 1, found.bytes + row["bytes"]


def _tell(found: Verified, key: str, digest: str | None, expected: str) -> bool:
    if digest is None:
        found.missing.append(key)
    elif digest != expected:
        found.changed.append(key)
    return digest == expected

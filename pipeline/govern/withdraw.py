"""Carry out a recall order: tombstones, then the images in the release zone, then what the candidate zone holds.

Everything is found anew each time, so a run that was killed is simply repeated. What is found is written down in the
work zone before it is removed: the certificate of a repeated run is that of a run that was never killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline import layout
from pipeline.errors import NotFound, RecallRefused
from pipeline.govern.recall import Order
from pipeline.storage import ObjectStore, tables

_MAP = ["source_sha256", "patient", "study", "series", "instance", "output_sha256", "output_key"]
_TAIL = len(".0123456789ab.dcm")        # of an image's name, after its instance


@dataclass(frozen=True, slots=True)
class Zones:
    """The three zones that a recall works on: the work zone is read, but for the order's own files."""

    work: ObjectStore
    candidate: ObjectStore
    release: ObjectStore
    project: str


@dataclass(slots=True)
class Meant:
    """What an order means in the zones today. `images`: prefixes below `images/`; `parts`: those that hold any of it;
    `clinical`, `candidates`: likewise, of candidates those that no release published apart (`unpublished`)."""

    instances: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)       # image path → SHA-256 of its bytes, hex
    parts: set[str] = field(default_factory=set)
    dicom: set[str] = field(default_factory=set)                # prefixes of single images in the candidate zone
    clinical: set[str] = field(default_factory=set)
    published: set[str] = field(default_factory=set)
    unpublished: set[str] = field(default_factory=set)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)   # release → table → rows
    half: set[str] = field(default_factory=set)     # releases that a killed publisher left: nobody was given them


@dataclass(slots=True)
class Found:
    """What there was to remove, over all runs of the order. `objects`: (zone, key) → SHA-256 hex or "" where it is not
    known; `others`: a part, clinical snapshot or candidate that held some of it → its objects in the candidate zone."""

    objects: dict[tuple[str, str], str]
    others: dict[str, int]
    instances: set[str]


def withdraw(zones: Zones, order: Order) -> tuple[Meant, Found]:
    """Make what is recalled unpublishable and take its images away; return what was meant and found.

    Nobody publishes meanwhile (LeaseHeld where somebody does). Older parts and tables wait for `sweep`: a candidate
    without the recalled is made from what landed, and may not be there yet.
    """
    from pipeline.storage import lease

    project, release = zones.project, zones.release
    with lease.hold(release, layout.lease(project, "publish")):
        meant = meaning(zones, order)
        found = _note(zones, order, meant)
        for name in sorted(meant.instances | order.people):
            _tombstone(zones, order, name, meant)
        for prefix in sorted(meant.images):
            release.purge(layout.image(project, prefix))
        for half in sorted(meant.half):
            release.purge(layout.release_manifest(project, half))
            release.purge(layout.in_release(project, half, ""))
        for candidate in sorted(meant.unpublished):     # its marker first: half of it must not look whole
            zones.candidate.purge(layout.candidate_manifest(project, candidate))
            zones.candidate.purge(layout.in_candidate(project, candidate, ""))
        for prefix in sorted(meant.dicom):
            zones.candidate.purge(prefix)
    return meant, found


def sweep(zones: Zones, order: Order) -> tuple[Meant, Found]:
    """Withdraw again, then remove the older parts, clinical snapshots and tables that held any of it; look that nothing
    is left. Raises RecallRefused where no candidate without the recalled is sealed yet, or something does not go."""
    project, candidate = zones.project, zones.candidate
    meant, found = withdraw(zones, order)
    newest = _newest(zones)
    if newest is None or newest in meant.published | meant.unpublished:
        raise RecallRefused("There is no candidate yet that is without what was recalled.", hint="Build one first.")
    for part in sorted(meant.parts):
        candidate.purge(layout.candidate_part(project, part))
    for snapshot in sorted(meant.clinical):
        candidate.purge(layout.clinical(project, snapshot, "").removesuffix(".parquet"))
    for one in sorted(meant.published):
        for prefix in layout.candidate_rows(project, one):
            candidate.purge(prefix)
    left = meaning(zones, order)
    again = sum(zones.release.purge(layout.image(project, prefix)) for prefix in sorted(left.images))
    rows = any(_rows_left(zones, one) for one in left.published)
    parts = any(True for part in left.parts for _ in candidate.list(layout.candidate_part(project, part)))
    if again or rows or parts or left.dicom or left.clinical or left.unpublished or left.half:
        raise RecallRefused("Something of what was recalled is still in a zone, or came back while it was removed.",
                            hint="Stop builds that were started before the recall, and carry it out again.")
    return meant, found


def meaning(zones: Zones, order: Order) -> Meant:
    """Return what the order means today; reads only."""
    meant, project = Meant(), zones.project
    objects = {bytes.fromhex(digest) for digest in order.objects}
    for part in _names(zones.work, layout.parts(project), layout.outcomes("", "")):
        for row in tables.read(zones.work, layout.outcomes(project, part), _MAP).to_pylist():
            if row["instance"] and (row["patient"] in order.people or row["instance"] in order.instances
                                    or row["source_sha256"] in objects):
                _image(meant, row)
                if row["output_key"]:
                    meant.parts.add(part)
    for part, prefix, patient, study, series, instance in _stored(zones):
        if patient in order.people or instance in order.instances or instance in meant.instances:
            meant.parts.add(part)
            meant.dicom.add(prefix)
            _image(meant, {"patient": patient, "study": study, "series": series, "instance": instance})
    meant.images |= {f"{patient}/" for patient in order.people}
    given = _given(zones)
    for release in _children(zones.release, layout.releases(project)):
        keys = [entry.key for entry in zones.release.list(layout.in_release(project, release, "tables/"))]
        keys.append(layout.in_release(project, release, layout.CATALOGUE))
        counts = {key.rpartition("/")[2].removesuffix(".parquet"): rows
                  for key in keys if (rows := _rows(zones.release, key, order, meant))}
        if counts and release in given:
            meant.rows[release] = counts
        elif counts:
            meant.half.add(release)
    published = set(given.values())
    for snapshot in _children(zones.candidate, layout.clinical_snapshots(project)):
        prefix = layout.clinical(project, snapshot, "").removesuffix(".parquet")
        if order.people and any(_rows(zones.candidate, e.key, order, meant) for e in zones.candidate.list(prefix)):
            meant.clinical.add(snapshot)
    for candidate in _children(zones.candidate, layout.candidates(project)):
        if _holds(zones, candidate, order, meant):
            (meant.published if candidate in published else meant.unpublished).add(candidate)
    return meant


def _image(meant: Meant, row: dict[str, Any]) -> None:
    name = f"{row['patient']}/{row['study']}/{row['series']}/{row['instance']}."
    meant.instances.add(row["instance"])
    meant.images.add(name)
    if digest := row.get("output_sha256"):
        path = layout.image_path(row["patient"], row["study"], row["series"], row["instance"], digest.hex())
        meant.digests[path] = digest.hex()


def _rows(store: ObjectStore, key: str, order: Order, meant: Meant) -> int:
    """Count the rows of a table that are of a recalled person or instance; in a release, note the images they name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = tables.read(store, key, ["patient_id", "sop_instance_uid", "report_uid", "path"])
    except NotFound:
        return 0
    if not table.column_names:      # of nobody
        return 0
    hit = pa.array([False] * table.num_rows, pa.bool_())
    instances = meant.instances | order.instances
    for column, names in (("patient_id", order.people), ("sop_instance_uid", instances), ("report_uid", instances)):
        if column in table.column_names and names:
            hit = pc.or_(hit, pc.is_in(table[column].combine_chunks(), value_set=pa.array(sorted(names), pa.string())))
    hits = table.filter(hit)
    if {"path", "sop_instance_uid"} <= set(hits.column_names):      # of images; a measurement's path is another thing
        for path, uid in zip(hits["path"].to_pylist(), hits["sop_instance_uid"].to_pylist(), strict=True):
            meant.instances.add(uid)
            meant.images.add(path[: 1 - _TAIL])
    return int(hits.num_rows)


def _holds(zones: Zones, candidate: str, order: Order, meant: Meant) -> bool:
    """Whether a candidate was made of anything that is recalled, or its tables hold any of it."""
    project = zones.project
    try:
        plan = json.loads(zones.candidate.read(layout.plan(project, candidate)))
    except NotFound:
        plan = {"parts": [], "clinical": None}
    if meant.parts & set(plan["parts"]) or (plan["clinical"] or {}).get("id") in meant.clinical:
        return True
    base = layout.candidate_rows(project, candidate)[:2]
    keys = [entry.key for prefix in base for entry in zones.candidate.list(prefix)]
    return any(_rows(zones.candidate, key, order, meant) for key in keys if key.endswith(".parquet"))


def _rows_left(zones: Zones, candidate: str) -> bool:
    return any(True for prefix in layout.candidate_rows(zones.project, candidate) for _ in zones.candidate.list(prefix))


def _given(zones: Zones) -> dict[str, str]:
    """Return release → candidate of what researchers have been given: the current release and those before it."""
    found: dict[str, str] = {}
    try:
        doc = json.loads(zones.release.read(layout.current(zones.project)))
    except NotFound:
        return found
    while doc:
        found[doc["release"]] = doc["candidate"]
        before = doc["predecessor"]
        key = layout.release_manifest(zones.project, before["release"]) if before else ""
        doc = json.loads(zones.release.read(key)) if before else None
    return found


def _newest(zones: Zones) -> str | None:
    """Return the newest sealed candidate."""
    try:
        name = str(json.loads(zones.candidate.read(layout.latest_candidate(zones.project)))["candidate"])
    except NotFound:
        return None
    return name if zones.candidate.stat(layout.candidate_manifest(zones.project, name)) else None


def _tombstone(zones: Zones, order: Order, name: str, meant: Meant) -> None:
    """Say that an instance, or a person under their pseudonym, was taken back; the first tombstone stands."""
    doc = {"schema_version": layout.SCHEMA_VERSION, "recall": order.id, "reason": order.reason,
           "date": order.when[:10], "releases": sorted(meant.rows)}
    data = json.dumps(doc, sort_keys=True, indent=1).encode() + b"\n"
    zones.release.create(layout.tombstone(zones.project, name), data)


def _note(zones: Zones, order: Order, meant: Meant) -> Found:
    """Add what is there now to what earlier runs of this order found; write it down; return all of it."""
    project, key = zones.project, layout.recall_found(zones.project, order.id)
    try:
        doc = json.loads(zones.work.read(key))
    except NotFound:
        doc = {"objects": [], "others": {}, "instances": []}
    objects = {(zone, name): digest for zone, name, digest in doc["objects"]}
    others: dict[str, int] = dict(doc["others"])
    instances = {*doc["instances"], *meant.instances}
    image = layout.image(project, "")
    for prefix in sorted(meant.images):
        for entry in zones.release.list(image + prefix):
            objects[("release", entry.key)] = meant.digests.get(entry.key.removeprefix(image), "")
    for prefix in sorted(meant.dicom):
        for entry in zones.candidate.list(prefix):
            path = entry.key.partition("/dicom/")[2]
            objects[("candidate", entry.key)] = meant.digests.get(path, "")
    held = {part: [layout.candidate_part(project, part)] for part in meant.parts}
    held |= {one: [layout.clinical(project, one, "").removesuffix(".parquet")] for one in meant.clinical}
    held |= {one: [layout.in_candidate(project, one, "")] for one in meant.unpublished}
    held |= {one: layout.candidate_rows(project, one) for one in meant.published}
    for half in meant.half:
        folder = layout.in_release(project, half, "")
        others[half] = max(others.get(half, 0), sum(1 for _ in zones.release.list(folder)))
    for name, prefixes in held.items():
        there = {entry.key for prefix in prefixes for entry in zones.candidate.list(prefix)}
        others[name] = max(others.get(name, 0), len([k for k in there if ("candidate", k) not in objects]))
    new = {"schema_version": layout.SCHEMA_VERSION, "recall": order.id, "others": dict(sorted(others.items())),
           "instances": sorted(instances),
           "objects": [[zone, name, digest] for (zone, name), digest in sorted(objects.items())]}
    if new != doc:
        zones.work.write(key, json.dumps(new, indent=1).encode() + b"\n")
    return Found(objects, others, instances)


def _stored(zones: Zones) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield (part, key up to the digest, patient, study, series, instance) of each image in the candidate zone."""
    prefix = layout.candidate_parts(zones.project)
    for entry in zones.candidate.list(prefix):
        names = entry.key.removeprefix(prefix).split("/")
        if len(names) == 6 and names[1] == "dicom":
            part, _, patient, study, series, file = names
            yield part, entry.key[: 1 - _TAIL], patient, study, series, file[:-_TAIL]


def _names(store: ObjectStore, prefix: str, example: str) -> list[str]:
    """Return the directories below `prefix` that hold the marker `example` ends with."""
    marker = example.rpartition("/")[2]
    names = (entry.key.removeprefix(prefix).split("/") for entry in store.list(prefix))
    return [parts[0] for parts in names if parts[1:] == [marker]]


def _children(store: ObjectStore, prefix: str) -> list[str]:
    return sorted({entry.key.removeprefix(prefix).split("/")[0] for entry in store.list(prefix)})

"""Quarantined objects: list them, look at one, close one. Digests, reason codes and tags; no value and no name.

Retrying is building again: a changed plan, recipe or person gives a shard a new part, where each object is judged anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import NotFound, UsageError
from pipeline.ledger import sources
from pipeline.model import REASONS, Reason, Status
from pipeline.storage import ObjectStore, tables

SHORT = 12


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined object. `tag`: GGGGEEEE at which it was refused; `closed`: an officer's reason, who and when."""

    sha256: str
    reason: str
    tag: str | None
    part: str
    sop_class_uid: str | None = None
    transfer_syntax_uid: str | None = None
    modality: str | None = None
    bytes: int = 0
    batch: str | None = None
    closed: dict[str, Any] | None = None

    @property
    def short(self) -> str:
        return self.sha256[:SHORT]

    @property
    def meaning(self) -> str:
        return REASONS[Reason(self.reason)][1] if self.reason in set(Reason) else ""


def listed(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, *, candidate_id: str | None = None,
           include_closed: bool = False) -> list[Quarantined]:
    """Return what the candidate's parts (default: the latest candidate's; where there is none, every part) hold in
    quarantine, by digest. Raises NotFound, SchemaTooNew."""
    found: dict[str, Quarantined] = {}
    for part in _parts(config, work, candidate, candidate_id):
        rows = tables.read(work, layout.outcomes(config.name, part), ["source_sha256", "status", "reason", "tag"])
        for row in rows.filter(pc.equal(rows["status"], Status.QUARANTINED.value)).to_pylist():
            sha256 = row["source_sha256"].hex()
            found[sha256] = Quarantined(sha256, row["reason"], row["tag"], part)
    for sha256, more in _inventoried(config, work, found):
        found[sha256] = replace(found[sha256], **more)
    prefix = layout.all_quarantine_closed(config.name)
    for entry in work.list(prefix) if found else ():
        sha256 = entry.key.removeprefix(prefix).removesuffix(".json")
        if sha256 in found:
            found[sha256] = replace(found[sha256], closed=sources.read_json(work, entry.key))
    return [item for _, item in sorted(found.items()) if include_closed or item.closed is None]


def show(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, digest: str, *,
         candidate_id: str | None = None) -> Quarantined:
    """Return the quarantined object whose digest starts with `digest` (hex). Raises NotFound, UsageError."""
    every = listed(config, work, candidate, candidate_id=candidate_id, include_closed=True)
    found = [item for item in every if digest and item.sha256.startswith(digest.lower())]
    if not found:
        raise NotFound("No quarantined object has that digest.", hint="See `tre quarantine list`.")
    if len(found) > 1:
        raise UsageError("More than one quarantined object has that digest.", hint="Give more of its digits.")
    return found[0]


def close(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, digest: str, reason: str, who: str, *,
          candidate_id: str | None = None) -> Quarantined:
    """Record that nobody will work on this object any more, why, who says so and when; return it.

    Closing again changes nothing: the first record stands. The object stays quarantined in the ledger.
    """
    if not reason.strip():
        raise UsageError("Closing needs a reason.", hint="Give --reason.")
    item = show(config, work, candidate, digest, candidate_id=candidate_id)
    doc = {"schema_version": layout.SCHEMA_VERSION, "source_sha256": item.sha256, "reason": reason.strip(), "who": who,
           "when": work.now().isoformat(timespec="seconds")}
    work.create(layout.quarantine_closed(config.name, item.sha256), json.dumps(doc, indent=1, sort_keys=True).encode())
    return show(config, work, candidate, item.sha256, candidate_id=candidate_id)


def _parts(config: ProjectConfig, work: ObjectStore, candidate: ObjectStore, candidate_id: str | None) -> list[str]:
    latest = sources.read_json(candidate, layout.latest_candidate(config.name)) if candidate_id is None else None
    candidate_id = latest["candidate"] if latest else candidate_id
    if candidate_id is None:
        return sources.known_parts(work, config.name)
    inputs = sources.read_json(work, layout.candidate_inputs(config.name, candidate_id))
    if inputs is None:
        raise NotFound("The inputs of that candidate are not in the work zone.", hint="See `tre status` for ids.")
    return sorted(inputs["parts"])


def _inventoried(config: ProjectConfig, work: ObjectStore,
                 found: dict[str, Quarantined]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the inventories say of the found digests."""
    if not found:
        return
    wanted = pa.array(sorted(bytes.fromhex(sha256) for sha256 in found), pa.binary(32))
    columns = ["sop_class_uid", "transfer_syntax_uid", "modality", "bytes"]
    for batch, key in sources.inventories(work, config.name):
        rows = tables.read(work, key, ["source_sha256", "status", *columns])
        rows = rows.filter(pc.equal(rows["status"], Status.PENDING.value))
        for row in rows.filter(pc.is_in(rows["source_sha256"], value_set=wanted)).to_pylist():
            yield row["source_sha256"].hex(), {**{name: row[name] for name in columns}, "batch": batch}

"""The approval record: who said yes or no to exactly these bytes. One record a candidate, written once.

It stands in the candidate zone, where `publish` reads it (docs/adr/0004). Its `when` is outside every digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import ApprovalRefused, NotFound, SchemaTooNew
from pipeline.storage import ObjectStore

SCHEMA_VERSION = 1
Decision = Literal["approve", "reject"]
_SAME = ("candidate", "digest", "approver", "decision")


def record(candidate_store: ObjectStore, config: ProjectConfig, candidate_id: str, digest: str, approver: str,
           triggered_by: str, decision: Decision, when: datetime) -> dict[str, Any]:
    """Write the answer to a sealed candidate; return the record that stands. The same answer again changes nothing.

    `digest`: SHA-256 (hex) of the candidate.json that the approver was shown. `when`: aware. Raises ApprovalRefused
    where the candidate has other bytes now, a newer one has taken its place, the approver may not answer (not named,
    not an officer of the project, or who triggered the run unless the project is a demo), or another answer stands.
    """
    approver, triggered_by = approver.strip(), triggered_by.strip()
    if decision not in ("approve", "reject"):
        raise ApprovalRefused("The answer to a candidate is approve or reject.")
    if not approver or not triggered_by:
        raise ApprovalRefused("An approval names who answers and who triggered the run.")
    if _same_person(approver, triggered_by) and not config.project.demo:
        raise ApprovalRefused("The approver is who triggered the run.", hint="Somebody else must answer.")
    may_answer(candidate_store, config, candidate_id, digest, approver)
    doc = {"schema_version": SCHEMA_VERSION, "project": config.name, "candidate": candidate_id, "digest": digest,
           "approver": approver, "triggered_by": triggered_by, "decision": decision,
           "when": when.astimezone(UTC).isoformat(timespec="seconds")}
    key = layout.approval(config.name, candidate_id)
    candidate_store.create(key, json.dumps(doc, sort_keys=True, indent=1).encode() + b"\n")
    stands = _read(candidate_store, key)        # read back: where two answer at once, one answer stands for both
    if stands is None or any(stands.get(name) != doc[name] for name in _SAME):
        raise ApprovalRefused("Another answer to this candidate stands.", hint="Build a new candidate to ask again.")
    return stands


def may_answer(candidate_store: ObjectStore, config: ProjectConfig, candidate_id: str, digest: str,
               approver: str) -> None:
    """Raise ApprovalRefused where the candidate has other bytes, a newer one has taken its place, or the approver is
    not one of the project's."""
    if config.approve.officers and approver not in config.approve.officers:
        raise ApprovalRefused("The approver is not an officer of this project.", hint="See [approve] officers.")
    manifest = _manifest(candidate_store, config.name, candidate_id, digest)
    if bool(manifest.get("demo")) != config.project.demo:
        raise ApprovalRefused("The candidate and the project file do not agree that this is a demo.")
    latest = _read(candidate_store, layout.latest_candidate(config.name))
    if latest is not None and latest.get("candidate") != candidate_id:
        raise ApprovalRefused("A newer candidate has taken this one's place.", hint="Answer the newer one.")


def check(candidate_store: ObjectStore, project: str, candidate_id: str, digest: str) -> dict[str, Any]:
    """Return the approval of exactly these bytes. Raises ApprovalRefused: none, rejected, of other bytes, not valid."""
    doc = _read(candidate_store, layout.approval(project, candidate_id))
    if doc is None:
        raise ApprovalRefused("Nobody has approved this candidate.", hint="Silence rejects.")
    if doc.get("decision") != "approve":
        raise ApprovalRefused("This candidate was rejected.")
    if (doc.get("project"), doc.get("candidate")) != (project, candidate_id) or doc.get("digest") != digest:
        raise ApprovalRefused("The approval is of another candidate, or of other bytes of this one.")
    manifest = _manifest(candidate_store, project, candidate_id, digest)
    approver, triggered_by = str(doc.get("approver") or ""), str(doc.get("triggered_by") or "")
    if not approver or not triggered_by or (_same_person(approver, triggered_by) and manifest.get("demo") is not True):
        raise ApprovalRefused("The approver is who triggered the run, or is not named.")
    return doc


def standing(candidate_store: ObjectStore, project: str, candidate_id: str) -> str | None:
    """Return the decision that stands for a candidate, approve or reject; None while nobody has answered."""
    doc = _read(candidate_store, layout.approval(project, candidate_id))
    return None if doc is None else str(doc.get("decision"))


def _same_person(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _manifest(store: ObjectStore, project: str, candidate_id: str, digest: str) -> Mapping[str, Any]:
    """Return candidate.json, whose SHA-256 must be `digest`."""
    try:
        data = store.read(layout.candidate_manifest(project, candidate_id))
    except NotFound:
        raise ApprovalRefused("There is no such candidate.") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise ApprovalRefused("The candidate's bytes are not those that were shown for approval.")
    found: dict[str, Any] = json.loads(data)
    return found


def _read(store: ObjectStore, key: str) -> dict[str, Any] | None:
    try:
        doc: Any = json.loads(store.read(key))
    except NotFound:
        return None
    except ValueError:
        raise ApprovalRefused("A record in the candidate zone is damaged.") from None
    if not isinstance(doc, dict) or not isinstance(version := doc.get("schema_version", 0), int):
        raise ApprovalRefused("A record in the candidate zone is damaged.")
    if version > SCHEMA_VERSION:
        raise SchemaTooNew("An approval was written by a newer version.", hint="Upgrade tre-ingest.")
    return doc

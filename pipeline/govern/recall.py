"""Recall orders: what may never pass again, who said so, why, when. They stand in the work zone and nowhere else.

An order names people by pseudonym and instances by digest, so that a build can tell without a name whom it leaves out.
From the moment an order is written no part, clinical table or candidate is made with what it names. No order is undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import ApprovalRefused, NotFound, SchemaTooNew, UsageError
from pipeline.storage import ObjectStore


class Why(StrEnum):
    """The reason code of a recall. A tombstone carries it, so there is no free text."""

    WITHDRAWN = "withdrawn"                     # the person withdrew, or opted out after publication
    SENT_IN_ERROR = "sent_in_error"             # the hospital should not have sent it
    WRONG_PERSON = "wrong_person"               # linked to somebody else
    IDENTIFIER_FOUND = "identifier_found"       # an identifier was found in what was published
    NOT_PERMITTED = "not_permitted"             # the project may no longer hold it
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Order:
    """What is recalled. `people`: pseudonyms. `locals`: keyed digests of local ids that lead to nobody. `objects`,
    `uids`: SHA-256 (hex) of landed bytes and of original SOP Instance UIDs. `instances`: output SOP Instance UIDs."""

    id: str
    reason: str
    approver: str
    requested_by: str
    when: str
    people: frozenset[str]
    locals: frozenset[str]
    objects: frozenset[str]
    uids: frozenset[str]
    instances: frozenset[str]
    asked: Mapping[str, int]


def why(text: str) -> str:
    """Return the reason code. Raises UsageError, naming the codes."""
    if text not in set(Why):
        raise UsageError(f"The reason of a recall is one of {', '.join(Why)}.", hint="Tombstones carry no free text.")
    return str(text)


_SETS = ("people", "locals", "objects", "uids", "instances")


@dataclass(frozen=True, slots=True)
class Recalls:
    """All that a project has recalled, as a build asks about it."""

    people: frozenset[str]
    locals: frozenset[str]
    objects: frozenset[str]
    uids: frozenset[str]

    def names(self, row: Mapping[str, Any]) -> bool:
        """Whether an inventory row is itself recalled: by its bytes, or by its SOP Instance UID whatever its bytes."""
        if self.objects and bytes(row["source_sha256"]).hex() in self.objects:
            return True
        uid = row.get("sop_instance_uid")
        return bool(self.uids and uid and layout.uid_digest(uid) in self.uids)


def orders(work: ObjectStore, project: str) -> list[Order]:
    """Return every order of the project, by id. Raises SchemaTooNew."""
    return [_read(work, entry.key) for entry in work.list(layout.recalls(project))]


def order(work: ObjectStore, project: str, recall: str) -> Order:
    """Return one order. Raises NotFound."""
    try:
        if not layout.ID.fullmatch(recall):
            raise NotFound("Not an id.")
        return _read(work, layout.recall(project, recall))
    except NotFound:
        raise NotFound("There is no such recall order.", hint="`tre recall` prints the order's id.") from None


def standing(work: ObjectStore, project: str) -> Recalls:
    """Return what all orders of the project name."""
    every = orders(work, project)
    return Recalls(*(frozenset().union(*(getattr(o, name) for o in every)) for name in _SETS[:4]))


def may_order(config: ProjectConfig, approver: str, requested_by: str) -> None:
    """Raise ApprovalRefused where these two may not recall: the same rules as for a release."""
    if not approver.strip() or not requested_by.strip():
        raise ApprovalRefused("A recall names who approves it and who asks for it.", hint="Give --approver NAME.")
    if config.approve.officers and approver not in config.approve.officers:
        raise ApprovalRefused("The approver is not an officer of this project.", hint="See [approve] officers.")
    if approver.casefold() == requested_by.casefold() and not config.project.demo:
        raise ApprovalRefused("The approver is who asks for the recall.", hint="Somebody else must approve.")


def write(work: ObjectStore, project: str, new: Order) -> Order:
    """Write the order unless one of this id stands; return the one that stands."""
    doc: dict[str, Any] = {
        "schema_version": layout.SCHEMA_VERSION, "project": project, "recall": new.id, "reason": new.reason,
        "approver": new.approver, "requested_by": new.requested_by, "when": new.when, "asked": dict(new.asked),
        **{name: sorted(getattr(new, name)) for name in _SETS}}
    work.create(layout.recall(project, new.id), json.dumps(doc, sort_keys=True, indent=1).encode() + b"\n")
    return order(work, project, new.id)


def order_id(secret: bytes, project: str, kind: str, named: Iterable[str]) -> str:
    """Return the opaque id of a recall: the same people, or the same instances, are the same recall."""
    return layout.keyed("x", secret, ["recall", project, kind, *sorted(named)])


def _read(work: ObjectStore, key: str) -> Order:
    doc = json.loads(work.read(key))
    if int(doc.get("schema_version", 0)) > layout.SCHEMA_VERSION:
        raise SchemaTooNew("A recall order was written by a newer version.", hint="Upgrade tre-ingest.")
    sets = {name: frozenset(doc[name]) for name in _SETS}
    return Order(doc["recall"], doc["reason"], doc["approver"], doc["requested_by"], doc["when"], asked=doc["asked"],
                 **sets)

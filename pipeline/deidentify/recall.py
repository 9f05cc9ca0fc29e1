"""Whom and what a recall means, found on the identifiable side: lines that name people or instances in; pseudonyms and
digests out. No line is quoted in a message, only its number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.deidentify import nhs
from pipeline.deidentify.crosswalk import Crosswalk, person_of
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import NotFound, UsageError
from pipeline.model import Status
from pipeline.storage import ObjectStore, tables

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_COLUMNS = ["issuer", "patient_id", "source_sha256", "sop_instance_uid", "status"]
Key = tuple[str, str]


@dataclass(slots=True)
class Meant:
    """What is to be recalled, as `govern.recall.Order` holds it. `asked`: people, instances; what was asked for."""

    people: set[str] = field(default_factory=set)
    locals: set[str] = field(default_factory=set)
    objects: set[str] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)
    instances: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)


def lines_of(text: str) -> list[str]:
    """Return the lines of a list that say something; one that starts with `#` is a comment."""
    return [line for raw in text.splitlines() if (line := raw.strip()) and not line.startswith("#")]


def pseudonyms_of(key: Key, config: ProjectConfig, crosswalk: Crosswalk, pseudonyms: Pseudonyms) -> set[str]:
    """Return every pseudonym the person may have had: in a linked project, one a number that the present one replaced.

    A build asks with the person's present number, an older release may hold them under a former one.
    """
    numbers = crosswalk.numbers(key[1]) if config.project.linked else {key[1]}
    return {pseudonyms.person(key[0], number) for number in numbers}


def people(config: ProjectConfig, crosswalk: Crosswalk, pseudonyms: Pseudonyms, work: ObjectStore,
           inventories: Iterable[str], lines: Sequence[str]) -> Meant:
    """Find the people of lines `ISSUER:LOCALID` (or, in a linked project, an NHS number), and all that landed of them.

    Raises UsageError where a line is no such thing, NotFound where nobody is known by it.
    """
    keys: set[Key] = set()
    local: set[Key] = set()
    numbered: dict[int, tuple[Key | None, Key | None]] = {}
    for number, line in enumerate(lines, 1):
        key, given = _person(line, number, config, crosswalk)
        numbered[number] = key, given
        keys |= {key} if key else set()
        local |= {given} if given and not key else set()
    found: set[Key] = set()
    meant = Meant(asked={"people": len(lines)})
    for row, who in _rows(work, inventories, config, crosswalk):
        given = (layout.normalise(row["issuer"]) or "", layout.normalise(row["patient_id"]) or "")
        if who in keys or given in local:
            found |= {who} if who in keys else {given}
            _add(meant, row, pseudonyms)
    for number, (key, given) in numbered.items():
        known = key is not None and (not config.project.linked or crosswalk.knows(key[1]))
        if not known and not {key, given} & found:
            raise NotFound(f"Line {number}: nobody is known by that.", hint="Check issuer and id; nothing was changed.")
    for key in keys:
        meant.people |= pseudonyms_of(key, config, crosswalk, pseudonyms)
    meant.locals = {local_digest(pseudonyms, *one) for one in local}
    return meant


def instances(config: ProjectConfig, crosswalk: Crosswalk, pseudonyms: Pseudonyms, work: ObjectStore,
              inventories: Iterable[str], outcomes: Iterable[str], lines: Sequence[str]) -> Meant:
    """Find the instances of lines: an original SOP Instance UID, a released one, or the SHA-256 of the landed bytes.

    Raises UsageError where a line is none of these, NotFound where nothing that landed is meant by it.
    """
    wanted: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not (_DIGEST.fullmatch(line) or (_UID.fullmatch(line) and len(line) <= 64)):
            raise UsageError(f"Line {number} is neither a UID nor a SHA-256 in hex.")
        wanted[line.lower()] = number
    meant, found = Meant(asked={"instances": len(wanted)}), set()
    released: dict[str, set[str]] = {}       # source digest → the lines that mean it by its released UID
    for key in outcomes:
        table = tables.read(work, key, ["source_sha256", "instance"])
        for digest, uid in zip(table["source_sha256"].to_pylist(), table["instance"].to_pylist(), strict=True):
            if uid in wanted:
                released.setdefault(digest.hex(), set()).add(uid)
    for row, _ in _rows(work, inventories, config, crosswalk):
        digest, uid = bytes(row["source_sha256"]).hex(), row["sop_instance_uid"]
        hits = ({digest, uid} & wanted.keys()) | released.get(digest, set())
        if hits:
            found |= hits
            _add(meant, row, pseudonyms)
    for line, number in wanted.items():
        if line not in found:
            raise NotFound(f"Line {number}: nothing that landed is meant by it.", hint="Nothing was changed.")
    return meant


def local_digest(pseudonyms: Pseudonyms, issuer: str, local_id: str) -> str:
    return pseudonyms.digest("recalled", issuer, local_id).hex()


def _person(line: str, number: int, config: ProjectConfig, crosswalk: Crosswalk) -> tuple[Key | None, Key | None]:
    """Return (person, (issuer, local id)) of a line; one of the two may be None."""
    issuer, colon, local = line.partition(":")
    given = (layout.normalise(issuer) or "", layout.normalise(local) or "")
    if config.project.linked and (not colon or given[0] == layout.NHS_ISSUER):
        nhs_number = nhs.normalise(local if colon else line)
        if nhs_number:
            return (layout.NHS_ISSUER, crosswalk.current(nhs_number)), None
    if not colon or not given[0] or not given[1]:
        raise UsageError(f"Line {number} does not name a person.", hint="Write ISSUER:LOCALID, or an NHS number.")
    return person_of({"issuer": given[0], "patient_id": given[1]}, config, crosswalk).key, given


def _rows(work: ObjectStore, inventories: Iterable[str], config: ProjectConfig,
          crosswalk: Crosswalk) -> Iterator[tuple[dict[str, Any], Key | None]]:
    """Yield every admitted object with the person behind it."""
    known: dict[tuple[str | None, str | None], Key | None] = {}
    for key in inventories:
        table = tables.read(work, key, _COLUMNS)
        for batch in table.to_batches(65_536):
            for row in batch.to_pylist():
                if row["status"] != Status.PENDING:
                    continue
                pair = row["issuer"], row["patient_id"]
                if pair not in known:
                    known[pair] = person_of(row, config, crosswalk).key
                yield row, known[pair]


def _add(meant: Meant, row: dict[str, Any], pseudonyms: Pseudonyms) -> None:
    meant.objects.add(bytes(row["source_sha256"]).hex())
    if uid := row["sop_instance_uid"]:
        meant.uids.add(layout.uid_digest(uid))
        meant.instances.add(pseudonyms.uid(uid))

"""The audit log: who did what to which candidate, release, order or cohort, when and why. It only grows.

One object an entry in the work zone, `audit/00000001.json` and so on. Each names the SHA-256 of the one before, so an
entry that is changed, taken out or put elsewhere shows (`verify`). The chain is not keyed: who can write the whole zone
can write a whole new chain, or cut off its end. What shows even that is the digest of the newest entry, kept elsewhere.

An act that must be entered is entered twice: as `begun` before anything is done, and as `done` or `failed` after. Where
the first cannot be written the act does not take place. Where the second cannot, the step fails although it was done:
it is done again, as every step may be. A process that was killed leaves `begun` with no end, and that shows too.

No identity stands here: opaque ids, digests, counts, names of staff, and a reason that people write without patients.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline import layout
from pipeline.errors import AuditLogBroken, LeaseHeld, NotFound, SchemaTooNew, TreError, UsageError
from pipeline.storage import ObjectStore

SCHEMA_VERSION = 1
NOTHING = "0" * 64          # what the first entry names as the one before
PATIENCE = 90.0             # seconds to wait for others who write; a dead machine's lease runs out before that
_LEASE_SECONDS = 30.0
State = Literal["begun", "done", "failed"]
_NAME = re.compile(r"([0-9]{8})\.json")
# Opaque ids (layout.ID), releases, digests and their first digits. Ten digits without a letter may be a person's.
_OPAQUE = re.compile(rf"{layout.ID.pattern}|\d{{4}}-[0-9a-f]{{12}}|(?=[0-9]*[a-f])[0-9a-f]{{8,64}}")
_NUMBER_OF_A_PERSON = re.compile(r"\d[\d\s./_-]{7,}\d")
_TITLE = 200
_MOST = 99_999_999


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry, and the SHA-256 (hex) of its bytes. `of`: the entry that began what this one ends."""

    sequence: int
    project: str
    time: str
    who: str
    what: str
    state: State
    ids: Mapping[str, str]
    counts: Mapping[str, int]
    reason: str
    of: int | None
    previous: str
    sha256: str


@dataclass(slots=True)
class Act:
    """What is being done: `ids` and `counts` that are put here stand in the entry that ends it."""

    ids: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def note(self, result: Mapping[str, Any]) -> None:
        """Take over what of a step's result may stand in the log."""
        for name, value in result.items():
            if isinstance(value, int) and not isinstance(value, bool):
                self.counts[name] = value
            elif isinstance(value, str) and _OPAQUE.fullmatch(value):
                self.ids[name] = value


@contextmanager
def act(work: ObjectStore, project: str, what: str, who: str, *, ids: Mapping[str, str] | None = None,
        reason: str = "") -> Iterator[Act]:
    """Enter an act before it begins and when it ends. Raises UsageError (see `told`), LeaseHeld, what a store raises;
    then nothing was done, unless the block had ended."""
    doing = Act(dict(ids or {}))
    begun = append(work, project, what, who, "begun", ids=doing.ids, reason=reason)
    try:
        yield doing
    except BaseException as error:
        doing.ids["error"] = error.code if isinstance(error, TreError) else "unforeseen"
        with suppress(Exception):       # the act's own error is what the caller must see; `begun` stands without an end
            append(work, project, what, who, "failed", ids=doing.ids, of=begun.sequence)
        raise
    append(work, project, what, who, "done", ids=doing.ids, counts=doing.counts, of=begun.sequence)


def append(work: ObjectStore, project: str, what: str, who: str, state: State, *, ids: Mapping[str, str] | None = None,
           counts: Mapping[str, int] | None = None, reason: str = "", of: int | None = None) -> Entry:
    """Write the next entry, and return it. Of two who write at once each gets a number of its own.

    Raises UsageError where a text may not stand here, LeaseHeld where others write for longer than PATIENCE.
    """
    from pipeline.storage import lease

    doc: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION, "project": project, "who": told("who", who), "what": what, "state": state,
        "ids": {k: v for k, v in sorted((ids or {}).items()) if k == "error" or _OPAQUE.fullmatch(v)},
        "counts": dict(sorted((counts or {}).items())), "reason": told("reason", reason) if reason else "", "of": of,
        "token": secrets.token_hex(8),      # tells our own entry from another's, where a store's answer was lost
    }
    until = time.monotonic() + PATIENCE
    written: Entry | None = None
    while written is None:
        try:
            with lease.hold(work, layout.lease(project, "audit"), seconds=_LEASE_SECONDS):
                written = _next(work, project, doc)
        except LeaseHeld:       # held by another; or lost after our entry stood, and `create` gave it its number
            if written is None and time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.02, 0.2))  # noqa: S311
    return written


def _next(work: ObjectStore, project: str, doc: Mapping[str, Any]) -> Entry:
    """Create the entry after the last one. The lease keeps others away; `create` refuses a number that is taken."""
    while True:
        numbers = _numbers(work, project)
        last = max(numbers, default=0)
        if last >= _MOST:
            raise AuditLogBroken("The audit log holds an entry that nobody can follow.", hint="tre audit-log verify.")
        previous = hashlib.sha256(work.read(layout.audit_entry(project, last))).hexdigest() if last else NOTHING
        full = {**doc, "sequence": last + 1, "time": work.now().isoformat(timespec="seconds"), "previous": previous}
        data = json.dumps(full, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"
        key = layout.audit_entry(project, last + 1)
        work.create(key, data)
        if work.read(key) == data:
            return _entry(data)


def told(name: str, text: str) -> str:
    """Return a text that people wrote, if it may stand in the log. Raises UsageError.

    One line, and nothing that looks like a number of a person. That it holds no name of a patient nobody can check.
    """
    text = text.strip()
    if not text or len(text) > _TITLE or not text.isprintable():
        raise UsageError(f"--{name} is one line of at most {_TITLE} characters.", hint="It stands in the audit log.")
    if name != "who" and _NUMBER_OF_A_PERSON.search(text):     # accounts of staff may be numbers
        raise UsageError(f"--{name} holds what may be a number of a person.",
                         hint="The audit log holds no identity: write what was decided, and by which paper.")
    return text


def entries(work: ObjectStore, project: str) -> Iterator[Entry]:
    """Yield the entries in their order. Raises SchemaTooNew, ValueError where one cannot be read (see `verify`)."""
    for number in sorted(_numbers(work, project)):
        yield _entry(work.read(layout.audit_entry(project, number)))


def who_did(work: ObjectStore, project: str, what: str, ids: Mapping[str, str]) -> str | None:
    """Return who did this last, of these ids; None where no entry that can be read tells of it."""
    for number in sorted(_numbers(work, project), reverse=True):
        with suppress(ValueError):
            entry = _entry(work.read(layout.audit_entry(project, number)))
            if (entry.what, entry.state) == (what, "done") and ids.items() <= entry.ids.items():
                return entry.who
    return None


@dataclass(frozen=True, slots=True)
class Checked:
    """What `verify` found. `head`: digest of the newest entry, to be kept elsewhere. `open`: entries begun and not
    ended."""

    entries: int
    head: str
    wrong: tuple[str, ...]
    open: tuple[int, ...]


def head(work: ObjectStore, project: str) -> str:
    """Return the digest (SHA-256, hex) of the newest entry."""
    last = max(_numbers(work, project), default=0)
    return hashlib.sha256(work.read(layout.audit_entry(project, last))).hexdigest() if last else NOTHING


def released_heads(release: ObjectStore, project: str) -> dict[str, str]:
    """Return, by release, the head that the audit log had when it was published: kept by another zone."""
    found: dict[str, str] = {}
    for entry in release.list(layout.releases(project)):
        name = entry.key.removeprefix(layout.releases(project)).partition("/")[0]
        if entry.key == layout.in_release(project, name, "run.json"):
            with suppress(ValueError, AttributeError):
                if said := json.loads(release.read(entry.key)).get("audit_head"):
                    found[name] = str(said)
    return found


def verify(work: ObjectStore, project: str, kept: str | None = None,
           released: Mapping[str, str] | None = None) -> Checked:
    """Follow the chain from its first entry, and name what is wrong with which entry.

    `kept`: a head's digest that was noted earlier; `released`: see `released_heads`. An entry must still have each.
    Without them nobody can tell whether the chain's end was cut off.
    """
    numbers = _numbers(work, project)
    last, wrong, digests = max(numbers, default=0), [], {}
    ends: set[int] = set()
    begun: dict[int, str] = {}
    before: int | None = None
    prefix = layout.audit_log(project)
    strange = sum(1 for entry in work.list(prefix) if not _NAME.fullmatch(entry.key.removeprefix(prefix)))
    if strange:
        wrong.append(f"{strange} objects among the entries are none")
    expected = 1
    for number in sorted(numbers):
        if number > expected:
            some = f"entry {expected} is" if number == expected + 1 else f"entries {expected} to {number - 1} are"
            wrong.append(f"{some} missing")
        expected = number + 1
        try:
            entry = _entry(work.read(layout.audit_entry(project, number)))
        except (NotFound, ValueError, SchemaTooNew):
            wrong.append(f"entry {number} cannot be read")
            continue
        digests[number] = entry.sha256
        if entry.sequence != number:
            wrong.append(f"entry {number} was put there from elsewhere: it says that it is entry {entry.sequence}")
        if before == number - 1 and number - 1 in digests and entry.previous != digests[number - 1]:
            wrong.append(f"entry {number - 1} is not the one that entry {number} was written after: one was changed")
        if number == 1 and entry.previous != NOTHING:
            wrong.append("entry 1 was not the first")
        before = number
        if entry.project != project:
            wrong.append(f"entry {number} is of another project")
        if entry.state == "begun":
            begun[number] = entry.what
        elif entry.of is not None and begun.get(entry.of) != entry.what:
            wrong.append(f"entry {number} ends what no entry began")
        elif entry.of:
            ends.add(entry.of)
    if kept and kept.lower() not in digests.values():
        wrong.append("no entry has the digest that was kept: the end was cut off, or it was changed")
    wrong += [f"no entry has the digest that release {name} was published with: the end was cut off, or it was changed"
              for name, one in sorted((released or {}).items()) if one not in digests.values()]
    return Checked(len(numbers), digests.get(last, NOTHING), tuple(wrong), tuple(n for n in begun if n not in ends))


def _numbers(work: ObjectStore, project: str) -> set[int]:
    prefix = layout.audit_log(project)
    names = (_NAME.fullmatch(entry.key.removeprefix(prefix)) for entry in work.list(prefix))
    return {int(match[1]) for match in names if match}


def _entry(data: bytes) -> Entry:
    """Read an entry. Raises SchemaTooNew, ValueError."""
    try:
        doc = json.loads(data)
        if doc["schema_version"] > SCHEMA_VERSION:
            raise SchemaTooNew("An audit entry was written by a newer version.", hint="Upgrade tre-ingest.")
        read: dict[str, Callable[[Any], Any]] = {
            "sequence": int, "project": str, "time": str, "who": str, "what": str, "state": str, "ids": dict,
            "counts": dict, "reason": str, "previous": str}
        fields = {name: kind(doc[name]) for name, kind in read.items()}
        of = doc["of"] if doc["of"] is None else int(doc["of"])
        return Entry(**fields, of=of, sha256=hashlib.sha256(data).hexdigest())
    except (KeyError, TypeError, AttributeError):
        raise ValueError("not an entry") from None

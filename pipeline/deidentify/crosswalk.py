"""Who is behind a local id: the crosswalk (issuer, local id → NHS number), and its memory of who was who.

The file is CSV in UTF-8 with the header `issuer,local_id,nhs_number` and, where numbers were replaced, a fourth column
`superseded_nhs_number`: the old number that the row's `nhs_number` stands in for. A row may hold only those two.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.deidentify import nhs
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.errors import CrosswalkRefused, KeyRefused
from pipeline.layout import normalise
from pipeline.model import Reason
from pipeline.schemas import KNOWN_PEOPLE
from pipeline.storage import ObjectStore

COLUMNS = ("issuer", "local_id", "nhs_number")
SUPERSEDED = "superseded_nhs_number"
KEY = "key"     # stands among the digests of known local ids, for the id of the key that made them


@dataclass(frozen=True, slots=True)
class Resolved:
    """An NHS number, or why there is none."""

    nhs: str | None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """The person behind an image as (issuer, id), or why nobody can be told."""

    key: tuple[str, str] | None
    reason: Reason | None = None

    @property
    def id(self) -> str | None:
        """One text for the person: what the permitted people are matched by."""
        return layout.person(*self.key) if self.key else None


class Crosswalk:
    """`links`: (issuer, local id) → the current numbers given for it, an invalid one as "". `current`: old → newest."""

    def __init__(self, links: Mapping[tuple[str, str], frozenset[str]], current: Mapping[str, str]) -> None:
        self.links, self._current = links, current

    def resolve(self, issuer: str, local_id: str) -> Resolved:
        """Return the NHS number of a local id (both normalised). An invalid number beside a valid one is ambiguous."""
        numbers = self.links.get((issuer, local_id), frozenset())
        if len(numbers) > 1:
            return Resolved(None, Reason.PERSON_AMBIGUOUS)
        number = next(iter(numbers), "")
        return Resolved(number) if number else Resolved(None, Reason.PERSON_NOT_LINKED)

    def current(self, number: str) -> str:
        """Return the number that stands for this one today."""
        return self._current.get(number, number)

    def knows(self, number: str) -> bool:
        """Whether a local id leads to this current number and to no other."""
        return number in self._local_ids

    def numbers(self, number: str) -> frozenset[str]:
        """Return this current number and those that it superseded."""
        return frozenset({number, *self._former.get(number, ())})

    def identifiers(self, number: str) -> frozenset[str]:
        """Return every id of the person with this current number: itself, those it superseded, local ids."""
        return frozenset({number, *self._former.get(number, ()), *self._local_ids.get(number, ())})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over what the file says, whatever its order, spacing and repeats."""
        fields: list[bytes | str | int] = []
        for (issuer, local_id), numbers in sorted(self.links.items()):
            fields += [issuer, local_id, len(numbers), *sorted(numbers)]
        for old, new in sorted(self._current.items()):
            fields += ["superseded", old, new]
        return hashlib.sha256(layout.encode(fields)).hexdigest()

    @cached_property
    def _local_ids(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for (_, local_id), numbers in self.links.items():
            if len(numbers) == 1 and "" not in numbers:
                found[next(iter(numbers))].add(local_id)
        return dict(found)

    @cached_property
    def _former(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for old, new in self._current.items():
            found[new].add(old)
        return dict(found)


def load(config: ProjectConfig) -> Crosswalk:
    """Return the project's crosswalk; an empty one where the project is not linked. Raises CrosswalkRefused.

    A message names at most a line of the file. An empty file is refused: it would hold everybody back in silence.
    """
    if not config.project.linked:
        return Crosswalk({}, {})
    if config.deidentify.crosswalk is None:
        raise CrosswalkRefused("A linked project needs a crosswalk.", hint="Name the file in [deidentify] crosswalk.")
    try:
        data = config.beside(config.deidentify.crosswalk).read_bytes()
    except OSError as error:
        raise CrosswalkRefused(f"The crosswalk, {config.deidentify.crosswalk}, cannot be read ({error.strerror}).",
                               hint="Put it beside the project file, or mend [deidentify] crosswalk.") from None
    return parse(data)


def parse(data: bytes) -> Crosswalk:
    """Read a crosswalk's bytes. Raises CrosswalkRefused."""
    links: dict[tuple[str, str], set[str]] = defaultdict(set)
    current: dict[str, str] = {}
    for line, issuer, local_id, number, old in _rows(data):
        valid = nhs.normalise(number)
        if old:
            was = nhs.normalise(old)
            if not valid or not was or valid == was or current.setdefault(was, valid) != valid:
                raise CrosswalkRefused(f"The crosswalk's line {line}: this superseded number cannot be understood.",
                                       hint="Both numbers must be valid and different, and an old one has one new one.")
        if issuer and local_id:
            links[issuer, local_id].update([valid or ""] if number else [])
        elif issuer or local_id or not old:
            raise CrosswalkRefused(f"The crosswalk's line {line}: issuer or local_id is empty.")
    if not links:
        raise CrosswalkRefused("The crosswalk holds nobody.")
    newest = {old: _newest(old, current) for old in current}
    return Crosswalk({k: frozenset(newest.get(n, n) for n in v) for k, v in links.items()}, newest)


def _rows(data: bytes) -> Iterable[tuple[int, str | None, str | None, str, str]]:
    try:
        lines = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = tuple(name.strip() for name in next(lines, []))
        if header not in (COLUMNS, (*COLUMNS, SUPERSEDED)):
            raise CrosswalkRefused(f"The crosswalk's header is not {','.join(COLUMNS)}[,{SUPERSEDED}].")
        for row in lines:
            if not row:
                continue
            if len(row) != len(header):
                raise CrosswalkRefused(f"The crosswalk's line {lines.line_num}: not {len(header)} fields.")
            old = row[3].strip() if len(row) > 3 else ""
            yield lines.line_num, normalise(row[0]), normalise(row[1]), row[2].strip(), old
    except UnicodeDecodeError:
        raise CrosswalkRefused("The crosswalk is not UTF-8.") from None
    except csv.Error:
        raise CrosswalkRefused(f"The crosswalk's line {lines.line_num}: not CSV.") from None


def _newest(number: str, current: Mapping[str, str]) -> str:
    passed = set()
    while number in current:
        if number in passed:
            raise CrosswalkRefused("The crosswalk's superseded numbers go round in a circle.")
        passed.add(number)
        number = current[number]
    return number


def person_of(row: Mapping[str, Any], config: ProjectConfig, crosswalk: Crosswalk) -> Person:
    """Return the person behind an inventory row (`issuer`, `patient_id`).

    Linked: (OID of the NHS number, the crosswalk's number); a local id that looks like an NHS number is still a local
    id. Not linked: (issuer, local id).
    """
    issuer, local_id = normalise(row.get("issuer")), normalise(row.get("patient_id"))
    if not local_id:
        return Person(None, Reason.PERSON_ID_MISSING)
    if not issuer:
        return Person(None, Reason.ISSUER_UNKNOWN)
    if not config.project.linked:
        return Person((issuer, local_id))
    found = crosswalk.resolve(issuer, local_id)
    return Person((layout.NHS_ISSUER, found.nhs)) if found.nhs else Person(None, found.reason)


def pairs(rows: Iterable[Mapping[str, Any]], config: ProjectConfig, crosswalk: Crosswalk,
          pseudonyms: Pseudonyms) -> dict[str, str]:
    """Return for `guard` the keyed digest of each (issuer, local id) that stands for somebody, and their pseudonym."""
    found: dict[str, str] = {}
    for issuer, local_id in {(r.get("issuer"), r.get("patient_id")) for r in rows}:
        who = person_of({"issuer": issuer, "patient_id": local_id}, config, crosswalk)
        if who.key:
            digest = pseudonyms.digest("known", normalise(issuer) or "", normalise(local_id) or "")
            found[digest.hex()] = pseudonyms.person(*who.key)
    return found


def guard(work: ObjectStore, config: ProjectConfig, pairs: Mapping[str, str], *, key_id: str = "",
          remember: bool = True) -> int:
    """Refuse a crosswalk that gives a known local id to another person; then remember `pairs`; return how many changed.

    With `key_id` (Key.id), refuse another key than the one remembered: under it nobody would be known.

    Without `remember` nothing is written: a build looks before its first object moves, and remembers when it is put
    together. A local id that leads to nobody now is not a change (its images are held, by reason), and is remembered
    for when it comes back. Raises KeyRefused; CrosswalkRefused with the number of local ids, unless the project file
    accepts them.
    """
    from pipeline.storage import tables

    key = layout.known_people(config.name)
    known: dict[str, str] = {}
    if work.stat(key) is not None:
        table = tables.read(work, key)
        known = dict(zip(table["local"].to_pylist(), table["person"].to_pylist(), strict=True))
    pairs = {**pairs, KEY: key_id} if key_id else pairs
    if key_id and known.get(KEY, key_id) != key_id:
        raise KeyRefused(
            f"{config.name}.key is not the key of this project's earlier builds: everybody would get a new pseudonym.",
            hint="Put that key back. What begins anew with another key needs zones of its own.")
    changed = sum(known.get(local, person) != person for local, person in pairs.items())
    if changed and not config.deidentify.accept_crosswalk_changes:
        raise CrosswalkRefused(
            f"The crosswalk would give {changed} local ids that earlier builds used to other people.",
            hint="Have it checked; to go on, set [deidentify] accept_crosswalk_changes = true for one build.")
    after = {**known, **pairs}
    if remember and after != known:
        tables.write(work, key, tables.from_rows(
            KNOWN_PEOPLE, ({"local": local, "person": person} for local, person in sorted(after.items()))))
    return changed

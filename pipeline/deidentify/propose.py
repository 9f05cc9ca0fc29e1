"""Terms proposed for approval: what free text says in at least k people's images, from the headers of what landed.

Of each series one object is read, as far as its pixel data. What fewer people have is counted and never written: it may
tell one of them from all others. What looks like an identifier is counted likewise.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline import layout
from pipeline.deidentify.language import attribute
from pipeline.deidentify.plan import Op, PlanSet
from pipeline.deidentify.terms import COLUMNS, LONGEST, Terms, flaw, normal
from pipeline.deidentify.tokens import TOKEN_TAGS
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.file import CHUNK, Scan, scan, scan_of
from pipeline.errors import NotFound, UsageError
from pipeline.model import Refusal
from pipeline.observe import track
from pipeline.storage import ObjectStore

if TYPE_CHECKING:
    from pipeline.deidentify.shard import Decided

NAME = re.compile(r"[^\W\d_]{3,}")      # a word of a name
HEADER = ("attribute", "term", "people", "series", "note", "approver", "date")


class Term(NamedTuple):
    """One line of a proposal. `people` and `series` have it. `note`: what an officer should know of it."""

    attribute: str
    term: str
    people: int
    series: int
    note: str = ""
    approver: str = ""
    date: str = ""


@dataclass(slots=True)
class Proposal:
    """`series`: read. By attribute: `rare` terms that fewer than k people have, those that `looks_like` an identifier
    or cannot be written, and `empty` series, in which it is absent."""

    terms: list[Term] = field(default_factory=list)
    series: int = 0
    unreadable: int = 0
    rare: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)


def tags_of(plans: PlanSet, names: Iterable[str]) -> dict[int, str]:
    """Return tag → keyword of the named attributes; of those that the recipes ask terms for, where none is named.

    Raises UsageError where an attribute holds no free text that may be kept, or there is none.
    """
    from pydicom.datadict import keyword_for_tag

    found = {}
    for name in names:
        tag, vr = attribute(name)
        if tag is None or vr not in LONGEST or tag in TOKEN_TAGS:
            raise UsageError("An attribute is named that holds no free text, or names and numbers of people.",
                             hint="Give keywords of PS3.6 such as SeriesDescription.")
        found[tag] = name
    found = found or {tag: keyword_for_tag(tag) for plan in plans.plans.values() for tag, act in plan.acts.items()
                      if act.op is Op.TERM}
    if not found:
        raise UsageError("No recipe of the project keeps free text.",
                         hint="Write REPLACE SeriesDescription func:term in a recipe, or give --attribute.")
    return dict(sorted(found.items()))


def propose(landing: ObjectStore, shards: Iterable[list[Decided]], tags: dict[int, str], approved: Terms,
            people: int) -> Proposal:
    """Read one object of every series that may pass; return what may be proposed. `people`: the k of the project."""
    found = Proposal()
    seen: set[str] = set()
    who: defaultdict[tuple[int, str], set[int]] = defaultdict(set)      # people by number
    spelt: defaultdict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    numbers: dict[tuple[str, str], int] = {}
    names: set[str] = set()
    for decided in track(shards, "shards"):
        for one in decided:
            series = one.row["series_uid"]
            if one.reason is not None or one.person is None or series in seen:
                continue
            try:
                header = _header(landing, one.row["source_uri"].removeprefix(landing.url + "/"), one.row["bytes"])
                codecs = encodings(header.value(0x00080005))
            except (Refusal, NotFound):
                found.unreadable += 1
                continue        # another object of the series may be readable
            seen.add(series)
            names |= _names(header, codecs)
            person = numbers.setdefault(one.person, len(numbers))
            for tag, name in tags.items():
                text = layout.normalise(decode(header.value(tag) or b"", codecs))
                if text is None:
                    found.empty[name] += 1
                else:
                    who[tag, normal(text)].add(person)
                    spelt[tag, normal(text)][text] += 1
    found.series = len(seen)
    before = {(line.attribute, normal(line.term)): line for line in approved.lines}
    for (tag, said), persons in who.items():
        name, spellings = tags[tag], spelt[tag, said]
        text = min(spellings, key=lambda one: (-spellings[one], one))
        old = before.pop((name, said), None)
        if old is None and len(persons) < people:
            found.rare[name] += 1
        elif old is None and flaw(name, text):
            found.refused[name] += 1
        else:
            note = "a word of it is a word of somebody's name" if _words(said) & names else ""
            found.terms.append(Term(
                name, old.term if old else text, max(len(persons), old.people if old else 0), spellings.total(), note,
                *((old.approver, old.date.isoformat()) if old else ("", ""))))
    found.terms += [Term(line.attribute, line.term, line.people, 0, "", line.approver, line.date.isoformat())
                    for line in before.values()]
    found.terms.sort(key=lambda one: (one.attribute, -one.people, one.term))
    return found


def write(path: Path, proposal: Proposal) -> None:
    """Write the proposal as a list of terms without approvers, readable and writable by its owner alone."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(HEADER)
    lines.writerows(proposal.terms)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"The proposal cannot be written ({error.strerror}).") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())


def _header(landing: ObjectStore, key: str, size: int) -> Scan:
    """Scan an object as far as its pixel data, from its first bytes; whole only where they do not suffice."""
    with landing.open(key) as stream:
        head = stream.read(CHUNK)
    with suppress(OSError):     # more is needed: there is no file to read it from
        return scan(-1, size, head, pixels=False)
    with landing.fetch(key) as path:
        return scan_of(path)


def _names(header: Scan, codecs: tuple[str, ...]) -> set[str]:
    """Return the words of all names at the top of a header, of patients and of staff."""
    return {word for tag, kind in TOKEN_TAGS.items() if kind == "name" and (raw := header.value(tag))
            for word in _words(normal(decode(raw, codecs, person_name=True)))}


def _words(text: str) -> set[str]:
    return set(NAME.findall(text))


assert set(COLUMNS) < set(HEADER)

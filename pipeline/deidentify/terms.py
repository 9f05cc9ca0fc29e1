"""Approved terms: what of free text a project keeps. Data, read strictly; pure but for reading the file.

A recipe says `REPLACE SeriesDescription func:term`. The value stays if the whole of it, with white space and case put
aside, is one of the attribute's approved terms, and is emptied otherwise. What is written is the list's own spelling,
never a byte of the file.

The list is a CSV with the columns of `COLUMNS`: `tre terms propose` writes it, an officer fills in `approver` and
`date` line by line and deletes what may not stay.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pipeline import layout
from pipeline.deidentify import nhs
from pipeline.deidentify.language import attribute
from pipeline.errors import TermsRefused

COLUMNS = ("attribute", "term", "people", "approver", "date")
NOTES = ("series", "note")      # may stand in the file too: what a proposal says beside each term
LEAST_PEOPLE = 5                # below this no project may go
LARGEST = 1 << 22               # bytes of the file
LONGEST = {"SH": 16, "LO": 64, "ST": 1024, "LT": 10240, "UC": 1024, "UT": 10240}       # characters (PS3.5 6.2)
_LOOKS_LIKE = (
    ("a date", re.compile(r"(?<!\d)\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?!\d)|(?<!\d)(19|20)\d\d[01]\d[0-3]\d(?!\d)|"
                          r"(?i:(?<!\d)\d{1,2}(?:st|nd|rd|th)?[\s./-]*(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)"
                          r"[a-z]*[\s./,-]*\d{2,4}(?!\d))")),
    ("a number of six digits or more", re.compile(r"\d(?:[\s./_-]?\d){5,}")),
    ("an e-mail address", re.compile(r"\S@\S")),
    ("a postcode", re.compile(r"(?i)(?<![a-z0-9])[a-z]{1,2}\d[a-z\d]?\s*\d[abd-hjlnp-uw-z]{2}(?![a-z0-9])")),
)


class Approved(NamedTuple):
    """One line of the list."""

    attribute: str
    term: str
    people: int
    approver: str
    date: date


@dataclass(frozen=True)
class Terms:
    """What is approved, by tag: a value put in its normal form → the term as it is written. `sha256`: of the file."""

    by_tag: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    sha256: str = ""
    lines: tuple[Approved, ...] = ()

    @property
    def count(self) -> int:
        return sum(map(len, self.by_tag.values()))

    def digest(self, tags: frozenset[int]) -> str:
        """Return H of what the list says of these attributes: part of the id of a plan that asks for them."""
        words: list[bytes | str | int] = []
        for tag in sorted(tags):
            words += [tag, *sorted(self.by_tag.get(tag, {}).values())]
        return layout.hashed("t", words)


NOTHING = Terms()


def normal(text: str) -> str:
    """Return text as terms are compared: NFC and case-folded, white space and NULs outside off, inside as one space."""
    return (layout.normalise(text) or "").casefold()


def looks_like(term: str) -> str | None:
    """Return what of a person a term looks like; None where it does not."""
    for what, pattern in _LOOKS_LIKE:
        if pattern.search(term):
            return what
    if any(nhs.normalise(word) for word in term.split()):
        return "an NHS number"
    return None


def flaw(attribute_name: str, term: str) -> str | None:
    """Return why a term can be no approved one; None where it can."""
    tag, vr = attribute(attribute_name)
    if tag is None or vr not in LONGEST:
        return "the attribute is none of PS3.6 that holds free text"
    if not term or term != layout.normalise(term) or not term.isprintable():
        return "the term is empty, or has white space that is not one space between words"
    if not term.isascii() or set(term) & set("\\~"):        # the same bytes in every character set of DICOM
        return "the term has a character that not every character set of DICOM writes alike"
    if term[0] in "=@" or (term[0] in "+-" and set(term) & set("(!|")):       # +C is a term of CT
        return "the term is a formula to a spreadsheet"
    if len(term) > LONGEST[vr]:
        return f"the term is longer than the {LONGEST[vr]} characters of {vr}"
    if found := looks_like(term):
        return f"the term looks like {found}"
    return None


def read(path: Path | None, least: int) -> Terms:
    """Return the approved terms of a project; none where it names no file. `least`: people behind each.

    Raises TermsRefused with the line, and never the term.
    """
    if path is None:
        return NOTHING
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise TermsRefused(f"{path.name}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise TermsRefused(f"{path.name}: not UTF-8.", hint="Save it as CSV in UTF-8.") from None
    if len(data) > LARGEST:
        raise TermsRefused(f"{path.name}: larger than 4 MiB.")
    found: dict[int, dict[str, str]] = {}
    approved: list[Approved] = []
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(lines, [])
        if sorted(set(header) - set(NOTES)) != sorted(COLUMNS) or len(set(header)) < len(header):
            raise TermsRefused(f"{path.name}:1: the header is not that of a list of terms.",
                               hint=f"Columns: {', '.join(COLUMNS)}; {' and '.join(NOTES)} may stand beside them.")
        for cells in lines:
            where = f"{path.name}:{lines.line_num}"
            if len(cells) != len(header):
                raise TermsRefused(f"{where}: {len(cells)} cells, and the header has {len(header)}.")
            one = _line(where, dict(zip(header, cells, strict=True)), least)
            tag, _ = attribute(one.attribute)
            known = found.setdefault(tag or 0, {})
            if normal(one.term) in known:
                raise TermsRefused(f"{where}: this term stands in the list already.", hint="Keep one of the two lines.")
            known[normal(one.term)] = one.term
            approved.append(one)
    except csv.Error:
        raise TermsRefused(f"{path.name}:{lines.line_num}: not CSV.") from None
    return Terms(found, hashlib.sha256(data).hexdigest(), tuple(approved))


def _line(where: str, cells: Mapping[str, str], least: int) -> Approved:
    name, term = cells["attribute"], cells["term"]
    if why := flaw(name, term):
        raise TermsRefused(f"{where}: {why}.", hint="Delete the line: its values are emptied then.")
    if not re.fullmatch(r"[0-9]{1,9}", cells["people"]) or int(cells["people"]) < least:
        raise TermsRefused(f"{where}: not seen in {least} people or more.",
                           hint="A rarer term may tell one person from all others: delete the line.")
    try:
        day = date.fromisoformat(cells["date"])
    except ValueError:
        day = None
    approver = layout.normalise(cells["approver"])
    if day is None or not approver or not re.fullmatch(r"\d{4}-\d\d-\d\d", cells["date"]):
        raise TermsRefused(f"{where}: not approved.",
                           hint="Fill in approver and date (YYYY-MM-DD), or delete the line.")
    return Approved(name, term, int(cells["people"]), approver, day)

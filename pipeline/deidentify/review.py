"""What a recipe set does to every attribute, in words an officer reads; and what changes from one set to another.

Compared is meaning, not text: what stays of an attribute, of a report's item, of a region of pixels. Pure but for
reading the recipes. No value of any patient: what is said is said of rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.deidentify import concepts as concept_rules
from pipeline.deidentify import pixel_rules
from pipeline.deidentify.concepts import Concepts
from pipeline.deidentify.coverage import LEAVES, Row, compare, leaves
from pipeline.deidentify.header import of, with_behind
from pipeline.deidentify.language import RecipeSet, Rule, attribute
from pipeline.deidentify.linter import read
from pipeline.deidentify.pixel_rules import Area, PixelRule
from pipeline.deidentify.plan import Plan, compile_rules
from pipeline.deidentify.profile import BASIC, OPTIONS
from pipeline.errors import UsageError

WORDS = {
    "removed": "Removed.", "emptied": "Stands there without a value.",
    "remapped": "Renamed: a new unique number, the same wherever the old one stood.",
    "moved": "Moved into the past by the person's own number of days.",
    "banded": "Replaced by an age band.", "entered": "Opened: what is inside is treated by these same rules.",
    "cleaned": "Stays only where each term is on the approved list; emptied otherwise.", "kept": "Stays as it is.",
    "pseudonym": "Replaced by a pseudonym.",
}
_BY_VALUE = {
    "var:patient": "Replaced by the person's pseudonym.", "func:device": "Replaced by a pseudonym of the machine.",
    "func:operator": "Replaced by a pseudonym of the member of staff.",
    "func:time": "Moved by the person's own number of seconds.",
}
_BY_FIELD = {"PixelData": "Stays: the image itself.", "SOPClassUID": "Stays: it says what kind of object this is."}
STANDARD = {"X": ("remove",), "Z": ("empty", "a dummy value"), "D": ("a dummy value",), "U": ("a new unique number",),
            "U*": ("new unique numbers inside",), "C": ("clean",), "K": ("keep",)}
GROUPS = {"kept": "Stays as it is", "cleaned": "Stays in part", "moved": "Stays in part", "banded": "Stays in part",
          "entered": "Stays in part", "remapped": "Replaced", "pseudonym": "Replaced", "emptied": "Emptied",
          "removed": "Removed"}
# PS3.16 CID 7050: what stating the code means to a reader.
CODES = {
    "113100": "All that the standard's Basic Profile lists is removed, emptied or replaced, but for what the options "
              "below let stay, and what is listed above as weaker.",
    "113101": "Every way by which text may stand in the image was looked at: painted over, or read and none found.",
    "113104": "Reports are cleaned item by item: only listed concepts stay, and words come from the dictionary.",
    "113105": "Free text stays only where each term was approved and many people share it.",
    "113107": "Dates and times are moved together, so that the time between a person's events stays true.",
    "113108": "Some of what describes a person stays: sex, the age in bands.",
    "113109": "The machine can be recognised.",
    "113111": "Some of a manufacturer's private elements stay: those known to be safe.",
    "113112": "The institution can be recognised.",
}
TEXT = frozenset(("LO", "SH", "ST", "LT", "UT", "UC"))
ACTIONS = {"keep": ("Stays", 6), "shift": ("Date or time moved", 4), "remap": ("Unique number renamed", 3),
           "device": ("Machine under a pseudonym", 3), "operator": ("Person under a pseudonym", 3),
           "empty": ("Stays without its number", 2), "drop": ("Dropped", 0)}


@dataclass(frozen=True, slots=True)
class Line:
    """One attribute. `verdict`: stricter, equal, weaker; empty where the standard's table does not name it."""

    tag: str
    attribute: str
    name: str
    does: str
    words: str
    standard: str
    verdict: str
    reason: str
    where: str
    by_option: str = ""     # the code of the option claimed, where it stays because of that

    @property
    def group(self) -> str:
        return GROUPS[self.does]


@dataclass(frozen=True, slots=True)
class Item:
    """What happens to one concept of reports."""

    code: str
    meaning: str
    kind: str
    action: str
    note: str
    score: int      # how much stays
    free: bool = False      # whatever the device or a person wrote


@dataclass(frozen=True)
class Reviewed:
    """One recipe set, read and told."""

    files: tuple[tuple[str, str], ...]      # name, SHA-256
    plan: Plan
    lines: tuple[Line, ...]
    items: tuple[Item, ...]
    pixels: tuple[tuple[str, str, str, str], ...]       # label, where it applies, what is done, where it stands
    sop_classes: tuple[str, ...]
    claims: tuple[str, ...]

    @property
    def codes(self) -> list[tuple[str, str, str]]:
        """The codes of CID 7050 that each object states: code, name, what it means."""
        return [(code, name, CODES.get(code, "")) for code, name in self.plan.codes]

    @property
    def options(self) -> list[tuple[str, str, str, list[str]]]:
        """The options claimed: code, name, what it means, what stays by it."""
        by = {code: [line.name or line.attribute for line in self.lines if line.by_option == code]
              for code in (*self.claims, *(line.by_option for line in self.lines if line.by_option))}
        return [(code, OPTIONS[code][0], CODES.get(code, ""), names) for code, names in sorted(by.items())]

    @property
    def text(self) -> list[str]:
        """What stays as it is though anybody may have typed it."""
        return [line.name or line.attribute for line in self.lines if line.does == "kept" and _vr(line) in TEXT]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference in meaning. `direction`: more, less, or other (as much stays, in another form)."""

    kind: str
    what: str
    before: str
    now: str
    direction: str
    attribute: str = ""
    line: Line | None = None        # of an attribute


def review(paths: Sequence[Path], *, keep_times: bool = False) -> Reviewed:
    """Read a set, with the files it stands behind. Raises RecipeRefused where the linter refuses it, UsageError."""
    whole = with_behind(paths)
    texts, tomls = concept_rules.split([str(path) for path in whole])
    if not texts or len(tomls) > 1:
        raise UsageError("A set is one or more .dicom recipes, and at most one file of concept rules.",
                         hint="Try deid_recipes/mammography.dicom")
    rules = read(texts)
    concepts = concept_rules.read(tomls[0]) if tomls else None
    pixels = pixel_rules.read(texts)
    plan = compile_rules(rules, keep_times=keep_times, concepts=concepts, pixels=pixels)
    named = list(dict.fromkeys(name for path in whole for name in of(path).sop_classes))
    return Reviewed(
        tuple((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in whole), plan,
        tuple(_lines(rules, keep_times, concepts)), tuple(_items(concepts)) if concepts else (),
        tuple((rule.label or rule.group, conditions(rule), areas(rule), f"{rule.file}:{rule.line}") for rule in pixels),
        tuple(named), tuple(rules.claims))


# ---- attributes ------------------------------------------------------------------------------------------------------
def _lines(rules: RecipeSet, keep_times: bool, concepts: Concepts | None) -> list[Line]:
    """Weaker first, then what stays, then the rest; each in order of its tag."""
    by_name = {rule.field: rule for rule in rules}
    rows = compare(rules, keep_times=keep_times, concepts=concepts is not None)
    lines = [_of_table(row, by_name) for row in rows]
    said = {line.attribute for line in lines}
    for rule in rules:
        if rule.action != "REMOVE" and not rule.field.startswith("(") and rule.field not in said:
            tag, _ = attribute(rule.field)
            does = leaves(rule)
            assert tag is not None
            lines.append(Line(f"({tag >> 16:04X},{tag & 0xFFFF:04X})", rule.field, _name(tag), does,
                              _words(does, rule), "not named as identifying", "", rule.why,
                              f"{rule.file}:{rule.line}"))
    return sorted(lines, key=lambda line: (line.verdict != "weaker", -LEAVES[line.does] if line.does == "kept" else 0,
                                           line.does == "removed", line.tag))


def _of_table(row: Row, by_name: Mapping[str, Rule]) -> Line:
    rule = by_name.get(row.attribute)
    standard = " or ".join(dict.fromkeys(word for one in row.standard.split("/") for word in STANDARD[one]))
    words = "As the rules for reports say, item by item; else removed." if row.file == "concept rules" else _words(
        row.recipe, rule)
    try:
        name = _name(int(row.tag[1:5] + row.tag[6:10], 16))
    except ValueError:
        name = ""
    private = "xx" in row.tag and row.recipe == "kept"
    if private:
        name = f"{_private_name(row)} (private element of {row.attribute})"
    return Line(row.tag, f"{row.attribute} {row.tag[8:10]}" if private else row.attribute, name, row.recipe, words,
                standard + (f" (option {row.option})" if row.option else ""), row.verdict,
                row.reason or (row.note if private else ""), row.where, row.by_option)


def _private_name(row: Row) -> str:
    from pydicom.datadict import get_private_entry

    try:
        return str(get_private_entry(int(f"{row.tag[1:5]}10{row.tag[8:10]}", 16), row.attribute)[2])
    except KeyError:
        return "Not named in the dictionary"


def _words(does: str, rule: Rule | None) -> str:
    if rule is None:
        return WORDS[does]
    return _BY_FIELD.get(rule.field) or _BY_VALUE.get(rule.value) or WORDS[does]


def _vr(line: Line) -> str:
    from pydicom.datadict import dictionary_VR

    try:
        return dictionary_VR(line.attribute)
    except (KeyError, ValueError):
        return ""       # private


def _name(tag: int) -> str:
    from pydicom.datadict import dictionary_description

    try:
        return dictionary_description(tag)
    except KeyError:
        return ""


# ---- reports and pixels ----------------------------------------------------------------------------------------------
def _items(concepts: Concepts) -> list[Item]:
    found = []
    for (code, kind), rule in concepts.rules.items():
        words, score = ACTIONS[rule.action]
        listed = rule.values is not None
        free = rule.action == "keep" and kind == "TEXT" and not listed
        note = f"one of {len(rule.values or ())} listed values" if listed else rule.why
        found.append(Item(" ".join(filter(None, code)), concepts.meaning(code) or "an item without a name", kind, words,
                          note, score - listed, free))
    return sorted(found, key=lambda item: (not item.free, -item.score, item.kind, item.meaning, item.code))


def conditions(rule: PixelRule) -> str:
    """Return in words which images a rule for pixels is for."""
    said = {"contains": "{} contains “{}”", "notcontains": "{} does not contain “{}”", "equals": "{} is “{}”",
            "notequals": "{} is not “{}”", "present": "{} is there", "missing": "{} is not there"}
    return ", and ".join(said[c.test].format(c.keyword, c.value.upper()) for c in rule.conditions) or "every image"


def areas(rule: PixelRule) -> str:
    """Return in words what a rule paints over."""
    def one(area: Area) -> str:
        if area.regions:
            place = "the ultrasound regions that the header names"
        elif area.box:
            x0, y0, x1, y1 = area.box
            place = f"columns {x0} to {x1 - 1}, rows {y0} to {y1 - 1}"
        else:
            place = "the whole image"
        return f"{'left as it is' if area.keep else 'painted over'}: {place}"
    return "; ".join(map(one, rule.areas))


# ---- differences -----------------------------------------------------------------------------------------------------
def differences(new: Reviewed, old: Reviewed) -> list[Change]:
    """Return what `new` does otherwise than `old`; what becomes more exposed first."""
    found = []
    before = {line.attribute: line for line in old.lines}
    now = {line.attribute: line for line in new.lines}
    for name in {**now, **before}:
        a, b = before.get(name), now.get(name)
        does = [line.does if line else "removed" for line in (a, b)]
        words = [line.words if line else WORDS["removed"] for line in (a, b)]
        if does != ["removed", "removed"] and words[0] != words[1]:
            way = _way(LEAVES[does[0]], LEAVES[does[1]])
            found.append(Change("attribute", name, words[0], words[1], way, name,
                                b or (a and replace(a, where="", reason=""))))
        elif a and b and "weaker" in (a.verdict, b.verdict) and (a.verdict, a.reason) != (b.verdict, b.reason):
            was, is_ = (f"{one.verdict}: {one.reason}" if one.reason else one.verdict for one in (a, b))
            found.append(Change("reason", name, was, is_, "other", line=b))
    items = [{(item.code, item.kind): item for item in one.items} for one in (old, new)]
    for key in {**items[1], **items[0]}:
        one, other = (found_.get(key) for found_ in items)
        said = [_told(item) for item in (one, other)]
        if said[0] != said[1] and (one.score if one else 0, other.score if other else 0) != (0, 0):
            meaning = (other or one).meaning if (other or one) else ""     # type: ignore[union-attr]
            found.append(Change("report item", f"{meaning} ({' '.join(key)})", said[0], said[1],
                                _way(one.score if one else 0, other.score if other else 0)))
    found += _pixels(new.plan.pixel_rules, old.plan.pixel_rules)
    for name in sorted({*new.sop_classes} ^ {*old.sop_classes}):
        there = name in new.sop_classes
        before_now = ("not covered", "covered") if there else ("covered", "not covered")
        found.append(Change("objects", name, *before_now, "more" if there else "less"))
    names = {code: name for code, (name, _) in OPTIONS.items()} | dict((BASIC,))
    for kind, word, sets in (("claim", "claimed", [{code for code, *_ in one.options} for one in (old, new)]),
                             ("statement", "stated", [{code for code, _ in one.plan.codes} for one in (old, new)])):
        for code in sorted(sets[0] ^ sets[1]):
            was, now_ = (word if code in one else f"not {word}" for one in sets)
            found.append(Change(kind, f"{code} {names[code]}", was, now_, "other"))
    order = {"more": 0, "less": 1, "other": 2}
    return sorted(found, key=lambda change: (order[change.direction], change.kind, change.what))


def _pixels(new: Sequence[PixelRule], old: Sequence[PixelRule]) -> list[Change]:
    def said(rules: Sequence[PixelRule]) -> dict[str, PixelRule]:
        return {f"{conditions(rule)}: {areas(rule)}": rule for rule in rules}

    before, now = said(old), said(new)
    gone = [Change("pixels", text, "painted over", "no longer painted over", "more") for text in before
            if text not in now]
    return gone + [Change("pixels", text, "not painted over", "painted over", "less") for text in now
                   if text not in before]


def _told(item: Item | None) -> str:
    return "Dropped" if item is None else f"{item.action}{', ' + item.note if item.note else ''}"


def _way(before: int, now: int) -> str:
    return "more" if now > before else "less" if now < before else "other"

"""Rules for pixels: the `%filter` sections of a recipe, read as strictly as its header.

    %filter graylist
    LABEL Ultrasound: what lies outside the regions goes
    contains Modality US
    + present SequenceOfUltrasoundRegions
    coordinates all
    keepcoordinates from:SequenceOfUltrasoundRegions

A rule applies where all of its conditions hold; then its areas are painted over in the order they stand, and those of
`keepcoordinates` taken out again. x1 and y1 of `x0,y0,x1,y1` lie outside the box, as in deid. No rule uncovers what
another covers (in deid a later label's `keepcoordinates` does). Pure but for reading the recipes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

TESTS = ("contains", "notcontains", "equals", "notequals", "present", "missing")
REGIONS = "SequenceOfUltrasoundRegions"
TEXTS = frozenset({"AE", "CS", "IS", "LO", "SH", "UI"})
_VALUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _/-]*")
_BOX = re.compile(r"([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5}),([0-9]{1,5})")
_SECTION = re.compile(r"%filter ([a-z][a-z0-9_]*)")

Refuse = Callable[[int, str, str, str], None]       # line, rule, what deid does, mend
Box = tuple[int, int, int, int]                     # x0, y0, x1, y1; the last two lie outside


@dataclass(frozen=True, slots=True)
class Condition:
    """`test` of a top-level attribute against `value`, both folded to lower case."""

    test: str
    keyword: str
    tag: int
    value: str

    def holds(self, found: str | None) -> bool:
        """Whether it holds of an attribute's text (values joined by a backslash; None: absent)."""
        text = (found or "").strip().lower()
        if self.test in ("present", "missing"):
            return (found is not None) == (self.test == "present")
        hit = found is not None and (self.value in text if "contains" in self.test else self.value == text)
        return hit != self.test.startswith("not")


@dataclass(frozen=True, slots=True)
class Area:
    """What is painted over, or kept: a box, or (None) all of the image; of a kept area also the ultrasound regions."""

    keep: bool
    box: Box | None = None
    regions: bool = False


@dataclass(frozen=True, slots=True)
class PixelRule:
    """One LABEL."""

    file: str
    line: int
    group: str
    label: str
    conditions: tuple[Condition, ...]
    areas: tuple[Area, ...]

    def canonical(self) -> list[str | int]:
        """Return what the rule means, for ids."""
        words: list[str | int] = ["rule", len(self.conditions)]
        for c in sorted(self.conditions, key=lambda c: (c.tag, c.test, c.value)):
            words += [c.test, c.tag, c.value]
        for area in self.areas:
            words += [int(area.keep), int(area.regions), *(area.box or ())]
        return words


def parse(text: str, file: str, refuse: Refuse) -> tuple[str, list[PixelRule]]:
    """Return the recipe without its `%filter` sections (their lines left empty) and the rules in them."""
    lines = text.split("\n")
    rules: list[PixelRule] = []
    group, label, members = "", (0, ""), list[tuple[int, str]]()
    groups: set[str] = set()

    def close() -> None:
        if label[0]:
            found = _rule(file, group, label, members, refuse)
            if found:
                rules.append(found)
        members.clear()

    inside = False
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if line.startswith("%"):
            close()
            label = (0, "")
            inside = line.lower().startswith("%filter")
            if inside:
                section = _SECTION.fullmatch(line)
                group = section[1] if section else ""
                if not section or group in groups:
                    refuse(number, "filter_section", "exit the process, or forget a group of that name (7)",
                           "write '%filter name' with a name in small letters that stands once")
                groups.add(group)
        if not inside:
            continue
        lines[number - 1] = ""
        if not line or line.startswith(("%", "#")):
            continue
        if not line.isascii() or set(line) & set("#'\t\r"):
            refuse(number, "character", "cut or keep odd characters in names and values (6)",
                   "use plain ASCII and spaces; comments on lines of their own")
        elif line.startswith("LABEL"):
            close()
            label = number, line.removeprefix("LABEL").strip()
        elif not label[0]:
            refuse(number, "filter_outside", "skip the line with a warning",
                   "begin each rule with 'LABEL what it is for'")
        else:
            members.append((number, line))
    close()
    return "\n".join(lines), rules


def _rule(file: str, group: str, label: tuple[int, str], members: Sequence[tuple[int, str]],
          refuse: Refuse) -> PixelRule | None:
    conditions: list[Condition] = []
    areas: list[Area] = []
    sound = True
    for number, line in members:
        if line.lower().startswith(("coordinates", "keepcoordinates", "ctpcoordinates", "ctpkeepcoordinates")):
            area = _area(number, line, first=not areas, refuse=refuse)
            areas += [area] if area else []
            sound = sound and area is not None
        else:
            condition = _condition(number, line, first=not conditions, late=bool(areas), refuse=refuse)
            conditions += [condition] if condition else []
            sound = sound and condition is not None
    if sound and not conditions:
        refuse(label[0], "filter_without_condition", "take the conditions of the rule above it, or fail",
               "say to what it applies, such as 'contains Modality US'")
        return None
    if sound and not areas:
        refuse(label[0], "filter_without_area", "save the flagged image as cleaned, with the same pixels (24)",
               "add 'coordinates x0,y0,x1,y1' or 'coordinates all'")
        return None
    return PixelRule(file, label[0], group, label[1], tuple(conditions), tuple(areas)) if sound else None


def _condition(number: int, line: str, *, first: bool, late: bool, refuse: Refuse) -> Condition | None:
    if "||" in line or line.count("+") > 1 or ("+" in line and not line.startswith("+")):
        refuse(number, "filter_or", "join with AND what was written as OR (24)",
               "write one condition a line, each after the first with '+' before it; another LABEL for OR")
        return None
    if line.startswith("+") == first or late:
        refuse(number, "filter_join", "join with AND all the same, wherever it stands",
               "put the conditions first; no '+' before the first, '+' before each other")
        return None
    test, _, rest = line.removeprefix("+").strip().partition(" ")
    keyword, _, value = rest.strip().partition(" ")
    value = value.strip()
    if test not in TESTS:
        refuse(number, "filter_test", "skip the line with a warning, or take 0 for empty",
               f"write one of {', '.join(TESTS)} in small letters")
        return None
    tag, vr, many = attribute(keyword)
    if tag is None:
        refuse(number, "filter_keyword", "find the attribute absent, in silence (6)", "write a keyword of PS3.6")
        return None
    if test in ("present", "missing"):
        if value:
            refuse(number, "filter_value", "take the value for a part of the keyword", f"write '{test} {keyword}'")
            return None
        return Condition(test, keyword, tag, "")
    if vr not in TEXTS and vr != "US":
        refuse(number, "filter_vr", "compare with how Python prints the value",
               f"name an attribute of VR {', '.join(sorted(TEXTS))} or US; use present or missing for {keyword}")
        return None
    if not _VALUE.fullmatch(value):
        refuse(number, "filter_value", "read the value as a regular expression (9), or exit the process without one",
               "write letters, digits, spaces, '_', '/' and '-' only")
        return None
    if "equals" in test and many:
        refuse(number, "filter_equals", "never find several values equal to one (24)",
               f"write '{test.replace('equals', 'contains')} {keyword} {value}'")
        return None
    return Condition(test, keyword, tag, value.lower())


def _area(number: int, line: str, *, first: bool, refuse: Refuse) -> Area | None:
    word, _, where = line.partition(" ")
    where = where.strip()
    if word not in ("coordinates", "keepcoordinates"):
        refuse(number, "filter_area", "read other numbers than were meant, or exit the process",
               "write 'coordinates x0,y0,x1,y1'; x1 and y1 lie outside the box")
        return None
    keep = word == "keepcoordinates"
    if keep and first:
        refuse(number, "filter_keep_first", "keep what nothing covers, and so change nothing",
               "write 'coordinates all' before it")
        return None
    if where == "all" and not keep:
        return Area(False)
    if where == f"from:{REGIONS}" and keep:
        return Area(True, regions=True)
    found = _BOX.fullmatch(where)
    if not found or int(found[1]) >= int(found[3]) or int(found[2]) >= int(found[4]):
        refuse(number, "filter_area", "exit the process, cover nothing, or keep all",
               f"write 'x0,y0,x1,y1' with x0 < x1 and y0 < y1, 'coordinates all', or 'keepcoordinates from:{REGIONS}'")
        return None
    return Area(keep, (int(found[1]), int(found[2]), int(found[3]), int(found[4])))


def shared_groups(paths: Iterable[str | Path]) -> Iterator[tuple[str, int, str]]:
    """Yield (file, line, group) where a file names a group that one before it names: deid forgets the first (7)."""
    seen: set[str] = set()
    for path in paths:
        mine = {}
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if found := _SECTION.fullmatch(line.strip()):
                mine[found[1]] = number
        for group in seen & mine.keys():
            yield Path(path).name, mine[group], group
        seen |= mine.keys()


def read(paths: Sequence[str | Path]) -> tuple[PixelRule, ...]:
    """Return the rules of recipes that the linter has passed."""
    rules: list[PixelRule] = []
    for path in paths:
        rules += parse(Path(path).read_text(encoding="utf-8"), Path(path).name, lambda *_: None)[1]
    return tuple(rules)


def as_deid_reads(rules: Iterable[PixelRule]) -> dict[str, list[dict[str, Any]]]:
    """Return the rules in the form of deid's own parser, for comparison."""
    out: dict[str, list[dict[str, Any]]] = {}
    for rule in rules:
        filters = [{"action": [c.test], "field": [c.keyword], "operator": "and" if n else None, "InnerOperators": [],
                    "value": [c.value] if c.value else []} for n, c in enumerate(rule.conditions)]
        areas = [[int(a.keep), f"from:{REGIONS}" if a.regions else ",".join(map(str, a.box)) if a.box else "all"]
                 for a in rule.areas]
        out.setdefault(rule.group, []).append({"filters": filters, "coordinates": areas,
                                               "name": f"LABEL {rule.label}".strip()})
    return out


def agrees_with(loaded: Any, rules: Sequence[PixelRule]) -> bool:
    """Whether deid's parser read the same `%filter` groups; it keeps a value's case."""
    try:
        groups = {group: [{**one, "filters": [{**f, "value": [v.lower() for v in f["value"]]} for f in one["filters"]]}
                          for one in labels] for group, labels in (loaded or {}).items() if labels}
    except (AttributeError, KeyError, TypeError):
        return False
    return groups == as_deid_reads(rules)


@lru_cache(maxsize=256)
def attribute(keyword: str) -> tuple[int | None, str, bool]:
    """Return tag, VR and whether it may hold several values, of a keyword of PS3.6; else (None, "", False)."""
    from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    return (tag, dictionary_VR(tag), dictionary_VM(tag) != "1") if tag is not None else (None, "", False)

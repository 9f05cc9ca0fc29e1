"""A set of recipes beside PS3.15 Table E.1-1, row by row: stricter, equal or weaker. Pure.

The standard's action is that of the Basic Profile, or the most lenient of the options that the recipes claim. How much
an action leaves: X nothing; Z no value, or a dummy; D and U a dummy; C a cleaned value; K the value. Of an action that
depends on the attribute's type (X/Z, X/D, X/Z/D, Z/D) each alternative counts as admitted, for a recipe does not know
the type. A date that was moved and an age in a band leave as much as a cleaned value: intervals and classes stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.deidentify.language import PRIVATE, Rule, attribute, read_action
from pipeline.deidentify.profile import BASIC, OPTIONS, PRIVATE_ROW, rows, safe_private, tag_of

# How much stays, from nothing to all. `entered`: a sequence whose items are treated by the same rules.
LEAVES = {"removed": 0, "emptied": 1, "pseudonym": 2, "remapped": 2, "moved": 3, "banded": 3, "entered": 3,
          "cleaned": 3, "kept": 4}
# Of each action of the table: the least and the most that it leaves. An element emptied where X stands shows nothing.
_ACTIONS = {"X": (0, 1), "Z": (1, 2), "D": (2, 2), "U": (2, 2), "U*": (2, 3), "C": (3, 3), "K": (4, 4)}
_VALUES = {"var:patient": "pseudonym", "func:device": "pseudonym", "func:operator": "pseudonym", "func:uid": "remapped",
           "var:empty": "emptied", "var:age_band": "banded", "func:time": "moved", "func:term": "cleaned"}
STRUCTURED, DESCRIPTORS, TIMES_TOO, PRIVATE_OPTION = "113104", "113105", "113107", "113111"
ENGINE = "the engine"           # what no rule says: file meta information is written new
# Attributes of the table that stand in the content of structured reports, where concept rules speak.
CONTENT = ("ContentSequence", "ObservationDateTime", "ObservationUID", "DateTime", "Date", "Time", "PersonName", "UID",
           "ReferencedDateTime")


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute. `standard` is the action under the options claimed, `option` the code of the one that it is from
    (empty: the Basic Profile); `recipe` one of LEAVES; `where` the rule as file:line, or empty where none names it."""

    tag: str
    attribute: str
    basic: str
    standard: str
    option: str
    recipe: str
    verdict: str            # stricter, equal, weaker
    reason: str             # beside a weaker rule
    file: str = ""
    line: int = 0
    note: str = ""

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def by_option(self) -> str:
        """The code of the option by which more stays than the Basic Profile leaves; empty where none is needed."""
        return self.option if self.option and LEAVES[self.recipe] > _most(self.basic) else ""

    @property
    def costs_the_claim(self) -> bool:
        """Whether the Basic Profile cannot be claimed with this row: weaker, and neither a moved date where the table
        admits a dummy one, nor a private element known to be safe by other means than the table (PS3.15 E.3.10)."""
        dummy = self.recipe == "moved" and self.option == "" and set(self.basic.split("/")) & {"Z", "D"}
        return self.verdict == "weaker" and not dummy and not (self.option == PRIVATE_OPTION and self.reason)


def leaves(rule: Rule) -> str:
    """Return what a rule leaves of its attribute: one of LEAVES."""
    if rule.action == "REMOVE":
        return "removed"
    if rule.action == "JITTER":
        return "moved"
    if rule.action == "KEEP":
        return {"UI": "remapped", "SQ": "entered"}.get(attribute(rule.field)[1], "kept")
    return _VALUES[rule.value]


def compare(
    rules: Sequence[Rule], *, claims: Iterable[str] | None = None, keep_times: bool = False, concepts: bool = False
) -> list[Row]:
    """Return a row for each row of the table, then one for each private element kept.

    `claims` are codes of OPTIONS (by default those that the recipes' own comments claim); `concepts` says that concept
    rules treat the content of structured reports, which claims Clean Structured Content by itself, as a rule of
    approved terms claims Clean Descriptors.
    """
    claimed = set(getattr(rules, "claims", ()) if claims is None else claims)
    if concepts:
        claimed.add(STRUCTURED)
    if any(rule.value == "func:term" for rule in rules):
        claimed.add(DESCRIPTORS)
    if not keep_times:
        claimed.discard(TIMES_TOO)      # claimed only where times moved too
    by_tag: dict[int, Rule] = {}
    private = []
    for rule in rules:
        if rule.field.startswith("("):
            private.append(rule)
        elif rule.action != "REMOVE" and (keep_times or rule.value != "func:time"):
            tag = attribute(rule.field)[0]
            if tag is not None:
                by_tag[tag] = rule
    content = {attribute(name)[0] for name in CONTENT} if concepts else set()
    found = [_row(row, by_tag, content, claimed) for row in rows()]
    return found + [_private(rule, claimed) for rule in private]


def needs_reason(line: str) -> bool:
    """Whether a line of a recipe leaves more than the Basic Profile does, so that a reason must stand above it."""
    rule = read_action(line, "", 1, "", lambda *refused: None)
    return rule is not None and any(row.verdict == "weaker" and row.line
                                    for row in compare([rule], keep_times=True))


def _row(row: dict[str, str], by_tag: dict[int, Rule], content: set[int | None], claimed: set[str]) -> Row:
    from pydicom.datadict import keyword_for_tag

    tag = tag_of(row)
    name = (keyword_for_tag(tag) if tag is not None else "") or row["name"]
    standard, option = _standard(row, claimed)
    rule = by_tag.get(tag) if tag is not None else None
    if tag == 0x00020003:
        return Row(row["tag"], name, row["basic_profile"], standard, option, "remapped", "equal", "", ENGINE)
    if rule is None and tag in content:
        note = "as concept rules say, or removed"
        return Row(row["tag"], name, row["basic_profile"], standard, option, "cleaned", "equal", "", "concept rules", 0,
                   note)
    does = leaves(rule) if rule else "removed"
    note = "a sequence: its items by the same rules" if does == "entered" else ""
    if rule is None and row["tag"] == PRIVATE_ROW:
        note = "all but those that stand at the end"
    return Row(row["tag"], name, row["basic_profile"], standard, option, does, _verdict(standard, does),
               rule.why if rule else "", rule.file if rule else "", rule.line if rule else 0, note)


def _private(rule: Rule, claimed: set[str]) -> Row:
    """A private element kept: as the standard has it only if the option is claimed and its table lists it."""
    match = PRIVATE.fullmatch(rule.field)
    assert match is not None, "the linter knows private rules"
    group, creator, element = int(match[1], 16), match[2], int(match[3], 16)
    _, meaning = safe_private().get((group, creator, element), ("", None))
    option = PRIVATE_OPTION if PRIVATE_OPTION in claimed else ""
    listed = meaning is not None
    note = f"listed as safe: {meaning}" if listed else "not listed as safe in the edition at hand"
    return Row(f"({group:04X},xx{element:02X})", creator, "X", "C" if option else "X", option, "kept",
               "equal" if option and listed else "weaker", rule.why, rule.file, rule.line, note)


def _standard(row: dict[str, str], claimed: set[str]) -> tuple[str, str]:
    """Return the action that leaves most among the Basic Profile's and those of the options claimed, and its option."""
    best, option = row["basic_profile"], ""
    for code in sorted(claimed):
        action = row[OPTIONS[code][1]]
        if action and _most(action) > _most(best):
            best, option = action, code
    return best, option


def _most(action: str) -> int:
    return max(_ACTIONS[one][1] for one in action.split("/"))


def _verdict(standard: str, does: str) -> str:
    least = min(_ACTIONS[one][0] for one in standard.split("/"))
    return "stricter" if LEAVES[does] < least else "weaker" if LEAVES[does] > _most(standard) else "equal"


def codes(found: Sequence[Row], *, times_moved: bool) -> tuple[tuple[str, str], ...]:
    """Return the CID 7050 codes that the rows earn, in order: none where the Basic Profile cannot be claimed; an option
    only where something stays because of it; modified dates only where times moved too."""
    if any(row.costs_the_claim for row in found):
        return ()
    used = {row.by_option for row in found} - {""}
    if not times_moved:
        used.discard(TIMES_TOO)
    return (BASIC, *((code, OPTIONS[code][0]) for code in sorted(used)))

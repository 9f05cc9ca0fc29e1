"""deid's recipe language, read strictly: whatever deid would ignore, guess or leave alone is refused, with the mend.

`lint` names each refusal by file, line, rule, what deid 0.4.13 would have done, and how to mend it. `read` returns the
rules of recipes that nothing was found against, after deid's own parser has read the same from them. A rule weaker than
PS3.15 Table E.1-1 needs its reason on a line `# weaker: …` above it (see `coverage`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.deidentify import header, pixel_rules
from pipeline.deidentify.coverage import compare
from pipeline.deidentify.header import read_header
from pipeline.deidentify.language import PRIVATE, Finding, RecipeSet, Rule, attribute, read_action
from pipeline.deidentify.profile import confidentiality_profile
from pipeline.errors import RecipeRefused

__all__ = ["PRIVATE", "Finding", "RecipeSet", "Rule", "attribute", "confidentiality_profile", "lint", "parse", "read"]


def lint(paths: Iterable[str | Path]) -> list[Finding]:
    """Return what stands against these recipes, read as one set in the order given: the first begins the allow-list."""
    return _read(paths, ask_deid=False)[1]


def read(paths: Sequence[str | Path]) -> RecipeSet:
    """Return the rules of a set of recipes. Raises RecipeRefused with the findings."""
    rules, findings = _read(paths, ask_deid=True)
    if findings:
        raise RecipeRefused("\n  ".join(map(str, findings)))
    return rules


def parse(paths: Iterable[str | Path]) -> RecipeSet:
    """Return the rules of a set of recipes as far as they can be read, whatever stands against them."""
    return _read(paths, ask_deid=False)[0]


def _read(paths: Iterable[str | Path], *, ask_deid: bool) -> tuple[RecipeSet, list[Finding]]:
    paths = list(paths)
    rules: list[Rule] = []
    findings: list[Finding] = []
    claims: dict[str, None] = {}
    for path in map(Path, paths):
        found, refused = _lint_file(path, first=not rules)
        findings += refused or (_check_against_deid(path, found) if ask_deid else [])
        rules += found
        claims |= dict.fromkeys(header.of(path).claims)
    whole = RecipeSet(tuple(rules), tuple(sorted(claims)))
    return whole, findings + _conflicts(rules) + _shared_groups(paths) + _weaker(whole)


def _weaker(rules: RecipeSet) -> list[Finding]:
    """Rules that leave more than the standard under the options claimed, and give no reason. A project decides whether
    times move, so both are looked at."""
    found = {}
    for keep_times in (False, True):
        for row in compare(rules, keep_times=keep_times):
            if row.verdict == "weaker" and not row.reason and row.line:
                found[row.file, row.line] = Finding(
                    row.file, row.line, "weaker",
                    f"leave {row.attribute} {row.recipe} where PS3.15 Table E.1-1 has {row.standard}",
                    "write the reason on a line '# weaker: …' above the rule, or remove the rule")
    return list(found.values())


def _lint_file(path: Path, *, first: bool) -> tuple[list[Rule], list[Finding]]:
    name = path.name
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return [], [Finding(name, 0, "unreadable", "load no recipe at all and write an unmodified copy (1)",
                            "give the path of a recipe that exists and is UTF-8")]
    findings = read_header(text, name)[1]
    rules: list[Rule] = []
    seen_format = in_header = False
    why = ""

    def refuse(line: int, rule: str, deid_does: str, mend: str) -> None:
        findings.append(Finding(name, line, rule, deid_does, mend))

    text, _ = pixel_rules.parse(text, name, refuse)         # the rest is read without the rules for pixels
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line:
            continue
        if line.startswith("#"):
            why = line[1:].partition(":")[2].strip() if line[1:].strip().lower().startswith("weaker:") else why
            continue
        if not line.isascii() or "\t" in line or "\r" in line:
            refuse(number, "character", "keep odd characters in names and values", "use plain ASCII and spaces")
            continue
        if "#" in line or "'" in line:
            refuse(number, "character", "cut the value at '#', and turn an apostrophe into a space (6)",
                   "put comments on lines of their own; no apostrophes")
            continue
        if line.upper().startswith("FORMAT"):
            if line != "FORMAT dicom" or seen_format or in_header:
                refuse(number, "format", "exit the process on a format it does not know",
                       "begin with 'FORMAT dicom', once")
            seen_format = True
            continue
        if line.startswith("%"):
            if line != "%header" or in_header or not seen_format:
                refuse(number, "section", "exit the process, or drop the section of a second recipe (6, 7)",
                       "use one '%header' after 'FORMAT dicom'; other sections are not admitted")
            in_header = True
            continue
        if not in_header:
            refuse(number, "outside", "raise UnboundLocalError (6)", "put actions below '%header'")
            continue
        found = read_action(line, name, number, why, refuse)
        why = ""
        if found:
            remove_all = (found.action, found.field) == ("REMOVE", "ALL")
            if first and not rules and not remove_all:
                refuse(number, "not_an_allow_list", "keep every element that no rule names (10)",
                       "make 'REMOVE ALL' the first action of the first recipe")
            if remove_all and (rules or not first):
                refuse(number, "remove_all_again", "remove what the rules above it ADD",
                       "write 'REMOVE ALL' once, in the first recipe of a set")
            rules.append(found)
    if not rules and not findings:
        refuse(0, "empty", "write an unmodified copy", "begin with 'FORMAT dicom', '%header', 'REMOVE ALL'")
    return rules, findings


def _conflicts(rules: list[Rule]) -> list[Finding]:
    """Two actions on one tag, also through an expander, over all files of a set."""
    findings = []
    first: dict[str, Rule] = {}
    for rule in rules:
        if rule.field == "ALL" or ":" in rule.field:
            continue
        field = rule.field.upper() if rule.field.startswith("(") else rule.field
        if field in first:
            findings.append(Finding(rule.file, rule.line, "two_actions",
                                    "let KEEP beat REPLACE and BLANK in silence (23, 26)",
                                    f"keep one of the two; the other is {first[field].file}:{first[field].line}"))
        first.setdefault(field, rule)
    for rule in rules:
        if rule.action == "REMOVE" and ":" in rule.field:
            hits = [r for r in first.values() if r.action != "REMOVE" and _matches(rule.field, r.field)]
            findings += [
                Finding(rule.file, rule.line, "two_actions", "revive or remove it depending on order (23, 27)",
                        f"narrow the expander, or remove the rule at {r.file}:{r.line}") for r in hits
            ]
    return findings


def _shared_groups(paths: Iterable[str | Path]) -> list[Finding]:
    """Groups of rules for pixels that two files of a set name."""
    return [Finding(file, line, "filter_group_again", "forget the group of the recipe before it (7)",
                    f"give '{group}' another name here") for file, line, group in pixel_rules.shared_groups(paths)]


def _matches(expander: str, field: str) -> bool:
    kind, _, what = expander.partition(":")
    if kind == "select":
        return attribute(field)[1] == what.removeprefix("VR:")
    name, what = field.lower(), what.lower()
    return {"contains": what in name, "startswith": name.startswith(what), "endswith": name.endswith(what)}[kind]


def _check_against_deid(path: Path, rules: list[Rule]) -> list[Finding]:
    """deid's parser must read the same actions from the file, or the two languages have come apart."""
    from deid.config.utils import load_deid
    from deid.logger import bot

    bot.level = -10     # it prints what it reads
    try:
        config = load_deid(str(path))
        loaded, same = config.get("header", []), pixel_rules.agrees_with(config.get("filter"), pixel_rules.read([path]))
    except (Exception, SystemExit):  # noqa: BLE001 - deid exits where it should raise
        loaded, same = None, False
    ours = [{"action": r.action, "field": r.field, **({"value": r.value} if r.value else {})} for r in rules]
    if loaded != ours or not same:
        return [Finding(path.name, 0, "deid_disagrees", "read other actions than these",
                        "simplify the recipe, line by line")]
    return []

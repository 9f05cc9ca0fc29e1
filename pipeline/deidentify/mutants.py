"""Recipes with one thing wrong: each rule deleted, weakened, or one added that keeps what PS3.15 removes.

A mutant is a plan, made past the linter: whether the test of a recipe notices is asked of the test alone. One that
cannot do anything else than the recipe is `equal`, and says by which rule that is proved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.deidentify.concepts import ACTIONS, Code, ConceptRule, Concepts, current, dictionary_meaning
from pipeline.deidentify.linter import Rule, attribute
from pipeline.deidentify.pixel_rules import PixelRule
from pipeline.deidentify.plan import Act, Op, Plan, compile_rules

PIXELS = "pixels"
SAME_PLAN = "compiles to the same plan, and the engine sees nothing else of a recipe"
NO_DATA_SET = "groups 0000 and 0002 cannot stand in a data set: the scanner refuses them, the meta information is new"
NO_PIXELS = "a report with pixel data is refused before a rule is asked, and this set goes into no sequence"
REPEATING = {0x50003000: b"OW", 0x60003000: b"OW", 0x60004000: b"LT"}      # curve and overlay data, overlay comments


@dataclass(frozen=True, slots=True)
class Mutant:
    """What was done, to which line of which file, and the plan that comes of it."""

    what: str
    where: str
    plan: Plan
    equal: str = ""         # why it can do nothing else than the recipe
    hint: str = ""          # what of the answer key would notice it first


def mutants(rules: Sequence[Rule], plan: Plan, table: Iterable[int], strangers: Iterable[tuple[int, str]],
            paths: Iterable[Path]) -> Iterator[Mutant]:
    """Yield every mutant of a recipe set that compiles to `plan`, but for its rules for pixels.

    `table`: tags of PS3.15 Table E.1-1; `strangers`: private blocks that no rule names; `paths`: the files,
    for the lines of concept rules.
    """
    for n, rule in enumerate(rules):
        rest = [*rules[:n], *rules[n + 1:]]
        where = f"{rule.file}:{rule.line}"
        text = " ".join(word for word in (rule.action, rule.field, rule.value) if word)
        if (rule.action, rule.field) == ("REMOVE", "ALL"):
            yield Mutant("REMOVE ALL dropped: what no rule names stays", where, _keep_all(plan, table))
            continue
        if plan.concepts and rule.field == "PixelData" and all(act.op is not Op.DESCEND for act in plan.acts.values()):
            yield Mutant(f"deleted: {text}", where, plan, NO_PIXELS)
            continue
        yield _compiled(f"deleted: {text}", where, rest, plan)
        if rule.action in ("ADD", "REPLACE", "JITTER"):
            kept = replace(rule, action="KEEP", value="")
            yield _compiled(f"weakened to KEEP: {text}", where, [*rules[:n], kept, *rules[n + 1:]], plan)
            tag, vr = attribute(rule.field)
            if tag is not None and tag in plan.acts and vr == "UI":
                act = replace(plan.acts[tag], op=Op.KEEP)
                yield Mutant(f"UID copied as it is: {text}", where, _with(plan, {tag: act}))
    last = next((rule.file for rule in reversed(rules)), "")
    for tag in sorted({*table, *REPEATING} - set(plan.acts)):
        yield Mutant(f"added: KEEP {_name(tag)}", f"{last}:end", _with(plan, {tag: _kept(tag)}),
                     NO_DATA_SET if tag < 0x00040000 else "")
    for block in strangers:
        if block not in plan.private:
            yield Mutant(f"added: KEEP ({block[0]:04X},{block[1]!r},01)", f"{last}:end",
                         replace(plan, private={**plan.private, block: frozenset({1})}))
    if plan.concepts:
        yield from _concept_mutants(plan, plan.concepts, _lines(paths))


def _compiled(what: str, where: str, rules: Sequence[Rule], plan: Plan) -> Mutant:
    made = compile_rules(rules, keep_times=plan.keep_times, concepts=plan.concepts, age_band_years=plan.age_band_years,
                         terms=plan.terms, pixels=plan.pixel_rules, policy=plan.pixel_policy)
    same = replace(made, id=plan.id, files=plan.files, codes=plan.codes, weaker=plan.weaker) == plan
    return Mutant(what, where, made, SAME_PLAN if same else "")


def _with(plan: Plan, acts: dict[int, Act]) -> Plan:
    return replace(plan, id=f"{plan.id} mutant", acts={**plan.acts, **acts})


def _keep_all(plan: Plan, table: Iterable[int]) -> Plan:
    """What deid makes of a recipe without REMOVE ALL: what no rule names is kept."""
    others = {tag: _kept(tag) for tag in (*table, *REPEATING) if tag not in plan.acts}
    return _with(plan, others)


def _kept(tag: int) -> Act:
    vrs = frozenset(vr.encode() for vr in _vrs(tag).split(" or "))
    op = Op.DESCEND if b"SQ" in vrs else Op.KEEP        # a UID as it is: the engine's KEEP would rename it
    return Act(op, vrs, min(vrs))


def _vrs(tag: int) -> str:
    from pydicom.datadict import dictionary_VR

    if tag in REPEATING:
        return f"{REPEATING[tag].decode()} or OB" if REPEATING[tag] == b"OW" else REPEATING[tag].decode()
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "LO"         # newer than pydicom's dictionary


def _name(tag: int) -> str:
    from pydicom.datadict import keyword_for_tag

    return keyword_for_tag(tag) or f"{tag:08X}"


class _AnyText(dict[str, str]):
    """A list of terms that approves whatever it is asked for."""

    def get(self, key: str, default: object = None) -> str:
        return key.encode("ascii", "ignore").decode()


def term_mutants(rules: Sequence[Rule], plan: Plan) -> Iterator[Mutant]:
    """Yield, for each attribute that keeps approved terms, its list taken away, one that approves all text, and one
    that approves what stands in the lists of the others."""
    lists = plan.terms.by_tag
    for rule in rules:
        tag, _ = attribute(rule.field)
        if tag is None or tag not in lists:
            continue
        everybodys = {said: term for known in lists.values() for said, term in known.items()}
        known: dict[str, str]
        for what, known in (("no term approved", {}), ("any text approved", _AnyText()),
                            ("terms approved of every attribute", everybodys)):
            if known == lists[tag] and type(known) is dict:
                continue
            terms = replace(plan.terms, by_tag={**lists, tag: known})
            yield Mutant(f"{what}: {rule.field}", f"{rule.file}:{rule.line}",
                         replace(plan, id=f"{plan.id} mutant", terms=terms), hint=rule.field)


def pixel_mutants(plan: Plan) -> Iterator[Mutant]:
    """Yield each rule for pixels deleted; each box a column or a row smaller; each area that is left as it is, gone."""
    for n, rule in enumerate(plan.pixel_rules):
        def changed(what: str, *others: PixelRule, n: int = n, rule: PixelRule = rule) -> Mutant:
            made = replace(plan, id=f"{plan.id} mutant",
                           pixel_rules=(*plan.pixel_rules[:n], *others, *plan.pixel_rules[n + 1:]))
            return Mutant(f"{what}: {rule.label or rule.group}", f"{rule.file}:{rule.line}", made, hint=PIXELS)

        yield changed("deleted: rule for pixels")
        for at, area in enumerate(rule.areas):
            rest = rule.areas[:at], rule.areas[at + 1:]
            if area.keep:
                yield changed("no longer left as it is: an area", replace(rule, areas=(*rest[0], *rest[1])))
            elif area.box:
                x0, y0, x1, y1 = area.box
                for box in ((x0, y0, x1 - 1, y1), (x0, y0, x1, y1 - 1)):
                    smaller = replace(rule, areas=(*rest[0], replace(area, box=box), *rest[1]))
                    yield changed("a row or a column no longer painted over", smaller)


# ---- concept rules ---------------------------------------------------------------------------------------------------
_WEAKER = {"device": "keep", "operator": "keep"}
_DROPPED_AS = {kind: action for action in ("shift", "remap", "operator", "keep") for kind in sorted(ACTIONS[action])}


def _concept_mutants(plan: Plan, concepts: Concepts, lines: dict[tuple[str, str], int]) -> Iterator[Mutant]:
    def changed(what: str, section: str, key: str, hint: str = "extras", **fields: object) -> Mutant:
        made = replace(concepts, digest=f"{concepts.digest} {what}", **fields)  # type: ignore[arg-type]
        where = f"{concepts.file}:{_line(lines, section, key)}"
        return Mutant(what, where, replace(plan, id=f"{plan.id} mutant", concepts=made), hint=hint)

    for (code, kind), rule in sorted(concepts.rules.items(), key=lambda item: item[0]):
        name, section = " ".join(filter(None, code)), f"{rule.action}.{kind}"
        hint = f"{name} {kind}"
        others = {k: r for k, r in concepts.rules.items() if k != (code, kind)}
        if kind != "TIME" or plan.keep_times or rule.action == "drop":
            yield changed(f"deleted: {rule.action} {kind} {name}", section, name, hint=hint, rules=others)
        swapped = "drop" if rule.action == "keep" else _DROPPED_AS.get(kind) if rule.action == "drop" else None
        if kind == "TIME" and not plan.keep_times:
            swapped = None
        if swapped:
            yield changed(f"{rule.action} turned into {swapped}: {kind} {name}", section, name,
                          hint=hint, rules={**others, (code, kind): ConceptRule(swapped)})
        if rule.action in _WEAKER:
            yield changed(f"{rule.action} turned into keep: {kind} {name}", section, name,
                          hint=hint, rules={**others, (code, kind): ConceptRule("keep")})
        if rule.values is not None:
            yield changed(f"any value may stand: {kind} {name}", section, name,
                          hint=hint, rules={**others, (code, kind): replace(rule, values=None)})
            for value in sorted(rule.values):
                fewer = replace(rule, values=rule.values - {value})
                yield changed(f"value {value!r} taken away: {kind} {name}", section, name,
                              hint=hint, rules={**others, (code, kind): fewer})
    for title in sorted(concepts.titles):
        yield changed(f"title taken away: {' '.join(title)}", "titles", " ".join(title),
                      titles=concepts.titles - {title})
    for template in sorted(concepts.templates):
        yield changed(f"template taken away: {template}", "report", "templates",
                      templates=concepts.templates - {template})
    for unit in sorted(concepts.units):
        if unit[1] != "UCUM" or dictionary_meaning(unit) is None:
            yield changed(f"unit taken away: {' '.join(unit)}", "units", " ".join(unit),
                          units={u: said for u, said in concepts.units.items() if u != unit})
    for code in answers(concepts):
        yield changed(f"answer taken away: {' '.join(code)}", "codes", " ".join(code),
                      meanings={c: said for c, said in concepts.meanings.items() if c != code})
    evidence = "remove" if concepts.evidence == "remap" else "remap"
    yield changed(f"evidence: {concepts.evidence} turned into {evidence}", "report", "evidence", evidence=evidence)


def answers(concepts: Concepts) -> list[Code]:
    """Return the codes that a file adds to the dictionary's for answers: those of no concept, title or unit."""
    named = {code for code, _ in concepts.rules} | concepts.titles
    return sorted(code for code in concepts.meanings if current(code) not in named and dictionary_meaning(code) is None)


def _lines(paths: Iterable[Path]) -> dict[tuple[str, str], int]:
    """Return (section, key) → line of the files of concept rules; older SNOMED codes also under the newer one."""
    found: dict[tuple[str, str], int] = {}
    for path in paths:
        section = ""
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if header := re.match(r"\s*\[\s*([A-Za-z0-9_.]+)\s*\]", line):
                section = header[1]
                found.setdefault((section, ""), number)
            elif key := re.match(r"\s*(?:\"([^\"]*)\"|([A-Za-z0-9_-]+))\s*=", line):
                text = key[1] or key[2]
                value, _, scheme = text.rpartition(" ")
                for name in (text, " ".join(current((value, scheme)))):
                    found.setdefault((section, name.strip()), number)
    return found


def _line(lines: dict[tuple[str, str], int], section: str, key: str) -> int:
    return lines.get((section, key)) or lines.get((section, "")) or 0

"""A recipe set on trial: run on the synthetic answer key, then made worse rule by rule, which must be noticed.

The second look is off: the recipe is judged by itself. What the second look would have stopped is counted apart.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.deidentify import concepts as concept_rules
from pipeline.deidentify import mutants as made
from pipeline.deidentify import pixel_rules, second_look
from pipeline.deidentify.engine import Subject, rewrite
from pipeline.deidentify.header import sets, with_behind
from pipeline.deidentify.keys import Key
from pipeline.deidentify.linter import confidentiality_profile, read
from pipeline.deidentify.pixel_policy import Policy
from pipeline.deidentify.plan import RECIPES, Op, Plan, compile_rules
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.shard import collect
from pipeline.deidentify.terms import Terms, normal
from pipeline.dicom.file import scan
from pipeline.errors import UsageError
from pipeline.model import Refusal
from pipeline.observe import track
from pipeline.synthetic import answer_key, answer_pixels, answer_values
from pipeline.synthetic.answer_key import Claims
from pipeline.synthetic.answer_pixels import PixelClaim
from pipeline.synthetic.answer_reports import Content
from pipeline.synthetic.asked import ACTIONS, RESIDUAL, Planted
from pipeline.synthetic.judge import Failure, Judge, tally

PEOPLE = 8
# One report class for all concept rules: the engine asks whether it is a report, the project file which one.
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
# What is to be read for text before it passes comes out here all the same: the reader too is switched off.
READER = Policy(ocr=True, installed=True)
_KEY = Key(bytes(range(32)), "answer key")


@dataclass
class Verdict:
    """What the trial of one recipe set found."""

    files: tuple[str, ...]
    people: int = 0
    objects: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    residuals: Counter[str] = field(default_factory=Counter)    # by attribute, over all people
    lost: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)      # objects that did not come out, by reason
    mutants: int = 0
    by_residual: int = 0
    by_loss: int = 0
    by_refusal: int = 0
    equals: Counter[str] = field(default_factory=Counter)       # mutants that can do nothing else, by why
    survivors: list[tuple[str, str]] = field(default_factory=list)      # where, what
    second_look: int = 0        # weakened recipes that left a residual, and which it would have stopped
    weaker: tuple[str, ...] = ()

    @property
    def residual_per_1000(self) -> float:
        return 1000 * self.residuals.total() / max(1, self.people)

    @property
    def utility(self) -> float:
        """Share of what the recipe claims to keep that came out."""
        kinds = set(ACTIONS) - RESIDUAL
        asked = sum(self.asked[kind] for kind in kinds)
        return 1 - sum(self.failed[kind] for kind in kinds) / asked if asked else 0.0

    @property
    def passed(self) -> bool:
        return not (self.residuals or self.lost or self.refused or self.survivors)


def shipped() -> list[list[Path]]:
    """Return the product's recipe sets: each recipe with those it says it stands behind, that of reports with each file
    of concept rules."""
    report = RECIPES / "report.dicom"
    reports = [path for path in sorted(RECIPES.glob("*.toml")) if "[titles]" in path.read_text(encoding="utf-8")]
    found = [one for one in sets(sorted(RECIPES.glob("*.dicom"))) if len(one) > 1]
    return [one for one in found if one[-1] != report] + [[*one, rules] for one in found if one[-1] == report
                                                          for rules in reports]


def run(paths: Sequence[Path], *, people: int = PEOPLE, keep_times: bool = False, mutate: bool = True) -> Verdict:
    """Try a recipe set, with the files it stands behind. Raises RecipeRefused where the linter refuses it, UsageError
    where it is no set."""
    paths = with_behind(list(paths))
    texts, tomls = concept_rules.split([str(path) for path in paths])
    if not texts or len(tomls) > 1:
        raise UsageError("A set is one or more .dicom recipes, and at most one file of concept rules.",
                         hint="Try deid_recipes/base.dicom deid_recipes/ct.dicom")
    rules = read(texts)
    concepts = concept_rules.read(tomls[0]) if tomls else None
    plan = compile_rules(rules, keep_times=keep_times, concepts=concepts, pixels=pixel_rules.read(texts), policy=READER)
    plan = replace(plan, terms=_terms(plan))
    verdict = Verdict(tuple(Path(path).name for path in paths), people, weaker=tuple(plan.weaker))
    table = sorted(confidentiality_profile())
    claims = claims_of(plan)
    with tempfile.TemporaryDirectory(prefix="tre-trial-") as folder:
        bench = Bench(Path(folder), plan)
        objects = list(answer_key.make(claims, table, people))
        if not concepts:
            objects += answer_values.objects(claims.acts, claims.private, claims.terms)
        painted = list(answer_pixels.objects(claims.pixels))
        # A sentinel may meet a condition by chance: rules for pixels are tried on images of their own.
        bare = replace(plan, pixel_rules=())
        judge = bench.judge()
        for planted, own in [*((one, bare) for one in objects), *((one, plan) for one in painted)]:
            verdict.objects += 1
            out = bench.rewrite(planted, own)
            if isinstance(out, Refusal):
                verdict.refused[out.reason.value] += 1
            _count(verdict, planted, judge.look(planted, out if isinstance(out, bytes) else None),
                   named=isinstance(out, bytes))
        hidden = answer_key.burned_in(claims)
        if hidden:      # the one object that need not come out: refused is hidden
            out = bench.rewrite(hidden, plan)
            _count(verdict, hidden, judge.look(hidden, out) if isinstance(out, bytes) else [])
        if mutate:
            strangers = [block for block in answer_key.PRIVATE if block not in claims.private]
            first = [planted for planted in objects if planted.person == 0]
            every = [*made.mutants(rules, bare, table, strangers, map(Path, tomls)), *made.term_mutants(rules, bare),
                     *made.pixel_mutants(plan)]
            name = " + ".join(verdict.files)
            for mutant in track(every, f"mutants of {name}", total=len(every)):
                _try(verdict, bench, mutant, painted if mutant.hint == made.PIXELS else first)
    return verdict


def _count(verdict: Verdict, planted: Planted, failures: list[Failure], *, named: bool = True) -> None:
    asked, failed = tally(planted, failures)
    verdict.asked += asked
    verdict.failed += failed
    verdict.residuals.update(failure.name for failure in failures if failure.residual)
    if named:       # of an object that did not come out, the reason says enough
        verdict.lost.update(failure.name for failure in failures if not failure.residual)


def _try(verdict: Verdict, bench: Bench, mutant: made.Mutant, objects: Sequence[Planted]) -> None:
    """Run one mutant on the objects of one person until something is noticed."""
    verdict.mutants += 1
    if mutant.equal:
        verdict.equals[mutant.equal] += 1
        return
    judge = bench.judge()
    for planted in sorted(objects, key=lambda one: not bench.knows(one, mutant.hint)):
        out = bench.rewrite(planted, mutant.plan)
        if isinstance(out, Refusal):
            verdict.by_refusal += 1
            return
        failures = judge.look(planted, out)
        if any(failure.residual for failure in failures):
            verdict.by_residual += 1
            verdict.second_look += bench.second_look(planted, out)
            return
        if failures:
            verdict.by_loss += 1
            return
    verdict.survivors.append((mutant.where, mutant.what))


class Bench:
    """Where objects are de-identified: the engine itself, on small files, under a key that protects nothing."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.source, self.target = folder / "in.dcm", folder / "out.dcm"
        self.pseudonyms = Pseudonyms(_KEY)
        self.plan = plan
        self.held: Planted | None = None
        self.names: dict[str, frozenset[str]] = {}
        self.tokens: dict[str, tuple[second_look.Tokens, dict[int, set[str]]]] = {}

    def knows(self, planted: Planted, hint: str) -> bool:
        """Whether the object has what would notice the mutant first."""
        if planted.name not in self.names:
            self.names[planted.name] = frozenset(check.name for check in planted.checks)
        return bool(hint) and (hint in self.names[planted.name] or planted.name.endswith(hint))

    def subject(self, person: int) -> Subject:
        """A person's subject: moved far enough that no moved date of an event equals another's own."""
        patient = self.pseudonyms.person("ANSWER KEY", str(person))
        return Subject(patient, self.pseudonyms, -(200 + 7 * person), -(1800 + 60 * person), "ANSWER KEY")

    def judge(self) -> Judge:
        """A judge who knows by how many days each person is to be moved."""
        return Judge(int(self.plan.keep_times), days={person: self.subject(person).days for person in range(PEOPLE)})

    def rewrite(self, planted: Planted, plan: Plan) -> bytes | Refusal:
        """Return what the engine writes under the plan, or why it refuses."""
        if self.held is not planted:
            self.source.write_bytes(planted.data)
            self.held = planted
        self.target.unlink(missing_ok=True)
        try:
            rewrite(self.source, self.target, plan, self.subject(planted.person), digest=False)
        except Refusal as refusal:
            return refusal
        fd = os.open(self.target, os.O_RDONLY)
        try:        # what the product's own scanner refuses is no output
            out = os.pread(fd, 1 << 26, 0)
            scan(fd, len(out), out)
        except Refusal as refusal:
            return refusal
        finally:
            os.close(fd)
        return out

    def second_look(self, planted: Planted, out: bytes) -> bool:
        """Whether the second look would have stopped this output."""
        if planted.name not in self.tokens:
            collected = second_look.Collected()
            spare = self.target.with_name("spare.dcm")
            spare.unlink(missing_ok=True)
            self.source.write_bytes(planted.data)
            result = rewrite(self.source, spare, self.plan, self.subject(planted.person), digest=False)
            collect(result.source, collected)
            self.tokens[planted.name] = collected.tokens(), collected.take_dates()
            self.held = planted
        tokens, dates = self.tokens[planted.name]
        return bool(second_look.search(out, tokens, dates))


def _terms(plan: Plan) -> Terms:
    """Return a list that approves one term for each attribute that asks for one: another for each."""
    asked = sorted(tag for tag, act in plan.acts.items() if act.op is Op.TERM)
    words = {tag: f"Kept term {chr(65 + n // 26 % 26)}{chr(65 + n % 26)}e" for n, tag in enumerate(asked)}
    return Terms({tag: {normal(term): term} for tag, term in words.items()})


def claims_of(plan: Plan) -> Claims:
    """Return what a plan says that it does, as the answer key takes it."""
    names = {Op.PIXELS: "pixels"}
    acts = {tag: (names.get(act.op, act.op.name.lower()), act.vr.decode()) for tag, act in plan.acts.items()}
    acts.pop(0x00080005, None)
    content = None
    if plan.concepts:
        concepts = plan.concepts
        content = Content(
            min(concepts.titles),
            {key: (rule.action, rule.values, rule.manufacturer, rule.model) for key, rule in concepts.rules.items()},
            tuple(sorted(concepts.templates)), tuple(sorted(concepts.units)), tuple(made.answers(concepts)),
            concepts.evidence == "remap")
        acts = {tag: act for tag, act in acts.items() if act[0] != "pixels"}
    pixels = tuple(PixelClaim(f"{rule.file}:{rule.line}", tuple((c.test, c.tag, c.value) for c in rule.conditions),
                              tuple((area.keep, area.box, area.regions) for area in rule.areas))
                   for rule in plan.pixel_rules)
    terms = {tag: term for tag, known in plan.terms.by_tag.items() for term in known.values()}
    return Claims(acts, plan.private, plan.keep_times, content, REPORT if content else "", pixels, terms)

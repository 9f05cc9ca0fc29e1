"""A recipe set compiled once: tag, VR and creator to an action. Pure but for reading the recipes.

The meaning of a recipe (an allow-list): an element survives if and only if its own tag has a rule and every sequence
above it is kept. KEEP of a sequence means: go in. Two actions on one tag cannot stand (the linter refuses them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.deidentify import concepts as concept_rules
from pipeline.deidentify import devices, header, pixel_rules
from pipeline.deidentify.concepts import Concepts
from pipeline.deidentify.coverage import codes, compare
from pipeline.deidentify.linter import PRIVATE, Rule, attribute, read
from pipeline.deidentify.pixel_policy import DEFAULT as DEFAULT_POLICY
from pipeline.deidentify.pixel_policy import Policy
from pipeline.deidentify.pixel_rules import PixelRule
from pipeline.deidentify.terms import NOTHING, Terms
from pipeline.deidentify.terms import read as read_terms
from pipeline.dicom.file import REPORTS
from pipeline.errors import ProjectFileError, TermsRefused

ENGINE_VERSION = "4"            # raise when the same plan would give other bytes
RECIPES = Path(__file__).parents[2] / "deid_recipes"
CHARACTER_SET, PIXEL_DATA = 0x00080005, 0x7FE00010


class Op(IntEnum):
    """What the engine does to an element."""

    KEEP = 0            # its bytes as they are, if its VR is one its tag may have
    DESCEND = 1         # a kept sequence: each item by the same plan
    UID = 2             # registered UIDs stay, others are remapped
    DATE = 3            # DA moved by the person's days
    DATETIME = 4        # DT moved
    TIME = 5            # TM moved by the person's seconds
    PATIENT = 6         # the pseudonym
    EMPTY = 7           # zero length
    AGE = 8             # lower bound of the five-year band
    DEVICE = 9          # pseudonymous device
    OPERATOR = 10       # pseudonymous operator
    PIXELS = 11         # passed on unloaded
    TERM = 12           # an approved term, or empty


@dataclass(frozen=True, slots=True)
class Act:
    """One compiled rule: what to do, the VRs under which the element may stand, the VR it is written with if added."""

    op: Op
    vrs: frozenset[bytes]
    vr: bytes


@dataclass(frozen=True)
class Plan:
    """The compiled rules for some SOP classes."""

    id: str
    files: tuple[str, ...]
    acts: Mapping[int, Act]
    added: tuple[int, ...]                                  # written at the top also where absent, in tag order
    private: Mapping[tuple[int, str], frozenset[int]]       # (group, creator) → element numbers within the block
    codes: tuple[tuple[str, str], ...]                      # CID 7050: only what was really done
    keep_times: bool
    weaker: Mapping[str, str] = field(default_factory=dict)  # attributes that stay with more than PS3.15 has it: why
    concepts: Concepts | None = None                        # what of a structured report's content passes
    age_band_years: int = 5
    terms: Terms = NOTHING                                  # what free text under Op.TERM may say
    pixel_rules: tuple[PixelRule, ...] = ()                 # what is painted over in which images
    pixel_policy: Policy = DEFAULT_POLICY                    # which images are read for text


@dataclass(frozen=True)
class PlanSet:
    """All plans of a project, by SOP Class UID."""

    id: str
    plans: Mapping[str, Plan]
    described: tuple[dict[str, object], ...] = field(default=())

    @cached_property
    def vocabulary(self) -> frozenset[tuple[bytes, bytes]]:
        """(code value, meaning) of all that concept rules may write."""
        rules = {plan.concepts.digest: plan.concepts for plan in self.plans.values() if plan.concepts}
        return frozenset().union(*(concepts.vocabulary() for concepts in rules.values()))


_FUNCTIONS = {"func:uid": Op.UID, "func:device": Op.DEVICE, "func:operator": Op.OPERATOR, "func:time": Op.TIME,
              "func:term": Op.TERM,
              "var:patient": Op.PATIENT, "var:empty": Op.EMPTY, "var:age_band": Op.AGE}


def compile_rules(
    rules: Sequence[Rule], *, keep_times: bool, concepts: Concepts | None = None, age_band_years: int = 5,
    terms: Terms = NOTHING, pixels: Sequence[PixelRule] = (), policy: Policy = DEFAULT_POLICY,
) -> Plan:
    """Return the plan that linted rules mean, with `concepts` for the content of structured reports, `terms` for free
    text and rules for `pixels`."""
    acts: dict[int, Act] = {CHARACTER_SET: Act(Op.KEEP, frozenset({b"CS"}), b"CS")}
    private: dict[tuple[int, str], set[int]] = {}
    added = []
    for rule in rules:
        if rule.action == "REMOVE":
            continue
        match = PRIVATE.fullmatch(rule.field)
        if match:
            private.setdefault((int(match[1], 16), match[2]), set()).add(int(match[3], 16))
            continue
        tag, vr_text = attribute(rule.field)
        assert tag is not None, "the linter knows every keyword"
        if rule.value == "func:time" and not keep_times:
            continue
        vrs = frozenset(vr.encode() for vr in vr_text.split(" or "))
        acts[tag] = Act(_op(rule, tag, vrs), vrs, vr_text[:2].encode())
        if rule.action == "ADD":
            added.append(tag)
    canonical = sorted([r.action, r.field, r.value] for r in rules)
    words: list[bytes | str | int] = [ENGINE_VERSION, int(keep_times), *(word for rule in canonical for word in rule)]
    files = dict.fromkeys(r.file for r in rules)
    if concepts:
        words += ["concepts", concepts.digest]
        files[concepts.file] = None
    if age_band_years != 5:
        words += ["age_band_years", age_band_years]
    if asked := frozenset(tag for tag, act in acts.items() if act.op is Op.TERM):
        words += ["terms", terms.digest(asked)]
    for one in pixels:
        words += one.canonical()
    words += policy.canonical()
    claims = getattr(rules, "claims", ())
    if claims:
        words += ["claims", *claims]
    beside = compare(rules, claims=claims, keep_times=keep_times, concepts=concepts is not None)
    weaker = {f"{row.tag} {row.attribute}" if "xx" in row.tag else row.attribute: row.reason
              for row in beside if row.verdict == "weaker"}
    times_moved = keep_times and any(rule.value == "func:time" for rule in rules)
    return Plan(layout.hashed("r", words), tuple(files), acts, tuple(sorted(added)),
                {k: frozenset(v) for k, v in private.items()}, codes(beside, times_moved=times_moved),
                keep_times, weaker, concepts, age_band_years, terms if asked else NOTHING,
                tuple(pixels), policy)


def _op(rule: Rule, tag: int, vrs: frozenset[bytes]) -> Op:
    if rule.action == "JITTER":
        return Op.DATETIME if b"DT" in vrs else Op.DATE
    if rule.action != "KEEP":
        return _FUNCTIONS[rule.value]
    if tag == PIXEL_DATA:
        return Op.PIXELS
    return Op.DESCEND if b"SQ" in vrs else Op.UID if b"UI" in vrs else Op.KEEP


def recipe_path(name: str, config: ProjectConfig) -> Path:
    """Return a recipe of the product by bare name, else a path beside the project file."""
    return config.recipe(name)


def load_plans(config: ProjectConfig) -> PlanSet:
    """Return the project's plans. Raises RecipeRefused, TermsRefused, ProjectFileError (a SOP class unknown or named
    twice)."""
    plans: dict[str, Plan] = {}
    terms = read_terms(config.beside(config.deidentify.terms) if config.deidentify.terms else None,
                       config.deidentify.terms_people)
    described = []
    policy = devices.policy(config)
    for use in config.deidentify.recipes:
        recipes, concept_files = concept_rules.split(use.files)
        if not recipes or len(concept_files) > 1:
            raise ProjectFileError(f"{config.path}: a recipe set names no .dicom file, or more than one .toml file.",
                                   hint="Name the recipes for headers, and one .toml at most.")
        paths = [recipe_path(name, config) for name in recipes]
        rules, pixels = read(paths), pixel_rules.read(paths)
        concepts = concept_rules.read(recipe_path(concept_files[0], config)) if concept_files else None
        plan = compile_rules(rules, keep_times=config.deidentify.keep_times, concepts=concepts,
                             age_band_years=config.deidentify.age_band_years, terms=terms,
                             pixels=pixels, policy=policy)
        named = use.sop_classes or [name for file in use.files
                                    for name in header.of(recipe_path(file, config)).sop_classes]
        if not named:
            raise ProjectFileError(f"{config.path}: a recipe set is for no SOP class.",
                                   hint="Name its sop_classes: no recipe of the set says `# for:`.")
        classes = sorted(sop_class_uid(name, config) for name in named)
        for uid in classes:
            if concepts and not uid.startswith(REPORTS):
                raise ProjectFileError(f"{config.path}: concept rules are named for what is no structured report.",
                                       hint="Give images a recipe set of their own.")
            if uid in plans:
                raise ProjectFileError(f"{config.path}: two recipe sets cover SOP class {uid}.", hint="Name it once.")
            plans[uid] = plan
        extra = {"pixel_rules": len(pixels)} if pixels else {}
        extra |= {"concepts": len(concepts.rules)} if concepts else {}
        described.append({"files": list(use.files), "sop_classes": classes, "digest": plan.id,
                          "weaker": dict(plan.weaker), "codes": [list(code) for code in plan.codes],
                          "attributes": len(plan.acts), **extra,
                          **({"terms": plan.terms.count, "terms_sha256": terms.sha256} if plan.terms.count else {})})
    _no_idle_terms(terms, plans.values())
    fields: list[bytes | str | int] = [ENGINE_VERSION, config.deidentify.date_shift_days]
    fields += config.deidentify.residual_exceptions
    for uid in sorted(plans):
        fields += [uid, plans[uid].id]
    return PlanSet(layout.hashed("r", ["set", *fields]), plans, tuple(described))


def _no_idle_terms(terms: Terms, plans: Iterable[Plan]) -> None:
    """Refuse terms approved for an attribute that no recipe asks for: they would seem to be kept."""
    asked = {tag for plan in plans for tag, act in plan.acts.items() if act.op is Op.TERM}
    if idle := sorted(set(terms.by_tag) - asked):
        raise TermsRefused(f"Terms are approved for ({idle[0] >> 16:04X},{idle[0] & 0xFFFF:04X}), and no recipe asks.",
                           hint="Write REPLACE Attribute func:term in a recipe, or delete the lines.")


def sop_class_uid(name: str, config: ProjectConfig) -> str:
    """Return the UID of a SOP class given by UID or by its name in PS3.6. Raises ProjectFileError."""
    if name[:1].isdigit():
        return name
    try:
        return header.sop_classes()[name.lower()]
    except KeyError:
        raise ProjectFileError(f"{config.path}: a SOP class is named that PS3.6 does not have.",
                               hint="Write its UID, or its name as in PS3.6 Annex A.") from None

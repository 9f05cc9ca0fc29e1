"""The product's recipe sets, each compiled by the engine and read by deid, and files put through both."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pydicom
from deid_compare import Difference, Pair
from deid_runner import Recipe, load, run_deid, whole

from pipeline.deidentify import concepts, header, pixel_rules
from pipeline.deidentify.engine import Subject, rewrite
from pipeline.deidentify.keys import Key
from pipeline.deidentify.linter import read
from pipeline.deidentify.pixel_policy import Policy
from pipeline.deidentify.plan import RECIPES, Plan, compile_rules
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.dicom.file import REPORTS
from pipeline.model import Refusal

PSEUDONYMS = Pseudonyms(Key(b"d" * 32, "differential"))
SUBJECT = Subject(PSEUDONYMS.person("HOSP-A", "1"), PSEUDONYMS, -77, 0, "HOSP-A")
# What is to be read for text comes out here all the same: deid's pass over headers does not look at pixels either.
READER = Policy(ocr=True, installed=True)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Set:
    """One recipe set as both read it."""

    name: str
    recipe: Recipe
    plan: Plan
    timed: Plan                 # as in a project that keeps times
    sop_classes: frozenset[str]

    def __repr__(self) -> str:
        return self.name


@cache
def sets() -> dict[str, Set]:
    """Return every recipe set that is shipped, by the name of the file that says what it is for."""
    found = {}
    for path in sorted(RECIPES.iterdir()):
        names = header.of(path).sop_classes if path.suffix in (".dicom", ".toml") else ()
        if names:
            recipes, rules = concepts.split([str(one) for one in header.with_behind([path])])
            paths = [Path(one) for one in recipes]
            asked = concepts.read(rules[0]) if rules else None
            plan, timed = (compile_rules(read(paths), keep_times=keep, concepts=asked, pixels=pixel_rules.read(paths),
                                         policy=READER) for keep in (False, True))
            uids = frozenset(header.sop_classes()[name.lower()] for name in names)
            found[path.stem] = Set(path.stem, load(paths), plan, timed, uids)
    return found


def set_for(sop_class: str) -> Set:
    """Return the set for a SOP class; of one that none is for, always the same: deid asks for no SOP class."""
    for one in sets().values():
        if sop_class in one.sop_classes:
            return one
    names = [name for name, one in sets().items() if bool(one.plan.concepts) == sop_class.startswith(REPORTS)]
    return sets()[names[sum(sop_class.encode()) % len(names)]]


def sop_class_of(path: Path) -> str:
    """Return what a file says that it is, as far as pydicom can read it; "" where it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            head = pydicom.dcmread(path, force=True, specific_tags=["SOPClassUID"], stop_before_pixels=True)
            return str(head.get("SOPClassUID", ""))
        except Exception:
            return ""


@dataclass
class Tally:
    """What became of files that were put through both. `not_compared` by who said no and why."""

    compared: Counter[str] = field(default_factory=Counter)         # by set
    known: Counter[int] = field(default_factory=Counter)            # by number of `KNOWN`
    not_compared: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def file(self, path: Path, one: Set | None = None, *, chosen: Callable[[int, int], bool] = whole,
             keep_times: bool = False) -> None:
        """Put a file through both, under the set of its SOP class unless one is given."""
        try:
            if one is None:
                one = set_for(sop_class_of(path))
            found = compare(path, one, chosen, keep_times)
        except NotCompared as why:
            self.not_compared[str(why)] += 1
            return
        self.compared[one.name] += 1
        for difference in found:
            if difference.number:
                self.known[difference.number] += 1
            else:
                self.faults.append(f"{path.name} under {one.name}: {difference.path} {difference.what}")

    def say(self) -> str:
        """Return the figures, for whoever runs this by hand with -s."""
        return (f"\ncompared {self.compared.total()} {dict(sorted(self.compared.items()))}"
                f"\nknown differences {dict(sorted(self.known.items()))}\nnot compared {dict(self.not_compared)}")

    def check(self, at_least: dict[str, int], reasons: Iterable[str]) -> None:
        """Fail on a difference that is not known, on fewer files than these, and on a new way not to be compared."""
        print(self.say())
        assert not self.faults, "\n".join([f"{len(self.faults)} faults", *self.faults[:30]])
        few = {name: self.compared[name] for name, least in at_least.items() if self.compared[name] < least}
        assert not few, f"compared too few: {few}; not compared: {dict(self.not_compared)}"
        assert set(self.not_compared) <= set(reasons), sorted(set(self.not_compared) - set(reasons))


class NotCompared(Exception):
    """Why a file was not compared: `engine: reason`, or `deid: type of exception`."""


def compare(path: Path, one: Set, chosen: Callable[[int, int], bool] = whole,
            keep_times: bool = False) -> list[Difference]:
    """Return the differences between what both make of a file. Raises NotCompared where one of them makes nothing."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target = Path(folder) / "ours.dcm"
        try:
            rewrite(path, target, one.timed if keep_times else one.plan, SUBJECT)
        except Refusal as refusal:
            raise NotCompared(f"engine: {refusal.reason}") from None
        try:
            deids = run_deid(pydicom.dcmread(path, force=True), one.recipe, SUBJECT, chosen)
        except Exception as error:
            raise NotCompared(f"deid: {type(error).__name__}") from error
        pair = Pair(one.recipe, SUBJECT, keep_times, one.plan.concepts is not None, chosen)
        return list(pair.differences(pydicom.dcmread(path, force=True), pydicom.dcmread(target), deids))

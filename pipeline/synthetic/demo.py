"""The demo's landing: a synthetic population, pydicom's bundled real files, and some hostile ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.synthetic import files, hostile, people
from pipeline.synthetic.bundled import LINKED, SENTINELS, bundled
from pipeline.synthetic.encode import uid
from pipeline.synthetic.population import Fate, Population, Truth, lay_out, population, truth
from pipeline.synthetic.project import project_text

LANDED_AT = 1_700_000_000       # seconds since 1970: long quiet, whenever the demo is made


@dataclass(frozen=True)
class DemoTruth:
    """What the demo must end with. `population` and `hostile` are known; `bundled` names what only a run can tell."""

    population: Truth
    hostile: dict[str, Fate]        # by key below landing
    bundled: tuple[str, ...]        # keys below landing
    sentinels: frozenset[str]

    def fates(self) -> dict[str, Fate]:
        return {**self.population.fates, **self.hostile}


def owner(pop: Population) -> dict[str, object]:
    """Return options that make the hostile files those of the first woman: permitted and linked."""
    woman = pop.women[0]
    issuer, local = next(iter(woman.locals.items()))
    return {"patient_id": local, "issuer": issuer, "patient_name": woman.name,
            "study_uid": uid("hostile study", woman.nhs), "birth_date": woman.birth.strftime("%Y%m%d"),
            "accession": "ACC9900001"}


def write_demo(directory: Path, *, women: int = 12, seed: int = 1, as_of: date | None = None) -> DemoTruth:
    """Lay out landing/, the tables beside it and project.toml below `directory`; return what must become of it.

    The permitted people are as of today unless `as_of` says otherwise; everything else follows from `women` and `seed`.
    """
    pop = population(women, seed)
    laid = lay_out_demo(directory, pop, seed=seed, as_of=as_of)
    zones = (f"file://{(directory / zone).resolve()}" for zone in ("landing", "work", "candidate", "release"))
    (directory / "project.toml").write_text(project_text(*zones, whole=True))
    told = truth(pop)
    sentinels = told.sentinels | SENTINELS | files.sentinels(**owner(pop)) | laid.numbers
    return DemoTruth(told, laid.hostile, laid.bundled, sentinels)


@dataclass(frozen=True)
class Laid:
    """What stands in landing beside the population: keys, and the fates that are known; numbers given to real files."""

    hostile: dict[str, Fate]
    bundled: tuple[str, ...]
    numbers: frozenset[str]


def lay_out_demo(directory: Path, pop: Population, *, seed: int = 1, as_of: date | None = None, workers: int = 1,
                 tell: Callable[[int], None] = lambda done: None) -> Laid:
    """Lay out landing/ and the tables beside it below `directory`; see `population.lay_out`."""
    numbers = people.nhs_numbers(people.generator("bundled", seed), len(LINKED))
    also = [("HOSP-A", local, number) for local, number in zip(LINKED, numbers, strict=True)]
    lay_out(directory, pop, as_of=as_of or date.today(), also=also, workers=workers, tell=tell)
    landing = directory / "landing"
    keys = []
    for name, path in bundled():
        target = landing / "pydicom" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        keys.append(f"pydicom/{name}")
    fates = hostile.write(landing / "hostile", **owner(pop))
    for path in sorted(landing.rglob("*")):
        os.utime(path, (LANDED_AT, LANDED_AT), follow_symlinks=False)
    return Laid({f"hostile/{name}": fate for name, fate in fates.items()}, tuple(keys), frozenset(numbers))

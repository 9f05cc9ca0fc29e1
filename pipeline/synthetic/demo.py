"""The demo's landing: a synthetic population, pydicom's bundled real files, and some hostile ones."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.synthetic import files, hostile, people
from pipeline.synthetic.bundled import LINKED, SENTINELS, bundled
from pipeline.synthetic.encode import uid
from pipeline.synthetic.population import Fate, Population, Truth, population, write
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
    """Lay out landing/, crosswalk.csv, permitted.csv, episodes.csv and project.toml below `directory`.

    The permitted people are as of today unless `as_of` says otherwise; everything else follows from `women` and `seed`.
    """
    pop = population(women, seed)
    numbers = people.nhs_numbers(people.generator("bundled", seed), len(LINKED))
    also = [("HOSP-A", local, number) for local, number in zip(LINKED, numbers, strict=True)]
    truth = write(directory, pop, as_of=as_of or date.today(), also=also)
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
    (directory / "project.toml").write_text(project_text(
        *(f"file://{(directory / zone).resolve()}" for zone in ("landing", "work", "candidate", "release"))))
    return DemoTruth(truth, {f"hostile/{name}": fate for name, fate in fates.items()}, tuple(keys),
                     truth.sentinels | SENTINELS | files.sentinels(**owner(pop)) | {*numbers})

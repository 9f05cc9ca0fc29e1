"""A breast-screening population over the years: women, episodes, cancers, four-view mammograms, dose and CAD reports,
and what must become of each.

`population(n, seed)` decides; `write(directory, population)` lays it out as hospitals do: names in folders and file
names, a crosswalk, the permitted people, the episodes of a screening service and the cancers of a registry.
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from pipeline.model import Reason, Status
from pipeline.synthetic import clinical, dosimetry, exposure, files, people
from pipeline.synthetic.clinical import DETECTED, EPISODES, INTERVAL, OUTCOMES, Visit
from pipeline.synthetic.encode import uid
from pipeline.synthetic.people import Woman
from pipeline.synthetic.reports import Mark, Quirk, Shot
from pipeline.synthetic.unit import OPERATORS, SETS

Fate = tuple[Status, Reason | None]
RELEASED: Fate = (Status.PENDING, None)
FATES: dict[str, Fate] = {
    "not_permitted": (Status.REJECTED, Reason.PERSON_NOT_PERMITTED),
    "unlinked": (Status.WITHHELD, Reason.PERSON_NOT_LINKED),
    "ambiguous": (Status.WITHHELD, Reason.PERSON_AMBIGUOUS),
}
# What is wrong with every so-and-so-many-th dose report.
QUIRKS: dict[int, Quirk] = {3: "disagrees", 7: "unit", 10: "zero", 14: "verified", 17: "comment"}
QUIRKS_EVERY = 40
# Options of `population`: two rounds within three years, of those who are seen more often than every third.
THREE_YEARS: dict[str, int] = {"first_year": 2021, "rounds": 2, "interval_days": 547, "invited_over_days": 460}


@dataclass(frozen=True)
class Landed:
    """One object that lands: its key, how it is made, and its fate. `woman` is the number of the person."""

    key: str
    kind: str                       # name of a function in files
    options: dict[str, Any]
    woman: int
    fate: Fate

    def data(self) -> bytes:
        return bytes(getattr(files, self.kind)(**self.options))


@dataclass(frozen=True)
class Population:
    women: tuple[Woman, ...]
    landed: tuple[Landed, ...]
    episodes: tuple[dict[str, str], ...]
    outcomes: tuple[dict[str, str], ...]
    crosswalk: tuple[tuple[str, str, str, str], ...]
    permitted: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """What a test may hold the pipeline to. Everybody's identities stand in it: keep it from outputs."""

    fates: dict[str, Fate]                              # by key below landing
    sentinels: frozenset[str]                           # words and numbers that may not leave the identifiable zone
    uids: frozenset[str]                                # Study, Series and SOP Instance UIDs as they landed
    episodes: dict[str, int] = field(default_factory=dict)   # rows of episodes.csv by what must become of them
    outcomes: dict[str, int] = field(default_factory=dict)   # the same of outcomes.csv

    def counts(self) -> dict[str, int]:
        """Return how many objects have each status and reason, as `status` or `status/reason`."""
        return dict(sorted(Counter("/".join(filter(None, fate)) for fate in self.fates.values()).items()))


def population(n_women: int, seed: object = 1, *, first_year: int = 2015, rounds: int = 3, interval_days: int = 1096,
               invited_over_days: int = 3 * 365, rows: int = 64, columns: int = 48) -> Population:
    """Return a population: every woman is invited `rounds` times at intervals (three years), seven in ten come again.

    First invitations are spread over `invited_over_days`. The first fifteen women have the roles of `people.ROLES`.
    Images have `rows` × `columns` pixels.
    """
    women = people.women(n_women, seed, first_year - 69)        # 49 to 69 years old when it starts
    landed: list[Landed] = []
    episodes: list[dict[str, str]] = []
    outcomes: list[dict[str, str]] = []
    quirks = _quirks()
    for woman in women:
        rng = people.generator("woman", seed, woman.number)
        own = rng.gauss(56, 13)
        start = date(first_year, 1, 5) + timedelta(days=rng.randrange(invited_over_days))
        for number in range(rounds):
            when = start + timedelta(days=number * interval_days + rng.randrange(-40, 40))
            came = number == 0 or rng.random() < 0.7
            visit = _visit(woman, number, when, own, rng)
            episodes.append(clinical.episode(visit, came, rng))
            if came:
                landed += _study(visit, rng, rows, columns, quirks)
                if visit.cancer:
                    outcomes.append(clinical.outcome(visit, rng))
    odd = people.nhs_numbers(people.generator("odd", seed), 1)[0]
    return Population(tuple(women), tuple(landed), (*episodes, *clinical.odd_episodes(odd)),
                      (*outcomes, *clinical.odd_outcomes(odd, women)), tuple(people.crosswalk(women)),
                      tuple(sorted(w.nhs for w in women if w.role != "not_permitted")))


def _quirks() -> Iterator[Quirk]:
    while True:
        yield from (QUIRKS.get(n, "") for n in range(QUIRKS_EVERY))


def _visit(woman: Woman, number: int, when: date, own: float, rng: random.Random) -> Visit:
    at = sorted(woman.locals)[number % len(woman.locals)]
    sets = [s for s in SETS if s.issuer == at]
    when = date(1998, 4, 2) if woman.role == "old_study" and not number else when
    chance = rng.random()
    cancer = "screen_detected" if chance < DETECTED else "interval" if chance < DETECTED + INTERVAL else ""
    return Visit(woman, number, when, sets[(woman.number // 3 + number) % len(sets)],
                 rng.choice([o for o in OPERATORS if o.issuer == at]), own, cancer, rng.choice("LR"))


def _study(visit: Visit, rng: random.Random, rows: int, columns: int, quirks: Iterator[Quirk]) -> list[Landed]:
    """One visit: R and L, CC and MLO, sometimes a repeat; by the set raw images, a slab, dose and CAD reports."""
    woman, machine, when = visit.woman, visit.machine, visit.when
    day = when.strftime("%Y%m%d")
    fate = FATES.get(woman.role, RELEASED)
    if fate == RELEASED and woman.role == "old_study" and not visit.number:
        fate = (Status.REJECTED, Reason.DATE_NOT_ELIGIBLE)
    if fate == RELEASED and woman.role == "undated" and not visit.number:
        fate = (Status.REJECTED, Reason.DATE_UNKNOWN)
    study = uid("study", woman.nhs, visit.number)
    local = woman.locals[machine.issuer]
    folder = f"{machine.issuer}/{woman.name.split('=')[0].replace('^', '_')}_{local}/{day} screening"
    clock = datetime(when.year, when.month, when.day, rng.randrange(8, 17), rng.randrange(60), rng.randrange(60))
    common: dict[str, Any] = {
        "patient_id": local, "patient_name": woman.name, "birth_date": woman.birth.strftime("%Y%m%d"),
        # the older set at the first hospital does not say whose ids it writes: the landing source declares it
        "issuer": None if machine.serial == SETS[0].serial else machine.issuer,
        "nhs_number": woman.nhs if woman.number % 2 else None,
        "study_uid": study, "study_date": None if fate[1] == Reason.DATE_UNKNOWN else day,
        "study_time": clock.strftime("%H%M%S"),
        "accession": f"ACC{1000000 + woman.number * 10 + visit.number}", "manufacturer": machine.manufacturer,
        "model": machine.model, "serial": machine.serial, "station": machine.station,
        "institution": machine.institution, "operator": rng.choice(visit.operator.names), "rows": rows,
        "columns": columns, "SoftwareVersions": machine.software(when.year),
    }
    if woman.charset is not None:
        common["SpecificCharacterSet"] = woman.charset
    image = {"transfer_syntax": rng.choice(machine.syntaxes), "overlay": rng.random() < 0.1}
    views = [(side, view, 0) for side in "RL" for view in ("CC", "MLO")]
    if rng.random() < visit.operator.repeats:
        side, view, _ = rng.choice(views)
        views.append((side, view, 1))                   # a technical repeat
    found: list[Landed] = []

    def land(kind: str, name: str, fate: Fate, **more: Any) -> None:
        key = f"{folder}/{name}"
        found.append(Landed(key, kind, {**common, "seed": key, **more}, woman.number, fate))

    shots: list[Shot] = []
    for number, (side, view, repeat) in enumerate(views, 1):
        clock += timedelta(seconds=rng.randrange(35, 110))
        shot = exposure.elements(machine, visit.operator, exposure.thickness_mm(
            visit.own + (2 if view == "MLO" else 0), rng), view, side, rng)
        event, time = uid("event", study, side, view, repeat), clock.strftime("%H%M%S")
        taken = {"laterality": side, "view": view, **shot, "InstanceNumber": str(number), "IrradiationEventUID": event,
                 "AcquisitionNumber": str(number), "AcquisitionTime": time, "ContentTime": time}
        name = f"{woman.name.split('^')[0]}_{side}{view}_{number:02d}"
        instance = uid("sop instance", f"{folder}/{name}.dcm")
        land("mammogram", f"{name}.dcm", fate, **image, **taken, sop_instance_uid=instance)
        shots.append(Shot(event, instance, DigitalMammographyXRayImageStorageForPresentation, side, view,
                          f"{day}{time}", shot))
        if machine.sends_raw and visit.number == 1:
            land("mammogram", f"{name}_RAW", fate, **image, **taken, intent="FOR PROCESSING")
    if machine.sends_slabs and visit.number == 1:
        clock += timedelta(seconds=60)
        time = clock.strftime("%H%M%S")
        shot = exposure.elements(machine, visit.operator, exposure.thickness_mm(visit.own, rng), "MLO", "L", rng)
        shot |= {"OrganDose": f"{float(shot['OrganDose']) * 1.3:.5f}", "PositionerPrimaryAngle": "-45"}
        land("tomosynthesis", "slab_LMLO.dcm", fate, laterality="L", view="MLO", **shot, AcquisitionTime=time,
             ContentTime=time, InstanceNumber=str(len(views) + 1), IrradiationEventUID=uid("event", study, "slab"))
    if machine.reports_dose:
        land("dose_report", "dose_report.dcm", fate, shots=tuple(shots), quirk=next(quirks))
    if machine.reports_cad and woman.number % 2:
        land("cad", "cad.dcm", fate, shots=tuple(shots), marks=_marks(visit, shots, rng, rows, columns))
    return found


def _marks(visit: Visit, shots: Sequence[Shot], rng: random.Random, rows: int, columns: int) -> tuple[Mark, ...]:
    """A finding or two, likelier where a cancer is; often none."""
    found = []
    for shot in shots:
        cancer = visit.cancer and shot.laterality == visit.side
        if cancer or rng.random() < 0.15:
            likely = rng.randrange(55, 97) if cancer else rng.randrange(3, 45)
            found.append(Mark(shot.image, shot.image_class, shot.laterality, shot.view,
                              rng.choice(("mass", "calcification")), float(rng.randrange(columns)),
                              float(rng.randrange(rows)), likely, min(99, likely + rng.randrange(10))))
    return tuple(found)


def truth(pop: Population) -> Truth:
    """Return fates, sentinels and UIDs of a population, without writing it."""
    sentinels: set[str] = set()
    uids: set[str] = set()
    for one in pop.landed:
        options = dict(one.options)
        sentinels |= files.sentinels(**options)
        uids |= files.uids(one.kind, **options)
    for woman in pop.women:
        sentinels |= {woman.nhs, *filter(None, (woman.former_nhs,)), *woman.locals.values()}
    known = {row[2].replace(" ", "") for row in pop.crosswalk} | set(pop.permitted)
    resolved = {row[3]: row[2] for row in pop.crosswalk if row[3]}
    permitted = set(pop.permitted)

    def fates(table: Iterable[dict[str, str]]) -> dict[str, int]:
        numbers = (resolved.get(row["nhs_number"], row["nhs_number"]) for row in table)
        return dict(Counter("permitted" if number in permitted else "not permitted" if number in known else "unknown"
                            for number in numbers))

    return Truth({one.key: one.fate for one in pop.landed}, frozenset(sentinels), frozenset(uids),
                 fates(pop.episodes), fates(pop.outcomes))


def write(directory: Path, pop: Population, *, as_of: date = date(2024, 1, 31),
          also: Sequence[tuple[str, str, str]] = ()) -> Truth:
    """Lay the population out below `directory`; return the truth about it."""
    lay_out(directory, pop, as_of=as_of, also=also)
    return truth(pop)


def lay_out(directory: Path, pop: Population, *, as_of: date, also: Sequence[tuple[str, str, str]] = (),
            workers: int = 1, tell: Callable[[int], None] = lambda done: None) -> None:
    """Write landing/ and the tables beside it (people, clinical, dosimetry) below `directory`.

    `also` adds (issuer, local_id, nhs_number) to the crosswalk and its numbers to the permitted people. With more than
    one worker the files are made in processes; `tell` is told how many there are now and then. The bytes are the same.
    """
    landing = directory / "landing"
    for folder in {(landing / one.key).parent for one in pop.landed}:
        folder.mkdir(parents=True, exist_ok=True)
    groups = [pop.landed[n:n + 500] for n in range(0, len(pop.landed), 500)]
    done = 0
    if workers == 1:
        for group in groups:
            done += _make(landing, group)
            tell(done)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for made in as_completed([pool.submit(_make, landing, group) for group in groups]):
                done += made.result()
                tell(done)
    links = [*pop.crosswalk, *((*row, "") for row in also)]
    _csv(directory / "crosswalk.csv", ("issuer", "local_id", "nhs_number", "superseded_nhs_number"), links)
    for name, header, rows in (("episodes", EPISODES, pop.episodes), ("outcomes", OUTCOMES, pop.outcomes)):
        _csv(directory / f"{name}.csv", header, (tuple(row[c] for c in header) for row in rows))
    (directory / dosimetry.FACTORS_NAME).write_text(dosimetry.factors_csv(), encoding="utf-8")
    (directory / dosimetry.OUTPUT_NAME).write_text(dosimetry.output_csv(
        [(m.manufacturer, m.model, m.serial) for m in SETS], date(1999, 1, 1), later=date(2022, 9, 1),
        measured=exposure.measured, focus_table_mm=exposure.FOCUS_TO_SUPPORT_MM), encoding="utf-8")
    permitted = sorted({*pop.permitted, *(number for _, _, number in also)})
    lines = [f"# as-of: {as_of.isoformat()}", "person", *permitted, f"# end: {len(permitted)}"]
    (directory / "permitted.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make(landing: Path, group: Sequence[Landed]) -> int:
    for one in group:
        (landing / one.key).write_bytes(one.data())
    return len(group)


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

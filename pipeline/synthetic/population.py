"""A breast-screening population over the years: women, episodes, four-view mammograms, and what must become of each.

`population(n, seed)` decides; `write(directory, population)` lays it out as hospitals do: names in folders and file
names, a crosswalk, the permitted people, the episodes of a screening service.
"""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from pipeline.model import Reason, Status
from pipeline.synthetic import exposure, files, people
from pipeline.synthetic.encode import uid
from pipeline.synthetic.headers import vendor_of
from pipeline.synthetic.people import Woman

Fate = tuple[Status, Reason | None]
RELEASED: Fate = (Status.PENDING, None)
FATES: dict[str, Fate] = {
    "not_permitted": (Status.REJECTED, Reason.PERSON_NOT_PERMITTED),
    "unlinked": (Status.WITHHELD, Reason.PERSON_NOT_LINKED),
    "ambiguous": (Status.WITHHELD, Reason.PERSON_AMBIGUOUS),
}
EPISODES = ("nhs_number", "episode_id", "episode_type", "episode_date", "appointment_made", "date_of_foa", "date_of_as",
            "end_code", "bso_organisation_code", "bso_batch_id", "final_action_code", "change_db_date_time")


@dataclass(frozen=True)
class XRaySet:
    """One mammography set: where it stands, what it is, and how it writes its files."""

    issuer: str
    manufacturer: str
    model: str
    serial: str
    station: str
    institution: str
    syntaxes: tuple[str, ...]


SETS = (
    XRaySet("HOSP-A", "GE MEDICAL SYSTEMS", "Senographe DS ADS_43.10.1", "SN-660417", "TEASELROOM1",
            "Thistledown Infirmary", ("implicit", "explicit")),
    XRaySet("HOSP-A", "HOLOGIC, Inc.", "Selenia Dimensions", "SN-81004520719", "TEASELROOM2", "Thistledown Infirmary",
            ("explicit", "jpeg2000")),
    XRaySet("HOSP-B", "SIEMENS", "MAMMOMAT Inspiration", "SN-21557", "BURDOCKVAN", "Burdock Cross Hospital",
            ("explicit", "rle")),
    XRaySet("HOSP-B", "GE MEDICAL SYSTEMS", "Senographe Essential", "SN-770233", "BURDOCKROOM",
            "Burdock Cross Hospital", ("explicit", "jpeg")),
)
OPERATORS = ("WINTERBOTTOM^HESTER", "Winterbottom^Hester ", "CLUTTERBUCK^ROWENA", "PUDDLEFOOT^SIBYL")


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
    crosswalk: tuple[tuple[str, str, str, str], ...]
    permitted: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """What a test may hold the pipeline to. Everybody's identities stand in it: keep it from outputs."""

    fates: dict[str, Fate]                              # by key below landing
    sentinels: frozenset[str]                           # words and numbers that may not leave the identifiable zone
    uids: frozenset[str]                                # Study, Series and SOP Instance UIDs as they landed
    episodes: dict[str, int] = field(default_factory=dict)   # rows of episodes.csv by what must become of them

    def counts(self) -> dict[str, int]:
        """Return how many objects have each status and reason, as `status` or `status/reason`."""
        return dict(sorted(Counter("/".join(filter(None, fate)) for fate in self.fates.values()).items()))


def population(n_women: int, seed: object = 1, *, first_year: int = 2015, rounds: int = 3,
               rows: int = 64, columns: int = 48) -> Population:
    """Return a population: every woman is invited `rounds` times at three-year intervals, about three in four come.

    The first fifteen women have the roles of `people.ROLES`. Images have `rows` × `columns` pixels.
    """
    women = people.women(n_women, seed)
    landed: list[Landed] = []
    episodes: list[dict[str, str]] = []
    for woman in women:
        rng = people.generator("woman", seed, woman.number)
        own = rng.gauss(55, 12)
        start = date(first_year, 1, 5) + timedelta(days=rng.randrange(3 * 365))
        for visit in range(rounds):
            when = start + timedelta(days=visit * 1096 + rng.randrange(-40, 40))
            came = visit == 0 or rng.random() < 0.7
            episodes.append(_episode(woman, visit, when, came, rng))
            if came:
                landed += _study(woman, visit, when, own, rng, rows, columns)
    episodes += _odd_rows(seed)
    return Population(tuple(women), tuple(landed), tuple(episodes), tuple(people.crosswalk(women)),
                      tuple(sorted(w.nhs for w in women if w.role != "not_permitted")))


def _episode(woman: Woman, visit: int, when: date, came: bool, rng: random.Random) -> dict[str, str]:
    """One row, in the codes and date forms of a screening service's export."""
    recalled = came and rng.random() < 0.15
    return {
        "nhs_number": woman.former_nhs if woman.role == "superseded" and woman.former_nhs and not visit else woman.nhs,
        "episode_id": str(500000 + woman.number * 10 + visit), "episode_type": "C" if not visit else "R",
        "episode_date": (when - timedelta(days=21)).isoformat(), "appointment_made": "True",
        "date_of_foa": when.isoformat(), "date_of_as": (when + timedelta(days=14)).isoformat() if recalled else "",
        "end_code": "SC" if came else "DNA", "bso_organisation_code": "ZZA" if "HOSP-A" in woman.locals else "ZZB",
        "bso_batch_id": f"ZZA{100000 + visit}Q", "final_action_code": ("RR" if not recalled else "EC") if came else "",
        "change_db_date_time": f"{when.isoformat()} 10:16:01.624494+01",
    }


def _odd_rows(seed: object) -> list[dict[str, str]]:
    """A number with a wrong check digit, one of ten equal digits, none at all, and somebody nobody permitted."""
    valid = people.nhs_numbers(people.generator("odd", seed), 1)[0]
    wrong = valid[:9] + str((int(valid[9]) + 1) % 10)
    row = dict.fromkeys(EPISODES, "") | {"episode_type": "C", "episode_date": "2018-03-01", "end_code": "SC",
                                         "final_action_code": "RR", "bso_organisation_code": "ZZA"}
    return [row | {"nhs_number": number, "episode_id": str(999000 + n)}
            for n, number in enumerate((wrong, "9999999999", "", valid))]


def _study(
    woman: Woman, visit: int, when: date, own: float, rng: random.Random, rows: int, columns: int
) -> list[Landed]:
    """One visit: R and L, CC and MLO, sometimes a technical repeat; on some sets raw images, a slab, a dose report."""
    at = sorted(woman.locals)[visit % len(woman.locals)]
    machine = [s for s in SETS if s.issuer == at][(woman.number + visit) % 2]
    maker = vendor_of(machine.manufacturer, machine.model)
    when = date(1998, 4, 2) if woman.role == "old_study" and not visit else when
    day = when.strftime("%Y%m%d")
    fate = FATES.get(woman.role, RELEASED)
    if fate == RELEASED and woman.role == "old_study" and not visit:
        fate = (Status.REJECTED, Reason.DATE_NOT_ELIGIBLE)
    if fate == RELEASED and woman.role == "undated" and not visit:
        fate = (Status.REJECTED, Reason.DATE_UNKNOWN)
    study = uid("study", woman.nhs, visit)
    folder = f"{at}/{woman.name.split('=')[0].replace('^', '_')}_{woman.locals[at]}/{day} screening"
    common: dict[str, Any] = {
        "patient_id": woman.locals[at], "patient_name": woman.name, "birth_date": woman.birth.strftime("%Y%m%d"),
        # the older set at the first hospital does not say whose ids it writes: the landing source declares it
        "issuer": None if machine.serial == SETS[0].serial else at,
        "nhs_number": woman.nhs if woman.number % 2 else None,
        "study_uid": study, "study_date": None if fate[1] == Reason.DATE_UNKNOWN else day,
        "study_time": f"{rng.randrange(8, 17):02d}{rng.randrange(60):02d}{rng.randrange(60):02d}",
        "accession": f"ACC{1000000 + woman.number * 10 + visit}", "manufacturer": machine.manufacturer,
        "model": machine.model, "serial": machine.serial, "station": machine.station,
        "institution": machine.institution, "operator": rng.choice(OPERATORS), "rows": rows, "columns": columns,
        "transfer_syntax": rng.choice(machine.syntaxes), "overlay": rng.random() < 0.1,
    }
    if woman.charset is not None:
        common["SpecificCharacterSet"] = woman.charset
    views = [(side, view, 0) for side in "RL" for view in ("CC", "MLO")]
    if rng.random() < 0.2:
        side, view, _ = rng.choice(views)
        views.append((side, view, 1))                   # a technical repeat
    found: list[Landed] = []

    def land(kind: str, name: str, fate: Fate, **more: Any) -> None:
        key = f"{folder}/{name}"
        found.append(Landed(key, kind, {**common, "seed": key, **more}, woman.number, fate))

    for number, (side, view, repeat) in enumerate(views, 1):
        shot = exposure.elements(maker, exposure.thickness_mm(own + (2 if view == "MLO" else 0), rng), view, side, rng)
        shot |= {"InstanceNumber": str(number), "IrradiationEventUID": uid("event", study, side, view, repeat)}
        image: dict[str, Any] = {"laterality": side, "view": view, **shot}
        name = f"{woman.name.split('^')[0]}_{side}{view}_{number:02d}"
        land("mammogram", f"{name}.dcm", fate, **image)
        if machine.manufacturer.startswith("GE") and visit == 1:
            land("mammogram", f"{name}_RAW", fate, **image, intent="FOR PROCESSING")
    if machine.manufacturer.startswith("HOLOGIC") and visit == 1:
        land("tomosynthesis", "slab_LMLO.dcm", fate, laterality="L", view="MLO", transfer_syntax="explicit")
    if machine.manufacturer.startswith("SIEMENS"):
        wrong_class = (Status.REJECTED, Reason.SOP_CLASS_NOT_ELIGIBLE)
        land("dose_report", "dose_report.dcm", wrong_class, transfer_syntax="explicit", overlay=False)
    return found


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
    rows: Counter[str] = Counter()
    for row in pop.episodes:
        number = resolved.get(row["nhs_number"], row["nhs_number"])
        rows["permitted" if number in permitted else "not permitted" if number in known else "unknown"] += 1
    return Truth({one.key: one.fate for one in pop.landed}, frozenset(sentinels), frozenset(uids), dict(rows))


def write(directory: Path, pop: Population, *, as_of: date = date(2024, 1, 31),
          also: Sequence[tuple[str, str, str]] = ()) -> Truth:
    """Write landing/, crosswalk.csv, permitted.csv and episodes.csv below `directory`; return the truth about them.

    `also` adds (issuer, local_id, nhs_number) to the crosswalk and its numbers to the permitted people.
    """
    for one in pop.landed:
        path = directory / "landing" / one.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(one.data())
    links = [*pop.crosswalk, *((*row, "") for row in also)]
    _csv(directory / "crosswalk.csv", ("issuer", "local_id", "nhs_number", "superseded_nhs_number"), links)
    _csv(directory / "episodes.csv", EPISODES, (tuple(row[c] for c in EPISODES) for row in pop.episodes))
    permitted = sorted({*pop.permitted, *(number for _, _, number in also)})
    lines = [f"# as-of: {as_of.isoformat()}", "person", *permitted, f"# end: {len(permitted)}"]
    (directory / "permitted.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return truth(pop)


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)

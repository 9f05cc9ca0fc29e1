"""The clinical tables of a synthetic population: episodes of a screening service, cancers of a registry.

Rows as such services export them, as text by column; some are wrong in the ways that real ones are.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from pipeline.synthetic.people import Woman
from pipeline.synthetic.unit import Operator, XRaySet

EPISODES = ("nhs_number", "episode_id", "episode_type", "episode_date", "appointment_made", "date_of_foa", "date_of_as",
            "end_code", "bso_organisation_code", "bso_batch_id", "final_action_code", "change_db_date_time")
OUTCOMES = ("nhs_number", "episode_id", "outcome", "diagnosis_date", "laterality", "invasive", "size_mm", "grade",
            "registry_ref")
# How many attended examinations find a cancer, and are followed by one before the next. Several times what screening
# sees, so that a small population has some.
DETECTED, INTERVAL = 0.025, 0.01


@dataclass(frozen=True)
class Visit:
    """One examination: who, the how-manieth, when, on which set, worked by whom, and the cancer it leads to."""

    woman: Woman
    number: int
    when: date
    machine: XRaySet
    operator: Operator
    own: float                      # her usual compressed thickness in mm
    cancer: str = ""                # screen_detected or interval
    side: str = ""                  # of the cancer


def _number(woman: Woman, visit: int) -> str:
    """Return the NHS number that a clinical system has of her: at first the superseded one, where she had one."""
    return woman.former_nhs if woman.role == "superseded" and woman.former_nhs and not visit else woman.nhs


def _episode_id(visit: Visit) -> str:
    return str(500000 + visit.woman.number * 10 + visit.number)


def episode(visit: Visit, came: bool, rng: random.Random) -> dict[str, str]:
    """One row, in the codes and date forms of a screening service's export."""
    woman, when = visit.woman, visit.when
    recalled = came and (visit.cancer == "screen_detected" or rng.random() < 0.08)
    return {
        "nhs_number": _number(woman, visit.number), "episode_id": _episode_id(visit),
        "episode_type": "R" if visit.number else "C",
        "episode_date": (when - timedelta(days=21)).isoformat(), "appointment_made": "True",
        "date_of_foa": when.isoformat(), "date_of_as": (when + timedelta(days=14)).isoformat() if recalled else "",
        "end_code": "SC" if came else "DNA", "bso_organisation_code": "ZZA" if "HOSP-A" in woman.locals else "ZZB",
        "bso_batch_id": f"ZZA{100000 + visit.number}Q",
        "final_action_code": ("RR" if not recalled else "EC") if came else "",
        "change_db_date_time": f"{when.isoformat()} 10:16:01.624494+01",
    }


def outcome(visit: Visit, rng: random.Random) -> dict[str, str]:
    """One cancer: found by the examination, or between it and the next."""
    late = rng.randrange(120, 450) if visit.cancer == "interval" else rng.randrange(14, 60)
    invasive = rng.random() < 0.8
    return {
        "nhs_number": _number(visit.woman, visit.number), "episode_id": _episode_id(visit), "outcome": visit.cancer,
        "diagnosis_date": (visit.when + timedelta(days=late)).isoformat(), "laterality": visit.side,
        "invasive": str(invasive),
        "size_mm": f"{min(60.0, max(3.0, rng.gauss(21 if visit.cancer == 'interval' else 14, 6))):.0f}",
        "grade": rng.choice("123") if invasive else "", "registry_ref": f"REG{rng.randrange(10**6):06d}",
    }


def odd_episodes(valid: str) -> list[dict[str, str]]:
    """A number with a wrong check digit, one of ten equal digits, none at all, and somebody nobody permitted."""
    wrong = valid[:9] + str((int(valid[9]) + 1) % 10)
    row = dict.fromkeys(EPISODES, "") | {"episode_type": "C", "episode_date": "2018-03-01", "end_code": "SC",
                                         "final_action_code": "RR", "bso_organisation_code": "ZZA"}
    return [row | {"nhs_number": number, "episode_id": str(999000 + n)}
            for n, number in enumerate((wrong, "9999999999", "", valid))]


def odd_outcomes(valid: str, women: Sequence[Woman]) -> list[dict[str, str]]:
    """Somebody unknown; and of a known woman a size in words, and a laterality that nobody declared."""
    row = dict.fromkeys(OUTCOMES, "") | {"outcome": "interval", "diagnosis_date": "2019-05-02", "laterality": "L"}
    known = {"nhs_number": women[0].nhs}
    return [row | {"nhs_number": valid, "episode_id": "999100"}, row | known | {"size_mm": "about 20"},
            row | known | {"laterality": "left"}]

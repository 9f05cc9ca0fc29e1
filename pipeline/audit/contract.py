"""An audit's contract: which attributes it needs, what a recipe leaves of each, and the least rule that would serve.

Pure. What a recipe does is given as a function of a DICOM keyword; the command line takes it from the compiled plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.audit.base import Audit, Need, Outcome, Treatment

# Rules of the recipe language for what is not kept as it is. The keyword says which pseudonym.
_PSEUDONYMS = {"PatientID": "ADD PatientID var:patient", "DeviceSerialNumber": "REPLACE DeviceSerialNumber func:device",
               "OperatorsName": "REPLACE OperatorsName func:operator"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One need, the attributes that were looked at for it, what the recipe does to each, and whether that serves.

    `rules` are the least that would serve, where it does not or where less would do; `weaker` names those among them
    that need a written reason, because they leave more than PS3.15's Basic Profile does.
    """

    what: str
    why: str
    required: bool
    attributes: tuple[str, ...]
    does: tuple[Treatment, ...]
    served: bool
    rules: tuple[str, ...] = ()
    weaker: tuple[str, ...] = ()


def judge(
    audit: Audit, does: Callable[[str], Treatment], weaker: Callable[[str], bool] = lambda rule: False
) -> list[Verdict]:
    """Return a verdict for each need of the audit, in its order."""
    return [_judge(need, does, weaker) for need in audit.needs]


def served(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing that the audit cannot do without is lacking."""
    return all(v.served for v in verdicts if v.required)


def _judge(need: Need, does: Callable[[str], Treatment], weaker: Callable[[str], bool]) -> Verdict:
    def verdict(way: tuple[str, ...], serves: bool, wanted: Sequence[str]) -> Verdict:
        return Verdict(need.what, need.why, need.required, way, tuple(map(does, way)), serves,
                       tuple(rule(keyword, need.least) for keyword in wanted),
                       tuple(k for k in wanted if weaker(rule(k, need.least))))

    for way in need.ways:
        if all(does(keyword) in need.serves for keyword in way):
            # Kept as it is where a pseudonym, a shift or a band would do: served, and more than is needed.
            return verdict(way, True, [k for k in way if does(k) != need.least and need.least != "kept"])
    # The way that lacks least; of those the first, which is the usual one.
    way = min(need.ways, key=lambda way: sum(does(keyword) not in need.serves for keyword in way))
    return verdict(way, False, [k for k in way if does(k) not in need.serves])


def rule(keyword: str, least: Treatment) -> str:
    """Return the rule that leaves the least that serves."""
    if least == "pseudonym":
        return _PSEUDONYMS[keyword]
    return {"remapped": f"REPLACE {keyword} func:uid", "shifted": f"JITTER {keyword} var:days",
            "banded": f"ADD {keyword} var:age_band"}.get(least, f"KEEP {keyword}")


_ROLES: dict[str, Treatment] = {"identity": "pseudonym", "identifier": "pseudonym", "event_date": "shifted",
                                "category": "kept", "number": "kept", "drop": "removed"}


def judge_clinical(outcome: Outcome, declared: Mapping[str, Mapping[str, str]]) -> list[Verdict]:
    """Return a verdict for the date and the outcome of a clinical table. `declared`: table → column → role."""
    columns = declared.get(outcome.table, {})

    def verdict(what: str, column: str, role: str, why: str) -> Verdict:
        does = _ROLES.get(columns.get(column, ""), "removed")
        good = does == _ROLES[role]
        line = f'[clinical.columns] of {outcome.table}: {column} = {{ role = "{role}"'
        line += ", values = […] }" if role == "category" else " }"
        return Verdict(what, why, True, (f"{outcome.table}.{column}",), (does,), good, () if good else (line,))

    return [verdict("episode date", outcome.date, "event_date", "Joins a study to its episode."),
            verdict("outcome", outcome.column, "category", "What is asked.")]

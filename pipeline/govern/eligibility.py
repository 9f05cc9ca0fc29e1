"""May this object be used? The project file's SOP classes, dates and permitted people. Pure.

A person is whom the crosswalk leads to, so their absence has reasons of its own. In order: `decide_object`, then the
reason for which nobody could be told, then `decide`.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.model import Reason

if TYPE_CHECKING:
    from pipeline.config import ProjectConfig


@dataclass(frozen=True, slots=True)
class Rules:
    """SOP Class UIDs; first and last study date as YYYYMMDD; ids of permitted people, None where no list is needed."""

    sop_classes: frozenset[str]
    earliest: str
    latest: str
    permitted: frozenset[str] | None

    @classmethod
    def of(cls, config: ProjectConfig, permitted_ids: frozenset[str] | None) -> Rules:
        """Return the project's rules; `permitted_ids` are those of `people.load_permitted`. Raises ProjectFileError."""
        from pipeline.govern.sop_classes import resolve

        dates = config.eligibility.study_dates
        return cls(resolve(config.eligibility.sop_classes, config.path), f"{dates.earliest:%Y%m%d}",
                   f"{dates.latest:%Y%m%d}", permitted_ids)


def decide(row: Mapping[str, Any], rules: Rules, person: str | None) -> Reason | None:
    """Return why an inventory row may not be used, or None. `person`: `Person.id`; None is not permitted."""
    if reason := decide_object(row, rules):
        return reason
    return Reason.PERSON_NOT_PERMITTED if rules.permitted is not None and person not in rules.permitted else None


def decide_object(row: Mapping[str, Any], rules: Rules) -> Reason | None:
    """Return why an inventory row may not be used whoever its person is, or None."""
    if row.get("sop_class_uid") not in rules.sop_classes:
        return Reason.SOP_CLASS_NOT_ELIGIBLE
    study_date = (row.get("study_date") or "").strip(" \0")
    if not _is_date(study_date):
        return Reason.DATE_UNKNOWN
    return None if rules.earliest <= study_date <= rules.latest else Reason.DATE_NOT_ELIGIBLE


def _is_date(text: str) -> bool:
    """Whether text is a DA (PS3.5 6.2): a day of the calendar as YYYYMMDD."""
    if len(text) != 8 or not (text.isascii() and text.isdigit()):
        return False
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:])
    return year > 0 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]

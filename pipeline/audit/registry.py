"""The audits that ship, by name."""

from __future__ import annotations

from pipeline.audit import compression, dose_survey, equipment, outcomes, repeats
from pipeline.audit.base import Audit
from pipeline.errors import UsageError

AUDITS: dict[str, Audit] = {module.AUDIT.name: module.AUDIT
                            for module in (dose_survey, compression, repeats, outcomes, equipment)}


def named(name: str) -> Audit:
    """Return an audit. Raises UsageError."""
    if name not in AUDITS:
        raise UsageError(f"There is no audit {name}.", hint=f"There are {', '.join(AUDITS)}.")
    return AUDITS[name]

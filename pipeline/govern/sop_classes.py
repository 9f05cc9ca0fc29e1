"""SOP classes as the project file names them: by UID, or by name or keyword of PS3.6 Annex A."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pipeline.errors import ProjectFileError


def resolve(names: Iterable[str], path: Path) -> frozenset[str]:
    """Return the UIDs. Raises ProjectFileError, naming the project file, for a name that PS3.6 does not have."""
    known = _known()
    found = [name if name[:1].isdigit() else known.get(name.strip().lower()) for name in names]
    if None in found:
        raise ProjectFileError(f"{path}: eligibility.sop_classes: entry {found.index(None) + 1} is no SOP class.",
                               hint="Write its UID, or its name as in PS3.6 Annex A.")
    return frozenset(uid for uid in found if uid)


@cache
def _known() -> dict[str, str]:
    from pydicom.uid import UID_dictionary

    entries = [(uid, entry) for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"]
    return {name.lower(): uid for uid, entry in entries for name in (entry[4], entry[0]) if name}

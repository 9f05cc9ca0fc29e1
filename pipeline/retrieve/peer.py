"""What a PACS is to this room, whichever way it is spoken to: it finds, and it sends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

Level = Literal["STUDY", "SERIES", "IMAGE"]
Part = TypeVar("Part")
Found = Mapping[str, str]       # keyword → value; several values joined by a backslash

OWN: dict[Level, str] = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
RETURNED: dict[str, tuple[str, ...]] = {
    "STUDY": ("StudyInstanceUID", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyDate",
              "ModalitiesInStudy"),
    "SERIES": ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "Manufacturer"),
    "IMAGE": ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"),
}
# How many there are of the next level, as PACS says: a list that is shorter was cut short (many cut at some number).
COUNTED: dict[Level, str] = {"STUDY": "NumberOfStudyRelatedSeries", "SERIES": "NumberOfSeriesRelatedInstances"}


def returned(level: Level) -> tuple[str, ...]:
    """Return the keywords that an answer is asked to have."""
    return (*RETURNED[level], *([COUNTED[level]] if level in COUNTED else []))


class Failed(Exception):
    """A PACS did not do what it was asked. `words`: why, with no value of a patient. `status`: DIMSE's or HTTP's.

    `reached`: it answered at all. `busy`: it says that it has no room. Never leaves this room.
    """

    def __init__(self, words: str, status: int | None = None, *, reached: bool = True, busy: bool = False) -> None:
        super().__init__(words)
        self.words, self.status, self.reached, self.busy = words, status, reached, busy


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request names: a study, or one of its series; `instances`: what is owed of it. Where not `whole`, these
    instances alone."""

    study: str
    series: str | None
    instances: tuple[str, ...]
    whole: bool = True


def all_asked(ask: Callable[[Part], str], parts: Iterable[Part]) -> str:
    """Ask for each part; return the last status in words. One that is refused keeps no other back: the first failure is
    raised once all were asked for. Where a PACS is busy or gone, at once."""
    said, wrong = "", None
    for part in parts:
        try:
            said = ask(part)
        except Failed as failed:
            if failed.busy or not failed.reached:
                raise
            wrong = wrong or failed
    if wrong:
        raise wrong
    return said


class Taker(Protocol):
    """Takes what comes in. `take` moves the file away, or leaves it to be removed where it is not wanted."""

    def take(self, path: Path, claimed: str | None) -> bool:
        """Take one file; `claimed`: the SOP Instance UID that its message named. False: it was not asked for."""

    def asked_for(self, uid: str) -> bool:
        """Tell whether this instance was asked for here."""

    def lacking(self) -> bool:
        """Tell whether anything that was asked for has not come."""

    def came(self) -> int:
        """Return how many files have come, wanted or not."""


class Peer(Protocol):
    """A PACS. All methods raise Failed. `by_study`: it may be asked for a whole study at once."""

    by_study: bool

    def find(self, level: Level, keys: Mapping[str, str]) -> Iterator[Found]:
        """Yield what PACS answers. Closing the iterator early asks it to stop."""

    def retrieve(self, wanted: Wanted, classes: Collection[str], taker: Taker) -> str:
        """Have it sent to `taker`; return the last status in words. `classes`: SOP classes, where they are known."""

    def rest(self) -> None:
        """Hold no association until the next question."""

"""What the engine made of a file beside what deid made of it, element by element at every depth.

Where the two differ, the difference is one of `KNOWN`, each tied to the tag, VR or rule that causes it, or it is a
fault. Numbers in brackets are those of docs/recipes.md, under which deid's conduct was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deid_runner import Recipe, new_uid, several, whole
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from pipeline.deidentify.dates import moved
from pipeline.deidentify.engine import Subject
from pipeline.deidentify.language import PERSONAL, REPORT_VALUES, private_vr
from pipeline.dicom.file import REPORTS

KNOWN = {
    1: "at the top the engine states what it did",
    2: "Specific Character Set stays wherever it stood, or text would no longer decode; under REMOVE ALL deid drops it",
    3: "look-up tables that deid keeps whatever the recipe says (30): in the engine a rule keeps them, or nothing does",
    4: "a UID under KEEP is replaced by the engine, unless PS3.6 registers it (29)",
    5: "DT: the engine takes the time off, or leaves it as precise as it came; deid writes all of it (4)",
    6: "the creator of a private element that stays, stays; deid drops it (31)",
    7: "a private element of a VR that nobody can read goes, whatever rule names it; deid keeps it (12)",
    8: "comments inside JPEG and JPEG 2000 frames are blanked where they stand; deid leaves them (13)",
    9: "rules for pixels paint; deid's pass over headers leaves pixels, and what describes them, alone",
    10: "of pixels that are read for text it is said that nothing is burned in",
    11: "content of structured reports passes by concept rules, which deid does not have: it drops all of it",
    12: "the creator of a private element is taken as it is written; deid does not look at its case",
    13: "private elements inside a sequence that stands as UN go: their VRs are written nowhere; deid keeps them",
    14: "a private element of another kind than the lists give, a date, name or UID goes; deid keeps any",
    15: "a date that is nobody's (1900-01-01), or midnight, is emptied; deid moves it, which tells the days or seconds",
}
STATED = {0x00120062: "YES", 0x00120063: "tre-ingest plan ", 0x00120064: "", 0x00280303: "MODIFIED"}
CHARACTER_SET, PIXEL_DATA, BURNED_IN = 0x00080005, 0x7FE00010, 0x00280301
DEID_SKIPS = frozenset({0x00281201, 0x00281202, 0x00281203, 0x00283010})
PAINTED = frozenset({PIXEL_DATA, 0x00280004, 0x00280006, 0x00280106, 0x00280107, 0x00280108, 0x00280109})
OPAQUE = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "UN"])
NUMERIC = frozenset(["AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"])
META = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}


@dataclass(frozen=True, slots=True)
class Difference:
    """`number` is that of `KNOWN`, 0 where none explains it; `path` has tags and items alone."""

    number: int
    path: str
    what: str


@dataclass(frozen=True, slots=True)
class Pair:
    """One file: the recipes that both went by, and whose file it is."""

    recipe: Recipe
    subject: Subject
    keep_times: bool = False
    concepts: bool = False
    chosen: Callable[[int, int], bool] = whole

    def differences(self, source: Dataset, ours: Dataset, deids: Dataset) -> Iterator[Difference]:
        """Yield each difference between what the engine and deid made of `source`."""
        if set(ours.file_meta.keys()) != META or ours.preamble != bytes(128):
            yield Difference(0, "file meta information", "not what the engine writes")
        painted = (self.recipe.filters and "SequenceOfUltrasoundRegions" in source
                   and "US" in str(source.get("Modality")).upper())
        yield from self._level(source, ours, deids, "", PAINTED if painted else frozenset())

    def _level(self, source: Dataset, ours: Dataset, deids: Dataset, above: str,
               painted: frozenset[int]) -> Iterator[Difference]:
        # an item is in implicit VR in a file that is not where a sequence above it stands as UN (PS3.5 6.2.2)
        unknown = source.original_encoding[0] and ours.original_encoding[0] is False
        for tag in sorted({*ours.keys(), *deids.keys()}):
            left, right = ours.get(tag), deids.get(tag)
            path = f"{above}{int(tag):08X}"
            if left is not None and right is not None and left.VR == right.VR == "SQ":
                items = len(left.value)
                if items != len(right.value):
                    yield Difference(0, path, "another number of items")
                    continue
                for index in range(items):
                    if self.chosen(index, items):
                        yield from self._level(source[tag].value[index], left.value[index], right.value[index],
                                               f"{path}[{index}].", frozenset())
            elif right is None:
                assert left is not None
                yield Difference(self._kept(left, source, ours, top=not above, painted=painted), path,
                                 "the engine keeps what deid drops")
            elif left is None:
                yield Difference(self._dropped(right, source, painted, unknown=unknown), path,
                                 "the engine drops what deid keeps")
            elif left.VR != right.VR or said(left) != said(right):
                yield Difference(self._other(left, right, ours, top=not above, painted=painted), path, "another value")

    def _kept(self, left: DataElement, source: Dataset, ours: Dataset, *, top: bool, painted: frozenset[int]) -> int:
        tag = int(left.tag)

        def same() -> bool:
            return tag in source and said(left) == said(source[tag])

        if top and tag in STATED and str(left.value).startswith(STATED[tag]):
            return 1
        if tag == CHARACTER_SET and same():
            return 2
        if left.tag.is_private_creator and same():
            block = left.tag.group << 16 | left.tag.element << 8
            owned = [one for one in ours.keys() if int(one) & 0xFFFFFF00 == block]      # noqa: SIM118
            return 6 if any(self._named(ours[one]) for one in owned) else 0
        if top and tag == BURNED_IN and left.value == "NO":
            return 10
        report = str(source.get("SOPClassUID")).startswith(REPORTS) and self.concepts
        return 11 if report and top and left.keyword in REPORT_VALUES else 0

    def _dropped(self, right: DataElement, source: Dataset, painted: frozenset[int], *, unknown: bool) -> int:
        tag = int(right.tag)
        if tag in DEID_SKIPS and tag not in self.recipe.rules:
            return 3
        if right.tag.is_private and self._named(right, exactly=False):
            # of one without a value, in an item, pydicom no longer tells whether it stood as UN
            opaque = right.VR in OPAQUE or right.is_empty or stands_as_un(source, tag)
            if not self._named(right):
                return 12
            return 7 if opaque else 13 if unknown else 14 if _of_another_kind(right) else 0
        return 9 if tag in painted else 0

    def _other(self, left: DataElement, right: DataElement, ours: Dataset, *, top: bool,
               painted: frozenset[int]) -> int:
        tag = int(left.tag)
        action = self.recipe.rules.get(tag, ("", ""))[0]
        if left.VR == right.VR == "UI" and action == "KEEP":
            return 4 if "\\".join(map(str, several(left.value))) == new_uid(right.value, self.subject) else 0
        if left.VR == right.VR in ("DA", "DT") and action == "JITTER" and self._without_nobodys(left, right):
            return 15
        if left.VR == right.VR == "DT" and action == "JITTER":
            return 5 if self._same_moment(left, right) else 0
        if top and tag in painted:
            return 9
        if tag == PIXEL_DATA and ours.file_meta.TransferSyntaxUID.is_encapsulated:
            blanked = len(left.value) == len(right.value) and not any(
                a for a, b in zip(left.value, right.value, strict=True) if a != b)
            return 8 if blanked else 0
        return 10 if top and tag == BURNED_IN and left.value == "NO" else 0

    def _named(self, element: DataElement, *, exactly: bool = True) -> bool:
        """Whether a rule names this private element, `exactly` or by a creator in other case."""
        tag, creator = element.tag, str(element.private_creator)
        return any(group == tag.group and number == tag.element & 0xFF
                   and (name == creator if exactly else name.lower() == creator.lower())
                   for group, name, number in self.recipe.private)

    def _without_nobodys(self, left: DataElement, right: DataElement) -> bool:
        """Ours is deid's, but for dates that are nobody's, which are empty; one at least is."""
        emptied = 0
        for one, other in zip(map(str, several(left.value or "")), map(str, several(right.value)), strict=True):
            if not one and other:
                day = datetime.strptime(other[:8], "%Y%m%d").date() - timedelta(days=self.subject.days)
                near = (day + timedelta(days=n) for n in range(2 if self.keep_times else 1))     # past midnight
                if not any(moved(one_day, 0) is None for one_day in near):
                    return False
                emptied += 1
            elif one[:8] != other[:8]:
                return False
        return emptied > 0

    def _same_moment(self, left: DataElement, right: DataElement) -> bool:
        """Ours is the day of deid's, or with times kept the same digits as far as they were given, and the zone."""
        ones, others = several(left.value), several(right.value)
        for one, other in zip(map(str, ones), map(str, others), strict=True):
            sign = "+" if "+" in other else "-"
            (clock, _, zone), (full, _, full_zone) = one.partition(sign), other.partition(sign)
            if (len(clock) not in (0, 8) and not self.keep_times) or not full.startswith(clock):
                return False
            if bool(one) != bool(other):
                return False
            if zone != (full_zone if len(clock) > 8 else ""):
                return False
        return True


def _of_another_kind(element: DataElement) -> bool:
    listed = private_vr(element.tag.group, str(element.private_creator), element.tag.element & 0xFF)
    return element.VR in PERSONAL or (listed not in ("", element.VR) and not {element.VR, listed} <= NUMERIC)


def stands_as_un(source: Dataset, tag: int) -> bool:
    """Whether an element stands as UN in the file; ask before it is read, for pydicom gives it the VR of its tag."""
    raw = source.get_item(tag)
    return isinstance(raw, RawDataElement) and raw.VR == "UN"


def said(element: DataElement) -> Any:
    """Return what an element says, without the freedoms that pydicom takes with numbers and nothing."""
    def one(value: Any) -> Any:
        if isinstance(value, bytes):
            return value
        if isinstance(value, (int, float)):
            return str(getattr(value, "original_string", value)).strip()
        return str(value).strip()
    return None if element.is_empty else [one(value) for value in several(element.value)]

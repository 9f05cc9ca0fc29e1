"""What to look for in what comes out: a person's names, ids, dates and UIDs, as bytes in every encoding DICOM has.

Collected from the inputs' headers, the crosswalk and the clinical rows. A token is a whole word of four letters or
digits or more (an ideograph or a Hangul syllable counts two); shorter words of names are counted, not searched.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

LEAST = 4               # letters or digits of a token

# What of an input header speaks of a person, and how it is read.
TOKEN_TAGS: dict[int, str] = {
    **dict.fromkeys((
        0x00100010,     # PatientName
        0x00101001,     # OtherPatientNames
        0x00101005,     # PatientBirthName
        0x00101060,     # PatientMotherBirthName
        0x00102297,     # ResponsiblePerson
        0x00080090,     # ReferringPhysicianName
        0x0008009C,     # ConsultingPhysicianName
        0x00081048,     # PhysiciansOfRecord
        0x00081050,     # PerformingPhysicianName
        0x00081060,     # NameOfPhysiciansReadingStudy
        0x00081070,     # OperatorsName
        0x00321032,     # RequestingPhysician
        0x00400006,     # ScheduledPerformingPhysicianName
        0x00401010,     # NamesOfIntendedRecipientsOfResults
        0x00402008,     # OrderEnteredBy
        0x0040A075,     # VerifyingObserverName
        0x0040A123,     # PersonName
        0x40080119,     # DistributionName
    ), "name"),
    **dict.fromkeys((
        0x00100020,     # PatientID
        0x00101000,     # OtherPatientIDs
        0x00101090,     # MedicalRecordLocator
        0x00080050,     # AccessionNumber
        0x00200010,     # StudyID
        0x00380010,     # AdmissionID
        0x00380060,     # ServiceEpisodeID
        0x00400009,     # ScheduledProcedureStepID
        0x00400253,     # PerformedProcedureStepID
        0x00401001,     # RequestedProcedureID
        0x00402016,     # PlacerOrderNumberImagingServiceRequest
        0x00402017,     # FillerOrderNumberImagingServiceRequest
    ), "id"),
    0x00100030: "birth_date",       # PatientBirthDate
    0x00102154: "phone",            # PatientTelephoneNumbers
    0x00080094: "phone",            # ReferringPhysicianTelephoneNumbers
    **dict.fromkeys((
        0x00101040,     # PatientAddress
        0x00080092,     # ReferringPhysicianAddress
        0x00080080,     # InstitutionName
        0x00080081,     # InstitutionAddress
        0x00380300,     # CurrentPatientLocation
        0x00380400,     # PatientInstitutionResidence
    ), "place"),
    **dict.fromkeys((
        0x00080012,     # InstanceCreationDate
        0x00080020,     # StudyDate
        0x00080021,     # SeriesDate
        0x00080022,     # AcquisitionDate
        0x00080023,     # ContentDate
        0x0008002A,     # AcquisitionDateTime
        0x00189074,     # FrameAcquisitionDateTime
        0x00321040,     # StudyArrivalDate
        0x00380020,     # AdmittingDate
        0x00400002,     # ScheduledProcedureStepStartDate
        0x00400244,     # PerformedProcedureStepStartDate
        0x00400250,     # PerformedProcedureStepEndDate
        0x00402004,     # IssueDateOfImagingServiceRequest
        0x0040A032,     # ObservationDateTime
    ), "date"),
    **dict.fromkeys((
        0x00020003,     # MediaStorageSOPInstanceUID
        0x00080018,     # SOPInstanceUID
        0x00083010,     # IrradiationEventUID
        0x0020000D,     # StudyInstanceUID
        0x0020000E,     # SeriesInstanceUID
        0x00200052,     # FrameOfReferenceUID
        0x00200200,     # SynchronizationFrameOfReferenceUID
        0x00209161,     # ConcatenationUID
    ), "uid"),
}

# Codecs of PS3.3 C.12.1.1.2; the ISO 2022 forms keep their first escape sequence, as in a value.
_CODECS = ("utf-8", "latin_1", "iso8859_2", "iso8859_3", "iso8859_4", "iso8859_5", "iso8859_6", "iso8859_7",
           "iso8859_8", "iso8859_9", "iso8859_15", "iso8859_11", "shift_jis", "iso2022_jp", "iso2022_jp_2",
           "iso2022_jp_1", "euc_jp", "euc_kr", "gb18030")
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class Word:
    """One token: its kind, its text as `plain` gives it, and its forms as lower-cased bytes."""

    kind: str
    text: str
    forms: tuple[bytes, ...]


@dataclass(frozen=True)
class Tokens:
    """What is searched for in the outputs of one person. `short`: words of names that are too short to search."""

    words: tuple[Word, ...]
    dates: Mapping[int, AbstractSet[str]] = field(default_factory=dict)     # tag → YYYYMMDD in the input
    uids: frozenset[bytes] = frozenset()
    exceptions: frozenset[str] = frozenset()
    short: int = 0
    vocabulary: AbstractSet[tuple[bytes, bytes]] = frozenset()      # (code value, meaning) of dictionaries

    @classmethod
    def of(cls, values: Iterable[tuple[str, str]], dates: Mapping[int, AbstractSet[str]] | None = None,
           uids: Iterable[str] = (), exceptions: Iterable[str] = (),
           vocabulary: AbstractSet[tuple[bytes, bytes]] = frozenset()) -> Tokens:
        """Return the tokens of (kind, text) pairs; kinds as in TOKEN_TAGS. `exceptions` are approved words."""
        passed = frozenset(map(plain, exceptions))
        words: dict[str, tuple[str, set[str]]] = {}
        short: set[str] = set()
        for kind, text in values:
            for spelt in _words(kind, text):
                word = plain(spelt)
                if weight(word) < LEAST:
                    short |= {word} if kind == "name" and weight(word) else set()
                elif word not in passed and "\ufffd" not in word:
                    words.setdefault(word, (kind, set()))[1].add(spelt)
        made = (Word(kind, word, forms(word, spelt)) for word, (kind, spelt) in sorted(words.items()))
        return cls(tuple(made), dict(dates or {}), frozenset(uid.encode("ascii", "ignore") for uid in uids), passed,
                   len(short), vocabulary)

    @cached_property
    def lookup(self) -> tuple[Any, dict[bytes, list[tuple[bytes, Word]]]]:
        """A table of 65536 flags, by a hash of four bytes, and the forms by their first four bytes."""
        import numpy as np

        flags = np.zeros(1 << 16, dtype=bool)
        by_start: dict[bytes, list[tuple[bytes, Word]]] = {}
        for word in self.words:
            for form in word.forms:
                flags[(int.from_bytes(form[:4], "little") * MULTIPLIER & 0xFFFFFFFF) >> 16] = True
                by_start.setdefault(form[:4], []).append((form, word))
        return flags, by_start


MULTIPLIER = 2_654_435_761      # Knuth's, for 32-bit multiplicative hashing


class Collected:
    """Gathers what the inputs of one person say, header by header."""

    def __init__(self, exceptions: Iterable[str] = (),
                 vocabulary: AbstractSet[tuple[bytes, bytes]] = frozenset()) -> None:
        self.values: set[tuple[str, str]] = set()
        self.uids: set[str] = set()
        self.dates: dict[int, set[str]] = {}
        self._exceptions, self._vocabulary = tuple(exceptions), vocabulary

    def add(self, tag: int, kind: str, text: str) -> None:
        """Add the decoded text of one attribute; `kind` as in TOKEN_TAGS."""
        parts = [part.strip(" \0") for part in text.split("\\")]
        if kind == "uid":
            self.uids.update(p for p in parts if len(p) > 8 and not p.startswith("1.2.840.10008."))
        elif kind == "date":
            self.dates.setdefault(tag, set()).update(p[:8] for p in parts if _NUMBER.fullmatch(p[:8]) and len(p) >= 8)
        else:
            self.values.update((kind, part) for part in parts if part)

    def add_ids(self, texts: Iterable[str]) -> None:
        """Add ids that the header does not hold: NHS numbers, local ids, ids of clinical rows."""
        self.values.update(("id", text) for text in texts)

    def take_dates(self) -> dict[int, set[str]]:
        """Return and forget the dates added since the last call: those of one input, for `search` of its output."""
        taken, self.dates = self.dates, {}
        return taken

    def tokens(self) -> Tokens:
        return Tokens.of(sorted(self.values), self.dates, self.uids, self._exceptions, self._vocabulary)


def plain(text: str) -> str:
    """Return text as tokens are compared: NFC, case-folded, inner spaces as one."""
    return unicodedata.normalize("NFC", _spaced(text).casefold())


def wide(text: str) -> bool:
    """Whether text holds ideographs, kana or Hangul, which are written without spaces between words."""
    return any(char >= "\u2e80" for char in text)


def weight(word: str) -> int:
    """Return letters and digits, an ideograph or syllable of CJK counting two."""
    return sum(1 + (char >= "\u2e80") for char in word if char.isalnum())


def _spaced(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text.replace("\0", " ")).split())


def _words(kind: str, text: str) -> Iterator[str]:
    """Yield the words to look for, as they are spelt."""
    if kind == "name":
        yield from _name(text)
    elif kind == "place":
        yield from (_spaced(part) for part in re.split(r"[\\,;^\r\n]", text))
    elif kind == "birth_date":
        year, month, day = text[:4], text[4:6], text[6:8]
        if len(text) == 8 and _NUMBER.fullmatch(text):
            yield from (text, f"{year}-{month}-{day}", *(f"{day}{s}{month}{s}{year}" for s in "/-."))
    else:
        for part in re.split(r"[\\^&]", text):
            yield (whole := _spaced(part))
            bare = re.sub(r"[\W_]", "", whole)
            if bare != whole and len(bare) >= 6:
                yield bare
            if len(bare) == 10 and bare.isascii() and bare.isdigit():       # an NHS number, as it is often written
                yield from (sep.join((bare[:3], bare[3:6], bare[6:])) for sep in " -")


def _name(text: str) -> Iterator[str]:
    """Yield the words of family, given and middle names of each group of a PN (PS3.5 6.2.1), and a short name whole."""
    for group in text.split("="):
        parts = [_spaced(part) for part in group.split("^")[:3]]
        words = [word for part in parts for word in re.split(r"[\s,.\-/_]+", part) if word]
        yield from words
        yield from (bare for word in words if (bare := re.sub(r"[\W_]", "", word)) != word)
        whole = [part for part in parts[:2] if part]
        if len(whole) == 2 and any(weight(part) < LEAST for part in whole):
            first, last = whole
            yield from (first + between + last for between in ("^", " ", ", ", ",", "_"))
            yield from (last + between + first for between in (" ", "^", "_"))


def forms(word: str, spelt: Iterable[str]) -> tuple[bytes, ...]:
    """Return the bytes of a word and its spellings in every encoding, ASCII letters in lower case; each four or more.

    UTF-16 of either byte order shares the bytes between the first and the last letter, so one form finds both.
    """
    found: set[bytes] = set()
    for spelling in {word, *spelt}:
        stripped = "".join(c for c in unicodedata.normalize("NFKD", spelling) if not unicodedata.combining(c))
        if stripped.isascii():
            found.add(stripped.encode())
        capitals = spelling.upper()
        # Through capitals and back: a Greek word ends in another small sigma than the one it folds to.
        for variant in {spelling, spelling.lower(), spelling.title(), capitals, capitals.lower(), capitals.title()}:
            if variant.isascii():
                found |= {variant.encode(), variant.lower().encode("utf-16-le")[:-1]}
                continue
            found |= {variant.encode("utf-16-le"), variant.encode("utf-16-be")}
            for codec in _CODECS:
                try:
                    raw = variant.encode(codec)
                except UnicodeEncodeError:
                    continue
                found.add(re.sub(rb"\x1b\([BJ]$", b"", raw))
    return tuple(sorted(form for form in {form.lower() for form in found} if len(form) >= 4))

"""What canaries carry, and the search for it in what comes out. Shares no code with the engine or the scanner.

All of it follows from the project's key, so that no recipe and no code can know it beforehand, and from nobody: a word
of letters, the same with accents, a number, a root of UIDs, dates of two centuries ago and a time of day. Each place
has a word, a UID and a date of its own, which tells where one that surfaces came from.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import cached_property

from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.deidentify.tokens import forms

ISSUER = "TRE-CANARY"
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"       # no vowels: no word of any vocabulary
_ACCENTED = "\u00e0\u00e7\u00e9\u00ee\u00f1\u00f5\u00fc\u00f6"
PLACES = 20 ** 3                        # that can be told apart
_DATE = re.compile(rb"(?<![0-9.])(?:189|19[0-3])[0-9]{5}")      # of `day`, also moved back by ten years
STUDY, SERIES, INSTANCE = 1, 2, 3       # places of the UIDs of the object itself


class Sentinels:
    """The marks of one project's canaries. `days`: by how many days the canary's own dates move."""

    def __init__(self, pseudonyms: Pseudonyms, date_shift_days: int) -> None:
        raw = pseudonyms.digest("canary", "marks")
        self.word = "ZQ" + "".join(_LETTERS[byte % 20] for byte in raw[:10])
        self.accented = "".join(_ACCENTED[byte % 8] for byte in raw[10:20])
        self.number = str(10 ** 11 + int.from_bytes(raw[20:26], "big") % (9 * 10 ** 11))
        self.root = "2.25." + str(10 ** 19 + int.from_bytes(pseudonyms.digest("canary", "uid")[:8], "big"))
        fraction = int.from_bytes(raw[29:32], "big") % 10 ** 6
        self.time = f"{raw[26] % 12 + 8:02}{raw[27] % 60:02}{raw[28] % 60:02}.{fraction:06}"
        self.person = (ISSUER, self.word)
        self.patient = pseudonyms.person(*self.person)
        self.days = pseudonyms.shift_days(self.patient, date_shift_days)
        self._first = date(1906, 1, 1) + timedelta(days=raw[0])
        self.birth = date(1841, 1, 1) + timedelta(days=raw[1])
        self.event = date(1871, 1, 1) + timedelta(days=raw[2])      # of the study: it moves, others may not appear
        # Under these it would stand in a table, a key or a catalogue.
        self.marks = (self.patient, *(pseudonyms.uid(self.uid(n)) for n in (STUDY, SERIES, INSTANCE)), self.word)

    def text(self, place: int) -> str:
        """Return the word of a place: 15 letters, which fit every VR of text."""
        a, b, c = place // 400 % 20, place // 20 % 20, place % 20
        return self.word + _LETTERS[a] + _LETTERS[b] + _LETTERS[c]

    def uid(self, place: int) -> str:
        return f"{self.root}{place:04}"

    def day(self, place: int) -> date:
        """Return the date of a place whose date must go: after 1906, years apart from the events'."""
        return self._first + timedelta(days=place)

    @cached_property
    def _forms(self) -> tuple[bytes, ...]:
        return forms(self.word.casefold(), [self.word]) + forms(self.accented, [self.accented, self.accented.upper()])

    @cached_property
    def _literal(self) -> re.Pattern[bytes]:
        """The number, the time and the dates of person and study, not within a longer number, in text of any width."""
        moved = self.birth + timedelta(days=self.days)      # a moved birth date is one all the same
        texts = [self.number, self.time, *(f"{day:%Y%m%d}" for day in (self.birth, moved, self.event))]
        wide = [text.encode("utf-16-le")[:-1] for text in texts]
        every = b"|".join(re.escape(form) for form in [*(text.encode() for text in texts), *wide])
        return re.compile(rb"(?<![0-9.])(?:" + every + rb")")

    def search(self, data: bytes) -> set[int]:
        """Return the places whose mark stands in an output's bytes, in any encoding; 0 for one that names none."""
        low = data.lower()
        found: set[int] = set()
        for form in self._forms:
            at = low.find(form)
            while at >= 0:
                found.add(self._place(low[at + len(form):at + len(form) + 3]))
                at = low.find(form, at + 1)
        if self._literal.search(low):
            found.add(0)
        for match in re.finditer(re.escape(self.root.encode()) + rb"([0-9]{4})?", low):
            found.add(int(match[1] or 0))
        for match in _DATE.finditer(low):
            found |= self._dated(match[0].decode())
        return found

    def _dated(self, text: str) -> set[int]:
        """Return the place whose date this is, as planted or moved by the canary's days."""
        try:
            away = (date(int(text[:4]), int(text[4:6]), int(text[6:])) - self._first).days
        except ValueError:
            return set()
        return {place for place in (away, away - self.days) if 0 < place < PLACES}

    @staticmethod
    def _place(letters: bytes) -> int:
        digits = [_LETTERS.find(chr(letter).upper()) for letter in letters]
        return digits[0] * 400 + digits[1] * 20 + digits[2] if len(digits) == 3 and min(digits) >= 0 else 0

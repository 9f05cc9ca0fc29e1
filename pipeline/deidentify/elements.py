"""Elements under a plan: what becomes of each at every depth, and how a changed one is written.

A kept element's bytes are copied as they are. One whose VR is UN though PS3.6 knows its tag (a gateway wrote it so) is
read as PS3.5 6.2.2 says, implicit VR little endian, and written under its own VR.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache
from struct import Struct

from pipeline.deidentify import dates
from pipeline.deidentify.language import PERSONAL, private_vr
from pipeline.deidentify.plan import Act, Op, Plan
from pipeline.deidentify.subject import Subject
from pipeline.deidentify.terms import normal
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.file import Scan
from pipeline.dicom.scan import LITTLE_IMPLICIT, LONG, MAX_DEPTH, TEXT, Element, Encoding, read_items, read_level
from pipeline.model import Reason, Refusal

CHARACTER_SET, PIXEL_REPRESENTATION = 0x00080005, 0x00280103
UID = re.compile(rb"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
# Numbers as devices write them: no UID, no date with points, no telephone number with hyphens. Some write a comma
# within a DS or between two, some a decimal as IS: no number by PS3.5 6.2, and no text.
_ONE = rb" *+(?:[+-]?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?+)?+ *+"
_DECIMALS, _DIGITS = (re.compile(rb"%b(?:[%b]%b)*+[\0 ]*+" % (_ONE, between, _ONE)) for between in (b"\\\\,", b"\\\\"))
NUMBER = {b"DS": _DECIMALS, b"IS": _DIGITS, b"AS": re.compile(rb"([0-9]{3}[DWMY] *\\?)*\0?")}
_SIZES = {b"AT": 4, b"FD": 8, b"FL": 4, b"SL": 4, b"SS": 2, b"SV": 8, b"UL": 4, b"US": 2, b"UV": 8}
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")      # all but TAB, LF, FF, CR, ESC (PS3.5 6.1.3)
_NUMERIC = frozenset({*_SIZES, b"DS", b"IS"})
_PRIVATE = (TEXT | _NUMERIC) - {vr.encode() for vr in PERSONAL}         # dates would stay unmoved, names as they are
_MOVES = frozenset({Op.DATE, Op.DATETIME, Op.TIME})
_TIME_OF = {0x00080020: 0x00080030, 0x00080021: 0x00080031, 0x00080022: 0x00080032, 0x00080023: 0x00080033}
_SHORT, _LONG, _IMPLICIT = Struct("<HH2sH"), Struct("<HH2sHI"), Struct("<HHI")
_BIG_SHORT, _BIG_LONG, _BIG_IMPLICIT = Struct(">HH2sH"), Struct(">HH2sHI"), Struct(">HHI")

Pieces = list[tuple[int, bytes]]        # (tag, encoded element)


class Work:
    """One file under one plan. `uids` are the top level's UIDs as they will be written, without padding."""

    def __init__(self, source: Scan, plan: Plan, subject: Subject) -> None:
        self.source, self.plan, self.subject = source, plan, subject
        self.uids: dict[int, bytes] = {}
        self.emptied: Counter[int] = Counter()      # free text that is no approved term, by tag
        self.sound = _sound(plan.id, source.encoding)
        self.use(source.value(CHARACTER_SET))
        self.maker = (self._text(0x00080070), self._text(0x00081090))

    def use(self, character_set: bytes | None) -> None:
        self.codecs = encodings(character_set)
        self.escapes = len(self.codecs) > 1 or self.codecs[0].startswith("iso2022")

    def _text(self, tag: int) -> str:
        return decode(self.source.value(tag) or b"", self.codecs).strip(" \0")

    def level(self, elements: list[Element], buf: bytes, encoding: Encoding, depth: int) -> Pieces:
        """Return what survives of one data set or item, in tag order."""
        acts, sound = self.plan.acts, self.sound
        out: Pieces = []
        explicit = encoding.explicit
        same = encoding == self.source.encoding
        for element in elements:
            tag, vr, start, value, end = element
            act = acts.get(tag)
            if act is None:
                continue
            whole = same and vr not in LONG         # between such a VR and its length stand two bytes that nobody reads
            if not explicit:
                vr = act.vr
            elif vr not in act.vrs:
                vr, whole = self._unknown(element, act, encoding), False
            op = act.op
            if op is Op.KEEP:
                piece = buf[start:end] if whole else element_bytes(tag, vr, buf[value:end], self.source.encoding)
                if piece not in sound:
                    self.check(vr, buf[value:end], tag)
                    if len(piece) < 128 and not self.escapes and buf[value:end].isascii():
                        sound.add(piece)
                out.append((tag, piece))
            elif op is Op.DESCEND:
                out.append((tag, self.sequence(element, buf, encoding, depth + 1)))
            elif op is Op.PIXELS:
                raise Refusal(Reason.UNSUPPORTED_STRUCTURE, tag)    # pixel data inside a sequence
            else:
                new = self.value(op, buf[value:end], tag)
                if op is Op.UID and not depth:
                    self.uids[tag] = new.rstrip(b"\0")
                out.append((tag, element_bytes(tag, vr, new, self.source.encoding)))
        if self.plan.private:
            out += self._private(elements, buf, encoding)
            out.sort()
        return out

    def _unknown(self, element: Element, act: Act, encoding: Encoding) -> bytes:
        """Return the VR of an element that stands as UN. Raises Refusal for any other wrong VR.

        Of US or SS the file's Pixel Representation says which (PS3.3 C.7.6.3.1.1).
        """
        tag, vr, *_ = element
        if vr == b"UN" and not encoding.big and act.op is not Op.PIXELS:
            if len(act.vrs) == 1:
                return act.vr
            signed = self.source.value(PIXEL_REPRESENTATION)
            if act.vrs == {b"US", b"SS"} and signed in (b"\0\0", b"\1\0"):
                return b"SS" if signed == b"\1\0" else b"US"
        raise Refusal(Reason.VR_MISMATCH, tag)

    def check(self, vr: bytes, raw: bytes, tag: int) -> None:
        """Refuse a kept value that cannot be what its VR says: text hides in numbers otherwise."""
        if len(raw) & 1:
            raise Refusal(Reason.VALUE_MALFORMED, tag)
        if vr in NUMBER:
            if not NUMBER[vr].fullmatch(raw):
                raise Refusal(Reason.VALUE_MALFORMED, tag)
        elif vr in _SIZES:
            if len(raw) % _SIZES[vr] or len(raw) > _SIZES[vr] * _most_values(tag):
                raise Refusal(Reason.VALUE_MALFORMED, tag)
        elif vr in TEXT and _CONTROL.search(raw.rstrip(b" \0")):      # text may hide behind them
            raise Refusal(Reason.VALUE_MALFORMED, tag)
        elif vr in TEXT and (self.escapes or not raw.isascii()) and "\ufffd" in decode(raw, self.codecs):
            raise Refusal(Reason.CHARSET_UNSUPPORTED, tag)

    def sequence(self, element: Element, buf: bytes, encoding: Encoding, depth: int) -> bytes:
        tag, vr, _, value, end = element
        if depth > MAX_DEPTH:
            raise Refusal(Reason.NESTING_TOO_DEEP, tag)
        inner = LITTLE_IMPLICIT if vr == b"UN" else encoding
        out = self.source.encoding
        item = (_BIG_IMPLICIT if out.big else _IMPLICIT).pack
        items = []
        outer = self.codecs, self.escapes
        for a, b in read_items(buf, element, encoding, depth) if end > value else ():
            elements = read_level(buf, a, b, inner, depth)
            if elements and elements[0][0] <= CHARACTER_SET:        # an item may have a character set of its own
                own = next((e for e in elements if e[0] == CHARACTER_SET), None)
                if own:
                    self.use(buf[own[3]:own[4]])
            content = b"".join(piece for _, piece in self.level(elements, buf, inner, depth))
            items.append(item(0xFFFE, 0xE000, len(content)) + content)
            self.codecs, self.escapes = outer
        return element_bytes(tag, b"SQ", b"".join(items), out)

    def _private(self, elements: list[Element], buf: bytes, encoding: Encoding) -> Pieces:
        """Return private elements that the plan keeps, with the creator that owns them (PS3.5 7.8.1).

        One that nobody owns, or whose VR cannot be read or is another kind than that of the lists, goes.
        """
        creators: dict[tuple[int, int], tuple[str, Element]] = {}
        groups = {group for group, _ in self.plan.private}
        out: dict[int, bytes] = {}
        if encoding != self.source.encoding:
            return []
        for element in elements:
            tag, vr, _, value, end = element
            group, number = tag >> 16, tag & 0xFFFF
            if group not in groups:
                continue
            if 0x10 <= number <= 0xFF:
                name = buf[value:end].strip(b" \0").decode("ascii", "replace")
                twice = any(g == group and name == known for (g, _), (known, _) in creators.items())
                if twice and (group, name) in self.plan.private:
                    raise Refusal(Reason.ELEMENT_REPEATED, tag)
                creators[group, number] = (name, element)
            elif number > 0xFF and (group, number >> 8) in creators:
                name, owner = creators[group, number >> 8]
                kept = number & 0xFF in self.plan.private.get((group, name), ())
                if not kept:
                    continue
                listed = private_vr(group, name, number & 0xFF).encode()
                vr = vr if encoding.explicit else listed
                same = vr == listed or not listed or (vr in _NUMERIC and listed in _NUMERIC)
                if same and vr in _PRIVATE:
                    self.check(vr, buf[value:end], tag)
                    for one, (title, said) in ((owner[0], (b"LO", name.encode())), (tag, (vr, buf[value:end]))):
                        out[one] = element_bytes(one, title, even(said), encoding)
        return list(out.items())

    def value(self, op: Op, raw: bytes, tag: int) -> bytes:
        """Return the new value, of even length, for what stands in `raw`."""
        subject = self.subject
        if op is Op.EMPTY:
            return b""
        if op is Op.UID:
            return self._remap(raw, tag)
        if op is Op.PATIENT:
            return even(subject.patient.encode())
        if op is Op.AGE:
            return even(self._age())
        if op in _MOVES:
            try:
                return even(self._move(op, raw, tag))
            except Refusal as refusal:
                raise Refusal(refusal.reason, tag) from None
        text = decode(raw, self.codecs, person_name=op is Op.OPERATOR)
        if op is Op.TERM:
            return self._term(text, tag)
        if op is Op.DEVICE:
            return even((subject.pseudonyms.device(*self.maker, text) or "").encode())
        if op is Op.OPERATOR:
            names = (subject.pseudonyms.operator(subject.site, name) for name in text.split("\\"))
            return even("\\".join(name or "" for name in names).encode())
        raise AssertionError(op)

    def _term(self, text: str, tag: int) -> bytes:
        """The approved term that the whole value is, in the list's own spelling; else nothing."""
        said = normal(text)
        term = self.plan.terms.by_tag.get(tag, {}).get(said, "")
        if said and not term:
            self.emptied[tag] += 1
        return even(term.encode("ascii"))

    def _age(self) -> bytes:
        """The age band from birth and study dates as they came in; where one is unknown, from the stated age."""
        width = self.plan.age_band_years
        band = dates.age_band(self.source.value(0x00100030), self.source.value(0x00080020), width)
        stated = (self.source.value(0x00101010) or b"").strip(b" \0")
        years = int(stated[:3]) if re.fullmatch(rb"[0-9]{3}Y", stated) else None
        if not band and years is not None and years <= dates.OLDEST:
            band = dates.band_of(years, width)
        return band

    def _move(self, op: Op, raw: bytes, tag: int) -> bytes:
        subject = self.subject
        if op is Op.TIME:
            return dates.shift_tm(raw, subject.seconds)
        if op is Op.DATETIME:
            return dates.shift_dt(raw, subject.days, subject.seconds if self.plan.keep_times else None)
        carry = 0
        if self.plan.keep_times and tag in _TIME_OF:        # past midnight the date goes with the time
            carry = dates.day_carry(self.source.value(_TIME_OF[tag]) or b"", subject.seconds)
        return dates.shift_da(raw, subject.days + carry)

    def _remap(self, raw: bytes, tag: int) -> bytes:
        raw = raw.rstrip(b"\0 ")
        if b"\\" in raw:
            return even(b"\\".join(self._remap_one(one.strip(b"\0 "), tag) for one in raw.split(b"\\")), b"\0")
        return even(self._remap_one(raw, tag), b"\0")

    def _remap_one(self, raw: bytes, tag: int) -> bytes:
        if not raw:
            return raw
        if len(raw) > 64 or not UID.fullmatch(raw):
            raise Refusal(Reason.VALUE_MALFORMED, tag)
        uid = raw.decode()
        return raw if _registered(uid) else self.subject.pseudonyms.uid(uid).encode()


def element_bytes(tag: int, vr: bytes, value: bytes, encoding: Encoding) -> bytes:
    """Return one element of defined length (PS3.5 7.1.2, 7.1.3)."""
    group, number = tag >> 16, tag & 0xFFFF
    if not encoding.explicit:
        return (_BIG_IMPLICIT if encoding.big else _IMPLICIT).pack(group, number, len(value)) + value
    if vr in LONG:
        return (_BIG_LONG if encoding.big else _LONG).pack(group, number, vr, 0, len(value)) + value
    if len(value) > 0xFFFE:
        raise Refusal(Reason.VALUE_MALFORMED, tag)
    return (_BIG_SHORT if encoding.big else _SHORT).pack(group, number, vr, len(value)) + value


def even(value: bytes, pad: bytes = b" ") -> bytes:
    """Return the value, padded to an even length (PS3.5 6.2)."""
    return value + pad if len(value) & 1 else value


@lru_cache(maxsize=16)
def _sound(plan: str, encoding: Encoding) -> set[bytes]:
    """Kept elements, header and all, that were checked before: most of a series says the same in every image."""
    return _Bounded()


class _Bounded(set[bytes]):
    """Forgets all when full, so that it cannot grow with the archive."""

    def add(self, piece: bytes) -> None:
        if len(self) >= 20_000:
            self.clear()
        super().add(piece)


@lru_cache(maxsize=4096)
def _registered(uid: str) -> bool:
    """Whether PS3.6 Annex A registers the UID."""
    from pydicom.uid import UID_dictionary

    return uid in UID_dictionary


@lru_cache(maxsize=4096)
def _most_values(tag: int) -> float:
    """Return how many values an element may have by PS3.6; of a private one, and of one without end, any number."""
    from pydicom.datadict import dictionary_VM

    try:
        most = dictionary_VM(tag).split(" or ")[-1].rpartition("-")[2]
    except KeyError:
        return math.inf
    return int(most) if most.isdigit() else math.inf

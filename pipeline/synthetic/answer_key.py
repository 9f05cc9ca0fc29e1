"""The answer key: objects full of sentinels, each unique to its person and place, and what must become of each.

Planted are every attribute of PS3.15 Table E.1-1, every attribute that a recipe claims to keep or change, private
elements, overlays, curves, and the same again inside sequences. What must become of them is said in the ten actions of
the MIDI-B challenge (its validation script, github.com/CBIIT/MIDI_validation_script; arXiv 2507.23608). What no rule
claims must be absent, text and all: that part of the key knows nothing of the recipe.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from pydicom.datadict import dictionary_VR, keyword_for_tag, private_dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pipeline.synthetic import answer_reports, encode, files, read_back
from pipeline.synthetic.answer_pixels import PixelClaim
from pipeline.synthetic.answer_reports import Content
from pipeline.synthetic.asked import Check, Planted, word
from pipeline.synthetic.read_back import Path

SOP_CLASS, CHARACTER_SET, PIXEL_DATA, CONTENT = 0x00080016, 0x00080005, 0x7FE00010, 0x0040A730
STUDY_DATE, BIRTH_DATE, AGE = 0x00080020, 0x00100030, 0x00101010
SHARED = frozenset({0x00080070, 0x00081090, 0x00181000, 0x00100020, 0x0020000D})  # one value in all objects of a person
# Geometry, and what the engine reads before it looks at a rule; the object's own values stand there.
FIXED: Mapping[int, object] = {0x00280301: "NO", 0x00280006: 0, 0x00280008: "1", 0x00280034: [1, 1], 0x00282110: "00"}
PRIVATE = ((0x0009, "ANSWER KEY ONE"), (0x0045, "ANSWER KEY TWO"))      # creators that no recipe names
# Stand in the items of every sequence: codes, and what software leaves in items.
IN_ITEMS = (0x00080100, 0x00080104, 0x00081155, 0x00104000)
REPEATING = {0x50002500: b"LO", 0x50003000: b"OW", 0x60001500: b"LO", 0x60003000: b"OW", 0x60004000: b"LT"}
UNKNOWN = 0x00090190        # a private element without creator
_DESCRIBED = ("LO", "SH", "ST", "LT", "UT", "UC", "PN", "UR", "CS", "AE")
_PLACEHOLDER = "LO"         # VR of an attribute that the edition in hand has and pydicom does not know yet


@dataclass(frozen=True)
class Claims:
    """What a recipe set says that it does, as plain data. `acts`: tag → (what, VR): keep, descend, uid, date, datetime,
    time, patient, empty, age, device, operator, pixels; another word means: there, and not with its value."""

    acts: Mapping[int, tuple[str, str]]
    private: Mapping[tuple[int, str], frozenset[int]]
    keep_times: bool = False
    content: Content | None = None
    sop_class: str = ""         # of reports; an image is a mammogram
    pixels: tuple[PixelClaim, ...] = ()
    terms: Mapping[int, str] = field(default_factory=dict)      # tag → a term that is approved for it


def name_of(tag: int) -> str:
    """Return the keyword of PS3.6, or GGGGEEEE."""
    return _keyword(tag) or f"{tag:08X}"


@functools.cache
def _keyword(tag: int) -> str:
    return keyword_for_tag(tag)


@functools.cache
def vr_of(tag: int) -> str:
    """Return the VR of PS3.6, the first where several may stand; LO where pydicom does not know the tag."""
    if tag in REPEATING:
        return REPEATING[tag].decode()
    try:
        return dictionary_VR(tag)[:2]
    except KeyError:
        return _PLACEHOLDER


def sentinel(vr: str, *seed: object) -> object:
    """Return a value of the VR as pydicom takes it; text, dates, times, UIDs and decimals are found again anywhere."""
    number = int.from_bytes(hashlib.sha256("\x1f".join(map(str, seed)).encode()).digest()[12:20], "big")
    text = word(*seed)
    if vr == "PN":
        return f"{text}^{word('given', *seed)}"
    if vr in _DESCRIBED:
        return f"https://{text}.example" if vr == "UR" else text
    if vr in ("DA", "DT"):
        day = (date(1931, 1, 1) + timedelta(days=number % 14_000)).strftime("%Y%m%d")
        return day if vr == "DA" else f"{day}101530"
    if vr == "TM":
        return f"{number % 24:02d}{number // 24 % 60:02d}17.{number // 1440 % 900_000 + 100_000}"
    if vr == "UI":
        return encode.uid("answer key", *seed)
    if vr == "AS":
        return f"{number % 80 + 1:03d}W"
    if vr == "DS":
        return f"77.{number % 90_000_000 + 10_000_000}"
    if vr == "IS":
        return str(1_700_000_000 + number % 300_000_000)
    if vr in ("US", "SS", "UL", "SL", "UV", "SV"):
        return 12_000 + number % 20_000
    if vr in ("FL", "FD"):
        return (number % 2**20 + 1) / 2**10
    if vr == "AT":
        return 0x00180000 + number % 0xFFFF
    return text.encode()        # OB, OW, OF, UN


def make(claims: Claims, table: Iterable[int], people: int) -> Iterator[Planted]:
    """Yield the objects of `people` persons. `table`: the tags of PS3.15 Table E.1-1.

    An image is made flat, and nested where the recipe goes into sequences; a report in parts, its header in the first.
    """
    tags = sorted({tag for tag in (*table, *claims.acts) if tag >> 16 >= 4} - {CHARACTER_SET, SOP_CLASS, PIXEL_DATA})
    for person in range(people):
        if claims.content:
            for kind, part in answer_reports.parts(claims.content):
                some = tags if kind == "flat" else [tag for tag in tags if tag in claims.acts]
                yield _Maker(replace(claims, content=part), some, person, kind).planted()
        else:
            for kind in ("flat", "nested") if _carrier(claims) is not None else ("flat",):
                yield _Maker(claims, tags, person, kind).planted()


def _carrier(claims: Claims) -> int | None:
    """The first sequence that the recipe goes into: what is planted at the top stands in its items too."""
    return next((tag for tag, (what, _) in sorted(claims.acts.items()) if what == "descend"), None)


class _Maker:
    """Makes one object."""

    def __init__(self, claims: Claims, tags: list[int], person: int, kind: str) -> None:
        self.claims, self.tags, self.person, self.kind = claims, tags, person, kind
        self.out = Planted(f"person {person + 1}, {kind}", person, b"")
        self.wanted: list[tuple[str, Path, bool]] = []     # action, path, absent

    def planted(self) -> Planted:
        """Return the object. Even persons' are explicit VR little endian, odd ones' implicit."""
        ds, syntax = self._base(), "implicit" if self.person % 2 else "explicit"
        own = {int(e.tag) for e in ds if e.tag.group == 0x0028} | {SOP_CLASS, CHARACTER_SET, PIXEL_DATA}
        for tag in own:
            self._ask((tag,), tag)
        self._plant(ds, (), [tag for tag in self.tags if tag not in own])
        for tag in REPEATING:
            self._one(ds, (), tag)
        self._private(ds, (), syntax == "explicit")
        carrier = _carrier(self.claims)
        if self.kind == "nested" and carrier is not None:
            item = ds[carrier].value[0]
            there = {int(e.tag) for e in item}
            self._plant(item, (carrier, 0), [t for t in self.tags if t not in there and t not in FIXED])
            self._private(item, (carrier, 0), syntax == "explicit")
        if self.claims.content:
            answer_reports.plant(ds, self.claims.content, self.claims.keep_times, self.out)
        ds = _sorted(ds)
        self.out.data = encode.part10(ds, syntax, preamble=self._secret(word(self.out.name, "preamble"), "preamble"))
        found = read_back.elements(self.out.data)
        for action, path, absent in self.wanted:
            value = read_back.plain(found[path].raw) if path in found else b""
            name = ".".join(name_of(t) for t in path[::2])
            self.out.checks.append(Check(action, name, path, value, absent))
        return self.out

    def _base(self) -> Dataset:
        if self.claims.content:
            ds = Dataset()
            ds.SpecificCharacterSet = "ISO_IR 100"
            ds.SOPClassUID = self.claims.sop_class
            return ds
        whole = files.mammogram_dataset(planted=False, private=False, rows=24, columns=16, seed=self.out.name)
        ds = Dataset()
        ds.update({e.tag: e for e in whole if e.tag.group in (0x0028, 0x7FE0) and e.VR != "SQ"})
        ds.SpecificCharacterSet = "ISO_IR 100"
        ds.SOPClassUID = self.claims.sop_class or whole.SOPClassUID
        return ds

    def _plant(self, ds: Dataset, prefix: Path, tags: Iterable[int]) -> None:
        for tag in tags:
            if not (prefix and tag == PIXEL_DATA) and not (self.claims.content and tag >> 16 == 0x7FE0):
                self._one(ds, prefix, tag)

    def _one(self, ds: Dataset, prefix: Path, tag: int) -> None:
        path, claim = (*prefix, tag), self.claims.acts.get(tag)
        if tag == CONTENT and self.claims.content:
            return
        vr = claim[1] if claim else vr_of(tag)
        if vr == "SQ":
            item = Dataset()
            if len(prefix) < 4:
                inside = [t for t in IN_ITEMS if t != tag]
                if claim and claim[0] == "descend":
                    self._plant(item, (*path, 0), inside)
                else:
                    self._hide(item, (*path, 0), inside)
            ds[tag] = DataElement(tag, "SQ", [item])
        else:
            ds[tag] = DataElement(tag, vr, self._value(tag, vr, path, claim))
        self._ask(path, tag)

    def _hide(self, item: Dataset, path: Path, tags: Iterable[int]) -> None:
        """Fill an item that must go with its sequence: nothing of it may be found anywhere."""
        for tag in tags:
            vr = vr_of(tag)
            value = sentinel(vr, self.out.name, path, tag)
            item[tag] = DataElement(tag, vr, value)
            self._keep_secret(value, vr, f"{name_of(path[-2])}.{name_of(tag)}")

    def _value(self, tag: int, vr: str, path: Path, claim: tuple[str, str] | None) -> object:
        if tag in FIXED:
            return FIXED[tag]
        if tag == AGE:
            return "057Y"
        if tag == BIRTH_DATE and len(path) == 1:
            return f"195303{self.person % 28 + 1:02d}"
        if claim and claim[0] in ("date", "datetime"):      # events lie close together, and moved ones far from them
            day = (date(2010, 6, 1) + timedelta(days=_hash(path) % 60)).strftime("%Y%m%d")
            value: object = day if vr == "DA" else f"{day}101530"
        else:
            seed = (self.person, "shared", tag) if tag in SHARED else (self.out.name, path)
            value = sentinel(vr, *seed)
        what = claim[0] if claim else ""
        if what != "keep" or vr in ("PN", "DA", "DT", "TM"):
            self._keep_secret(value, vr, ".".join(name_of(t) for t in path[::2]))
        return value

    def _keep_secret(self, value: object, vr: str, name: str) -> None:
        """Note what may be found nowhere: not numbers and codes of few digits, which stand anywhere by chance."""
        if vr in ("AS", "IS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"):
            return
        raw = value if isinstance(value, bytes) else str(value).encode()
        self.out.secrets[raw] = name
        if vr in ("PN", "UR"):
            self.out.secrets.update(dict.fromkeys(re.split(rb"[\^/.]+", raw), name))

    def _secret(self, text: str, name: str) -> bytes:
        self.out.secrets[text.encode()] = name
        return text.encode()

    def _ask(self, path: Path, tag: int) -> None:
        """Say in MIDI-B's actions what must become of the attribute."""
        claim = self.claims.acts.get(tag)
        def ask(*actions: str, absent: bool = False) -> None:
            self.wanted += [(action, path, absent) for action in actions]
        if claim is None:
            if tag != CHARACTER_SET:
                ask("uid_changed" if vr_of(tag) == "UI" else "text_removed", absent=True)
            return
        what, vr = claim
        if what == "keep" and vr in ("PN", "DA", "DT", "TM"):
            ask("text_removed")
        elif tag == SOP_CLASS or what == "keep":
            ask("text_retained")
        elif what == "uid":
            ask("uid_changed", "uid_consistent", "tag_retained")
        elif what == "descend":
            ask("tag_retained")
        elif what == "pixels":
            ask("pixels_retained")
        elif what == "patient":
            ask("text_removed", "patid_consistent")
        elif what in ("date", "datetime", "time"):
            ask("date_shifted", "tag_retained")
        elif what == "empty":
            ask("text_removed", "tag_retained")
        elif what in ("age", "device", "operator"):
            ask("text_removed", "text_notnull")
        else:
            ask("text_removed", "tag_retained")

    def _private(self, ds: Dataset, prefix: Path, explicit: bool) -> None:
        """Plant private blocks: those that a rule names, with another creator's in front, and strangers."""
        blocks = sorted({*PRIVATE, *self.claims.private})
        used: dict[int, int] = {}
        for group, creator in blocks:
            block = used[group] = used.get(group, 0x11) + 1
            ds[group << 16 | block] = DataElement(group << 16 | block, "LO", creator)
            named = self.claims.private.get((group, creator), frozenset())
            for number in sorted({0x01, 0x49, *named}):
                tag = group << 16 | block << 8 | number
                try:
                    vr, known = private_dictionary_VR(tag, creator)[:2], True
                except KeyError:
                    vr, known = "LO", False
                value = sentinel(vr, self.out.name, prefix, creator, number)
                ds[tag] = DataElement(tag, vr, value)
                if number not in named:
                    self._keep_secret(value, vr, f"({group:04X},{creator},{number:02X})")
                    self.wanted.append(("text_removed", (*prefix, tag), True))
                elif explicit or known:
                    self.wanted.append(("text_retained", (*prefix, tag), False))
        stray = word(self.out.name, prefix, "stray")
        self._keep_secret(stray, "LO", "private element without creator")
        ds[UNKNOWN] = DataElement(UNKNOWN, "LO", stray)


def burned_in(claims: Claims) -> Planted | None:
    """Return an image that says of itself that text is burned in, with a sentinel in its samples; None of a report."""
    if claims.content:
        return None
    tags = sorted(set(claims.acts) - {CHARACTER_SET, SOP_CLASS, PIXEL_DATA})
    planted = _Maker(claims, tags, 0, "burned in").planted()
    ds = read_back.dataset(planted.data)
    text = word("burned in").encode("utf-16-le")       # a letter a sample: nothing stands above the stored bits
    ds.BurnedInAnnotation = "YES"
    ds.PixelData = text + ds.PixelData[len(text):]
    return Planted("burned-in text", 0, encode.part10(ds), [Check("pixels_hidden", "PixelData", (PIXEL_DATA,), text)])


def _hash(path: Path) -> int:
    """Return a number that follows from the path."""
    return int.from_bytes(hashlib.sha256(repr(path).encode()).digest()[:4], "big")


def _sorted(ds: Dataset) -> Dataset:
    out = Dataset()
    for tag in sorted(ds.keys()):
        out[tag] = ds[tag]
    return out

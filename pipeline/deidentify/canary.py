"""Canaries: patients who do not exist, in every place an object can name one, sent through the engine with every part.

A canary is made for a plan and a SOP class, in four ways of writing DICOM. In each attribute that PS3.15 Table E.1-1 or
the search of outputs knows for identifying, at the top and within sequences, kept ones and others, stands a mark that
the project's key gives (`sentinels`). None may be in what comes out; where one is, the build stops. Not planted are
attributes that the plan keeps with a written reason or that an option of the standard retains, but for those that no
reason can free (`NEVER`).

What a canary can and cannot show: docs/adr/0013-canaries.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import lru_cache
from struct import pack
from typing import NamedTuple

from pipeline.deidentify.concepts import UNNAMED, Concepts
from pipeline.deidentify.plan import PIXEL_DATA, Op, Plan
from pipeline.deidentify.profile import OPTIONS, confidentiality_profile
from pipeline.deidentify.sentinels import INSTANCE, SERIES, STUDY, Sentinels
from pipeline.deidentify.tokens import TOKEN_TAGS
from pipeline.dicom.file import EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, REPORTS
from pipeline.dicom.scan import LONG
from pipeline.errors import CanarySurfaced
from pipeline.model import Reason
from pipeline.storage import ObjectStore, tables

# What no written reason can free: names, numbers and addresses of people, and comments about them.
NEVER = frozenset(tag for tag, kind in TOKEN_TAGS.items() if kind not in ("date", "uid")) | {
    0x00102000,     # MedicalAlerts
    0x001021B0,     # AdditionalPatientHistory
    0x00104000,     # PatientComments
    0x00204000,     # ImageComments
    0x00324000,     # StudyComments
    0x00384000,     # VisitComments
    0x00400254,     # PerformedProcedureStepDescription
    0x00400280,     # CommentsOnThePerformedProcedureStep
    0x00401400,     # RequestedProcedureComments
    0x00402400,     # ImagingServiceRequestComments
    0x4008010B,     # InterpretationText
}
# Planted in the items of sequences too: few in one that is not kept.
_FEW = (0x00080050, 0x00081070, 0x00081155, 0x00100010, 0x00100020, 0x00104000)
_ITEM = (0x00080020, 0x00080050, 0x00080080, 0x00080090, 0x00081010, 0x0008103E, 0x00081070, 0x00081155, 0x00100010,
         0x00100020, 0x00100030, 0x00101000, 0x00104000, 0x00181030, 0x0020000D, 0x00204000, 0x00400254)
_UNKEPT = 0x00400275        # RequestAttributesSequence: stands for a sequence that is not kept, within ones that are
_CONTENT, _EVIDENCE, _ICON = 0x0040A730, 0x0040A375, 0x00880200
_TEXTS = frozenset((b"AE", b"CS", b"LO", b"SH"))
_FREE = frozenset((b"LT", b"ST", b"UC", b"UT"))
_BYTES = frozenset((b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"UN"))
_IMAGE = ((0x00280002, b"US", 1), (0x00280010, b"US", 2), (0x00280011, b"US", 2), (0x00280100, b"US", 8),
          (0x00280101, b"US", 8), (0x00280102, b"US", 7), (0x00280103, b"US", 0))


class Way(NamedTuple):
    """One way to write an object. `unknown`: what is planted stands as UN, as a gateway would write it."""

    name: str
    syntax: str
    character_set: str
    undefined: bool = False
    unknown: bool = False

    @property
    def codec(self) -> str:
        return "utf-8" if self.character_set == "ISO_IR 192" else "latin-1"


WAYS = (Way("explicit", EXPLICIT_LE, "ISO_IR 100"), Way("implicit", IMPLICIT_LE, "ISO_IR 192", undefined=True),
        Way("big", EXPLICIT_BE, "ISO_IR 100"), Way("unknown", EXPLICIT_LE, "ISO_IR 192", unknown=True))

Item = dict[int, "tuple[bytes, Value]"]
Value = bytes | int | list[Item]


class Canary(NamedTuple):
    """One object. `places`: what stands at each place, by number."""

    plan: Plan
    way: str
    data: bytes
    places: tuple[str, ...]


class Sighting(NamedTuple):
    """What became of one canary: refused by a reason, or let through, with the marks that came with it."""

    canary: int
    refused: Reason | None = None
    surfaced: tuple[str, ...] = ()


def flock(plans: Mapping[str, Plan], used: Iterable[str], sentinels: Sentinels, turn: int) -> tuple[Canary, ...]:
    """Return a canary for each plan that the SOP classes `used` have; `turn` says in which way, and of which class."""
    classes: dict[str, list[str]] = {}
    for sop_class in sorted(set(used) & set(plans)):
        classes.setdefault(plans[sop_class].id, []).append(sop_class)
    return tuple(make(plans[some[turn % len(some)]], some[turn % len(some)], sentinels, WAYS[turn % len(WAYS)])
                 for _, some in sorted(classes.items()))


def make(plan: Plan, sop_class: str, sentinels: Sentinels, way: Way) -> Canary:
    """Return the canary of a plan, as an object of a SOP class, written in one way."""
    return _Maker(plan, sop_class, sentinels, way).make()


def told(canary: Canary, found: Iterable[int]) -> tuple[str, ...]:
    """Return the names of the places whose marks were found."""
    found = set(found)
    known = sorted({n for n in found if 0 < n < len(canary.places)}) or [0] * bool(found)
    return tuple(sorted((canary.places[n] for n in known), key=lambda name: name.count(".")))      # the plainest first


def judge(canaries: Sequence[Canary], sightings: Iterable[Sighting]) -> None:
    """Raise CanarySurfaced where a mark came out."""
    for seen in sightings:
        if seen.surfaced:
            one = canaries[seen.canary]
            more = f" and {len(seen.surfaced) - 8} more" if len(seen.surfaced) > 8 else ""
            raise CanarySurfaced(f"A canary surfaced under {' and '.join(one.plan.files)}: what was planted in "
                                 f"{', '.join(seen.surfaced[:8])}{more} came out ({one.way}). Nothing was kept.",
                                 hint="The recipe or the engine lets identifiers through: mend it, and publish nothing "
                                      "that was made with it. See docs/adr/0013-canaries.md.")


def silent(canaries: Sequence[Canary], sightings: Iterable[Sighting], passed: AbstractSet[str]) -> None:
    """Raise CanarySurfaced where a plan let objects pass (`passed`: its id) and refused its canary, which then shows
    nothing."""
    for seen in sightings:
        one = canaries[seen.canary]
        if seen.refused and one.plan.id in passed:
            raise CanarySurfaced(f"The canary of {' and '.join(one.plan.files)} was refused ({seen.refused}, {one.way})"
                                 ", and objects passed: it shows nothing. Nothing was kept.",
                                 hint="Report it: the canary must be made as the recipe's objects are.")


class _Maker:
    def __init__(self, plan: Plan, sop_class: str, sentinels: Sentinels, way: Way) -> None:
        self.plan, self.sop_class, self.sentinels, self.way = plan, sop_class, sentinels, way
        self.places = ["an unknown place", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"]
        self.report = sop_class.startswith(REPORTS)

    def make(self) -> Canary:
        s, top = self.sentinels, self._top()
        pixels = b""
        if not self.report and PIXEL_DATA in self.plan.acts:
            top |= {tag: (vr, value) for tag, vr, value in _IMAGE}
            top[0x00280004] = (b"CS", b"MONOCHROME2 ")
            top[0x00280301] = (b"CS", b"NO")
            pixels = self._element(PIXEL_DATA, b"OW", b"\1\2\3\4")
            pixels += self._element(0xFFFCFFFC, b"OB", self._raw("DataSetTrailingPadding"))
        if self.plan.concepts and self.report:
            top |= _Tree(self, self.plan.concepts).root()
        meta = b"".join(_encode(tag, vr, value, True, False) for tag, vr, value in (
            (0x00020002, b"UI", self.sop_class.encode()), (0x00020003, b"UI", s.uid(INSTANCE).encode()),
            (0x00020010, b"UI", self.way.syntax.encode()),
            (0x00020016, b"AE", self._text("SourceApplicationEntityTitle")),
            (0x00020100, b"UI", s.uid(self._place("PrivateInformationCreatorUID")).encode()),
            (0x00020102, b"OB", self._raw("PrivateInformation"))))
        length = _encode(0x00020000, b"UL", pack("<I", len(meta)), True, False)
        preamble = self._text("preamble").ljust(128, b"\0")
        return Canary(self.plan, self.way.name,
                      preamble + b"DICM" + length + meta + self._level(top) + pixels, tuple(self.places))

    # ---- what is planted -----------------------------------------------------------------------------------------
    def _top(self) -> Item:
        tags = set(confidentiality_profile()) | set(TOKEN_TAGS) | NEVER
        tags |= {tag for tag, act in self.plan.acts.items() if act.op not in (Op.KEEP, Op.PIXELS)}
        tags -= {_CONTENT, _EVIDENCE, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E}
        item = self._item(sorted(tag for tag in tags if 0x0008_0000 < tag < 0x7000_0000), "", 0)
        item |= self._private("")
        item[0x50003000] = (b"OW", self._raw("CurveData"))
        item[0x60000022] = (b"LO", self._text("OverlayDescription"))
        item[0x60003000] = (b"OW", self._raw("OverlayData"))
        item[0x60004000] = (b"LT", self._text("OverlayComments"))
        s = self.sentinels
        item |= {0x00080005: (b"CS", self.way.character_set.encode()), 0x00080008: (b"CS", b"ORIGINAL\\PRIMARY"),
                 0x00080016: (b"UI", self.sop_class.encode()), 0x00080018: (b"UI", s.uid(INSTANCE).encode()),
                 0x0020000D: (b"UI", s.uid(STUDY).encode()), 0x0020000E: (b"UI", s.uid(SERIES).encode())}
        return item

    def _item(self, tags: list[int], path: str, depth: int) -> Item:
        out: Item = {}
        for tag in tags:
            vr, name = _known(tag)
            if vr == b"SQ":
                out[tag] = (vr, self._items(tag, f"{path}{name}.", depth + 1))
            elif self._planted(tag, vr, name) and (value := self._value(tag, vr, path + name)) is not None:
                out[tag] = (vr, value)
        return out

    def _items(self, tag: int, path: str, depth: int) -> list[Item]:
        """One item of a sequence: people, and below it once more, and private elements."""
        act = self.plan.acts.get(tag)
        if act is None or act.op is not Op.DESCEND:
            inner = self._item(list(_FEW), path, depth)
            if tag == _ICON:
                inner[PIXEL_DATA] = (b"OW", self._raw(path + "PixelData"))
            return [inner]
        inner = self._item(list(_ITEM), path, depth)
        if depth < 3:
            inner[_UNKEPT] = (b"SQ", self._items(_UNKEPT, f"{path}RequestAttributesSequence.", depth + 1))
        if depth < 2:
            below = next((t for t, act in self.plan.acts.items() if act.op is Op.DESCEND and t != tag), None)
            if below:
                inner[below] = (b"SQ", self._items(below, f"{path}{_known(below)[1]}.", depth + 1))
            inner |= self._private(path)
        return [inner]

    def _planted(self, tag: int, vr: bytes, name: str) -> bool:
        act = self.plan.acts.get(tag)
        if act is None or act.op is not Op.KEEP or tag in NEVER or vr in (b"DA", b"DT", b"TM", b"PN", b"UI"):
            return True
        row = confidentiality_profile().get(tag)
        retained = row is not None and any(row[column] == "K" for _, column in OPTIONS.values())
        return row is not None and name not in self.plan.weaker and not retained

    def _private(self, path: str) -> Item:
        """Private blocks: unknown ones, those that the plan knows, and their like under another creator's name."""
        out: Item = {0x00090010: (b"LO", self._text(path + "a private creator")),
                     0x00091001: (b"LO", self._text(path + "(0009,xx01)")),
                     0x00091002: (b"UN", self._raw(path + "(0009,xx02)")),
                     0x00091103: (b"LO", self._text(path + "(0009,xx03) of no creator"))}
        for block, ((group, creator), kept) in enumerate(sorted(self.plan.private.items()), 0x10):
            start = group << 16
            out[start | block] = (b"LO", creator.encode())
            out[start | block + 0x40] = (b"LO", self._text(f"{path}a private creator of group {group:04X}"))
            for number in sorted(kept)[:4]:
                place = f"{path}({group:04X},xx{number:02X}) under another creator"
                out[start | (block + 0x40) << 8 | number] = (b"LO", self._text(place))
            for number in [n for n in range(256) if n not in kept][:4]:
                out[start | block << 8 | number] = (b"LO", self._text(f'{path}({group:04X},"{creator}",{number:02X})'))
        return out

    # ---- values --------------------------------------------------------------------------------------------------
    def _place(self, name: str) -> int:
        self.places.append(name)
        return len(self.places) - 1

    def _text(self, name: str) -> bytes:
        return self.sentinels.text(self._place(name)).encode()

    def _raw(self, name: str) -> bytes:
        text = self.sentinels.text(self._place(name))
        return (text.encode() + b"\0" + text.encode("utf-16-le")).ljust(64, b"\0")

    def _value(self, tag: int, vr: bytes, name: str) -> Value | None:
        s = self.sentinels
        if vr in _TEXTS:
            return s.number.encode() if tag == 0x00101000 else self._text(name)
        if vr in _FREE:
            return b"Seen: " + self._text(name) + b", " + s.number.encode()
        if vr == b"PN":
            return self._text(name) + b"^" + s.accented.encode(self.way.codec)
        if vr == b"UI":
            return s.uid(self._place(name)).encode()
        if vr == b"UR":
            return b"http://" + self._text(name)
        if vr in (b"DA", b"DT"):
            act = self.plan.acts.get(tag)
            moves = act is not None and act.op in (Op.DATE, Op.DATETIME)
            day = s.birth if tag == 0x00100030 else s.event if moves else s.day(self._place(name))
            return f"{day:%Y%m%d}".encode() + (s.time.encode() if vr == b"DT" else b"")
        if vr == b"TM":
            return s.time.encode()
        if vr in (b"IS", b"DS"):
            return s.number.encode()
        return self._raw(name) if vr in _BYTES else None       # numbers and tags name nobody

    # ---- bytes ---------------------------------------------------------------------------------------------------
    def _level(self, item: Item) -> bytes:
        return b"".join(self._element(tag, vr, value) for tag, (vr, value) in sorted(item.items()))

    def _element(self, tag: int, vr: bytes, value: Value) -> bytes:
        way = self.way
        explicit, big = way.syntax != IMPLICIT_LE, way.syntax == EXPLICIT_BE
        return _encode(tag, vr, value, explicit, big, way.undefined, way.unknown and not self._needed(tag))

    def _needed(self, tag: int) -> bool:
        """Elements that say what the object is, and those of private blocks that are known, keep their VR."""
        return tag in (0x00080005, 0x00080016, 0x7FE00010, 0xFFFCFFFC) or tag >> 16 == 0x28 or bool(tag & 0x10000)


class _Tree:
    """The content of a structured report (PS3.3 C.17.3): under every concept that the rules know, and under others."""

    def __init__(self, maker: _Maker, concepts: Concepts) -> None:
        self.maker, self.concepts = maker, concepts

    def root(self) -> Item:
        title = min(self.concepts.titles)
        return {**self._node("", "CONTAINER", title), 0x0040A050: (b"CS", b"SEPARATE"),
                _CONTENT: (b"SQ", list(self._children()))}

    def _children(self) -> Iterator[Item]:
        for kind in ("TEXT", "PNAME", "DATE", "DATETIME", "UIDREF", "CODE", "NUM", "CONTAINER"):
            yield self._node("CONTAINS", kind, ("ZQ1", "99ZQ"))
        for (code, kind), rule in sorted(self.concepts.rules.items()):
            if code[0] == UNNAMED or (kind == "TEXT" and rule.action == "keep" and rule.values is None):
                continue        # text that is kept with a written reason
            if kind in ("TEXT", "PNAME", "DATE", "TIME", "DATETIME", "UIDREF", "CODE", "NUM", "CONTAINER"):
                node = self._node("CONTAINS", kind, code, next(iter(sorted(rule.values or ())), ""))
                if kind == "CONTAINER":
                    below = [self._node("CONTAINS", "PNAME", ("121008", "DCM")),
                             self._node("CONTAINS", "TEXT", ("ZQ2", "99ZQ"))]
                    node |= {0x0040A050: (b"CS", b"SEPARATE"), _CONTENT: (b"SQ", below)}
                yield node

    def _node(self, relationship: str, kind: str, code: tuple[str, str], answer: str = "") -> Item:
        m, s, name = self.maker, self.maker.sentinels, f"content {kind} of {' '.join(code)}"
        out: Item = {0x0040A040: (b"CS", kind.encode()), 0x0040A043: (b"SQ", [self._code(code, name)])}
        if relationship:
            out[0x0040A010] = (b"CS", relationship.encode())
        if kind == "NUM":
            out[0x0040A300] = (b"SQ", [{0x004008EA: (b"SQ", [self._code(("mm", "UCUM"), f"unit of {name}")]),
                                        0x0040A30A: (b"DS", b"12")}])
        elif kind == "CODE":
            given = tuple(answer.split(" ", 1)) if answer else ("121058", "DCM")
            out[0x0040A168] = (b"SQ", [self._code((given[0], given[-1]), f"answer of {name}")])
        values: dict[str, tuple[int, bytes]] = {
            "TEXT": (0x0040A160, b"UT"), "PNAME": (0x0040A123, b"PN"), "UIDREF": (0x0040A124, b"UI")}
        if kind in values:
            tag, vr = values[kind]
            value = m._value(tag, vr, name)
            assert value is not None
            out[tag] = (vr, value)
        event = f"{s.event:%Y%m%d}".encode()
        dated: Item = {0x0040A121: (b"DA", event), 0x0040A122: (b"TM", s.time.encode()),
                       0x0040A120: (b"DT", event + s.time.encode())}
        tag = {"DATE": 0x0040A121, "TIME": 0x0040A122, "DATETIME": 0x0040A120}.get(kind, 0)
        return out | ({tag: dated[tag]} if tag else {})

    def _code(self, code: tuple[str, str], name: str) -> Item:
        return {0x00080100: (b"SH", code[0].encode()), 0x00080102: (b"SH", code[1].encode()),
                0x00080104: (b"LO", self.maker._text(f"meaning in {name}"))}


@lru_cache(maxsize=4096)
def _known(tag: int) -> tuple[bytes, str]:
    """Return VR and keyword of PS3.6; of several VRs one for bytes, where one is."""
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return b"", ""
    return (b"OW" if "OW" in vr else vr.encode() if len(vr) == 2 else b""), keyword_for_tag(tag)


def _encode(tag: int, vr: bytes, value: Value, explicit: bool, big: bool, undefined: bool = False,
            unknown: bool = False) -> bytes:
    """Return one element (PS3.5 7.1). As UN, its content is written as implicit VR little endian (PS3.5 6.2.2)."""
    order = ">" if big else "<"
    if unknown:
        explicit_inside, vr_out = False, b"UN"
    else:
        explicit_inside, vr_out = explicit, vr
    if isinstance(value, list):
        raw = b""
        for item in value:
            content = b"".join(_encode(t, v, x, explicit_inside, big, undefined) for t, (v, x) in sorted(item.items()))
            length = 0xFFFFFFFF if undefined else len(content)
            raw += pack(f"{order}HHI", 0xFFFE, 0xE000, length) + content
            raw += pack(f"{order}HHI", 0xFFFE, 0xE00D, 0) if undefined else b""
        length = 0xFFFFFFFF if undefined else len(raw)
        raw += pack(f"{order}HHI", 0xFFFE, 0xE0DD, 0) if undefined else b""
    else:
        raw = pack(f"{order}H", value) if isinstance(value, int) else value
        raw += (b"\0" if vr in (b"UI", b"OB", b"OW", b"UN") else b" ") * (len(raw) % 2)
        length = len(raw)
    group, number = tag >> 16, tag & 0xFFFF
    if not explicit:
        return pack(f"{order}HHI", group, number, length) + raw
    if vr_out in LONG:
        return pack(f"{order}HH2sHI", group, number, vr_out, 0, length) + raw
    return pack(f"{order}HH2sH", group, number, vr_out, length) + raw


def absent(work: ObjectStore, outcomes: Iterable[str], sentinels: Sentinels) -> None:
    """Raise CanarySurfaced where a part's outcomes tell of a canary: by its pseudonym, its UIDs or its keys."""
    import pyarrow as pa
    import pyarrow.compute as pc

    marks = pa.array(sentinels.marks, pa.string())
    for key in outcomes:
        rows = tables.read(work, key, ["patient", "study", "series", "instance", "output_key"])
        known = any(pc.any(pc.is_in(rows[name], value_set=marks)).as_py() for name in rows.column_names)
        if known or pc.any(pc.match_substring(rows["output_key"], sentinels.patient)).as_py():
            raise CanarySurfaced("A canary stands among the objects of a part.", hint="Release nothing; report it.")

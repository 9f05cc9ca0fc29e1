"""The parts of a content item: codes, and values of every type under a concept rule (PS3.3 C.17.3, C.18)."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from math import isfinite

from pipeline.deidentify.concepts import Code, ConceptRule, Concepts
from pipeline.deidentify.elements import CHARACTER_SET, Pieces, Work, element_bytes, even
from pipeline.deidentify.plan import Act, Op, Plan
from pipeline.dicom.charset import decode
from pipeline.dicom.scan import LITTLE_IMPLICIT, Element, Encoding, read_items, read_level
from pipeline.model import Reason, Refusal

RELATIONSHIP, VALUE_TYPE, CONCEPT_NAME, CONTINUITY = 0x0040A010, 0x0040A040, 0x0040A043, 0x0040A050
TEXT_VALUE, PERSON_NAME, UID = 0x0040A160, 0x0040A123, 0x0040A124
DATETIME, DATE, TIME = 0x0040A120, 0x0040A121, 0x0040A122
MEASURED, NUMERIC, UNITS, QUALIFIER = 0x0040A300, 0x0040A30A, 0x004008EA, 0x0040A301
CONCEPT_CODE, REFERENCED_SOP, SOP_CLASS, SOP_INSTANCE = 0x0040A168, 0x00081199, 0x00081150, 0x00081155
GRAPHIC_DATA, GRAPHIC_TYPE, PIXEL_ORIGIN, FRAME_OF_REFERENCE = 0x00700022, 0x00700023, 0x00480301, 0x30060024
TEMPORAL_RANGE, SAMPLES, OFFSETS, DATETIMES = 0x0040A130, 0x0040A132, 0x0040A138, 0x0040A13A
OBSERVED, OBSERVATION_UID, TEMPLATES, MAPPING, TEMPLATE = 0x0040A032, 0x0040A171, 0x0040A504, 0x00080105, 0x0040DB00
CODE_VALUE, SCHEME, MEANING, LONG_CODE = 0x00080100, 0x00080102, 0x00080104, 0x00080119

NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")     # DS (PS3.5 6.2)
LONGEST_NUMBER = 16
# PS3.3 C.18.6.1.2, C.18.9.1.2: graphic types, and how many points each has where that is fixed.
GRAPHICS = {b"POINT": 1, b"MULTIPOINT": 0, b"POLYLINE": 0, b"POLYGON": 0, b"CIRCLE": 2, b"ELLIPSE": 4, b"ELLIPSOID": 6}
RANGES = frozenset({b"POINT", b"MULTIPOINT", b"SEGMENT", b"MULTISEGMENT", b"BEGIN", b"END"})   # C.18.7.1.1
_PLAIN = {"DATETIME": (DATETIME, b"DT", Op.DATETIME), "DATE": (DATE, b"DA", Op.DATE), "TIME": (TIME, b"TM", Op.TIME),
          "TEXT": (TEXT_VALUE, b"UT", Op.KEEP), "PNAME": (PERSON_NAME, b"PN", Op.KEEP), "UIDREF": (UID, b"UI", Op.UID)}


def _acts(*rules: tuple[int, Op, bytes]) -> dict[int, Act]:
    return {tag: Act(op, frozenset({vr}), vr) for tag, op, vr in rules}


# The value of IMAGE and COMPOSITE (PS3.3 C.18.3, C.18.4): numbers of frames and segments stay, a presentation state
# that is named in turn is renamed.
_IMAGE = _acts((SOP_CLASS, Op.UID, b"UI"), (SOP_INSTANCE, Op.UID, b"UI"), (0x00081160, Op.KEEP, b"IS"),
               (REFERENCED_SOP, Op.DESCEND, b"SQ"), (0x0062000B, Op.KEEP, b"US"))
# Evidence (PS3.3 C.17.2, Hierarchical SOP Instance Reference Macro): study, series and instance, nothing else.
_EVIDENCE = _acts((0x0020000D, Op.UID, b"UI"), (0x00081115, Op.DESCEND, b"SQ"), (0x0020000E, Op.UID, b"UI"),
                  (REFERENCED_SOP, Op.DESCEND, b"SQ"), (SOP_CLASS, Op.UID, b"UI"), (SOP_INSTANCE, Op.UID, b"UI"))


class Dropped(Exception):
    """The item does not pass; the cause is a word of the product's own. `counted`: what is below it was read."""

    def __init__(self, cause: str, *, counted: bool = False) -> None:
        super().__init__(cause)
        self.cause, self.counted = cause, counted


class Level:
    """The elements of one item, or of the top level, by tag."""

    __slots__ = ("buf", "depth", "encoding", "found")

    def __init__(self, buf: bytes, elements: list[Element], encoding: Encoding, depth: int) -> None:
        self.buf, self.encoding, self.depth = buf, encoding, depth
        self.found = {element[0]: element for element in elements}

    def text(self, tag: int) -> str:
        """Return a code string, or a part of a code, which is compared and never copied."""
        element = self.found.get(tag)
        return self.buf[element[3]:element[4]].strip(b" \0").decode("ascii", "replace") if element else ""

    def raw(self, tag: int, vr: bytes) -> bytes | None:
        """Return a value; None where it is absent, or nothing but padding. Raises Refusal under another VR."""
        element = self.found.get(tag)
        if element is None:
            return None
        if self.encoding.explicit and element[1] not in (vr, b"UN"):
            raise Refusal(Reason.VR_MISMATCH, tag)
        value = self.buf[element[3]:element[4]]
        return value if value.strip(b" \0") or vr in (b"FL", b"UL") else None

    def items(self, tag: int) -> list[tuple[int, int]]:
        """Return where the items of a sequence stand. Raises Refusal."""
        element = self.found.get(tag)
        if element is None or element[4] == element[3]:
            return []
        if self.encoding.explicit and element[1] not in (b"SQ", b"UN"):
            raise Refusal(Reason.VR_MISMATCH, tag)
        return read_items(self.buf, element, self.encoding, self.depth + 1)

    def inside(self, tag: int, where: tuple[int, int]) -> Level:
        """Return one of those items."""
        unknown = self.found[tag][1] == b"UN" and not self.encoding.big
        inner = LITTLE_IMPLICIT if unknown else self.encoding
        return Level(self.buf, read_level(self.buf, *where, inner, self.depth + 1), inner, self.depth + 1)


class Values:
    """The values of one report under its rules. `stands_on` tells that an item refers to another, or is drawn on it."""

    def __init__(self, work: Work, concepts: Concepts) -> None:
        self.work, self.concepts = work, concepts
        self.out = work.source.encoding
        self.stands_on = False
        self._codes: dict[tuple[bytes, bool], tuple[Code | None, bytes | None]] = {}
        self._units: dict[Code, bytes | None] = {}
        self._said: dict[tuple[int, str], tuple[int, bytes]] = {}
        self._image = replace(work.plan, acts=_IMAGE, private={})
        self._evidence = replace(work.plan, acts=_EVIDENCE, private={})

    def value(self, rule: ConceptRule, value_type: str, level: Level) -> Pieces:
        """Return the value of an item as the rule has it. Raises Dropped, or Refusal where it is malformed."""
        if value_type == "CONTAINER":
            return self.container(level)
        if value_type == "NUM":
            return self._num(rule, level)
        if value_type == "CODE":
            code, said = self.code(level, CONCEPT_CODE)
            if code is None:
                raise Dropped("no_value")
            if said is None or not self.concepts.answers(rule, code):
                raise Dropped("code_not_listed")
            return [self._element(CONCEPT_CODE, b"SQ", said)]
        if value_type in ("IMAGE", "COMPOSITE"):
            return self._referenced(level)
        if value_type in ("SCOORD", "SCOORD3D"):
            return self._graphic(value_type, level)
        if value_type == "TCOORD":
            return self._temporal(level)
        return self._plain(rule, value_type, level)

    def _plain(self, rule: ConceptRule, value_type: str, level: Level) -> Pieces:
        """TEXT, PNAME, UIDREF, DATE, TIME, DATETIME: one element."""
        tag, vr, op = _PLAIN[value_type]
        if op is Op.TIME and not self.work.plan.keep_times:
            raise Dropped("time")
        raw = level.raw(tag, vr)
        if raw is None:
            raise Dropped("no_value")
        if rule.action == "operator":
            op = Op.OPERATOR
        if op is not Op.KEEP:
            raw = self.work.value(op, raw, tag)
            if not raw:
                raise Dropped("no_value")
        elif rule.values is not None and self.decoded(level, tag) not in rule.values:
            raise Dropped("text_not_listed")
        else:
            self.work.check(vr, raw, tag)
        return [self._element(tag, vr, raw)]

    def container(self, level: Level) -> Pieces:
        """Return continuity, and the template where the rules list it (PS3.3 C.18.8)."""
        continuity = level.text(CONTINUITY)
        if continuity not in ("SEPARATE", "CONTINUOUS", ""):
            raise Refusal(Reason.REPORT_MALFORMED, CONTINUITY)
        pieces = [self.cs(CONTINUITY, continuity)] if continuity else []
        for where in level.items(TEMPLATES)[:1]:
            item = level.inside(TEMPLATES, where)
            name = item.text(TEMPLATE)
            if item.text(MAPPING) == "DCMR" and name in self.concepts.templates:
                said = self.item_bytes([self.cs(MAPPING, "DCMR"), self.cs(TEMPLATE, name)])
                pieces.append(self._element(TEMPLATES, b"SQ", said))
        return pieces

    def _num(self, rule: ConceptRule, level: Level) -> Pieces:
        """NUM (PS3.3 C.18.1): no value, or one with its unit; a qualifier says why there is none, or what it is."""
        if rule.action == "empty":
            return [self._element(MEASURED, b"SQ", b"")]
        content = b""
        items = level.items(MEASURED)
        if len(items) > 1:
            raise Dropped("malformed")
        for where in items:
            item = level.inside(MEASURED, where)
            number = (item.raw(NUMERIC, b"DS") or b"").strip(b" \0")
            if not number:
                continue
            if len(number) > LONGEST_NUMBER or not NUMBER.fullmatch(number):
                raise Dropped("malformed")
            unit = self._unit(item)
            if unit is None:
                raise Dropped("unit_not_listed")
            content = self.item_bytes([(UNITS, unit), self._element(NUMERIC, b"DS", even(number))])
        pieces = [self._element(MEASURED, b"SQ", content)]
        code, said = self.code(level, QUALIFIER)
        if code is not None:
            if said is None:
                raise Dropped("code_not_listed")
            pieces.append(self._element(QUALIFIER, b"SQ", said))
        return pieces

    def _unit(self, item: Level) -> bytes | None:
        """Return the unit as it is to be written, None where it is not listed."""
        code, _ = self.code(item, UNITS)
        if code is None:
            return None
        if code not in self._units:
            unit = self.concepts.unit(code)
            self._units[code] = self._element(UNITS, b"SQ", self._code_item(code, unit))[1] if unit else None
        return self._units[code]

    def _referenced(self, level: Level) -> Pieces:
        """IMAGE, COMPOSITE: the one instance that is referenced, renamed."""
        items = level.items(REFERENCED_SOP)
        if len(items) > 1:
            raise Dropped("malformed")
        if not items or not {SOP_CLASS, SOP_INSTANCE} <= set(level.inside(REFERENCED_SOP, items[0]).found):
            raise Dropped("no_value")
        return [(REFERENCED_SOP, self._under(self._image, level, REFERENCED_SOP))]

    def evidence(self, level: Level, tag: int) -> Pieces:
        """Return the instances that a report names as its evidence, renamed."""
        return [(tag, self._under(self._evidence, level, tag))] if level.items(tag) else []

    def _under(self, plan: Plan, level: Level, tag: int) -> bytes:
        """Return a sequence under another plan."""
        outer, self.work.plan = self.work.plan, plan
        try:
            return self.work.sequence(level.found[tag], level.buf, level.encoding, level.depth + 1)
        finally:
            self.work.plan = outer

    def _graphic(self, value_type: str, level: Level) -> Pieces:
        """SCOORD (PS3.3 C.18.6), SCOORD3D (C.18.9): numbers, and what they draw."""
        kind = level.text(GRAPHIC_TYPE)
        raw = level.raw(GRAPHIC_DATA, b"FL") or b""
        points, rest = divmod(len(raw), 12 if value_type == "SCOORD3D" else 8)
        if rest or not points or GRAPHICS.get(kind.encode()) not in (0, points):
            raise Dropped("malformed")
        if not all(map(isfinite, struct.unpack(f"{'>' if level.encoding.big else '<'}{len(raw) // 4}f", raw))):
            raise Dropped("malformed")
        pieces = [self._element(GRAPHIC_DATA, b"FL", raw), self.cs(GRAPHIC_TYPE, kind)]
        if value_type == "SCOORD":
            self.stands_on = True
            if (origin := level.text(PIXEL_ORIGIN)) in ("FRAME", "VOLUME"):
                pieces.append(self.cs(PIXEL_ORIGIN, origin))
        elif frame := level.raw(FRAME_OF_REFERENCE, b"UI"):
            pieces.append(self._element(FRAME_OF_REFERENCE, b"UI", self.work.value(Op.UID, frame, FRAME_OF_REFERENCE)))
        return pieces

    def _temporal(self, level: Level) -> Pieces:
        """TCOORD (PS3.3 C.18.7): samples, offsets in seconds, or points in time, which move."""
        kind = level.text(TEMPORAL_RANGE)
        if kind.encode() not in RANGES:
            raise Dropped("malformed")
        self.stands_on = True
        pieces = [self.cs(TEMPORAL_RANGE, kind)]
        for tag, vr in ((SAMPLES, b"UL"), (OFFSETS, b"DS"), (DATETIMES, b"DT")):
            if raw := level.raw(tag, vr):
                raw = self.work.value(Op.DATETIME, raw, tag) if vr == b"DT" else raw
                self.work.check(vr, raw, tag)
                pieces.append(self._element(tag, vr, raw))
        if len(pieces) == 1:
            raise Dropped("no_value")
        return pieces

    def common(self, level: Level, value_type: str, name: bytes | None) -> Pieces:
        """Return what any item may have beside its value; an observation's own date moves, or goes if malformed."""
        pieces: Pieces = [self.cs(VALUE_TYPE, value_type)]
        if name is not None:
            pieces.append(self._element(CONCEPT_NAME, b"SQ", name))
        for tag, vr, op in ((OBSERVED, b"DT", Op.DATETIME), (OBSERVATION_UID, b"UI", Op.UID)):
            if raw := level.raw(tag, vr):
                try:
                    pieces.append(self._element(tag, vr, self.work.value(op, raw, tag)))
                except Refusal:
                    continue
        if own := level.raw(CHARACTER_SET, b"CS"):
            pieces.append(self._element(CHARACTER_SET, b"CS", own))
        return pieces

    def device(self, name: str) -> Pieces:
        return [self._element(TEXT_VALUE, b"UT", even(name.encode()))]

    def code(self, level: Level, tag: int) -> tuple[Code | None, bytes | None]:
        """Return the one code of a sequence (None: there is none that can be read) and its item as it is to be written
        (None: neither file nor dictionary knows it)."""
        element = level.found.get(tag)
        if element is None or element[4] == element[3]:
            return None, None
        key = level.buf[element[2] + 4:element[4]], level.encoding.explicit
        known = self._codes.get(key)
        if known is None:
            items = level.items(tag)
            code = None
            if len(items) == 1:
                item = level.inside(tag, items[0])
                value, scheme = item.text(CODE_VALUE) or item.text(LONG_CODE), item.text(SCHEME)
                code = (value, scheme) if value and scheme else None
            meaning = self.concepts.meaning(code) if code else None
            known = code, self._code_item(code, meaning) if code and meaning else None
            self._codes[key] = known
        return known

    def _code_item(self, code: Code, meaning: str) -> bytes:
        value, scheme = code
        pieces = [self._element(SCHEME, b"SH", even(scheme.encode())),
                  self._element(MEANING, b"LO", even(meaning.encode()))]
        if len(value) <= 16:
            return self.item_bytes([self._element(CODE_VALUE, b"SH", even(value.encode())), *pieces])
        return self.item_bytes([*pieces, self._element(LONG_CODE, b"UC", even(value.encode()))])

    def item_bytes(self, pieces: Pieces) -> bytes:
        """Return an item of defined length; `pieces` in order of their tags."""
        content = b"".join([piece for _, piece in pieces])
        return self.out.implicit.pack(0xFFFE, 0xE000, len(content)) + content

    def cs(self, tag: int, value: str) -> tuple[int, bytes]:
        """Return a code string: one of few, all of them the standard's or the rules' own."""
        known = self._said.get((tag, value))
        if known is None:
            known = self._said[tag, value] = self._element(tag, b"CS", even(value.encode("ascii")))
        return known

    def _element(self, tag: int, vr: bytes, value: bytes) -> tuple[int, bytes]:
        return tag, element_bytes(tag, vr, value, self.out)

    def decoded(self, level: Level, tag: int) -> str:
        """Return text, to be compared or hashed."""
        element = level.found.get(tag)
        return decode(level.buf[element[3]:element[4]], self.work.codecs).strip(" \0") if element else ""

"""The answer key of a structured report's content tree: an item for every concept that the rules name, and for every
value type one that they do not.

Items stand side by side below the root. In a check's path the item's place is told by what it is, for its number
changes as others go: `path` is empty and `name` is "CODE SCHEME TYPE".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from pipeline.synthetic import encode
from pipeline.synthetic.asked import Check, Planted, word

Code = tuple[str, str]
# PS3.3 C.17.3.2.1, less those that nothing but their absence can be said of
TYPES = ("TEXT", "NUM", "CODE", "DATE", "TIME", "DATETIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE", "SCOORD",
         "SCOORD3D", "TCOORD", "CONTAINER")
STRANGER: Code = ("ZQ0001", "99ANSWERKEY")
OBSERVER: Code = ("121005", "DCM")
ANSWER: Code = ("121007", "DCM")        # Device: an answer that pydicom's dictionary has
UNLISTED: Code = ("121006", "DCM")      # Person: another, where a rule lists its answers
SOP = "1.2.840.10008.5.1.4.1.1.1.2"
PER_OBJECT = 40


@dataclass(frozen=True)
class Content:
    """What concept rules claim. `rules`: (concept, value type) → (action, values, manufacturer, model); a concept
    without name is ("unnamed", "")."""

    title: Code
    rules: Mapping[tuple[Code, str], tuple[str, frozenset[str] | None, Code | None, Code | None]]
    templates: tuple[str, ...]
    units: tuple[Code, ...]
    answers: tuple[Code, ...]       # codes of the file's own, which no dictionary has
    evidence: bool
    planted: tuple[tuple[Code, str], ...] | None = None     # which rules this object has items for; None: all
    extras: bool = True             # strangers, templates, units and evidence


def parts(content: Content) -> list[tuple[str, Content]]:
    """Return the content spread over objects small enough to be quick: none of it, the extras, then some rules each."""
    keys = [key for key in sorted(content.rules) if key[1] in TYPES]
    some = [tuple(keys[n:n + PER_OBJECT]) for n in range(0, len(keys), PER_OBJECT)]
    return [("flat", replace(content, planted=(), extras=False)), ("extras", replace(content, planted=())),
            *((f"items {n}", replace(content, planted=part, extras=False)) for n, part in enumerate(some, 1))]


def key(code: Code, value_type: str) -> str:
    """Return how a check names an item."""
    return " ".join(filter(None, (*code, value_type)))


def plant(ds: Dataset, content: Content, keep_times: bool, out: Planted) -> None:
    """Put the content tree into `ds`, and what is asked of it into `out`."""
    _Tree(ds, content, keep_times, out).plant()


class _Tree:
    def __init__(self, ds: Dataset, content: Content, keep_times: bool, out: Planted) -> None:
        self.ds, self.content, self.keep_times, self.out = ds, content, keep_times, out
        self.items: list[Dataset] = []

    def plant(self) -> None:
        content, ds = self.content, self.ds
        ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
        ds.ConceptNameCodeSequence = Items([self._code(content.title)])
        container = self._first("CONTAINER")
        makers = {code for rule in content.rules.values() for code in rule[2:] if code}
        beside = {k for k in content.rules if k[0] == OBSERVER or k[0] in makers}       # what names a device
        wanted = set(content.rules if content.planted is None else content.planted)
        order = sorted(wanted | beside if wanted else (), key=lambda k: (k[0] != OBSERVER, k[0] not in makers, k))
        for code, kind in order:
            self._rule(code, kind)
        if content.extras:
            self._extras(container)
        ds.ContentSequence = Items(self.items)

    def _extras(self, container: Code | None) -> None:
        content = self.content
        for kind in TYPES:
            if (STRANGER, kind) not in content.rules:
                self._item(STRANGER, kind, "unlisted")
                self._gone(STRANGER, kind)
        for number, name in enumerate(content.templates if container else ()):
            assert container is not None
            item = self._item(container, "CONTAINER", "template", number)
            template = Dataset()
            template.MappingResource, template.TemplateIdentifier = "DCMR", name
            item.ContentTemplateSequence = Items([template])
            self.out.checks.append(Check("text_retained", f"template {name}", (), name.encode()))
        self._units()
        self._answers()
        self.ds.CurrentRequestedProcedureEvidenceSequence = Items([self._evidence()])

    # ---- one rule ------------------------------------------------------------------------------------------------
    def _rule(self, code: Code, kind: str) -> None:
        action, values, _, _ = self.content.rules[code, kind]
        name = key(code, kind)
        if kind not in TYPES:
            return

        def ask(what: str, value: str | bytes = b"") -> None:
            raw = value if isinstance(value, bytes) else value.encode()
            self.out.checks.append(Check(what, name, (), raw))

        if action == "drop" or (kind == "TIME" and not self.keep_times):
            self._item(code, kind, "drop")
            self._gone(code, kind)
            if action == "drop":
                self._modifier(code, kind)
            return
        if action == "keep" and kind == "CODE":
            for answer in [_split(v) for v in sorted(values)] if values else [ANSWER]:
                item = self._item(code, kind, answer)
                item.ConceptCodeSequence = Items([self._code(answer)])
                ask("text_retained", " ".join(answer))
            if values and " ".join(UNLISTED) not in values:
                item = self._item(code, kind, UNLISTED)
                item.ConceptCodeSequence = Items([self._code(UNLISTED)])
                self.out.checks.append(Check("text_removed", name, (), " ".join(UNLISTED).encode()))
        elif action == "keep" and kind == "TEXT":
            for text in sorted(values) if values else [word(self.out.name, name)]:
                self._item(code, kind, text).TextValue = text
                ask("text_retained", text)
            if values:
                self._item(code, kind, "unlisted")
                self.out.checks.append(Check("text_removed", name, (), self._text("unlisted", name).encode()))
        elif action == "keep" and kind == "CONTAINER":
            self._item(code, kind, "keep")
            ask("tag_retained")
        elif action == "keep":
            if kind in ("SCOORD", "TCOORD") and (("unnamed", ""), "IMAGE") not in self.content.rules:
                return          # nothing to be drawn on
            self._item(code, kind, "keep")
            ask("text_retained", self._value(kind, "keep", name))
        elif action == "empty":
            self._item(code, kind, "empty")
            ask("tag_retained")
            self.out.checks.append(Check("text_removed", name, (), self._value(kind, "empty", name)))
        elif action == "shift":
            self._item(code, kind, "shift")
            ask("date_shifted", self._value(kind, "shift", name))
            ask("tag_retained")
        elif action == "remap":
            self._item(code, kind, "remap")
            ask("uid_changed", self._value(kind, "remap", name))
            ask("uid_consistent", self._value(kind, "remap", name))
        else:
            self._item(code, kind, action)
            ask("text_removed", self._value(kind, action, name))
            ask("text_notnull")

    def _gone(self, code: Code, kind: str) -> None:
        self.out.checks.append(Check("uid_changed" if kind in ("UIDREF", "IMAGE", "COMPOSITE") else "text_removed",
                                     key(code, kind), (), absent=True))

    def _modifier(self, code: Code, kind: str) -> None:
        """A number whose modifier is dropped by a rule stays: the rule says that nothing is lost with it."""
        number = self._first("NUM")
        if number is None:
            return
        name = key(number, "NUM")
        seed = ("modified", key(code, kind))
        parent = self._item(number, "NUM", *seed)
        child = self._made(code, kind, "modifier", key(code, kind))
        child.RelationshipType = "HAS CONCEPT MOD"
        parent.ContentSequence = Items([child])
        self.out.checks.append(Check("text_retained", name, (), self._value("NUM", *seed, name)))

    def _first(self, kind: str) -> Code | None:
        """The first concept of the value type that is kept whatever its value."""
        return next((code for (code, of), rule in sorted(self.content.rules.items(), key=lambda one: one[0])
                     if of == kind and rule[0] == "keep" and rule[1] is None and code[1]), None)

    def _units(self) -> None:
        number = self._first("NUM")
        for unit in self.content.units if number else ():
            assert number is not None
            item = self._item(number, "NUM", "unit", unit)
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = Items([self._code(unit)])
            value = self._value("NUM", "unit", unit, key(number, "NUM"))
            self.out.checks.append(Check("text_retained", key(number, "NUM"), (), value))

    def _answers(self) -> None:
        """Answers that the file itself knows stand under the first concept that takes any."""
        concept = self._first("CODE")
        for answer in self.content.answers if concept else ():
            assert concept is not None
            self._item(concept, "CODE", answer).ConceptCodeSequence = Items([self._code(answer)])
            self.out.checks.append(Check("text_retained", key(concept, "CODE"), (), " ".join(answer).encode()))

    # ---- items ---------------------------------------------------------------------------------------------------
    def _item(self, code: Code, kind: str, *seed: object) -> Dataset:
        item = self._made(code, kind, *seed, key(code, kind))
        item.RelationshipType = "CONTAINS"
        self.items.append(item)
        return item

    def _code(self, code: Code) -> Dataset:
        """A code whose meaning was typed by somebody: it must be written anew."""
        item = Dataset()
        if len(code[0]) > 16:
            item.LongCodeValue = code[0]
        else:
            item.CodeValue = code[0]
        item.CodingSchemeDesignator = code[1]
        item.CodeMeaning = self._text("meaning", code)
        return item

    def _text(self, *seed: object) -> str:
        text = word(self.out.name, "content", *seed)
        self.out.secrets[text.encode()] = f"content: {seed[0]}"
        return text

    def _number(self, *seed: object) -> int:
        text = "\x1f".join(map(str, (self.out.name, *seed)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")

    def _value(self, kind: str, *seed: object) -> bytes:
        """Return the item's value as bytes as read_back sees it."""
        n = self._number(kind, *seed)
        if kind == "NUM":
            return b"88.%d" % (n % 90_000_000 + 10_000_000)
        if kind == "DATE":
            return b"201006%02d" % (n % 28 + 1)
        if kind == "DATETIME":
            return b"201006%02d101530" % (n % 28 + 1)
        if kind == "TIME":
            return b"101517.%06d" % (n % 1_000_000)
        if kind in ("UIDREF", "IMAGE", "COMPOSITE"):
            return encode.uid("content", self.out.name, *seed).encode()
        if kind == "PNAME":
            return f"{self._text(*seed)}^{self._text('given', *seed)}".encode()
        if kind in ("SCOORD", "SCOORD3D"):
            point = [float(n >> shift & 0xFFF) + 0.5 for shift in (0, 12, 24)]
            return struct.pack("<2f", *point[:2]) if kind == "SCOORD" else struct.pack("<3f", *point)
        if kind == "TCOORD":
            return b"%d.5" % (n % 10_000)
        return self._text(*seed).encode()

    def _made(self, code: Code, kind: str, *seed: object) -> Dataset:
        item = Dataset()
        item.ValueType = kind
        if code[1]:
            item.ConceptNameCodeSequence = Items([self._code(code)])
        value: Any = self._value(kind, *seed)
        if kind in ("DATE", "TIME", "DATETIME", "PNAME", "UIDREF", "TEXT"):
            keyword = {"DATE": "Date", "TIME": "Time", "DATETIME": "DateTime", "PNAME": "PersonName", "UIDREF": "UID",
                       "TEXT": "TextValue"}[kind]
            setattr(item, keyword, value.decode())
            if kind != "TEXT" or not (seed and seed[0] in ("keep",)):
                self.out.secrets.setdefault(value, key(code, kind))
        elif kind == "NUM":
            measured = Dataset()
            measured.NumericValue = value.decode()
            measured.MeasurementUnitsCodeSequence = Items([self._code(("mm", "UCUM"))])
            item.MeasuredValueSequence = Items([measured])
        elif kind == "CODE":
            item.ConceptCodeSequence = Items([self._code(ANSWER)])
        elif kind in ("IMAGE", "COMPOSITE"):
            reference = Dataset()
            reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = SOP, value.decode()
            item.ReferencedSOPSequence = Items([reference])
            self.out.secrets.setdefault(value, key(code, kind))
        elif kind in ("SCOORD", "SCOORD3D"):
            item.GraphicType = "POINT"
            item.GraphicData = list(struct.unpack(f"<{len(value) // 4}f", value))
            if kind == "SCOORD3D":
                item.ReferencedFrameOfReferenceUID = encode.uid("frame", self.out.name)
        elif kind == "TCOORD":
            item.TemporalRangeType, item.ReferencedTimeOffsets = "POINT", value.decode()
        elif kind == "CONTAINER":
            item.ContinuityOfContent = "SEPARATE"
        if kind in ("SCOORD", "TCOORD"):        # drawn on an image, or it goes
            under = self._made(("unnamed", ""), "IMAGE", "under", *seed)
            under.RelationshipType = "SELECTED FROM"
            item.ContentSequence = Items([under])
        return item

    def _evidence(self) -> Dataset:
        study, series, instance = Dataset(), Dataset(), Dataset()
        uids = [encode.uid("evidence", self.out.name, n) for n in range(3)]
        study.StudyInstanceUID, series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID = uids
        instance.ReferencedSOPClassUID = SOP
        series.ReferencedSOPSequence = Items([instance])
        study.ReferencedSeriesSequence = Items([series])
        self.out.secrets.update({one.encode(): "evidence" for one in uids})
        path = (0x0040A375, 0, 0x00081115, 0, 0x00081199, 0, 0x00081155)
        actions = ("uid_changed", "uid_consistent", "tag_retained") if self.content.evidence else ("uid_changed",)
        self.out.checks += [Check(action, "evidence", path, uids[2].encode(), absent=not self.content.evidence)
                            for action in actions]
        return study


def _split(text: str) -> Code:
    value, _, scheme = text.rpartition(" ")
    return value, scheme

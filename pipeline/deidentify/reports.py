"""Concept rules applied to the content tree of a structured report (PS3.3 C.17.3), on its bytes.

Every item of the tree is read, those of dropped branches too. An item stays if a rule names its concept and value type,
its value passes, and its parent stays; with an item goes all below it. What stays keeps its bytes, but for meanings,
which are written from the rules or the dictionary, and for values that a rule changes. Three things keep the tree true:
a NUM or CODE goes with a concept modifier that cannot pass; an item that refers to another (by reference) is given the
other's new place, or goes with it; coordinates go with the image they were drawn on.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.deidentify.concepts import NAMED, RELATIONSHIPS, VALUE_TYPES, Code, ConceptRule, Concepts
from pipeline.deidentify.elements import CHARACTER_SET, Pieces, Work, element_bytes
from pipeline.deidentify.report_values import CONCEPT_NAME, RELATIONSHIP, TEXT_VALUE, VALUE_TYPE, Dropped, Level, Values
from pipeline.model import Reason, Refusal

CONTENT, REFERENCE = 0x0040A730, 0x0040DB73
VERIFICATION, EVIDENCE = 0x0040A493, 0x0040A375
OBSERVER_TYPE: Code = ("121005", "DCM")         # TID 1002: begins what is said of one observer


@dataclass(slots=True)
class Tally:
    """What became of a report's items. `dropped` counts by cause those that were dropped themselves; `below` those
    that went with them."""

    items: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def below(self) -> int:
        return self.items - self.kept - self.dropped.total()


@dataclass(slots=True)
class _Node:
    """One item that stays, so far. `place` is its number among its siblings as it came in."""

    place: int
    relationship: str
    value_type: str                     # empty where it refers to another item
    pieces: Pieces
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)
    target: tuple[int, ...] = ()        # of a by-reference relationship
    number: int = 1                     # among its siblings as it goes out
    gone: bool = False
    places: dict[int, _Node] | None = None      # children by place, once it was asked for


@dataclass(slots=True)
class _Beside:
    """What siblings say of devices: makers and bounds of observers by place, and devices that wait for their names."""

    said: list[tuple[int, Code, str]] = field(default_factory=list)
    devices: list[tuple[_Node, str, ConceptRule]] = field(default_factory=list)


def content(work: Work, concepts: Concepts) -> tuple[Pieces, Tally]:
    """Return a report's own elements at the top level, content tree and all, and what became of its items.

    Raises Refusal: REPORT_NOT_COVERED where the rules do not list its title, REPORT_MALFORMED where the tree breaks
    PS3.3 C.17.3.
    """
    return _Tree(work, concepts).read()


class _Tree:
    def __init__(self, work: Work, concepts: Concepts) -> None:
        self.work, self.concepts = work, concepts
        self.values = Values(work, concepts)
        self.tally = Tally()

    def read(self) -> tuple[Pieces, Tally]:
        source, values = self.work.source, self.values
        top = Level(source.head, source.elements, source.encoding, 0)
        if top.text(VALUE_TYPE) != "CONTAINER":
            raise Refusal(Reason.REPORT_MALFORMED, VALUE_TYPE)
        code, name = values.code(top, CONCEPT_NAME)
        if not self.concepts.is_title(code) or name is None:
            raise Refusal(Reason.REPORT_NOT_COVERED, CONCEPT_NAME)
        self.tally.items = 1
        root = _Node(1, "", "CONTAINER", [], None)
        pieces = [values.cs(VALUE_TYPE, "CONTAINER"),
                  (CONCEPT_NAME, element_bytes(CONCEPT_NAME, b"SQ", name, source.encoding)), *values.container(top)]
        self._children(top, root)
        if values.stands_on:
            self._settle(root)
        self._number(root)
        pieces += self._content(root)
        if VERIFICATION in top.found:       # who verified it is not kept
            pieces.append(values.cs(VERIFICATION, "UNVERIFIED"))
        if self.concepts.evidence == "remap":
            pieces += values.evidence(top, EVIDENCE)
        return pieces, self.tally

    # ---- reading -------------------------------------------------------------------------------------------------
    def _children(self, level: Level, parent: _Node) -> bool:
        """Read the items below one into `parent`; return whether a concept modifier that should stay could not."""
        beside = _Beside()
        lost = False
        for place, where in enumerate(level.items(CONTENT), 1):
            self.tally.items += 1
            item = level.inside(CONTENT, where)
            outer = self.work.codecs, self.work.escapes
            if own := item.raw(CHARACTER_SET, b"CS"):
                self.work.use(own)
            try:
                parent.children.append(self._item(item, place, parent, beside))
            except Dropped as dropped:
                self.tally.dropped[dropped.cause] += 1
                if not dropped.counted:
                    self._count(item)
                lost = lost or (dropped.cause != "by_rule" and item.text(RELATIONSHIP) == "HAS CONCEPT MOD")
            self.work.codecs, self.work.escapes = outer
        for node, serial, rule in beside.devices:
            self._name_device(node, serial, rule, beside.said)
        parent.children = [node for node in parent.children if not node.gone]
        return lost

    def _item(self, item: Level, place: int, parent: _Node, beside: _Beside) -> _Node:
        """Return what stays of one item. Raises Dropped where it does not pass, Refusal where it breaks PS3.3."""
        relationship = item.text(RELATIONSHIP)
        if relationship not in RELATIONSHIPS:
            raise Refusal(Reason.REPORT_MALFORMED, RELATIONSHIP)
        if REFERENCE in item.found:
            return self._reference(item, place, relationship, parent)
        value_type = item.text(VALUE_TYPE)
        if value_type not in VALUE_TYPES:
            raise Refusal(Reason.REPORT_MALFORMED, VALUE_TYPE)
        code, name = self.values.code(item, CONCEPT_NAME)
        if code is None and value_type in NAMED:
            raise Refusal(Reason.REPORT_MALFORMED, CONCEPT_NAME)
        if code == OBSERVER_TYPE:
            beside.said.append((place, code, ""))
        elif code in self.concepts.makers and value_type == "TEXT" and code:
            beside.said.append((place, code, self.values.decoded(item, TEXT_VALUE)))
        rule = self.concepts.rule(code, value_type)
        if rule is None or (code is not None and name is None):
            raise Dropped("not_listed")
        if rule.action == "drop":
            raise Dropped("by_rule")
        node = _Node(place, relationship, value_type, self.values.common(item, value_type, name), parent)
        if rule.action == "device":
            beside.devices.append((node, self.values.decoded(item, TEXT_VALUE), rule))
        else:
            try:
                node.pieces += self.values.value(rule, value_type, item)
            except Refusal as refusal:
                if refusal.reason is not Reason.VALUE_MALFORMED:
                    raise
                raise Dropped("malformed") from None
        lost = self._children(item, node)
        if lost and value_type in ("NUM", "CODE"):      # without it the value would say something else
            raise Dropped("modifier_lost", counted=True)
        return node

    def _reference(self, item: Level, place: int, relationship: str, parent: _Node) -> _Node:
        raw = item.raw(REFERENCE, b"UL") or b""
        if not raw or len(raw) % 4:
            raise Refusal(Reason.REPORT_MALFORMED, REFERENCE)
        self.values.stands_on = True
        self._count(item)       # nothing may stand below it
        order = ">" if item.encoding.big else "<"
        return _Node(place, relationship, "", [], parent, target=struct.unpack(f"{order}{len(raw) // 4}I", raw))

    def _count(self, item: Level) -> None:
        """Count the items of a dropped branch."""
        for where in item.items(CONTENT):
            self.tally.items += 1
            self._count(item.inside(CONTENT, where))

    def _name_device(self, node: _Node, serial: str, rule: ConceptRule, said: list[tuple[int, Code, str]]) -> None:
        """Give a device its pseudonym, from manufacturer and model that stand beside its serial number."""
        bounds = [place for place, code, _ in said if code == OBSERVER_TYPE]
        start = max((place for place in bounds if place < node.place), default=0)
        end = min((place for place in bounds if place > node.place), default=1 << 32)
        beside = {code: text for place, code, text in reversed(said) if start <= place < end}
        manufacturer, model = (beside.get(code, "") if code else "" for code in (rule.manufacturer, rule.model))
        name = self.work.subject.pseudonyms.device(manufacturer, model, serial)
        if name is None:
            node.gone = True
            self.tally.dropped["no_value"] += 1
        else:
            node.pieces += self.values.device(name)

    # ---- references ----------------------------------------------------------------------------------------------
    def _settle(self, root: _Node) -> None:
        """Take out what refers to an item that is gone, and coordinates that have nothing left to stand on, until
        nothing changes."""
        changed = True
        while changed:
            changed = False
            for node in _walk(root):
                stands = any(child.relationship == "SELECTED FROM" for child in node.children)
                if (node.target and _find(root, node.target) is None) or (
                        node.value_type in ("SCOORD", "TCOORD") and not stands):
                    node.gone = changed = True
                    self.tally.dropped["reference_lost"] += 1
            for node in _walk(root) if changed else ():
                node.children = [child for child in node.children if not child.gone]

    def _number(self, root: _Node) -> None:
        """Number the items as they go out, count them, and write what refers to another."""
        references = []
        for node in _walk(root):
            self.tally.kept += 1
            for number, child in enumerate(node.children, 1):
                child.number = number
            if node.target:
                references.append(node)
        encoding = self.work.source.encoding
        for node in references:
            there = _find(root, node.target)
            path: list[int] = []
            while there is not None:
                path.append(there.number)
                there = there.parent
            raw = struct.pack(f"{'>' if encoding.big else '<'}{len(path)}I", *reversed(path))
            node.pieces = [(REFERENCE, element_bytes(REFERENCE, b"UL", raw, encoding))]

    # ---- writing -------------------------------------------------------------------------------------------------
    def _content(self, node: _Node) -> Pieces:
        if not node.children:
            return []
        items = []
        for child in node.children:
            pieces = [*child.pieces, self.values.cs(RELATIONSHIP, child.relationship), *self._content(child)]
            pieces.sort()
            items.append(self.values.item_bytes(pieces))
            child.pieces, child.children = [], []       # a report of many items is held once
        return [(CONTENT, element_bytes(CONTENT, b"SQ", b"".join(items), self.work.source.encoding))]


def _find(root: _Node, target: tuple[int, ...]) -> _Node | None:
    """Return the item at a place as it came in (1, then numbers among siblings), if it stays and is no reference."""
    if target[0] != 1:
        return None
    node: _Node | None = root
    for place in target[1:]:
        if node is None:
            return None
        if node.places is None:
            node.places = {child.place: child for child in node.children}
        node = node.places.get(place)
        if node is not None and node.gone:
            return None
    return node if node is not None and node.value_type else None


def _walk(root: _Node) -> Iterator[_Node]:
    """Yield every item that stays, depth first, in document order."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(child for child in reversed(node.children) if not child.gone)

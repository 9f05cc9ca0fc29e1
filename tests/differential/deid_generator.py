"""Data sets that are made up for a recipe set, as bytes: what rules name and what none names, at every depth, with the
odd VRs, private blocks, overlays and dates that archives hold. Most of it is sound, so that both engines take it.

Hypothesis draws a seed, a size and how the file is written; the rest follows from the seed, each choice as likely as
its weight says. Where a file fails, Hypothesis makes it smaller.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from operator import itemgetter
from random import Random
from typing import Any

from deid_sets import Set
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary, dictionary_VM, dictionary_VR

Node = tuple[int, str, Any]     # tag, VR, value: bytes (little endian), or of SQ a list of items, each a list of nodes

IMPLICIT, EXPLICIT, DEFLATED, BIG = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
LONG = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"))
WIDTH = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OL": 4, "OF": 4, "FD": 8, "OD": 8, "SV": 8,
         "UV": 8, "OV": 8}
BINARY = {"US": 2, "SS": 2, "AT": 4, "UL": 4, "SL": 4, "FL": 4, "FD": 8, "SV": 8, "UV": 8}
ROOT = "1.2.826.0.1.3680043.8.498."
# What both need in order to read the rest: no value of theirs is made up. Of LUT Data pydicom wants the descriptor.
FIXED = frozenset({0x00080005, 0x00080016, 0x00080018, 0x0020000D, 0x0020000E, 0x7FE00010, 0x00280103, 0x00283006})
DEPTH = 3


@dataclass(frozen=True)
class Made:
    """One file: its bytes, whether times are kept, and its nodes, to be shown where it fails."""

    data: bytes
    keep_times: bool
    nodes: list[Node]


def made(one: Set) -> st.SearchStrategy[Made]:
    """Return files for a recipe set."""
    return st.builds(_made, st.just(one), st.integers(0, 1 << 48), st.integers(1, 24),
                     st.sampled_from([EXPLICIT, IMPLICIT, EXPLICIT, DEFLATED, EXPLICIT, BIG]),
                     st.sampled_from(["", "ISO_IR 100", "ISO_IR 192"]), st.booleans(), st.booleans())


def _made(one: Set, seed: int, size: int, syntax: str, charset: str, pixels: bool, keep_times: bool) -> Made:
    extra = _report(min(one.plan.concepts.titles)) if one.plan.concepts else PIXELS * pixels
    return file(min(one.sop_classes), syntax, charset, extra, keep_times, _Random(seed, one, charset).level(size, 0))


def file(sop_class: str, syntax: str, charset: str, extra: list[Node], keep_times: bool, nodes: list[Node]) -> Made:
    """Return a file of these nodes, and of what a file needs beside them. Of one tag twice the first stands."""
    fixed: list[Node] = [(0x00080016, "UI", sop_class.encode()), (0x00080018, "UI", (ROOT + "1.3").encode()),
                         (0x0020000D, "UI", (ROOT + "1.1").encode()), (0x0020000E, "UI", (ROOT + "1.2").encode())]
    if charset:
        fixed.append((0x00080005, "CS", charset.encode()))
    nodes = [*fixed, *extra, *nodes]
    body = _encode(nodes, syntax)
    if syntax == DEFLATED:
        body = zlib.compress(body, wbits=-15)
        body += b"\0" * (len(body) & 1)
    meta = _encode([(0x00020001, "OB", b"\0\1"), (0x00020002, "UI", sop_class.encode()),
                    (0x00020003, "UI", (ROOT + "1.3").encode()), (0x00020010, "UI", syntax.encode()),
                    (0x00020016, "AE", b"STORE_SCP")], EXPLICIT)
    length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta))
    return Made(b"\0" * 128 + b"DICM" + length + meta + body, keep_times, nodes)


PIXELS: list[Node] = [
    (0x00280002, "US", b"\1\0"), (0x00280004, "CS", b"MONOCHROME2"), (0x00280008, "IS", b"1"),
    (0x00280010, "US", b"\2\0"), (0x00280011, "US", b"\2\0"), (0x00280100, "US", b"\x10\0"),
    (0x00280101, "US", b"\x10\0"), (0x00280102, "US", b"\x0f\0"), (0x00280103, "US", b"\0\0"),
    (0x7FE00010, "OW", bytes(range(8)))]


def _report(title: tuple[str, str]) -> list[Node]:
    """A report's root, and in it an item that no rule names."""
    def code(value: str, scheme: str) -> list[list[Node]]:
        return [[(0x00080100, "SH", value.encode()), (0x00080102, "SH", scheme.encode()), (0x00080104, "LO", b"of it")]]

    item: list[Node] = [(0x0040A010, "CS", b"CONTAINS"), (0x0040A040, "CS", b"TEXT"),
                        (0x0040A043, "SQ", code("1", "99NOBODY")), (0x0040A160, "UT", b"Doe^Jane")]
    return [(0x0040A040, "CS", b"CONTAINER"), (0x0040A043, "SQ", code(*title)), (0x0040A050, "CS", b"SEPARATE"),
            (0x0040A730, "SQ", [item])]


def _encode(nodes: list[Node], syntax: str) -> bytes:
    order = ">" if syntax == BIG else "<"
    out = []
    for tag, vr, value in sorted({node[0]: node for node in reversed(nodes)}.values(), key=itemgetter(0)):
        length = None
        if isinstance(value, list):     # what stands as UN is implicit VR, of undefined length (PS3.5 6.2.2)
            vr = "SQ" if syntax == BIG else vr
            items = [_encode(item, IMPLICIT if vr == "UN" else syntax) for item in value]
            value = b"".join(struct.pack(order + "HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
            if vr == "UN":
                value, length = value + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), 0xFFFFFFFF
        else:
            value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) & 1)
            width = WIDTH.get(vr, 1)
            if order == ">" and width > 1:
                value = b"".join(value[i:i + width][::-1] for i in range(0, len(value), width))
        length = len(value) if length is None else length
        group, number = tag >> 16, tag & 0xFFFF
        if syntax == IMPLICIT:
            out.append(struct.pack("<HHI", group, number, length) + value)
        elif vr in LONG:
            out.append(struct.pack(order + "HH2sHI", group, number, vr.encode(), 0, length) + value)
        else:
            out.append(struct.pack(order + "HH2sH", group, number, vr.encode(), length) + value)
    return b"".join(out)


# no tag of PS3.6, overlays, curves, group lengths
UNKNOWN = (0x00080FF0, 0x00100FF1, 0x00400FF2, 0x00180FF3, 0x60000010, 0x60000022, 0x60003000, 0x60021500, 0x50000005,
           0x50003000, 0x50002500, 0x00080000, 0x00100000, 0x00400000)
# blocks of which no rule names these elements
BLOCKS = ((0x0009, "SOMEBODY", 1), (0x0019, "SIEMENS MR HEADER", 8), (0x0045, "GEMS_SENO_02", 6),
          (0x00E1, "ELSCINT1", 0))


@cache
def _dictionary() -> list[tuple[int, str]]:
    """Everything that PS3.6 has and a data set may hold, but for pixels."""
    return [(tag, vr) for tag, entry in sorted(DicomDictionary.items()) for vr in entry[0].split(" or ")
            if tag >> 16 > 6 and tag >> 16 not in (0x7FE0, 0xFFFE, 0xFFFA) and tag not in FIXED and len(vr) == 2]


@cache
def _ruled(one: Set) -> dict[str, list[tuple[int, str]]]:
    """What the rules name, under each VR it may have: sequences, dates, what else is changed on the way, all else."""
    found: dict[str, list[tuple[int, str]]] = {"sequence": [], "date": [], "changed": [], "kept": []}
    for tag, (action, _) in sorted(one.recipe.rules.items()):
        for vr in dictionary_VR(tag).split(" or ") if tag not in FIXED else ():
            kind = "kept" if action == "KEEP" and vr != "UI" else "date" if action == "JITTER" else "changed"
            found["sequence" if vr == "SQ" else kind].append((tag, vr))
    return found


def _most(tag: int) -> int:
    """How many values an element has at most."""
    most = dictionary_VM(tag).rpartition("-")[2] if tag in DicomDictionary else "n"
    return int(most) if most.isdigit() else 99


class _Random(Random):
    """Nodes and values at random."""

    def __init__(self, seed: int, one: Set, charset: str) -> None:
        super().__init__(seed)
        self.one, self.charset = one, charset

    def one_in(self, n: int) -> bool:
        return self.randrange(n) == 0

    def level(self, size: int, depth: int) -> list[Node]:
        """The nodes of a data set or an item."""
        ruled = _ruled(self.one)
        nodes: list[Node] = []
        for _ in range(size):
            kind, = self.choices(("kept", "changed", "date", "sequence", "dictionary", "unknown", "private"),
                                 (5, 4, 2, 4, 3, 1, 3))
            if kind == "private":
                nodes += self.private(depth)
            elif kind == "unknown":
                nodes.append(self.element(self.choice(UNKNOWN), self.choice(sorted(VALUES)), depth))
            else:
                among = _dictionary() if kind == "dictionary" else ruled[kind]
                nodes += [self.element(*self.choice(among), depth)] if among else []
        if depth and self.one_in(12):
            nodes.append((0x00080005, "CS", self.choice((b"ISO_IR 100", b"ISO_IR 192", b""))))
        return nodes

    def element(self, tag: int, vr: str, depth: int) -> Node:
        """An element under the VR its tag has; now and then as UN, and seldom under another."""
        if vr == "SQ":
            return tag, "UN" if self.one_in(15) else vr, self.items(depth)
        value = VALUES[vr](self)
        if vr in BINARY and not self.one_in(60):       # more numbers than its tag has are refused
            value = value[:BINARY[vr] * _most(tag)]
        return tag, "UN" if self.one_in(30) else self.choice(sorted(VALUES)) if self.one_in(400) else vr, value

    def items(self, depth: int) -> list[list[Node]]:
        if depth == DEPTH:
            return []
        return [self.level(self.randint(0, 4), depth + 1) for _ in range(self.choice((0, 1, 1, 1, 2)))]

    def private(self, depth: int) -> list[Node]:
        """A private block, mostly with its creator."""
        group, creator, number = self.choice([*sorted(self.one.recipe.private), *BLOCKS])
        block = self.choice((0x10, 0x10, 0x10, 0x2F))
        nodes: list[Node] = []
        if not self.one_in(8):
            said = self.choice((creator,) * 8 + (creator.lower(), "OTHER", ""))
            nodes.append((group << 16 | block, "LO", said.encode()))
        for at in {number, self.randrange(256)}:
            vr = self.choice((*sorted(VALUES), "SQ"))
            nodes.append((group << 16 | block << 8 | at, vr, self.items(depth) if vr == "SQ" else VALUES[vr](self)))
        return nodes

    def several(self, value: Callable[[_Random], str]) -> bytes:
        """None, one, or several values with empty ones among them."""
        count = self.choice((0, 1, 1, 1, 1, 1, 2, 3))
        found = [value(self) if count == 1 or not self.one_in(5) else "" for _ in range(count)]
        return "\\".join(found).encode("latin-1" if self.charset == "ISO_IR 100" else "utf-8")

    def words(self) -> str:
        accents = "éß" if self.charset else ""
        return "".join(self.choices("ABCdefg 019.^-_" + accents, k=self.randrange(13))).strip()

    def name(self) -> str:
        return self.choice(("Doe^Jane", "Doe^Jane^^Dr^", "DOE^JANE=Doe=Do", "Smith", "van  der^Berg "))

    def day(self) -> str:
        return f"{date(1900, 1, 1) + timedelta(days=self.randrange(73000)):%Y%m%d}"

    def clock(self) -> str:
        return f"{self.randrange(24):02d}{self.randrange(60):02d}{self.randrange(60):02d}.{self.randrange(10 ** 6):06d}"

    def da(self) -> str:
        odd = "2020", "202013", "2020.01.31", "20200101-20200201", "19000229"
        return self.choice(odd) if self.one_in(60) else self.day()

    def dt(self) -> str:
        if self.one_in(60):
            return self.choice(("2020", "202001", "20200101+01"))
        clock = self.clock()[:self.choice((0, 4, 6, 8, 10, 13))].rstrip(".")
        return self.day() + clock + self.choice(("", "", "+0000", "+0130", "-0500", "-1200")) * bool(clock)

    def uid(self) -> str:
        return self.choice((ROOT + "7.1", ROOT + "7.2.0", "2.25.1", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.113619.2.55"))

    def numbers(self, code: str, low: int, high: int) -> bytes:
        numbers = [self.randint(low, high) for _ in range(self.choice((0, 1, 1, 1, 2, 3)))]
        return struct.pack(f"<{len(numbers)}{code}", *numbers)


def _numbers(code: str, low: int, high: int) -> Callable[[_Random], bytes]:
    return lambda rng: rng.numbers(code, low, high)


VALUES: dict[str, Callable[[_Random], bytes]] = {
    **dict.fromkeys(("AE", "CS", "LO", "SH", "UC"), lambda rng: rng.several(_Random.words)),
    **dict.fromkeys(("LT", "ST", "UT", "UR"), lambda rng: rng.words().encode("ascii", "ignore")),
    "PN": lambda rng: rng.several(_Random.name),
    "AS": lambda rng: rng.choice((b"", b"045Y", b"091Y", b"006M", b"121Y")),
    "DA": lambda rng: rng.several(_Random.da), "DT": lambda rng: rng.several(_Random.dt),
    "TM": lambda rng: rng.several(lambda rng: rng.clock()[:rng.choice((2, 4, 6, 10))]),
    "DS": lambda rng: rng.several(lambda rng: f"{rng.randint(-99999, 99999) / 100:g}"),
    "IS": lambda rng: rng.several(lambda rng: str(rng.randint(-99999, 99999))),
    "UI": lambda rng: rng.several(_Random.uid),
    "US": _numbers("H", 0, 65535), "SS": _numbers("h", -9, 9), "UL": _numbers("I", 0, 1 << 31),
    "SL": _numbers("i", -9, 9), "UV": _numbers("Q", 0, 1 << 40), "SV": _numbers("q", -9, 9),
    "AT": _numbers("I", 0x00080000, 0x00180000), "FL": _numbers("f", 0, 99), "FD": _numbers("d", 0, 99),
    "OB": lambda rng: rng.randbytes(rng.randrange(7)), "OW": _numbers("H", 0, 65535), "OL": _numbers("I", 0, 9),
    "OV": _numbers("Q", 0, 9), "OF": _numbers("f", 0, 9), "OD": _numbers("d", 0, 9),
    "UN": lambda rng: rng.randbytes(rng.randrange(7)),
}

"""The engine: a compiled plan applied to the bytes of one file.

Elements at every depth are scanned; a kept element's bytes are copied as they are; only what a rule names is encoded
again; pixel data passes on unloaded. Explicit and implicit VR little endian, native and encapsulated. Whatever else is
refused by reason (`Refusal`): the engine never falls back to something laxer.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from struct import Struct, pack
from typing import Any

from pipeline.deidentify import dates
from pipeline.deidentify.pixels import check_pixels
from pipeline.deidentify.plan import Op, Plan
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.dicom.charset import decode, encodings
from pipeline.dicom.scan import (
    CHUNK,
    EXPLICIT_LE,
    IMPLICIT_LE,
    LONG,
    MAX_DEPTH,
    TEXT,
    Element,
    Encoding,
    Scan,
    read_items,
    read_level,
    scan,
)
from pipeline.model import Reason, Refusal

IMPLEMENTATION_CLASS = b"2.25.219345357650115327712725338279846052017\0"
IMPLEMENTATION_VERSION = b"TRE_INGEST_1"
PREAMBLE = b"\0" * 128 + b"DICM"
# PS3.5 Annex A: encapsulated transfer syntaxes whose streams `pixels` can look into
ENCAPSULATED = frozenset(
    f"1.2.840.10008.1.2.{tail}" for tail in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "5")
)
UID = re.compile(rb"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
NUMBER = {b"DS": re.compile(rb"[0-9+\-.eE \\\0]*"), b"IS": re.compile(rb"[0-9+\- \\\0]*"),
          b"AS": re.compile(rb"([0-9]{3}[DWMY] *\\?)*\0?")}
_SHORT, _LONG, _IMPLICIT = Struct("<HH2sH"), Struct("<HH2sHI"), Struct("<HHI")


@dataclass(slots=True)
class Subject:
    """The person behind the file, and what is needed to rename and move what is theirs."""

    patient: str
    pseudonyms: Pseudonyms
    days: int               # negative
    seconds: int
    site: str               # issuer: the domain of operators


@dataclass(slots=True)
class Rewritten:
    """What was done to one file. Output UIDs are those in the written data set."""

    source_sha256: bytes
    sha256: bytes
    size: int
    header_size: int        # bytes of the output before the pixel data's value
    explicit: bool
    study: str
    series: str
    instance: str
    source: Scan = field(repr=False)


def rewrite(source: Path, target: Path, plan: Plan, subject: Subject, *, expect: bytes | None = None,
            digest: bool = True) -> Rewritten:
    """De-identify the file at `source` into a new file at `target`.

    `expect` is the SHA-256 that staging saw; without `digest` the output is not hashed. Raises Refusal, and leaves no
    target, where the file cannot pass: with SOURCE_CHANGED where its bytes are others by now.
    """
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        head = os.pread(fd, CHUNK, 0)
        done = False
        out = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            result = _rewrite(fd, size, head, out, plan, subject, expect, digest)
            done = True
            return result
        finally:
            os.close(out)
            if not done:
                target.unlink()
    finally:
        os.close(fd)


def _rewrite(
    fd: int, size: int, head: bytes, out: int, plan: Plan, subject: Subject, expect: bytes | None, digest: bool
) -> Rewritten:
    try:
        source = scan(fd, size, head)
        header, uids = transform(source, plan, subject)
        patches = check_pixels(fd, source)
    except Refusal as refusal:
        # a file that changed since staging is that before it is anything else
        if expect is not None and _digest(fd) != expect:
            raise Refusal(Reason.SOURCE_CHANGED) from None
        raise refusal from None
    begin = end = 0
    output = hashlib.sha256(header) if digest else None
    os.write(out, header)
    if source.pixel is not None:
        begin, end = source.pixel[3], source.pixel_end
    source_sha256 = _copy(fd, head, out, begin, end, patches, output)
    if expect is not None and source_sha256 != expect:
        raise Refusal(Reason.SOURCE_CHANGED)
    return Rewritten(source_sha256, output.digest() if output else b"", len(header) + end - begin, len(header),
                     source.encoding.explicit, *uids, source)


def _digest(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").digest()


def _copy(fd: int, head: bytes, out: int, begin: int, end: int, patches: list[tuple[int, int]], output: Any) -> bytes:
    """Write bytes `begin:end` of the source, `patches` zeroed; hash all of the source and all that is written."""
    source = hashlib.sha256()
    os.lseek(fd, 0, os.SEEK_SET)
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    position = 0
    patches = list(patches)
    while True:
        if position == 0 and not patches:
            chunk, n = memoryview(head), len(head)
            os.lseek(fd, n, os.SEEK_SET)
        else:
            n = os.readv(fd, [buffer])
            chunk = view
        if not n:
            return source.digest()
        source.update(chunk[:n])
        a, b = max(begin, position), min(end, position + n)
        if a < b:
            for offset, length in patches:
                x, y = max(offset, position), min(offset + length, position + n)
                if x < y:
                    buffer[x - position:y - position] = bytes(y - x)
            piece = chunk[a - position:b - position]
            if output:
                output.update(piece)
            written = os.write(out, piece)
            while written < len(piece):
                written += os.write(out, piece[written:])
        position += n


def transform(source: Scan, plan: Plan, subject: Subject) -> tuple[bytes, tuple[str, str, str]]:
    """Return the new file up to its pixel data's value, and the output's (study, series, instance) UIDs."""
    syntax = source.transfer_syntax
    if syntax not in (EXPLICIT_LE, IMPLICIT_LE) and syntax not in ENCAPSULATED:
        raise Refusal(Reason.TRANSFER_SYNTAX_UNSUPPORTED, 0x00020010)
    work = _Work(source, plan, subject)
    pieces = work.level(source.elements, source.head, source.encoding, 0)
    present = {tag for tag, _ in pieces}
    for tag in plan.added:
        if tag not in present:
            act = plan.acts[tag]
            pieces.append((tag, work.encode(tag, act.vr, work.value(act.op, b"", tag), source.encoding)))
    pieces += always(plan, source.encoding)
    pieces.sort()
    if source.pixel is not None:
        tag, _, start, value, _ = source.pixel
        if tag not in plan.acts:
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, tag)
        pieces.append((tag, source.head[start:value]))
    if any(tag in plan.acts for tag, *_ in source.tail_elements):
        raise Refusal(Reason.UNSUPPORTED_STRUCTURE, source.tail_elements[0][0])
    found = work.uids
    if not {0x0020000D, 0x0020000E, 0x00080018} <= found.keys():
        raise Refusal(Reason.MISSING_UID)
    sop_class = (source.value(0x00080016) or b"").rstrip(b"\0 ")
    meta = _meta(sop_class, found[0x00080018], source.transfer_syntax.encode())
    header = b"".join([PREAMBLE, meta, *(piece for _, piece in pieces)])
    return header, (found[0x0020000D].decode(), found[0x0020000E].decode(), found[0x00080018].decode())


class _Work:
    """One file under one plan."""

    def __init__(self, source: Scan, plan: Plan, subject: Subject) -> None:
        self.plan, self.subject = plan, subject
        self.codecs = encodings(source.value(0x00080005))
        self.escapes = len(self.codecs) > 1 or self.codecs[0].startswith("iso2022")
        self.uids: dict[int, bytes] = {}
        self.source = source
        self.sound = _sound(plan.id, source.encoding.explicit)
        self.maker = (self._text(source, 0x00080070), self._text(source, 0x00081090))

    def _age(self) -> bytes:
        """The age band from birth and study dates as they came in; where one is unknown, from the stated age."""
        band = dates.age_band(self.source.value(0x00100030), self.source.value(0x00080020))
        stated = (self.source.value(0x00101010) or b"").strip(b" \0")
        years = int(stated[:3]) if re.fullmatch(rb"[0-9]{3}Y", stated) else None
        if not band and years is not None and years <= dates.OLDEST:
            band = b"%03dY" % min(90, years // 5 * 5)
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

    def _text(self, source: Scan, tag: int) -> str:
        return decode(source.value(tag) or b"", self.codecs).strip(" \0")

    def level(self, elements: list[Element], buf: bytes, encoding: Encoding, depth: int) -> list[tuple[int, bytes]]:
        """Return `(tag, encoded element)` for what survives of one data set or item, in tag order."""
        acts = self.plan.acts
        sound = self.sound
        out: list[tuple[int, bytes]] = []
        explicit = encoding.explicit
        for element in elements:
            tag, vr, start, value, end = element
            act = acts.get(tag)
            if act is None:
                continue
            if explicit and vr not in act.vrs:
                raise Refusal(Reason.VR_MISMATCH, tag)
            op = act.op
            if op is Op.KEEP:
                piece = buf[start:end]
                if piece not in sound:
                    self._check(act.vr if not explicit else vr, buf[value:end], tag)
                    if len(piece) < 128 and not self.escapes and piece[value - start:].isascii():
                        sound.add(piece)
                out.append((tag, piece))
            elif op is Op.DESCEND:
                out.append((tag, self._sequence(element, buf, encoding, depth + 1)))
            elif op is Op.PIXELS:
                raise Refusal(Reason.UNSUPPORTED_STRUCTURE, tag)    # pixel data inside a sequence
            else:
                new = self.value(op, buf[value:end], tag)
                if op is Op.UID and not depth:
                    self.uids[tag] = new.rstrip(b"\0")
                out.append((tag, self.encode(tag, vr or act.vr, new, encoding)))
        if self.plan.private:
            out += self._private(elements, buf, explicit)
            out.sort()
        return out

    def _check(self, vr: bytes, raw: bytes, tag: int) -> None:
        """Refuse a kept value that cannot be what its VR says: text hides in numbers otherwise."""
        if len(raw) & 1:
            raise Refusal(Reason.VALUE_MALFORMED, tag)
        if vr in NUMBER:
            if not NUMBER[vr].fullmatch(raw):
                raise Refusal(Reason.VALUE_MALFORMED, tag)
        elif vr in TEXT and (self.escapes or not raw.isascii()) and "\ufffd" in decode(raw, self.codecs):
            raise Refusal(Reason.CHARSET_UNSUPPORTED, tag)

    def _sequence(self, element: Element, buf: bytes, encoding: Encoding, depth: int) -> bytes:
        tag, _, _, value, end = element
        if depth > MAX_DEPTH:
            raise Refusal(Reason.NESTING_TOO_DEEP, tag)
        items = []
        for a, b in read_items(buf, element, encoding, depth) if end > value else ():
            pieces = self.level(read_level(buf, a, b, encoding, depth), buf, encoding, depth)
            content = b"".join(piece for _, piece in pieces)
            items.append(pack("<HHI", 0xFFFE, 0xE000, len(content)) + content)
        return self.encode(tag, b"SQ", b"".join(items), encoding)

    def _private(self, elements: list[Element], buf: bytes, explicit: bool) -> list[tuple[int, bytes]]:
        """Return private elements that the plan keeps, with the creator that owns them (PS3.5 7.8.1)."""
        creators: dict[tuple[int, int], tuple[str, Element]] = {}
        groups = {group for group, _ in self.plan.private}
        out: dict[int, bytes] = {}
        for element in elements:
            tag, vr, start, value, end = element
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
                if kept and (not explicit or vr in TEXT or vr in _PLAIN):
                    self._check(vr, buf[value:end], tag)
                    out[owner[0]] = buf[owner[2]:owner[4]]
                    out[tag] = buf[start:end]
        return list(out.items())

    def value(self, op: Op, raw: bytes, tag: int) -> bytes:
        """Return the new value, of even length, for what stands in `raw`."""
        subject = self.subject
        if op is Op.EMPTY:
            return b""
        if op is Op.UID:
            return self._remap(raw, tag)
        if op is Op.PATIENT:
            return _even(subject.patient.encode())
        if op is Op.AGE:
            return _even(self._age())
        if op in _MOVES:
            try:
                return _even(self._move(op, raw, tag))
            except Refusal as refusal:
                raise Refusal(refusal.reason, tag) from None
        text = decode(raw, self.codecs, person_name=op is Op.OPERATOR)
        if op is Op.DEVICE:
            new = subject.pseudonyms.device(*self.maker, text)
            return _even((new or "").encode())
        if op is Op.OPERATOR:
            names = (subject.pseudonyms.operator(subject.site, name) for name in text.split("\\"))
            return _even("\\".join(name or "" for name in names).encode())
        raise AssertionError(op)

    def _remap(self, raw: bytes, tag: int) -> bytes:
        raw = raw.rstrip(b"\0 ")
        if not raw:
            return b""
        if b"\\" in raw:
            return _even(b"\\".join(self._remap_one(one.strip(b"\0 "), tag) for one in raw.split(b"\\")), b"\0")
        return _even(self._remap_one(raw, tag), b"\0")

    def _remap_one(self, raw: bytes, tag: int) -> bytes:
        if not raw:
            return raw
        if len(raw) > 64 or not UID.fullmatch(raw):
            raise Refusal(Reason.VALUE_MALFORMED, tag)
        uid = raw.decode()
        return raw if _registered(uid) else self.subject.pseudonyms.uid(uid).encode()

    @staticmethod
    def encode(tag: int, vr: bytes, value: bytes, encoding: Encoding) -> bytes:
        """Return one element, of defined length."""
        return element_bytes(tag, vr, value, encoding.explicit)


@lru_cache(maxsize=16)
def _sound(plan: str, explicit: bool) -> set[bytes]:
    """Kept elements, header and all, that were checked before: most of a series says the same in every image."""
    return _Bounded()


class _Bounded(set[bytes]):
    """Forgets all when full, so that it cannot grow with the archive."""

    def add(self, piece: bytes) -> None:
        if len(self) >= 20_000:
            self.clear()
        super().add(piece)


_PLAIN = frozenset(b"AT FD FL SL SS SV UL US UV".split())
_MOVES = frozenset({Op.DATE, Op.DATETIME, Op.TIME})
_TIME_OF = {0x00080020: 0x00080030, 0x00080021: 0x00080031, 0x00080022: 0x00080032, 0x00080023: 0x00080033}


def element_bytes(tag: int, vr: bytes, value: bytes, explicit: bool) -> bytes:
    """Return one element in little endian, of defined length (PS3.5 7.1.2, 7.1.3)."""
    if not explicit:
        return _IMPLICIT.pack(tag >> 16, tag & 0xFFFF, len(value)) + value
    if vr in LONG:
        return _LONG.pack(tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    if len(value) > 0xFFFE:
        raise Refusal(Reason.VALUE_MALFORMED, tag)
    return _SHORT.pack(tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _even(value: bytes, pad: bytes = b" ") -> bytes:
    return value + pad if len(value) & 1 else value


@lru_cache(maxsize=4096)
def _registered(uid: str) -> bool:
    """Whether PS3.6 Annex A registers the UID."""
    from pydicom.uid import UID_dictionary

    return uid in UID_dictionary


def _meta(sop_class: bytes, instance: bytes, syntax: bytes) -> bytes:
    """Return new file meta information (PS3.10 7.1); nothing of the old one stays."""
    elements = b"".join(element_bytes(tag, vr, value, True) for tag, vr, value in (
        (0x00020001, b"OB", b"\0\1"), (0x00020002, b"UI", _even(sop_class, b"\0")),
        (0x00020003, b"UI", _even(instance, b"\0")), (0x00020010, b"UI", _even(syntax, b"\0")),
        (0x00020012, b"UI", IMPLEMENTATION_CLASS + b"\0" * (len(IMPLEMENTATION_CLASS) & 1)),
        (0x00020013, b"SH", IMPLEMENTATION_VERSION),
    ))
    return element_bytes(0x00020000, b"UL", pack("<I", len(elements)), True) + elements


_ALWAYS: dict[tuple[str, bool], list[tuple[int, bytes]]] = {}


def always(plan: Plan, encoding: Encoding) -> list[tuple[int, bytes]]:
    """Return the elements that state what was done (PS3.15 E.1.1, CID 7050)."""
    known = _ALWAYS.get((plan.id, encoding.explicit))
    if known is None:
        known = _ALWAYS[plan.id, encoding.explicit] = _state(plan, encoding.explicit)
    return known


def _state(plan: Plan, explicit: bool) -> list[tuple[int, bytes]]:
    method = f"tre-ingest plan {plan.id}".encode()
    out = [(0x00120062, b"CS", b"YES "), (0x00120063, b"LO", _even(method)), (0x00280303, b"CS", b"MODIFIED")]
    items = b""
    for code, meaning in plan.codes:
        content = b"".join((
            element_bytes(0x00080100, b"SH", _even(code.encode()), explicit),
            element_bytes(0x00080102, b"SH", _even(b"DCM"), explicit),
            element_bytes(0x00080104, b"LO", _even(meaning.encode()), explicit),
        ))
        items += pack("<HHI", 0xFFFE, 0xE000, len(content)) + content
    if items:
        out.append((0x00120064, b"SQ", items))
    return [(tag, element_bytes(tag, vr, value, explicit)) for tag, vr, value in out]

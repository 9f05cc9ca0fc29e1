"""The engine: a compiled plan applied to the bytes of one file.

Elements at every depth are scanned; a kept element's bytes are copied as they are; only what a rule names is encoded
again; pixel data passes on unloaded unless a rule paints over a part of it (`treatment`). A deflated data set and
decoded frames come out as explicit VR little endian; every other file keeps its transfer syntax. What cannot be read is
refused by reason (`Refusal`): the engine never falls back to something laxer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING, Any

from pipeline.deidentify.elements import Pieces, Work, element_bytes, even
from pipeline.deidentify.pixel_policy import Care
from pipeline.deidentify.pixels import JPEG, JPEG_2000, RLE, HighBits, check_pixels
from pipeline.deidentify.plan import Plan
from pipeline.deidentify.reports import Tally, content
from pipeline.deidentify.streams import Patches
from pipeline.deidentify.subject import Subject
from pipeline.deidentify.treatment import Treated, treat
from pipeline.dicom.file import CHUNK, DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE, REPORTS, Scan, chunks, scan
from pipeline.dicom.scan import LITTLE, Encoding
from pipeline.model import Reason, Refusal

if TYPE_CHECKING:
    from pipeline.deidentify.masks import Painter

__all__ = ["Rewritten", "Subject", "rewrite"]

IMPLEMENTATION_CLASS = b"2.25.219345357650115327712725338279846052017"
IMPLEMENTATION_VERSION = b"TRE_INGEST_1"
CLEAN_PIXELS = ("113101", "Clean Pixel Data Option")
PREAMBLE = b"\0" * 128 + b"DICM"
READABLE = {IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE, RLE} | JPEG | JPEG_2000


@dataclass(slots=True)
class Rewritten:
    """What was done to one file. Output UIDs are those in the written data set."""

    source_sha256: bytes
    sha256: bytes
    size: int
    header_size: int        # bytes of the output before the pixel data's value
    encoding: Encoding
    study: str
    series: str
    instance: str
    source: Scan = field(repr=False)
    items: Tally | None = None      # of a structured report
    emptied: Mapping[int, int] = field(default_factory=dict)    # free text that was no approved term, by tag
    to_read: bool = False           # it may pass only if no text is found in its pixels (`reader`)


def rewrite(source: Path, target: Path, plan: Plan, subject: Subject, *, expect: bytes | None = None,
            digest: bool = True) -> Rewritten:
    """De-identify the file at `source` into a new file at `target`.

    `expect` is the SHA-256 that staging saw; without `digest` the output is not hashed. Raises Refusal, and leaves no
    target, where the file cannot pass: with SOURCE_CHANGED where its bytes are others by now.
    """
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        head = os.pread(fd, min(size, CHUNK), 0)
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
        header, uids, items, emptied, treated = transform(source, plan, subject, fd)
        patches: Patches = []
        high_bits = None
        if treated and not treated.frames:
            patches, high_bits = check_pixels(fd, source, painted=treated.painter is not None)
    except Refusal as refusal:
        # a file that changed since staging is that before it is anything else
        if expect is not None and _copy(fd, head, _Sink(-1, None, None), 0, 0, []) != expect:
            raise Refusal(Reason.SOURCE_CHANGED) from None
        raise refusal from None
    sink = _Sink(out, hashlib.sha256() if digest else None, high_bits, treated.painter if treated else None)
    sink.write(header)
    begin, end = (source.pixel[3], source.pixel_end) if source.pixel else (0, 0)
    if treated and treated.frames:
        source_sha256 = _copy(fd, head, sink, 0, 0, [])
        for frame in treated.frames:
            sink.write(frame)
        begin, end = 0, treated.length
    elif source.inflated:
        sink.pixels(memoryview(source.head)[begin:end])
        source_sha256 = _copy(fd, head, sink, 0, 0, [])
    else:
        source_sha256 = _copy(fd, head, sink, begin, end, patches)
    if expect is not None and source_sha256 != expect:
        raise Refusal(Reason.SOURCE_CHANGED)
    if high_bits and high_bits.used:
        raise Refusal(Reason.OVERLAY_IN_PIXELS, 0x7FE00010)
    output_sha256 = sink.digest.digest() if sink.digest else b""
    size = len(header) + end - begin
    return Rewritten(source_sha256, output_sha256, size, len(header), source.encoding, *uids, source, items,
                     emptied, treated is not None and treated.care is Care.READ)


@dataclass(slots=True)
class _Sink:
    """Where the output goes: the file, its digest, and the eyes on its samples."""

    out: int
    digest: Any
    high_bits: HighBits | None
    painter: Painter | None = None

    def write(self, piece: bytes | memoryview) -> None:
        if self.digest:
            self.digest.update(piece)
        written = os.write(self.out, piece)
        while written < len(piece):
            written += os.write(self.out, piece[written:])

    def pixels(self, piece: memoryview) -> None:
        if self.high_bits:
            self.high_bits.see(piece)
        if self.painter:
            for frame in self.painter.feed(piece):
                self.write(frame)
        else:
            self.write(piece)


def _copy(fd: int, head: bytes, sink: _Sink, begin: int, end: int, patches: Patches) -> bytes:
    """Write bytes `begin:end` of the source, `patches` zeroed; return the SHA-256 of all of the source.

    The first bytes are those that the header was made from, so that what was hashed is what was read.
    """
    source = hashlib.sha256()
    position = 0
    for chunk in chain([memoryview(bytearray(head) if patches else head)], chunks(fd, len(head))):
        source.update(chunk)
        n = len(chunk)
        a, b = max(begin, position), min(end, position + n)
        if a < b:
            for offset, length in patches:
                x, y = max(offset, position), min(offset + length, position + n)
                if x < y:
                    chunk[x - position:y - position] = bytes(y - x)
            sink.pixels(chunk[a - position:b - position])
        position += n
    return source.digest()


def transform(
    source: Scan, plan: Plan, subject: Subject, fd: int = -1
) -> tuple[bytes, tuple[str, str, str], Tally | None, Mapping[int, int], Treated | None]:
    """Return the new file up to its pixel data's value, the output's (study, series, instance) UIDs, what became of
    the items of a structured report that the plan has concept rules for (None: it is none), by tag how much free text
    was emptied, and what is done to the pixels (None: it has none to treat)."""
    if source.transfer_syntax not in READABLE:
        raise Refusal(Reason.TRANSFER_SYNTAX_UNSUPPORTED, 0x00020010)
    encoding = source.encoding
    work = Work(source, plan, subject)
    pieces = work.level(source.elements, source.head, encoding, 0)
    sop_class = (source.value(0x00080016) or b"").rstrip(b"\0 ")
    items = None
    if plan.concepts and sop_class.startswith(REPORTS.encode()):
        if source.pixel is not None:
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, source.pixel[0])
        tree, items = content(work, plan.concepts)
        pieces += tree
    present = {tag for tag, _ in pieces}
    for tag in plan.added:
        if tag not in present:
            act = plan.acts[tag]
            pieces.append((tag, element_bytes(tag, act.vr, work.value(act.op, b"", tag), encoding)))
    treated = treat(fd, source, plan) if items is None else None
    if treated and treated.values:
        pieces = [piece for piece in pieces if piece[0] not in treated.values]
        pieces += [(tag, element_bytes(tag, plan.acts[tag].vr, even(value), encoding))
                   for tag, value in treated.values.items() if value is not None and tag in plan.acts]
    pieces += always(plan, encoding, read=treated is not None and treated.care is Care.READ)
    pieces.sort()
    if source.pixel is not None:
        tag, vr, start, value, _ = source.pixel
        if tag not in plan.acts:
            raise Refusal(Reason.UNSUPPORTED_STRUCTURE, tag)
        if encoding.explicit and vr not in plan.acts[tag].vrs:
            raise Refusal(Reason.VR_MISMATCH, tag)
        decoded = treated is not None and treated.frames is not None
        # its header is written anew: of an explicit one two bytes are read by nobody
        head = source.head[start:start + 6] + b"\0\0" if encoding.explicit and value - start == 12 else b""
        own = head + source.head[start + len(head):value]
        pieces.append((tag, treated.pixel_header() if treated and decoded else own))
    if any(tag in plan.acts for tag, *_ in source.tail_elements):
        raise Refusal(Reason.UNSUPPORTED_STRUCTURE, source.tail_elements[0][0])
    found = work.uids
    if not all(map(found.get, (0x0020000D, 0x0020000E, 0x00080018))):
        raise Refusal(Reason.MISSING_UID)
    if any(b"\\" in found[tag] for tag in (0x0020000D, 0x0020000E, 0x00080018)):
        raise Refusal(Reason.VALUE_MALFORMED)
    syntax = EXPLICIT_LE if source.inflated or (treated and treated.frames) else source.transfer_syntax
    header = b"".join([PREAMBLE, _meta(sop_class, found[0x00080018], syntax.encode()), *(piece for _, piece in pieces)])
    uids = found[0x0020000D].decode(), found[0x0020000E].decode(), found[0x00080018].decode()
    return header, uids, items, work.emptied, treated


def header_alone(source: Scan, plan: Plan, subject: Subject) -> bytes:
    """Return the elements at the top that the plan leaves of an object, whatever its pixels need. Nothing of it may be
    stored: it is for looking at."""
    work = Work(source, plan, subject)
    return b"".join(piece for _, piece in work.level(source.elements, source.head, source.encoding, 0))


def _meta(sop_class: bytes, instance: bytes, syntax: bytes) -> bytes:
    """Return new file meta information (PS3.10 7.1); nothing of the old one stays."""
    elements = b"".join(element_bytes(tag, vr, value, LITTLE) for tag, vr, value in (
        (0x00020001, b"OB", b"\0\1"), (0x00020002, b"UI", even(sop_class, b"\0")),
        (0x00020003, b"UI", even(instance, b"\0")), (0x00020010, b"UI", even(syntax, b"\0")),
        (0x00020012, b"UI", even(IMPLEMENTATION_CLASS, b"\0")), (0x00020013, b"SH", IMPLEMENTATION_VERSION),
    ))
    return element_bytes(0x00020000, b"UL", pack("<I", len(elements)), LITTLE) + elements


def always(plan: Plan, encoding: Encoding, *, read: bool = False) -> Pieces:
    """Return the elements that state what was done (PS3.15 E.1.1, CID 7050). `read`: its pixels are looked at, and it
    passes only where no text is left in them."""
    codes = plan.codes
    if read and codes:
        codes = tuple(sorted((*codes, CLEAN_PIXELS)))
    return _always(plan.id, codes, encoding)


@lru_cache(maxsize=64)
def _always(plan_id: str, codes: tuple[tuple[str, str], ...], encoding: Encoding) -> Pieces:
    out = [(0x00120062, b"CS", b"YES "), (0x00120063, b"LO", even(f"tre-ingest plan {plan_id}".encode())),
           (0x00280303, b"CS", b"MODIFIED")]
    items = b""
    for code, meaning in codes:
        content = b"".join(element_bytes(tag, vr, even(text.encode()), encoding) for tag, vr, text in (
            (0x00080100, b"SH", code), (0x00080102, b"SH", "DCM"), (0x00080104, b"LO", meaning)))
        items += pack(">HHI" if encoding.big else "<HHI", 0xFFFE, 0xE000, len(content)) + content
    if items:
        out.append((0x00120064, b"SQ", items))
    return [(tag, element_bytes(tag, vr, value, encoding)) for tag, vr, value in out]

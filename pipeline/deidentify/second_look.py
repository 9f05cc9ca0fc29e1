"""A second pair of eyes: the header of what comes out, searched for the person by other code than wrote it.

Raw bytes first, all tokens in one pass. Only where something is found does pydicom decode the header, to say where it
stands and whether it is a whole word there. Neither the element scanner nor the engine is used here; import-linter sees
to that. What was found in the bytes and stands in no element that pydicom sees counts as found.

Pixel data is not searched: finding text in pictures is another tool's work.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from pipeline.deidentify import nhs
from pipeline.deidentify.tokens import MULTIPLIER, TOKEN_TAGS, Collected, Tokens, plain, wide

__all__ = ["TOKEN_TAGS", "Collected", "Hit", "Tokens", "search"]

OPAQUE = 8              # bytes that a token has at least to be found in a value that is not text
FREE = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
TEXT = FREE | {"AS", "DA", "DS", "DT", "IS", "TM", "UI"}

# Letters of a header as classes: 0 a digit, a a letter; space, hyphen and full stop themselves; the rest NUL.
_CLASSES = bytes(48 if 48 <= c <= 57 else 97 if 97 <= c <= 122 else c if c in b" -." else 0 for c in range(256))
_LETTER = r"[^\W_\u2e80-\U0010ffff]"     # or digit; not of a script without spaces between words
# One letter or digit after a value may be the next element's group: whether it is a whole word is seen when decoded.
_DEFLATED = b"\2\0\x10\0UI\x16\x001.2.840.10008.1.2.1.99"     # Transfer Syntax UID of the file meta information
_CONTENT = (b"\x40\0\x30\xa7", b"\0\x40\xa7\x30")        # Content Sequence, in either byte order
_CODES = tuple(re.compile(pattern, re.DOTALL) for pattern in (      # code value, scheme, length of the meaning
    rb"\x08\x00\x00\x01SH.\x00([ -~]{1,16})\x08\x00\x02\x01SH.\x00([ -~]{1,16})\x08\x00\x04\x01LO(.)\x00",
    rb"\x08\x00\x00\x01.\x00{3}([ -~]{1,16})\x08\x00\x02\x01.\x00{3}([ -~]{1,16})\x08\x00\x04\x01(.)\x00{3}",
    rb"\x00\x08\x01\x00SH\x00.([ -~]{1,16})\x00\x08\x01\x02SH\x00.([ -~]{1,16})\x00\x08\x01\x04LO\x00(.)"))
_TEN = re.compile(rb"000(?:0000000|[ -]000[ -]0000)(?![0a]{2})")
_INWARD = re.compile(rb"0aa(?![0a]{2})")
_OUTWARD = re.compile(rb"(?:^|[^a-z0-9])([a-z]{1,2}[0-9][0-9a-z]? ?)\Z")
_MAILBOX = re.compile(rb"[a-z0-9._%+-]+\Z")
_DOMAIN = re.compile(rb"@[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_UIDS = tuple(re.compile(rb"%d\.[0-9.]{7,62}" % root) for root in (0, 1, 2))
_AREAS = frozenset(
    b"ab al b ba bb bd bh bl bn br bs bt ca cb cf ch cm co cr ct cv cw da dd de dg dh dl dn dt dy e ec eh en ex fk fy "
    b"g gl gu gy ha hd hg hp hr hs hu hx ig im ip iv je ka kt kw ky l la ld le ll ln ls lu m me mk ml n ne ng nn np nr "
    b"nw ol ox pa pe ph pl po pr rg rh rm s sa se sg sk sl sm sn so sp sr ss st sw sy ta td tf tn tq tr ts tw ub w wa "
    b"wc wd wf wn wr ws wv yo ze".split())


@dataclass(frozen=True, slots=True)
class Hit:
    """What was found: the tag it stands at (None outside any element) and its kind. Never its text."""

    tag: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class _Suspect:
    """Bytes that may be an identifier, until an element is found to hold them."""

    kind: str
    text: str                       # as `plain` gives it
    form: bytes = b""               # as found, in lower case
    tag: int | None = None          # of a date: the attribute it was in


def search(header: bytes, tokens: Tokens, dates: Mapping[int, AbstractSet[str]] | None = None) -> list[Hit]:
    """Return every identifier found in a file's bytes up to its pixel data, sorted; nearly always none.

    `dates` are those of this file's own input (`Collected.take_dates`); without it those of all the person's inputs
    count, and one study's moved date may equal another's original one. What pydicom cannot decode counts as found.
    """
    if _DEFLATED in header[:2048]:
        return [Hit(None, "deflated")]      # nothing can be seen, and nothing of the product writes it
    if tokens.vocabulary and any(tag in header for tag in _CONTENT):
        header = _without_meanings(header, tokens.vocabulary)
    low = header.lower()
    suspects = {*_words(low, tokens), *_uids(low, tokens), *_patterns(low, tokens),
                *_dates(low, tokens.dates if dates is None else dates)}
    if not suspects:
        return []
    try:
        hits = _confirm(header, suspects)
    except Exception:  # noqa: BLE001 - whatever pydicom stumbles over: not being able to look is not a clean bill
        hits = {Hit(None, suspect.kind) for suspect in suspects}
    return sorted(hits, key=lambda hit: (-1 if hit.tag is None else hit.tag, hit.kind))


def _without_meanings(header: bytes, vocabulary: AbstractSet[tuple[bytes, bytes]]) -> bytes:
    """Return a report with spaces for every code's meaning that is the dictionary's: Breast is nobody's name there."""
    out = bytearray(header)
    for pattern in _CODES:
        for match in pattern.finditer(header):
            start, length = match.end(), match[3][0]
            if (match[1].rstrip(b" "), header[start:start + length].rstrip(b" ")) in vocabulary:
                out[start:start + length] = b" " * length
    return bytes(out)


def _words(low: bytes, tokens: Tokens) -> Iterator[_Suspect]:
    """Yield the tokens that stand in the bytes: four bytes at a time, at each of four offsets, against a table."""
    import numpy as np

    flags, by_start = tokens.lookup
    multiplier = np.uint32(MULTIPLIER)
    for offset in range(4 if by_start else 0):
        windows = np.frombuffer(low, dtype="<u4", count=max(0, len(low) - offset) // 4, offset=min(offset, len(low)))
        for window in np.flatnonzero(flags[(windows * multiplier) >> 16]).tolist():
            start = 4 * window + offset
            for form, word in by_start.get(low[start : start + 4], ()):
                if low.startswith(form, start) and _may_be(word.text, form, low, start):
                    yield _Suspect(word.kind, word.text, form)


def _may_be(text: str, form: bytes, low: bytes, start: int) -> bool:
    """Whether a form that stands in the bytes may be a word or an opaque value's part: long, wide or standing apart."""
    return len(form) >= OPAQUE or wide(text) or _apart(low, start, start + len(form))


def _apart(low: bytes, start: int, end: int) -> bool:
    """Whether bytes stand apart from letters and digits around them.

    One letter after them may be the next element's group; letters before them may end an ISO 2022 escape sequence.
    """
    before = low[start - 1 : start].isalnum() and 0x1B not in low[max(0, start - 4) : start]
    return not before and not (len(after := low[end : end + 2]) == 2 and after.isalnum())


def _uids(low: bytes, tokens: Tokens) -> Iterator[_Suspect]:
    for pattern in _UIDS if tokens.uids else ():
        for match in pattern.finditer(low):
            run = match[0].rstrip(b".")
            found = {run, run[:-1]}         # the last digit may be the next element's group
            if not run.startswith((b"2.25.", b"1.2.840.10008.")):
                found |= {run[: dot.start()] for dot in re.finditer(rb"\.", run)}
            for uid in found & tokens.uids:
                yield _Suspect("uid", uid.decode("ascii"), uid)


def _dates(low: bytes, dates: Mapping[int, AbstractSet[str]]) -> Iterator[_Suspect]:
    there = {date for date in {d for found in dates.values() for d in found} if date.encode("ascii", "ignore") in low}
    for tag, found in dates.items() if there else ():
        for date in found & there:
            yield _Suspect("date", date, date.encode("ascii"), tag)


def _patterns(low: bytes, tokens: Tokens) -> Iterator[_Suspect]:
    """Yield what has the form of an NHS number with a right check digit, a UK postcode or an e-mail address."""
    classes = low.translate(_CLASSES)
    for match in _TEN.finditer(classes):
        found, before = low[match.start() : match.end()], classes[max(0, match.start() - 2) : match.start()]
        fraction = before.endswith((b"0", b"a")) or before == b"0."
        if not fraction and nhs.normalise(found.decode("ascii")):
            yield from _unless(tokens, "nhs_number", found)
    for match in _INWARD.finditer(classes):
        start = max(0, match.start() - 6)
        if outward := _OUTWARD.search(low[start : match.start()]):
            area = re.match(rb"[a-z]+", outward[1])
            inward = low[match.start() : match.end()]
            if area and area[0] in _AREAS and not set(inward) & set(b"cikmov"):
                yield from _unless(tokens, "postcode", outward[1] + inward)
    for match in _DOMAIN.finditer(low):
        if mailbox := _MAILBOX.search(low[max(0, match.start() - 64) : match.start()]):
            yield from _unless(tokens, "email", mailbox[0] + match[0])


def _unless(tokens: Tokens, kind: str, found: bytes) -> Iterator[_Suspect]:
    text = plain(found.decode("ascii"))
    if text not in tokens.exceptions:
        yield _Suspect(kind, text, found)


def _confirm(header: bytes, suspects: AbstractSet[_Suspect]) -> set[Hit]:
    """Return where the suspects stand."""
    from pydicom import dcmread

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # pydicom's warnings quote values
        data_set = dcmread(io.BytesIO(header), stop_before_pixels=True, force=True)
        elements = [(None, "OB", (data_set.preamble or b"").lower(), ""), *_elements(data_set.file_meta, None),
                    *_elements(data_set, None)]
    hits = {Hit(tag, suspect.kind) for tag, vr, raw, text in elements for suspect in suspects
            if _holds(suspect, tag, vr, raw, text)}
    return hits | {Hit(None, s.kind) for s in suspects if not any(s.form in raw for _, _, raw, _ in elements)}


def _holds(suspect: _Suspect, tag: int | None, vr: str, raw: bytes, text: str) -> bool:
    """Whether an element holds what was found in the raw bytes. `raw` in lower case; `text` decoded and `plain`."""
    if suspect.kind == "date":
        return tag == suspect.tag and any(one.strip()[:8] == suspect.text for one in text.split("\\"))
    pattern = suspect.kind in ("nhs_number", "postcode", "email")
    if vr not in TEXT and suspect.kind != "uid":
        if pattern:
            return False    # a colour table holds 0123456789, whose check digit is right
        utf16 = b"\0" in suspect.form       # the form leaves a NUL out
        return len(suspect.form) + utf16 >= OPAQUE and suspect.form in raw
    if suspect.kind == "uid":
        return _stands_alone(suspect.form, raw)
    if (pattern or (suspect.text.isdigit() and len(suspect.text) < OPAQUE)) and vr not in FREE:
        return False        # a measure, a time or a part of a UID, not somebody's
    if _whole_word(suspect.text, text) or (suspect.form.isascii() and _whole_word(suspect.form.decode(), text)):
        return True
    foreign = not suspect.form.isascii() or b"\0" in suspect.form or b"\x1b" in suspect.form
    at = raw.find(suspect.form) if foreign else -1      # in another encoding than the one declared
    return at >= 0 and _may_be(suspect.text, suspect.form, raw, at)


def _stands_alone(uid: bytes, raw: bytes) -> bool:
    return re.search(rb"(?<![0-9.])" + re.escape(uid) + rb"(?![0-9])", raw) is not None


def _whole_word(word: str, text: str) -> bool:
    if word not in text or wide(word):
        return word in text
    return re.search(rf"(?<!{_LETTER}){re.escape(word)}(?!{_LETTER})", text) is not None


def _elements(data_set: Any, codecs: list[str] | None) -> Iterator[tuple[int | None, str, bytes, str]]:
    """Yield (tag, VR, raw value in lower case, text as `plain`) of every element at every depth but sequences."""
    from pydicom.charset import convert_encodings, decode_bytes, default_encoding
    from pydicom.datadict import dictionary_VR
    from pydicom.dataelem import RawDataElement
    from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

    if "SpecificCharacterSet" in data_set:
        codecs = convert_encodings(data_set.SpecificCharacterSet)
    codecs = codecs or [default_encoding]
    for tag in data_set.keys():  # noqa: SIM118 - a Dataset iterates over its elements, converted
        element = data_set.get_item(tag)
        vr = element.VR
        if vr is None:
            try:
                vr = dictionary_VR(tag)
            except KeyError:
                vr = "UN"
        if vr == "SQ":
            for item in data_set[tag].value or ():
                yield from _elements(item, codecs)
        elif isinstance(element, RawDataElement):
            raw = element.value if isinstance(element.value, bytes) else b""
            text = decode_bytes(raw, codecs, PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS) if vr in TEXT else ""
            yield int(tag), vr, raw.lower(), plain(text)
        else:
            values = element.value if isinstance(element.value, list | tuple) or element.VM > 1 else [element.value]
            text = "\\".join(map(str, values))
            yield int(tag), vr, text.encode("utf-8").lower(), plain(text)

"""Specific Character Set (PS3.3 C.12.1.1.2): its defined terms, and text decoded in them."""

from __future__ import annotations

from functools import lru_cache

from pipeline.model import Reason, Refusal


@lru_cache(maxsize=256)
def encodings(raw: bytes | None) -> tuple[str, ...]:
    """Return Python's codecs for a raw Specific Character Set value. Raises Refusal for a term PS3.3 lacks."""
    from pydicom.charset import convert_encodings, python_encoding

    terms = [term.strip(" \0") for term in (raw or b"").decode("ascii", "replace").split("\\")]
    if any(term not in python_encoding for term in terms):
        raise Refusal(Reason.CHARSET_UNSUPPORTED, 0x00080005)
    return tuple(convert_encodings(terms))


def decode(raw: bytes, codecs: tuple[str, ...], *, person_name: bool = False) -> str:
    """Return text, replaced by U+FFFD where it does not decode; ASCII, nearly all of it, goes the short way."""
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    from pydicom.charset import decode_bytes
    from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

    return str(decode_bytes(raw, list(codecs), PN_DELIMS if person_name else TEXT_VR_DELIMS))

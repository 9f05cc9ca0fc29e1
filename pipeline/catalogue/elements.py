"""What an element path of the facts is: its tag, VR and name in PS3.6, and how its values compare. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Kind = Literal["number", "float32", "date", "age", "text", "unknown"]

# Value representations by how their values compare (PS3.5 6.2). FL has 24 bits: 0.1 is written 0.10000000149011612.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("DS", "IS", "US", "SS", "UL", "SL", "FD", "UV", "SV"), "number"),
    "FL": "float32", "DA": "date", "AS": "age", "UN": "unknown",
}  # fmt: skip
WORDS: dict[Kind, str] = {
    "number": "a number", "float32": "a number", "date": "a date", "age": "an age in years", "text": "text",
    "unknown": "a number or text",
}  # fmt: skip
_PRIVATE = re.compile(r"\(([0-9A-F]{4}),(.*),([0-9A-F]{2})\)", re.DOTALL)
# A path ends in a private element, or in what stands behind the last dot; a private creator may hold dots of its own.
_LAST = re.compile(r"(?:.*\.)?(\([0-9A-F]{4},.*,[0-9A-F]{2}\)|[^.]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Element:
    """A column of the catalogue. `tag`: (gggg,eeee), of a private element (gggg,xxee); `vr`: UN where nobody says."""

    path: str
    tag: str
    vr: str
    name: str

    @property
    def kind(self) -> Kind:
        return _KINDS.get(self.vr, "text")


@lru_cache(maxsize=8192)
def element(path: str) -> Element:
    """Return what the last element of a path is. Of `US or SS` and the like the first, which compares the same."""
    from pydicom.datadict import dictionary_description, dictionary_VR, get_private_entry, tag_for_keyword

    match = _LAST.fullmatch(path)
    last = match[1] if match else path
    private = _PRIVATE.fullmatch(last)
    if private:
        group, creator, number = private.groups()
        shown = f"({group},xx{number})"
        try:
            vr, _, name, _ = get_private_entry(int(group + "10" + number, 16), creator)
        except KeyError:
            return Element(path, shown, "UN", f"private element of {creator}" if creator else "private element")
        return Element(path, shown, vr[:2], name)
    tag = tag_for_keyword(last)
    if tag is None:
        return Element(path, f"({last[:4]},{last[4:]})" if re.fullmatch("[0-9A-F]{8}", last) else "", "UN", "")
    return Element(path, f"({tag >> 16:04X},{tag & 0xFFFF:04X})", dictionary_VR(tag)[:2], dictionary_description(tag))

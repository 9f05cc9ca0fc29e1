"""Codes to the words of the tables: anode and filter, laterality, view modifiers, yes and no. Pure.

Codes are those of pydicom's dictionaries (PS3.16). SRT and SNM3 stand for the same retired SNOMED codes (PS3.16 CID
4014, note 2) and are mapped to SCT by pydicom. What no dictionary of pydicom has is named with where it was met.
"""

from __future__ import annotations

from functools import lru_cache

from pipeline.curate.values import Cell, Malformed, present

# Defined terms of Filter Material and Anode Target Material (PS3.3 C.8.7.10, C.8.11.3) beside the elements of CID 10006
# and 10016. Other spellings of one are not terms, and are not taken for one.
MATERIALS = frozenset({
    "MOLYBDENUM", "RHODIUM", "TUNGSTEN", "SILVER", "ALUMINUM", "COPPER", "NIOBIUM", "EUROPIUM", "LEAD", "TANTALUM",
    "TIN",
})
# PS3.16 CID 10006 and 10016 in editions before SNOMED CT ("... or ... compound"): as dcm4che's XRayFilterMaterials
# (2010) lists them; C-164F9, C-167F9 and C-137F9 are met in mammography dose reports of Hologic, GE and IMS Giotto.
_OR_COMPOUND = {
    "C-150F9": "MOLYBDENUM", "C-167F9": "RHODIUM", "C-164F9": "TUNGSTEN", "C-137F9": "SILVER", "C-120F9": "ALUMINUM",
    "C-127F9": "COPPER", "C-1190E": "NIOBIUM", "C-1190F": "EUROPIUM", "C-132F9": "LEAD", "C-156F9": "TANTALUM",
}
_SRT = ("SRT", "SNM3", "99SDM")     # PS3.16 8.1: other designators of the same codes


@lru_cache(maxsize=1)
def _materials() -> dict[str, str]:
    from pydicom.sr.codedict import codes

    found: dict[str, str] = {}
    for group in (codes.cid10006, codes.cid10016):
        for name in group.dir():
            found[getattr(group, name).value] = name.upper()
    return found


@lru_cache(maxsize=4096)
def sct(value: str | None, scheme: str | None) -> str | None:
    """Return the SNOMED CT value of a code in SCT, SRT or SNM3; None for another scheme or a code pydicom has not."""
    from pydicom.sr._snomed_dict import mapping

    if scheme == "SCT":
        return value
    if scheme in _SRT and value:
        mapped = mapping["SRT"].get(value)
        return None if mapped is None else str(mapped)
    return None


def material(value: str | None, scheme: str | None) -> str | None:
    """Return the word for a coded anode or filter material, or None."""
    if scheme in _SRT and value in _OR_COMPOUND:
        return _OR_COMPOUND[value]
    code = sct(value, scheme)
    return _materials().get(code) if code else None


def materials(cell: Cell) -> str | None:
    """Return a header's materials as the table has them: each once, joined with a backslash. Raises Malformed."""
    words = [word.upper() for word in present(cell)]
    if not set(words) <= MATERIALS:
        raise Malformed
    return "\\".join(dict.fromkeys(words)) or None


@lru_cache(maxsize=1)
def _sides() -> dict[str, str]:
    from pydicom.sr.codedict import codes

    side, breast = codes.cid244, codes.SCT
    return {side.Right.value: "R", side.Left.value: "L", side.Bilateral.value: "B", breast.RightBreast.value: "R",
            breast.LeftBreast.value: "L", breast.BothBreasts.value: "B"}


def laterality(value: str | None, scheme: str | None) -> str | None:
    """Return R, L or B for a coded side or breast, or None."""
    code = sct(value, scheme)
    return _sides().get(code) if code else None


@lru_cache(maxsize=1)
def _modifiers() -> dict[str, str]:
    from pydicom.sr.codedict import codes

    return {getattr(codes.cid4015, name).value: name for name in codes.cid4015.dir()}


def modifier(value: str | None, scheme: str | None) -> str | None:
    """Return the keyword of a coded view modifier (CID 4015), or None."""
    code = sct(value, scheme)
    return _modifiers().get(code) if code else None


def modifiers(values: Cell, schemes: Cell) -> str | None:
    """Return the view modifiers of a header, sorted, joined with a backslash. Raises Malformed for one not known."""
    codes, designators = present(values), present(schemes)
    if len(codes) != len(designators):
        raise Malformed
    words = [modifier(*pair) for pair in zip(codes, designators, strict=True)]
    if None in words:
        raise Malformed
    return "\\".join(sorted({str(word) for word in words})) or None


@lru_cache(maxsize=1)
def _answers() -> dict[str, bool]:
    from pydicom.sr.codedict import codes

    return {codes.SCT.Yes.value: True, codes.SCT.No.value: False}


def answer(value: str | None, scheme: str | None) -> bool | None:
    """Return whether a code says yes or no, or None."""
    code = sct(value, scheme)
    return _answers().get(code) if code else None

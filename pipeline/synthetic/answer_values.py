"""The answer key of values that one rule must tell apart: approved terms from other text, dates of events from dates
that are nobody's, numbers in private elements from text under the same tag. For images; each object asks one thing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydicom.datadict import dictionary_VR, keyword_for_tag, private_dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pipeline.synthetic import encode, files
from pipeline.synthetic.asked import Check, Planted, word

NOBODYS = {"DA": "19000101", "DT": "99991231235959", "TM": "000000"}
_NUMBERS = frozenset({"DS", "IS", "FD", "FL", "US", "SS", "UL", "SL"})


def objects(acts: Mapping[int, tuple[str, str]], private: Mapping[tuple[int, str], frozenset[int]],
            terms: Mapping[int, str]) -> Iterator[Planted]:
    """Yield what is asked of `acts` and `private` (of answer_key.Claims), and of `terms`: tag → its approved term."""
    if dates := [tag for tag, (what, _) in sorted(acts.items()) if what in ("date", "datetime", "time")]:
        ds = _image("dates")
        for tag in dates:
            vr = dictionary_VR(tag)
            ds[tag] = DataElement(tag, vr, NOBODYS[vr])
        yield _planted("nobody's dates", ds, [_emptied(tag) for tag in dates])
    if private:
        yield _text_for_numbers(private)
    for number, (what, text) in enumerate(_told_apart(terms)):
        ds = _image("terms", number)
        for tag, said in text.items():
            ds[tag] = DataElement(tag, dictionary_VR(tag), said)
        checks = [_emptied(tag) if what else Check("text_retained", keyword_for_tag(tag), (tag,), terms[tag].encode())
                  for tag in text]
        yield _planted(f"terms: {what or 'approved'}", ds, checks)


def _told_apart(terms: Mapping[int, str]) -> Iterator[tuple[str, dict[int, str]]]:
    """Yield values by tag: spellings of the approved term (`what` is empty), and text that is none."""
    if not terms:
        return
    first, *rest = terms.values()
    others = dict(zip(terms, [*rest, first if rest else word("no term")], strict=True))
    yield "", dict(terms)
    yield "", {tag: f" {term.upper().replace(' ', '  ')} " for tag, term in terms.items()}
    yield "other text", {tag: word("term", tag) for tag in terms}
    yield "of another attribute", others
    yield "a term and more", {tag: f"{term} x" for tag, term in terms.items()}
    yield "a part of a term", {tag: term[:-1] for tag, term in terms.items()}
    yield "two values", {tag: f"{term}\\{term[:2]}" for tag, term in terms.items()}
    yield "an accent", {tag: term.replace("e", "\xe9") for tag, term in terms.items()}


def _text_for_numbers(private: Mapping[tuple[int, str], frozenset[int]]) -> Planted:
    """Text under private elements that the dictionary says are numbers."""
    ds, checks = _image("private"), []
    for (group, creator), numbers in sorted(private.items()):
        block = ds.private_block(group, creator, create=True)
        for number in sorted(numbers):
            tag = int(block.get_tag(number))
            try:
                listed = private_dictionary_VR(tag, creator)
            except KeyError:
                continue
            if listed in _NUMBERS:
                ds[tag] = DataElement(tag, "LO", word("number", tag))
                checks.append(Check("text_removed", f"({group:04X},{creator},{number:02X})", (tag,), absent=True))
    return _planted("text for private numbers", ds, checks)


def _image(*seed: object) -> Dataset:
    ds = files.mammogram_dataset(planted=False, private=False, rows=8, columns=8, seed="\x1f".join(map(str, seed)))
    ds.SpecificCharacterSet = "ISO_IR 100"
    return ds


def _emptied(tag: int) -> Check:
    return Check("text_removed", keyword_for_tag(tag), (tag,), empty=True)


def _planted(name: str, ds: Dataset, checks: list[Check]) -> Planted:
    return Planted(name, 0, encode.part10(ds), checks)

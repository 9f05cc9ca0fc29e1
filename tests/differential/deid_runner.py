"""Runs deid 0.4.13 itself with the product's recipes and values.

deid is asked at every depth. By itself it keeps all that stands inside a kept sequence (29), so that it would be no
judge of it; here each item of a sequence that it kept goes through it too, as a data set of its own. That is what the
product's recipes mean: a rule holds wherever every sequence above the element is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID_dictionary

from pipeline.deidentify.engine import Subject


@dataclass(frozen=True, slots=True)
class Recipe:
    """A recipe set as deid's own parser read it."""

    deid: Any
    rules: Mapping[int, tuple[str, str]]        # tag → action, value
    private: frozenset[tuple[int, str, int]]    # group, creator, number within the block
    filters: bool                               # it has rules for pixels, which deid's header pass leaves alone


def load(paths: Sequence[Path]) -> Recipe:
    """Return the set as deid reads it."""
    from deid.config import DeidRecipe
    from deid.logger import bot

    bot.level = -10     # it prints what it reads, values too
    recipe = DeidRecipe(deid=[str(path) for path in paths])
    rules, private = {}, set()
    for action in recipe.get_actions():
        tag = tag_for_keyword(action["field"])
        if tag is not None:
            rules[tag] = action["action"], action.get("value", "")
        elif action["field"].startswith("("):
            group, creator, number = action["field"].strip("()").split(",")
            private.add((int(group, 16), creator.strip('"'), int(number, 16)))
    return Recipe(recipe, rules, frozenset(private), bool(recipe.get_filters()))


def whole(index: int, items: int) -> bool:
    """Every item of every sequence is gone through."""
    return True


def a_few(index: int, items: int) -> bool:
    """The first two items of a sequence and the last: frames of one image are much alike."""
    return index < 2 or index == items - 1


def run_deid(dataset: FileDataset, recipe: Recipe, subject: Subject,
             chosen: Callable[[int, int], bool] = whole) -> Dataset:
    """Return what deid makes of the data set, at every depth; `dataset` itself is changed. Whatever deid raises passes.

    Of an item an element that a rule ADDs is taken out again where it did not stand: what is added stands at the top.
    """
    for _ in dataset.iterall():     # every value is decoded where its own character set is known
        pass
    return _level(dataset, recipe, values(dataset, subject), chosen, top=True)


def _level(dataset: Dataset, recipe: Recipe, given: dict[str, Any], chosen: Callable[[int, int], bool], *,
           top: bool) -> Dataset:
    from deid.dicom import fields
    from deid.dicom.parser import DicomParser

    _unwind(dataset, recipe)
    before = set(dataset.keys())
    parser = DicomParser(dataset if top else FileDataset("item", dataset), recipe=recipe.deid)
    for name, value in given.items():
        parser.define(name, value)
    try:
        parser.parse()
    finally:
        fields._get_fields_inner.cache_clear()      # it keeps every data set for ever (19)
    made = parser.dicom
    if not top:
        for tag in set(made.keys()) - before:
            assert recipe.rules[int(tag)][0] == "ADD"
            del made[tag]
    for element in made:
        if element.VR == "SQ" and element.value:
            element.value = [
                _level(item, recipe, given, chosen, top=False) if chosen(index, len(element.value)) else item
                for index, item in enumerate(element.value)]
    return made


def _unwind(dataset: Dataset, recipe: Recipe) -> None:
    """Take out elements that stand somewhere below a sequence of their own tag, inside what no rule keeps: deid raises
    on them (20), and what no rule keeps it drops whole."""
    def unwind(item: Dataset, above: frozenset[int]) -> None:
        for element in list(item):
            if element.tag in above:
                del item[element.tag]
            elif element.VR == "SQ":
                for inner in element.value:
                    unwind(inner, above | {element.tag})

    for element in dataset:
        if element.VR == "SQ" and recipe.rules.get(int(element.tag), ("",))[0] != "KEEP":
            for item in element.value:
                unwind(item, frozenset({element.tag}))


def values(dataset: Dataset, subject: Subject) -> dict[str, Any]:
    """Return the values of the recipes' variables and functions for one file, worked out from it as it came."""
    def text(value: Any) -> str:
        return "\\".join(map(str, several(value)))

    maker = text(dataset.get("Manufacturer")), text(dataset.get("ManufacturerModelName"))

    def uid(field: Any, **_: Any) -> str:
        return new_uid(field.element.value, subject)

    def device(field: Any, **_: Any) -> str:
        return subject.pseudonyms.device(*maker, text(field.element.value)) or ""

    def operator(field: Any, **_: Any) -> str:
        names = map(str, several(field.element.value))
        return "\\".join(subject.pseudonyms.operator(subject.site, name) or "" for name in names)

    return {"patient": subject.patient, "empty": "", "days": subject.days, "age_band": _age(dataset), "uid": uid,
            "device": device, "operator": operator}


def new_uid(value: Any, subject: Subject) -> str:
    """Return what stands for a UID, or several: those of PS3.6 stay, all others go."""
    return "\\".join(one if not one or one in UID_dictionary else subject.pseudonyms.uid(one)
                     for one in map(str, several(value)))


def several(value: Any) -> list[Any]:
    """Return the values of an element, however many it has."""
    return list(value) if isinstance(value, (list, MultiValue)) else [] if value is None else [value]


def _age(dataset: Dataset) -> str:
    """The five-year band, counted here by another way than the engine's."""
    def day(keyword: str) -> date | None:
        said = str(dataset.get(keyword) or "").strip(" \0")
        try:
            return date(int(said[:4]), int(said[4:6]), int(said[6:])) if len(said) == 8 and said.isdigit() else None
        except ValueError:
            return None

    born, then = day("PatientBirthDate"), day("StudyDate")
    years = -1
    if born and then:
        years = (int(f"{then:%Y%m%d}") - int(f"{born:%Y%m%d}")) // 10_000
    said = str(dataset.get("PatientAge") or "")
    if not 0 <= years <= 120 and len(said) == 4 and said[:3].isdigit() and said[3] == "Y":
        years = int(said[:3])
    return f"{min(90, years - years % 5):03d}Y" if 0 <= years <= 120 else ""

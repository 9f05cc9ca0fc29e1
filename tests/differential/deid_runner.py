"""Runs deid 0.4.13 itself with the product's recipes and values, and compares datasets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset

from pipeline.deidentify import dates
from pipeline.deidentify.engine import Subject
from pipeline.deidentify.plan import Plan

# findings: what deid 0.4.13 does otherwise, by the number under which it was measured
SHIELDS = "29: deid keeps everything inside a kept sequence, original UIDs too"
NO_CREATOR = "31: deid keeps a private element and drops its creator"
NO_CHARSET = "10: under REMOVE ALL deid drops Specific Character Set, and text no longer decodes"
NOT_STATED = "10: what was done is stated by the engine from what it did, not by the recipe"
BLANKED = "design: comments inside JPEG and JPEG 2000 frames are blanked where they stand; deid leaves them"
STATED = {0x00120062, 0x00120063, 0x00120064, 0x00280303}


def run_deid(source: Path, recipes: list[Path], subject: Subject, out: Path) -> Dataset:
    """Return what deid makes of the file with the same recipes and the same values."""
    from deid.config import DeidRecipe
    from deid.dicom import get_identifiers, replace_identifiers
    from deid.logger import bot

    bot.level = -10
    dataset = pydicom.dcmread(source, stop_before_pixels=True)
    values: dict[str, Any] = {
        "patient": subject.patient, "empty": "", "days": subject.days,
        "age_band": _age(dataset), "uid": _uid(subject), "device": _device(subject), "operator": _operator(subject),
    }
    # `func:time` stands in no recipe while times are removed
    ids = get_identifiers([str(source)])
    ids[str(source)].update(values)
    written = replace_identifiers(dicom_files=[str(source)], deid=DeidRecipe(deid=[str(r) for r in recipes]), ids=ids,
                                  save=True, output_folder=str(out), overwrite=True)
    return pydicom.dcmread(written[0])


def _age(dataset: Dataset) -> str:
    def raw(keyword: str) -> bytes:
        return str(dataset.get(keyword) or "").encode()
    band = dates.age_band(raw("PatientBirthDate"), raw("StudyDate")).decode()
    stated = str(dataset.get("PatientAge") or "")
    if not band and stated[:3].isdigit() and stated[3:] == "Y":
        band = f"{min(90, int(stated[:3]) // 5 * 5):03d}Y"
    return band


def _uid(subject: Subject) -> Any:
    def uid(item: Any, value: Any, field: Any, dicom: Any) -> str:
        return subject.pseudonyms.uid(str(field.element.value))
    return uid


def _device(subject: Subject) -> Any:
    def device(item: Any, value: Any, field: Any, dicom: Any) -> str:
        maker = (str(dicom.get("Manufacturer") or ""), str(dicom.get("ManufacturerModelName") or ""))
        return subject.pseudonyms.device(*maker, str(field.element.value or "")) or ""
    return device


def _operator(subject: Subject) -> Any:
    def operator(item: Any, value: Any, field: Any, dicom: Any) -> str:
        return subject.pseudonyms.operator(subject.site, str(field.element.value or "")) or ""
    return operator


def differences(ours: Dataset, deids: Dataset, plan: Plan) -> Iterator[tuple[int, str]]:
    """Yield (tag, why) for each difference that is not one of the deliberate ones above."""
    for tag in sorted({*ours.keys(), *deids.keys()}):
        number = int(tag)
        left, right = ours.get(tag), deids.get(tag)
        if number in STATED or number == 0x00080005:        # NOT_STATED, NO_CHARSET
            continue
        if tag.is_private:
            if left is None and right is not None:
                yield number, "deid keeps a private element that the engine drops"
            elif right is None and not tag.is_private_creator:      # NO_CREATOR
                yield number, "the engine keeps a private element that deid drops"
            continue
        if left is None or right is None:
            yield number, "only in one"
        elif left.VR == "SQ":
            yield from _nested(left.value, right.value, plan)
        elif number == 0x7FE00010 and left.value != right.value:        # BLANKED
            if len(left.value) != len(right.value) or not ours.file_meta.TransferSyntaxUID.is_encapsulated:
                yield number, "other pixels"
        elif left.VR == "UI" and number not in (0x00080016,):
            if str(left.value) != str(right.value):
                yield number, "another UID"
        elif left.value != right.value and not (left.is_empty and right.is_empty):
            yield number, "another value"


def _nested(ours: Any, deids: Any, plan: Plan) -> Iterator[tuple[int, str]]:
    """SHIELDS: ours is a subset of deid's; what stands in both is equal, but for what the engine replaces."""
    if len(ours) != len(deids):
        yield 0, "another number of items"
        return
    for left, right in zip(ours, deids, strict=True):
        for element in left:
            other = right.get(element.tag)
            if other is None:
                yield int(element.tag), "not in deid's item"
            elif element.VR == "SQ":
                yield from _nested(element.value, other.value, plan)
            elif element.VR == "UI":
                if str(element.value) == str(other.value) and str(element.value).startswith("1.2.8") is False:
                    yield int(element.tag), "an original UID stays in a sequence"
            elif element.value != other.value and plan.acts[int(element.tag)].op == 0:
                yield int(element.tag), "another value in a sequence"

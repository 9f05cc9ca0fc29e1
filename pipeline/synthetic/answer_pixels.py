"""The answer key of rules for pixels: for each rule images that it is for, every sample of one the same: unsigned and
signed words, bytes, colours by pixel and by plane, in one frame and in two; where the rule's conditions allow them.

What a rule covers must hold that sample no longer, what it leaves must. Of a region that ends at a sample (PS3.3
C.8.5.5.1.5) that sample itself may go either way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from pipeline.synthetic import encode, files
from pipeline.synthetic.asked import Check, Planted


@dataclass(frozen=True)
class _Kind:
    """How samples are written (PS3.3 C.7.6.3.1)."""

    name: str
    sample: bytes
    signed: int = 0
    samples: int = 1
    planar: int = 0
    frames: int = 1
    photometric: str = ""       # the mammogram's own


SAMPLE = struct.pack("<H", 1234)
KINDS = (_Kind("", SAMPLE), _Kind("signed", struct.pack("<h", -1234), signed=1, frames=2), _Kind("bytes", b"\x5a"),
         _Kind("colours", b"\x5a", samples=3, frames=2, photometric="RGB"),
         _Kind("planes", b"\x5a", samples=3, planar=1, frames=2, photometric="RGB"))
MARGIN = 9
PIXEL_DATA, REGIONS, ROWS, COLUMNS = 0x7FE00010, 0x00186011, 0x00280010, 0x00280011
REGION = (4, 4, 11, 11)
Box = tuple[int, int, int, int]         # x0, y0, x1, y1; the last two lie outside


@dataclass(frozen=True)
class PixelClaim:
    """What one rule claims. `conditions`: (test, tag, value in small letters); `areas`: (left as it is, box or None for
    all of the image, the header's regions)."""

    name: str
    conditions: tuple[tuple[str, int, str], ...]
    areas: tuple[tuple[bool, Box | None, bool], ...]


def objects(claims: Sequence[PixelClaim]) -> Iterator[Planted]:
    """Yield images for each rule: of every kind that it is still for."""
    for claim, kind in product(claims, KINDS):
        ds = _image(claim, claims)
        if kind.name and not _written(ds, kind, claim):
            continue
        held = [other for other in claims if all(_holds(ds, *condition) for condition in other.conditions)]
        width, height = int(ds.Columns), int(ds.Rows)
        hide, stay = bytearray(width * height), bytearray(b"\1" * (width * height))
        for other in held:
            covered, left = _covered(other, width, height, 1), _covered(other, width, height, 0)
            hide = bytearray(a | b for a, b in zip(hide, covered, strict=True))
            stay = bytearray(a & (1 - b) for a, b in zip(stay, left, strict=True))
        masks = [_in_order(mask, kind) for mask in (hide, stay)]
        name = f"{claim.name} {kind.name}".strip()
        planted = Planted(f"pixel rule {name}", 0, encode.part10(ds))
        planted.checks = [Check(action, name, (PIXEL_DATA,), kind.sample, mask=mask)
                          for action, mask in zip(("pixels_hidden", "pixels_retained"), masks, strict=True)]
        yield planted


def _written(ds: Dataset, kind: _Kind, claim: PixelClaim) -> bool:
    """Write the image as one of this kind; return whether the rule is still for it."""
    bits = 8 * len(kind.sample)
    ds.PixelRepresentation, ds.SamplesPerPixel, ds.NumberOfFrames = kind.signed, kind.samples, kind.frames
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    if kind.samples > 1:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = kind.photometric, kind.planar
    for keyword in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        if keyword in ds:
            del ds[keyword]
    ds.PixelData = kind.sample * (int(ds.Rows) * int(ds.Columns) * kind.samples * kind.frames)
    ds["PixelData"].VR = "OW"
    return all(_holds(ds, *condition) for condition in claim.conditions)


def _in_order(mask: bytearray, kind: _Kind) -> bytes:
    """Return the mask of one frame's pixels as that of all samples, in the order that they are written in."""
    if kind.samples > 1:
        mask = mask * kind.samples if kind.planar else bytearray(one for one in mask for _ in range(kind.samples))
    return bytes(mask) * kind.frames


def _image(claim: PixelClaim, claims: Sequence[PixelClaim]) -> Dataset:
    """An image of which the rule's conditions hold, larger than every box."""
    boxes = [box for other in claims for _, box, _ in other.areas if box]
    size = {ROWS: max([REGION[3], *(box[3] for box in boxes)]) + MARGIN,
            COLUMNS: max([REGION[2], *(box[2] for box in boxes)]) + MARGIN}
    for test, tag, value in claim.conditions:
        if tag in size and test in ("equals", "contains") and value.isdigit():
            size[tag] = int(value)
    ds = files.mammogram_dataset(planted=False, private=False, pixels=False, rows=size[ROWS], columns=size[COLUMNS],
                                 seed=claim.name)
    if any(regions for other in claims for *_, regions in other.areas):
        item = Dataset()
        (item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1,
         item.RegionLocationMaxY1) = REGION
        ds.SequenceOfUltrasoundRegions = [item]
    for test, tag, value in claim.conditions:
        _meet(ds, test, tag, value)
    ds.PixelData = SAMPLE * (int(ds.Rows) * int(ds.Columns))
    ds["PixelData"].VR = "OW"
    return ds


def _meet(ds: Dataset, test: str, tag: int, value: str) -> None:
    """Make a condition hold, if it does not yet."""
    if _holds(ds, test, tag, value) or tag in (ROWS, COLUMNS):
        return
    vr = dictionary_VR(tag)[:2]
    if test in ("contains", "equals"):
        held = _text(ds, tag)
        text = f"{held}\\{value.upper()}" if test == "contains" and held and vr == "CS" else value.upper()
        ds[tag] = DataElement(tag, vr, int(value) if vr == "US" else text)
    elif test == "present":
        ds[tag] = DataElement(tag, vr, [Dataset()] if vr == "SQ" else None)
    elif tag in ds:
        del ds[tag]


def _text(ds: Dataset, tag: int) -> str:
    value = ds[tag].value if tag in ds else None
    if value is None:
        return ""
    return "\\".join(map(str, value)) if hasattr(value, "append") else str(value)


def _holds(ds: Dataset, test: str, tag: int, value: str) -> bool:
    text = _text(ds, tag).lower()
    if test in ("present", "missing"):
        return (tag in ds) == (test == "present")
    hit = tag in ds and (value in text if "contains" in test else value == text)
    return hit != test.startswith("not")


def _covered(claim: PixelClaim, width: int, height: int, inclusive: int) -> bytes:
    """Return a byte a sample: 1 where the rule paints. `inclusive`: a region's last sample counts to it."""
    mask = bytearray(width * height)
    for keep, box, regions in claim.areas:
        x0, y0, x1, y1 = box or (0, 0, width, height)
        if regions:
            x0, y0, x1, y1 = REGION[0], REGION[1], REGION[2] + inclusive, REGION[3] + inclusive
        for y in range(min(y0, height), min(y1, height)):
            a, b = y * width + min(x0, width), y * width + min(x1, width)
            mask[a:b] = (b"\0" if keep else b"\1") * (b - a)
    return bytes(mask)

"""Pixels painted over: black inside the boxes, and outside them every bit as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels_kit import CAPTURE, READS, dataset, decoded, native, plan, run
from pydicom.dataset import Dataset

from pipeline.deidentify.pixel_policy import Policy
from pipeline.model import Reason, Refusal

US = "contains Modality US"


def black(ds: Dataset) -> list[int]:
    """What is black as displayed, worked out apart from the code."""
    stored, signed = ds.BitsStored, ds.PixelRepresentation == 1
    return {
        "MONOCHROME1": [2 ** (stored - signed) - 1], "MONOCHROME2": [-(2 ** (stored - 1)) if signed else 0],
        "RGB": [0, 0, 0], "YBR_FULL": [0, 2 ** (stored - 1), 2 ** (stored - 1)],
        "YBR_FULL_422": [0, 128, 128], "PALETTE COLOR": [5],
    }[ds.PhotometricInterpretation]


def palette(ds: Dataset, stored: int) -> None:
    """A palette whose darkest entry is number 5, or the last one."""
    entries = 1 << stored
    table = np.full(entries, 200, np.uint16)
    table[min(5, entries - 1)] = 3
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [entries % 65536, 0, 16])
        setattr(ds, f"{colour}PaletteColorLookupTableData", table.tobytes())


@st.composite
def images(draw: Any) -> tuple[Dataset, bytes, str]:
    photometric = draw(st.sampled_from(
        ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "YBR_FULL", "YBR_FULL_422"]))
    colour = photometric in ("RGB", "YBR_FULL", "YBR_FULL_422")
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    frames = draw(st.integers(1, 11))
    bits = 8 if photometric == "YBR_FULL_422" else draw(st.sampled_from([8, 16] if colour else [1, 8, 16, 32]))
    if photometric == "PALETTE COLOR":
        bits = draw(st.sampled_from([8, 16]))
    if photometric == "YBR_FULL_422":
        columns *= 2
    stored = bits if colour or bits == 1 else draw(st.integers(3 if photometric == "PALETTE COLOR" else 2, bits))
    signed = photometric.startswith("MONO") and bits > 1 and draw(st.booleans())
    planar = draw(st.integers(0, 1)) if colour and photometric != "YBR_FULL_422" else 0
    ds = dataset(rows, columns, samples=3 if colour else 1, bits=bits, stored=stored, signed=signed, planar=planar,
                 photometric=photometric, frames=frames)
    if photometric == "PALETTE COLOR":
        palette(ds, stored)
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    count = rows * columns * frames * (2 if photometric == "YBR_FULL_422" else 3 if colour else 1)
    if bits == 1:
        return ds, np.packbits(random.integers(0, 2, count, np.uint8), bitorder="little").tobytes(), "explicit"
    low, high = (-(1 << stored - 1), 1 << stored - 1) if signed else (0, 1 << stored)
    pixels = random.integers(low, high, count, np.int64).astype(f"<{'i' if signed else 'u'}{bits // 8}").tobytes()
    return ds, pixels, draw(st.sampled_from(["explicit", "implicit", *(["big"] if bits > 8 else [])]))


@given(images(), st.lists(st.tuples(*[st.integers(0, 20)] * 4), min_size=1, max_size=3), st.booleans())
@settings(max_examples=250, deadline=None)
def test_outside_the_boxes_every_bit_is_as_it_was(image: tuple[Dataset, bytes, str],
                                                 corners: list[tuple[int, ...]], inverse: bool) -> None:
    ds, pixels, syntax = image
    boxes = [(min(x0, x1), min(y0, y1), max(x0, x1) + 1, max(y0, y1) + 1) for x0, y0, x1, y1 in corners]
    mask = np.full((ds.Rows, ds.Columns), inverse)
    for x0, y0, x1, y1 in boxes:
        mask[y0:y1, x0:x1] = not inverse
    lines = ["coordinates all"] * inverse
    lines += [f"{'keep' * inverse}coordinates {','.join(map(str, box))}" for box in boxes]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, _ = run(native(ds, pixels, syntax), folder, plan(folder, "LABEL any", US, *lines))
        before, after = decoded(folder / "in.dcm")[0], decoded(folder / "out.dcm")[0]
        assert ours.PhotometricInterpretation == ds.PhotometricInterpretation
    assert len(ours.PixelData) == len(pixels) + len(pixels) % 2
    if ds.PhotometricInterpretation == "YBR_FULL_422":      # two pixels share a colour
        mask = np.repeat(mask.reshape(ds.Rows, -1, 2).any(axis=2), 2, axis=1)
    before, after = (a.reshape(-1, ds.Rows, ds.Columns, ds.SamplesPerPixel) for a in (before, after))
    assert np.array_equal(before[:, ~mask], after[:, ~mask])
    assert (after[:, mask] == np.array(black(ds), np.int64).astype(after.dtype)).all()


def test_frames_larger_than_what_is_read_at_a_time(tmp_path: Path) -> None:
    ds = dataset(700, 900, bits=16, stored=12, frames=3)
    pixels = np.random.default_rng(1).integers(0, 4096, 3 * 700 * 900).astype("<u2")
    run(native(ds, pixels.tobytes()), tmp_path, plan(tmp_path, "LABEL top", US, "coordinates 0,0,900,40"))
    after, _ = decoded(tmp_path / "out.dcm")
    assert not after[:, :40].any()
    assert np.array_equal(after[:, 40:], pixels.reshape(3, 700, 900)[:, 40:])


def region(*corners: int) -> Dataset:
    item = Dataset()
    (item.RegionLocationMinX0, item.RegionLocationMinY0, item.RegionLocationMaxX1,
     item.RegionLocationMaxY1) = corners
    return item


REGIONS = ("LABEL regions", US, "coordinates all", "keepcoordinates from:SequenceOfUltrasoundRegions")


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
def test_only_the_ultrasound_regions_stay(syntax: str, tmp_path: Path) -> None:
    """Each file's own, also after another's: deid takes the first file's for all that follow (24)."""
    with_plan = plan(tmp_path, *REGIONS)
    for box in ((2, 3, 8, 9), (0, 0, 4, 4)):
        ds = dataset(10, 12, bits=16, SequenceOfUltrasoundRegions=[region(*box), region(9, 9, 40, 40)])
        run(native(ds, bytes(range(1, 241)), syntax), tmp_path, with_plan)
        before, after = decoded(tmp_path / "in.dcm")[0], decoded(tmp_path / "out.dcm")[0]
        kept = np.zeros((1, 10, 12), bool)
        kept[:, box[1]:box[3], box[0]:box[2]] = kept[:, 9:, 9:] = True
        assert np.array_equal(after, np.where(kept, before, 0))


def test_a_rule_for_regions_and_an_object_without_them(tmp_path: Path) -> None:
    for more in ({}, {"SequenceOfUltrasoundRegions": []}, {"SequenceOfUltrasoundRegions": [Dataset()]}):
        with pytest.raises(Refusal) as caught:
            run(native(dataset(4, 4, **more), bytes(16)), tmp_path, plan(tmp_path, *REGIONS))
        assert caught.value.tag == 0x00186011
        assert not (tmp_path / "out.dcm").exists()


def test_no_rule_uncovers_what_another_covers(tmp_path: Path) -> None:
    with_plan = plan(tmp_path, "LABEL top", US, "coordinates 0,0,4,2", *REGIONS)
    ds = dataset(4, 4, SequenceOfUltrasoundRegions=[region(0, 0, 4, 4)])
    ours, _ = run(native(ds, b"\7" * 16), tmp_path, with_plan)
    assert ours.PixelData == bytes(8) + b"\7" * 8


def test_what_is_said_of_the_image_stays_true(tmp_path: Path) -> None:
    ds = dataset(4, 4, BurnedInAnnotation="YES", SmallestImagePixelValue=7)
    ours, result = run(native(ds, b"\7" * 16), tmp_path, plan(tmp_path, "LABEL top", US, "coordinates 0,0,4,2"))
    assert ours.BurnedInAnnotation == "NO"
    assert "SmallestImagePixelValue" not in ours
    assert result.to_read
    listed = Policy(devices=())
    with pytest.raises(Refusal) as caught:
        run(native(ds, b"\7" * 16), tmp_path, plan(tmp_path, "LABEL a", US, "coordinates 0,0,4,2", policy=listed))
    assert caught.value.reason is Reason.PIXELS_NOT_READ


def test_a_rule_that_does_not_apply_paints_nothing(tmp_path: Path) -> None:
    ds = dataset(4, 4, SOPClassUID=CAPTURE)
    ours, result = run(native(ds, b"\7" * 16), tmp_path, plan(tmp_path, "LABEL no", "contains Modality MG",
                                                            "coordinates all", policy=READS))
    assert ours.PixelData == b"\7" * 16
    assert result.to_read       # and so it passes only if nothing is read in it


def test_samples_that_nobody_can_paint(tmp_path: Path) -> None:
    rule = ("LABEL top", US, "coordinates 0,0,4,2")
    segmented = dataset(4, 4, photometric="PALETTE COLOR")
    for ds, pixels in (
        (dataset(4, 4, photometric="YBR_PARTIAL_422", samples=3), bytes(48)), (segmented, bytes(16)),
        (dataset(4, 4, photometric="RGB"), bytes(16)),
        (dataset(4, 3, photometric="YBR_FULL_422", samples=3), bytes(24)),
        (dataset(4, 5), bytes(16)), (dataset(4, 4, NumberOfFrames=0), b""),
        (dataset(4, 4, photometric="MONOCHROME2", samples=3), bytes(48)),
    ):
        with pytest.raises(Refusal):
            run(native(ds, pixels), tmp_path, plan(tmp_path, *rule))


def test_bits_above_the_stored_ones_are_refused_here_too(tmp_path: Path) -> None:
    pixels = np.full(16, 0x1001, "<u2")
    with pytest.raises(Refusal) as caught:
        run(native(dataset(4, 4, bits=16, stored=12), pixels.tobytes()), tmp_path,
            plan(tmp_path, "LABEL top", US, "coordinates 0,0,4,4"))
    assert caught.value.reason is Reason.OVERLAY_IN_PIXELS

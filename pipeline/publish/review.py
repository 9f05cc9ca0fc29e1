"""The page on which people look for what machines missed: every element of an instance as text, and its picture.

The page is of released data and stays in the TRE. It is self-contained: nothing is loaded, there is no script.
"""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.dicom.codecs import options
from pipeline.publish.pages import render

FRAMES = 4              # shown of one instance, evenly from the first to the last
SIDE = 1000             # pixels of the longer side of a picture
LONGEST = 4000          # characters of one value
MOST_NUMBERS = 24       # different values of a number that repeats in functional groups
LARGEST = 1 << 31       # bytes of the pixels of one instance that are decoded


@dataclass(frozen=True, slots=True)
class Line:
    """One element, or its like in every item of a sequence: where it stands, and all different values."""

    tag: str
    path: str
    vr: str
    text: str


@dataclass(slots=True)
class Shown:
    """One instance. `pictures`: PNG as data URLs; `note`: what of the pixels is not shown, and why."""

    number: int
    uid: str
    lines: list[Line] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    note: str = ""


def show(number: int, uid: str, data: bytes) -> Shown:
    """Read one instance, pictures and all."""
    from pydicom import dcmread

    shown = Shown(number, uid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = dcmread(io.BytesIO(data), force=True)
        found: dict[tuple[str, str, str], dict[str, None]] = {}
        if (preamble := data[:128].strip(b"\0")) and data[128:132] == b"DICM":
            found["", "preamble", ""] = {_opaque(preamble): None}
        for tag, path, vr, text in [*_elements(data_set.file_meta, ""), *_elements(data_set, "")]:
            found.setdefault((tag, path, vr), {})[text] = None
        shown.lines = [Line(*where, _joined(list(texts), where[2])) for where, texts in found.items()]
        if "PixelData" in data_set:
            shown.pictures, shown.note = _pictures(data_set, data)
        else:
            shown.note = "No pixel data."
    return shown


def page(said: Mapping[str, Any], shown: Sequence[Shown], number: int, pages: int) -> bytes:
    """Return one page of a review, as HTML."""
    return render("review.html.j2", said=said, shown=shown, number=number, pages=pages)


def _elements(data_set: Any, above: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield tag, path, VR and text of every element at every depth."""
    for element in data_set:
        tag = f"({element.tag.group:04X},{element.tag.element:04X})"
        path = above + (element.keyword or (element.name if element.tag.is_private else tag))
        if element.VR == "SQ":
            if not element.value:
                yield tag, path, "SQ", "no item"
            for item in element.value:
                yield from _elements(item, f"{path} \u203a ")
        elif element.tag == 0x7FE00010:
            yield tag, path, element.VR, f"{len(element.value or b''):,} bytes, shown as pictures"
        else:
            value = element.value
            many = "\\".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else None
            text = _opaque(value) if isinstance(value, bytes) else "" if value is None else many or str(value)
            yield tag, path, element.VR, text


def _opaque(value: bytes) -> str:
    """Bytes that are no text, with what in them reads as text."""
    shown = "".join(chr(byte) if 32 <= byte < 127 else "\u00b7" for byte in value[:LONGEST])
    return f"{len(value):,} bytes: {shown}"


def _joined(texts: list[str], vr: str) -> str:
    """All different values; of numbers that differ from frame to frame the first."""
    most = MOST_NUMBERS if vr in ("DS", "IS", "FD", "FL", "US", "SS", "UL", "SL") else len(texts)
    more = f" \u2026 and {len(texts) - most} more numbers" if len(texts) > most else ""
    text = " | ".join(text if len(text) <= LONGEST else f"{text[:LONGEST]} \u2026" for text in texts[:most])
    return text + more


def _pictures(data_set: Any, data: bytes) -> tuple[list[str], str]:
    """Return frames as PNG, and what is not shown."""
    from pydicom.pixels import pixel_array

    try:
        frames = int(data_set.get("NumberOfFrames") or 1)
        some = sorted({round(n * (frames - 1) / (FRAMES - 1)) for n in range(FRAMES)})
        if data_set.Rows * data_set.Columns * data_set.get("SamplesPerPixel", 1) * 4 > LARGEST:
            raise ValueError
        how = options(data_set.file_meta.TransferSyntaxUID)
        pictures = [_png(pixel_array(io.BytesIO(data), index=n, **how),
                         str(data_set.get("PhotometricInterpretation", ""))) for n in some]
    except Exception as error:  # noqa: BLE001 - whatever a codec stumbles over: the reviewer is told
        return [], f"The pixels cannot be decoded here ({type(error).__name__}). Look at them with another viewer."
    left = "" if len(pictures) == frames else f"{len(pictures)} of {frames:,} frames: " + ", ".join(
        str(n + 1) for n in some) + "."
    return pictures, left


def _png(pixels: Any, photometric: str) -> str:
    """Return one frame as a data URL: its whole range in 256 greys, the mean of each block where it is made smaller."""
    import numpy as np
    from PIL import Image

    frame: Any = np.asarray(pixels, dtype=np.float32)
    factor = -(-max(frame.shape[:2]) // SIDE)
    if factor > 1:
        rows, columns = (-(-side // factor) * factor for side in frame.shape[:2])
        margins = [(0, rows - frame.shape[0]), (0, columns - frame.shape[1])] + [(0, 0)] * (frame.ndim - 2)
        frame = np.pad(frame, margins, mode="edge")
        blocks = frame.reshape(rows // factor, factor, columns // factor, factor, *frame.shape[2:])
        frame = blocks.mean(axis=(1, 3))
    if frame.ndim == 2:
        low, high = float(frame.min()), float(frame.max())
        frame = (frame - low) * (255 / (high - low)) if high > low else frame * 0
        frame = 255 - frame if photometric == "MONOCHROME1" else frame
    elif frame.max() > 255:
        frame = frame * (255 / frame.max())
    buffer = io.BytesIO()
    Image.fromarray(frame.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()

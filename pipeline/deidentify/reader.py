"""Text in pixels, looked for with rapidocr-onnxruntime (extra `ocr`): a second look, not a proof.

A frame is looked at whole, made smaller where it is large, and piece by piece: twice as large where the frame is no
larger than a screen. Greys are stretched, each piece by itself, so that faint text stands out. What is read is not
kept: of each text only where it stands. The reader is loaded once in a worker, when the first image needs it, and runs
in one thread.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.deidentify.pixel_rules import Box
from pipeline.dicom.codecs import options

TILE, OVERLAP = 736, 96         # pixels; the detector's own size, and more than a line of most text is high
WHOLE = 1024                    # a frame is looked at whole at this size
SCREEN = 1536                   # a frame of that size or less may hold a screen's small letters: read twice as large
FRAMES = 8                      # of a stack, beside its brightest and its darkest values
SCORE = 0.6                     # below it is no text
LEAST = 2                       # letters and digits
SMALLEST = 10                   # pixels: letters are at least that high to be read
MARGIN = 3                      # pixels that a proposed box is wider on each side
FLAT = 1 / 64                   # of the frame's range of greys: a piece with less shows nothing
Tick = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at: frames (pictures, with those made of a stack), and where text stands, over all of them."""

    frames: int
    boxes: tuple[Box, ...]


def look(path: Path, words: tuple[str, ...] = (), tick: Tick = lambda: None) -> Seen:
    """Look for text in a DICOM file's pixels. `words` are approved and not counted; `tick` is called before each
    picture: time is limited by picture. Raises what pydicom's decoder raises."""
    boxes: set[Box] = set()
    count = 0
    for picture in _pictures(path, tick):
        tick()
        count += 1
        boxes |= set(read(picture, words))
    return Seen(count, tuple(_merged(boxes)))


def read(picture: Any, words: tuple[str, ...] = ()) -> Iterator[Box]:
    """Yield where text stands in a picture: greys of any kind, shape (rows, columns), or RGB (rows, columns, 3). An
    approved word, and letters of it that the edge of a piece cut off, are no finding."""
    rows, columns = picture.shape[:2]
    low, high = int(picture.min()), int(picture.max())
    if low == high or min(rows, columns) < SMALLEST:
        return
    found: set[tuple[str, Box]] = set()
    for x, y, side, step, times in _pieces(rows, columns):
        piece = picture[y:y + side, x:x + side]
        if int(piece.max()) - int(piece.min()) >= (high - low) * FLAT:
            for text, (x0, y0, x1, y1) in _read(_reduced(piece, step), times):
                found.add((text, (x + x0 * step, y + y0 * step, x + x1 * step, y + y1 * step)))
    approved = {_plain(word) for word in words}
    passed = [(text, box) for text, box in found if text in approved]
    for text, box in found:
        if not any(text in word and _inside(box, place) for word, place in passed):
            yield box


def _pieces(rows: int, columns: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield x, y and side of each piece to read, how many times smaller and how many times larger to read it."""
    yield 0, 0, max(rows, columns), max(1, -(-max(rows, columns) // WHOLE)), 1
    times = 2 if max(rows, columns) <= SCREEN else 1
    side = TILE // times
    for y in _starts(rows, side):
        for x in _starts(columns, side):
            yield x, y, side, 1, times


def _inside(box: Box, place: Box) -> bool:
    return (place[0] - MARGIN <= box[0] and place[1] - MARGIN <= box[1]
            and box[2] <= place[2] + MARGIN and box[3] <= place[3] + MARGIN)


def _starts(size: int, side: int) -> list[int]:
    """Return where pieces of `side` pixels start that overlap and end with the frame."""
    if size <= side:
        return [0]
    count = -(-(size - OVERLAP) // (side - OVERLAP))
    return [round(n * (size - side) / (count - 1)) for n in range(count)]


def _reduced(picture: Any, step: int) -> Any:
    """Return the picture `step` times smaller each way; bright and dark lines of one pixel do not vanish."""
    rows, columns = (n // step * step for n in picture.shape[:2])
    blocks = picture[:rows, :columns].reshape(rows // step, step, columns // step, step, *picture.shape[2:])
    return blocks.mean(axis=(1, 3))


def _read(piece: Any, times: int) -> Iterator[tuple[str, Box]]:
    """Yield letters and digits of each text of one piece, read `times` as large, and its box with the margin."""
    rows, columns = piece.shape[:2]
    shown = (_enlarged(one, times) for one in _stretched(piece))
    for corners, text, score in (one for each in shown for one in _reader()(each)[0] or ()):
        plain = _plain(text)
        if score >= SCORE and len(plain) >= LEAST:
            xs, ys = [int(x) // times for x, _ in corners], [int(y) // times for _, y in corners]
            yield plain, (max(0, min(xs) - MARGIN), max(0, min(ys) - MARGIN), min(columns, max(xs) + 1 + MARGIN),
                          min(rows, max(ys) + 1 + MARGIN))


def _enlarged(shown: Any, times: int) -> Any:
    """Return 8-bit colours `times` as large; the detector was taught letters of twelve pixels and up."""
    import cv2

    return shown if times == 1 else cv2.resize(shown, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)


def _stretched(piece: Any) -> Iterator[Any]:
    """Yield a piece as 8-bit colours: all of its greys, and, where a few outliers take up most of the range, the greys
    between them, in which fainter text stands out."""
    values = piece.astype(np.float32)
    least, most = float(values.min()), float(values.max())
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    ranges = [(least, most)]
    if 0 < high - low < (most - least) / 3:
        ranges.append((low - (high - low) / 2, high + (high - low) / 2))     # wider: grain stays grey
    for a, b in ranges:
        eight = np.clip((values - a) * (255.0 / (b - a)), 0, 255).astype(np.uint8)
        yield np.ascontiguousarray(eight if eight.ndim == 3 else np.repeat(eight[:, :, None], 3, axis=2))


def _plain(text: str) -> str:
    """Return letters and digits; the reader takes O and 0, and I, L and 1, for one another."""
    return "".join(letter for letter in text.upper() if letter.isalnum()).translate(str.maketrans("OIL", "011"))


def _pictures(path: Path, tick: Tick) -> Iterator[Any]:
    """Yield what is looked at: every frame of a few; of many, frames spread over all and the brightest and darkest
    values that any frame has at a place."""
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True)
    count = int(header.get("NumberOfFrames") or 1)
    if count <= FRAMES:
        for n in range(count):
            yield _frame(path, header, n)
        return
    chosen = {round(n * (count - 1) / (FRAMES - 1)) for n in range(FRAMES)}
    bright = dark = None
    for n in range(count):
        tick()
        picture = _frame(path, header, n)
        bright = picture if bright is None else np.maximum(bright, picture)
        dark = picture if dark is None else np.minimum(dark, picture)
        if n in chosen:
            yield picture
    yield bright
    yield dark


def _frame(path: Path, header: Any, n: int) -> Any:
    """Return one frame as greys or RGB."""
    from pydicom.pixels import apply_color_lut, pixel_array

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # pydicom's warnings quote values
        frame = pixel_array(path, index=n, **options(header.file_meta.TransferSyntaxUID))
        return apply_color_lut(frame, header) if header.PhotometricInterpretation == "PALETTE COLOR" else frame


def _merged(boxes: set[Box]) -> list[Box]:
    """Return boxes with those that touch made one: one text is found in several pieces and frames."""
    out: list[Box] = []
    for box in sorted(boxes):
        x0, y0, x1, y1 = box
        while touching := [b for b in out if b[0] <= x1 and x0 <= b[2] and b[1] <= y1 and y0 <= b[3]]:
            for other in touching:
                out.remove(other)
                x0, y0, x1, y1 = min(x0, other[0]), min(y0, other[1]), max(x1, other[2]), max(y1, other[3])
        out.append((x0, y0, x1, y1))
    return sorted(out)


@cache
def _reader() -> Any:
    """Return the reader of this process. Raises ImportError where the extra is not installed."""
    import logging

    import cv2
    from rapidocr_onnxruntime import RapidOCR

    cv2.setNumThreads(1)
    reader = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, max_side_len=4096)
    logging.getLogger("RapidOCR").disabled = True
    return reader

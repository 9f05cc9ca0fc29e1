"""A JPEG encoder for lossless frames (ITU-T T.81 H, process 14), so that what must come out of a decoder is known."""

from __future__ import annotations

import os
import signal
from struct import pack
from typing import Any

import numpy as np
import pytest

from pipeline.dicom import gdcm_frames


def encode(pixels: Any, precision: int, *, predictor: int = 1, restart: int = 0, interleaved: bool = True,
           transform: int = 0, shape: tuple[int, int] | None = None) -> bytes:
    """Return the stream of unsigned samples of shape (rows, columns) or (rows, columns, components).

    `restart`: rows between two restart markers; `transform`: bits that are not coded; `shape`: the (rows, columns) that
    the header says instead.
    """
    planes = (pixels if pixels.ndim == 3 else pixels[:, :, None]).astype(np.int64) >> transform
    rows, columns, count = planes.shape
    said = shape or (rows, columns)
    components = b"".join(bytes((n + 1, 0x11, 0)) for n in range(count))
    stream = b"\xff\xd8" + _segment(0xC3, pack(">BHHB", precision, *said, count) + components)
    # categories 0 to 16 (H.1.2.2), each a code of five bits
    stream += _segment(0xC4, bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)]))
    if restart:
        stream += _segment(0xDD, pack(">H", restart * columns))
    differences = _differences(planes, precision - transform, predictor, restart or rows)
    for scan in [list(range(count))] if interleaved else [[n] for n in range(count)]:
        selected = b"".join(bytes((n + 1, 0)) for n in scan)
        stream += _segment(0xDA, bytes([len(scan)]) + selected + bytes((predictor, 0, transform)))
        for n, start in enumerate(range(0, rows, restart or rows)):
            if n:
                stream += bytes((0xFF, 0xD0 + (n - 1) % 8))
            stream += _entropy(differences[start:start + (restart or rows), :, scan])
    return stream + b"\xff\xd9"


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + pack(">H", len(content) + 2) + content


def _differences(planes: Any, bits: int, predictor: int, interval: int) -> Any:
    """Return samples less their predictions, from -32767 to 32768 (H.1.2.1); a restart begins as the image does."""
    out = np.empty_like(planes)
    for y in range(len(planes)):
        row, above = planes[y], planes[y - 1]
        left = np.concatenate([row[:1], row[:-1]])
        corner = np.concatenate([above[:1], above[:-1]])
        predicted = left if y % interval == 0 else (
            left, above, corner, left + above - corner, left + (above - corner >> 1), above + (left - corner >> 1),
            left + above >> 1)[predictor - 1].copy()
        predicted[0] = 1 << bits - 1 if y % interval == 0 else above[0]
        out[y] = (row - predicted + 32767 & 0xFFFF) - 32767
    return out


def _entropy(differences: Any) -> bytes:
    bits = []
    for value in differences.reshape(-1).tolist():
        category = abs(value).bit_length() if value != 32768 else 16
        bits.append(f"{category:05b}")
        if 0 < category < 16:
            bits.append(f"{value if value > 0 else value + (1 << category) - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")


def crash_at(precision: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the decoder end its process at frames of so many bits."""
    samples = gdcm_frames._samples

    def crash(bare: bytes, syntax: str, said: gdcm_frames.FrameHeader, bits: int) -> bytes:
        if said.precision == precision:
            os.kill(os.getpid(), signal.SIGKILL)
        return samples(bare, syntax, said, bits)

    monkeypatch.setattr(gdcm_frames, "_samples", crash)

"""Encapsulated frames decoded one at a time by pydicom's plugins (`pipeline.dicom.codecs` says by which).

Colours are left as the decoder gives them, so that samples are those that any other reader of the file would see. Each
stream's own size is checked before it is decoded: a header that promises less than the stream holds is refused.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from pipeline.deidentify.pixel_header import PIXEL_DATA, Geometry
from pipeline.dicom.codecs import can_decode, options
from pipeline.model import Reason, Refusal

# What pydicom calls colours after a decoder that left them alone, and how they may be written
PHOTOMETRIC = {"YBR_FULL_422": "YBR_FULL", "YBR_ICT": "RGB", "YBR_RCT": "RGB"}


class Frame(NamedTuple):
    """One decoded frame: samples of shape (rows, columns) or (rows, columns, 3), and what its colours are."""

    samples: Any
    photometric: str


def decode(syntax: str, stream: bytes, shape: Geometry) -> Frame:
    """Decode one frame. Raises Refusal: no decoder is installed, or none could read it."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    if not can_decode(syntax, shape.stored):
        raise Refusal(Reason.CODEC_MISSING, 0x00020010)
    logging.getLogger("pydicom").propagate = False      # it writes out what a decoder says of a stream
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoder: Any = get_decoder(syntax)
            samples, about = decoder.as_array(
                encapsulate([stream], has_bot=False), index=0, raw=True, number_of_frames=1, rows=shape.rows,
                columns=shape.columns, samples_per_pixel=shape.samples, bits_allocated=shape.allocated,
                bits_stored=shape.stored, pixel_representation=int(shape.signed),
                photometric_interpretation=shape.photometric, pixel_keyword="PixelData",
                **options(syntax))
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - whatever a decoder stumbles over
        raise Refusal(Reason.PIXEL_STREAM_UNSAFE, PIXEL_DATA) from None
    expected = (shape.rows, shape.columns, 3) if shape.samples == 3 else (shape.rows, shape.columns)
    if samples.shape != expected:
        raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
    photometric = str(about["photometric_interpretation"])
    kind = np.dtype(f"{'i' if shape.signed else 'u'}{shape.allocated // 8}")
    return Frame(samples.astype(kind, copy=False), PHOTOMETRIC.get(photometric, photometric))


def frames(syntax: str, streams: Iterator[bytes], shape: Geometry) -> Iterator[Frame]:
    """Decode frame after frame; all must have the colours of the first. What stood in bits above the stored ones is
    gone: pydicom's decoders clear them, or have them repeat the sign."""
    first = ""
    for stream in streams:
        frame = decode(syntax, stream, shape)
        first = first or frame.photometric
        if frame.photometric != first:
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        yield frame

"""What is done to the pixels of one object: policy, rules and codecs put together, before its new header is written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from struct import pack
from typing import TYPE_CHECKING

from pipeline.deidentify.pixel_header import PIXEL_DATA, Geometry, text
from pipeline.deidentify.pixel_policy import BURNED_IN, Care, Device, Image, decide
from pipeline.deidentify.pixels import frame_streams, refuse_overlays
from pipeline.deidentify.plan import Plan
from pipeline.dicom.charset import decode as decode_text
from pipeline.dicom.charset import encodings
from pipeline.dicom.file import REPORTS, Scan
from pipeline.model import Reason, Refusal

if TYPE_CHECKING:
    from pipeline.deidentify.masks import Mask, Painter

PHOTOMETRIC, PLANAR = 0x00280004, 0x00280006
# of samples that may be gone (PS3.3 C.7.6.3.1): smallest and largest, also of a series
NO_LONGER_TRUE = (0x00280106, 0x00280107, 0x00280108, 0x00280109)
LONGEST = 0xFFFFFFFE        # bytes of native pixel data


@dataclass(slots=True)
class Treated:
    """`care`: whether what comes out is to be read for text. `painter`: what native samples pass through; `frames`:
    native frames in place of encapsulated ones, `length` bytes in all. `values`: what elements of the output say
    instead, None: they go."""

    care: Care
    painter: Painter | None = None
    frames: Iterator[bytes] | None = None
    length: int = 0
    values: dict[int, bytes | None] = field(default_factory=dict)

    def pixel_header(self) -> bytes:
        """Return PixelData's tag, VR and length for decoded frames, explicit VR little endian."""
        return pack("<HH2sHI", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF, b"OW", 0, self.length)


def treat(fd: int, source: Scan, plan: Plan) -> Treated:
    """Return what the plan does to the pixels of an object. Raises Refusal."""
    if text(source, 0x00080016).startswith(REPORTS):
        raise Refusal(Reason.STRUCTURED_REPORT)
    mask, shape = None, None
    if plan.pixel_rules and source.pixel is not None:
        from pipeline.deidentify import masks

        if any(masks.applies(rule, source) for rule in plan.pixel_rules):
            shape = Geometry.of(source)
            mask = masks.cover(plan.pixel_rules, source, shape.rows, shape.columns)
    care = decide(_image(source, plan), plan.pixel_policy, ruled=mask is not None, drawn=_drawn(source, plan))
    refuse_overlays(source)
    if source.pixel is None:
        care = Care.NONE
    treated = Treated(care)
    if care is Care.READ:       # PS3.15 E.3.1; it passes only once nothing was found
        treated.values[BURNED_IN] = b"NO"
    if shape is not None and mask is not None:
        _paint(fd, source, shape, mask, treated)
    return treated


def _paint(fd: int, source: Scan, shape: Geometry, mask: Mask, treated: Treated) -> None:
    from pipeline.deidentify import decoded, masks

    assert source.pixel is not None
    treated.values |= dict.fromkeys(NO_LONGER_TRUE)
    if source.pixel[4] >= 0:
        treated.painter = masks.native(source, shape, mask)
        return
    if shape.allocated < 8:         # bits in frames that each end with a byte: no reader agrees with another
        raise Refusal(Reason.UNSUPPORTED_STRUCTURE, 0x00280100)
    pixel_bytes = shape.samples * (shape.allocated // 8)
    streams = frame_streams(fd, source, shape.frames, (shape.rows, shape.columns), pixel_bytes)
    frames = decoded.frames(source.transfer_syntax, streams, shape)
    first = next(frames)
    out = masks.decoded_shape(shape, first.photometric)
    values = masks.paint(source, out)
    length = shape.rows * shape.columns * pixel_bytes * shape.frames
    if length > LONGEST:
        raise Refusal(Reason.TOO_LARGE, PIXEL_DATA)
    treated.length = length + (length & 1)
    treated.values[PHOTOMETRIC] = out.photometric.encode()
    if shape.samples > 1:
        treated.values[PLANAR] = b"\0\0"

    def painted() -> Iterator[bytes]:
        import numpy as np

        for frame in chain([first], frames):
            samples = np.ascontiguousarray(frame.samples).reshape(-1)
            samples = samples if samples.flags.writeable else samples.copy()
            masks.over(samples, out, mask, np.array(values).astype(samples.dtype))
            yield samples.astype(samples.dtype.newbyteorder("<"), copy=False).tobytes()
        yield bytes(length & 1)

    treated.frames = painted()


def _image(source: Scan, plan: Plan) -> Image:
    """Return what the header says that the decision is made from; the device only where devices are listed."""
    image_type, conversion, burned_in, recognizable = (text(source, tag).upper() for tag in (
        0x00080008, 0x00080064, BURNED_IN, 0x00280302))
    return Image(text(source, 0x00080016), tuple(word.strip() for word in image_type.split("\\")), conversion,
                 burned_in, recognizable, device_of(source) if plan.pixel_policy.devices is not None else None)


def device_of(source: Scan) -> Device:
    """Return what made an image, as its header says."""
    codecs = encodings(source.value(0x00080005))
    return Device.of(*(decode_text(source.value(tag) or b"", codecs).strip(" \0")
                       for tag in (0x00080070, 0x00081090, 0x00181020)))


def _drawn(source: Scan, plan: Plan) -> bool:
    """Whether an object is one of those that are read all the same: it follows from its UID."""
    sample = plan.pixel_policy.sample
    if not sample:
        return False
    digest = hashlib.sha256(source.value(0x00080018) or b"").digest()
    return int.from_bytes(digest[:8], "big") % sample == 0

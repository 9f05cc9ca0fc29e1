"""What a header says of the pixels (PS3.3 C.7.6.3), as the engine reads it: text, numbers, geometry. Raises Refusal."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.dicom.file import Scan
from pipeline.model import Reason, Refusal

PIXEL_DATA = 0x7FE00010
MOST_BITS = 32


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape and form of the samples. `planar`: colour by plane; `signed`: two's complement."""

    samples: int
    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    signed: bool
    planar: bool
    photometric: str

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame: YBR_FULL_422 holds one pair of colours for two pixels."""
        bits = self.samples * self.rows * self.columns * self.allocated
        return bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits

    @classmethod
    def of(cls, source: Scan) -> Geometry:
        """Return what a header says. Raises Refusal where it cannot be true or cannot be painted over."""
        tags = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
        samples, rows, columns, allocated, stored, high, signed = (number(source, tag) for tag in tags)
        frames, planar = frames_of(source), number(source, 0x00280006) if samples > 1 else 0
        if not (samples in (1, 3) and rows and columns and frames and allocated in (1, 8, 16, MOST_BITS)):
            raise Refusal(Reason.PIXEL_GEOMETRY, PIXEL_DATA)
        if not 0 < stored <= allocated or high != stored - 1 or planar > 1 or (allocated == 1 and samples > 1):
            raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280101)
        photometric = text(source, 0x00280004).upper()
        if (samples == 1) != (photometric in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")):
            raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280004)
        if photometric == "YBR_FULL_422" and (columns % 2 or planar):
            raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280004)
        return cls(samples, rows, columns, frames, allocated, stored, bool(signed), bool(planar), photometric)


def text(source: Scan, tag: int) -> str:
    """Return a top-level value as text, without padding; "" where it is absent."""
    return (source.value(tag) or b"").strip(b" \0").decode("ascii", "replace")


def number(source: Scan, tag: int) -> int:
    """Return a top-level US. Raises Refusal where it is absent."""
    raw = source.value(tag)
    if raw is None or len(raw) != 2:
        raise Refusal(Reason.PIXEL_GEOMETRY, tag)
    return int.from_bytes(raw, "big" if source.encoding.big else "little")


def frames_of(source: Scan) -> int:
    """Return the number of frames; one where the header does not say."""
    said = text(source, 0x00280008)
    if not said:
        return 1
    if not said.isdigit() or len(said) > 9:
        raise Refusal(Reason.PIXEL_GEOMETRY, 0x00280008)
    return int(said)

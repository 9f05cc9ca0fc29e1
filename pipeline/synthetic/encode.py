"""From a data set to the bytes of a DICOM Part 10 file: UIDs, pixels, transfer syntaxes. No clock, no randomness.

Everything that looks random comes from SHAKE-256 over a seed text, so the same call gives the same bytes everywhere.
"""

from __future__ import annotations

import hashlib
import io
import struct
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from pipeline.synthetic import quick

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "big": ExplicitVRBigEndian,
    "rle": RLELossless,
    "jpeg": JPEGBaseline8Bit,
    "jpeg2000": JPEG2000Lossless,
}
EIGHT_BIT = frozenset({"jpeg", "jpeg2000"})
IMPLEMENTATION = "2.25.231544902836410977240613371592018440321"


def stream(n: int, *seed: object) -> bytes:
    """Return `n` bytes that look random and follow from the seed."""
    return hashlib.shake_256("\x1f".join(map(str, seed)).encode()).digest(n)


def uid(*seed: object) -> str:
    """Return a UID under 2.25 (PS3.5 B.2) that follows from the seed: a UUID of version 8 as a decimal number."""
    raw = bytearray(stream(16, "uid", *seed))
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return f"2.25.{int.from_bytes(raw, 'big')}"


def breast(rows: int, columns: int, laterality: str, *seed: object, eight_bit: bool = False) -> bytes:
    """Return one frame that looks like a breast: half an ellipse of textured tissue at the chest wall, air elsewhere.

    12 bits stored in 16 (values 768–1791 in tissue), or 8 in 8. Shape (rows, columns), little endian.
    """
    width = 1 if eight_bit else 2
    high = bytes(3 + value % 4 for value in range(256))
    noise = bytearray(stream(rows * columns * width, "pixels", rows, columns, laterality, *seed))
    if not eight_bit:
        noise[1::2] = noise[1::2].translate(high)
    out = bytearray(rows * columns * width)
    for row in range(rows):
        y = (2 * row + 1 - rows) / rows
        tissue = int(columns * 0.8 * (1 - y * y) ** 0.5)
        start = row * columns + (columns - tissue if laterality == "R" else 0)
        a, b = start * width, (start + tissue) * width
        out[a:b] = noise[a:b]
    return bytes(out)


def jpeg(frame: bytes, rows: int, columns: int, kind: str, comment: bytes | None = None) -> bytes:
    """Return an 8-bit greyscale frame as a JPEG or JPEG 2000 code stream without comments or application segments.

    `comment` is planted as a COM segment, where hospitals' software likes to leave names.
    """
    from PIL import Image

    image = Image.frombytes("L", (columns, rows), frame)
    buffer = io.BytesIO()
    if kind == "jpeg":
        image.save(buffer, "JPEG", quality=90)
        bare, com = _without(buffer.getvalue(), 0xDA, {*range(0xE0, 0xF0), 0xFE}), b"\xff\xfe"
    else:
        image.save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
        bare, com = _without(buffer.getvalue(), 0x90, {0x64}), b"\xff\x64"
    if comment is None:
        return bare
    body = comment if kind == "jpeg" else b"\x00\x01" + comment        # JPEG 2000: Rcom = 1, Latin text
    segment = com + (len(body) + 2).to_bytes(2, "big") + body
    at = 2 if kind == "jpeg" else 4 + int.from_bytes(bare[4:6], "big")   # after SOI; after SOC and SIZ
    return bare[:at] + segment + bare[at:]


def _without(code: bytes, last: int, dropped: set[int]) -> bytes:
    """Return a code stream less the dropped marker segments of its header, which the marker `last` ends."""
    out, at = bytearray(code[:2]), 2
    while code[at + 1] != last:
        length = 2 + int.from_bytes(code[at + 2:at + 4], "big")
        if code[at + 1] not in dropped:
            out += code[at:at + length]
        at += length
    return bytes(out + code[at:])


def add_pixels(
    ds: Dataset, frames: list[bytes], syntax: str, comment: bytes | None = None, tail: bytes = b""
) -> None:
    """Put the frames into PixelData as the transfer syntax has it; geometry elements must already stand in `ds`."""
    if syntax in EIGHT_BIT:
        frames = [jpeg(frame, ds.Rows, ds.Columns, syntax, comment) + tail for frame in frames]
        ds.PixelData = encapsulate(frames)
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
        if syntax == "jpeg":
            ds.LossyImageCompression = "01"
            ds.LossyImageCompressionRatio = "4"
            ds.LossyImageCompressionMethod = "ISO_10918_1"
    else:
        joined = b"".join(frames)
        if syntax == "big" and ds.BitsAllocated > 8:
            swapped = bytearray(joined)
            swapped[0::2], swapped[1::2] = joined[1::2], joined[0::2]
            joined = bytes(swapped)
        ds.PixelData = joined + b"\x00" * (len(joined) % 2)
        ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
        if syntax == "rle":
            ds.file_meta = FileMetaDataset()
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            ds.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)


def part10(ds: Dataset, syntax: str = "explicit", preamble: bytes | None = None, **meta: Any) -> bytes:
    """Return the whole file: preamble (128 zero bytes unless given), DICM, file meta information, data set.

    `meta` overrides elements of the file meta information by keyword; None deletes one.
    """
    file_meta = FileMetaDataset()
    given = {
        "FileMetaInformationVersion": b"\x00\x01",
        "MediaStorageSOPClassUID": ds.get("SOPClassUID"),
        "MediaStorageSOPInstanceUID": ds.get("SOPInstanceUID"),
        "TransferSyntaxUID": SYNTAXES[syntax],
        "ImplementationClassUID": IMPLEMENTATION,
        "ImplementationVersionName": "SYNTHETIC_1",
        "SourceApplicationEntityTitle": "STORE_SCP",
        **meta,
    }
    for keyword, value in given.items():
        if value is not None:
            setattr(file_meta, keyword, value)
    start = (preamble or b"").ljust(128, b"\x00")
    if syntax not in ("deflated", "big") and not meta:
        try:
            meta_bytes = quick.data_set(file_meta, False)
            length = struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(meta_bytes))
            return start + b"DICM" + length + meta_bytes + quick.data_set(ds, syntax == "implicit")
        except quick.NotPlain:
            pass
    whole = FileDataset("", ds, preamble=start, file_meta=file_meta,
                        is_implicit_VR=syntax == "implicit", is_little_endian=syntax != "big")
    buffer = io.BytesIO()
    whole.save_as(buffer, enforce_file_format=all(value is not None for value in given.values()))
    return buffer.getvalue()

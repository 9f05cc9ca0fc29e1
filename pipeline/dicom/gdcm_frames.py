"""JPEG Lossless (process 14) and 12-bit JPEG Extended through GDCM, as a decoding plugin of pydicom.

pydicom's own plugin for GDCM is not used: it refuses 12 bits, and hands GDCM the header's number of stored bits, at
which GDCM ends the process where they are fewer than eight. Here GDCM is only told what the stream's own header says,
and only after that header was found to be of a kind it reads rightly. It is C++ on bytes from outside: call it where
the end of the process loses nothing (`isolate`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from struct import unpack_from
from typing import IO, Any, NamedTuple

EXTENDED, LOSSLESS, LOSSLESS_SV1 = (f"1.2.840.10008.1.2.4.{n}" for n in (51, 57, 70))
# what pydicom asks of a plugin's module
DECODER_DEPENDENCIES = dict.fromkeys((EXTENDED, LOSSLESS, LOSSLESS_SV1), ("python-gdcm>=3.2.6",))

_PROCESS = {EXTENDED: 0xC1, LOSSLESS: 0xC3, LOSSLESS_SV1: 0xC3}      # extended sequential DCT; lossless, Huffman
_TABLES = frozenset({0xC4, 0xDB, 0xDD})             # Huffman codes, quantisation, restart interval
_BESIDE = frozenset({*range(0xE0, 0xF0), 0xFE})     # application data, comments
_NO_SAMPLES = "no whole image"


class FrameHeader(NamedTuple):
    """SOF of a JPEG stream (ITU-T T.81 B.2.2). `sampling`: one byte a component."""

    process: int
    precision: int
    rows: int
    columns: int
    sampling: bytes


def is_available(uid: str) -> bool:
    """Whether GDCM is installed and the transfer syntax is one that is decoded with it."""
    return uid in _PROCESS and find_spec("gdcm") is not None


def frame_header(stream: bytes) -> tuple[FrameHeader, bytes]:
    """Return what a stream says of its image before the first scan, and the stream without the segments that no decoder
    needs: at a warning of theirs GDCM ends the process. Raises ValueError for any segment that is not as expected."""
    bare, frame, pos = bytearray(b"\xff\xd8"), None, 2
    while stream[:2] == b"\xff\xd8" and pos + 4 <= len(stream) and stream[pos] == 0xFF:
        marker = stream[pos + 1]
        if marker == 0xFF:
            pos += 1
            continue
        (length,) = unpack_from(">H", stream, pos + 2)
        segment, content = stream[pos:pos + 2 + length], stream[pos + 4:pos + 2 + length]
        if marker == 0xDA and frame:
            return frame, bytes(bare) + stream[pos:]
        if marker in (0xC1, 0xC3) and not frame and len(content) >= 6 and len(content) == 6 + 3 * content[5]:
            precision, rows, columns = unpack_from(">BHH", content)
            frame = FrameHeader(marker, precision, rows, columns, content[7::3])
        elif not (marker in _TABLES or marker in _BESIDE) or length < 2:
            break
        if marker not in _BESIDE:
            bare += segment
        pos += 2 + length
    raise ValueError("not a stream of this transfer syntax")


def decode_frame(stream: bytes, runner: Any) -> bytes:
    """Return the samples of one frame, little endian, colour by pixel and as it was coded, in words as wide as the
    header allocates. `runner`: pydicom's DecodeRunner. Raises ValueError, and nothing of it quotes the stream."""
    import numpy as np

    syntax = str(runner.transfer_syntax)
    said, bare = frame_header(stream)
    lossless = said.process == 0xC3
    bits = 8 if said.precision <= 8 else 16
    if said.process != _PROCESS[syntax] or not (2 <= said.precision <= 16 if lossless else said.precision == 12):
        raise ValueError("not a process of this transfer syntax")
    # subsampled components, and 12 bits in colour: nobody sends them, and their upsampling is a matter of opinion
    if said.sampling.strip(b"\x11") or len(said.sampling) not in ((1, 3) if lossless else (1,)):
        raise ValueError("not one of the forms that are decoded")
    if (said.rows, said.columns, len(said.sampling)) != (runner.rows, runner.columns, runner.samples_per_pixel):
        raise ValueError("another size than the header's")
    if bits > runner.bits_allocated:
        raise ValueError("more bits than the header allocates")
    # a sample takes a bit at least; in DCT a block of 64 takes two
    if said.rows * said.columns * len(said.sampling) > len(bare) * (8 if lossless else 256):
        raise ValueError(_NO_SAMPLES)
    samples = np.frombuffer(_samples(bare, syntax, said, bits), f"<u{bits // 8}")
    if len(samples) != said.rows * said.columns * len(said.sampling):
        raise ValueError(_NO_SAMPLES)
    if len(said.sampling) > 1:
        runner.set_option("planar_configuration", 0)
    return samples.astype(f"<u{runner.bits_allocated // 8}", copy=False).tobytes()


def _samples(stream: bytes, syntax: str, said: FrameHeader, bits: int) -> bytes:
    import gdcm

    gdcm.Trace.DebugOff()
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((said.columns, said.rows, 1))
    image.SetDataElement(element)
    # RGB: that GDCM leaves colours alone; what they are the header says
    kind = gdcm.PhotometricInterpretation.GetPIType("RGB" if len(said.sampling) > 1 else "MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    bits = bits if said.process == 0xC3 else said.precision
    image.SetPixelFormat(gdcm.PixelFormat(len(said.sampling), bits, bits, bits - 1, 0))
    with _said() as log:
        out: str | None = image.GetBuffer()
        log.seek(0)
        told = log.read()
        if out is None or b"Corrupt" in told or b"Premature" in told:
            raise ValueError(_NO_SAMPLES)
    return out.encode("utf-8", "surrogateescape")       # how GDCM's wrapper hands out bytes


@contextmanager
def _said() -> Iterator[IO[bytes]]:
    """Catch what libjpeg inside GDCM writes to the process's standard error: there is no other way to be told that it
    went on over a damaged stream, and nothing of a stream is to stand in a log."""
    with tempfile.TemporaryFile() as log:
        kept = os.dup(2)
        try:
            os.dup2(log.fileno(), 2)
            yield log
        finally:
            os.dup2(kept, 2)
            os.close(kept)

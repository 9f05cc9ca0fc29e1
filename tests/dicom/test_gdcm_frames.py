"""GDCM gives back what was coded, is asked nothing that would end the process, says nothing, and reads nothing else."""

from __future__ import annotations

import os
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydicom.pixels import get_decoder

from pipeline.dicom import codecs, gdcm_frames
from pipeline.dicom.gdcm_frames import EXTENDED, LOSSLESS, decode_frame, frame_header
from pipeline.isolate import Limits, each
from tests.helpers.jpeg_lossless import crash_at, encode

ROWS, COLUMNS = 24, 20


def noise(precision: int, samples: int = 1) -> Any:
    shape = (ROWS, COLUMNS, 3) if samples == 3 else (ROWS, COLUMNS)
    return np.random.default_rng(precision).integers(0, 1 << precision, shape).astype("u2" if precision > 8 else "u1")


def decode(stream: bytes, *, samples: int = 1, allocated: int = 16, syntax: str = LOSSLESS, rows: int = ROWS) -> bytes:
    """Decode as pydicom would have it done, where the header says so many rows, and COLUMNS."""
    runner = SimpleNamespace(transfer_syntax=syntax, rows=rows, columns=COLUMNS, samples_per_pixel=samples,
                             bits_allocated=allocated, set_option=lambda *_: None)
    return decode_frame(stream, runner)


@pytest.mark.parametrize("predictor", range(1, 8))
def test_every_precision_and_prediction(predictor: int) -> None:
    for precision in range(2, 17):
        for how in ({}, {"restart": 4}, {"transform": 1}):
            pixels = noise(precision) >> how.get("transform", 0) << how.get("transform", 0)
            out = decode(encode(pixels, precision, predictor=predictor, **how))
            assert out == pixels.astype("<u2").tobytes(), (precision, how)
        for interleaved in (True, False):
            colour = noise(precision, 3)
            stream = encode(colour, precision, predictor=predictor, interleaved=interleaved)
            assert decode(stream, samples=3) == colour.astype("<u2").tobytes(), precision
    eight = noise(7)
    assert decode(encode(eight, 7, predictor=predictor), allocated=8) == eight.tobytes()


def changed(stream: bytes, at: int, value: int) -> bytes:
    return stream[:at] + bytes([value]) + stream[at + 1:]


def test_headers_that_lie_are_refused_before_gdcm_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    good = encode(noise(12), 12)
    frame = good.index(b"\xff\xc3")
    colour = encode(noise(8, 3), 8)
    assert decode(good) and decode(colour, samples=3)
    monkeypatch.setattr(gdcm_frames, "_samples", lambda *_: pytest.fail("GDCM was asked"))
    for stream in (
        encode(noise(12), 12, shape=(ROWS * 100, COLUMNS)), encode(noise(12), 12, shape=(0, COLUMNS)),
        encode(noise(12), 12, shape=(ROWS, 65535)), colour,
        changed(good, frame + 4, 17), changed(good, frame + 4, 0), changed(good, frame + 1, 0xC1),
        changed(good, frame + 1, 0xC2), changed(good, frame + 1, 0xCB), changed(good, frame + 11, 0x21),
        good[:2] + good[frame:frame + 13] + good[2:],           # two frame headers
        good[:2] + b"\xff\xd4\x00\x04\x00\x00" + good[2:],      # a segment that has no place there
        good[:2] + b"\xff\xe0\x00\x01" + good[2:], good[:frame + 8], good[2:], b"", b"\xff\xd8\xff\xda\x00\x02",
    ):
        with pytest.raises(ValueError):
            decode(stream)
    with pytest.raises(ValueError):
        decode(good, allocated=8)
    with pytest.raises(ValueError):
        decode(good, samples=3)
    with pytest.raises(ValueError):
        decode(good, syntax=EXTENDED)
    with pytest.raises(ValueError):         # both headers say so, and the stream cannot hold that many
        decode(encode(noise(12), 12, shape=(65535, COLUMNS)), rows=65535)


def test_nothing_is_printed_and_damage_is_seen(capfd: pytest.CaptureFixture[str]) -> None:
    """libjpeg goes on over damage, and says so on standard error alone; a comment and JFIF's data never get there."""
    good = encode(noise(12) // 64 * 64, 12)
    beside = b"\xff\xfe\x00\x0eQUILLFEATHER" + b"\xff\xe0\x00\x10JFIF\x00\x63\x63" + bytes(7)
    assert decode(good[:2] + beside + good[2:]) == decode(good)
    for broken in (good[:-40] + b"\xff\xd9", good[:-40], good[:200] + b"\xff\xd3" + good[200:]):
        with pytest.raises(ValueError) as caught:
            decode(broken)
        assert "QUILL" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


@pytest.mark.parametrize("said", [b"Corrupt JPEG data", b"Premature end of JPEG file"])
def test_what_libjpeg_goes_on_over_is_no_image(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    import gdcm

    plain = gdcm.Image.GetBuffer

    def heard(image: Any) -> Any:
        os.write(2, said)
        return plain(image)

    monkeypatch.setattr(gdcm.Image, "GetBuffer", heard)
    with pytest.raises(ValueError, match="no whole image"):
        decode(encode(noise(12), 12))


def test_damaged_streams_end_no_worker() -> None:
    """Bits flipped and bytes changed anywhere, a frame header among them: refused, or samples of the right size."""
    rng = random.Random(5)
    streams = [encode(noise(12), 12, predictor=7, restart=4), encode(noise(16), 16), encode(noise(8) // 16, 8)]
    damaged = []
    for n in range(450):
        stream = bytearray(streams[n % 3])
        for _ in range(rng.choice((1, 1, 2, 8))):
            stream[rng.randrange(2, rng.choice((60, len(stream))))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(stream[:rng.randrange(30, len(stream))] if n % 10 == 0 else stream))

    def work(group: list[int], clock: Any, without: Any) -> list[str]:
        out = []
        for n in group:
            clock.start(n, len(damaged[n]))
            try:
                assert n not in without
                out.append("same size" if len(decode(damaged[n])) == ROWS * COLUMNS * 2 else "another size")
            except ValueError:
                out.append("refused")
        return out

    ((_, outcomes),) = each([list(range(len(damaged)))], work, limits=Limits(10))
    assert len(outcomes) == len(damaged)
    assert set(outcomes) == {"refused", "same size"} and outcomes.count("refused") > 200


def test_a_decoder_that_crashes_costs_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    crash_at(13, monkeypatch)
    streams = [encode(noise(precision), precision) for precision in (12, 13, 14)]

    def work(group: list[int], clock: Any, without: Any) -> list[str]:
        out = []
        for n in group:
            clock.start(n, 0)
            out.append("left out" if n in without else f"{len(decode(streams[n]))} bytes")
        return out

    ((_, outcomes),) = each([[0, 1, 2]], work, limits=Limits(10))
    assert outcomes == ["960 bytes", "left out", "960 bytes"]


def test_no_other_syntax_is_decoded_with_gdcm() -> None:
    import gdcm

    assert gdcm.Version.GetVersion()
    for n in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "5"):
        syntax = f"1.2.840.10008.1.2.{n}"
        assert codecs.options(syntax) == {"planar_configuration": 0}
        assert codecs.can_decode(syntax, 8) and "gdcm" not in get_decoder(syntax).available_plugins
    assert not codecs.can_decode("1.2.840.10008.1.2.4.201", 8)
    assert codecs.options("1.2.840.10008.1.2.1") == {}
    assert [s for s in codecs._PLUGINS if "tre-gdcm" in get_decoder(s).available_plugins] == [
        EXTENDED, LOSSLESS, "1.2.840.10008.1.2.4.70"]


def test_what_the_header_says() -> None:
    said, bare = frame_header(encode(noise(9), 9)[:2] + b"\xff" * 3 + encode(noise(9), 9)[2:])
    assert said == (0xC3, 9, ROWS, COLUMNS, b"\x11")
    assert decode(bare) == noise(9).tobytes()

"""Pixel data passed on unloaded: which may, and what is blanked in its streams."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels_kit import dataset, decoded, encapsulated, plan
from pixels_kit import run as run_plan
from test_engine import MG, SUBJECT, run

from pipeline.deidentify import decoded as decode_module
from pipeline.deidentify.engine import rewrite
from pipeline.deidentify.streams import check_rle, jpeg_2000_segments, jpeg_segments
from pipeline.model import Reason, Refusal
from pipeline.synthetic import encode as codec
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled
from tests.helpers.jpeg_lossless import encode

NAME = b"ARAMINTA QUILLFEATHER"


def reason(data: bytes, tmp_path: Path) -> Reason:
    with pytest.raises(Refusal) as caught:
        run(data, tmp_path)
    assert not (tmp_path / "out.dcm").exists()
    return caught.value.reason


@pytest.mark.parametrize("syntax", ["jpeg", "jpeg2000"])
def test_a_comment_in_a_stream_is_blanked_and_no_sample_changes(syntax: str, tmp_path: Path) -> None:
    plain = run(files.mammogram(transfer_syntax=syntax), tmp_path)
    ours = run(files.mammogram(transfer_syntax=syntax, stream_comment=NAME), tmp_path)
    source = pydicom.dcmread(tmp_path / "in.dcm")
    assert NAME in source.PixelData
    assert NAME not in ours.PixelData
    assert len(ours.PixelData) == len(source.PixelData)
    assert np.array_equal(ours.pixel_array, plain.pixel_array)


def test_bundled_streams_decode_to_the_same_samples(tmp_path: Path) -> None:
    """Real encoders' streams, under a mammogram's header: blanked where they carry text, samples as before."""
    compared = 0
    for _, path in bundled():
        source = pydicom.dcmread(path, force=True)
        syntax = source.file_meta.get("TransferSyntaxUID") if hasattr(source, "file_meta") else None
        if not (syntax and syntax.is_encapsulated and "PixelData" in source) or source.get("NumberOfFrames", 1) != 1:
            continue
        fragments = list(pydicom.encaps.generate_fragments(source.PixelData))
        if len(fragments) != 2:
            continue
        stream = fragments[1]
        try:
            found, shape = (jpeg_2000_segments if stream[:2] == b"\xff\x4f" else jpeg_segments)(stream)
        except Refusal:
            continue
        if shape != (source.Rows, source.Columns):      # one bundled file has a doctored size
            continue
        blanked = bytearray(stream)
        for offset, length in found:
            blanked[offset:offset + length] = bytes(length)
        try:
            before = source.pixel_array
        except Exception:
            continue
        copy = pydicom.dcmread(path)
        copy.PixelData = pydicom.encaps.encapsulate([bytes(blanked)])
        assert np.array_equal(before, copy.pixel_array), path.name
        compared += 1
    assert compared >= 5


def test_bytes_behind_the_end_of_a_stream(tmp_path: Path) -> None:
    for syntax in ("jpeg", "jpeg2000"):
        data = files.mammogram(transfer_syntax=syntax, stream_tail=NAME)
        assert reason(data, tmp_path) is Reason.PIXEL_STREAM_UNSAFE


def test_geometry_against_length(tmp_path: Path) -> None:
    for data in (
        files.mammogram(Rows=63), files.mammogram(Columns=49), files.mammogram(SamplesPerPixel=3),
        files.mammogram(NumberOfFrames=2), files.mammogram(NumberOfFrames="0"), files.mammogram(BitsAllocated=8),
        files.mammogram(BitsStored=17, HighBit=16), files.mammogram(HighBit=15), files.mammogram(Rows=None),
        files.mammogram(transfer_syntax="jpeg", Rows=65), files.mammogram(transfer_syntax="jpeg2000", Columns=47),
        files.mammogram(transfer_syntax="rle", Rows=65535, Columns=65535),
    ):
        assert reason(data, tmp_path) is Reason.PIXEL_GEOMETRY


def test_what_the_header_says_of_text_in_the_pixels(tmp_path: Path) -> None:
    for options in (
        {"BurnedInAnnotation": "YES"}, {"BurnedInAnnotation": "MAYBE"}, {"RecognizableVisualFeatures": "YES"},
        {"ImageType": ["ORIGINAL", "SECONDARY"]}, {"ImageType": ["DERIVED", "PRIMARY", "SCREEN SAVE"]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ImageType": ["DERIVED", "PRIMARY"]},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1"},
    ):
        assert reason(files.mammogram(**options), tmp_path) is Reason.PIXELS_NEED_CLEANING
    assert run(files.mammogram(BurnedInAnnotation=None), tmp_path).Rows == 64


def test_an_overlay_in_the_high_bits(tmp_path: Path) -> None:
    data = files.mammogram(private=False)
    element = struct.pack("<HH2sHH", 0x6000, 0x0102, b"US", 2, 12)
    at = data.rindex(b"\xe0\x7f\x10\x00OW")
    assert reason(data[:at] + element + data[at:], tmp_path) is Reason.OVERLAY_IN_PIXELS


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", ["rle", "jpeg2000", "jpegls", "lossless", "lossless of 14"])
def test_high_bits_of_compressed_frames(name: str, signed: bool, tmp_path: Path) -> None:
    """Twelve bits are stored, sixteen coded, or fourteen: in the others nothing may stand, but for the sign."""
    quiet = plan(tmp_path)
    samples = np.random.default_rng(9).integers(-2048 if signed else 0, 2048, (2, 64, 72)).astype("<i2")
    for hidden in (False, True):
        pixels = samples.copy()
        if hidden:
            pixels[1, 5, 7] ^= 0x2000
        ds = dataset(64, 72, bits=16, signed=signed, frames=2, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        streams = compressed(ds, pixels, name)
        ds.BitsStored, ds.HighBit = 12, 11
        data = encapsulated(ds, streams, COMPRESSED[name])
        if hidden:
            with pytest.raises(Refusal) as caught:
                run_plan(data, tmp_path, quiet)
            assert caught.value.reason is Reason.OVERLAY_IN_PIXELS
            assert not (tmp_path / "out.dcm").exists()
        else:
            ours, _ = run_plan(data, tmp_path, quiet)
            assert ours.file_meta.TransferSyntaxUID == COMPRESSED[name]
            assert np.array_equal(decoded(tmp_path / "out.dcm")[0], pixels)


def test_frames_that_code_no_more_bits_than_are_stored_are_not_decoded(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "decode", lambda *_: pytest.fail("decoded"))
    ds = dataset(64, 72, bits=16, stored=12, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    stream = encode(np.arange(64 * 72).reshape(64, 72) % 4096, 12)
    run_plan(encapsulated(ds, [stream], COMPRESSED["lossless"]), tmp_path, plan(tmp_path))


COMPRESSED = {name: f"1.2.840.10008.1.2.{n}" for name, n in (
    ("rle", "5"), ("jpeg2000", "4.90"), ("jpegls", "4.80"), ("lossless", "4.57"), ("lossless of 14", "4.57"))}


def compressed(ds: pydicom.Dataset, pixels: Any, name: str) -> list[bytes]:
    """Return a stream for each frame, of sixteen bits or fourteen."""
    if name.startswith("lossless"):
        bits = 14 if name.endswith("14") else 16
        return [encode(frame.view("<u2") & (1 << bits) - 1, bits, predictor=7) for frame in pixels]
    coded = dataset(64, 72, bits=16, signed=bool(ds.PixelRepresentation), frames=2)
    coded.file_meta = pydicom.dataset.FileMetaDataset()
    coded.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    coded.PixelData = pixels.tobytes()
    coded["PixelData"].VR = "OW"
    coded.compress(COMPRESSED[name], generate_instance_uid=False)
    return list(pydicom.encaps.generate_frames(coded.PixelData, number_of_frames=2))


def test_a_segment_that_no_image_needs_hides_nothing() -> None:
    """DAC conditions arithmetic coding, which no transfer syntax has that is read; it is as long as somebody likes."""
    stream = codec.jpeg(bytes(64), 8, 8, "jpeg")
    name = b"QUILLFEATHER^JANE "
    assert jpeg_segments(stream)[0] == []
    with pytest.raises(Refusal) as caught:
        jpeg_segments(stream[:2] + b"\xff\xcc" + struct.pack(">H", 2 + len(name)) + name + stream[2:])
    assert caught.value.reason is Reason.PIXEL_STREAM_UNSAFE


@pytest.mark.parametrize("marker", [0x55, 0x57, 0x58, 0x60, 0x61])
def test_a_name_in_the_lengths_of_a_codestream(marker: int) -> None:
    """TLM, PLM, PLT, PPM, PPT of JPEG 2000: what must be lengths is, or the stream is refused."""
    stream = codec.jpeg(bytes(64), 8, 8, "jpeg2000")
    name = b"QUILLFEATHER^JANE "
    at = stream.index(b"\xff\x93" if marker in (0x58, 0x61) else b"\xff\x90")
    size = struct.unpack_from(">I", stream, stream.index(b"\xff\x90") + 6)[0]
    for content, sound in ((name, False), (struct.pack(">BBI", 0, 0x40, size), marker == 0x55)):
        segment = bytes((0xFF, marker)) + struct.pack(">H", 2 + len(content)) + content
        longer = stream[:at] + segment + stream[at:]
        if marker in (0x58, 0x61):
            tile = stream.index(b"\xff\x90") + 6
            longer = longer[:tile] + struct.pack(">I", size + len(segment)) + longer[tile + 4:]
        if sound:
            assert jpeg_2000_segments(longer)[0] == jpeg_2000_segments(stream)[0]
        else:
            with pytest.raises(Refusal):
                jpeg_2000_segments(longer)


def test_two_frame_headers_in_a_stream() -> None:
    stream = encode(np.zeros((8, 8)), 8)
    assert jpeg_segments(stream)[1] == (8, 8)
    for other in (stream[2:15], b"\xff\xc0" + stream[4:15]):
        with pytest.raises(Refusal):
            jpeg_segments(stream[:15] + other + stream[15:])


def test_an_offset_table_says_where_frames_start_and_nothing_else(tmp_path: Path) -> None:
    data = files.mammogram(transfer_syntax="rle")
    at = data.rindex(b"\xfe\xff\x00\xe0", 0, data.rindex(b"\xfe\xff\x00\xe0"))
    (length,) = struct.unpack_from("<I", data, at + 4)
    for table in (NAME + b"ABC", b"\1\0\0\0", b"\0\0\0\0\0\0\0\0"):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table
        assert reason(data[:at] + item + data[at + 8 + length:], tmp_path) is Reason.PIXEL_STREAM_UNSAFE


def test_pixel_data_in_an_icon_goes_with_its_sequence(tmp_path: Path) -> None:
    icon = pydicom.Dataset()
    icon.Rows = icon.Columns = 1
    icon.PixelData = NAME + b"!"
    icon["PixelData"].VR = "OB"
    ours = run(files.mammogram(IconImageSequence=[icon]), tmp_path)
    assert "IconImageSequence" not in ours
    assert NAME not in (tmp_path / "out.dcm").read_bytes()


@given(st.binary(max_size=400))
@settings(max_examples=400, deadline=None)
def test_streams_of_anything_are_refused_or_read(stream: bytes) -> None:
    for look, start in ((jpeg_segments, b"\xff\xd8"), (jpeg_2000_segments, b"\xff\x4f\xff\x51\0\x29")):
        try:
            found, _ = look(start + stream)
        except Refusal as refusal:
            assert refusal.reason is Reason.PIXEL_STREAM_UNSAFE
        else:
            assert all(offset > 0 and offset + length <= len(start + stream) for offset, length in found)
    try:
        check_rle(stream, 64, 1)
    except Refusal as refusal:
        assert refusal.reason in (Reason.PIXEL_STREAM_UNSAFE, Reason.PIXEL_GEOMETRY)


def test_a_large_frame_is_copied_whole(tmp_path: Path) -> None:
    """More than one read of the source, and a blanked range across the border of two of them."""
    data = files.mammogram(rows=1500, columns=1000)
    (tmp_path / "in.dcm").write_bytes(data)
    result = rewrite(tmp_path / "in.dcm", tmp_path / "out.dcm", MG, SUBJECT)
    out = (tmp_path / "out.dcm").read_bytes()
    assert out[result.header_size:] == data[-1500 * 1000 * 2:]
    assert len(out) == result.size

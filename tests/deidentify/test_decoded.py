"""Encapsulated images painted over: decoded, painted, written native, and outside the boxes as decoded before."""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pixels_kit import dataset, decoded, encapsulated, plan, run
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRLittleEndian
from test_engine import MG
from test_engine import run as run_shipped

from pipeline.dicom.codecs import can_decode
from pipeline.model import Reason, Refusal
from pipeline.synthetic import files
from pipeline.synthetic.bundled import bundled
from tests.helpers.jpeg_lossless import encode

BOX = ("LABEL top left", "contains Modality US", "coordinates 3,2,20,9")
RLE, JPEG, JPEG_LS, J2K, EXTENDED, LOSSLESS, SV1 = (
    f"1.2.840.10008.1.2.{n}" for n in ("5", "4.50", "4.80", "4.90", "4.51", "4.57", "4.70"))
CORPUS = Path(os.environ.get("TRE_CORPUS") or Path(__file__).parents[2].parent / "shared" / "corpus")


def same_outside(folder: Path) -> Any:
    before, _ = decoded(folder / "in.dcm")
    after, said = decoded(folder / "out.dcm")
    mask = np.zeros(before.shape[1:3], bool)
    mask[2:9, 3:20] = True
    assert before.dtype.itemsize <= after.dtype.itemsize
    assert np.array_equal(before[:, ~mask], after[:, ~mask])
    return after[:, mask], said["photometric"]


@pytest.mark.parametrize(("syntax", "bits", "stored", "signed"), [
    (RLE, 8, 8, False), (RLE, 16, 12, False), (RLE, 16, 16, True), (JPEG_LS, 16, 12, False), (JPEG_LS, 8, 8, False),
    (J2K, 16, 12, False), (J2K, 16, 16, True), (J2K, 8, 8, False),
])
@pytest.mark.parametrize("frames", [1, 3])
def test_lossless_frames(syntax: str, bits: int, stored: int, signed: bool, frames: int, tmp_path: Path) -> None:
    ds = dataset(64, 72, bits=bits, stored=stored, signed=signed, frames=frames, photometric="MONOCHROME1")
    low = -(1 << stored - 1) if signed else 0
    pixels = np.random.default_rng(2).integers(low, low + (1 << stored), (frames, 64, 72)).astype(
        f"{'i' if signed else 'u'}{bits // 8}")
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
    ds.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    ours, result = run(buffer.getvalue(), tmp_path, plan(tmp_path, *BOX))
    assert ours.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert result.to_read
    inside, photometric = same_outside(tmp_path)
    assert photometric == "MONOCHROME1"
    assert (inside == low + (1 << stored) - 1).all()
    after, _ = decoded(tmp_path / "out.dcm")
    after[:, 2:9, 3:20] = pixels[:, 2:9, 3:20]
    assert np.array_equal(after, pixels)            # also beside the decoder: what was encoded is what comes out


@pytest.mark.parametrize("subsampling", [0, 2])
def test_lossy_colour_stays_as_decoded(subsampling: int, tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    noise = np.random.default_rng(3).integers(0, 256, (64, 72, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=80, subsampling=subsampling, comment=b"ARAMINTA QUILLFEATHER")
    said = "YBR_FULL_422" if subsampling else "YBR_FULL"
    ds = dataset(64, 72, samples=3, photometric=said, LossyImageCompression="01")
    ours, _ = run(encapsulated(ds, [buffer.getvalue()], JPEG), tmp_path, plan(tmp_path, *BOX))
    inside, photometric = same_outside(tmp_path)
    assert photometric == "YBR_FULL"
    assert ours.PlanarConfiguration == 0
    assert ours.LossyImageCompression == "01"
    assert (inside == [0, 128, 128]).all()
    assert b"QUILL" not in (tmp_path / "out.dcm").read_bytes()


def test_colour_of_jpeg_2000(tmp_path: Path) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    noise = np.random.default_rng(4).integers(0, 256, (64, 72, 3), np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG2000", no_jp2=True, irreversible=False, mct=1)
    ds = dataset(64, 72, samples=3, photometric="YBR_RCT")
    ours, _ = run(encapsulated(ds, [buffer.getvalue()], J2K), tmp_path, plan(tmp_path, *BOX))
    inside, photometric = same_outside(tmp_path)
    assert photometric == "RGB"
    assert not inside.any()
    expected = noise.copy()
    expected[2:9, 3:20] = 0
    assert np.array_equal(ours.pixel_array, expected)


def test_what_stands_beside_the_image_in_a_stream_does_not_come_out(tmp_path: Path) -> None:
    """Boxes of JP2, and bytes behind the runs of RLE: they keep an image from passing on as it is, not from this."""
    from PIL import Image

    noise = np.random.default_rng(5).integers(0, 256, (64, 72), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG2000", no_jp2=False, irreversible=False, comment="QUILLFEATHER")
    rle = pydicom.dataset.Dataset()
    rle.update(dataset(64, 72))
    rle.file_meta = pydicom.dataset.FileMetaDataset()
    rle.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    rle.PixelData = noise.tobytes()
    rle["PixelData"].VR = "OB"
    rle.compress(RLE, generate_instance_uid=False)
    runs = pydicom.encaps.get_frame(rle.PixelData, 0) + b"QUILLFEATHER"
    expected = noise.copy()
    expected[2:9, 3:20] = 0
    for syntax, stream in ((J2K, buffer.getvalue()), (RLE, runs)):
        assert b"QUILL" in stream
        ours, _ = run(encapsulated(dataset(64, 72), [stream], syntax), tmp_path, plan(tmp_path, *BOX))
        assert np.array_equal(ours.pixel_array, expected)
        assert b"QUILL" not in (tmp_path / "out.dcm").read_bytes()


@pytest.mark.parametrize("syntax", [SV1, EXTENDED])
def test_a_codec_that_is_not_installed(syntax: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_decode(SV1, 12) and can_decode(EXTENDED, 12) and can_decode(EXTENDED, 8)
    for known in (SV1, EXTENDED):
        monkeypatch.delitem(get_decoder(known)._available, "tre-gdcm")
    assert not can_decode(SV1, 12) and not can_decode(EXTENDED, 12) and can_decode(EXTENDED, 8)
    with pytest.raises(Refusal) as caught:
        run(encapsulated(dataset(32, 24, bits=16, stored=12), [encode(np.zeros((32, 24)), 12)], syntax), tmp_path,
            plan(tmp_path, *BOX))
    assert caught.value.reason is Reason.CODEC_MISSING
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize(("bits", "stored", "coded", "signed", "predictor"), [
    (8, 8, 8, False, 1), (8, 6, 6, False, 1), (16, 12, 12, False, 1), (16, 16, 16, False, 6), (16, 16, 16, True, 1),
    (16, 12, 16, False, 4), (16, 12, 16, True, 7), (16, 12, 12, True, 2), (16, 8, 8, False, 1), (16, 15, 15, False, 5),
])
def test_jpeg_lossless(bits: int, stored: int, coded: int, signed: bool, predictor: int, tmp_path: Path) -> None:
    """`coded`: bits that the streams say. What the encoder was given comes out, but for the box."""
    low = -(1 << stored - 1) if signed else 0
    pixels = np.random.default_rng(6).integers(low, low + (1 << stored), (3, 64, 72)).astype(
        f"{'i' if signed else 'u'}{bits // 8}")
    words = pixels.astype("u2") & (1 << coded) - 1
    ds = dataset(64, 72, bits=bits, stored=stored, signed=signed, frames=3)
    data = encapsulated(ds, [encode(frame, coded, predictor=predictor) for frame in words],
                        SV1 if predictor == 1 else LOSSLESS)
    ours, _ = run(data, tmp_path, plan(tmp_path, *BOX))
    assert ours.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    pixels[:, 2:9, 3:20] = low
    assert np.array_equal(decoded(tmp_path / "out.dcm")[0], pixels)


@pytest.mark.parametrize("interleaved", [True, False])
def test_colour_of_jpeg_lossless(interleaved: bool, tmp_path: Path) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (64, 72, 3), np.uint8)
    ds = dataset(64, 72, samples=3, photometric="RGB")
    data = encapsulated(ds, [encode(pixels, 8, interleaved=interleaved)], SV1)
    ours, _ = run(data, tmp_path, plan(tmp_path, *BOX))
    pixels[2:9, 3:20] = 0
    assert np.array_equal(ours.pixel_array, pixels)


def test_jpeg_of_twelve_bits(tmp_path: Path) -> None:
    """The digest is of what DCMTK 3.6.7 (dcmdjpeg) decodes of pydicom's JPGExtended.dcm."""
    source = next(path for name, path in bundled() if name == "JPGExtended.dcm")
    every = plan(tmp_path, "LABEL any", "present SOPClassUID", "coordinates 0,0,1,1")
    ours, result = run(source.read_bytes(), tmp_path, every)
    assert result.source.transfer_syntax == EXTENDED and ours.BitsStored == 12
    decoded_samples = bytearray(ours.PixelData)
    assert decoded_samples[:2] == b"\0\0"
    assert hashlib.sha256(decoded_samples[2:]).hexdigest() == (
        "696e12bea82317c237f98758ce1e51a0cf1d1e5e168526f8051f48ea2cd22d6d")


@pytest.mark.parametrize("syntax", [JPEG, J2K, JPEG_LS, RLE, SV1])
def test_a_header_that_says_colour_by_plane(syntax: str, tmp_path: Path) -> None:
    """In a compressed frame the stream says how its colours stand; the box must not land elsewhere."""
    from PIL import Image

    noise = np.random.default_rng(8).integers(0, 256, (64, 72, 3), np.uint8)
    buffer = io.BytesIO()
    if syntax == SV1:
        buffer.write(encode(noise, 8))
    elif syntax in (JPEG, J2K):
        how = {"quality": 95, "subsampling": 0} if syntax == JPEG else {"no_jp2": True, "irreversible": False, "mct": 0}
        Image.fromarray(noise).save(buffer, "JPEG" if syntax == JPEG else "JPEG2000", **how)
    else:
        ds = dataset(64, 72, samples=3, photometric="RGB")
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.PixelData = noise.tobytes()
        ds["PixelData"].VR = "OB"
        ds.compress(syntax, generate_instance_uid=False)
        buffer.write(pydicom.encaps.get_frame(ds.PixelData, 0))
    out = []
    for planar in (0, 1):
        ds = dataset(64, 72, samples=3, photometric="YBR_FULL" if syntax == JPEG else "RGB", planar=planar)
        ours, _ = run(encapsulated(ds, [buffer.getvalue()], syntax), tmp_path, plan(tmp_path, *BOX))
        out.append(ours.PixelData)
        assert ours.PlanarConfiguration == 0
    assert out[0] == out[1]
    if syntax != JPEG:
        noise[2:9, 3:20] = 0
        assert out[1] == noise.tobytes()


@pytest.mark.parametrize("signed", [False, True])
def test_an_overlay_in_high_bits_of_a_compressed_frame(signed: bool, tmp_path: Path) -> None:
    """In signed samples the bits above the stored ones repeat the sign, and that is no overlay."""
    ds = dataset(32, 24, bits=16, signed=signed)
    ds.file_meta = pydicom.dataset.FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for value, comes_out in ((0x0123, 0x0123), (0x1123, 0x0123), (-5, -5) if signed else (0x0FFF, 0x0FFF)):
        ds.PixelData = np.full((32, 24), value, "<i2" if signed else "<u2").tobytes()
        ds["PixelData"].VR = "OW"
        ds.BitsStored, ds.HighBit = 16, 15
        ds.compress(RLE, generate_instance_uid=False)
        ds.BitsStored, ds.HighBit = 12, 11
        data = encapsulated(ds, [pydicom.encaps.get_frame(ds.PixelData, 0)], RLE)
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ours, _ = run(data, tmp_path, plan(tmp_path, *BOX))
        assert np.frombuffer(ours.PixelData, "<i2" if signed else "<u2")[20 * 24 + 20] == comes_out


def test_bits_in_compressed_frames_are_refused(tmp_path: Path) -> None:
    for syntax in (RLE, J2K):
        with pytest.raises(Refusal) as caught:
            run(encapsulated(dataset(32, 24, bits=1), [bytes(64)], syntax), tmp_path, plan(tmp_path, *BOX))
        assert caught.value.reason is Reason.UNSUPPORTED_STRUCTURE


def test_streams_that_say_another_size_are_not_decoded(tmp_path: Path) -> None:
    good = files.mammogram(transfer_syntax="jpeg")
    stream = pydicom.encaps.get_frame(pydicom.dcmread(io.BytesIO(good)).PixelData, 0)
    for change in ({"rows": 16}, {"columns": 400}, {"frames": 2}, {"samples": 3, "photometric": "RGB"}):
        ds = dataset(**({"rows": 64, "columns": 48} | change))      # type: ignore[arg-type]
        with pytest.raises(Refusal):
            run(encapsulated(ds, [stream], JPEG), tmp_path, plan(tmp_path, *BOX))
        assert not (tmp_path / "out.dcm").exists()
    for broken in (stream[:60] + bytes(40) + stream[100:], stream[:200]):
        with pytest.raises(Refusal):
            run(encapsulated(dataset(64, 48), [broken], JPEG), tmp_path, plan(tmp_path, *BOX))


def test_overlays_and_icons_do_not_survive_beside_a_rule(tmp_path: Path) -> None:
    icon = pydicom.Dataset()
    icon.Rows = icon.Columns = 4
    icon.PixelData = b"QUILLFEATHER1234"
    icon["PixelData"].VR = "OB"
    ds = dataset(32, 24, IconImageSequence=[icon])
    block = ds.private_block(0x0009, "MAKER", create=True)
    block.add_new(1, "OB", b"QUILLFEATHER")
    ds.add_new(0x60003000, "OW", b"QUILLFEATHER")
    ds.add_new(0x60000010, "US", 8)
    from pixels_kit import native

    run(native(ds, bytes(768)), tmp_path, plan(tmp_path, *BOX))
    assert b"QUILL" not in (tmp_path / "out.dcm").read_bytes()
    ds.add_new(0x60000102, "US", 8)
    with pytest.raises(Refusal) as caught:
        run(native(ds, bytes(768)), tmp_path, plan(tmp_path, *BOX))
    assert caught.value.reason is Reason.OVERLAY_IN_PIXELS


def test_without_a_rule_the_bytes_pass_as_before(tmp_path: Path) -> None:
    data = files.mammogram(transfer_syntax="jpeg2000")
    ours = run_shipped(data, tmp_path, MG)
    assert ours.PixelData == pydicom.dcmread(io.BytesIO(data)).PixelData


def real() -> list[Path]:
    found = [path for _, path in bundled()]
    return found + (sorted((CORPUS / "dicom").rglob("*.dcm")) if CORPUS.is_dir() else [])


def test_real_files_of_every_kind(tmp_path: Path) -> None:
    """pydicom's bundled files, and the corpus where it is there: painted over, or refused by reason."""
    with_plan = plan(tmp_path, "LABEL any", "present SOPClassUID", "coordinates 3,2,20,9")
    painted: Counter[str] = Counter()
    refused: Counter[Reason] = Counter()
    for path in real():
        if path.stat().st_size > 4 << 20:
            continue
        try:
            _, result = run(path.read_bytes(), tmp_path, with_plan)
        except Refusal as refusal:
            refused[refusal.reason] += 1
            continue
        if result.source.pixel is None:
            continue
        try:
            before, _ = decoded(tmp_path / "in.dcm")
        except Exception:
            painted["unread by pydicom"] += 1
            continue
        after, _ = decoded(tmp_path / "out.dcm")
        mask = np.zeros(before.shape[1:3], bool)
        mask[2:9, 3:20] = True
        source = pydicom.dcmread(tmp_path / "in.dcm", stop_before_pixels=True)
        native_pairs = not source.file_meta.TransferSyntaxUID.is_encapsulated
        if native_pairs and source.PhotometricInterpretation == "YBR_FULL_422":
            mask[2:9, 2:20] = True
        assert np.array_equal(before[:, ~mask], after[:, ~mask]), path.name
        inside = after[:, mask].reshape(-1, after.shape[3] if after.ndim == 4 else 1)
        assert len(np.unique(inside, axis=0)) == mask.any(), path.name
        painted[result.source.transfer_syntax] += 1
    print(painted, refused)
    assert sum(painted.values()) > 25
    assert {RLE, JPEG_LS, J2K, JPEG, EXTENDED, SV1} <= painted.keys()
    assert refused[Reason.CODEC_MISSING] == 0
    assert refused[Reason.ENGINE_FAILED] == 0



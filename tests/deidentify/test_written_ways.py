"""Every way DICOM is written: the same image, de-identified, is the same data set whichever way it came."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from test_engine import MG, SUBJECT, plan_of, run

from pipeline.deidentify.engine import rewrite
from pipeline.deidentify.facts import extract
from pipeline.dicom.inspect import inspect
from pipeline.model import Reason, Refusal
from pipeline.synthetic import files


def refused(data: bytes, tmp_path: Path) -> Reason:
    with pytest.raises(Refusal) as caught:
        run(data, tmp_path)
    assert not (tmp_path / "out.dcm").exists()
    return caught.value.reason


def facts_of(data: bytes, tmp_path: Path) -> dict[str, list[str]]:
    source, target = tmp_path / "f.dcm", tmp_path / "g.dcm"
    source.write_bytes(data)
    target.unlink(missing_ok=True)
    result = rewrite(source, target, MG, SUBJECT)
    found = extract(target.read_bytes()[:result.header_size], result.encoding)
    del found["TransferSyntaxUID"]
    return found


def same(one: Dataset, other: Dataset) -> None:
    """Equal but for the private block that implicit VR leaves without VRs."""
    assert [e.tag for e in one if not e.tag.is_private] == [e.tag for e in other if not e.tag.is_private]
    for element in one:
        if not element.tag.is_private and element.keyword != "PixelData":
            assert element.value == other[element.tag].value, element.tag
    assert np.array_equal(one.pixel_array, other.pixel_array)


@pytest.mark.parametrize("syntax", ["implicit", "big", "deflated"])
def test_the_same_image(syntax: str, tmp_path: Path) -> None:
    plain = run(files.mammogram(), tmp_path)
    plain.pixel_array  # noqa: B018 - before the file is replaced
    other = run(files.mammogram(transfer_syntax=syntax), tmp_path)
    same(plain, other)
    kept = ExplicitVRLittleEndian if syntax == "deflated" else other.file_meta.TransferSyntaxUID
    assert other.file_meta.TransferSyntaxUID == kept
    ours, theirs = (facts_of(files.mammogram(transfer_syntax=s), tmp_path) for s in (syntax, "explicit"))
    assert {k: v for k, v in ours.items() if k[0] != "("} == {k: v for k, v in theirs.items() if k[0] != "("}


def bare(data: bytes, meta: bool) -> bytes:
    """Return a file without preamble, with or without its meta information."""
    length = int.from_bytes(data[140:144], "little")
    return data[132 if meta else 144 + length:]


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
@pytest.mark.parametrize("meta", [True, False])
def test_without_preamble_or_meta_information(syntax: str, meta: bool, tmp_path: Path) -> None:
    plain = run(files.mammogram(transfer_syntax=syntax), tmp_path)
    plain.pixel_array  # noqa: B018
    data = bare(files.mammogram(transfer_syntax=syntax), meta)
    (tmp_path / "in.dcm").write_bytes(data)
    found = inspect(tmp_path / "in.dcm", 1 << 30)
    assert found.refusal is None
    assert found.transfer_syntax_uid == plain.file_meta.TransferSyntaxUID
    same(plain, run(data, tmp_path))


def test_compressed_pixels_without_meta_information_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.dcm").write_bytes(bare(files.mammogram(transfer_syntax="rle"), meta=False))
    found = inspect(tmp_path / "in.dcm", 1 << 30)
    assert found.refusal is not None
    assert found.refusal.reason is Reason.NOT_DICOM


def test_meta_information_without_group_length(tmp_path: Path) -> None:
    data = files.mammogram()
    same(run(data, tmp_path), run(data[:132] + data[144:], tmp_path))


def test_a_gzip_trailer_behind_a_deflated_data_set(tmp_path: Path) -> None:
    data = files.mammogram(transfer_syntax="deflated")
    start = 144 + int.from_bytes(data[140:144], "little")
    body = zlib.decompress(data[start:], -15)
    packer = zlib.compressobj(wbits=-15)
    data = data[:start] + packer.compress(body) + packer.flush()
    plain = run(files.mammogram(), tmp_path)
    plain.pixel_array  # noqa: B018
    same(plain, run(data + struct.pack("<II", zlib.crc32(body), len(body)), tmp_path))
    assert refused(data + struct.pack("<II", zlib.crc32(body) ^ 1, len(body)), tmp_path) is Reason.LEFT_OVER_BYTES


def unknown(data: bytes, tag: bytes, vr: bytes, value: bytes, undefined: bool = False) -> bytes:
    """Return the file with one explicit element written as UN, as a gateway that does not know it does."""
    at = data.index(tag + vr)
    long = vr in (b"SQ", b"OB", b"OW")
    length = int.from_bytes(data[at + 8:at + 12] if long else data[at + 6:at + 8], "little")
    end = at + (12 if long else 8) + length
    header = tag + b"UN\0\0" + (b"\xff" * 4 if undefined else len(value).to_bytes(4, "little"))
    return data[:at] + header + value + data[end:]


def implicit_item(*elements: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value for tag, value in elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


VIEW = implicit_item((0x00080100, b"R-10226 "), (0x00080102, b"SRT "), (0x00080104, b"QUILLFEATHER SAYS MLO "))


@pytest.mark.parametrize("undefined", [True, False])
def test_a_known_sequence_that_stands_as_un(undefined: bool, tmp_path: Path) -> None:
    value = VIEW + (struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if undefined else b"")
    ours = run(unknown(files.mammogram(), b"\x54\0\x20\x02", b"SQ", value, undefined), tmp_path)
    assert ours["ViewCodeSequence"].VR == "SQ"
    assert ours.ViewCodeSequence[0].CodeValue == "R-10226"
    assert [e.VR for e in ours.ViewCodeSequence[0]] == ["SH", "SH", "LO"]


def test_a_known_number_that_stands_as_un(tmp_path: Path) -> None:
    ours = run(unknown(files.mammogram(), b"\x18\0\x60\0", b"DS", b"31"), tmp_path)
    assert (ours["KVP"].VR, ours.KVP) == ("DS", 31)
    assert refused(unknown(files.mammogram(), b"\x18\0\x60\0", b"DS", b"Jo"), tmp_path) is Reason.VALUE_MALFORMED
    assert refused(unknown(files.mammogram(transfer_syntax="explicit"), b"\x28\0\x06\x01", b"US", b"\0\0")
                   if b"\x28\0\x06\x01US" in files.mammogram() else
                   files.mammogram().replace(b"\x18\0\x60\0DS", b"\x18\0\x60\0LO"), tmp_path) is Reason.VR_MISMATCH


def test_undefined_lengths_become_defined(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(files.mammogram()))
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert buffer.getvalue() != files.mammogram()
    plain = run(files.mammogram(), tmp_path)
    plain.pixel_array  # noqa: B018
    same(plain, run(buffer.getvalue(), tmp_path))


def test_elements_behind_the_pixel_data_go(tmp_path: Path) -> None:
    name = b"ARAMINTA QUILLFEATHER "
    tail = struct.pack("<HH2sH", 0x7FE1, 0x0010, b"LO", len(name)) + name
    tail += struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, len(name)) + name
    plain = run(files.mammogram(), tmp_path)
    plain.pixel_array  # noqa: B018
    same(plain, run(files.mammogram() + tail, tmp_path))
    assert name not in (tmp_path / "out.dcm").read_bytes()


@pytest.mark.parametrize(("charset", "text"), [
    ("ISO_IR 100", "Müller"), ("ISO_IR 192", "Ελένη"), ("ISO_IR 144", "Люкceмбypг"), ("GB18030", "王小东"),
    ("GBK", "王小东"), ("ISO_IR 126", "Διονυσιος"), ("ISO_IR 127", "قباني"), ("ISO_IR 138", "שרון"),
    ("ISO_IR 13", "ﾔﾏﾀﾞ"), ("ISO_IR 166", "นามสกุล"), ("ISO_IR 148", "Çavuşoğlu"), ("ISO_IR 101", "Wałęsa"),
    ("ISO_IR 109", "Ĥŭ"), ("ISO_IR 110", "Ķēniņš"), (["", "ISO 2022 IR 87"], "山田"),
    (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ山田"), (["", "ISO 2022 IR 149"], "홍길동"),
    (["", "ISO 2022 IR 100"], "Müller"),
])
def test_every_character_set(charset: str | list[str], text: str, tmp_path: Path) -> None:
    """Kept text reads as before, what is replaced is ASCII, what is dropped is gone."""
    data = files.mammogram(SpecificCharacterSet=charset, patient_name=f"{text}^{text}", PaddleDescription=text,
                           PatientComments=text, operator=f"{text}^X")
    plain = pydicom.dcmread(io.BytesIO(data))
    assert plain.PaddleDescription == text, "the test's own file"
    ours = run(data, tmp_path)
    assert ours.PaddleDescription == text
    assert ours.SpecificCharacterSet == plain.SpecificCharacterSet
    assert ours.PatientName == ""
    assert str(ours.OperatorsName).startswith("O")
    assert "PatientComments" not in ours
    assert facts_of(data, tmp_path)["PaddleDescription"] == [text]


def test_the_character_set_that_pydicom_does_not_write(tmp_path: Path) -> None:
    data = files.mammogram(SpecificCharacterSet=["", "ISO 2022 IR 58"], PaddleDescription="PLACEHOLD0")
    data = data.replace(b"PLACEHOLD0", b"\x1b$)A" + "张小东".encode("gb2312"))
    assert run(data, tmp_path).PaddleDescription.endswith("张小东")     # pydicom leaves the escape sequence
    assert facts_of(data, tmp_path)["PaddleDescription"][0].endswith("张小东")


def test_an_item_with_a_character_set_of_its_own(tmp_path: Path) -> None:
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 192"
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-10226", "SRT", "Ελένη"
    data = files.mammogram(SpecificCharacterSet="ISO_IR 100", ViewCodeSequence=[item], PaddleDescription="Müller")
    ours = run(data, tmp_path)
    assert ours.ViewCodeSequence[0].CodeMeaning == "Ελένη"
    assert ours.PaddleDescription == "Müller"
    assert facts_of(data, tmp_path)["ViewCodeSequence.CodeMeaning"] == ["Ελένη"]
    broken = data.replace("Ελένη".encode(), b"\xff\xfe\xff\xfe\xff\xfe\xff\xfe\xff\xfe")
    assert refused(broken, tmp_path) is Reason.CHARSET_UNSUPPORTED


def test_text_that_does_not_decode_is_not_passed(tmp_path: Path) -> None:
    data = files.mammogram(SpecificCharacterSet="ISO_IR 192", PaddleDescription="ABCDEFGH")
    assert refused(data.replace(b"ABCDEFGH", b"\xff\xfe\xfd\xfcEFGH"), tmp_path) is Reason.CHARSET_UNSUPPORTED


def test_private_elements_of_implicit_vr(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "# weaker: this test", 'KEEP (0045,"GEMS_SENO_02",49)')
    ours = run(files.mammogram(transfer_syntax="implicit"), tmp_path, plan)
    theirs = run(files.mammogram(), tmp_path, plan)
    block = ours.private_block(0x0045, "GEMS_SENO_02")
    assert str(block[0x49].value) == str(theirs.private_block(0x0045, "GEMS_SENO_02")[0x49].value)


def test_one_creator_twice(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "# weaker: this test", 'KEEP (0045,"GEMS_SENO_02",49)')
    data = files.mammogram()
    creator = b"\x45\0\x10\0LO\x0c\0GEMS_SENO_02"
    at = data.index(creator)
    again = b"\x45\0\x11\0LO\x0c\0GEMS_SENO_02"
    with pytest.raises(Refusal) as caught:
        run(data[:at + len(creator)] + again + data[at + len(creator):], tmp_path, plan)
    assert caught.value.reason is Reason.ELEMENT_REPEATED


def in_fragments(data: bytes, cut: int, table: bool) -> bytes:
    """Return an encapsulated single frame cut into two fragments, with or without an offset table."""
    at = data.rindex(b"\xe0\x7f\x10\0OB")
    first = data.index(b"\xfe\xff\0\xe0", at)
    second = data.index(b"\xfe\xff\0\xe0", first + 8)
    length = int.from_bytes(data[second + 4:second + 8], "little")
    frame = data[second + 8:second + 8 + length]
    offsets = b"\0\0\0\0" if table else b""

    def item(value: bytes) -> bytes:
        return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value

    return data[:first] + item(offsets) + item(frame[:cut]) + item(frame[cut:]) + data[second + 8 + length:]


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("cut", [2, 40, 300])
def test_a_frame_in_fragments_is_read_as_one(cut: int, table: bool, tmp_path: Path) -> None:
    """A comment that lies across two fragments is blanked in both."""
    comment = b"ARAMINTA QUILLFEATHER " * 20
    data = in_fragments(files.mammogram(transfer_syntax="jpeg", stream_comment=comment), cut, table)
    plain = run(files.mammogram(transfer_syntax="jpeg"), tmp_path)
    samples = plain.pixel_array
    ours = run(data, tmp_path)
    assert b"QUILLFEATHER" not in (tmp_path / "out.dcm").read_bytes()
    assert np.array_equal(ours.pixel_array, samples)


def test_bytes_behind_the_last_run_of_rle(tmp_path: Path) -> None:
    data = files.mammogram(transfer_syntax="rle")
    at = data.rindex(b"\xfe\xff\0\xe0")
    length = int.from_bytes(data[at + 4:at + 8], "little")
    name = b"QUILLFEATHER"
    longer = data[:at + 4] + (length + len(name)).to_bytes(4, "little") + data[at + 8:at + 8 + length] + name
    assert refused(longer + data[at + 8 + length:], tmp_path) is Reason.PIXEL_STREAM_UNSAFE


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big", "deflated"])
def test_bits_above_the_stored_ones(syntax: str, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(files.mammogram()))
    samples = dataset.pixel_array.copy()
    samples[5, 5] |= 1 << 14
    dataset.PixelData = samples.tobytes()
    if syntax == "big":
        dataset.PixelData = samples.astype(">u2").tobytes()
    buffer = io.BytesIO()
    options = {"implicit": (ImplicitVRLittleEndian, True, True), "big": (ExplicitVRBigEndian, False, False)}
    if syntax in options:
        uid, implicit, little = options[syntax]
        dataset.file_meta.TransferSyntaxUID = uid
        pydicom.dcmwrite(buffer, dataset, implicit_vr=implicit, little_endian=little)
    elif syntax == "deflated":
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        dataset.save_as(buffer)
    else:
        dataset.save_as(buffer)
    assert refused(buffer.getvalue(), tmp_path) is Reason.OVERLAY_IN_PIXELS


@pytest.mark.parametrize(("signed", "sample", "sound"), [
    (0, 0x0FFF, True), (0, 0x0042, True), (0, 0x4042, False), (0, 0x1000, False),
    (1, 0x07FF, True), (1, 0xF800, True), (1, 0xFFFF, True), (1, 0x0800, False), (1, 0x3000, False), (1, 0xE000, False),
])
def test_bits_above_the_stored_ones_of_rle(signed: int, sample: int, sound: bool, tmp_path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(files.mammogram(PixelRepresentation=signed, SmallestImagePixelValue=None,
                                                         LargestImagePixelValue=None)))
    samples = np.full((64, 48), 0x0042, dtype="<u2")
    samples[5, 5:9] = [sample, 1, sample, 2]        # in a literal run
    samples[9] = sample                             # in a replicated one
    dataset.PixelData = samples.tobytes()
    dataset.BitsStored, dataset.HighBit = 16, 15
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = 12, 11
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    if sound:
        run(buffer.getvalue(), tmp_path)
    else:
        assert refused(buffer.getvalue(), tmp_path) is Reason.OVERLAY_IN_PIXELS


def test_signed_samples_repeat_their_sign_above_the_stored_bits(tmp_path: Path) -> None:
    dataset = pydicom.dcmread(io.BytesIO(files.mammogram(PixelRepresentation=1)))
    samples = np.full((64, 48), -1000, dtype="<i2")
    for spoilt in (False, True):
        if spoilt:
            samples[3, 3] = 0x3000
        dataset.PixelData = samples.tobytes()
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        if spoilt:
            assert refused(buffer.getvalue(), tmp_path) is Reason.OVERLAY_IN_PIXELS
        else:
            assert (run(buffer.getvalue(), tmp_path).pixel_array == -1000).all()


@pytest.mark.parametrize(("signed", "vr"), [(0, "US"), (1, "SS")])
def test_of_two_vrs_an_unknown_one_is_what_the_pixels_are(signed: int, vr: str, tmp_path: Path) -> None:
    """PS3.3 C.7.6.3.1.1: padding is signed where pixels are."""
    data = files.mammogram(PixelPaddingValue=7, pixels=False)
    data = unknown(data, b"\x28\0\x20\1", b"US", b"\7\0")
    represented = b"\x28\0\3\1US\2\0"
    assert represented in data
    ours = run(data.replace(represented + b"\0", represented + bytes([signed])), tmp_path)
    assert (ours["PixelPaddingValue"].VR, ours.PixelPaddingValue) == (vr, 7)
    assert refused(data.replace(represented + b"\0", represented + b"\2"), tmp_path) is Reason.VR_MISMATCH


def test_a_decimal_comma_is_neither_text_nor_a_number(tmp_path: Path) -> None:
    """Some devices write two filters' thicknesses so; the tables will say that it is no number."""
    data = files.mammogram().replace(b"\x18\0\x60\0DS\x02\x0029", b"\x18\0\x60\0DS\x02\x009,")
    assert run(data, tmp_path).get_item("KVP").value.strip() == b"9,"
    whole = b"\x20\0\x13\0IS\x02\x00"          # Instance Number
    at = files.mammogram().index(whole) + len(whole)
    data = files.mammogram()[:at] + b"1," + files.mammogram()[at + 2:]
    assert refused(data, tmp_path) is Reason.VALUE_MALFORMED

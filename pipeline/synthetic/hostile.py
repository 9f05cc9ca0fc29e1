"""Files that try something, by name, each with the fate it must have. Their neighbours must pass untouched.

What pydicom cannot write is written with struct, element by element (PS3.5 7.1). Fates hold for a project that admits
the SOP classes of mammography, tomosynthesis, CT, dose and CAD reports, with the person permitted and linked.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian, DigitalMammographyXRayImageStorageForPresentation

from pipeline.model import Reason, Status
from pipeline.synthetic import encode, files

LONG = frozenset({"OB", "OW", "OF", "SQ", "UC", "UN", "UR", "UT"})
UNDEFINED = 0xFFFFFFFF
HIDDEN = b"ARAMINTA QUILLFEATHER"


@dataclass(frozen=True)
class Hostile:
    """One file and its fate; `status` pending with no reason is a file that must be released, made harmless."""

    name: str
    data: bytes
    status: Status
    reason: Reason | None
    why: str


def element(tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
    """Return one explicit little endian element; `length` is what it claims, its value's own length unless given."""
    claimed = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    return head + (struct.pack("<HI", 0, claimed) if vr in LONG else struct.pack("<H", claimed)) + value


def text(tag: int, vr: str, value: str) -> bytes:
    raw = value.encode("latin-1")
    return element(tag, vr, raw + (b"\x00" if vr == "UI" else b" ") * (len(raw) % 2))


def nested(depth: int, defined: bool) -> bytes:
    """Return a Content Sequence (0040,A730) in which `depth` sequences stand in one another."""
    inner = b""
    for _ in range(depth):
        if defined:
            inner = element(0x0040A730, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner)
        else:
            opened = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
            closed = struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
            inner = element(0x0040A730, "SQ", opened + inner + closed, UNDEFINED)
    return inner


def raw(*last: bytes, first: bytes = b"", seed: str = "raw", syntax: str = "1.2.840.10008.1.2.1",
        squeeze: Callable[[bytes], bytes] = bytes, **options: Any) -> bytes:
    """Return a small file without pixels, written by hand: `first` stands before the name, `last` at the end."""
    o, _ = files.split(options)
    sop_class = DigitalMammographyXRayImageStorageForPresentation
    instance = encode.uid("hostile", seed, o.patient_id)
    body = b"".join([
        text(0x00080016, "UI", sop_class), text(0x00080018, "UI", instance), text(0x00080020, "DA", o.study_date or ""),
        text(0x00080060, "CS", "MG"), first, text(0x00100010, "PN", o.patient_name or ""),
        text(0x00100020, "LO", o.patient_id or ""), text(0x00100021, "LO", o.issuer or ""),
        text(0x0020000D, "UI", encode.uid("hostile study", o.patient_id)),
        text(0x0020000E, "UI", encode.uid("hostile series", o.patient_id)), *last,
    ])
    meta = b"".join([
        element(0x00020001, "OB", b"\x00\x01"), text(0x00020002, "UI", sop_class), text(0x00020003, "UI", instance),
        text(0x00020010, "UI", syntax), text(0x00020012, "UI", encode.IMPLEMENTATION),
    ])
    return b"\x00" * 128 + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + squeeze(body)


def bomb(mebibytes: int) -> Callable[[bytes], bytes]:
    """Return a function that deflates a data set and so many mebibytes of zeros behind it, in a thousandth of that."""
    def squeeze(body: bytes) -> bytes:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        start = deflate.compress(body) + deflate.flush(zlib.Z_FULL_FLUSH)
        block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
        return start + block * mebibytes + deflate.flush()

    return squeeze


def before_name(data: bytes, extra: bytes) -> bytes:
    at = data.index(struct.pack("<HH", 0x0010, 0x0010) + b"PN")
    return data[:at] + extra + data[at:]


def swallow(data: bytes) -> bytes:
    """Put Patient's Name and Patient ID inside the value of a private UT element that stands before them."""
    start = data.index(struct.pack("<HH", 0x0010, 0x0010) + b"PN")
    end = data.index(struct.pack("<HH", 0x0010, 0x0021) + b"LO")
    creator = text(0x00090010, "LO", "SYNTHETIC")
    return data[:start] + creator + element(0x00091001, "UT", data[start:end]) + data[end:]


def hostile(**options: Any) -> list[Hostile]:
    """Return the hostile files; `options` (of files.Options) say whose they are: only the trick stops them."""
    o, _ = files.split(options)

    def mg(seed: str, **more: Any) -> bytes:
        with warnings.catch_warnings():         # pydicom writes the offending value into them
            warnings.simplefilter("ignore")
            return files.mammogram(**{**options, "seed": f"hostile {seed}", **more})

    q, rejected, pending = Status.QUARANTINED, Status.REJECTED, Status.PENDING
    plain = mg("plain")
    jpeg = mg("truncated", transfer_syntax="jpeg")
    size = len(plain)
    claims = text(0x00090010, "LO", "SYNTHETIC") + element(0x00091001, "UT", b"", 0xFFFFFFF0)
    sop = "SOPInstanceUID"
    huge = mg("huge", transfer_syntax="rle", Rows=65535, Columns=65535)
    table: list[tuple[str, bytes, Status, Reason | None, str]] = [
        ("readme.txt", b"Images of Araminta Quillfeather, please do not delete.\n" * 20, rejected, Reason.NOT_DICOM,
         "text, not DICOM"),
        ("empty.dcm", b"", rejected, Reason.EMPTY, "no bytes"),
        ("truncated_native.dcm", plain[:size - 1000], rejected, Reason.TRUNCATED, "native pixel data cut short"),
        ("truncated_encapsulated.dcm", jpeg[:len(jpeg) - 500], rejected, Reason.TRUNCATED, "a fragment cut short"),
        ("claims_4_gb.dcm", before_name(mg("4gb"), claims), rejected, Reason.LENGTH_BEYOND_END, "UT that claims 4 GB"),
        ("swallows_name.dcm", swallow(mg("swallow")), q, Reason.PERSON_ID_MISSING, "UT that holds name and id"),
        ("nested_undefined_200.dcm", raw(nested(200, False), seed="u200", **options), rejected, Reason.NESTING_TOO_DEEP,
         "undefined lengths, 200 deep"),
        ("nested_defined_250.dcm", raw(nested(250, True), seed="d250", **options), rejected, Reason.NESTING_TOO_DEEP,
         "defined lengths, 250 deep"),
        ("deflated.dcm", mg("deflated", transfer_syntax="deflated"), pending, None, "deflated"),
        ("deflate_bomb.dcm", raw(seed="bomb", syntax=DeflatedExplicitVRLittleEndian, squeeze=bomb(320), **options),
         rejected, Reason.TOO_LARGE, "320 KB that inflate to 320 MB"),
        ("big_endian.dcm", mg("big", transfer_syntax="big"), pending, None, "big endian"),
        ("bytes_after_end.dcm", mg("after") + b"TRAILER " + HIDDEN, rejected, Reason.LEFT_OVER_BYTES,
         "bytes after the end"),
        ("elf_preamble.dcm", mg("elf", preamble=b"\x7fELF\x02\x01\x01" + HIDDEN), pending, None, "a program's start"),
        ("mz_preamble.dcm", mg("mz", preamble=b"MZ\x90\x00" + HIDDEN), pending, None, "a program's start"),
        ("dot_dot_uid.dcm", mg("dots", sop_instance_uid="../../../../tmp/x", MediaStorageSOPInstanceUID="1.2.3"),
         rejected, Reason.INVALID_UID, "a path as SOP Instance UID"),
        ("no_instance_uid.dcm", mg("noi", MediaStorageSOPInstanceUID="1.2.3", **{sop: None}), rejected,
         Reason.MISSING_UID, "no SOP Instance UID"),
        ("no_study_uid.dcm", mg("nostudy", StudyInstanceUID=None), rejected, Reason.MISSING_UID,
         "no Study Instance UID"),
        ("meta_contradicts.dcm", mg("meta", MediaStorageSOPInstanceUID="1.2.3"), pending, None,
         "meta information names another instance: it is written anew from the data set"),
        ("jpeg_comment.dcm", mg("com", transfer_syntax="jpeg", stream_comment=HIDDEN), pending, None,
         "a name in a JPEG comment"),
        ("jpeg2000_comment.dcm", mg("com2", transfer_syntax="jpeg2000", stream_comment=HIDDEN), pending, None,
         "a name in a JPEG 2000 comment"),
        ("jpeg_after_end.dcm", mg("tail", transfer_syntax="jpeg", stream_tail=HIDDEN), q, Reason.PIXEL_STREAM_UNSAFE,
         "a name after the end of the JPEG"),
        ("burned_in.dcm", mg("burned", BurnedInAnnotation="YES"), q, Reason.PIXELS_NEED_CLEANING, "burned-in text"),
        ("secondary_capture.dcm", files.secondary_capture(**options), rejected, Reason.SOP_CLASS_NOT_ELIGIBLE,
         "a photograph of a screen; pixels_need_cleaning where its class is admitted"),
        ("dose_report.dcm", files.dose_report(**options, quirk="comment"), pending, None,
         "a structured report with names in its content"),
        ("rle_huge_geometry.dcm", huge, q, Reason.PIXEL_GEOMETRY, "a few kilobytes of RLE that say 65535 by 65535"),
        ("short_pixels.dcm", mg("short", Rows=128), q, Reason.PIXEL_GEOMETRY, "native pixel data of half the length"),
        ("name_in_paddle.dcm", mg("paddle", study_uid=encode.uid("paddle"), PaddleDescription=o.words), q,
         Reason.RESIDUAL_IDENTIFIER, "the person's name in an element that the recipe keeps"),
        ("no_patient_id.dcm", mg("noid", patient_id=None, study_uid=encode.uid("no id")), q, Reason.PERSON_ID_MISSING,
         "no Patient ID"),
        ("twin_a.dcm", mg("twin"), pending, None, "an ordinary image, for the next"),
        ("twin_b.dcm", mg("twin"), Status.DUPLICATE, Reason.SAME_BYTES, "the same bytes again"),
        ("other_a.dcm", mg("other"), Status.CONFLICT, Reason.SAME_UID_OTHER_BYTES, "which is right is not known"),
        ("other_b.dcm", mg("other", KVP="33"), Status.CONFLICT, Reason.SAME_UID_OTHER_BYTES, "other bytes, same UID"),
    ]
    return [Hostile(*row) for row in table]


def write(directory: Path, **options: Any) -> dict[str, tuple[Status, Reason | None]]:
    """Write the hostile files, a symbolic link and a FIFO into a directory; return the fate of each by name."""
    directory.mkdir(parents=True, exist_ok=True)
    fates = {}
    for one in hostile(**options):
        (directory / one.name).write_bytes(one.data)
        fates[one.name] = (one.status, one.reason)
    if not (directory / "link.dcm").is_symlink():
        (directory / "link.dcm").symlink_to("twin_a.dcm")
    if not (directory / "pipe.dcm").exists():
        os.mkfifo(directory / "pipe.dcm")
    special = (Status.REJECTED, Reason.NOT_A_REGULAR_FILE)
    return fates | {"link.dcm": special, "pipe.dcm": special}

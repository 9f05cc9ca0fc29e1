"""Marks in every place a file, a name or a table has, in six character sets; and the site that holds them.

A place is planted in a packed file (`main`, `implicit`, `jpeg`, `jpeg2000`, `rle`), which must be published without it,
or in a file of its own whose fate may be quarantine. Each place has another mark in each character set: an ASCII word
and a word in the set's own script, so that what is found says where it came from. Marks share a stem: half a mark is
found too.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from pydicom.config import disable_value_validation
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items

from pipeline.synthetic import encode, files
from pipeline.synthetic.project import project_text

NAME = "leak-test"
KEY = hashlib.sha256(b"the leak test's key").hexdigest()
STEM, LETTERS = "QXJZVK", "BCDFGHJKLMNPRSTW"
UID_STEM = "1.2.826.0.1.3680043.9.77031."
TIME_STEM = "041737.918"
LANDED_AT = 1_700_000_000


# ---- marks -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Script:
    """One character set (PS3.3 C.12.1.1.2), and words in a script of it."""

    name: str
    term: Any               # Specific Character Set
    codec: str
    stem: str
    letters: str            # sixteen


SCRIPTS = (
    Script("latin1", "ISO_IR 100", "latin_1", "Éñüçö", "àâäåæèêëìîïðòôõø"),
    Script("utf8", "ISO_IR 192", "utf-8", "ჟღყშჩ", "აბგდევზთიკლმნოპრ"),
    Script("cyrillic", "ISO_IR 144", "iso8859_5", "Щъжюэ", "абвгдезийклмнопр"),
    Script("japanese", ["", "ISO 2022 IR 87"], "iso2022_jp", "鷺沼榊槙", "一二三四五六七八九百千山川田中村"),
    Script("chinese", "GB18030", "gb18030", "骉淼焱垚", "甲乙丙丁戊己庚辛壬癸子丑寅卯辰巳"),
    Script("korean", ["", "ISO 2022 IR 149"], "euc_kr", "꿩뜸쑥헹", "가나다라마바사아자차카타파하거너"),
)


@dataclass(frozen=True)
class Mark:
    """What is planted in one place in one character set."""

    place: str
    number: int
    script: Script

    def _word(self, stem: str, letters: str) -> str:
        return stem + "".join(letters[self.number >> shift & 15] for shift in (8, 4, 0))

    @property
    def ascii(self) -> str:
        return self._word(STEM, LETTERS)

    @property
    def native(self) -> str:
        return self._word(self.script.stem, self.script.letters)

    @property
    def text(self) -> str:
        return f"{self.ascii} {self.native}"

    @property
    def bytes(self) -> bytes:
        raw = b" ".join((self.ascii.encode(), self.native.encode(self.script.codec), self.native.encode("utf-8"),
                         self.native.encode("utf-16-le"), self.ascii.encode("utf-16-le")))
        return raw + b"\0" * (len(raw) % 2)

    @property
    def uid(self) -> str:
        return f"{UID_STEM}{self.number}.1"




# ---- places ------------------------------------------------------------------------------------------------------
Plant = Callable[[Dataset, Mark], None]
Bytes = Callable[[bytes, Mark], bytes]
PACKED = ("main", "implicit", "jpeg", "jpeg2000", "rle")
WHOLE = (*PACKED, "report")     # files that must be published


@dataclass
class Place:
    """`file`: a packed one, or the place's own. `kind`: which data set it is. `after`: changes the file's bytes."""

    name: str
    file: str
    plant: Plant | None = None
    meta: Callable[[Mark], dict[str, Any]] | None = None
    after: Bytes | None = None
    kind: str = "mammogram"
    syntax: str = "explicit"
    published: bool = False     # a file of its own that may be published: without the mark
    shows: str = ""             # by which label it is found where it was planted; its own unless said
    known: str = ""             # a leak that is known, and why


PLACES: list[Place] = []


def in_packed(name: str, plant: Plant, *packed: str) -> None:
    for file in packed or ("main",):
        PLACES.append(Place(name if file == "main" else f"{name} ({file})", file, plant))


def alone(name: str, plant: Plant | None = None, **more: Any) -> None:
    PLACES.append(Place(name, name.replace(" ", "_").replace(",", ""), plant, **more))


def put(tag: str | int, value: Callable[[Mark], Any], vr: str | None = None) -> Plant:
    def plant(ds: Dataset, mark: Mark) -> None:
        number = tag if isinstance(tag, int) else _tag(tag)
        ds.add_new(number, vr or dictionary_VR(number), value(mark))

    return plant


def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    found = tag_for_keyword(keyword)
    assert found is not None, keyword
    return found


def text(m: Mark) -> str:
    return m.text


def word(m: Mark) -> str:
    return m.ascii


def raw(m: Mark) -> bytes:
    return m.bytes


def uid(m: Mark) -> str:
    return m.uid


def nested(*path: str | int) -> Plant:
    """Plant a text at the end of a path of sequences, each made where it is not there."""
    *sequences, last = path

    def plant(ds: Dataset, mark: Mark) -> None:
        for step in sequences:
            number = step if isinstance(step, int) else _tag(step)
            if number not in ds:
                ds.add_new(number, "SQ", Items([Dataset()]))
            elif not ds[number].value:
                ds[number].value.append(Dataset())
            ds = ds[number].value[0]
        number = last if isinstance(last, int) else _tag(last)
        vr = "LO" if number >> 16 & 1 else dictionary_VR(number)
        ds.add_new(number, vr, mark.uid if vr == "UI" else mark.text)

    return plant


def _texts() -> None:
    for keyword in (
        "StudyDescription", "SeriesDescription", "InstitutionName", "InstitutionalDepartmentName", "ProtocolName",  # LO
        "StationName", "AccessionNumber", "StudyID", "PerformedProcedureStepID",                                    # SH
        "InstitutionAddress", "DerivationDescription", "ContrastBolusAgent", "AcquisitionComments",                 # ST
        "PatientComments", "ImageComments", "AdditionalPatientHistory", "VisitComments", "CommentsOnRadiationDose", # LT
        "TextValue", "PatientAddress", "EthnicGroup", "Occupation", "MilitaryRank", "PatientTelephoneNumbers",
        "MedicalAlerts", "Allergies", "RequestedProcedureDescription", "AdmissionID", "CurrentPatientLocation",
        "DeviceSerialNumber", "DetectorID", "PlateID", "CassetteID", "GantryID",
        "LongCodeValue", "StrainDescription",                                                                       # UC
        "OtherPatientIDs", "MedicalRecordLocator", "ExposureControlModeDescription", "PatientReligiousPreference",
    ):
        in_packed(f"text: {keyword}", put(keyword, text))
    in_packed("text: RetrieveURL", put("RetrieveURL", lambda m: f"https://{m.ascii}.example/{m.ascii}"))
    in_packed("text: RetrieveAETitle", put("RetrieveAETitle", word))
    in_packed("Patient ID", put("PatientID", word), *PACKED)
    in_packed("issuer of Patient ID", lambda ds, m: None)       # one for each person: see `Site`
    for keyword in ("ReferringPhysicianName", "PerformingPhysicianName", "OperatorsName", "PatientMotherBirthName",
                    "OtherPatientNames", "RequestingPhysician", "PatientBirthName", "ResponsiblePerson"):
        in_packed(f"name: {keyword}", put(keyword, lambda m: f"{m.ascii}^{m.native}"))


def _name_parts() -> None:
    """PatientName: five parts of the alphabetic group, then the ideographic and the phonetic group."""
    parts = ("family", "given", "middle", "prefix", "suffix", "ideographic family", "ideographic given",
             "phonetic family")

    def planter(index: int) -> Plant:
        def plant(ds: Dataset, mark: Mark) -> None:
            groups = [group.split("^") for group in str(ds.get("PatientName", "")).split("=")]
            groups = [group + [""] * (5 - len(group)) for group in [*groups, [], []][:3]]
            wide = index >= 5
            group, part = (0, index) if index < 5 else ((1, index - 5) if index < 7 else (2, 0))
            groups[group][part] = mark.native if wide else mark.ascii
            ds.PatientName = "=".join("^".join(g).rstrip("^") for g in groups)

        return plant

    for index, part in enumerate(parts):
        in_packed(f"PatientName, {part}", planter(index))


def _uids() -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID",
                    "SynchronizationFrameOfReferenceUID", "IrradiationEventUID", "InstanceCreatorUID", "DeviceUID",
                    "ConcatenationUID", "DimensionOrganizationUID", "StorageMediaFileSetUID",
                    "RelatedFrameOfReferenceUID", "FiducialUID"):
        in_packed(f"UID: {keyword}", put(keyword, uid))
    in_packed("UID: referenced, in a kept sequence", nested("SourceImageSequence", "ReferencedSOPInstanceUID"))
    in_packed("UID: referenced study", nested("ReferencedStudySequence", "ReferencedSOPInstanceUID"))
    in_packed("UID: dimension, in a kept sequence", nested("DimensionOrganizationSequence", "DimensionOrganizationUID"))
    in_packed("UID: SOP instance", put("SOPInstanceUID", uid), "implicit", "jpeg", "jpeg2000", "rle")
    in_packed("UID: referenced", nested("SourceImageSequence", "ReferencedSOPInstanceUID"), "implicit")


def _private() -> None:
    def block(creator: Callable[[Mark], str], group: int, vr: str, value: Callable[[Mark], Any]) -> Plant:
        def plant(ds: Dataset, mark: Mark) -> None:
            ds.add_new(group << 16 | 0x10, "LO", creator(mark))
            ds.add_new(group << 16 | 0x1013, vr, value(mark))

        return plant

    for file in ("main", "implicit"):
        in_packed("private: known creator, ST", block(lambda _: "GEMS_SENO_02", 0x0045, "ST", text), file)
        in_packed("private: unknown creator, LO", block(lambda _: "SOMEBODY 1.0", 0x0047, "LO", text), file)
        in_packed("private: unknown creator, OB", block(lambda _: "SOMEBODY 1.0", 0x0049, "OB", raw), file)
        in_packed("private: unknown creator, UN", block(lambda _: "SOMEBODY 1.0", 0x004B, "UN", raw), file)
        in_packed("private: the creator itself", block(text, 0x004D, "LO", lambda _: "x"), file)
        in_packed("private: without creator", put(0x004F1010, text, "LO"), file)
        in_packed("private: sequence", block(lambda _: "SOMEBODY 1.0", 0x0051, "SQ", lambda m: Items([_one(m)])), file)
        in_packed("private: sequence of undefined length", undefined_length, file)
        in_packed("private: in an item of a kept sequence", nested("ViewCodeSequence", 0x00551010), file)
    in_packed("private: UN of undefined length", un_of_undefined_length)


def _one(mark: Mark) -> Dataset:
    ds = Dataset()
    ds.PatientName = mark.text
    ds.PatientComments = mark.text
    return ds


def undefined_length(ds: Dataset, mark: Mark) -> None:
    ds.add_new(0x00530010, "LO", "SOMEBODY 1.0")
    ds.add_new(0x00531010, "SQ", Items([_one(mark)]))
    ds[0x00531010].is_undefined_length = True
    ds[0x00531010].value[0].is_undefined_length_sequence_item = True


def un_of_undefined_length(ds: Dataset, mark: Mark) -> None:
    """A sequence in implicit VR, as UN (PS3.5 6.2.2, note 2)."""
    value = mark.bytes
    element = struct.pack("<HHI", 0x0010, 0x4000, len(value)) + value
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(element)) + element
    ds.add_new(0x00570010, "LO", "SOMEBODY 1.0")
    ds.add(DataElement(0x00571010, "UN", item, is_undefined_length=True))


def _nested() -> None:
    in_packed("1 deep", nested("RequestAttributesSequence", "ScheduledProcedureStepDescription"), "main", "implicit")
    in_packed("2 deep", nested("RequestAttributesSequence", "RequestedProcedureCodeSequence", "CodeMeaning"), "main",
              "implicit")
    in_packed("5 deep", nested(*["ContentSequence"] * 5, "TextValue"), "main", "implicit")
    kept = ("SharedFunctionalGroupsSequence", "FrameAnatomySequence", "AnatomicRegionSequence",
            "ViewModifierCodeSequence", "PartialViewCodeSequence")
    for depth in (1, 2, 5):
        in_packed(f"{depth} deep in kept sequences", nested(*kept[:depth], "PatientComments"), "main", "implicit")
    in_packed("2 deep, other ids", nested("OtherPatientIDsSequence", "PatientID"))
    in_packed("graphic annotation", nested("GraphicAnnotationSequence", "TextObjectSequence", "UnformattedTextValue"))
    in_packed("graphic layer", nested("GraphicLayerSequence", "GraphicLayerDescription"))
    in_packed("LUT explanation in a kept sequence", nested("VOILUTSequence", "LUTExplanation"))
    in_packed("original attributes", nested(
        "OriginalAttributesSequence", "ModifiedAttributesSequence", "PatientAddress"))


def icon(ds: Dataset, mark: Mark) -> None:
    inner = Dataset()
    inner.SamplesPerPixel, inner.PhotometricInterpretation, inner.Rows, inner.Columns = 1, "MONOCHROME2", 2, 48
    inner.BitsAllocated, inner.BitsStored, inner.HighBit, inner.PixelRepresentation = 8, 8, 7, 0
    inner.PixelData = mark.bytes[:96].ljust(96, b"\0")
    inner["PixelData"].VR = "OB"
    ds.IconImageSequence = Items([inner])


def overlay(ds: Dataset, mark: Mark) -> None:
    ds.add_new(0x60000010, "US", 64)
    ds.add_new(0x60000011, "US", 48)
    ds.add_new(0x60000040, "CS", "G")
    ds.add_new(0x60000050, "SS", [1, 1])
    ds.add_new(0x60000100, "US", 1)
    ds.add_new(0x60000102, "US", 0)
    ds.add_new(0x60003000, "OW", mark.bytes.ljust(384, b"\0")[:384])


def curve(ds: Dataset, mark: Mark) -> None:
    ds.add_new(0x50000005, "US", 2)
    ds.add_new(0x50000010, "US", 8)
    ds.add_new(0x50000020, "CS", "TAC")
    ds.add_new(0x50003000, "OW", mark.bytes)


def _binary() -> None:
    in_packed("icon", icon, "main", "implicit")
    in_packed("overlay data", overlay)
    in_packed("overlay label", put(0x60001500, text, "LO"))
    in_packed("overlay description", put(0x60000022, text, "LO"))
    in_packed("overlay data of group 601E", put(0x601E3000, raw, "OW"))
    in_packed("curve data", curve)
    in_packed("curve label", put(0x50002500, text, "LO"))
    in_packed("curve axis units", put(0x50000030, text, "SH"))
    in_packed("audio of group 501E", put(0x501E200C, raw, "OW"))
    in_packed("ICC profile", put("ICCProfile", lambda m: b"\0\0\2\0" + m.bytes, "OB"))
    in_packed("encapsulated document", put("EncapsulatedDocument", lambda m: b"%PDF-1.4\n" + m.bytes + b"\n", "OB"))
    in_packed("palette data", put("RedPaletteColorLookupTableData", raw, "OW"))
    in_packed("padding behind the data set", put(0xFFFCFFFC, raw, "OB"), "main", "implicit", "jpeg")
    in_packed("digital signature", nested(0xFFFAFFFA, "PatientComments"))


def _meta() -> None:
    def meta(name: str, give: Callable[[Mark], dict[str, Any]], *packed: str) -> None:
        for file in packed or ("main",):
            PLACES.append(Place(name if file == "main" else f"{name} ({file})", file, meta=give))

    meta("preamble", lambda m: {"preamble": m.bytes[:128]}, "main", "implicit", "jpeg")
    meta("meta: private information", lambda m: {"PrivateInformationCreatorUID": "1.2.3.4",
                                                 "PrivateInformation": m.bytes})
    meta("meta: private information creator", lambda m: {"PrivateInformationCreatorUID": m.uid})
    meta("meta: source AE title", lambda m: {"SourceApplicationEntityTitle": m.ascii}, *PACKED)
    meta("meta: sending AE title", lambda m: {"SendingApplicationEntityTitle": m.ascii})
    meta("meta: receiving AE title", lambda m: {"ReceivingApplicationEntityTitle": m.ascii})
    meta("meta: presentation address", lambda m: {"SourcePresentationAddress": f"tcp://{m.ascii}:104"})
    meta("meta: implementation version", lambda m: {"ImplementationVersionName": m.ascii}, *PACKED)
    meta("meta: implementation class", lambda m: {"ImplementationClassUID": m.uid})
    alone("meta: SOP instance of another", after=_other_instance, published=True)


def _other_instance(data: bytes, mark: Mark) -> bytes:
    """The first UID under 2.25 is that of the file meta information."""
    at = data.index(b"2.25.")
    end = data.index(b"\x02\0\x10\0", at)
    return data[:at] + mark.uid.encode().ljust(end - at, b"\0") + data[end:]


DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate", "AcquisitionDateTime",
         "PerformedProcedureStepStartDate", "PatientBirthDate", "DateOfLastDetectorCalibration",
         "DateOfSecondaryCapture", "LastMenstrualDate", "clinical event", "clinical birth")
TIMES = ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "InstanceCreationTime", "PatientBirthTime")


def day(script: Script, of: str) -> date:
    """Return the real date of an attribute: studies within the project's range, three years apart; others before."""
    n, index = SCRIPTS.index(script), DATES.index(of)
    if "Birth" in of or "birth" in of:
        return date(1937, 2, 13) + timedelta(days=401 * n + 29 * index)
    if of in ("DateOfLastDetectorCalibration", "DateOfSecondaryCapture", "LastMenstrualDate"):
        return date(1952, 8, 19) + timedelta(days=401 * n + 29 * index)
    return date(2003 + 3 * n, 5, 17) + timedelta(days=index)


def _dates() -> None:
    for keyword in DATES:
        if " " not in keyword:
            suffix = f"{TIME_STEM}777" if keyword.endswith("DateTime") else ""
            in_packed(f"date: {keyword}",
                      put(keyword, lambda m, k=keyword, s=suffix: f"{day(m.script, k):%Y%m%d}{s}"))
    for index, keyword in enumerate(TIMES):
        in_packed(f"time: {keyword}", put(keyword, lambda m, i=index: f"{TIME_STEM}{m.number % 1000:03d}"))


# ---- streams -----------------------------------------------------------------------------------------------------
ROWS, COLUMNS = 64, 48


def stream(syntax: str, *segments: bytes, tail: bytes = b"") -> bytes:
    """Return an 8-bit frame's code stream with marker segments behind SOI, or SOC and SIZ."""
    frame = encode.breast(ROWS, COLUMNS, "L", "leak", eight_bit=True)
    bare = encode.jpeg(frame, ROWS, COLUMNS, syntax)
    at = 2 if syntax == "jpeg" else 4 + int.from_bytes(bare[4:6], "big")
    return bare[:at] + b"".join(segments) + bare[at:] + tail


def segment(marker: int, body: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


JPEG_SEGMENTS: tuple[tuple[str, int, bytes], ...] = (
    ("JPEG: COM", 0xFE, b""), ("JPEG: APP0", 0xE0, b"JFXX\0"), ("JPEG: APP1", 0xE1, b"Exif\0\0"),
    ("JPEG: APP2", 0xE2, b"ICC_PROFILE\0\1\1"), ("JPEG: APP8", 0xE8, b"SPIFF\0"),
    ("JPEG: APP13", 0xED, b"Photoshop 3.0\0"),
    ("JPEG: APP14", 0xEE, b"Adobe"), ("JPEG: APP15", 0xEF, b""),
)


def add_stream(ds: Dataset, syntax: str, marks: Mapping[str, Mark]) -> None:
    if syntax == "jpeg":
        parts = [segment(marker, head + marks[name].bytes) for name, marker, head in JPEG_SEGMENTS]
        code = stream("jpeg", *parts)
    else:
        parts = [segment(0x64, b"\0" + kind + marks[name].bytes) for name, kind in (
            ("JPEG 2000: COM, Latin text", b"\1"), ("JPEG 2000: COM, binary", b"\0"))]
        code = stream("jpeg2000", *parts)
    ds.PixelData = encapsulate([code])
    ds["PixelData"].VR = "OB"


def _streams() -> None:
    for name, *_ in JPEG_SEGMENTS:
        PLACES.append(Place(name, "jpeg"))
    for name in ("JPEG 2000: COM, Latin text", "JPEG 2000: COM, binary"):
        PLACES.append(Place(name, "jpeg2000"))

    def coded(name: str, make: Callable[[Mark], bytes], syntax: str = "jpeg", **more: Any) -> None:
        def plant(ds: Dataset, mark: Mark) -> None:
            ds.PixelData = encapsulate([make(mark)])
            ds["PixelData"].VR = "OB"

        alone(name, plant, syntax=syntax, published=True, **more)

    coded("JPEG: bytes behind the end", lambda m: stream("jpeg", tail=m.bytes))
    coded("JPEG: a second image behind the end", lambda m: stream("jpeg", tail=stream("jpeg", segment(0xFE, m.bytes))))
    coded("JPEG: a reserved marker's segment", lambda m: stream("jpeg", segment(0x4F, m.bytes)))
    coded("JPEG: a segment of JPEG-LS", lambda m: stream("jpeg", segment(0xF8, b"\1" + m.bytes)))
    coded("JPEG: EXP segment", lambda m: stream("jpeg", segment(0xDF, m.bytes)))
    coded("JPEG: tables' segment longer than its tables", lambda m: stream(
        "jpeg", segment(0xDB, b"\x03" + b"\1" * 64 + m.bytes)))
    coded("JPEG: JFIF segment with a thumbnail", lambda m: stream(
        "jpeg", segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2" + bytes([len(m.bytes) // 6]) + m.bytes)))
    coded("JPEG 2000: bytes behind the end", lambda m: stream("jpeg2000", tail=m.bytes), syntax="jpeg2000")
    coded("JPEG 2000: an unknown marker's segment", lambda m: stream("jpeg2000", segment(0x70, m.bytes)),
          syntax="jpeg2000")
    coded("JPEG 2000: CRG segment", lambda m: stream("jpeg2000", segment(0x63, m.bytes)), syntax="jpeg2000",
          )
    coded("JPEG 2000: boxes with XML", lambda m: (
        struct.pack(">I4s4s", 12, b"jP  ", b"\r\n\x87\n") + struct.pack(">I4s", 8 + len(m.bytes), b"xml ") + m.bytes
        + struct.pack(">I4s", 0, b"jp2c") + stream("jpeg2000")), syntax="jpeg2000")
    alone("offset table", after=lambda data, m: _item(data, m, table=True), syntax="jpeg", published=True)
    alone("a fragment more", after=lambda data, m: _item(data, m, table=False), syntax="jpeg", published=True)
    alone("RLE: bytes behind the last segment", after=_rle_tail, syntax="rle", published=True)
    alone("RLE: unused offsets", after=_rle_header, syntax="rle", published=True)
    alone("native pixel data longer than its geometry", put(
        "PixelData", lambda m: encode.breast(ROWS, COLUMNS, "L", "x") + m.bytes, "OW"))


def _pixel_items(data: bytes) -> int:
    return data.rindex(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff") + 12


def _item(data: bytes, mark: Mark, *, table: bool) -> bytes:
    """Put the mark into the basic offset table, or into a last fragment (PS3.5 A.4)."""
    at = _pixel_items(data)
    (length,) = struct.unpack_from("<I", data, at + 4)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(mark.bytes)) + mark.bytes
    if table:
        return data[:at] + item + data[at + 8 + length:]
    return data[:-8] + item + data[-8:]


def _rle_tail(data: bytes, mark: Mark) -> bytes:
    at = _pixel_items(data)
    at += 8 + struct.unpack_from("<I", data, at + 4)[0]
    (length,) = struct.unpack_from("<I", data, at + 4)
    frame = data[at + 8:at + 8 + length] + mark.bytes
    return data[:at] + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame + data[at + 8 + length:]


def _rle_header(data: bytes, mark: Mark) -> bytes:
    at = _pixel_items(data)
    at += 8 + struct.unpack_from("<I", data, at + 4)[0] + 8
    return data[:at + 20] + mark.bytes[:44].ljust(44, b"\0") + data[at + 64:]


# ---- files of their own: refused, or published without the mark -----------------------------------------------------
def _kept_values() -> None:
    """The person's own name where the recipe keeps what stands there: found by the second look, if by nobody else."""
    def named(plant: Plant) -> Plant:
        def both(ds: Dataset, mark: Mark) -> None:
            ds.PatientName = f"{mark.ascii}^{mark.native}"
            plant(ds, mark)

        return both

    alone("the name in a kept code's meaning", named(nested("ViewCodeSequence", "CodeMeaning")))
    alone("the name in comments", named(put("PatientComments", text)), published=True)
    alone("the name in the software's version", named(put("SoftwareVersions", text)))
    alone("the name in the model", named(put("ManufacturerModelName", lambda m: m.native)))
    alone("the name in the paddle", named(put("PaddleDescription", text)))
    alone("the name in a code string", named(put("BodyPartExamined", word)))
    alone("the name in a lookup table", named(nested_raw("VOILUTSequence", "LUTData")))
    # a text is none of the numbers that this private element may be: it goes, and the rest passes
    alone("the name in a kept private element", named(_seno(lambda m: m.text, "LO")), published=True)
    alone("the name in a private DS", named(_seno(lambda m: m.ascii, "LO")), published=True)
    alone("the name in a kept text as UN", named(put("Manufacturer", raw, "UN")))
    alone("the name behind a NUL", named(put("Manufacturer", lambda m: f"GE MEDICAL SYSTEMS\0{m.text}")))
    alone("the birth date in a kept text", lambda ds, m: (
        setattr(ds, "PatientBirthDate", f"{day(m.script, 'PatientBirthDate'):%Y%m%d}"),
        setattr(ds, "SoftwareVersions", f"born {day(m.script, 'PatientBirthDate'):%d/%m/%Y}"))[0],
          shows="date: PatientBirthDate")
    alone("a UID in a kept text", lambda ds, m: (
        setattr(ds, "SOPInstanceUID", m.uid), setattr(ds, "SoftwareVersions", m.uid))[0])
    alone("the Patient ID in a kept text", lambda ds, m: setattr(ds, "SoftwareVersions", ds.PatientID),
          shows="Patient ID")
    alone("an NHS number in a kept text", lambda ds, m: setattr(
        ds, "SoftwareVersions", nhs_number(SCRIPTS.index(m.script))), shows="NHS number")


def nested_raw(sequence: str, keyword: str) -> Plant:
    def plant(ds: Dataset, mark: Mark) -> None:
        ds[_tag(sequence)].value[0].add_new(_tag(keyword), "OW", mark.bytes)

    return plant


def _seno(value: Callable[[Mark], str], vr: str) -> Plant:
    def plant(ds: Dataset, mark: Mark) -> None:
        ds.add_new(0x00450010, "LO", "GEMS_SENO_02")
        ds.add_new(0x00451049, vr, value(mark))

    return plant


def _malformed() -> None:
    alone("text in a number", after=_instead(b"54.75731", lambda m: m.ascii[:8].encode()),
          plant=put("BodyPartThickness", lambda _: "54.75731"), shows="any mark's stem")
    alone("text in a date", after=_instead(b"20110517", lambda m: m.ascii[:8].encode()),
          plant=put("SeriesDate", lambda _: "20110517"), shows="any mark's stem")
    alone("text behind a UID's padding", after=_instead(b"1.2.3.99999999999999", lambda m: (
        b"1.2.3.9\0" + m.ascii.encode() + b"\0\0")), plant=put("FrameOfReferenceUID", lambda _: "1.2.3.99999999999999"))
    alone("text behind a registered UID's padding", nested("SourceImageSequence", "ReferencedSOPInstanceUID"),
          after=_instead(b"1.2.840.10008.5.1.4.1.1.1.2.1\0", lambda m: (
              b"1.2.840.10008.5\0" + m.ascii.encode() + b"\0\0\0\0")))
    alone("text behind a code string's NUL", after=_instead(
        b"AAAAAABBBBBBBBBB", lambda m: b"CHEST\0" + m.ascii.encode()), plant=put(
            "BodyPartExamined", lambda _: "AAAAAABBBBBBBBBB"), published=True)
    alone("text behind a kept text's NUL", put("SoftwareVersions", lambda m: f"VERSION 1\0{m.text}"), published=True,
          )
    alone("a date under another VR", put("SeriesDate", text, "LO"))
    alone("text in an undeclared character set", _undeclared)
    alone("bytes behind the data set", after=lambda data, m: data + m.bytes)
    alone("a stray element behind the pixels", after=lambda data, m: data + struct.pack(
        "<HH2sH", 0x0010, 0x4000, b"LT", len(m.bytes)) + m.bytes)
    alone("an element of group 0002 in the data set", after=_second_meta, published=True)
    alone("an icon in a kept sequence", lambda ds, m: icon(ds[_tag("ViewCodeSequence")].value[0], m), published=True)
    alone("pixel data in a kept sequence", _inner_pixels, published=True)
    alone("private creator twice", _twice, published=True)
    alone("overlay in high bits", lambda ds, m: (overlay(ds, m), ds.add_new(0x60000102, "US", 12))[0])


def _instead(old: bytes, new: Callable[[Mark], bytes]) -> Bytes:
    def after(data: bytes, mark: Mark) -> bytes:
        padded = new(mark).ljust(len(old), b" ")[:len(old)]
        assert old in data, "nothing to put the mark in place of"
        return data.replace(old, padded)

    return after


def _undeclared(ds: Dataset, mark: Mark) -> None:
    """The name in letters that the declared set has not, and again where text is kept."""
    ds.SpecificCharacterSet = "ISO_IR 6"
    name = mark.native.encode(mark.script.codec)
    ds.add_new(_tag("PatientName"), "PN", name)
    ds.add_new(_tag("SoftwareVersions"), "LO", name)


def _second_meta(data: bytes, mark: Mark) -> bytes:
    end = 144 + int.from_bytes(data[140:144], "little")
    value = mark.ascii.encode()
    extra = struct.pack("<HH2sH", 2, 0x0018, b"AE", len(value)) + value
    return data[:end] + struct.pack("<HH2sHI", 8, 0, b"UL", 4, 0) + extra + data[end:]


def _inner_pixels(ds: Dataset, mark: Mark) -> None:
    inner = ds[_tag("ViewCodeSequence")].value[0]
    inner.add_new(0x7FE00010, "OB", mark.bytes)


def _twice(ds: Dataset, mark: Mark) -> None:
    for block in (0x10, 0x11):
        ds.add_new(0x00450000 | block, "LO", "GEMS_SENO_02")
    ds.add_new(0x00451049, "DS", "49.2")
    ds.add_new(0x00451149, "LO", mark.text)


def _other_objects() -> None:
    alone("a secondary capture", put("ImageComments", text), kind="secondary_capture")
    alone("a structured report", nested("ContentSequence", "TextValue"), kind="dose_report", published=True)
    alone("an encapsulated PDF", _pdf, kind="secondary_capture")
    for syntax in ("big", "deflated"):
        alone(f"comments, {syntax}", put("PatientComments", text), syntax=syntax, published=True)
        alone(f"the name in a kept text, {syntax}", lambda ds, m: (
            setattr(ds, "PatientName", m.ascii), setattr(ds, "SoftwareVersions", m.text))[0], syntax=syntax)
    alone("comments, tomosynthesis", nested(
        "PerFrameFunctionalGroupsSequence", "FrameContentSequence", "FrameComments"),
          kind="tomosynthesis", published=True)


def _items(relation: str, kind: str, concept: tuple[str, str, str], **values: Any) -> Dataset:
    """Return a content item (PS3.3 C.17.3)."""
    ds = Dataset()
    ds.add_new(_tag("RelationshipType"), "CS", relation)
    ds.add_new(_tag("ValueType"), "CS", kind)
    ds.add_new(_tag("ConceptNameCodeSequence"), "SQ", Items([_code(*concept)]))
    for keyword, value in values.items():
        ds.add_new(_tag(keyword), dictionary_VR(_tag(keyword)), value)
    return ds


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator = value, scheme
    ds.add_new(_tag("CodeMeaning"), "LO", meaning)
    return ds


GRID, FIXED = ("111635", "DCM", "X-Ray Grid"), ("111641", "DCM", "Fixed grid")
KV, KVP = ("kV", "UCUM", "kV"), ("113733", "DCM", "KVP")


def _coded(concept: tuple[str, str, str], answer: tuple[str, str, str], **more: Any) -> Dataset:
    return _items("CONTAINS", "CODE", concept, ConceptCodeSequence=[_code(*answer)], **more)


def _number(concept: tuple[str, str, str], unit: tuple[str, str, str]) -> Dataset:
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "28", [_code(*unit)]
    return _items("CONTAINS", "NUM", concept, MeasuredValueSequence=[measured])


def _reports() -> None:
    """A dose report with marks wherever its content can hold any: it must be published without them."""
    def place(name: str, make: Callable[[Mark], Dataset]) -> None:
        header(name, lambda ds, m: ds.ContentSequence.append(make(m)))

    def header(name: str, plant: Plant) -> None:
        PLACES.append(Place(f"report: {name}", "report", plant, kind="dose_report", published=True))

    def worded(name: str, value: str, meaning: str, kind: str = "TEXT") -> None:
        keyword = "TextValue" if kind == "TEXT" else "PersonName"
        place(name, lambda m: _items("CONTAINS", kind, (value, "DCM", meaning), **{keyword: m.text}))

    worded("a comment", "121106", "Comment")
    worded("an unlisted text", "121111", "Summary")
    worded("a text of which some values are listed", "125203", "Acquisition Protocol")
    worded("a device's serial number", "121016", "Device Observer Serial Number")
    worded("the observer's place", "121017", "Device Observer Physical Location During Observation")
    worded("a station's name", "121013", "Device Observer Name")
    worded("a person observer", "121008", "Person Observer Name", "PNAME")
    worded("somebody else's name", "121072", "Impressions", "PNAME")
    place("an answer's meaning", lambda m: _coded(GRID, (*FIXED[:2], m.text)))
    place("a private answer", lambda m: _coded(GRID, (m.ascii, "99LEAK", m.text)))
    place("a concept's meaning", lambda m: _number((*KVP[:2], m.text), KV))
    place("a private concept", lambda m: _number((m.ascii, "99LEAK", m.text), KV))
    place("a unit's meaning", lambda m: _number(KVP, (*KV[:2], m.text)))
    place("an unlisted unit", lambda m: _number(KVP, (m.ascii, "UCUM", m.text)))
    place("an event's UID", lambda m: _items("CONTAINS", "UIDREF", ("113769", "DCM", "Irradiation Event UID"),
                                             UID=m.uid))
    place("an unlisted UID", lambda m: _items("CONTAINS", "UIDREF", ("121232", "DCM", "Source series"), UID=m.uid))
    place("an observation's UID", lambda m: _coded(GRID, FIXED, ObservationUID=m.uid))
    place("a text beside an answer", lambda m: _coded(GRID, FIXED, TextValue=m.text))
    place("a table", lambda m: _items("CONTAINS", "TABLE", ("121106", "DCM", "Comment"), TextValue=m.text))
    header("who verified it", nested("VerifyingObserverSequence", "VerifyingObserverName"))
    header("the verifier's organisation", nested("VerifyingObserverSequence", "VerifyingOrganization"))
    header("the author's place", nested("AuthorObserverSequence", "InstitutionName"))
    header("the request's reason", nested("ReferencedRequestSequence", "ReasonForTheRequestedProcedure"))
    header("why it is complete", put("CompletionFlagDescription", text))


def _pdf(ds: Dataset, mark: Mark) -> None:
    del ds.PixelData
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    ds.DocumentTitle = mark.text
    ds.EncapsulatedDocument = b"%PDF-1.4\n" + mark.bytes + b"\n"


for build in (_texts, _name_parts, _uids, _private, _nested, _binary, _meta, _dates, _streams, _kept_values, _malformed,
              _other_objects, _reports):
    build()
# Places that are not in a file.
OUTSIDE = ("file name", "folder name", "clinical: identifier", "clinical: dropped column",
           "clinical: unlisted category", "clinical: no number", "clinical: no date", "clinical: no identity",
           "clinical: undeclared column", "clinical: undeclared column's name",
           "crosswalk: local id of nobody here", "project file: a wrong value", "permitted people: a malformed row",
           "crosswalk: a malformed row", "recipe: a refused line")
ORDER = [*dict.fromkeys(place.name for place in PLACES), *OUTSIDE]
assert len(ORDER) * len(SCRIPTS) < 4096 and len({place.name for place in PLACES}) == len(PLACES)


def mark(name: str, script: Script) -> Mark:
    return Mark(name, ORDER.index(name) * len(SCRIPTS) + SCRIPTS.index(script), script)


def nhs_number(n: int) -> str:
    """Return a well-formed NHS number (modulus 11) that is nobody's: from the range 999 for tests."""
    for tail in range(431_700 + 97 * n, 999_999):
        nine = f"999{tail:06d}"
        check = 11 - sum(int(d) * w for d, w in zip(nine, range(10, 1, -1), strict=True)) % 11
        if check != 10:
            return f"{nine}{0 if check == 11 else check}"
    raise AssertionError


def spaced(ten: str) -> list[str]:
    return [sep.join((ten[:3], ten[3:6], ten[6:])) for sep in ("", " ", "-")]


# ---- the site ----------------------------------------------------------------------------------------------------
@dataclass
class Site:
    """A folder with everything a project needs, marks in every place of it."""

    root: Path
    scripts: tuple[Script, ...] = SCRIPTS
    only: tuple[str, ...] = ()          # files; all where empty
    landed: dict[str, tuple[Script, str]] = field(default_factory=dict)     # key below landing → script, file

    @property
    def project(self) -> Path:
        return self.root / "project.toml"

    @property
    def env(self) -> dict[str, str]:
        return {"TRE_KEY_DIR": str(self.root / "keys")}

    def write(self) -> Site:
        (self.root / "keys").mkdir(mode=0o700, parents=True)
        key = self.root / "keys" / f"{NAME}.key"
        key.write_text(KEY + "\n")
        key.chmod(0o600)
        for script in self.scripts:
            for name in dict.fromkeys(place.file for place in PLACES):
                if self.only and name not in self.only:
                    continue
                self._land(script, name, [place for place in PLACES if place.file == name])
        self._tables()
        text = project_text(*(f"file://{self.root / zone}" for zone in ("landing", "work", "candidate", "release")),
                            name=NAME)
        head, _, _ = text.partition("[equipment]")[0].partition("[[clinical]]")
        extra = '\n  "Secondary Capture Image Storage",\n  "Encapsulated PDF Storage",'
        head = head.replace('"Breast Tomosynthesis Image Storage",', f'"Breast Tomosynthesis Image Storage",{extra}')
        self.project.write_text(head + CLINICAL)
        shutil.copytree(Path(__file__).parents[2] / "expectations", self.root / "suites")
        (self.root / "suites" / "visits.json").write_text(json.dumps(SUITE))
        return self

    def _land(self, script: Script, name: str, places: list[Place]) -> None:
        with disable_value_validation():
            data = build_file(script, name, places)
        folder = f"{mark('folder name', script).text} {script.name}"
        key = f"{folder}/{mark('file name', script).text} {name.replace(':', '')}.dcm"
        path = self.root / "landing" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (LANDED_AT, LANDED_AT))
        self.landed[key] = (script, name)

    def _tables(self) -> None:
        people = [(mark("issuer of Patient ID", s).ascii, local, nhs_number(n), "")
                  for n, s in enumerate(self.scripts) for local in local_ids(s)]
        nobody = [("ELSEWHERE", mark("crosswalk: local id of nobody here", s).text, nhs_number(50 + n),
                   nhs_number(70 + n)) for n, s in enumerate(self.scripts)]
        self.csv("crosswalk.csv", [("issuer", "local_id", "nhs_number", "superseded_nhs_number"), *people, *nobody])
        numbers = sorted({row[2] for row in people})
        (self.root / "permitted.csv").write_text("\n".join(
            [f"# as-of: {date.today()}", "person", *numbers, f"# end: {len(numbers)}"]) + "\n")
        self.csv("visits.csv", self.clinical_rows())

    def clinical_rows(self) -> list[tuple[str, ...]]:
        rows = [("nhs_number", "visit_id", "note", "born", "visit_date", "kind", "score")]
        for n, script in enumerate(self.scripts):
            def row(number: str = nhs_number(n), when: str = f"{day(script, 'clinical event')}", kind: str = "C",
                    score: str = "7", script: Script = script) -> tuple[str, ...]:
                return (number, mark("clinical: identifier", script).text,
                        mark("clinical: dropped column", script).text, f"{day(script, 'clinical birth'):%d/%m/%Y}",
                        when, kind, score)

            rows += [row(), row(kind=mark("clinical: unlisted category", script).text),
                     row(score=mark("clinical: no number", script).text),
                     row(when=mark("clinical: no date", script).text),
                     row(number=mark("clinical: no identity", script).text), row(number=nhs_number(90 + n))]
        return rows

    def csv(self, name: str, rows: list[tuple[str, ...]]) -> None:
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        (self.root / name).write_text(out.getvalue(), encoding="utf-8")

    def files(self, *zones: str) -> Iterator[tuple[str, bytes]]:
        for zone in zones:
            for path in sorted((self.root / zone).rglob("*")):
                yield str(path.relative_to(self.root)), path.read_bytes() if path.is_file() else b""

    # ---- what to search for ----
    @cached_property
    def texts(self) -> dict[str, list[str]]:
        """Label → texts, of every mark, date, time, UID and number planted: whole, and by the stem."""
        found = {"any mark's stem": [STEM], "any UID's stem": [UID_STEM], "any time's stem": [TIME_STEM]}
        for n, script in enumerate(self.scripts):
            found[f"a word in {script.name}"] = [script.stem]
            for name in ORDER:
                one = mark(name, script)
                found[f"{name}, {script.name}"] = [one.ascii, one.native, one.uid]
                if name.startswith("time: "):
                    found[f"{name}, {script.name}"] = [f"{TIME_STEM}{one.number % 1000:03d}"]
            for of in DATES:
                found[f"date: {of}, {script.name}"] = [*_written(day(script, of))]
            for number in (n, 50 + n, 70 + n, 90 + n):
                found[f"NHS number{'' if number == n else f' {number}'}, {script.name}"] = spaced(nhs_number(number))
        return found

    @cached_property
    def raws(self) -> dict[str, list[bytes]]:
        """Label → bytes: digests that lead back to a landed object, and the key."""
        digests = [hashlib.sha256((self.root / "landing" / key).read_bytes()).digest() for key in self.landed]
        return {"a source's digest": digests, "the key": [bytes.fromhex(KEY), KEY.encode()]}


CLINICAL = '''
[validate]
suites = "suites"

[[clinical]]
table = "visits"
file = "visits.csv"

[clinical.columns]
nhs_number = { role = "identity", required = true }
visit_id = { role = "identifier", meaning = "A visit, under a pseudonym." }
note = { role = "drop" }
born = { role = "drop" }
visit_date = { role = "event_date", meaning = "The visit, moved by the person's own number of days." }
kind = { role = "category", values = ["C", "R"], meaning = "Call or recall." }
score = { role = "number", unit = "1", meaning = "A score." }
'''


SUITE = {
    "name": "visits", "meta": {"schema_version": 1, "optional": True},
    "expectations": [{
        "type": "expect_column_values_to_be_in_set", "severity": "info",
        "kwargs": {"column": "kind", "value_set": ["R"], "mostly": 1.0},
        "meta": {"why": "Fails, so that results have failures to tell of.", "source": "The leak test"},
    }],
}


def _written(when: date) -> set[str]:
    from leak_scanner import dates

    return dates(when)


def local_ids(script: Script) -> list[str]:
    return [mark("Patient ID" if file == "main" else f"Patient ID ({file})", script).ascii for file in PACKED]


def build_file(script: Script, name: str, places: list[Place]) -> bytes:
    """Return the bytes of one landed file: what every one has, then the marks of its places."""
    packed = name in PACKED
    own = places[0]
    syntax = {"main": "explicit", "rle": "rle"}.get(name, name) if packed else own.syntax
    kind = own.kind
    seed = f"{script.name} {name}"
    options: dict[str, Any] = {
        "seed": seed, "planted": False, "private": False, "rows": ROWS, "columns": COLUMNS, "transfer_syntax": syntax,
        "issuer": mark("issuer of Patient ID", script).ascii, "patient_id": local_ids(script)[0],
        "patient_name": "FELLOWES^ALBERTINE", "birth_date": None, "study_date": f"{day(script, 'StudyDate'):%Y%m%d}",
        "study_time": "101530", "study_uid": encode.uid("leak", seed), "operator": "MUGGERIDGE^TOM",
    }
    ds = getattr(files, f"{kind}_dataset")(**options)
    ds.SpecificCharacterSet = script.term
    for keyword in ("SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate",
                    "DateOfLastDetectorCalibration", "SeriesTime"):
        if keyword in ds:
            delattr(ds, keyword)
    meta: dict[str, Any] = {}
    marks = {place.name: mark(place.name, script) for place in places}
    for place in places:
        if place.plant:
            place.plant(ds, marks[place.name])
        if place.meta:
            meta |= place.meta(marks[place.name])
    if name in ("jpeg", "jpeg2000"):
        add_stream(ds, name, marks)
    preamble = meta.pop("preamble", None)
    data = encode.part10(ds, syntax, preamble, **meta)
    for place in places:
        if place.after:
            data = place.after(data, marks[place.name])
    return data

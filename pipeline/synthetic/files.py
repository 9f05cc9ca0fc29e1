"""DICOM files out of nothing: `mammogram`, `tomosynthesis`, `ct`, `secondary_capture`, `dose_report`, `cad` → bytes.

Every function takes the options of `Options` and, beside them, any DICOM keyword (or eight hex digits) with a value to
override, or None to leave the element out: `mammogram(laterality="R", KVP="31", PatientSex=None)`. Same call, same
bytes. UIDs that are not given follow from patient, date, view, laterality and `seed`. All names, numbers and addresses
are invented; planted identities stand where people put them, unless `planted=False`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from pydicom.datadict import keyword_dict
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    CTImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    MammographyCADSRStorage,
    SecondaryCaptureImageStorage,
    XRayRadiationDoseSRStorage,
)

from pipeline.synthetic import encode, headers, reports
from pipeline.synthetic.encode import uid
from pipeline.synthetic.headers import code, item, put


@dataclass(frozen=True)
class Options:
    """What every file can be asked to state. Dates are DA text; None leaves an element out or derives it."""

    seed: object = ""                       # distinguishes files that agree in everything else
    patient_id: str | None = "LID4471902"
    patient_name: str | None = "QUILLFEATHER^ARAMINTA^JOAN"
    issuer: str | None = "HOSP-A"
    birth_date: str | None = "19610317"
    sex: str | None = "F"
    nhs_number: str | None = None           # written into OtherPatientIDsSequence, as many hospitals do
    study_uid: str | None = None
    series_uid: str | None = None
    sop_instance_uid: str | None = None
    study_date: str | None = "20180614"
    study_time: str | None = "101530"
    accession: str | None = "ACC7782301"
    view: str = "MLO"
    laterality: str = "L"
    manufacturer: str | None = "GE MEDICAL SYSTEMS"
    model: str | None = None                # the maker's own unless given
    serial: str | None = "SN-660417"
    station: str | None = "MAMMOQUILL1"
    institution: str | None = "Thistledown Infirmary"
    operator: str | None = "WINTERBOTTOM^HESTER"
    referrer: str | None = "OAKENSHAW^PERCIVAL^^DR"
    intent: str = "FOR PRESENTATION"        # or FOR PROCESSING
    rows: int = 64
    columns: int = 48
    frames: int = 1
    pixels: bool = True                     # False: no PixelData
    transfer_syntax: str = "explicit"       # a key of encode.SYNTAXES
    preamble: bytes | None = None           # padded to 128 bytes
    stream_comment: bytes | None = None     # planted in JPEG and JPEG 2000 streams as a COM segment
    stream_tail: bytes = b""                # stands after the end of each JPEG or JPEG 2000 stream
    planted: bool = True
    private: bool = True
    overlay: bool = False                   # group 6000, with the name as its label
    shots: tuple[reports.Shot, ...] = ()    # reports: the exposures; one made up for them, where there is none
    marks: tuple[reports.Mark, ...] = ()    # CAD: the findings
    quirk: reports.Quirk = ""               # dose reports: what is wrong with it

    @property
    def words(self) -> str:
        """The person's name as people type it into comments: FORENAME SURNAME."""
        return " ".join(reversed((self.patient_name or "").split("=")[0].replace("^", " ").split()[:2]))


OPTIONS = frozenset(field.name for field in fields(Options))


def split(options: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Return the options, and the elements given by keyword or tag. TypeError where a name is neither."""
    own = {name: value for name, value in options.items() if name in OPTIONS}
    elements = {name: value for name, value in options.items() if name not in OPTIONS}
    for name in elements:
        if name not in keyword_dict and not (len(name) == 8 and name.isalnum()):
            raise TypeError(f"{name} is neither an option nor a DICOM keyword")
    return Options(**own), elements


def _common(o: Options, sop_class: str, modality: str) -> Dataset:
    """Patient, study, series and equipment modules (PS3.3 C.7) with identities where hospitals put them."""
    maker = headers.vendor_of(o.manufacturer or "", o.model)
    study = o.study_uid or uid("study", o.patient_id, o.study_date, o.accession)
    series = o.series_uid or uid("series", study, modality, o.intent)
    instance = o.sop_instance_uid or uid("instance", series, o.view, o.laterality, o.seed)
    ds = Dataset()
    put(ds, {
        "SpecificCharacterSet": "ISO_IR 100", "SOPClassUID": sop_class, "SOPInstanceUID": instance,
        "StudyInstanceUID": study, "SeriesInstanceUID": series, "FrameOfReferenceUID": uid("frame", study),
        "InstanceCreationDate": o.study_date, "InstanceCreationTime": o.study_time,
        "StudyDate": o.study_date, "SeriesDate": o.study_date, "AcquisitionDate": o.study_date,
        "ContentDate": o.study_date, "StudyTime": o.study_time, "SeriesTime": o.study_time,
        "AcquisitionTime": o.study_time, "ContentTime": o.study_time, "AccessionNumber": o.accession,
        "Modality": modality, "Manufacturer": o.manufacturer, "ManufacturerModelName": o.model or maker.model,
        "DeviceSerialNumber": o.serial, "SoftwareVersions": maker.software, "StationName": o.station,
        "InstitutionName": o.institution, "ReferringPhysicianName": o.referrer, "OperatorsName": o.operator,
        "PatientID": o.patient_id, "PatientName": o.patient_name, "IssuerOfPatientID": o.issuer,
        "PatientBirthDate": o.birth_date, "PatientSex": o.sex, "PatientAge": _age(o), "StudyID": "1",
        "SeriesNumber": "1", "InstanceNumber": "1",
    })
    if o.nhs_number:
        ds.OtherPatientIDsSequence = [item(PatientID=o.nhs_number, IssuerOfPatientID="NHS", TypeOfPatientID="TEXT")]
    if o.planted:
        put(ds, {
            "InstitutionAddress": "14 Larkspur Crescent, Nettlefield, ZZ99 3VZ",
            "InstitutionalDepartmentName": "Nettlefield Breast Unit", "PerformingPhysicianName": "MOSSGROVE^IDRIS^^DR",
            "PhysiciansOfRecord": o.referrer, "StudyDescription": f"Screening {o.words}",
            "SeriesDescription": f"{o.laterality} {o.view} {o.words}"[:64],
            "ImageComments": f"Pt {o.words} moved, repeat; ring 0191 498 0123",
            "PatientComments": f"{o.words} prefers Welsh; {o.words.replace(' ', '.').lower()}@example.org",
            "PatientAddress": "3 Larkspur Crescent, Nettlefield, ZZ99 3WZ", "PatientTelephoneNumbers": "01632 960983",
            "AdditionalPatientHistory": f"{o.words} born {o.birth_date}", "PatientMotherBirthName": "THORNBURY^OLWEN",
            "OtherPatientNames": "THORNBURY^ARAMINTA", "EthnicGroup": "A", "Occupation": "Lock keeper",
            "ProtocolName": f"ROUTINE {o.laterality}{o.view}",
            "PerformedProcedureStepID": "PPS11873", "PerformedProcedureStepStartDate": o.study_date,
            "PerformedProcedureStepDescription": "Screening mammography",
            "RequestAttributesSequence": item(
                ScheduledProcedureStepID="SPS77120", RequestedProcedureID="RP77120",
                ScheduledProcedureStepDescription=f"Screen {o.words}", AccessionNumber=o.accession,
                RequestedProcedureCodeSequence=item(CodeValue="MAMSC", CodingSchemeDesignator="99LOCAL",
                                                    CodeMeaning=f"Screening for {o.words}"[:64])),
            "ReferencedPerformedProcedureStepSequence": item(
                ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.3", ReferencedSOPInstanceUID=uid("mpps", study)),
        })
    return ds


def _age(o: Options) -> str | None:
    if not (o.birth_date and o.study_date and (o.birth_date + o.study_date).isdigit()):
        return None
    years = int(o.study_date[:4]) - int(o.birth_date[:4]) - (o.study_date[4:] < o.birth_date[4:])
    return f"{years:03d}Y"


def _image(ds: Dataset, o: Options) -> None:
    """Image pixel module (PS3.3 C.7.6.3), one sample, 12 bits in 16; 8 in 8 for JPEG and JPEG 2000."""
    small = o.transfer_syntax in encode.EIGHT_BIT
    put(ds, {
        "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "Rows": o.rows, "Columns": o.columns,
        "BitsAllocated": 8 if small else 16, "BitsStored": 8 if small else 12, "HighBit": 7 if small else 11,
        "PixelRepresentation": 0, "NumberOfFrames": str(o.frames) if o.frames > 1 else None,
        "WindowCenter": "128" if small else "1280", "WindowWidth": "256" if small else "1024",
    })
    if o.overlay:
        put(ds, {
            "60000010": o.rows, "60000011": o.columns, "60000040": "G", "60000050": [1, 1], "60000100": 1,
            "60000102": 0, "60001500": o.words or None,
            "60003000": encode.stream((o.rows * o.columns + 15) // 16 * 2, "overlay", o.seed),
        })


def _finish(ds: Dataset, o: Options, elements: dict[str, Any]) -> Dataset:
    """Private block, pixels, then the caller's own elements over everything."""
    if o.private:
        headers.private_block(ds, headers.vendor_of(o.manufacturer or "", o.model).creator, o.words or "none")
    if o.pixels and "Rows" in ds:
        frames = [encode.breast(o.rows, o.columns, o.laterality, ds.SOPInstanceUID, n, eight_bit=ds.BitsAllocated == 8)
                  for n in range(o.frames)]
        encode.add_pixels(ds, frames, o.transfer_syntax, o.stream_comment, o.stream_tail)
    put(ds, elements)
    return ds


def mammogram_dataset(**options: Any) -> Dataset:
    """Return a Digital Mammography X-Ray Image (PS3.3 A.26), For Presentation unless `intent` says otherwise."""
    o, elements = split(options)
    processed = o.intent == "FOR PRESENTATION"
    ds = _common(o, DigitalMammographyXRayImageStorageForPresentation if processed
                 else DigitalMammographyXRayImageStorageForProcessing, "MG")
    put(ds, headers.mammography(headers.vendor_of(o.manufacturer or "", o.model), o.view, o.laterality, o.intent))
    put(ds, {
        "ImageType": ["DERIVED" if processed else "ORIGINAL", "PRIMARY"],
        "VOILUTSequence": item(LUTDescriptor=[8, 0, 8], LUTExplanation="NORMAL", LUTData=bytes(range(0, 256, 16))),
    })
    if processed:
        ds.SourceImageSequence = [item(
            ReferencedSOPClassUID=DigitalMammographyXRayImageStorageForProcessing,
            ReferencedSOPInstanceUID=uid("raw", ds.SOPInstanceUID), SpatialLocationsPreserved="YES")]
    _image(ds, o)
    return _finish(ds, o, elements)


def tomosynthesis_dataset(**options: Any) -> Dataset:
    """Return a Breast Tomosynthesis Image (PS3.3 A.55) of `frames` slices, three unless said."""
    o, elements = split({"frames": 3, "manufacturer": "HOLOGIC, Inc.", **options})
    maker = headers.vendor_of(o.manufacturer or "", o.model)
    ds = _common(o, BreastTomosynthesisImageStorage, "MG")
    put(ds, headers.mammography(maker, o.view, o.laterality, o.intent))
    put(ds, {
        "ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"], "VolumetricProperties": "VOLUME",
        "SharedFunctionalGroupsSequence": item(FrameAnatomySequence=item(
            FrameLaterality=o.laterality, AnatomicRegionSequence=code(headers.BREAST, maker.scheme))),
        "PerFrameFunctionalGroupsSequence": [
            item(FrameContentSequence=item(DimensionIndexValues=[1, n + 1],
                                           FrameComments=o.words if o.planted else None))
            for n in range(o.frames)],
    })
    _image(ds, o)
    return _finish(ds, o, elements)


def ct_dataset(**options: Any) -> Dataset:
    """Return a CT Image (PS3.3 A.3)."""
    o, elements = split({"manufacturer": "SIEMENS", "model": "SOMATOM Definition AS", "serial": "SN-73002", **options})
    ds = _common(o, CTImageStorage, "CT")
    put(ds, {
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "BodyPartExamined": "CHEST", "KVP": "120",
        "SliceThickness": "1.5", "ConvolutionKernel": "B30f", "Exposure": "105", "XRayTubeCurrent": "210",
        "ExposureTime": "500",
        "CTDIvol": 7.1, "PatientPosition": "HFS", "ImagePositionPatient": ["-125", "-125", "40"],
        "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "PixelSpacing": ["0.49", "0.49"],
        "SliceLocation": "40", "RescaleIntercept": "-1024", "RescaleSlope": "1", "RescaleType": "HU",
        "DataCollectionDiameter": "500", "ReconstructionDiameter": "250", "GantryDetectorTilt": "0",
    })
    _image(ds, o)
    return _finish(ds, o, elements)


def secondary_capture_dataset(**options: Any) -> Dataset:
    """Return a Secondary Capture (PS3.3 A.8) that says text is burned in; what scanners of paper and screens make."""
    o, elements = split(options)
    ds = _common(o, SecondaryCaptureImageStorage, "OT")
    put(ds, {"ConversionType": "WSD", "ImageType": ["DERIVED", "SECONDARY"], "BurnedInAnnotation": "YES"})
    _image(ds, o)
    return _finish(ds, o, elements)


def _shot(o: Options, study: str) -> reports.Shot:
    """Return the exposure of a mammogram that was not asked for anything, for reports that are told of none."""
    maker = headers.vendor_of(o.manufacturer or "", o.model)
    header = headers.mammography(maker, o.view, o.laterality, o.intent)
    return reports.Shot(uid("event", study), uid("image", study), DigitalMammographyXRayImageStorageForPresentation,
                        o.laterality, o.view, f"{o.study_date or '19000101'}{o.study_time or '000000'}", header)


def dose_report_dataset(**options: Any) -> Dataset:
    """Return an X-Ray Radiation Dose SR (PS3.3 A.35.8, PS3.16 TID 10001) of mammographic exposures."""
    o, elements = split({"seed": "dose", **options})
    ds = _common(o, XRayRadiationDoseSRStorage, "SR")
    study = str(ds.StudyInstanceUID)
    put(ds, reports.dose(
        o.shots or (_shot(o, study),), study=study, operator=o.operator, manufacturer=o.manufacturer,
        model=str(ds.ManufacturerModelName), serial=o.serial, station=o.station, institution=o.institution,
        words=o.words, quirk=o.quirk))
    return _finish(ds, o, elements)


def cad_dataset(**options: Any) -> Dataset:
    """Return a Mammography CAD SR (PS3.3 A.35.5, PS3.16 TID 4000)."""
    o, elements = split({"seed": "cad", **options})
    ds = _common(o, MammographyCADSRStorage, "SR")
    put(ds, reports.cad(o.shots or (_shot(o, str(ds.StudyInstanceUID)),), o.marks))
    return _finish(ds, o, elements)


def _bytes(build: Callable[..., Dataset], **options: Any) -> bytes:
    meta = {name: options.pop(name) for name in [*options] if name.startswith(("MediaStorage", "TransferSyntax"))}
    o, _ = split(options)
    return encode.part10(build(**options), o.transfer_syntax, o.preamble, **meta)


mammogram = functools.partial(_bytes, mammogram_dataset)
tomosynthesis = functools.partial(_bytes, tomosynthesis_dataset)
ct = functools.partial(_bytes, ct_dataset)
secondary_capture = functools.partial(_bytes, secondary_capture_dataset)
dose_report = functools.partial(_bytes, dose_report_dataset)
cad = functools.partial(_bytes, cad_dataset)
dataset = mammogram_dataset

PLACES = frozenset({"Larkspur", "Nettlefield", "ZZ99 3VZ", "ZZ99 3WZ", "MOSSGROVE", "IDRIS", "THORNBURY", "OLWEN",
                    "0191 498 0123", "01632 960983", "ACC7782301", "RP77120", "SPS77120", "PPS11873"})


def sentinels(**options: Any) -> frozenset[str]:
    """Return the planted identities of the file that these options make: whole words of four letters or more, numbers,
    postcodes. None may stand in anything that leaves the identifiable zone. Dates are not among them."""
    o, _ = split(options)
    people = re.split("[ ^=]+", " ".join(filter(None, (o.patient_name, o.operator, o.referrer))))
    whole = filter(None, (o.patient_id, o.nhs_number, o.accession, o.serial, o.station, o.institution))
    return PLACES | {*whole} | {word for word in people if len(word) >= 4}


def uids(kind: str, **options: Any) -> frozenset[str]:
    """Return the UIDs, at every depth, of the file which `kind` (a function's name) makes of these options."""
    build: Callable[..., Dataset] = globals()[f"{kind}_dataset"]
    found = set()
    for one in build(**{**options, "pixels": False}).iterall():
        if one.VR == "UI" and str(one.value).startswith("2.25."):
            found.add(str(one.value))
    return frozenset(found)

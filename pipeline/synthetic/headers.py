"""Realistic headers, element by element: what a hospital's machines write, and where its people put names.

Units as PS3.3 has them: kV, mAs and µAs, mm, N, kPa, mm², mGy, OrganDose in dGy (C.8.7.8, C.8.11.3, C.8.11.7).
Codes are SNOMED's as PS3.16 CID 4014 (views) and CID 4009 (anatomy) use them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

# (SRT, SCT, meaning): the retired SNOMED-RT style codes are what most stored mammograms hold.
VIEWS = {
    "CC": ("R-10242", "399162004", "cranio-caudal"),
    "MLO": ("R-10226", "399368009", "medio-lateral oblique"),
}
MAGNIFIED = ("R-102D6", "399163009", "Magnification")
BREAST = ("T-04000", "76752008", "Breast")


@dataclass(frozen=True)
class Vendor:
    """What one maker's mammography sets write, where makers differ."""

    manufacturer: str
    model: str
    software: str | list[str]
    anode: str
    filter: str
    scheme: str                     # of the view codes: SRT or SCT
    control_mode: str               # ExposureControlModeDescription
    paddle: str
    creator: str                    # of the private block
    writes_area: bool = False


VENDORS = {
    "GE": Vendor("GE MEDICAL SYSTEMS", "Senographe Essential", "Ads Application Package VERSION ADS_54.11", "RHODIUM",
                 "RHODIUM", "SRT", "AOP contrast RECTANGLE 860 mm x 560 mm", "FLEX 24X31", "GEMS_SENO_02"),
    "GE-DS": Vendor("GE MEDICAL SYSTEMS", "Senographe DS ADS_43.10.1", "Ads Application Package VERSION ADS_43.10.1",
                    "MOLYBDENUM", "RHODIUM", "SRT", "AOP standard", "SPOT", "GEMS_SENO_02"),
    "HOLOGIC": Vendor("HOLOGIC, Inc.", "Selenia Dimensions", ["AWS:1.8.3.63", "PXCM:1.4.0.7", "ARR:1.7.3.10"],
                      "TUNGSTEN", "SILVER", "SRT", "AEC", "24CM X 29CM", "HOLOGIC, Inc.", writes_area=True),
    "SIEMENS": Vendor("SIEMENS", "MAMMOMAT Inspiration", "VB30P VX11A SL38P15", "TUNGSTEN", "RHODIUM", "SCT", "OpComb",
                      "24x30 flexible", "SIEMENS MED", writes_area=True),
}


def vendor_of(manufacturer: str, model: str | None = None) -> Vendor:
    """Return the maker's habits by the words in the manufacturer and the model; GE where nothing fits."""
    name = "GE-DS" if manufacturer.upper().startswith("GE") and "SENOGRAPHE DS" in (model or "").upper() else next(
        (key for key in VENDORS if manufacturer.upper().startswith(key)), "GE")
    return VENDORS[name]


def code(entry: tuple[str, str, str], scheme: str = "SCT", **nested: Any) -> Dataset:
    """Return one item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = entry[0] if scheme == "SRT" else entry[1]
    item.CodingSchemeDesignator = scheme
    item.CodeMeaning = entry[2]
    put(item, nested)
    return item


def item(**elements: Any) -> Dataset:
    ds = Dataset()
    put(ds, elements)
    return ds


def put(ds: Dataset, elements: Mapping[str, Any]) -> None:
    """Set elements by keyword, or by eight hex digits for what has no keyword of its own; None deletes. Lists of data
    sets become sequences."""
    for name, value in elements.items():
        hexed = len(name) == 8 and all(c in "0123456789abcdefABCDEF" for c in name)
        tag: Any = int(name, 16) if hexed else name
        if value is None:
            if tag in ds:
                del ds[tag]
            continue
        if isinstance(value, Dataset):
            value = [value]
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            value = list(value)
            if all(isinstance(one, Dataset) for one in value) and (value or dictionary_VR(tag) == "SQ"):
                value = Items(value)
        at, kind = _known(tag)
        ds[at] = DataElement(at, kind, value, validation_mode=IGNORE)       # hostile values are wanted as they are


@functools.cache
def _known(tag: str | int) -> tuple[BaseTag, str]:
    """Return tag and VR of a keyword, or of a tag as a number. Raises KeyError."""
    at = Tag(tag)
    return at, dictionary_VR(at)


def mammography(vendor: Vendor, view: str, laterality: str, intent: str) -> dict[str, Any]:
    """Elements of the MG IOD (PS3.3 A.26) that an audit of dose or practice reads, and their companions."""
    scheme = vendor.scheme
    force = 92.0
    dose: dict[str, Any] = {
        "KVP": "29", "ExposureTime": "780", "XRayTubeCurrent": "85", "Exposure": "66", "ExposureInuAs": "66300",
        "AnodeTargetMaterial": vendor.anode, "FilterType": "STRIP", "FilterMaterial": vendor.filter,
        "FilterThicknessMinimum": "0.05", "FilterThicknessMaximum": "0.05", "BodyPartThickness": "54",
        "CompressionForce": f"{force:g}",
        "PaddleDescription": vendor.paddle, "OrganDose": "0.01420", "EntranceDose": 5, "EntranceDoseInmGy": "4.873",
        "HalfValueLayer": "0.538", "ExposureControlMode": "AUTOMATIC",
        "ExposureControlModeDescription": vendor.control_mode, "RelativeXRayExposure": "1254",
        "CommentsOnRadiationDose": "Glandularity: 23%", "Grid": ["RECIPROCATING", "FOCUSED"], "FocalSpots": "0.3",
        "RectificationType": "CONST POTENTIAL",
    }
    if vendor.writes_area:
        dose |= {"CompressionPressure": "9.4", "CompressionContactArea": f"{force / 9.4 * 1000:.0f}"}
    return dose | {
        "PresentationIntentType": intent, "BodyPartExamined": "BREAST", "ImageLaterality": laterality,
        "ViewPosition": view, "ViewCodeSequence": code(VIEWS[view], scheme, ViewModifierCodeSequence=[]),
        "AnatomicRegionSequence": code(BREAST, scheme),
        "PatientOrientation": ["A", laterality] if view == "CC" else ["A", {"L": "FL", "R": "FR"}[laterality]],
        "PositionerType": "MAMMOGRAPHIC", "PositionerMotion": "STATIC",
        "PositionerPrimaryAngle": "0" if view == "CC" else {"L": "-45", "R": "45"}[laterality],
        "PositionerSecondaryAngle": "0", "DistanceSourceToDetector": "660", "DistanceSourceToPatient": "606",
        "DistanceSourceToEntrance": "606", "EstimatedRadiographicMagnificationFactor": "1.0",
        "ImagerPixelSpacing": ["0.1", "0.1"], "DetectorType": "DIRECT", "DetectorConfiguration": "AREA",
        "DetectorID": "DET-44817", "DateOfLastDetectorCalibration": "20180611",
        "TimeOfLastDetectorCalibration": "071500", "DetectorTemperature": "30.4",
        "DetectorConditionsNominalFlag": "YES", "FieldOfViewShape": "RECTANGLE",
        "FieldOfViewDimensions": ["240", "300"], "BreastImplantPresent": "NO", "PartialView": "NO",
        "OrganExposed": "BREAST", "PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1,
        "AcquisitionContextSequence": [], "AcquisitionNumber": "1", "BurnedInAnnotation": "NO",
        "PresentationLUTShape": "IDENTITY", "LossyImageCompression": "00",
    }


def private_block(ds: Dataset, creator: str, planted: str) -> None:
    """A maker's private elements, among them one with the person's name in it and one nested."""
    group = {"GEMS_SENO_02": 0x0045, "HOLOGIC, Inc.": 0x0019, "SIEMENS MED": 0x0011}.get(creator, 0x0045)
    block = ds.private_block(group, creator, create=True)
    if creator == "GEMS_SENO_02":
        block.add_new(0x06, "DS", "0.0")
        block.add_new(0x1B, "LO", "LMLO")
        block.add_new(0x49, "DS", "49.2")
        block.add_new(0x26, "OB", planted.encode("latin-1", "replace").ljust(64, b"\x00"))
        block.add_new(0x13, "ST", planted)
    else:
        block.add_new(0x27 if creator == "HOLOGIC, Inc." else 0x10, "LO", planted[:64])
    nested = item(PatientName=planted[:64])
    ds.private_block(0x7053, "SYNTHETIC NEST", create=True).add_new(0x10, "SQ", Items([nested]))

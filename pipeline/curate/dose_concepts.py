"""The concepts of x-ray dose reports by pydicom's keywords (PS3.16 TID 10001 to 10013), and their columns. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple


class Number(NamedTuple):
    """A number of an event: its column and unit in the tables, and the concepts that state it."""

    column: str
    unit: str
    concepts: tuple[str, ...]               # keywords of pydicom's DCM dictionary; the first that is there
    sum: bool = False                       # over pulses
    mammogram: bool = True                  # a column of exposures


NUMBERS = (
    Number("kvp_kv", "kV", ("KVP",)),
    Number("tube_current_ma", "mA", ("XRayTubeCurrent",)),
    Number("exposure_mas", "mAs", ("Exposure",), sum=True),
    Number("exposure_time_ms", "ms", ("ExposureTime", "ExposureTime_Retired")),
    Number("body_part_thickness_mm", "mm", ("CompressionThickness",)),
    Number("compression_force_n", "N", ("CompressionForce",)),
    Number("compression_pressure_kpa", "kPa", ("CompressionPressure",)),
    Number("compression_contact_area_mm2", "mm2", ("CompressionContactArea",)),
    Number("average_glandular_dose_mgy", "mGy", ("AverageGlandularDose",)),
    Number("entrance_dose_mgy", "mGy", ("EntranceExposureAtRP",)),
    Number("half_value_layer_mm", "mm", ("HalfValueLayer",)),
    Number("positioner_primary_angle_deg", "deg", ("PositionerPrimaryAngle",)),
    Number("ctdi_vol_mgy", "mGy", ("MeanCtdivol",), mammogram=False),
    Number("dlp_mgy_cm", "mGy.cm", ("DLP",), mammogram=False),
    Number("scanning_length_mm", "mm", ("ScanningLength",), mammogram=False),
    Number("pitch", "1", ("PitchFactor",), mammogram=False),
    Number("dap_gy_m2", "Gy.m2", ("DoseAreaProduct",), mammogram=False),
    Number("reference_point_dose_gy", "Gy", ("DoseRP",), mammogram=False),
    Number("n_pulses", "1", ("NumberOfPulses",), mammogram=False),
)
NUMERIC = (*(one.column for one in NUMBERS), "filter_thickness_mm")
TEXTUAL = ("laterality", "view", "view_modifiers", "anode", "filter_material", "grid", "acquisition_type",
           "target_region", "plane", "phantom", "kind", "started")
SOURCED = (*(one.column for one in NUMBERS if one.mammogram), "filter_thickness_mm", "laterality", "view", "anode",
           "filter_material")
# quantity, unit, keyword of the total in TID 10002, 10004, 10005, 10012
TOTALS = (
    ("average_glandular_dose", "mGy", "AccumulatedAverageGlandularDose"),
    ("dap", "Gy.m2", "DoseAreaProductTotal"),
    ("fluoroscopy_dap", "Gy.m2", "FluoroDoseAreaProductTotal"),
    ("acquisition_dap", "Gy.m2", "AcquisitionDoseAreaProductTotal"),
    ("reference_point_dose", "Gy", "DoseRPTotal"),
    ("fluoroscopy_reference_point_dose", "Gy", "FluoroDoseRPTotal"),
    ("acquisition_reference_point_dose", "Gy", "AcquisitionDoseRPTotal"),
    ("fluoroscopy_time", "s", "TotalFluoroTime"),
    ("radiographic_frames", "1", "TotalNumberOfRadiographicFrames"),
    ("dlp", "mGy.cm", "CTDoseLengthProductTotal"),
    ("events", "1", "TotalNumberOfIrradiationEvents"),
)


@lru_cache(maxsize=256)
def dcm(keyword: str) -> str:
    """Return the code value of a keyword in pydicom's dictionary of DCM codes."""
    from pydicom.sr.codedict import codes

    return str(getattr(codes.DCM, keyword).value)


@lru_cache(maxsize=64)
def sct_of(keyword: str) -> str:
    from pydicom.sr.codedict import codes

    return str(getattr(codes.SCT, keyword).value)

"""What is read from an image's header: columns, the element paths they come from, and their conversions. Pure.

A harmonised value has its source beside it: element, unit, conversion. Where an element may stand in several places the
first that states a value above zero is taken. A tomosynthesis object states its exposure in the X-Ray 3D Acquisition
Sequence (PS3.3 C.8.21.3) and, per projection, below that: times and mAs of projections are added up, kV and mA must be
the same in each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from pipeline.curate.terms import materials, modifiers
from pipeline.curate.values import Cell, Malformed, day, integer, number, present, text, years
from pipeline.curate.views import view
from pipeline.schemas import Type

# Values of one path that `deidentify` keeps of one object (functional groups repeat): as many may have been more.
_MOST = 64
_TOMO = "XRay3DAcquisitionSequence."
_PROJECTION = _TOMO + "PerProjectionAcquisitionSequence."


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the flat table: which element paths it is read from, and how.

    `read` takes a cell per path and returns the value, or (value, source) where `sourced`; it raises Malformed.
    """

    name: str
    type: Type
    paths: tuple[str, ...]
    read: Callable[..., Any]
    sourced: bool = False


@lru_cache(maxsize=256)
def where(path: str) -> str:
    """Return the words for an element of a path: `OrganDose (0040,0316)`."""
    from pydicom.datadict import tag_for_keyword

    keyword = path.rpartition(".")[2]
    tag = tag_for_keyword(keyword)
    return keyword if tag is None else f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


# ---- a number from the first place that states one ---------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    unit: str
    factor: str = "1"
    many: str = "one"               # one value; same: all the same; sum: added up

    def value(self, cell: Cell) -> float | None:
        factor = Decimal(self.factor)
        if self.many == "one":
            return number(cell, factor)
        values = present(cell)
        if self.many == "same":
            numbers = {number([value], factor) for value in values}
            if len(numbers) > 1:
                raise Malformed
            return numbers.pop() if numbers else None
        if len(values) >= _MOST:
            raise Malformed
        numbers_ = [number([value]) for value in values]
        if None in numbers_:
            raise Malformed
        return float(sum(Decimal(value) for value in values) * factor) if values else None

    def source(self) -> str:
        words = f"{where(self.path)} {self.unit}"
        if Decimal(self.factor) != 1:
            words += f" × {self.factor}"
        return words + {"one": "", "same": "", "sum": ", sum of projections"}[self.many]


def _number(*places: _Place) -> Callable[..., tuple[float | None, str | None]]:
    def read(*cells: Cell) -> tuple[float | None, str | None]:
        zero: tuple[float | None, str | None] = (None, None)
        for place, cell in zip(places, cells, strict=True):
            value = place.value(cell)
            if value:
                return value, place.source()
            if value is not None and zero[0] is None:
                zero = value, place.source()
        return zero

    return read


def _n(name: str, *places: _Place) -> Field:
    return Field(name, "float64", tuple(p.path for p in places), _number(*places), sourced=True)


def _everywhere(keyword: str, unit: str, factor: str = "1") -> tuple[_Place, ...]:
    """An element of the image itself, else of its 3D acquisition."""
    return _Place(keyword, unit, factor), _Place(_TOMO + keyword, unit, factor, "same")


# ---- other readers -------------------------------------------------------------------------------------------------
def _term(read: Callable[[Cell], str | None], *paths: str) -> Callable[..., tuple[str | None, str | None]]:
    def first(*cells: Cell) -> tuple[str | None, str | None]:
        for path, cell in zip(paths, cells, strict=True):
            value = read(cell)
            if value is not None:
                return value, where(path)
        return None, None

    return first


def _first(*cells: Cell) -> str | None:
    return next((value for value in map(text, cells) if value is not None), None)


def _one_text(cell: Cell) -> str | None:
    """The values of frames or of acquisitions, where they are all the same."""
    values = set(present(cell))
    if len(values) > 1:
        raise Malformed
    return values.pop() or None if values else None


def _view(codes: Cell, schemes: Cell, position: Cell) -> tuple[str | None, str | None]:
    from_code = view(codes, schemes, None)
    if from_code is not None:
        return from_code, where("ViewCodeSequence")
    found = text(position)
    return found, where("ViewPosition") if found else None


def _filter_thickness(*cells: Cell) -> tuple[float | None, str | None]:
    """Mean of least and greatest, of the image or of its 3D acquisition; several filters must agree."""
    for n, prefix in enumerate(("", _TOMO)):
        least, most = (_Place(prefix, "mm", many="same").value(cell) for cell in cells[2 * n:2 * n + 2])
        names = [where(prefix + k) for k in ("FilterThicknessMinimum", "FilterThicknessMaximum")]
        if least is not None and most is not None:
            if least == most:
                return least, f"{names[0]} and {names[1]} mm"
            return float((Decimal(repr(least)) + Decimal(repr(most))) / 2), f"mean of {names[0]} and {names[1]} mm"
    return None, None


# OpenREM once divided the GE Senographe DS's force by ten (its issue 135) and dropped that in 0.7. The headers agree
# with the conformance statement and PS3.3 C.8.11.7: 60 beside a breast of 48 mm can only be newton. No vendor is
# converted; where pressure and area stand beside it, they are the evidence (exposures.py, unit_contradiction).
_DN_ONCE = ("senograph", " ds")


def _force(force: Cell, tomo: Cell, model: Cell) -> tuple[float | None, str | None]:
    value, source = _number(*_everywhere("CompressionForce", "N"))(force, tomo)
    name = (text(model) or "").lower()
    if source and all(word in name for word in _DN_ONCE):
        source += ", not dN: PS3.3 C.8.11.7"
    return value, source


def _frames(cell: Cell) -> int | None:
    value = integer(cell)
    return 1 if value is None else value


def _class_uid(cell: Cell) -> str:
    """Never null: every admitted object has one, and validation stops a candidate where it is not a UID."""
    return text(cell) or ""


def _class_name(cell: Cell) -> str | None:
    from pydicom.uid import UID

    value = text(cell)
    name = UID(value).name if value else None
    return name if name != value else None


def _single(cell: Cell) -> str | None:
    """The one UID that is named, once or several times; None where several are."""
    values = set(present(cell))
    return values.pop() or None if len(values) == 1 else None


def _count(cell: Cell) -> int:
    return len(set(present(cell)))


def _f(name: str, type_: Type, read: Callable[..., Any], *paths: str) -> Field:
    return Field(name, type_, paths, read)


def _t(name: str, read: Callable[[Cell], str | None], *paths: str) -> Field:
    return Field(name, "string", paths, _term(read, *paths), sourced=True)


_LATERALITY = ("ImageLaterality", "Laterality", "SharedFunctionalGroupsSequence.FrameAnatomySequence.FrameLaterality",
               "PerFrameFunctionalGroupsSequence.FrameAnatomySequence.FrameLaterality")
_VIEW = ("ViewCodeSequence.CodeValue", "ViewCodeSequence.CodingSchemeDesignator", "ViewPosition")
_MODIFIER = "ViewCodeSequence.ViewModifierCodeSequence."

FIELDS: tuple[Field, ...] = (
    _f("sex", "string", text, "PatientSex"),
    _f("study_date", "date", day, "StudyDate"),
    _f("age_band_years", "int32", years, "PatientAge"),
    _f("modality", "string", text, "Modality"),
    _f("manufacturer", "string", text, "Manufacturer"),
    _f("model", "string", text, "ManufacturerModelName"),
    _f("device_id", "string", text, "DeviceSerialNumber"),
    _f("software_versions", "string", text, "SoftwareVersions"),
    _f("sop_class_uid", "string", _class_uid, "SOPClassUID"),
    _f("sop_class_name", "string", _class_name, "SOPClassUID"),
    _f("image_type", "string", text, "ImageType"),
    _f("presentation_intent", "string", text, "PresentationIntentType"),
    _t("laterality", _one_text, *_LATERALITY),
    Field("view", "string", _VIEW, _view, sourced=True),
    _f("view_modifiers", "string", modifiers, _MODIFIER + "CodeValue", _MODIFIER + "CodingSchemeDesignator"),
    _f("partial_view", "string", text, "PartialView"),
    _f("rows", "int32", integer, "Rows"),
    _f("columns", "int32", integer, "Columns"),
    _f("frames", "int32", _frames, "NumberOfFrames"),
    _f("transfer_syntax_uid", "string", text, "TransferSyntaxUID"),
    # --- which exposure it is
    _f("event_uid", "string", _single, "IrradiationEventUID"),
    _f("n_events", "int32", _count, "IrradiationEventUID"),
    _f("source_uid", "string", _single, "SourceImageSequence.ReferencedSOPInstanceUID"),
    # --- exposure and dose
    _n("kvp_kv", _Place("KVP", "kV"), _Place(_TOMO + "KVP", "kV", many="same"),
       _Place(_PROJECTION + "KVP", "kV", many="same")),
    _n("exposure_mas", _Place("ExposureInuAs", "µAs", "0.001"), _Place("Exposure", "mAs"),
       _Place("ExposureInmAs", "mAs"), _Place(_PROJECTION + "ExposureInmAs", "mAs", many="sum")),
    _n("exposure_time_ms", _Place("ExposureTime", "ms"), _Place("ExposureTimeInuS", "µs", "0.001"),
       _Place("ExposureTimeInms", "ms"), _Place(_PROJECTION + "ExposureTimeInms", "ms", many="sum")),
    _n("tube_current_ma", _Place("XRayTubeCurrent", "mA"), _Place("XRayTubeCurrentInuA", "µA", "0.001"),
       _Place("XRayTubeCurrentInmA", "mA"), _Place(_PROJECTION + "XRayTubeCurrentInmA", "mA", many="same")),
    _t("anode", materials, "AnodeTargetMaterial", _TOMO + "AnodeTargetMaterial"),
    _t("filter_material", materials, "FilterMaterial", _TOMO + "FilterMaterial"),
    Field("filter_thickness_mm", "float64", ("FilterThicknessMinimum", "FilterThicknessMaximum",
          _TOMO + "FilterThicknessMinimum", _TOMO + "FilterThicknessMaximum"), _filter_thickness, sourced=True),
    _n("body_part_thickness_mm", *_everywhere("BodyPartThickness", "mm")),
    Field("compression_force_n", "float64", ("CompressionForce", _TOMO + "CompressionForce", "ManufacturerModelName"),
          _force, sourced=True),
    _n("compression_pressure_kpa", *_everywhere("CompressionPressure", "kPa")),
    _n("compression_contact_area_mm2", *_everywhere("CompressionContactArea", "mm2")),
    _f("paddle", "string", _first, "PaddleDescription", _TOMO + "PaddleDescription"),
    # OrganDose is in dGy (PS3.3 C.8.7.8).
    _n("average_glandular_dose_mgy", *_everywhere("OrganDose", "dGy", "100")),
    _n("entrance_dose_mgy", *_everywhere("EntranceDoseInmGy", "mGy")),
    _n("half_value_layer_mm", *_everywhere("HalfValueLayer", "mm")),
    _f("exposure_control_mode", "string", _first, "ExposureControlMode", _TOMO + "ExposureControlMode"),
    _f("exposure_control_description", "string", _first, "ExposureControlModeDescription",
       _TOMO + "ExposureControlModeDescription"),
    _f("positioner_primary_angle_deg", "float64", number, "PositionerPrimaryAngle"),
    _f("grid", "string", _first, "Grid", _TOMO + "Grid"),
    _f("operator_id", "string", text, "OperatorsName"),
)

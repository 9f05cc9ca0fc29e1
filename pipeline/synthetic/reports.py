"""Content trees of structured reports of PS3.16: mammography dose (TID 10001, 10002, 10003), CAD (TID 4000).

Concept codes come from pydicom's dictionaries alone (`pydicom.sr.codedict`). Units that these lack are UCUM's, as the
templates name them. What a report says of an exposure is what the image's header says, unless a quirk is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.synthetic.encode import uid
from pipeline.synthetic.headers import item, put

DCM, SCT, UCUM = codes.DCM, codes.SCT, codes.UCUM
MGY, UAS, MAS, MA, NEWTON = (Code(unit, "UCUM", unit) for unit in ("mGy", "uA.s", "mA.s", "mA", "N"))
SIDES = {"L": SCT.LeftBreast, "R": SCT.RightBreast}
VIEWS = {"CC": SCT.CranioCaudal, "MLO": SCT.MedioLateralObliqueProjection}
MATERIALS = {"MOLYBDENUM": SCT.Molybdenum, "RHODIUM": SCT.Rhodium, "TUNGSTEN": SCT.Tungsten, "SILVER": SCT.Silver,
             "ALUMINUM": SCT.Aluminum, "COPPER": SCT.Copper}
FINDINGS = {"mass": SCT.MammographicBreastMass, "calcification": SCT.CalcificationCluster}

# What may be wrong with a dose report:
# disagrees: the first exposure has another kV and dose than its header    unit: a thickness in newtons, µAs named mA.s
# zero: the last exposure's dose is 0      verified: somebody has signed it      comment: a comment names the woman
Quirk = Literal["", "disagrees", "unit", "zero", "verified", "comment"]


@dataclass(frozen=True)
class Shot:
    """One exposure as the image of it has it: `header` holds its exposure elements by keyword, in the header's units
    (OrganDose in dGy, CompressionForce in N)."""

    event: str
    image: str                      # SOP Instance UID
    image_class: str
    laterality: str
    view: str
    started: str                    # DA and TM, joined
    header: Mapping[str, Any] = field(hash=False)

    @property
    def dose_mgy(self) -> float:
        return float(self.header["OrganDose"]) * 100


@dataclass(frozen=True)
class Mark:
    """One finding of a CAD device on an image: place in pixels (column, row), probability and certainty in %."""

    image: str
    image_class: str
    laterality: str
    view: str
    kind: str                       # a key of FINDINGS
    column: float
    row: float
    probability: int
    certainty: int


# ---- dose ----------------------------------------------------------------------------------------------------------
def dose(
    shots: tuple[Shot, ...], *, study: str, operator: str | None, manufacturer: str | None, model: str | None,
    serial: str | None, station: str | None, institution: str | None, words: str, quirk: Quirk = "",
) -> dict[str, Any]:
    """Return the SR document modules (PS3.3 C.17) of an X-Ray Radiation Dose SR as elements by keyword."""
    totals = {side: sum(s.dose_mgy for s in shots if s.laterality == side) for side in "LR"}
    accumulated = [_code("HAS CONCEPT MOD", DCM.AcquisitionPlane, DCM.SinglePlane)]
    for side, total in totals.items():
        accumulated.append(_number(DCM.AccumulatedAverageGlandularDose, f"{total:.2f}", MGY,
                                   _code("HAS CONCEPT MOD", SCT.Laterality, SIDES[side])))
    odd = len(shots) - 1 if quirk == "zero" else 0
    events = [_event(shot, quirk if n == odd else "", words) for n, shot in enumerate(shots)]
    observer = [
        _code("HAS OBS CONTEXT", DCM.ObserverType, DCM.Device),
        _node("HAS OBS CONTEXT", "UIDREF", DCM.DeviceObserverUID, UID=uid("device", manufacturer, model, serial)),
        *_texts("HAS OBS CONTEXT", (
            (DCM.DeviceObserverName, station), (DCM.DeviceObserverManufacturer, manufacturer),
            (DCM.DeviceObserverModelName, model), (DCM.DeviceObserverSerialNumber, serial),
            (DCM.DeviceObserverPhysicalLocationDuringObservation, institution))),
    ]
    if operator:
        observer += [_code("HAS OBS CONTEXT", DCM.ObserverType, DCM.Person),
                     _node("HAS OBS CONTEXT", "PNAME", DCM.PersonObserverName, PersonName=operator)]
    yes = SCT.Yes
    return _document("10001", DCM.XRayRadiationDoseReport, [
        _code("HAS CONCEPT MOD", DCM.ProcedureReported, SCT.Mammography,
              _code("HAS CONCEPT MOD", SCT.HasIntent, SCT.DiagnosticIntent)),
        *observer,
        _code("HAS OBS CONTEXT", DCM.ScopeOfAccumulation, DCM.Study,
              _node("HAS PROPERTIES", "UIDREF", DCM.StudyInstanceUID, UID=study)),
        _code("CONTAINS", DCM.XRayDetectorDataAvailable, yes), _code("CONTAINS", DCM.XRaySourceDataAvailable, yes),
        _code("CONTAINS", DCM.XRayMechanicalDataAvailable, yes),
        _container("CONTAINS", DCM.AccumulatedXRayDoseData, accumulated, "10002"), *events,
        _code("CONTAINS", DCM.SourceOfDoseInformation, DCM.AutomatedDataCollection),
    ]) | (_verified(operator, institution, shots) if quirk == "verified" else {})


def _verified(operator: str | None, institution: str | None, shots: tuple[Shot, ...]) -> dict[str, Any]:
    return {"VerificationFlag": "VERIFIED", "VerifyingObserverSequence": item(
        VerifyingObserverName=operator or "UNKNOWN", VerifyingOrganization=institution or "UNKNOWN",
        VerificationDateTime=max((s.started for s in shots), default="19000101"),
        VerifyingObserverIdentificationCodeSequence=[])}


def _event(shot: Shot, quirk: str, words: str) -> Dataset:
    """Return one Irradiation Event X-Ray Data container (TID 10003 with 10003A, B and C)."""
    h = shot.header
    kv, dose_mgy = float(h["KVP"]), shot.dose_mgy
    if quirk == "disagrees":
        kv, dose_mgy = kv + 2, dose_mgy * 1.5
    dose_mgy *= quirk != "zero"
    rows = [
        _code("HAS CONCEPT MOD", DCM.AcquisitionPlane, DCM.SinglePlane),
        _node("CONTAINS", "UIDREF", DCM.IrradiationEventUID, UID=shot.event),
        _node("CONTAINS", "DATETIME", DCM.DatetimeStarted, DateTime=shot.started),
        _code("CONTAINS", DCM.IrradiationEventType, DCM.StationaryAcquisition),
        _code("CONTAINS", SCT.AnatomicalStructure, SCT.Breast,
              _code("HAS CONCEPT MOD", SCT.Laterality, SIDES[shot.laterality])),
        _code("CONTAINS", DCM.ImageView, VIEWS[shot.view]),
        _code("CONTAINS", DCM.TargetRegion, SCT.Breast,
              _code("HAS CONCEPT MOD", SCT.Laterality, SIDES[shot.laterality])),
        _number(DCM.HalfValueLayer, h["HalfValueLayer"], UCUM.Millimeter),
        _number(DCM.EntranceExposureAtRP, h["EntranceDoseInmGy"], MGY),
        _code("CONTAINS", DCM.ReferencePointDefinition, DCM.AtSurfaceOfPatient),
        _image("CONTAINS", DCM.AcquiredImage, shot.image, shot.image_class),
        _number(DCM.AverageGlandularDose, f"{dose_mgy:.3f}", MGY),
        _number(DCM.KVP, f"{kv:g}", UCUM.Kilovolt),
        _number(DCM.XRayTubeCurrent, h["XRayTubeCurrent"], MA),
        _number(DCM.ExposureTime, h["ExposureTime"], UCUM.Millisecond),
        _number(DCM.Exposure, h["ExposureInuAs"], MAS if quirk == "unit" else UAS),
        _code("CONTAINS", DCM.AnodeTargetMaterial, MATERIALS[h["AnodeTargetMaterial"]]),
        _container("CONTAINS", DCM.XRayFilters, [
            _code("CONTAINS", DCM.XRayFilterType, DCM.StripFilter),
            _code("CONTAINS", DCM.XRayFilterMaterial, MATERIALS[h["FilterMaterial"]]),
            _number(DCM.XRayFilterThicknessMinimum, h["FilterThicknessMinimum"], UCUM.Millimeter),
            _number(DCM.XRayFilterThicknessMaximum, h["FilterThicknessMaximum"], UCUM.Millimeter)]),
        _code("CONTAINS", DCM.XRayGrid, DCM.ReciprocatingGrid),
        _number(DCM.PositionerPrimaryAngle, h["PositionerPrimaryAngle"], UCUM.Degree),
        _number(DCM.CompressionThickness, h["BodyPartThickness"], NEWTON if quirk == "unit" else UCUM.Millimeter),
        _number(DCM.CompressionForce, h["CompressionForce"], NEWTON),
    ]
    if "CompressionPressure" in h:
        rows += [_number(DCM.CompressionPressure, h["CompressionPressure"], UCUM.Kilopascal),
                 _number(DCM.CompressionContactArea, h["CompressionContactArea"], UCUM.SquareMillimeter)]
    if quirk == "comment":
        rows.append(_node("CONTAINS", "TEXT", DCM.Comment, TextValue=f"{words} moved, repeated in agreement"))
    return _container("CONTAINS", DCM.IrradiationEventXRayData, rows, "10003")


# ---- CAD -----------------------------------------------------------------------------------------------------------
def cad(shots: tuple[Shot, ...], marks: tuple[Mark, ...]) -> dict[str, Any]:
    """Return the SR document modules of a Mammography CAD SR (TID 4000) over these images, with these findings."""
    library = [_image("CONTAINS", None, s.image, s.image_class,
                      _code("HAS ACQ CONTEXT", DCM.ImageLaterality, SIDES[s.laterality]),
                      _code("HAS ACQ CONTEXT", DCM.ImageView, VIEWS[s.view])) for s in shots]
    algorithm = [_node("HAS CONCEPT MOD", "TEXT", DCM.AlgorithmName, TextValue="SYNTHETIC DETECTOR"),
                 _node("HAS CONCEPT MOD", "TEXT", DCM.AlgorithmVersion, TextValue="1.0")]
    intent = _code("HAS CONCEPT MOD", DCM.RenderingIntent, DCM.PresentationRequiredRenderingDeviceIsExpectedToPresent)
    summary = (DCM.AllAlgorithmsSucceededWithFindings if marks else DCM.AllAlgorithmsSucceededWithoutFindings)
    impressions = [_container("INFERRED FROM", DCM.IndividualImpressionRecommendation, [intent, _finding(m, algorithm)])
                   for m in marks]
    performed = [_code("CONTAINS", DCM.DetectionPerformed, code, *algorithm) for code in FINDINGS.values()]
    return _document("4000", DCM.MammographyCADReport, [
        _container("CONTAINS", DCM.ImageLibrary, library),
        _code("CONTAINS", DCM.CADProcessingAndFindingsSummary, summary, *impressions),
        _code("CONTAINS", DCM.SummaryOfDetections, DCM.Succeeded,
              _container("INFERRED FROM", DCM.SuccessfulDetections, performed)),
        _code("CONTAINS", DCM.SummaryOfAnalyses, DCM.NotAttempted),
    ])


def _finding(mark: Mark, algorithm: list[Dataset]) -> Dataset:
    """Return one Single Image Finding (TID 4006) with its place (TID 4021) and how likely it is (CID 6048)."""
    place = _node("HAS PROPERTIES", "SCOORD", DCM.Center, GraphicType="POINT",
                  GraphicData=[mark.column, mark.row])
    place.ContentSequence = [_image("SELECTED FROM", None, mark.image, mark.image_class)]
    return _code(
        "CONTAINS", DCM.SingleImageFinding, FINDINGS[mark.kind],
        _code("HAS CONCEPT MOD", DCM.RenderingIntent, DCM.PresentationRequiredRenderingDeviceIsExpectedToPresent),
        *algorithm, place,
        _number(DCM.CertaintyOfFinding, str(mark.certainty), UCUM.Percent, relation="HAS PROPERTIES"),
        _number(DCM.ProbabilityOfCancer, str(mark.probability), UCUM.Percent, relation="HAS PROPERTIES"))


# ---- content items (PS3.3 C.17.3) ----------------------------------------------------------------------------------
def _document(template: str, title: Any, content: list[Dataset]) -> dict[str, Any]:
    return {
        "CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE", "ConceptNameCodeSequence": _concept(title),
        "ReferencedPerformedProcedureStepSequence": [], "PerformedProcedureCodeSequence": [],
        "ContentTemplateSequence": item(MappingResource="DCMR", TemplateIdentifier=template),
        "ContentSequence": content,
    }


@functools.cache
def _concept(name: Any) -> Dataset:
    """Return the item of a code. One item for all: it is written, never changed."""
    # pydicom's dictionary has zero-width spaces in a few meanings, where the printed standard may break a line
    return item(CodeValue=name.value, CodingSchemeDesignator=name.scheme_designator,
                CodeMeaning=name.meaning.replace("\u200b", ""))


def _node(relation: str, kind: str, name: Any, **values: Any) -> Dataset:
    ds = item(RelationshipType=relation, ValueType=kind)
    if name is not None:
        ds.ConceptNameCodeSequence = [_concept(name)]
    put(ds, values)
    return ds


def _code(relation: str, name: Any, value: Any, *content: Dataset) -> Dataset:
    return _with(_node(relation, "CODE", name, ConceptCodeSequence=_concept(value)), content)


def _number(name: Any, value: str, unit: Any, *content: Dataset, relation: str = "CONTAINS") -> Dataset:
    return _with(_node(relation, "NUM", name, MeasuredValueSequence=item(
        NumericValue=value, MeasurementUnitsCodeSequence=_concept(unit))), content)


def _texts(relation: str, given: tuple[tuple[Any, str | None], ...]) -> list[Dataset]:
    return [_node(relation, "TEXT", name, TextValue=text) for name, text in given if text]


def _container(relation: str, name: Any, content: list[Dataset], template: str | None = None) -> Dataset:
    ds = _node(relation, "CONTAINER", name, ContinuityOfContent="SEPARATE", ContentSequence=content)
    if template:
        ds.ContentTemplateSequence = [item(MappingResource="DCMR", TemplateIdentifier=template)]
    return ds


def _image(relation: str, name: Any, image: str, image_class: str, *content: Dataset) -> Dataset:
    return _with(_node(relation, "IMAGE", name, ReferencedSOPSequence=item(
        ReferencedSOPClassUID=image_class, ReferencedSOPInstanceUID=image)), content)


def _with(ds: Dataset, content: tuple[Dataset, ...]) -> Dataset:
    if content:
        ds.ContentSequence = list(content)
    return ds

"""The content tree of a small X-Ray Radiation Dose SR: TID 10001, 10002, 10003 and 10003C of PS3.16."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.synthetic.encode import uid
from pipeline.synthetic.headers import item, put


def content(laterality: str, operator: str, serial: str, date: str, study: str) -> dict[str, Any]:
    """Return the SR document modules (PS3.3 C.17) as elements by keyword."""
    unit = codes.UCUM
    exposure = [
        _code("CONTAINS", codes.DCM.AcquisitionPlane, codes.DCM.SinglePlane),
        _node("CONTAINS", "UIDREF", codes.DCM.IrradiationEventUID, UID=uid("event", study)),
        _node("CONTAINS", "DATETIME", codes.DCM.DatetimeStarted, DateTime=f"{date}101530"),
        _code("CONTAINS", codes.DCM.IrradiationEventType, codes.DCM.StationaryAcquisition),
        _code("CONTAINS", codes.SCT.Laterality, codes.SCT.LeftBreast if laterality == "L" else codes.SCT.RightBreast),
        _number(codes.DCM.KVP, "29", unit.Kilovolt),
        _number(codes.DCM.CompressionThickness, "54", unit.Millimeter),
        _number(codes.DCM.AverageGlandularDose, "1.42", Code("mGy", "UCUM", "mGy")),
    ]
    return {
        "CompletionFlag": "COMPLETE", "VerificationFlag": "UNVERIFIED", "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE", "ConceptNameCodeSequence": _concept(codes.DCM.XRayRadiationDoseReport),
        "ReferencedPerformedProcedureStepSequence": [], "PerformedProcedureCodeSequence": [],
        "ContentTemplateSequence": item(MappingResource="DCMR", TemplateIdentifier="10001"),
        "ContentSequence": [
            _code("HAS CONCEPT MOD", codes.DCM.ProcedureReported, codes.SCT.Mammography),
            _node("HAS OBS CONTEXT", "PNAME", codes.DCM.PersonObserverName, PersonName=operator),
            _node("HAS OBS CONTEXT", "TEXT", codes.DCM.DeviceObserverSerialNumber, TextValue=serial),
            _node("CONTAINS", "CONTAINER", codes.DCM.IrradiationEventXRayData, ContinuityOfContent="SEPARATE",
                  ContentSequence=exposure),
        ],
    }


def _concept(name: Any) -> Dataset:
    return item(CodeValue=name.value, CodingSchemeDesignator=name.scheme_designator, CodeMeaning=name.meaning)


def _node(relation: str, kind: str, name: Any, **values: Any) -> Dataset:
    ds = item(RelationshipType=relation, ValueType=kind, ConceptNameCodeSequence=_concept(name))
    put(ds, values)
    return ds


def _code(relation: str, name: Any, value: Any) -> Dataset:
    return _node(relation, "CODE", name, ConceptCodeSequence=_concept(value))


def _number(name: Any, value: str, unit: Any) -> Dataset:
    return _node("CONTAINS", "NUM", name, MeasuredValueSequence=item(
        NumericValue=value, MeasurementUnitsCodeSequence=_concept(unit)))

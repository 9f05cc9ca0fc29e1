"""Content trees for tests of concept rules, and what pydicom reads of the outputs."""

import io

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.deidentify import concepts
from pipeline.deidentify.engine import rewrite
from pipeline.deidentify.linter import read
from pipeline.deidentify.plan import RECIPES, compile_rules
from pipeline.deidentify.subject import Subject
from pipeline.synthetic import encode, files

DCM, SCT = codes.DCM, codes.SCT
CONTAINS, MODIFIER, CONTEXT = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT"
MGY = Code("mGy", "UCUM", "mGy")


def compiled(rules, *, keep_times=False):
    """Return a plan of base.dicom, report.dicom and a file of concept rules."""
    return compile_rules(read([RECIPES / "base.dicom", RECIPES / "report.dicom"]), keep_times=keep_times,
                         concepts=concepts.read(rules))


def code(value):
    """Return a code sequence of a Code or a triple."""
    value = value if isinstance(value, Code) else Code(*value)
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value.value, value.scheme_designator, value.meaning
    return [ds]


def item(relation, kind, name=None, *content, **values):
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = relation, kind
    if name is not None:
        ds.ConceptNameCodeSequence = code(name)
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    if content:
        ds.ContentSequence = list(content)
    return ds


def num(name, value, unit, *content, relation=CONTAINS):
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = value, code(unit)
    return item(relation, "NUM", name, *content, MeasuredValueSequence=[measured])


def said(name, value, *content, relation=CONTAINS):
    return item(relation, "CODE", name, *content, ConceptCodeSequence=code(value))


def text(name, value, *content, relation=CONTAINS, kind="TEXT"):
    keyword = {"TEXT": "TextValue", "PNAME": "PersonName", "UIDREF": "UID", "DATETIME": "DateTime", "DATE": "Date",
               "TIME": "Time"}[kind]
    return item(relation, kind, name, *content, **{keyword: value})


def container(name, *content, relation=CONTAINS):
    return item(relation, "CONTAINER", name, *content, ContinuityOfContent="SEPARATE")


def image(uid, *content, name=None, relation=CONTAINS):
    sop = Dataset()
    sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", uid
    return item(relation, "IMAGE", name, *content, ReferencedSOPSequence=[sop])


def refers(relation, *place):
    ds = Dataset()
    ds.RelationshipType, ds.ReferencedContentItemIdentifier = relation, list(place)
    return ds


def report(*content, title=DCM.XRayRadiationDoseReport, syntax="explicit", **elements):
    """Return the bytes of a report with this content."""
    ds = files.dose_report_dataset()
    ds.ConceptNameCodeSequence = code(title)
    ds.ContentSequence = list(content)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return encode.part10(ds, syntax)


class Engine:
    def __init__(self, folder, plan, pseudonyms):
        self.folder, self.plan, self.subject = folder, plan, Subject("P1", pseudonyms, -100, -60, "HOSP-A")
        self.tally = self.raw = None

    def __call__(self, data):
        """Return the output as pydicom reads it."""
        source, target = self.folder / "in.dcm", self.folder / "out.dcm"
        source.write_bytes(data)
        target.unlink(missing_ok=True)
        self.result = rewrite(source, target, self.plan, self.subject)
        self.tally, self.raw = self.result.items, target.read_bytes()
        return dcmread(io.BytesIO(self.raw))


def walk(ds):
    yield ds
    for child in ds.get("ContentSequence", ()):
        yield from walk(child)


def tree(ds):
    """Return items as (value type, concept's code value, value, children); what refers to another as a path."""
    if "ReferencedContentItemIdentifier" in ds:
        return "REFERENCE", None, ds.ReferencedContentItemIdentifier, []
    name = ds.ConceptNameCodeSequence[0].CodeValue if "ConceptNameCodeSequence" in ds else None
    value = None
    for keyword in ("TextValue", "PersonName", "UID", "DateTime", "Date", "Time"):
        if keyword in ds:
            value = str(ds[keyword].value)
    if ds.get("MeasuredValueSequence"):
        measured = ds.MeasuredValueSequence[0]
        value = f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
    if "ConceptCodeSequence" in ds:
        value = ds.ConceptCodeSequence[0].CodeValue
    return ds.ValueType, name, value, [tree(child) for child in ds.get("ContentSequence", ())]

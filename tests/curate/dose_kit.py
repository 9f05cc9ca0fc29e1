"""Facts and content of DICOM files and of hand-made rows, as `deidentify` writes them, read here with pydicom alone."""

import os
from pathlib import Path

import pydicom
import pytest

from pipeline import layout
from pipeline.curate.build import build
from pipeline.schemas import CONTENT, FACTS, Column
from pipeline.storage import open_store, tables

PROJECT = "breast"
CORPUS = Path(os.environ.get("TRE_CORPUS", Path(__file__).parents[3] / "shared" / "corpus")) / "dicom"
_TEXTS = {"TEXT": "TextValue", "UIDREF": "UID", "DATETIME": "DateTime", "DATE": "Date", "TIME": "Time"}


def corpus(name):
    path = CORPUS / name
    if not path.exists():
        pytest.skip("the corpus is not here: set TRE_CORPUS")
    return pydicom.dcmread(path, stop_before_pixels=True)


def facts(ds):
    """Return path → values of every element but binary ones (schemas.FACTS)."""
    found = {}

    def level(item, prefix):
        for element in item:
            if not element.keyword:
                continue
            if element.VR == "SQ":
                for one in element.value:
                    level(one, f"{prefix}{element.keyword}.")
            elif element.VR not in ("OB", "OW", "OF", "UN", "OB or OW"):
                values = element.value if element.VM > 1 else [element.value] if element.VM else []
                texts = [str(getattr(value, "original_string", value)) for value in values]
                found.setdefault(prefix + element.keyword, []).extend(texts)

    level(ds, "")
    return {path: values[:64] for path, values in found.items()}


def _code(sequence):
    if not sequence:
        return None, None, None
    item = sequence[0]
    return item.get("CodeValue") or None, item.get("CodingSchemeDesignator"), item.get("CodeMeaning")


def content(ds, patient, study, instance):
    """Return the rows of a report (schemas.CONTENT)."""
    rows = []

    def walk(item, parent, depth):
        kind = item.get("ValueType") or ""
        row = {"patient": patient, "study": study, "instance": instance, "node": len(rows) + 1, "parent": parent,
               "depth": depth, "relationship": item.get("RelationshipType"), "value_type": kind}
        row |= zip(("concept", "concept_scheme", "concept_meaning"), _code(item.get("ConceptNameCodeSequence")),
                   strict=True)
        template = item.get("ContentTemplateSequence")
        row["template"] = template[0].get("TemplateIdentifier") if template else None
        if kind == "NUM" and item.get("MeasuredValueSequence"):
            measured = item.MeasuredValueSequence[0]
            value = measured.get("NumericValue")
            row["number"] = None if value is None else str(getattr(value, "original_string", value))
            row["unit"] = _code(measured.get("MeasurementUnitsCodeSequence"))[0]
        elif kind == "CODE":
            names = ("code", "code_scheme", "code_meaning")
            row |= zip(names, _code(item.get("ConceptCodeSequence")), strict=True)
        elif kind in _TEXTS and item.get(_TEXTS[kind]) is not None:
            row["text"] = str(item.get(_TEXTS[kind]))
        elif kind in ("IMAGE", "COMPOSITE") and item.get("ReferencedSOPSequence"):
            row["reference"] = str(item.ReferencedSOPSequence[0].get("ReferencedSOPInstanceUID", "")) or None
        rows.append(row)
        for below in item.get("ContentSequence") or []:
            walk(below, row["node"], depth + 1)

    walk(ds, 0, 0)
    return rows


class Site:
    """A candidate zone that images and reports are put into, and curated."""

    def __init__(self, folder):
        self.store = open_store((folder / "candidate").as_uri(), "candidate")
        self.rows, self.items = {}, {}

    def image(self, elements, *, patient="PA", study="1", series="1", instance, part="p-1", order=None):
        self.rows.setdefault(part, []).append({
            "patient": patient, "study": study, "series": series, "instance": instance, "key": f"k/{instance}",
            "sha256": str(instance).encode()[-32:].rjust(32, b"0"), "bytes": 1000, "acquisition_order": order,
            **{path: value for path, value in elements.items() if value is not None}})  # fmt: skip

    def report(self, rows, elements=None, *, part="p-1"):
        """`rows` as `content` or `tree` gives them."""
        first = rows[0]
        self.image(elements or {"Modality": ["SR"]}, patient=first["patient"], study=first["study"],
                   instance=first["instance"], part=part)
        self.items.setdefault(part, []).extend(rows)

    def file(self, ds, *, part="p-1", order=None):
        who = {"patient": "PA", "study": str(ds.StudyInstanceUID), "instance": str(ds.SOPInstanceUID)}
        if "ContentSequence" in ds:
            self.report(content(ds, **who), facts(ds), part=part)
        else:
            self.image(facts(ds), **who, series=str(ds.SeriesInstanceUID), part=part, order=order)

    def build(self, **options):
        for part, rows in self.rows.items():
            paths = sorted({path for row in rows for path in row} - set(FACTS.names()))
            extra = tuple(Column(path, "strings", "") for path in paths)
            tables.write(self.store, layout.facts(PROJECT, part), tables.from_rows(FACTS, rows, extra))
            if part in self.items:
                tables.write(self.store, layout.content(PROJECT, part), tables.from_rows(CONTENT, self.items[part]))
        plan = {"parts": sorted(self.rows), "held": {}, "clinical": None}
        return build(self.store, PROJECT, plan, **options)


def tree(instance, *events, patient="PA", study="1", template="10001", title=("113701", "DCM"), totals=(),
         procedure=("P5-40010", "SRT")):
    """Return the rows of a mammography dose report. An event is a list of (concept, what, *below): a number as
    (value, unit), a code as (value, scheme), text as str, an image as {"image": uid}."""
    rows = []

    def add(parent, depth, kind, concept, scheme="DCM", **more):
        rows.append({"patient": patient, "study": study, "instance": instance, "node": len(rows) + 1, "parent": parent,
                     "depth": depth, "value_type": kind, "concept": concept, "concept_scheme": scheme, **more})
        return len(rows)

    def put(parent, depth, concept, what, *below):
        scheme = "SRT" if "-" in concept else "DCM"
        if isinstance(what, dict):
            node = add(parent, depth, "IMAGE", concept, scheme, reference=what["image"])
        elif isinstance(what, str):
            node = add(parent, depth, "UIDREF", concept, scheme, text=what)
        elif isinstance(what, tuple) and what[1] in ("DCM", "SRT", "SNM3", "SCT", "99X"):
            node = add(parent, depth, "CODE", concept, scheme, code=what[0], code_scheme=what[1])
        elif isinstance(what, tuple):
            node = add(parent, depth, "NUM", concept, scheme, number=what[0], unit=what[1])
        else:
            node = add(parent, depth, "CONTAINER", concept, scheme)
        for one in below:
            put(node, depth + 1, *one)

    root = add(0, 0, "CONTAINER", *title, template=template)
    if procedure:
        put(root, 1, "121058", procedure)
    if totals:
        put(root, 1, "113702", None, *totals)
    for event in events:
        put(root, 1, "113706", None, *event)
    return rows

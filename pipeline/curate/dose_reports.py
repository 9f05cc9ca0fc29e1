"""X-ray radiation dose reports (PS3.16 TID 10001, 10011) to irradiation events. Pure: one report's items in, rows out.

An event is a container Irradiation Event X-Ray Data (TID 10003) or CT Acquisition (TID 10013). Codes are those of
pydicom's dictionary of PS3.16; one that is not there says where it was met. A number whose unit is not known, or that
is stated more than once with different values, is null and a row of `found`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from pipeline.curate import terms, units
from pipeline.curate.dose_concepts import NUMBERS, TOTALS, Number, dcm, sct_of
from pipeline.curate.values import Malformed, number
from pipeline.curate.views import short_code

# The same concept in a mammography dose report of IMS Giotto; PS3.16 has no such code.
_GIOTTO_ANODE = "113632"


class Item(NamedTuple):
    """A content item, as content.parquet has it."""

    node: int
    parent: int
    depth: int
    value_type: str
    template: str | None
    concept: str | None
    concept_scheme: str | None
    number: str | None
    unit: str | None
    code: str | None
    code_scheme: str | None
    code_meaning: str | None
    text: str | None
    reference: str | None


@dataclass
class Report:
    """What one report gives. `events`: rows of the internal events table; `found`: what is wrong with it, for
    discrepancies; `totals`: for accumulated_doses; `rejected`: images that a key object selection rejects."""

    events: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)
    totals: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    malformed: Counter[str] = field(default_factory=Counter)


def is_dose_report(concept: str | None, scheme: str | None) -> bool:
    return scheme == "DCM" and concept == dcm("XRayRadiationDoseReport")


def is_rejection(concept: str | None, scheme: str | None) -> bool:
    """Whether a key object selection (TID 2010) with this title rejects what it refers to."""
    return scheme == "DCM" and concept in (dcm("RejectedForQualityReasons"), dcm("RejectedForPatientSafetyReasons"))


class _Tree:
    """The items of a report, or of one container of it, by concept."""

    def __init__(self, items: Iterable[Item], children: dict[int, list[Item]]) -> None:
        self.children = children
        self.by: dict[tuple[str | None, str | None], list[Item]] = defaultdict(list)
        for item in items:
            self.by[item.concept, item.concept_scheme].append(item)

    @classmethod
    def below(cls, top: Item, children: dict[int, list[Item]]) -> _Tree:
        found, waiting = [], list(reversed(children[top.node]))
        while waiting:                      # no recursion: the depth is the file's
            item = waiting.pop()
            found.append(item)
            waiting += reversed(children[item.node])
        return cls(found, children)

    def dcm(self, keyword: str) -> list[Item]:
        return self.by.get((dcm(keyword), "DCM"), [])

    def coded(self, keyword: str) -> list[Item]:
        """Return the items of a concept of SNOMED, in SCT, SRT or SNM3."""
        return [item for (concept, scheme), items in self.by.items() for item in items
                if terms.sct(concept, scheme) == sct_of(keyword)]


def read(report_uid: str, items: list[Item]) -> Report:
    """Return what one report's items, in document order, give. `report_uid` goes into minted ids and rows."""
    out = Report()
    children: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        children[item.parent].append(item)
    root = items[0]
    if is_rejection(root.concept, root.concept_scheme):
        out.rejected = [item.reference for item in items if item.reference]
        return out
    if not is_dose_report(root.concept, root.concept_scheme):
        return out
    tree = _Tree(items, children)
    procedure = {terms.sct(i.code, i.code_scheme) for i in tree.dcm("ProcedureReported")}
    mammography = sct_of("Mammography") in procedure
    containers = [i for i in items if i.value_type == "CONTAINER" and i.concept_scheme == "DCM"
                  and i.concept in (dcm("IrradiationEventXRayData"), dcm("CTAcquisition"))]
    for top in containers:
        _event(top, _Tree.below(top, children), mammography, report_uid, out)
    if not containers:
        kind = "no_event" if root.template in ("10001", "10011") else "wrong_template"
        out.found.append({"quantity": "exposure", "kind": kind})
    for top in items:
        if top.concept_scheme == "DCM" and top.concept in (dcm("AccumulatedXRayDoseData"),
                                                           dcm("CTAccumulatedDoseData")):
            _totals(_Tree.below(top, children), out)
    for row in out.events:
        row["n_events"] = len(out.events)
    return out


def _event(top: Item, tree: _Tree, mammography: bool, report_uid: str, out: Report) -> None:
    ct = top.concept == dcm("CTAcquisition")
    region = [*tree.coded("AnatomicalStructure"), *tree.dcm("TargetRegion")]
    breast = any(terms.sct(i.code, i.code_scheme) == sct_of("Breast") for i in region)
    mammogram = not ct and (mammography or breast or bool(tree.dcm("AverageGlandularDose"))
                            or bool(tree.dcm("CompressionThickness")))
    row: dict[str, Any] = {"node": top.node, "mammogram": mammogram}
    found: list[dict[str, Any]] = []
    uids = {i.text for i in (*tree.dcm("IrradiationEventUID"), *tree.dcm("IrradiationEventUID_Retired")) if i.text}
    row["event_uid"] = uids.pop() if len(uids) == 1 else None
    row["minted_uid"] = _minted(report_uid, top.node)
    if row["event_uid"] is None:
        found.append({"quantity": "exposure", "kind": "no_event_uid"})
    row["images"] = sorted({i.reference for i in tree.dcm("AcquiredImage") if i.reference})
    for one in NUMBERS:
        _number(one, tree, mammogram, row, found, out.malformed)
    if mammogram:
        _pulses(tree, row, found)
        _filters(tree, row, found, out.malformed)
        _mammogram_terms(tree, region, row, found)
    types = tree.dcm("CTAcquisitionType") or tree.dcm("IrradiationEventType")
    row["acquisition_type"] = _meaning(types)
    kinds = {terms.sct(i.code, i.code_scheme) for i in types}
    row["kind"] = "CT" if ct else "fluoroscopy" if sct_of("Fluoroscopy") in kinds else "projection x-ray"
    row["tomosynthesis"] = mammogram and any(
        i.code_scheme == "DCM" and i.code in (dcm("RotationalAcquisition"), dcm("SteppingAcquisition")) for i in types)
    row["target_region"] = _meaning(tree.dcm("TargetRegion"))
    row["plane"] = _meaning(tree.dcm("AcquisitionPlane"))
    row["phantom"] = _meaning(tree.dcm("CtdiwPhantomType"))
    row["grid"] = _grid(tree.dcm("XRayGrid"))
    row["started"] = next((i.text for i in tree.dcm("DatetimeStarted") if i.text), None)
    for column, keyword in (("is_repeat", "IsRepeatedAcquisition"), ("is_rejected", "IsRejectedAcquisition")):
        said = {terms.answer(i.code, i.code_scheme) for i in tree.dcm(keyword)}
        row[column] = said.pop() if len(said) == 1 else None
    out.events.append(row)
    out.found += [{"node": top.node, **one} for one in found]


def _minted(report_uid: str, node: int) -> str:
    """An id for an event that has none of its own: from the report's id and its place there, the same every time."""
    digest = hashlib.sha256(f"{report_uid}/{node}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


# ---- numbers -------------------------------------------------------------------------------------------------------
def _read(item: Item, unit: str) -> tuple[float | None, str, str | None]:
    """Return (value, unit as converted, unit that is not known). Raises Malformed."""
    if item.number is None or not item.number.strip():
        return None, "", None
    by = units.factor(item.unit, unit)
    if by is None:
        return None, "", item.unit or "none"
    return number([item.number], by), units.note(item.unit or "", unit, by), None


def _number(
    one: Number, tree: _Tree, mammogram: bool, row: dict[str, Any], found: list[dict[str, Any]], bad: Counter[str]
) -> None:
    keyword = next((k for k in one.concepts if tree.dcm(k)), one.concepts[0])
    values, words = [], ""
    for item in tree.dcm(keyword):
        try:
            value, words_, unknown = _read(item, one.unit)
        except Malformed:
            bad[one.column] += 1
            return
        if unknown:
            found.append({"quantity": one.column, "kind": "unit_unknown", "report_term": unknown})
            return
        if value is not None:
            values.append(value)
            words = words_
    if not values:
        return
    source = f"{dcm(keyword)} DCM {words}, report"
    if len(set(values)) == 1 and not (one.sum and len(values) > 1):
        row[one.column], row[f"{one.column}_source"] = values[0], source
    elif one.sum:
        row[one.column] = float(sum(Decimal(repr(value)) for value in values))
        row[f"{one.column}_source"] = source + ", sum of pulses"
    elif mammogram and one.column not in ("kvp_kv", "tube_current_ma"):     # those two: _pulses
        found.append({"quantity": one.column, "kind": "several_values"})


def _pulses(tree: _Tree, row: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """kV, mA and mAs of an exposure in several pulses (TID 10003B: values in the order of the pulses).

    GE writes a short pre-exposure and the exposure: kV and mA are those of the pulse with the greatest charge, and mAs,
    where it is not stated, is mA × ms / 1000 added up. With lists of different lengths nothing is taken.
    """
    lists: dict[str, list[float]] = {}
    for column, keyword, unit in (("kvp_kv", "KVP", "kV"), ("tube_current_ma", "XRayTubeCurrent", "mA"),
                                  ("width", "PulseWidth", "ms"), ("n", "NumberOfPulses", "1")):
        try:
            read = [_read(item, unit)[0] for item in tree.dcm(keyword)]
        except Malformed:
            read = []
        lists[column] = [value for value in read if value is not None]
    currents, widths = lists["tube_current_ma"], lists["width"]
    whole = bool(widths) and len(currents) == len(widths) and lists["n"] in ([], [float(len(widths))])
    charges = [Decimal(repr(a)) * Decimal(repr(b)) for a, b in zip(currents, widths, strict=True)] if whole else []
    for column in ("kvp_kv", "tube_current_ma"):
        values = lists[column]
        if column in row or not values:
            continue
        code = dcm("KVP" if column == "kvp_kv" else "XRayTubeCurrent")
        if whole and len(values) == len(widths):
            row[column] = values[charges.index(max(charges))]
            row[f"{column}_source"] = (f"{code} DCM {'kV' if column == 'kvp_kv' else 'mA'}, report, main pulse of "
                                       f"{len(widths)}")
        elif len(set(values)) > 1:
            found.append({"quantity": column, "kind": "several_values"})
    if whole and "exposure_mas" not in row and not tree.dcm("Exposure"):
        row["exposure_mas"] = float(sum(charges) / 1000)
        row["exposure_mas_source"] = (f"{dcm('XRayTubeCurrent')} DCM mA × {dcm('PulseWidth')} DCM ms × 0.001, report, "
                                      "sum of pulses")


def _filters(tree: _Tree, row: dict[str, Any], found: list[dict[str, Any]], bad: Counter[str]) -> None:
    words: list[str] = []
    for item in tree.dcm("XRayFilterMaterial"):
        word = terms.material(item.code, item.code_scheme)
        if word is None:
            found.append({"quantity": "filter_material", "kind": "unknown_term", "report_term": item.code})
            words = []
            break
        words.append(word)
    if words:
        row["filter_material"] = "\\".join(dict.fromkeys(words))
        row["filter_material_source"] = f"{dcm('XRayFilterMaterial')} DCM, report"
    ends: list[set[float]] = []
    for keyword in ("XRayFilterThicknessMinimum", "XRayFilterThicknessMaximum"):
        try:
            read = [_read(item, "mm") for item in tree.dcm(keyword)]
        except Malformed:
            bad["filter_thickness_mm"] += 1
            return
        unknown = next((unit for _, _, unit in read if unit), None)
        if unknown:
            found.append({"quantity": "filter_thickness_mm", "kind": "unit_unknown", "report_term": unknown})
            return
        ends.append({value for value, _, _ in read if value is not None})
    if any(len(values) > 1 for values in ends):
        found.append({"quantity": "filter_thickness_mm", "kind": "several_values"})
    elif all(ends):
        (least,), (most,) = ends
        names = f"{dcm('XRayFilterThicknessMinimum')} and {dcm('XRayFilterThicknessMaximum')} DCM mm, report"
        row["filter_thickness_mm"] = float((Decimal(repr(least)) + Decimal(repr(most))) / 2)
        row["filter_thickness_mm_source"] = names if least == most else f"mean of {names}"


def _totals(tree: _Tree, out: Report) -> None:
    plane = _meaning(tree.dcm("AcquisitionPlane"))
    for quantity, unit, keyword in TOTALS:
        for item in tree.dcm(keyword):
            side = _side(tree.children[item.node])
            try:
                value, _, unknown = _read(item, unit)
            except Malformed:
                out.malformed[quantity] += 1
                value, unknown = None, None
            if unknown:
                out.found.append({"quantity": quantity, "kind": "unit_unknown", "report_term": unknown})
            out.totals.append({"quantity": quantity, "unit": unit, "value": value, "plane": plane, "laterality": side})


# ---- terms ---------------------------------------------------------------------------------------------------------
def _mammogram_terms(tree: _Tree, region: list[Item], row: dict[str, Any], found: list[dict[str, Any]]) -> None:
    sides = {side for item in region if (side := _side(tree.children[item.node]))}
    if len(sides) == 1:
        row["laterality"], row["laterality_source"] = sides.pop(), "Laterality (272741003 SCT), report"
    elif sides:
        found.append({"quantity": "laterality", "kind": "several_values"})
    views = tree.dcm("ImageView")
    if len(views) == 1 and views[0].code:
        item = views[0]
        short = short_code(str(item.code), item.code_scheme or "")
        if short is None:
            found.append({"quantity": "view", "kind": "unknown_term", "report_term": item.code})
        else:
            row["view"], row["view_source"] = short, f"{dcm('ImageView')} DCM, report"
        given = [i for i in tree.children[item.node] if i.value_type == "CODE" and i.code]
        words = [terms.modifier(i.code, i.code_scheme) for i in given]
        if None in words:
            found.append({"quantity": "view_modifiers", "kind": "unknown_term"})
        else:
            row["view_modifiers"] = "\\".join(sorted({str(word) for word in words})) or None
    anodes = [*tree.dcm("AnodeTargetMaterial"), *tree.by.get((_GIOTTO_ANODE, "DCM"), [])]
    materials = {terms.material(i.code, i.code_scheme) for i in anodes if i.code}
    if None in materials:
        found.append({"quantity": "anode", "kind": "unknown_term",
                      "report_term": next(i.code for i in anodes if not terms.material(i.code, i.code_scheme))})
    elif len(materials) == 1:
        row["anode"], row["anode_source"] = materials.pop(), f"{anodes[0].concept} DCM, report"
    elif materials:
        found.append({"quantity": "anode", "kind": "several_values"})


def _side(items: list[Item]) -> str | None:
    """Return the laterality that stands below an item, or None."""
    found = {terms.laterality(i.code, i.code_scheme) for i in items
             if terms.sct(i.concept, i.concept_scheme) == sct_of("Laterality")}
    return found.pop() if len(found) == 1 else None


def _meaning(items: list[Item]) -> str | None:
    """Return the code meanings, each once, joined with a backslash."""
    return "\\".join(dict.fromkeys(i.code_meaning for i in items if i.code_meaning)) or None


def _grid(items: list[Item]) -> str | None:
    """Return the grid in the header's terms (PS3.3 C.8.7.11, Grid) where PS3.16 CID 10017 has them."""
    named = {dcm("NoGrid"): "NONE", dcm("FixedGrid"): "FIXED", dcm("FocusedGrid"): "FOCUSED",
             dcm("ReciprocatingGrid"): "RECIPROCATING", dcm("ParallelGrid"): "PARALLEL",
             dcm("CrossedGrid"): "CROSSED"}
    words = [named[str(i.code)] for i in items if i.code_scheme == "DCM" and i.code in named]
    return "\\".join(dict.fromkeys(words)) or None

"""The view of an image as a short code, from ViewCodeSequence where it is coded, else ViewPosition. Pure."""

from __future__ import annotations

from functools import lru_cache

from pipeline.curate.values import Cell, present, text

# PS3.16 CID 4014 View for Mammography (version 20090717): the code's keyword in pydicom's dictionary against the
# column "ACR MQCM 1999 Equivalent". A specimen has no equivalent there; SPECIMEN is ours.
SHORT = {
    "MedioLateralProjection": "ML",
    "MedioLateralObliqueProjection": "MLO",
    "LateroMedial": "LM",
    "LateroMedialOblique": "LMO",
    "CranioCaudal": "CC",
    "CaudoCranial": "FB",
    "SuperolateralToInferomedialOblique": "SIO",
    "InferomedialToSuperolateralOblique": "ISO",
    "CranioCaudalExaggeratedLaterally": "XCCL",
    "CranioCaudalExaggeratedMedially": "XCCM",
    "TissueSpecimenFromBreast": "SPECIMEN",
}
# The same table's note 1: codes of an earlier version, never valid in SNOMED, still met.
_DEPRECATED = {"Y-X1770": "XCCL", "Y-X1771": "XCCM"}
# Its note 2: many systems keep writing SNM3 for SRT; receivers should take both.
_SRT = {"SRT", "SNM3"}


@lru_cache(maxsize=1024)
def short_code(value: str, scheme: str) -> str | None:
    """Return the short code of a coded view of CID 4014, or None. SRT and SNM3 are mapped to SCT by pydicom."""
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if scheme in _SRT:
        if value in _DEPRECATED:
            return _DEPRECATED[value]
        scheme = "SRT"
    given = Code(value, scheme, "")
    return next((short for name, short in SHORT.items() if getattr(codes.cid4014, name) == given), None)


def view(code_values: Cell, schemes: Cell, position: Cell) -> str | None:
    """Return the view. ViewCodeSequence has one item (PS3.3 C.8.11.7); with more, or a code of another context group,
    ViewPosition decides."""
    values, designators = present(code_values), present(schemes)
    if len(values) == len(designators) == 1:
        short = short_code(values[0], designators[0])
        if short:
            return short
    return text(position)

"""One line of a recipe: what it may say, and what it means. Pure.

`read_action` reads one in deid's language. What deid 0.4.13 would ignore, guess or leave alone is refused, with what
deid would have done (the numbers are those of docs/recipes.md) and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import overload

from pipeline.deidentify.profile import confidentiality_profile, safe_private
from pipeline.deidentify.tokens import TOKEN_TAGS

ACTIONS = ("ADD", "BLANK", "JITTER", "KEEP", "REPLACE", "REMOVE", "LABEL")
EXPANDER = re.compile(r"(contains|startswith|endswith|select|except|allexcept|allfields|fields|values)(:|$)")
PRIVATE = re.compile(r'\(([0-9A-Fa-f]{4}),"([^"\\]{1,64})",([0-9A-Fa-f]{2})\)')
NUMERIC = re.compile(r"\(?\s*(?:0x)?([0-9A-Fa-f]{4})\s*,?\s*(?:0x)?[0-9A-Fa-f]{4}\s*\)?(?:\s|$)")

# Dates of the person's own events: all that may move. Others would give the offset away, and are removed.
EVENT_DATES = frozenset({
    "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "FrameAcquisitionDateTime",
    "FrameReferenceDateTime", "PerformedProcedureStepStartDate", "PerformedProcedureStepEndDate",
})
TIMES = frozenset({"StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"})
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
PERSONAL = frozenset({"AS", "DA", "DT", "PN", "TM", "UI", "UR"})      # private ones could only stay as they are
LOOKUP_TABLES = frozenset({
    "PixelData", "LUTData", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
})
# Texts that people or devices type, beside the VRs that hold nothing else; of Table E.1-1 they are not.
FREE_TEXT_VRS = frozenset({"LT", "ST", "UC", "UT"})
FREE_TEXT = frozenset({"LUTExplanation", "WindowCenterWidthExplanation", "LUTLabel", "FrameComments"})
# PS3.3 C.17.2, C.17.3, C.18: the content of structured reports, and who vouches for it; only concept rules may speak of
# it, and who verified or wrote a report never leaves.
REPORT_VALUES = frozenset({
    "TextValue", "PersonName", "Date", "Time", "DateTime", "UID", "NumericValue", "FloatingPointValue",
    "RationalNumeratorValue", "RationalDenominatorValue", "MeasuredValueSequence", "MeasurementUnitsCodeSequence",
    "NumericValueQualifierCodeSequence", "ContentSequence", "ConceptNameCodeSequence", "ConceptCodeSequence",
    "ReferencedSOPSequence", "ValueType", "RelationshipType", "ContinuityOfContent", "ContentTemplateSequence",
    "ReferencedContentItemIdentifier", "ObservationUID", "ObservationDateTime", "GraphicData", "GraphicType",
    "TemporalRangeType", "ReferencedSamplePositions", "ReferencedTimeOffsets", "ReferencedDateTime",
    "TabulatedValuesSequence", "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence",
    "PredecessorDocumentsSequence", "IdenticalDocumentsSequence", "VerificationFlag", "VerifyingObserverSequence",
    "VerifyingObserverName", "VerifyingObserverIdentificationCodeSequence", "VerifyingOrganization",
    "VerificationDateTime", "AuthorObserverSequence", "ParticipantSequence", "CustodialOrganizationSequence",
})
# Set by the engine on every object, from what was really done.
ALWAYS = frozenset({
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified", "SpecificCharacterSet",
})
# name → VRs it gives a value for
VARIABLES = {
    "patient": {"LO"}, "age_band": {"AS"}, "days": {"DA", "DT"},
    "empty": {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "SQ", "ST", "TM", "UC", "UI", "UR",
              "UT"},
}
FUNCTIONS = {"uid": {"UI"}, "device": {"LO", "SH"}, "operator": {"PN", "LO", "SH"}, "time": {"TM"},
             "term": {"LO", "LT", "SH", "ST", "UC", "UT"}}

Refuse = Callable[[int, str, str, str], None]      # line, rule, what deid does, mend


@dataclass(frozen=True, slots=True)
class Finding:
    """One refusal."""

    file: str
    line: int
    rule: str
    deid_does: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: deid would {self.deid_does}. Mend: {self.mend}."


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of `%header`: an action on an attribute. `value` is `var:…`, `func:…` or empty."""

    action: str
    field: str
    value: str
    file: str
    line: int
    why: str = ""       # of a rule weaker than PS3.15 Table E.1-1: the reason given beside it


@dataclass(frozen=True, slots=True)
class RecipeSet(Sequence[Rule]):
    """The rules of recipes read as one set, in order; `claims` are the options of CID 7050 that they claim."""

    rules: tuple[Rule, ...]
    claims: tuple[str, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Rule, ...]: ...
    def __getitem__(self, index: int | slice) -> Rule | tuple[Rule, ...]:
        return self.rules[index]

    def __len__(self) -> int:
        return len(self.rules)


def read_action(line: str, file: str, number: int, why: str, refuse: Refuse) -> Rule | None:
    action, _, rest = line.partition(" ")
    if action not in ACTIONS:
        refuse(number, "action", "drop the line, at best with a warning (6)",
               f"write one of {', '.join((*ACTIONS[:1], 'JITTER', 'KEEP', 'REPLACE', 'REMOVE'))} in capitals")
        return None
    if action == "BLANK":
        refuse(number, "blank", "lose BLANK under REMOVE ALL, so Type 2 attributes vanish (25)",
               "write 'ADD Attribute var:empty'")
        return None
    if action == "LABEL":
        refuse(number, "label", "read it as an action without effect", "remove the line")
        return None
    numeric = NUMERIC.match(rest.strip())
    if numeric:
        odd = int(numeric[1], 16) % 2
        refuse(number, "private" if odd else "tag",
               "act on private elements by block number (31)" if odd else "do nothing, in silence (6)",
               'write KEEP (gggg,"CREATOR",ee)' if odd else "write the attribute's keyword of PS3.6")
        return None
    private = PRIVATE.match(rest.strip())
    field, value = (private[0], rest.strip()[private.end():].strip()) if private else rest.strip().partition(" ")[::2]
    value = value.strip()
    if " " in value:
        refuse(number, "words", "use only the first word", "write ACTION FIELD VALUE")
        return None
    if action == "REMOVE":
        return _remove(field, value, file, number, refuse)
    if EXPANDER.match(field) or field == "ALL":
        refuse(number, "expander", "shield, revive or ignore fields it was not meant for (6, 27, 28)",
               "name each attribute; expanders stand in REMOVE only")
        return None
    if private:
        if action != "KEEP" or value or int(private[1], 16) % 2 == 0:
            refuse(number, "private", "act on private elements by block number (31)",
                   'write KEEP (gggg,"CREATOR",ee) with an odd group')
            return None
        vr = private_vr(int(private[1], 16), private[2], int(private[3], 16))
        if vr in BINARY | {"SQ"}:
            refuse(number, "binary", "leave bytes that nobody can read, and what stands inside them (12)",
                   "remove the rule: private sequences and binary values cannot be kept")
            return None
        if vr in PERSONAL:
            refuse(number, "private", "leave the real date, time, age, name, address or UID",
                   "remove the rule: nothing of a private element is moved or renamed")
            return None
        return Rule(action, field, value, file, number, why)
    if _name_refused(field, number, refuse):
        return None
    vr = attribute(field)[1]
    if (_attribute_refused(action, field, vr, why, number, refuse)
            or _value_refused(action, field, vr, value, number, refuse)):
        return None
    return Rule(action, field, value, file, number, why)


def _remove(field: str, value: str, file: str, number: int, refuse: Refuse) -> Rule | None:
    if value:
        refuse(number, "remove_value", "ignore the expression after ALL, or keep what a function lets be (6)",
               "write 'REMOVE ALL', then name what is kept")
        return None
    if field == "ALL":
        return Rule("REMOVE", "ALL", "", file, number)
    if re.fullmatch(r"(contains|startswith|endswith):[A-Za-z0-9]+|select:VR:[A-Z]{2}", field):
        return Rule("REMOVE", field, "", file, number)
    if EXPANDER.match(field):
        refuse(number, "expander", "match nothing (6)",
               "use contains:, startswith:, endswith: or select:VR: with plain letters")
        return None
    if _name_refused(field, number, refuse):
        return None
    if field in REPORT_VALUES:
        refuse(number, "report_value", "raise on structured reports (20)",
               "remove the rule: concept rules speak of structured reports, and nothing else of their content stays")
        return None
    return Rule("REMOVE", field, "", file, number)


def _name_refused(field: str, number: int, refuse: Refuse) -> bool:
    tag, _ = attribute(field)
    if "__" in field or "/" in field or "." in field:
        refuse(number, "nested", "do nothing with a path into a sequence, in silence (8)",
               "name the attribute itself: a rule holds wherever every sequence above the attribute is kept")
    elif field.startswith(("Overlay", "Curve")) and tag is None:
        refuse(number, "overlay", "leave overlays and curves as they are (13)",
               "remove the rule: overlays and curves never stay")
    elif tag is None:
        refuse(number, "keyword", "do nothing, in silence (6)", "write a keyword of PS3.6, letter for letter")
    elif tag >> 16 in (0x0000, 0x0002, 0x0004):
        refuse(number, "file_meta", "leave file meta information and preamble as they came (13, 14)",
               "remove the rule: file meta information is written new, and agrees with the data set")
    else:
        return False
    return True


def _attribute_refused(action: str, field: str, vr: str, why: str, number: int, refuse: Refuse) -> bool:
    if field in ALWAYS:
        refuse(number, "always", "write whatever stands there",
               "remove the rule: the engine states what was really done")
    elif field in REPORT_VALUES:
        refuse(number, "report_value", "raise on structured reports, or keep their text (20)",
               "remove the rule: concept rules speak of structured reports")
    elif action == "KEEP" and vr in ("DA", "DT", "TM"):
        refuse(number, "date_kept", "leave the real date or time",
               "use JITTER var:days, REPLACE func:time or ADD var:empty")
    elif action == "KEEP" and vr == "PN":
        refuse(number, "name_kept", "leave the name", "use REPLACE func:operator or ADD var:empty")
    elif action == "KEEP" and any(v in BINARY for v in vr.split(" or ")) and field not in LOOKUP_TABLES:
        refuse(number, "binary", "leave bytes that nobody can read", "remove the rule: binary values cannot be kept")
    elif field == "IconImageSequence":
        refuse(number, "icon", "keep the pixels of the icon, whatever was burned into them (13)",
               "remove the rule: icons never stay")
    elif (action == "KEEP" and not why and (vr in FREE_TEXT_VRS or field in FREE_TEXT)
          and attribute(field)[0] not in confidentiality_profile()):
        refuse(number, "free_text", "keep whatever somebody typed (30)",
               "use REPLACE func:term, or write the reason on a line '# weaker: …' above the rule")
    else:
        return False
    return True


def _value_refused(action: str, field: str, vr: str, value: str, number: int, refuse: Refuse) -> bool:
    kind, _, name = value.partition(":")
    if action == "KEEP":
        if value:
            refuse(number, "keep_value", "ignore the value", "write 'KEEP Attribute'")
        return bool(value)
    if action == "JITTER":
        if value != "var:days":
            refuse(number, "variable", "keep the original, even under REMOVE ALL (2, 4)",
                   "write 'JITTER Attribute var:days'")
        elif vr not in ("DA", "DT"):
            refuse(number, "jitter_vr", "turn a time into a date, or keep the original (4)",
                   "move dates only; times by REPLACE func:time")
        elif field not in EVENT_DATES:
            refuse(number, "jitter_date", "move a birth, device or calibration date, which gives the offset away (27)",
                   "move dates of the person's own events only, or remove the rule")
        else:
            return False
        return True
    known = VARIABLES if kind == "var" else FUNCTIONS if kind == "func" else {}
    if name not in known or (kind == "func" and action == "ADD") or name == "days":
        refuse(number, "variable",
               "keep the original where the name is unknown, or write the text as it stands (2, 18)",
               "write ADD with var:patient, var:empty or var:age_band; REPLACE also with func:uid, func:device, "
               "func:operator, func:time or func:term")
    elif action == "REPLACE" and kind == "var":
        refuse(number, "replace_var", "add nothing where the attribute is absent (32)", "write ADD")
    elif vr not in known[name]:
        refuse(number, "value_vr", "write a value that the VR does not allow (18)",
               f"use it for {', '.join(sorted(known[name]))}; {field} is {vr}")
    elif name == "patient" and field != "PatientID":
        refuse(number, "patient", "write it", "the pseudonym stands in PatientID only")
    elif name == "time" and field not in TIMES:
        refuse(number, "time", "write it", f"move {', '.join(sorted(TIMES))} only")
    elif name == "term" and attribute(field)[0] in TOKEN_TAGS:
        refuse(number, "term", "write what a function makes of it",
               "remove the rule: this attribute holds a name, a number or an address, which no list can approve")
    else:
        return False
    return True


@lru_cache(maxsize=1024)
def private_vr(group: int, creator: str, element: int) -> str:
    """Return the VR that the standard's list of safe private elements, else pydicom's private dictionary, gives a
    private element; "" where neither has it, or says no one VR."""
    from pydicom.datadict import private_dictionary_VR

    listed = safe_private().get((group, creator, element))
    if listed and listed[0]:
        return listed[0]
    try:
        return str(private_dictionary_VR(group << 16 | 0x1000 | element, creator))
    except KeyError:
        return ""


def attribute(keyword: str) -> tuple[int | None, str]:
    """Return tag and VR of a keyword of PS3.6, or (None, "")."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    return (tag, dictionary_VR(tag)) if tag is not None else (None, "")

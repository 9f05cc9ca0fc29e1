"""Concept rules of structured reports (`deid_recipes/*.toml`): what of a content tree passes. Pure but for reading.

A file says, concept by concept and for one value type at a time, what is done; what it does not name is dropped with
all below it. Codes are checked against pydicom's dictionaries (PS3.16 as pydicom holds it); one that stands in none of
them names in `seen` the file it was seen in. Meanings are never copied from a report: what is written is the file's or
the dictionary's, for free text hides in Code Meaning.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from pipeline import layout
from pipeline.errors import RecipeRefused

Code = tuple[str, str]          # code value, coding scheme designator

# PS3.3 C.17.3.2.4, Table C.17.3-8: relationship types.
RELATIONSHIPS = frozenset({"CONTAINS", "HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES",
                           "INFERRED FROM", "SELECTED FROM"})
# PS3.3 C.17.3.2.1: value types. Those that no action is for can only be dropped.
VALUE_TYPES = frozenset({"TEXT", "NUM", "CODE", "DATE", "TIME", "DATETIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE",
                         "WAVEFORM", "SCOORD", "SCOORD3D", "TCOORD", "CONTAINER", "TABLE"})
NAMED = frozenset({"TEXT", "NUM", "CODE", "DATE", "TIME", "DATETIME", "UIDREF", "PNAME"})     # never without a concept
ACTIONS: Mapping[str, frozenset[str]] = {
    "keep": frozenset({"CONTAINER", "NUM", "CODE", "TEXT", "SCOORD", "SCOORD3D", "TCOORD"}),
    "empty": frozenset({"NUM"}),            # the only type that may stand without its value (PS3.3 C.18.1)
    "shift": frozenset({"DATE", "TIME", "DATETIME"}),
    "remap": frozenset({"UIDREF", "IMAGE", "COMPOSITE"}),
    "device": frozenset({"TEXT"}),
    "operator": frozenset({"PNAME", "TEXT"}),
    "drop": VALUE_TYPES,
}
_MENDS = {
    ("keep", "PNAME"): "write it under [operator.PNAME] or [drop.PNAME]",
    ("keep", "UIDREF"): "write it under [remap.UIDREF]", ("keep", "IMAGE"): "write it under [remap.IMAGE]",
    ("keep", "COMPOSITE"): "write it under [remap.COMPOSITE]",
    **{("keep", kind): f"write it under [shift.{kind}]" for kind in ("DATE", "TIME", "DATETIME")},
    **{("empty", kind): f"an item of type {kind} must have a value: write it under [drop.{kind}]"
       for kind in VALUE_TYPES - {"NUM"}},
}
UNNAMED = "unnamed"             # key of an item that has no concept name
SNOMED_RT = frozenset({"SRT", "SNM3", "99SDM"})     # PS3.16 8.1: designators under which SNOMED-RT codes are written
_KEYS = {"schema_version", "about", "report", "titles", "codes", "units", *ACTIONS}
_REPORT = {"templates", "evidence"}
_ENTRY = {"meaning", "seen", "why", "values", "manufacturer", "model"}


@dataclass(frozen=True, slots=True)
class Flaw:
    """One refusal of a file of concept rules."""

    file: str
    line: int
    rule: str
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.what}. Mend: {self.mend}."


@dataclass(frozen=True, slots=True)
class ConceptRule:
    """What is done to one concept of one value type."""

    action: str
    values: frozenset[str] | None = None        # TEXT: all that may stand; CODE: "code scheme" of every answer
    manufacturer: Code | None = None            # device: the concepts beside it that name manufacturer and model
    model: Code | None = None
    why: str = field(default="", compare=False, kw_only=True)     # the reason of free text that is kept


@dataclass(frozen=True)
class Concepts:
    """Compiled concept rules."""

    file: str
    digest: str
    titles: frozenset[Code]                     # concept names of the root
    templates: frozenset[str]
    evidence: str                               # remap or remove
    rules: Mapping[tuple[Code, str], ConceptRule]       # (concept, value type)
    meanings: Mapping[Code, str]                # of the file's own codes
    units: Mapping[Code, str]
    makers: frozenset[Code] = field(default=frozenset())        # concepts that device rules point to

    def rule(self, code: Code | None, value_type: str) -> ConceptRule | None:
        """Return the rule for a concept (None: an item without concept name), or None where none is written."""
        return self.rules.get((current(code) if code else (UNNAMED, ""), value_type))

    def is_title(self, code: Code | None) -> bool:
        return code is not None and current(code) in self.titles

    def meaning(self, code: Code) -> str | None:
        """Return the meaning to write for a code, or None where neither file nor dictionary knows it."""
        return self.meanings.get(code) or self.meanings.get(current(code)) or dictionary_meaning(code)

    def answers(self, rule: ConceptRule, code: Code) -> bool:
        """Whether a CODE item under this rule may hold the code."""
        if self.meaning(code) is None:
            return False
        return rule.values is None or " ".join(current(code)) in rule.values

    def unit(self, code: Code) -> str | None:
        """Return the meaning of a unit, or None where it is neither listed nor UCUM of the dictionary."""
        return self.units.get(code) or (dictionary_meaning(code) if code[1] == "UCUM" else None)


    def vocabulary(self) -> frozenset[tuple[bytes, bytes]]:
        """Return every (code value, meaning) that may be written: what the search of the output may take for a
        dictionary's word, and not for somebody's name."""
        return _standard_words() | frozenset((code[0].encode(), said.encode()) for codes in (self.meanings, self.units)
                                             for code, said in codes.items())


def current(code: Code) -> Code:
    """Return the SNOMED CT code for an older SNOMED-RT one (PS3.16 Annex O, as pydicom has it), else the code."""
    if code[1] not in SNOMED_RT:
        return code
    new = _dictionaries()[1].get(code[0])
    return (new, "SCT") if new else (code[0], "SRT")


def dictionary_meaning(code: Code) -> str | None:
    """Return the meaning pydicom's dictionaries give a code, of several the one that most context groups of PS3.16 use;
    None where they have none."""
    return _dictionaries()[0].get(current(code))


@cache
def _dictionaries() -> tuple[dict[Code, str], dict[str, str]]:
    """Return code → meaning, and SNOMED-RT code → SNOMED CT code."""
    from pydicom.sr._snomed_dict import mapping
    from pydicom.sr.codedict import CONCEPTS

    keywords: Mapping[str, Mapping[str, tuple[str, list[int]]]]
    found: dict[Code, tuple[int, int, str]] = {}
    for scheme, keywords in cast(Mapping[str, Any], CONCEPTS).items():
        for entries in keywords.values():
            for code, (said, groups) in entries.items():
                meaning = said.replace("\u200b", "")       # where the printed standard may break a line
                if meaning.isascii():                       # another would need a character set of the report's
                    rank = (-len(groups), len(meaning), meaning)
                    found[code, scheme] = min(rank, found.get((code, scheme), rank))
    return {code: meaning for code, (_, _, meaning) in found.items()}, dict(mapping["SRT"])


@cache
def _standard_words() -> frozenset[tuple[bytes, bytes]]:
    meanings, newer = _dictionaries()
    said = [(code, meaning) for (code, _), meaning in meanings.items()]
    said += [(code, meanings[new, "SCT"]) for code, new in newer.items() if (new, "SCT") in meanings]
    return frozenset((code.encode(), meaning.encode()) for code, meaning in said)


def lint(path: str | Path) -> list[Flaw]:
    """Return what stands against one file of concept rules."""
    return _read(Path(path))[1]


def read(path: str | Path) -> Concepts:
    """Return a file's rules. Raises RecipeRefused with the flaws."""
    concepts, flaws = _read(Path(path))
    if flaws or concepts is None:
        raise RecipeRefused("\n  ".join(map(str, flaws)))
    return concepts


class _Reader:
    """One file while it is read: its flaws, and at which line a key stands."""

    def __init__(self, path: Path, text: str) -> None:
        self.name = path.name
        self.flaws: list[Flaw] = []
        self._lines: dict[tuple[str, str], int] = {}
        section = ""
        for number, line in enumerate(text.splitlines(), 1):
            if header := re.match(r"\s*\[\s*([A-Za-z0-9_.]+)\s*\]", line):
                section = header[1]
                self._lines.setdefault((section, ""), number)
            elif key := re.match(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*=""", line):
                self._lines.setdefault((section, key[1] or key[2] or key[3] or ""), number)

    def line(self, section: str, key: str = "") -> int:
        below = (line for (name, _), line in self._lines.items() if name.startswith(section + "."))
        return self._lines.get((section, key)) or self._lines.get((section, "")) or next(below, 0)

    def refuse(self, section: str, key: str, rule: str, what: str, mend: str) -> None:
        self.flaws.append(Flaw(self.name, self.line(section, key), rule, what, mend))


def _read(path: Path) -> tuple[Concepts | None, list[Flaw]]:
    try:
        text = path.read_text(encoding="utf-8")
        doc = tomllib.loads(text)
    except (OSError, UnicodeDecodeError):
        return None, [Flaw(path.name, 0, "unreadable", "it is no file that can be read as UTF-8", "give its path")]
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"line (\d+)", str(error))
        return None, [Flaw(path.name, int(where[1]) if where else 0, "toml", "it is not TOML: a duplicate key, or a "
                           "line that does not parse", "write TOML 1.0; every key once in its section")]
    reader = _Reader(path, text)
    refuse = reader.refuse
    for key in sorted(set(doc) - _KEYS):
        refuse(key if isinstance(doc[key], dict) else "", key if not isinstance(doc[key], dict) else "", "key",
               "nothing is known by this key", f"use {', '.join(sorted(_KEYS))}")
    if doc.get("schema_version") != 1:
        refuse("", "schema_version", "schema_version", "the version is not one this product reads",
               "write 'schema_version = 1' on top")
    report = _table(reader, doc, "report")
    for key in sorted(set(report) - _REPORT):
        refuse("report", key, "key", "nothing is known by this key", f"use {', '.join(sorted(_REPORT))}")
    templates = report.get("templates", [])
    if not isinstance(templates, list) or not all(isinstance(t, str) and re.fullmatch("[0-9]{1,5}", t)
                                                  for t in templates):
        refuse("report", "templates", "templates", "it is not a list of template identifiers of PS3.16",
               'write templates = ["10001"]')
        templates = []
    evidence = report.get("evidence", "remove")
    if evidence not in ("remap", "remove"):
        refuse("report", "evidence", "evidence", "it is neither of the two ways", 'write "remap" or "remove"')
    meanings: dict[Code, str] = {}
    titles = {code for code, _ in _entries(reader, "titles", _table(reader, doc, "titles"), meanings)}
    if not titles:
        refuse("titles", "", "titles", "no report would pass: its title must be listed",
               'write [titles] and "113701 DCM" = "X-Ray Radiation Dose Report"')
    for _ in _entries(reader, "codes", _table(reader, doc, "codes"), meanings):
        pass
    units: dict[Code, str] = {}
    for _ in _entries(reader, "units", _table(reader, doc, "units"), units):
        pass
    rules = _rules(reader, doc, meanings)
    if reader.flaws:
        return None, reader.flaws
    makers = {code for rule in rules.values() for code in (rule.manufacturer, rule.model) if code}
    canonical = layout.hashed("r", [
        "concepts", str(evidence), *sorted(templates), "titles", *(f for t in sorted(titles) for f in current(t)),
        *(str(f) for key, rule in sorted(rules.items(), key=lambda item: item[0])
          for f in (*key[0], key[1], rule.action, sorted(rule.values or ()), rule.values is None, rule.manufacturer,
                    rule.model)),
        *(f for code, meaning in sorted(meanings.items()) for f in (*code, meaning)), "units",
        *(f for code, meaning in sorted(units.items()) for f in (*code, meaning)),
        # what a meaning is written as is the dictionary's, and a newer pydicom may say another
        layout.hashed("r", (f for code, said in sorted(_dictionaries()[0].items()) for f in (*code, said))),
    ])
    return Concepts(path.name, canonical, frozenset(map(current, titles)), frozenset(templates), str(evidence), rules,
                    meanings, units, frozenset(makers)), []


def _table(reader: _Reader, doc: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = doc.get(key, {})
    if not isinstance(value, dict):
        reader.refuse("", key, "section", "it is a value and not a section", f"write [{key}]")
        return {}
    return value


def _rules(reader: _Reader, doc: Mapping[str, Any], meanings: dict[Code, str]) -> dict[tuple[Code, str], ConceptRule]:
    rules: dict[tuple[Code, str], ConceptRule] = {}
    for action, types in ACTIONS.items():
        for value_type, entries in _table(reader, doc, action).items():
            section = f"{action}.{value_type}"
            if value_type not in VALUE_TYPES:
                reader.refuse(section, "", "value_type", "PS3.3 C.17.3 has no such value type, or a concept stands "
                              "outside a section of one", f"write it as [{action}.<one of {', '.join(sorted(types))}>]")
                continue
            if value_type not in types:
                reader.refuse(section, "", "action", f"{action} cannot be done to {value_type}",
                              _MENDS.get((action, value_type), f"use it for {', '.join(sorted(types))}"))
                continue
            if not isinstance(entries, dict):
                reader.refuse(action, value_type, "section", "it is a value and not a section", f"write [{section}]")
                continue
            for code, entry in _entries(reader, section, entries, meanings, unnamed=value_type not in NAMED):
                rule = _rule(reader, action, value_type, section, entry)
                key = (current(code), value_type)
                if key in rules:
                    reader.refuse(section, entry["key"], "two_actions", "the concept has an action for this value "
                                  "type already", "keep one of the two")
                rules[key] = rule
    return rules


def _entries(reader: _Reader, section: str, entries: Mapping[str, Any], meanings: dict[Code, str], *,
             unnamed: bool = False) -> Iterator[tuple[Code, dict[str, Any]]]:
    """Yield the codes of a section with what is said of them; note the meanings of those no dictionary has."""
    for key, said in entries.items():
        entry: dict[str, Any] = {"meaning": said} if isinstance(said, str) else said
        if not isinstance(entry, dict) or not isinstance(entry.get("meaning"), str) or set(entry) - _ENTRY:
            reader.refuse(section, key, "entry", "it is not a meaning, nor a table of known keys with a meaning",
                          f'write "CODE SCHEME" = "meaning", or a table of {", ".join(sorted(_ENTRY))}')
            continue
        entry = {**entry, "key": key}
        if key == UNNAMED and unnamed:
            yield (UNNAMED, ""), entry
            continue
        code = _code(key)
        meaning = entry["meaning"]
        if code is None:
            reader.refuse(section, key, "code", "it is not a code value and a coding scheme with one space between",
                          'write "113733 DCM"')
            continue
        known = dictionary_meaning(code) if section != "units" or code[1] == "UCUM" else None
        if known is None and not entry.get("seen"):
            reader.refuse(section, key, "unknown_code", "no dictionary has the code",
                          "correct it, or name in seen the file it was seen in")
        elif known is not None and meaning != known and code[1] not in SNOMED_RT and not entry.get("seen"):
            reader.refuse(section, key, "meaning", f"the dictionary says {known!r}", "write the dictionary's meaning")
        elif not meaning.isascii() or not meaning.isprintable() or not 0 < len(meaning) <= 64:
            reader.refuse(section, key, "meaning", "it is not one line of up to 64 plain characters", "shorten it")
        elif meanings.setdefault(code, meaning) != meaning:
            reader.refuse(section, key, "meaning", "the same code has another meaning above", "write one meaning")
        yield code, entry


def _code(text: str) -> Code | None:
    value, _, scheme = text.rpartition(" ")
    good = re.fullmatch(r"[!-~]([ -~]{0,62}[!-~])?", value) and re.fullmatch(r"[!-~]{1,16}", scheme)
    return (value, scheme) if good and "\\" not in text else None


def _rule(reader: _Reader, action: str, value_type: str, section: str, entry: dict[str, Any]) -> ConceptRule:
    key, values = entry["key"], entry.get("values")
    if values is not None and not (action == "keep" and value_type in ("TEXT", "CODE") and isinstance(values, list)
                                   and values and all(isinstance(v, str) and v == v.strip() and v for v in values)):
        reader.refuse(section, key, "values", "values are a list of texts, under [keep.TEXT] or [keep.CODE] alone",
                      "write values = [...], or take it away")
        values = None
    if action == "keep" and value_type == "TEXT" and values is None and not entry.get("why"):
        reader.refuse(section, key, "free_text", "whatever somebody typed would pass",
                      "list what may pass in values, or give the reason in why")
    if values is not None and value_type == "CODE":
        codes = [_code(v) for v in values]
        if None in codes:
            reader.refuse(section, key, "values", "an answer is not a code value and a coding scheme",
                          'write "113690 DCM"')
        values = [" ".join(current(code)) for code in codes if code]
    points = []
    for name in ("manufacturer", "model"):
        text = entry.get(name)
        code = _code(text) if isinstance(text, str) else None
        if (action == "device") != (code is not None):
            reader.refuse(section, key, name, "a device is told apart by manufacturer, model and serial number"
                          if action == "device" else "only a device rule points to other concepts",
                          f"name in {name} the concept beside it" if action == "device" else f"take {name} away")
        points.append(current(code) if code else None)
    return ConceptRule(action, frozenset(values) if values is not None else None, *points,
                       why=str(entry.get("why", "")))


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the recipes in deid's language, and the files of concept rules, of one set."""
    return [n for n in names if not n.endswith(".toml")], [n for n in names if n.endswith(".toml")]

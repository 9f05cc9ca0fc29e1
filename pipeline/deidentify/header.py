"""What a recipe says of itself in comments that the tools read: what it is for, behind what it stands, what it claims.

    # for: CT Image Storage
    # behind: base.dicom
    # claims: Retain Patient Characteristics Option

One name a line. To deid they are comments. So is a misspelt one: then it says nothing, and a weaker rule is refused, or
the project file has to name the SOP classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.deidentify.language import Finding
from pipeline.deidentify.profile import BASIC, OPTIONS

# What a recipe can claim; why it cannot claim the others.
_NEVER = {
    "113103": "overlays and graphics never stay", "113104": "concept rules claim it where they are used",
    "113106": "no rule keeps a real date", "113110": "UIDs are always remapped",
    "113101": "it is stated of an object where every pixel path ran", "113102": "nothing here looks for faces",
}
_COMMENT = re.compile(r"#\s*(for|behind|claims)\s*:\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """`sop_classes` as PS3.6 names them or UIDs; `behind` file names; `claims` codes of CID 7050."""

    sop_classes: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()


def read_header(text: str, file: str) -> tuple[Header, list[Finding]]:
    """Return what the comments of a recipe say, and what stands against them."""
    said: dict[str, dict[str, None]] = {"for": {}, "behind": {}, "claims": {}}
    findings = []
    names = {meaning.lower(): code for code, (meaning, _) in OPTIONS.items()}
    for number, raw in enumerate(text.split("\n"), 1):
        match = _COMMENT.fullmatch(raw.strip())
        if not match:
            continue
        word, name = match[1].lower(), match[2].strip()
        if word == "for" and name.lower() not in sop_classes() and not name[:1].isdigit():
            findings.append(Finding(file, number, "sop_class", "read a comment",
                                    "write a SOP class as PS3.6 names it, one a line, or its UID"))
        elif word == "claims":
            code = names.get(name.lower(), "")
            if code in _NEVER or not code:
                named = [meaning for code, (meaning, _) in OPTIONS.items() if code not in _NEVER]
                why = f"{_NEVER[code]}; " if code else ""
                plain = " (it is claimed where every rule allows it)" if name.lower() == BASIC[1].lower() else ""
                findings.append(Finding(file, number, "claim", "read a comment",
                                        f"{why}remove the line{plain}, or write one of: {', '.join(named)}"))
            else:
                said["claims"][code] = None
        elif word == "behind" and (not name or "/" in name):
            findings.append(Finding(file, number, "behind", "read a comment", "write a file's name, without folder"))
        else:
            said[word][name] = None
    return Header(tuple(said["for"]), tuple(said["behind"]), tuple(said["claims"])), findings


def of(path: Path) -> Header:
    """Return what a recipe says of itself; nothing where it cannot be read."""
    try:
        return read_header(path.read_text(encoding="utf-8"), path.name)[0]
    except (OSError, UnicodeDecodeError):
        return Header()


def sets(paths: Iterable[str | Path]) -> list[list[Path]]:
    """Return recipes as the sets they are read in: one that says `# behind:` stands behind the files it names, given
    here or beside it; the others make one set, in the order given."""
    given = [Path(path) for path in paths]
    found = [with_behind([path], given) for path in given if of(path).behind]
    together = [path for path in given if not of(path).behind]
    alone = [path for path in together if not any(path in one for one in found)]
    return ([together] if alone else []) + found


def with_behind(paths: Sequence[Path], given: Sequence[Path] = ()) -> list[Path]:
    """Return the files of one set, those that they stand behind first, found among `given` or beside them."""
    names = {path.name for path in paths}
    behind = {name: next((one for one in given if one.name == name), path.with_name(name))
              for path in paths for name in of(path).behind if name not in names}
    return [*behind.values(), *paths]


@cache
def sop_classes() -> dict[str, str]:
    """Return the UID of each SOP class by its name in PS3.6, in lower case."""
    from pydicom.uid import UID_dictionary

    return {entry[0].lower(): uid for uid, entry in UID_dictionary.items() if entry[1] == "SOP Class"}

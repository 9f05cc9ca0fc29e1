"""The permitted people: the list the project file names. Missing, stale, truncated, malformed or empty: nobody passes.

The file is CSV in UTF-8: a first line `# as-of: YYYY-MM-DD`, the header `person` (NHS numbers; a project that is not
linked has `issuer,person`), a row a person, and a last line `# end: <rows>` without which the file counts as truncated.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from datetime import date

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.errors import PeopleListRefused

_AS_OF = re.compile(r"# as-of: ([0-9]{4}-[0-9]{2}-[0-9]{2})")
_END = re.compile(r"# end: ([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class Permitted:
    """Ids as `layout.person` makes them, or None where the project needs no list; a digest of who they are."""

    ids: frozenset[str] | None
    digest: str


def load_permitted(config: ProjectConfig, today: date) -> Permitted:
    """Return who may be used. Raises PeopleListRefused, naming at most a line of the file.

    The digest is over the people, not over the file: a newer list of the same people changes nothing.
    """
    people = config.eligibility.people
    if people.list is None:
        return Permitted(None, _digest(["not required", people.not_required or ""]))
    try:
        text = config.beside(people.list).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise PeopleListRefused(f"The list of permitted people, {people.list}, cannot be read ({error.strerror}).",
                                hint="Put it beside the project file, or mend [eligibility] people.") from None
    except UnicodeDecodeError:
        raise PeopleListRefused("The list of permitted people is not UTF-8.") from None
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    _fresh(lines[0] if lines else "", people.max_age_days, today)
    end = _END.fullmatch(lines[-1].strip())
    if not end:
        raise PeopleListRefused("The list of permitted people is truncated: its last line is not `# end: <rows>`.")
    ids = _ids(lines[1:-1], linked=config.project.linked)
    if len(ids) != int(end[1]):
        raise PeopleListRefused(f"The list of permitted people has {len(ids)} rows, and its last line says {end[1]}.")
    if not ids:
        raise PeopleListRefused("The list of permitted people is empty.")
    return Permitted(frozenset(ids), _digest(sorted(set(ids))))


def _digest(fields: list[str]) -> str:
    return hashlib.sha256(layout.encode(fields)).hexdigest()


def _fresh(line: str, max_age_days: int, today: date) -> None:
    match = _AS_OF.fullmatch(line.strip())
    try:
        as_of = date.fromisoformat(match[1]) if match else None
    except ValueError:
        as_of = None
    if as_of is None:
        raise PeopleListRefused("The list of permitted people does not begin with `# as-of: YYYY-MM-DD`.")
    if as_of > today:
        raise PeopleListRefused("The list of permitted people is dated in the future.")
    if (today - as_of).days > max_age_days:
        raise PeopleListRefused(f"The list of permitted people is {(today - as_of).days} days old; the project file "
                                f"allows {max_age_days}.", hint="Fetch a new one.")


def _ids(lines: list[str], *, linked: bool) -> list[str]:
    header = ["person"] if linked else ["issuer", "person"]
    try:
        rows = csv.reader(lines, strict=True)
        if [name.strip() for name in next(rows, [])] != header:
            raise PeopleListRefused(f"The list of permitted people has not the header {','.join(header)}.")
        found = []
        for row in rows:
            cells = [layout.normalise(cell) for cell in row]
            if linked and len(cells) == 1 and cells[0]:
                cells = [layout.NHS_ISSUER, re.sub(r"[ -]", "", cells[0])]
            issuer, person = cells if len(cells) == 2 else (None, None)
            if not issuer or not person or (linked and not re.fullmatch(r"[0-9]{10}", person)):
                raise PeopleListRefused(f"The list of permitted people, line {rows.line_num + 1}: not a person.")
            found.append(layout.person(issuer, person))
    except csv.Error:
        raise PeopleListRefused("The list of permitted people is not CSV.") from None
    return found

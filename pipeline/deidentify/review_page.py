"""The review of a recipe set as one self-contained page, and how many series of a candidate it touches."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.deidentify.profile import EDITION, SAFE_EDITION
from pipeline.deidentify.review import GROUPS, Change, Reviewed
from pipeline.errors import NotFound
from pipeline.look import pages
from pipeline.storage import open_store

FOLDER = Path(__file__).parent / "templates"
CLAIMS = ("claim", "statement")
SMALL = 10          # people; groups of fewer are not told apart
CATALOGUE = "catalogue.parquet"
# Columns of the catalogue or of a part's facts that say whose and which, under either name.
_PERSON, _SERIES, _KIND = ("patient_id", "patient"), ("series_uid", "series"), "SOPClassUID"


def page(new: Reviewed, changes: Sequence[Change] | None, old: Reviewed | None,
         touched: Mapping[str, list[tuple[str, str]]] | None, kinds: Sequence[tuple[str, str]] = ()) -> bytes:
    """Return the page. `touched`: attribute → (kind of object, how many series) as `series` gives it."""
    script = (FOLDER / "review.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    counts = Counter(line.group for line in new.lines)
    return pages.render(
        FOLDER, "review.html.j2", {}, new=new, old=old, changes=changes, touched=touched, kinds=kinds, script=script,
        script_digest=digest, counts=counts, groups=list(dict.fromkeys(GROUPS.values())), small=SMALL,
        weaker=[line for line in new.lines if line.verdict == "weaker"], edition=EDITION, safe_edition=SAFE_EDITION,
        claimed=[c for c in changes or () if c.kind in CLAIMS],
        by_direction={way: [c for c in changes or () if c.direction == way and c.kind not in CLAIMS]
                      for way in ("more", "less", "other")})


def series(url: str, attributes: Sequence[str]) -> tuple[dict[str, list[tuple[str, str]]], list[tuple[str, str]]]:
    """Return by attribute in how many series of which kind of object it has a value, and all series by kind.

    `url` is a candidate's or a release's folder (its catalogue is read) or a Parquet file of facts. Counts of fewer
    than ten people are not shown, nor what would give them away by subtraction. Raises NotFound.
    """
    import duckdb

    base, _, name = url.rpartition("/") if url.endswith(".parquet") else (url.rstrip("/"), "", CATALOGUE)
    store = open_store(base, "candidate", create=False)
    if store.stat(name) is None:
        raise NotFound(f"{name} is not there.", hint="Give the folder of a candidate, or a file of facts.")
    with store.fetch(name) as path, duckdb.connect(config={"threads": 1, "memory_limit": "500MB"}) as db:
        db.read_parquet(str(path)).create_view("facts")
        columns = [row[0] for row in db.execute("DESCRIBE facts").fetchall()]
        person, one = (next(c for c in names if c in columns) for names in (_PERSON, _SERIES))
        held = {name: [c for c in columns if c == name or c.endswith("." + name)] for name in attributes}
        tests = [f"bool_or({' OR '.join(map(_filled, some)) or 'false'})"
                 for some in held.values()]
        kind = f"any_value({_quoted(_KIND)}[1])" if _KIND in columns else "NULL"
        chosen = "".join(f", {test} AS a{n}" for n, test in enumerate(tests))
        db.execute(f"CREATE TEMP TABLE one AS SELECT {_quoted(one)} AS series, any_value({_quoted(person)}) AS person, "  # noqa: S608
                   f"{kind} AS kind{chosen} FROM facts GROUP BY 1")
        every = _counts(db, "true")
        found = {name: _shown(_counts(db, f"a{n}"), every) for n, name in enumerate(held)}
    return {name: rows for name, rows in found.items() if rows}, _shown(every, {})


def _filled(column: str) -> str:
    """SQL: the attribute has a value. What a rule emptied stands there, and is no exposure."""
    return f"({_quoted(column)}[1] <> '' OR len({_quoted(column)}) > 1)"


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _counts(db: Any, test: str) -> dict[str, tuple[int, int]]:
    """Return kind → (series, people)."""
    rows = db.execute(f"SELECT kind, count(*), count(DISTINCT person) FROM one WHERE {test} GROUP BY 1")  # noqa: S608
    return {uid: (n, people) for uid, n, people in rows.fetchall()}


def _shown(counts: Mapping[str, tuple[int, int]], every: Mapping[str, tuple[int, int]]) -> list[tuple[str, str]]:
    from pydicom.uid import UID_dictionary

    found = []
    for uid, (n, people) in sorted(counts.items(), key=lambda one: (-one[1][0], str(one[0]))):
        others = every[uid][1] - people if uid in every else 0
        text = (f"series of fewer than {SMALL} people" if people < SMALL else
                "nearly all series" if 0 < others < SMALL or (uid in every and 0 < every[uid][0] - n < SMALL)
                else f"{n:,} series of {people:,} people")
        found.append((UID_dictionary[uid][0] if uid in UID_dictionary else "another kind of object", text))
    return found

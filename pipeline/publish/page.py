"""candidate.html: what an officer reads before answering about one candidate. Counts and words; no value, no script.

It stands beside candidate.json and is no part of it, for it also tells of the release before and of who signed what
runs, which change while the candidate does not. It says the digest of the candidate.json that it was made from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import layout
from pipeline.errors import NotFound
from pipeline.publish import checks, pages, query, report, words
from pipeline.publish.figures import SMALL, Group, keep_back
from pipeline.publish.files import put_same, read_json, sha256, stored
from pipeline.storage import ObjectStore, tables

_SEVERITIES = ("critical", "warning", "info")
_KINDS = ("project", "recipe", "concepts", "terms", "devices", "suite")
GROUPS = "small_groups"     # the suite that judges them (validate/groups.py)


@dataclass(frozen=True, slots=True)
class Signed:
    """A file that the project runs: `by` says of each officer name, key's fingerprint, and the last day."""

    kind: str
    name: str
    sha256: str
    by: tuple[tuple[str, str, str], ...]
    why: str = ""           # what is wrong, where it is not approved


@dataclass(frozen=True, slots=True)
class Before:
    """The release before: its manifest, dictionary, people, and candidate.json where that is still there."""

    manifest: Mapping[str, Any]
    dictionary: Mapping[str, Any]
    people: frozenset[str]
    sealed: Mapping[str, Any] | None


def write(candidate: ObjectStore, release: ObjectStore, project: str, candidate_id: str, *,
          signed: Sequence[Signed] = (), officers: str = "", timeout_hours: int = 72) -> str:
    """Write the page of a sealed candidate; return its key. `officers`: digest of the list, empty where there is none.

    Raises NotFound where the candidate is not sealed.
    """
    data, doc = read_json(candidate, layout.candidate_manifest(project, candidate_id), "The candidate's manifest")
    _, plan = read_json(candidate, layout.plan(project, candidate_id), "The candidate's plan")
    words_key = layout.in_candidate(project, candidate_id, "dictionary.json")
    _, dictionary = read_json(candidate, words_key, "The dictionary")
    results = {name: json.loads(candidate.read(layout.validation(project, candidate_id, name)))
               for name in _suites(doc)}
    people = _people(candidate, layout.table(project, candidate_id, "patients"))
    made = html(doc, sha256(data), plan, dictionary, results, people, before(candidate, release, project, candidate_id),
                filled=_filled(candidate, layout.in_candidate(project, candidate_id, layout.CATALOGUE), dictionary),
                signed=signed, officers=officers, timeout_hours=timeout_hours)
    key = layout.candidate_page(project, candidate_id)
    put_same(candidate, key, made)
    return key


def before(candidate: ObjectStore, release: ObjectStore, project: str, candidate_id: str) -> Before | None:
    """Return the newest release that is not of this candidate; None where there is none."""
    current = stored(release, layout.current(project))
    name = json.loads(current)["release"] if current else None
    while name:
        try:
            _, manifest = read_json(release, layout.release_manifest(project, name), "The release's manifest")
        except NotFound:
            return None
        if manifest["candidate"] != candidate_id:
            break
        name = (manifest["predecessor"] or {}).get("release")
    else:
        return None
    _, dictionary = read_json(release, layout.in_release(project, name, "dictionary.json"), "The release's dictionary")
    sealed = stored(candidate, layout.candidate_manifest(project, manifest["candidate"]))
    people = _people(release, layout.in_release(project, name, "tables/patients.parquet"))
    return Before(manifest, dictionary, people, json.loads(sealed) if sealed else None)


def html(doc: Mapping[str, Any], digest: str, plan: Mapping[str, Any], dictionary: Mapping[str, Any],
         results: Mapping[str, Mapping[str, Any]], people: frozenset[str], last: Before | None, *,
         filled: Mapping[str, tuple[int, int]] | None = None, signed: Sequence[Signed] = (), officers: str = "",
         timeout_hours: int = 72) -> bytes:
    """Return the page. `doc` is candidate.json, `digest` its SHA-256 (hex), `filled` as `_filled` gives it."""
    kept = _kept(dictionary, filled)
    weaker = _weaker(doc["recipes"], {row["path"]: row for row in kept if row["images"]})
    failed = sorted((check for check in checks.rows(results) if not check.passed),
                    key=lambda check: _SEVERITIES.index(check.severity))
    change = _change(doc, dictionary, people, last) if last else None
    fates = report.fates(doc["counts"])
    return pages.render(
        "candidate.html.j2", doc=doc, digest=digest, small=SMALL, weaker=weaker,
        kept=[row for row in kept if row["images"]], emptied=[row for row in kept if row["empty"]],
        filled=filled is not None, tables=[t for t in dictionary["tables"] if t["name"] != "catalogue"],
        fates=fates, landed=_landed(fates), groups=_groups(results), failed=failed, change=change,
        signed=sorted(signed, key=lambda one: (not one.why, _KINDS.index(one.kind) if one.kind in _KINDS else 9)),
        officers=officers, timeout_hours=timeout_hours,
        heed=_heed(doc, weaker, failed, change, results, signed), keep_times=bool(plan.get("keep_times")),
        shift_days=plan.get("date_shift_days"), age_band_years=plan.get("age_band_years", 5),
        methods=[(code, words.METHODS.get(code, "")) for code in plan.get("method_codes", ())],
    )


# ---- fields ------------------------------------------------------------------------------------------------------
def _weaker(recipes: Iterable[Mapping[str, Any]], kept: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return each attribute that some recipe leaves weaker than the Basic Profile would: name, why, by which recipes.

    A candidate of an older version names the attributes alone.
    """
    by: dict[str, list[str]] = {}
    why: dict[str, dict[str, None]] = {}
    sets = [(" + ".join(recipe["files"]), recipe.get("weaker", ())) for recipe in recipes]
    for files, attributes in sets:
        for attribute in attributes:
            by.setdefault(_path(attribute), []).append(files)
            reason = attributes[attribute] if isinstance(attributes, Mapping) else ""
            why.setdefault(_path(attribute), {})[reason] = None
    known = {_last(path): row for path, row in kept.items()}
    rows = [{"attribute": name, "meaning": known[name]["meaning"] if name in known else _meaning(name),
             "tag": known[name]["tag"] if name in known else "", "stated": name in known,
             "why": "; ".join(filter(None, why[name])),
             "recipes": ["every recipe"] if len(by[name]) == len(sets) else by[name]} for name in sorted(by)]
    return sorted(rows, key=lambda row: row["tag"])


def _kept(dictionary: Mapping[str, Any], filled: Mapping[str, tuple[int, int]] | None) -> list[dict[str, Any]]:
    """Return every attribute that images may keep, by name: `images`, in how many it has a value (True
    where that is not known), and `empty`, whether it stands in some and has a value in none."""
    rows = []
    for path, column in sorted(_elements(dictionary).items()):
        there, images = filled[path] if filled is not None else (1, True)
        rows.append({"path": path, "meaning": column["meaning"], "tag": _tag(column), "images": images,
                     "empty": there and not images})
    return rows


def _filled(store: ObjectStore, key: str, dictionary: Mapping[str, Any]) -> dict[str, tuple[int, int]] | None:
    """Return by attribute in how many images it stands, and in how many with a value; None without a catalogue."""
    paths = list(_elements(dictionary))
    if not paths or store.stat(key) is None:
        return None
    columns = ['"' + path.replace('"', '""') + '"' for path in paths]
    counts = ", ".join(f"count({c}), count(*) FILTER ({c}[1] <> '' OR len({c}) > 1)" for c in columns)
    with store.fetch(key) as file, query.opened({"catalogue": file}) as one:
        found = one(f"SELECT {counts} FROM catalogue")  # noqa: S608
    return dict(zip(paths, zip(found[::2], found[1::2], strict=True), strict=True))


def _path(attribute: str) -> str:
    """Return a weaker attribute as the catalogue names it: of `(gggg,xxee) CREATOR` (gggg,CREATOR,ee)."""
    private = re.fullmatch(r"\(([0-9A-F]{4}),xx([0-9A-F]{2})\) (.*)", attribute)
    return f"({private[1]},{private[3]},{private[2]})" if private else attribute


def _last(path: str) -> str:
    """Return the last element of a path; a private creator may hold dots of its own."""
    return path[path.rindex("("):] if path.endswith(")") else path.rpartition(".")[2]


def _elements(dictionary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the catalogue's columns that are elements of DICOM, by path."""
    return {c["name"]: c for t in dictionary["tables"] if t["name"] == "catalogue" for c in t["columns"]
            if c["type"] == "strings"}


def _tag(column: Mapping[str, Any]) -> str:
    """Return (gggg,eeee) out of what the catalogue says of a column's source."""
    _, found, rest = str(column["source"]).rpartition(" (")
    return f"({rest.partition(')')[0]})" if found else ""


def _meaning(attribute: str) -> str:
    from pydicom.datadict import dictionary_description, tag_for_keyword

    tag = tag_for_keyword(attribute)
    return str(dictionary_description(tag)) if tag is not None else attribute


# ---- since the last release --------------------------------------------------------------------------------------
def _change(doc: Mapping[str, Any], dictionary: Mapping[str, Any], people: frozenset[str],
            last: Before) -> dict[str, Any]:
    """Return what is not as in the release before: people, counts, fields, recipes, suites."""
    moved = keep_back([Group("In this candidate and not in that release", len(people - last.people), 0),
                       Group("In that release and no longer in this candidate", len(last.people - people), 0)])
    totals = {**last.manifest["totals"], "images": last.manifest["images"]["count"]}
    now = {**doc["totals"], "images": doc["images"]["count"]}
    more, less = _fields(dictionary) - _fields(last.dictionary), _fields(last.dictionary) - _fields(dictionary)
    change: dict[str, Any] = {
        "release": last.manifest["release"], "people": moved, "more": sorted(more), "less": sorted(less),
        "counts": [(name, totals.get(name, 0), now.get(name, 0)) for name in sorted({*totals, *now}, key=_first)],
        "known": last.sealed is not None}
    if last.sealed is not None:
        change |= _rules(doc, last.sealed)
    return change


def _rules(doc: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Return which recipes, suites and options differ from those of an older candidate.json."""
    def recipes(of: Mapping[str, Any]) -> dict[str, str]:
        return {" + ".join(one["files"]): one["digest"] for one in of["recipes"]}

    def weaker(of: Mapping[str, Any]) -> set[str]:
        return {name for one in of["recipes"] for name in one.get("weaker", ())}

    return {"recipes": _differing(recipes(old), recipes(doc)), "suites": _differing(old["suites"], doc["suites"]),
            "engine": (old["engine"], doc["engine"]) if old["engine"] != doc["engine"] else None,
            "weaker_more": sorted(weaker(doc) - weaker(old)), "weaker_less": sorted(weaker(old) - weaker(doc))}


def _differing(old: Mapping[str, str], new: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return (name, new, gone or changed) of what differs."""
    return [(name, "new" if name not in old else "gone" if name not in new else "changed")
            for name in sorted({*old, *new}) if old.get(name) != new.get(name)]


def _fields(dictionary: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {(table["name"], column["name"]) for table in dictionary["tables"] for column in table["columns"]}


def _first(name: str) -> tuple[int, str]:
    order = ("patients", "studies", "series", "images", "instances")
    return order.index(name) if name in order else len(order), name


# ---- groups, what to heed ----------------------------------------------------------------------------------------
def _groups(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how small groups were judged; None where the project file does not ask for it."""
    if GROUPS not in results:
        return None
    found = results[GROUPS]
    (line,) = found["expectations"]
    return {"why": line["why"], "columns": line["column"].split(", ")[1:], "rows": found["rows"],
            "failing": found["failing_rows"], "withheld": found["withheld_instances"]}


def _heed(doc: Mapping[str, Any], weaker: Sequence[Any], failed: Sequence[checks.Check],
          change: Mapping[str, Any] | None, results: Mapping[str, Any], signed: Sequence[Signed]) -> list[str]:
    """Return what an officer should look at first, in words."""
    said = []
    if lacking := [one.name for one in signed if one.why]:
        said.append(f"Not approved today: {', '.join(lacking[:6])}. Publishing will refuse until an officer signs.")
    if weaker:
        said.append(f"{_n(len(weaker), 'attribute is', 'attributes are')} weaker than the standard asks under the "
                    "options that recipes claim.")
    if change and change["more"]:
        said.append(f"{_n(len(change['more']), 'column or attribute is', 'columns or attributes are')} released that "
                    "the last release did not have.")
    if change and change.get("weaker_more"):
        said.append(f"New among the weaker: {', '.join(change['weaker_more'][:6])}.")
    if change and (change.get("recipes") or change.get("suites")):
        said.append("Recipes or suites are not those of the last release.")
    if counted := sum(check.severity != "info" for check in failed):
        said.append(f"{_n(counted, 'check', 'checks')} of the tables did not pass: the rows and images concerned were "
                    "withheld.")
    if GROUPS not in results:
        said.append("Small groups were not judged: the project file has no [validate.small_groups].")
    if doc["short_names"]:
        said.append("Some people have names too short to be searched for in what comes out.")
    return said


def _n(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _landed(fates: Sequence[Mapping[str, Any]]) -> int | None:
    """Return how many objects landed; None where that would give away by subtraction the one total not shown."""
    totals = [fate["total"] for fate in fates]
    return None if sum(not total.shown for total in totals) == 1 else sum(total.n for total in totals)


def _suites(doc: Mapping[str, Any]) -> list[str]:
    names = (str(file["name"]) for file in doc["files"])
    return [name[len("validation/"):-len(".json")] for name in names if name.startswith("validation/")]


def _people(store: ObjectStore, key: str) -> frozenset[str]:
    try:
        return frozenset(tables.read(store, key, ["patient_id"])["patient_id"].to_pylist())
    except NotFound:        # a recall has taken the rows
        return frozenset()

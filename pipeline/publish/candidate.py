"""Seal a candidate: write all that would be published, then `candidate.json`, whose digest is what gets approved.

The report and the dictionary are written here, not at publication: an officer reads exactly what would be released.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.errors import CandidateFailed
from pipeline.model import Status
from pipeline.publish import canaries, checks, dictionary, docs, query, report
from pipeline.publish.files import SCHEMA_VERSION, canonical, put_same, read_json, sha256, sha256_of, stored
from pipeline.publish.words import summary_lines
from pipeline.storage import ObjectStore
from pipeline.storage import tables as parquet

__all__ = ["KEPT_BACK", "agree", "digest", "fates", "seal", "summary_lines"]

KEPT_BACK = frozenset({"images.parquet", "withheld.parquet"})  # files of a candidate that no release carries


def seal(
    candidate: ObjectStore,
    project: str,
    candidate_id: str,
    *,
    tables: Mapping[str, Path],
    images: Path,
    results: Mapping[str, Mapping[str, Any]],
    withheld: Mapping[str, str],
    plan: Mapping[str, Any],
    catalogue: tuple[Path, Mapping[str, Any]] | None = None,
    audits: Mapping[str, Mapping[str, Any]] | None = None,
    audit_defaults: Mapping[str, Any] | None = None,
) -> str:
    """Write tables, images, withheld, validation, dictionary and report, then candidate.json. Return its SHA-256 (hex).

    `catalogue`: its local file, and its entry in the dictionary; it is no table of the suites, and is never in memory.

    `audits`: by name, title, question and files of the audits that become part of it. `audit_defaults`: for whoever
    runs audits over the release: `minimum_people`, the least group that any may show, and `outcome`.

    `tables` are those of the release as local Parquet files, without what is withheld; `images` has the columns
    instance, key, path, sha256, bytes; none is in memory whole. `results` is a document per suite; `withheld` gives a
    reason code for each de-identified instance that is not released; `plan` is plan.json, which must stand in the zone.
    Raises CandidateFailed where these contradict each other or a column is not declared. Once there is an answer to a
    candidate it stays as it was sealed; before, other bytes replace it, and what was shown of it can no longer be
    approved.
    """
    import pyarrow as pa

    plan_bytes, plan_there = read_json(candidate, layout.plan(project, candidate_id), "The candidate's plan")
    if plan_there != json.loads(json.dumps(dict(plan))):
        raise CandidateFailed("The plan given is not the plan that stands in the candidate zone.")
    schemas = {name: parquet.schema(path) for name, path in tables.items()}
    rows = {name: parquet.rows(path) for name, path in tables.items()}
    count, total, years = _size(images, tables)
    agree(images, tables["instances"])
    doc: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "project": project,
        "candidate": candidate_id,
        "title": plan.get("title", ""),
        "data_steward": plan.get("data_steward", ""),
        "demo": bool(plan.get("demo")),
        "plan_sha256": sha256(plan_bytes),
        "plan": plan.get("plan"),
        "engine": plan.get("engine"),
        "recipes": plan.get("recipes", []),
        "suites": plan.get("suites", {}),
        "images": {"table": "images.parquet", "count": count, "bytes": total},
        "counts": fates(plan.get("counts", {}), count, withheld),
        "clinical_counts": plan.get("clinical_counts", {}),
        "short_names": plan.get("short_names", 0),
        **({"emptied": plan["emptied"]} if plan.get("emptied") else {}),
        "totals": rows,
        "columns": {name: len(schema) for name, schema in schemas.items()},
        "audit_defaults": dict(audit_defaults or {}),
        "audits": [{"name": name, "title": one["title"], "question": one["question"]}
                   for name, one in (audits or {}).items()],
        "study_years": years,
        "validation": {**checks.summary(results), "withheld": dict(Counter(withheld.values()))},
    }
    words = dictionary.build(schemas, rows, plan)
    large = {f"tables/{name}.parquet": path for name, path in tables.items()} | {"images.parquet": images}
    if catalogue:
        file, entry = catalogue
        large[layout.CATALOGUE] = file
        _lists(file, images)
        doc["catalogue"] = {"file": layout.CATALOGUE, "rows": entry["rows"], "columns": len(entry["columns"])}
        words["tables"].append(entry)
    canaries.absent(large.values(), plan.get("canaries", ()))
    back = sorted(withheld.items())
    held = pa.table(
        {"instance": pa.array([i for i, _ in back], pa.string()), "reason": pa.array([r for _, r in back], pa.string())}
    )
    files = {f"validation/{suite}.json": canonical(result) for suite, result in results.items()}
    for name, one in (audits or {}).items():
        files |= {f"audits/{name}/{file}": data for file, data in one["files"].items()}
    files |= {
        "withheld.parquet": parquet.to_bytes(held),
        "dictionary.json": canonical(words),
        "dictionary.html": dictionary.html(words, doc["title"]),
        "checks.html": docs.html(doc, results),
        "report.html": report.html(tables, doc, plan, results, words),
    }
    listed = [{"name": name, "bytes": len(data), "sha256": sha256(data)} for name, data in files.items()]
    digests = {name: sha256_of(path) for name, path in large.items()}
    listed += [{"name": name, "bytes": path.stat().st_size, "sha256": digests[name]} for name, path in large.items()]
    doc["files"] = sorted(listed, key=lambda one: str(one["name"]))
    manifest = canonical(doc)
    key = layout.candidate_manifest(project, candidate_id)
    if (there := stored(candidate, key)) not in (None, manifest):
        if candidate.stat(layout.approval(project, candidate_id)) is not None:
            return sha256(there)
        candidate.delete(key)
    for name, data in sorted(files.items()):
        put_same(candidate, layout.in_candidate(project, candidate_id, name), data)
    for name, path in sorted(large.items()):
        candidate.put_file(layout.in_candidate(project, candidate_id, name), path, bytes.fromhex(digests[name]))
    candidate.settle()
    put_same(candidate, key, manifest)
    found = sha256(manifest)
    put_same(
        candidate,
        layout.latest_candidate(project),
        canonical({"schema_version": SCHEMA_VERSION, "candidate": candidate_id, "digest": found}),
    )
    return found


def digest(candidate: ObjectStore, project: str, candidate_id: str) -> str:
    """Return the SHA-256 (hex) of candidate.json: what an approval names. Raises NotFound where it is not sealed."""
    data, _ = read_json(candidate, layout.candidate_manifest(project, candidate_id), "The candidate's manifest")
    return sha256(data)


def agree(images: Path, instances: Path) -> None:
    """Refuse images that the instances table does not tell of, or tells of otherwise. Raises CandidateFailed."""
    with query.opened({"images": images, "instances": instances}) as one:
        if _differ(one, f"SELECT instance, path, {_hex(images)}, bytes FROM images",  # noqa: S608
                   f"SELECT sop_instance_uid, path, {_hex(instances)}, bytes FROM instances"):  # noqa: S608
            raise CandidateFailed("The images and the instances table do not tell of the same objects.")
        if one("SELECT count(*) - count(DISTINCT path) FROM images")[0]:
            raise CandidateFailed("Two images would stand under one path.")


def _differ(one: Callable[[str], tuple[Any, ...]], left: str, right: str) -> bool:
    """Whether two queries give other rows, whatever their order."""
    return any(one(f"SELECT (SELECT count(*) FROM ({a} EXCEPT ALL {b}))")[0]  # noqa: S608
               for a, b in ((left, right), (right, left)))


def _hex(table: Path) -> str:
    """Return SQL for a digest as hex, whichever way the table holds it."""
    import pyarrow as pa

    return "sha256" if pa.types.is_string(parquet.schema(table).field("sha256").type) else "lower(hex(sha256))"


def _lists(catalogue: Path, images: Path) -> None:
    """Refuse a catalogue that is not of exactly these images. Raises CandidateFailed."""
    with query.opened({"catalogue": catalogue, "images": images}) as one:
        if _differ(one, "SELECT sop_instance_uid FROM catalogue", "SELECT instance FROM images"):
            raise CandidateFailed("The images and the catalogue do not tell of the same objects.")


def fates(
    counts: Mapping[str, Mapping[str, int]], images: int, withheld: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    """Return status → reason → objects once this candidate is published: what was pending is published or withheld.

    Raises CandidateFailed where more would be published or withheld than was pending.
    """
    after = {status: Counter(by_reason) for status, by_reason in counts.items()}
    pending = sum(after.pop(Status.PENDING, Counter()).values())
    left = pending - images - len(withheld)
    if counts and left < 0:
        raise CandidateFailed("The counts do not add up: more is released or withheld than was de-identified.")
    after.setdefault(Status.WITHHELD, Counter()).update(withheld.values())
    after[Status.PUBLISHED] = Counter({"": images})
    if left > 0:
        after[Status.PENDING] = Counter({"": left})
    return {
        str(status): {r: n for r, n in sorted(by.items()) if n}
        for status, by in sorted(after.items())
        if any(by.values())
    }


def _size(images: Path, tables: Mapping[str, Path]) -> tuple[int, int, list[int] | None]:
    """Return images, their bytes, and the first and the last year of a study (None where there is no study)."""
    with query.opened({"images": images, "studies": tables["studies"]}) as one:
        count, total = one("SELECT count(*), coalesce(sum(bytes), 0)::BIGINT FROM images")
        first, last = one("SELECT year(min(study_date)), year(max(study_date)) FROM studies")
    return count, total, None if first is None else [first, last]

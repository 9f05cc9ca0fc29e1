"""Seal a candidate: write all that would be published, then `candidate.json`, whose digest is what gets approved.

The report and the dictionary are written here, not at publication: an officer reads exactly what would be released.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import layout
from pipeline.errors import CandidateFailed
from pipeline.model import Status
from pipeline.publish import checks, dictionary, docs, report
from pipeline.publish.files import SCHEMA_VERSION, canonical, hex_of, put_same, read_json, sha256, sha256_of, stored
from pipeline.publish.words import summary_lines
from pipeline.storage import ObjectStore
from pipeline.storage import tables as parquet

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["KEPT_BACK", "agree", "digest", "fates", "seal", "summary_lines"]

KEPT_BACK = frozenset({"images.parquet", "withheld.parquet"})  # files of a candidate that no release carries


def seal(
    candidate: ObjectStore,
    project: str,
    candidate_id: str,
    *,
    tables: Mapping[str, pa.Table],
    images: pa.Table,
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

    `tables` are those of the release, without what is withheld; `images` has the columns instance, key, path, sha256,
    bytes; `results` is a document per suite; `withheld` gives a reason code for each de-identified instance that is not
    released; `plan` is plan.json, which must stand in the zone. Raises CandidateFailed where these contradict each
    other or a column is not declared. Once there is an answer to a candidate it stays as it was sealed; before, other
    bytes replace it, and what was shown of it can no longer be approved.
    """
    import pyarrow as pa

    plan_bytes, plan_there = read_json(candidate, layout.plan(project, candidate_id), "The candidate's plan")
    if plan_there != json.loads(json.dumps(dict(plan))):
        raise CandidateFailed("The plan given is not the plan that stands in the candidate zone.")
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
        "images": {"table": "images.parquet", "count": images.num_rows, "bytes": _total(images, "bytes")},
        "counts": fates(plan.get("counts", {}), images.num_rows, withheld),
        "clinical_counts": plan.get("clinical_counts", {}),
        "short_names": plan.get("short_names", 0),
        "totals": {name: table.num_rows for name, table in tables.items()},
        "columns": {name: table.num_columns for name, table in tables.items()},
        "audit_defaults": dict(audit_defaults or {}),
        "audits": [{"name": name, "title": one["title"], "question": one["question"]}
                   for name, one in (audits or {}).items()],
        "study_years": _years(tables["studies"]),
        "validation": {**checks.summary(results), "withheld": dict(Counter(withheld.values()))},
    }
    words = dictionary.build(tables, plan)
    if catalogue:
        file, entry = catalogue
        digest = sha256_of(file)
        _lists(file, images)
        doc["catalogue"] = {"file": layout.CATALOGUE, "rows": entry["rows"], "columns": len(entry["columns"])}
        words["tables"].append(entry)
    rows = sorted(withheld.items())
    held = pa.table(
        {"instance": pa.array([i for i, _ in rows], pa.string()), "reason": pa.array([r for _, r in rows], pa.string())}
    )
    files = {f"tables/{name}.parquet": parquet.to_bytes(table) for name, table in tables.items()}
    files |= {f"validation/{suite}.json": canonical(result) for suite, result in results.items()}
    for name, one in (audits or {}).items():
        files |= {f"audits/{name}/{file}": data for file, data in one["files"].items()}
    files |= {
        "images.parquet": parquet.to_bytes(images),
        "withheld.parquet": parquet.to_bytes(held),
        "dictionary.json": canonical(words),
        "dictionary.html": dictionary.html(words, doc["title"]),
        "checks.html": docs.html(doc, results),
        "report.html": report.html(tables, doc, plan, results, words),
    }
    listed = [{"name": name, "bytes": len(data), "sha256": sha256(data)} for name, data in files.items()]
    if catalogue:
        listed.append({"name": layout.CATALOGUE, "bytes": file.stat().st_size, "sha256": digest})
    doc["files"] = sorted(listed, key=lambda one: str(one["name"]))
    manifest = canonical(doc)
    key = layout.candidate_manifest(project, candidate_id)
    if (there := stored(candidate, key)) not in (None, manifest):
        if candidate.stat(layout.approval(project, candidate_id)) is not None:
            return sha256(there)
        candidate.delete(key)
    for name, data in sorted(files.items()):
        put_same(candidate, layout.in_candidate(project, candidate_id, name), data)
    if catalogue:
        candidate.put_file(layout.catalogue(project, candidate_id), file, bytes.fromhex(digest))
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


def agree(images: pa.Table, instances: pa.Table) -> None:
    """Refuse images that the instances table does not tell of, or tells of otherwise. Raises CandidateFailed."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def told(table: pa.Table, *names: str) -> list[pa.ChunkedArray]:
        rows = table.select(names).rename_columns(["instance", "path", "sha256", "bytes"])
        if not pa.types.is_string(rows.schema.field("sha256").type):
            hexed = pa.array([hex_of(value) for value in rows["sha256"].to_pylist()], pa.string())
            rows = rows.set_column(2, "sha256", hexed)
        # In Arrow, not as Python's tuples: a release may have millions of images.
        return list(rows.sort_by([("instance", "ascending"), ("path", "ascending")]).columns)

    left = told(images, "instance", "path", "sha256", "bytes")
    right = told(instances, "sop_instance_uid", "path", "sha256", "bytes")
    if not all(one.equals(other) for one, other in zip(left, right, strict=True)):
        raise CandidateFailed("The images and the instances table do not tell of the same objects.")
    if pc.count_distinct(left[1]).as_py() != images.num_rows:
        raise CandidateFailed("Two images would stand under one path.")


def _lists(catalogue: Path, images: pa.Table) -> None:
    """Refuse a catalogue that is not of exactly these images. Raises CandidateFailed."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(catalogue) as file:
        told = file.read(["sop_instance_uid"], use_threads=False)["sop_instance_uid"]
    one, other = (column.take(pc.sort_indices(column)) for column in (told, images["instance"]))
    if not one.equals(other):
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


def _total(table: pa.Table, column: str) -> int:
    import pyarrow.compute as pc

    return int(pc.sum(table[column]).as_py() or 0)


def _years(studies: pa.Table) -> list[int] | None:
    import pyarrow.compute as pc

    ends = pc.min_max(pc.year(studies["study_date"])).as_py()
    return None if ends["min"] is None else [ends["min"], ends["max"]]

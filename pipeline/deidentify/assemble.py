"""What a candidate is made of, told without an identity: the identifiable side of a build, put together.

The parts are known, so nothing is decided here but two things: an instance of a study in which any part found a
residual identifier is held back, and the candidate's id. What leaves for the candidate zone is `plan.json`: part ids,
output UIDs held back, counts, digests.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.deidentify.clinical import ClinicalSnapshot
from pipeline.deidentify.pseudonyms import Pseudonyms
from pipeline.model import Reason, Status
from pipeline.schemas import clinical_table
from pipeline.storage import ObjectStore, tables

LEAKS = [Reason.RESIDUAL_IDENTIFIER.value, Reason.TEXT_IN_PIXELS.value]     # for them a whole study is held back
Counts = dict[str, dict[str, int]]      # status → reason ("" where there is none) → objects


def survey(
    work: ObjectStore, project: str, inventories: Sequence[str], parts: Sequence[str]
) -> tuple[Counts, dict[str, str]]:
    """Return the fate so far of every inventoried object, and the output instances that are held back, with why."""
    counts: dict[str, Counter[str]] = {}

    def add(table: Any) -> None:
        for row in table.group_by(["status", "reason"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
            counts.setdefault(row["status"], Counter())[row["reason"] or ""] += row["count_all"]

    for key in inventories:
        rows = tables.read(work, key, ["status", "reason"])
        add(rows.filter(pc.not_equal(rows["status"], Status.PENDING.value)))
    unsafe: set[str] = set()
    for part in parts:
        rows = tables.read(work, layout.outcomes(project, part), ["status", "reason", "study"])
        add(rows.select(["status", "reason"]))
        leaking = rows.filter(pc.is_in(rows["reason"], value_set=pa.array(LEAKS)))
        unsafe.update(leaking["study"].drop_null().to_pylist())
    held: dict[str, str] = {}
    studies = pa.array(sorted(unsafe), pa.string())
    for part in parts if unsafe else ():
        rows = tables.read(work, layout.outcomes(project, part), ["status", "study", "instance"])
        passed = pc.and_(pc.equal(rows["status"], Status.PENDING.value), pc.is_in(rows["study"], value_set=studies))
        held |= dict.fromkeys(rows.filter(passed)["instance"].to_pylist(), Reason.STUDY_QUARANTINED.value)
    plain = {status: dict(sorted(by_reason.items())) for status, by_reason in sorted(counts.items())}
    return plain, dict(sorted(held.items()))


def short_names(work: ObjectStore, project: str, parts: Sequence[str]) -> int:
    """Return how many people with a de-identified instance have a name too short to be searched for in it."""
    people: set[str] = set()
    for part in parts:
        rows = tables.read(work, layout.outcomes(project, part), ["patient", "names_short"])
        if "names_short" not in rows.column_names:      # a part that an older version made
            continue
        people.update(rows.filter(pc.greater(rows["names_short"], 0))["patient"].unique().to_pylist())
    return len(people)


def emptied(work: ObjectStore, project: str, parts: Sequence[str]) -> dict[str, int]:
    """Return by attribute in how many de-identified instances free text was emptied, for it was no approved term."""
    found: Counter[str] = Counter()
    for part in parts:
        rows = tables.read(work, layout.outcomes(project, part), ["emptied"])
        if "emptied" in rows.column_names:      # an older version made the others
            for one in pc.value_counts(pc.list_flatten(rows["emptied"])).to_pylist():
                found[one["values"]] += one["counts"]
    return dict(sorted(found.items()))


def candidate_id(pseudonyms: Pseudonyms, config: ProjectConfig, parts: Sequence[str], clinical: str | None,
                 digests: Sequence[str]) -> str:
    """Return HK(part ids, clinical snapshot, digests of crosswalk, people, suites and schemas, meaning of the file)."""
    return layout.keyed("c", pseudonyms.key.secret,
                        [*sorted(parts), "clinical", clinical or "", *digests, config.meaning()])


def write(work: ObjectStore, candidate: ObjectStore, config: ProjectConfig, identity: str, *, parts: Sequence[str],
          counts: Counts, held: Mapping[str, str], clinical: ClinicalSnapshot, about: Mapping[str, Any],
          equipment: Mapping[str, pa.Table], refused: Sequence[tuple[int, str]] = ()) -> None:
    """Write what is known of the equipment, the candidate's plan.json (no identity in it), and then the ledger's side
    of it, inputs.json. `refused`: rows of the output table that were left out, by line and reason."""
    files = {name: tables.to_bytes(table) for name, table in sorted(equipment.items())}
    for name, data in files.items():
        candidate.write(layout.equipment(config.name, identity, name), data)
    named = {declared.table: [
        {"name": c.name, "type": c.type, "unit": c.unit, "meaning": c.meaning, "nullable": c.nullable,
         "values": declared.columns[c.name].values if c.name in declared.columns else ()}
        for c in clinical_table(declared.table, declared.columns).columns] for declared in config.clinical}
    plan = {
        "schema_version": layout.SCHEMA_VERSION, "project": config.name, "candidate": identity,
        "title": config.project.title, "data_steward": config.project.data_steward, "demo": config.project.demo,
        "parts": sorted(parts), "clinical": {"id": clinical.id, "tables": named} if clinical.id else None,
        "held": dict(held), "counts": counts, "clinical_counts": clinical.counts,
        "date_shift_days": config.deidentify.date_shift_days, "keep_times": config.deidentify.keep_times,
        "age_band_years": config.deidentify.age_band_years,
        "equipment": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, **about,
    }
    inputs = {"schema_version": layout.SCHEMA_VERSION, "candidate": identity, "parts": sorted(parts),
              "held": dict(held), "output_refused": [list(row) for row in refused]}
    candidate.write(layout.plan(config.name, identity), _json(plan))
    work.write(layout.candidate_inputs(config.name, identity), _json(inputs))


def _json(doc: object) -> bytes:
    return json.dumps(doc, sort_keys=True, indent=1).encode() + b"\n"

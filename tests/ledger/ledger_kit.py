"""Zones written by hand, as staging, building and publishing leave them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.ledger import ledger
from pipeline.schemas import INSTANCES, INVENTORY, OUTCOMES
from pipeline.storage import open_store, tables

PROJECT = "audit"
A, B = "c-" + "a" * 24, "c-" + "b" * 24
CONFIG = ProjectConfig.model_validate({
    "schema_version": 1,
    "project": {"name": PROJECT, "title": "An audit", "data_steward": "A steward"},
    "zones": {name: f"file:///nowhere/{name}" for name in ("landing", "work", "candidate", "release")},
    "eligibility": {"sop_classes": ["1.2"], "study_dates": {"earliest": "2010-01-01", "latest": "2030-12-31"},
                    "people": {"not_required": "Synthetic people only: no legal basis is needed."}},
    "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": ["1.2"]}]},
})


def sha(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def uri(name: object) -> str:
    return f"file:///landing/{str(name).partition('/')[0]}"


class World:
    """Objects are called by short names: name → source_uri, digest, and `2.25.<name>` as the output instance.

    `a/2` is another object under the name of `a`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work, self.candidate, self.release = (
            open_store((root / zone).as_uri(), zone) for zone in ("work", "candidate", "release"))

    def batch(self, letter: str, objects: dict[Any, tuple[str, str | None]]) -> None:
        rows = [{"source_uri": uri(n), "bytes": 1, "source_sha256": sha(n), "status": s, "reason": r,
                 "sop_class_uid": "1.2", "modality": "MG"} for n, (s, r) in sorted(objects.items(), key=str)]
        tables.write(self.work, layout.inventory(PROJECT, "b-" + letter * 24), tables.from_rows(INVENTORY, rows))

    def part(self, letter: str, outcomes: dict[Any, tuple[str, str | None]], tag: str | None = None) -> None:
        rows = [{"source_uri": uri(n), "source_sha256": sha(n), "status": s, "reason": r, "instance": f"2.25.{n}",
                 "tag": tag} for n, (s, r) in sorted(outcomes.items(), key=str)]
        tables.write(self.work, layout.outcomes(PROJECT, "p-" + letter * 24), tables.from_rows(OUTCOMES, rows))

    def build(self, candidate: str, parts: str, held: dict[Any, str] | None = None,
              withheld: dict[Any, str] | None = None) -> None:
        doc = {"schema_version": 1, "candidate": candidate, "parts": ["p-" + p * 24 for p in parts],
               "held": {f"2.25.{n}": reason for n, reason in (held or {}).items()}}
        self._json(self.work, layout.candidate_inputs(PROJECT, candidate), doc)
        if withheld is not None:
            table = pa.table({"instance": pa.array([f"2.25.{n}" for n in withheld], pa.string()),
                              "reason": pa.array(list(withheld.values()), pa.string())})
            tables.write(self.candidate, layout.withheld(PROJECT, candidate), table)
        self._json(self.candidate, layout.latest_candidate(PROJECT), {"schema_version": 1, "candidate": candidate})

    def publish(self, sequence: int, candidate: str, names: list[Any], current: bool = True) -> str:
        name = layout.release_id(sequence, candidate)
        rows = [{**{c.name: "" for c in INSTANCES.columns if c.type == "string"}, "bytes": 1,
                 "sop_instance_uid": f"2.25.{n}", "path": f"P/{n}.dcm"} for n in names]
        tables.write(self.release, layout.in_release(PROJECT, name, "tables/instances.parquet"),
                     tables.from_rows(INSTANCES, rows))
        self._json(self.release, layout.release_manifest(PROJECT, name), {
            "schema_version": 1, "release": name, "sequence": sequence, "predecessor": None, "candidate": candidate,
            "images": {"table": "tables/instances.parquet", "count": len(rows)}})
        if current:
            self._json(self.release, layout.current(PROJECT), {
                "schema_version": 1, "release": name, "sequence": sequence, "predecessor": None})
        return name

    def recall(self, name: object) -> None:
        self._json(self.release, layout.tombstone(PROJECT, f"2.25.{name}"), {"schema_version": 1})

    def _json(self, store: Any, key: str, doc: dict[str, Any]) -> None:
        store.write(key, json.dumps(doc).encode())

    def ledger(self, name: str = "ledger.parquet", **which: Any) -> Any:
        return ledger.build(CONFIG, self.work, self.candidate, self.release, self.root / name, **which)

    def fates(self, **which: Any) -> dict[str, tuple[str, str | None, str | None]]:
        """Name → status, reason, release."""
        import pyarrow.parquet as pq

        self.last = self.ledger(**which)
        rows = pq.read_table(self.root / "ledger.parquet").to_pylist()
        return {r["source_uri"].rpartition("/")[2]: (r["status"], r["reason"], r["release_id"]) for r in rows}

    def identity(self, **which: Any) -> dict[str, int]:
        return ledger.identity(CONFIG, self.work, self.candidate, self.release, **which)

"""A landing of real synthetic files and a work zone, both on disk."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pipeline import layout
from pipeline.config import ProjectConfig
from pipeline.stage.run import stage
from pipeline.storage import open_store
from pipeline.synthetic import encode, files

PROJECT = "audit"
MG = "1.2.840.10008.5.1.4.1.1.1.2"


def config_of(**stage_options: Any) -> ProjectConfig:
    return ProjectConfig.model_validate({
        "schema_version": 1,
        "project": {"name": PROJECT, "title": "An audit", "data_steward": "A steward"},
        "zones": {name: f"file:///nowhere/{name}" for name in ("landing", "work", "candidate", "release")},
        "stage": {"quiet_seconds": 0, **stage_options},
        "eligibility": {"sop_classes": [MG], "study_dates": {"earliest": "2010-01-01", "latest": "2030-12-31"},
                        "people": {"not_required": "Synthetic people only: no legal basis is needed."}},
        "deidentify": {"recipes": [{"files": ["base.dicom"], "sop_classes": [MG]}]},
    })


@functools.cache
def image(instance: object, variant: int = 0, study: object = "s", **options: Any) -> bytes:
    """One mammogram: `instance` decides its SOP Instance UID, `variant` its other bytes."""
    plain: dict[str, Any] = {"rows": 8, "columns": 8, "planted": False, "KVP": str(25 + variant)}
    uids = {"sop_instance_uid": encode.uid("i", instance), "study_uid": encode.uid("study", study),
            "series_uid": encode.uid("series", study)}
    return files.mammogram(**{**plain, **uids, **options})


def open_zones(root: Path) -> SimpleNamespace:
    (root / "landing").mkdir(parents=True, exist_ok=True)
    landing = open_store((root / "landing").as_uri(), "landing")
    work = open_store((root / "work").as_uri(), "work")

    def put(name: str, data: bytes, age: float = 3600) -> None:
        path = root / "landing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        when = landing.now().timestamp() - age
        os.utime(path, (when, when))

    def run(eligible: Callable[[Any], Any] = lambda row: None, dry_run: bool = False, **options: Any) -> Any:
        workers = options.pop("workers", 0)
        return stage(config_of(**options), landing, work, eligible=eligible, dry_run=dry_run, workers=workers)

    return SimpleNamespace(root=root, landing=landing, work=work, put=put, run=run, config=config_of)


def tree(store: Any, listings: bool = True) -> dict[str, str]:
    """Digest of every object in a store, leases left out."""
    lease = layout.lease(PROJECT, "stage").rpartition("/")[0]
    return {e.key: hashlib.sha256(store.read(e.key)).hexdigest() for e in store.list()
            if not e.key.startswith(lease) and (listings or not e.key.endswith("/listing.parquet"))}


def inventories(work: Any) -> list[dict[str, Any]]:
    """Every row of every committed batch."""
    from pipeline.stage import batches

    return [{**row, "batch": batch} for batch in batches.committed(work, PROJECT)
            for row in batches.read_inventory(work, PROJECT, batch).to_pylist()]

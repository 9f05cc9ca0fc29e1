"""A hand-made candidate: small tables, random bytes for images, in a zone on disk or on S3."""

from __future__ import annotations

import datetime
import hashlib
import json
import random
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import layout, schemas
from pipeline.publish import candidate as sealing
from pipeline.storage import open_store, tables

PROJECT, CANDIDATE = "breast-screening", "c-" + "0a1b2c3d4e5f" * 2
VIEWS = [("R", "CC"), ("R", "MLO"), ("L", "CC"), ("L", "MLO")]


def rows(people: int, seed: int, images_of: int = 4) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table for this many people, one study each."""
    chance = random.Random(seed)
    out: dict[str, list[dict[str, Any]]] = {
        n: [] for n in ("patients", "studies", "series", "instances", "exposures", "episodes")
    }
    for number in range(people):
        person = f"P{number:020X}"
        study, series = f"2.25.1{number:06}", f"2.25.2{number:06}"
        day = datetime.date(2017 + number % 6, 1 + number % 12, 1 + number % 28)
        maker, model, device = chance.choice(
            [
                ("HOLOGIC, Inc.", "Selenia Dimensions", "D0000000000A1"),
                ("SIEMENS", "Mammomat Revelation", "D0000000000B2"),
                ("GE MEDICAL SYSTEMS", "Senographe Pristina", "D0000000000C3"),
            ]
        )
        base = {"patient_id": person, "study_uid": study, "series_uid": series}
        out["patients"].append(
            {
                "patient_id": person,
                "sex": "F",
                "n_studies": 1,
                "n_instances": images_of,
                "first_study_date": day,
                "last_study_date": day,
            }
        )
        out["studies"].append(
            {
                **base,
                "study_date": day,
                "age_band_years": chance.choice([50, 50, 55, 60, 60, 65, 70]),
                "modalities": "MG",
                "n_series": 1,
                "n_instances": images_of,
            }
        )
        out["series"].append(
            {
                **base,
                "modality": "MG",
                "manufacturer": maker,
                "model": model,
                "device_id": device,
                "n_instances": images_of,
            }
        )
        out["episodes"].append(
            {"patient_id": person, "episode_id": f"I{number:016X}", "outcome": chance.choice(["normal", "cancer"])}
        )
        thick = chance.gauss(57, 12)
        for view in range(images_of):
            side, name = VIEWS[view % 4]
            data = chance.randbytes(chance.randrange(200, 900))
            digest = hashlib.sha256(data).hexdigest()
            uid = f"2.25.3{number:06}{view}"
            image = {
                **base,
                "sop_instance_uid": uid,
                "modality": "MG",
                "laterality": side,
                "view": name,
                "presentation_intent": "FOR PRESENTATION",
            }
            mm = round(min(max(thick + chance.gauss(0, 3), 15), 110), 1)
            out["instances"].append(
                {
                    **image,
                    "sop_class_uid": "1.2.840.10008.5.1.4.1.1.1.2",
                    "rows": 16,
                    "columns": 16,
                    "frames": 1,
                    "path": layout.image_path(person, study, series, uid, digest),
                    "sha256": digest,
                    "bytes": len(data),
                    "data": data,
                }
            )
            out["exposures"].append(
                {
                    **image,
                    "exposure_id": image["sop_instance_uid"],
                    "n_images": 1,
                    "basis": "header",
                    "is_tomosynthesis": False,
                    "kvp_kv": 29.0,
                    "body_part_thickness_mm": mm,
                    "device_id": device,
                    "compression_force_n": round(chance.gauss(100, 25), 0),
                    "average_glandular_dose_mgy": round(0.5 + mm * 0.018 + chance.gauss(0, 0.18), 3),
                }
            )
    return out


class Made(SimpleNamespace):
    """candidate, release (stores), project, id, tables, images, plan, results, withheld; how to seal and approve."""

    def seal(self, **more: Any) -> str:
        self.candidate.write(layout.plan(self.project, self.id), json.dumps(self.plan, sort_keys=True).encode())
        return self.seal_beside_its_plan(**more)

    def seal_beside_its_plan(self, **more: Any) -> str:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / f"{name}.parquet" for name in [*self.tables, "the images"]}
            for name, table in {**self.tables, "the images": self.images}.items():
                files[name].write_bytes(tables.to_bytes(table))
            return sealing.seal(
                self.candidate,
                self.project,
                self.id,
                images=files.pop("the images"),
                tables=files,
                results=self.results,
                withheld=self.withheld,
                plan=self.plan,
                **more,
            )

    def approval(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "project": self.project,
            "candidate": self.id,
            "decision": "approve",
            "digest": sealing.digest(self.candidate, self.project, self.id),
            "approver": "An Officer",
            "triggered_by": "An Engineer",
            "when": "2026-01-02T03:04:05+00:00",
        }


def make(base: str, people: int = 12, seed: int = 1, candidate: str = CANDIDATE, images_of: int = 4) -> Made:
    """Write images and plan of a candidate below the URL `base`; nothing is sealed yet."""
    store, release = open_store(f"{base}/candidate", "candidate"), open_store(f"{base}/release", "release")
    found = rows(people, seed, images_of)
    part = "p-" + "5" * 24
    images = []
    for row in found["instances"]:
        key = layout.dicom(PROJECT, part, row["path"])
        store.write(key, row.pop("data"))
        images.append(
            {
                "instance": row["sop_instance_uid"],
                "key": key,
                "path": row["path"],
                "sha256": row["sha256"],
                "bytes": row["bytes"],
            }
        )
    made = {t.name: tables.from_rows(t, found.get(t.name, [])) for t in schemas.PUBLISHED}
    episodes = schemas.Table("episodes", "", (), (schemas.CLINICAL_PERSON,))
    extra = (schemas.Column("episode_id", "string", ""), schemas.Column("outcome", "string", ""))
    made["episodes"] = tables.from_rows(episodes, found["episodes"], extra)
    plan = {
        "schema_version": 1,
        "project": PROJECT,
        "candidate": candidate,
        "demo": True,
        "parts": [part],
        "held": {},
        "title": "Breast screening, a trial of the house",
        "data_steward": "Imaging Data Office",
        "clinical": {
            "id": "k-1",
            "tables": {
                "episodes": [
                    {"name": "episode_id", "type": "string", "unit": "", "meaning": "Pseudonym of the episode."},
                    {
                        "name": "outcome",
                        "type": "string",
                        "unit": "",
                        "meaning": "Outcome of screening.",
                        "values": ["normal", "cancer"],
                    },
                ]
            },
        },
        "counts": {
            "pending": {"": len(images) + 2},
            "rejected": {"not_dicom": 3, "truncated": 1, "person_not_permitted": 40},
            "duplicate": {"same_bytes": 12},
            "quarantined": {"pixels_need_cleaning": 11, "structured_report": 25},
        },
        "short_names": 14,
        "clinical_counts": {"episodes": {"linked": people, "person_not_permitted": 4}},
        "recipes": [
            {
                "files": ["base.dicom", "mammography.dicom"],
                "sop_classes": ["1.2.840.10008.5.1.4.1.1.1.2"],
                "digest": hashlib.sha256(b"recipe").hexdigest(),
            }
        ],
        "plan": "r-" + "7" * 24,
        "engine": "1",
        "suites": {"exposures": "ab" * 32},
        "date_shift_days": 365,
        "method_codes": ["113100", "113105", "113107", "113108"],
    }

    def check(column: str, severity: str, failing: int) -> dict[str, Any]:
        return {
            "type": "expect_column_values_to_be_between",
            "column": column,
            "severity": severity,
            "success": not failing,
            "answered": True,
            "element_count": len(images),
            "unexpected_count": failing,
            "unexpected_percent": 0.0,
            "why": "A house plausibility limit.",
            "source": "house",
        }

    results = {
        "exposures": {
            "schema_version": 1,
            "suite": "exposures",
            "withheld_instances": 2,
            "dropped_rows": 0,
            "expectations": [check("kvp_kv", "critical", 0), check("body_part_thickness_mm", "warning", 2)],
        },
        "patients": {
            "schema_version": 1,
            "suite": "patients",
            "withheld_instances": 0,
            "dropped_rows": 0,
            "expectations": [check("n_studies", "critical", 0)],
        },
    }
    withheld = {"2.25.9991": "expectation_failed", "2.25.9992": "expectation_failed"}
    return Made(
        candidate=store,
        release=release,
        project=PROJECT,
        id=candidate,
        tables=made,
        plan=plan,
        results=results,
        images=tables.from_rows(schemas.IMAGES, images),
        withheld=withheld,
        base=base,
    )


@pytest.fixture
def made(tmp_path) -> Made:
    return make(tmp_path.as_uri())


@pytest.fixture
def make_candidate():
    return make


@pytest.fixture(scope="session")
def many(tmp_path_factory) -> Made:
    """A sealed candidate of 120 people; to be read only."""
    made = make(tmp_path_factory.mktemp("many").as_uri(), people=120, seed=3)
    made.seal()
    return made


@pytest.fixture(scope="session")
def sealed_once(tmp_path_factory) -> tuple[Path, Made]:
    path = tmp_path_factory.mktemp("sealed")
    made = make(path.as_uri(), people=2, images_of=2)
    made.seal()
    return path, made


@pytest.fixture
def small(sealed_once, tmp_path) -> Made:
    """A sealed candidate of two people and four images, in a place of its own."""
    path, made = sealed_once
    shutil.copytree(path, tmp_path / "zones")
    base = (tmp_path / "zones").as_uri()
    return Made(**{**vars(made), "base": base, "candidate": open_store(f"{base}/candidate", "candidate"),
                   "release": open_store(f"{base}/release", "release")})


class Watched:
    """A store that remembers its writes and raises before the n-th one, as a kill would."""

    def __init__(self, store: Any, stop_at: int = 0) -> None:
        self.store, self.stop_at, self.written, self.settled = store, stop_at, [], True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def _count(self, key: str) -> None:
        if "/leases/" in key or not key.startswith(PROJECT):    # the lease, the probe
            return
        self.written.append(key)
        if len(self.written) == self.stop_at:
            raise KeyboardInterrupt

    def write(self, key: str, data: bytes) -> None:
        self._count(key)
        assert self.settled or not key.endswith(("manifest.json", "current.json")), "it says what may not be durable"
        self.store.write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        self._count(key)
        return self.store.create(key, data)

    def put_file(self, key: str, path: Any, sha256: bytes) -> None:
        there = self.store.stat(key)
        if there is None:       # an object that is there with these bytes is left: no write
            self._count(key)
        self.store.put_file(key, path, sha256)
        self.settled = False

    def settle(self) -> None:
        self.store.settle()
        self.settled = True


@pytest.fixture
def failing():
    return Watched

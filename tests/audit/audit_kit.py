"""Tables of a release for the audits' tests: the shape of screening, no real figures."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta
from typing import Any

import pyarrow as pa

from pipeline import schemas
from pipeline.storage import tables

SETS = (("DAAAA11112222", "HOLOGIC, Inc.", "Selenia Dimensions", "TUNGSTEN", ("RHODIUM", "SILVER"), 1.00),
        ("DBBBB11112222", "SIEMENS", "MAMMOMAT Inspiration", "TUNGSTEN", ("RHODIUM",), 0.85),
        ("DCCCC11112222", "GE MEDICAL SYSTEMS", "Senographe Essential", "MOLYBDENUM", ("MOLYBDENUM", "RHODIUM"), 1.25),
        ("DDDDD11112222", "HOLOGIC, Inc.", "Selenia Dimensions", "TUNGSTEN", ("RHODIUM", "SILVER"), 1.08),
        ("DEEEE11112222", "FUJIFILM", "AMULET", "TUNGSTEN", ("RHODIUM",), 0.95))
VERSIONS = {"DAAAA11112222": ("1.8.3", "1.9.0", "1.10.2"), "DBBBB11112222": ("VB30A", "VB30L"),
            "DCCCC11112222": ("ADS_55.5",), "DDDDD11112222": ("1.9.0",), "DEEEE11112222": ("FDR-3000",)}
OPERATORS = tuple(f"O{n:012X}" for n in range(1, 9))


def rows(people: int = 240, seed: int = 1, rare: int = 4) -> dict[str, list[dict[str, Any]]]:
    """Rows of every table by name. The last set sees `rare` women alone."""
    rng = random.Random(seed)
    found: dict[str, list[dict[str, Any]]] = {n: [] for n in ("patients", "studies", "series", "instances", "exposures",
                                                              "glandular_doses", "equipment", "episodes")}
    for number in range(people):
        person = f"P{number:020X}"
        own = rng.gauss(56, 12)
        first = date(2016, 1, 1) + timedelta(days=rng.randrange(900))
        machine = SETS[-1] if number < rare else SETS[rng.choices(range(4), (5, 4, 3, 2))[0]]
        for visit in range(1 if number < rare else rng.choice((1, 2))):
            study, series = f"2.25.{number}00{visit}1", f"2.25.{number}00{visit}2"
            day = first + timedelta(days=visit * 1095)
            found["studies"].append({"study_uid": study, "patient_id": person, "study_date": day,
                                     "age_band_years": 50 + 5 * (number % 5), "modalities": "MG", "n_series": 1,
                                     "n_instances": 4})
            version = VERSIONS[machine[0]][min(visit, len(VERSIONS[machine[0]]) - 1)]
            found["series"].append({"series_uid": series, "study_uid": study, "patient_id": person, "modality": "MG",
                                    "manufacturer": machine[1], "model": machine[2], "device_id": machine[0],
                                    "software_versions": version, "n_instances": 4})
            ends = rng.choices(("RR", "EC", None), (90, 8, 2))[0]
            found["episodes"].append({"patient_id": person, "date_of_foa": day - timedelta(days=rng.randrange(9)),
                                      "final_action_code": ends, "end_code": "SC"})
            views = [(side, view, False) for side in "RL" for view in ("CC", "MLO")]
            if rng.random() < 0.15:
                views.append((*rng.choice(views)[:2], True))
            tomo = machine[2] == "Selenia Dimensions" and rng.random() < 0.4
            operator = rng.choice(OPERATORS[:-1]) if number else OPERATORS[-1]
            for order, (side, view, repeat) in enumerate(views, 1):
                found["exposures"].append(_exposure(found, rng, person, study, series, machine, own, operator, order,
                                                    side, view, repeat, False))
                if tomo and view == "MLO" and not repeat:
                    found["exposures"].append(_exposure(found, rng, person, study, series, machine, own, operator,
                                                        order + 10, side, view, False, True))
    for device, versions in VERSIONS.items():
        machine = next(m for m in SETS if m[0] == device)
        for order, version in enumerate(versions, 1):
            there = [s for s in found["series"] if (s["device_id"], s["software_versions"]) == (device, version)]
            found["equipment"].append({
                "device_id": device, "manufacturer": machine[1], "model": machine[2], "software_versions": version,
                "version_order": order, "modalities": "MG", "n_studies": len(there), "n_instances": 4 * len(there)})
    return found


def _exposure(found: dict[str, list[dict[str, Any]]], rng: random.Random, person: str, study: str, series: str,
              machine: tuple[Any, ...], own: float, operator: str, order: int, side: str, view: str, repeat: bool,
              tomo: bool) -> dict[str, Any]:
    uid = f"2.25.{len(found['exposures']) + 1}7"
    thickness = min(98.0, max(18.0, own + rng.gauss(0, 3)))
    dose = machine[5] * 0.55 * math.exp(0.0165 * thickness) * rng.uniform(0.85, 1.15) * (1.2 if tomo else 1)
    force = min(190.0, max(40.0, rng.gauss(105 if view == "MLO" else 95, 20)))
    filters = machine[4]
    row = {
        "exposure_id": uid, "patient_id": person, "study_uid": study, "series_uid": series, "sop_instance_uid": uid,
        "n_images": 1, "basis": "header", "modality": "MG", "acquisition_order": order, "laterality": side,
        "view": view, "is_tomosynthesis": tomo, "is_repeat": repeat, "is_rejected": rng.random() < 0.02,
        "kvp_kv": 26.0 + round(thickness / 20), "exposure_mas": round(40 * math.exp(0.015 * thickness), 1),
        "anode": machine[3], "filter_material": "ALUMINUM" if tomo else filters[-1 if thickness > 65 else 0],
        "body_part_thickness_mm": round(thickness), "compression_force_n": round(force),
        "compression_pressure_kpa": round(force / rng.uniform(8, 14), 2), "paddle": "18x24",
        "average_glandular_dose_mgy": round(dose * 1.07, 3) if machine[1] != "FUJIFILM" else None,
        "exposure_control_mode": "AUTOMATIC", "manufacturer": machine[1], "model": machine[2],
        "device_id": machine[0], "operator_id": operator,
    }
    found["glandular_doses"].append({
        "exposure_id": uid, "patient_id": person, "study_uid": study, "device_id": machine[0],
        "mean_glandular_dose_mgy": dose if order != 4 or rng.random() < 0.9 else None, "synthetic": True,
        "factors": "SYNTHETIC"})
    found["glandular_doses"][-1]["not_computed"] = (
        None if found["glandular_doses"][-1]["mean_glandular_dose_mgy"] else "outside_table")
    return row


EPISODES = schemas.Table("episodes", "", (), (
    schemas.CLINICAL_PERSON, schemas.Column("date_of_foa", "date", ""),
    schemas.Column("final_action_code", "string", ""), schemas.Column("end_code", "string", "")))
SCHEMAS = {t.name: t for t in (schemas.STUDIES, schemas.SERIES, schemas.EXPOSURES, schemas.GLANDULAR_DOSES,
                               schemas.EQUIPMENT, EPISODES)}


def release(people: int = 240, seed: int = 1, **more: Any) -> dict[str, pa.Table]:
    """Arrow tables of a release by name."""
    made = rows(people, seed, **more)
    return {name: tables.from_rows(schema, made[name]) for name, schema in SCHEMAS.items()}


ABOUT = {"title": "Breast screening", "project": "trial", "what": "release", "id": "0001-abc", "demo": True}

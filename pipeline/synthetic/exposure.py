"""How a breast is exposed: thickness → target and filter, kV, mAs, dose, in the shape that real sets show.

The figures are made up to look right. They are no reference levels and no conversion factors, and no physics may be
learnt from them. What they keep is the arithmetic between them: entrance dose is mAs times the set's output, by the
square of the distance; pressure is force over area.
"""

from __future__ import annotations

import math
import random
from typing import Any

from pipeline.synthetic.unit import SETS, Operator, XRaySet

FOCUS_TO_SUPPORT_MM = 650
# µGy per mAs at 1 m and 28 kV, and what is added to kV/100 for the half-value layer in mm of aluminium.
OUTPUT = {("MOLYBDENUM", "MOLYBDENUM"): (33.0, 0.05), ("MOLYBDENUM", "RHODIUM"): (28.0, 0.11),
          ("RHODIUM", "RHODIUM"): (26.0, 0.13), ("RHODIUM", "SILVER"): (24.0, 0.2),
          ("TUNGSTEN", "RHODIUM"): (19.0, 0.24), ("TUNGSTEN", "SILVER"): (16.0, 0.26),
          ("TUNGSTEN", "ALUMINUM"): (21.0, 0.22)}
NAMES = {"Mo": "MOLYBDENUM", "Rh": "RHODIUM", "Ag": "SILVER", "W": "TUNGSTEN", "Al": "ALUMINUM"}
SOFT = {"MOLYBDENUM": 1.8, "RHODIUM": 1.45, "TUNGSTEN": 1.0}        # a softer beam has to be more at the entrance
FILTER_MM = {"MOLYBDENUM": "0.03", "RHODIUM": "0.025", "SILVER": "0.05"}


def thickness_mm(own: float, rng: random.Random) -> float:
    """Return the compressed thickness of one view; `own` is the woman's usual one."""
    return min(95.0, max(20.0, own + rng.gauss(0, 3)))


def spectrum(machine: XRaySet, thickness: float) -> tuple[str, str, int]:
    """Return target, filter and kV that the set's automatic exposure chooses."""
    if machine.vendor.anode == "TUNGSTEN":
        silver = machine.manufacturer.startswith("HOLOGIC") and thickness >= 65
        return "TUNGSTEN", "SILVER" if silver else "RHODIUM", round(25.5 + (thickness - 20) * 0.1)
    if thickness < 35:
        return "MOLYBDENUM", "MOLYBDENUM", round(25 + (thickness - 20) * 0.08)
    target = "RHODIUM" if thickness >= 45 or machine.vendor.anode == "RHODIUM" else "MOLYBDENUM"
    return target, "RHODIUM", round(26 + (thickness - 35) * 0.09)


def output_ugy_per_mas(machine: XRaySet, target: str, filtered: str, kv: float) -> float:
    """Return the output of a set at 1 m, in µGy per mAs."""
    return float(OUTPUT[target, filtered][0] * machine.output * (kv / 28) ** 2.2)


def half_value_layer_mm(target: str, filtered: str, kv: float) -> float:
    """Return the half-value layer in mm of aluminium."""
    return kv / 100 + OUTPUT[target, filtered][1]


def measured(device: tuple[str, str, str], anode: str, filtered: str, kv: int) -> tuple[float, float]:
    """Return what a physicist measures of a set: output in µGy per mAs at 1 m, half-value layer in mm."""
    machine = next(m for m in SETS if m.serial == device[2])
    spectrum = (NAMES[anode], NAMES[filtered])
    return output_ugy_per_mas(machine, *spectrum, kv), half_value_layer_mm(*spectrum, kv)


def elements(machine: XRaySet, operator: Operator, thickness: float, view: str, laterality: str,
             rng: random.Random) -> dict[str, Any]:
    """Return exposure elements by keyword. Dose rises with thickness; OrganDose is in dGy, CompressionForce in N."""
    target, filtered, kv = spectrum(machine, thickness)
    output = output_ugy_per_mas(machine, target, filtered, kv)
    distance = FOCUS_TO_SUPPORT_MM - thickness
    wanted = 1.9 * math.exp(0.029 * (thickness - 30)) * machine.exposes * SOFT[target] * rng.uniform(0.88, 1.13)   # mGy
    mas = round(wanted * 1000 / output * (distance / 1000) ** 2, 1)
    entrance = mas * output / 1000 * (1000 / distance) ** 2
    layer = half_value_layer_mm(target, filtered, kv)
    glandular = entrance * 0.9 * layer ** 0.9 * math.exp(-0.0145 * (thickness - 20))
    current = rng.randrange(78, 101)
    force = min(195.0, max(40.0, rng.gauss(operator.force_n, 15) + (6 if view == "MLO" else 0)))
    angle = 0 if view == "CC" else rng.randrange(42, 58)
    paddle = machine.vendor.paddle if thickness > 32 else "18X24" if rng.random() < 0.7 else machine.vendor.paddle
    found: dict[str, Any] = {
        "KVP": str(kv), "ExposureInuAs": str(round(mas * 1000)), "Exposure": str(round(mas)),
        "XRayTubeCurrent": str(current), "ExposureTime": str(round(mas / current * 1000)),
        "AnodeTargetMaterial": target, "FilterMaterial": filtered, "FilterThicknessMinimum": FILTER_MM[filtered],
        "FilterThicknessMaximum": FILTER_MM[filtered], "PaddleDescription": paddle,
        "BodyPartThickness": f"{thickness:.0f}", "CompressionForce": f"{force:.1f}",
        "EntranceDoseInmGy": f"{entrance:.3f}", "EntranceDose": round(entrance), "OrganDose": f"{glandular / 100:.5f}",
        "HalfValueLayer": f"{layer:.3f}", "DistanceSourceToEntrance": f"{distance:.0f}",
        "DistanceSourceToPatient": f"{distance:.0f}",
        "PositionerPrimaryAngle": str(-angle if laterality == "L" else angle),
    }
    if machine.vendor.writes_area:
        area = max(4000.0, rng.gauss(5200 + 115 * thickness, 1500))
        found |= {"CompressionContactArea": f"{area:.0f}", "CompressionPressure": f"{force / area * 1000:.2f}"}
    return found

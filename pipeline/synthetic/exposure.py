"""How a breast is exposed: thickness → kV, mAs, dose, in the shape that real sets show.

The figures are made up to look right. They are no reference levels and no conversion factors, and no physics may be
learnt from them.
"""

from __future__ import annotations

import math
import random
from typing import Any

from pipeline.synthetic.headers import Vendor


def thickness_mm(own: float, rng: random.Random) -> float:
    """Return the compressed thickness of one view; `own` is the woman's usual one."""
    return min(95.0, max(20.0, own + rng.gauss(0, 3)))


def elements(vendor: Vendor, thickness: float, view: str, laterality: str, rng: random.Random) -> dict[str, Any]:
    """Return exposure elements by keyword. Dose rises with thickness; pressure is force over contact area."""
    kv = round(25 + (thickness - 20) * 0.12 + (vendor.anode == "TUNGSTEN"))
    mas = 42 * math.exp(0.018 * (thickness - 30)) * rng.uniform(0.9, 1.1)
    current = rng.randrange(78, 101)
    entrance = mas * 0.062 * (kv / 28) ** 2 * (0.8 if vendor.anode == "TUNGSTEN" else 1.0)
    glandular = entrance * 0.42 * math.exp(-0.0125 * (thickness - 20))
    force = min(180.0, max(45.0, rng.gauss(100, 22)))
    angle = 0 if view == "CC" else rng.randrange(42, 58)
    found: dict[str, Any] = {
        "KVP": str(kv), "ExposureInuAs": str(round(mas * 1000)), "Exposure": str(round(mas)),
        "XRayTubeCurrent": str(current), "ExposureTime": str(round(mas / current * 1000)),
        "BodyPartThickness": f"{thickness:.0f}", "CompressionForce": f"{force:.1f}",
        "EntranceDoseInmGy": f"{entrance:.3f}", "EntranceDose": round(entrance), "OrganDose": f"{glandular / 100:.5f}",
        "HalfValueLayer": f"{0.28 + kv * 0.009:.3f}",
        "PositionerPrimaryAngle": str(-angle if laterality == "L" else angle),
    }
    if vendor.writes_area:
        area = max(3000.0, rng.gauss(9800, 1800))
        found |= {"CompressionContactArea": f"{area:.0f}", "CompressionPressure": f"{force / area * 1000:.2f}"}
    return found

"""What is plausible of each harmonised quantity, and by how much header and report may differ. Pure.

No limit here is a reference level: each is a house plausibility limit, and wide. Beyond it the file's number or unit is
wrong, whatever the patient. A tolerance is 1 % and the rounding with which the two places write a number (a header's
whole kV beside a report's decimals).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """A numeric column of exposures: least and greatest plausible value, of a mammogram and of any other image.

    `zero` says whether zero is a statement: a force may be, a dose is not. `slack` is in the column's unit.
    """

    column: str
    low: float
    high: float
    mammogram: tuple[float, float]
    slack: float
    zero: bool = False

    def ok(self, value: str, mammogram: str) -> str:
        """Return SQL: whether the value is there and plausible. Both arguments are SQL."""
        low, high = self.mammogram
        inside = (f"{value} BETWEEN CASE WHEN {mammogram} THEN {low} ELSE {self.low} END"
                  f" AND CASE WHEN {mammogram} THEN {high} ELSE {self.high} END")
        return f"coalesce({inside}{'' if self.zero else f' AND {value} <> 0'}, false)"

    def tolerance(self, value: str) -> str:
        """Return SQL for the greatest difference from `value` that is agreement."""
        return f"({RELATIVE} * abs({value}) + {self.slack})"


RELATIVE = 0.01
QUANTITIES = (
    Quantity("kvp_kv", 10, 200, (10, 60), 0.5),
    Quantity("exposure_mas", 0, 10_000, (0, 2_000), 0.5),
    Quantity("exposure_time_ms", 0, 600_000, (0, 60_000), 1),
    Quantity("tube_current_ma", 0, 5_000, (0, 500), 1),
    Quantity("filter_thickness_mm", 0, 50, (0, 10), 0.005, zero=True),
    Quantity("body_part_thickness_mm", 0, 600, (1, 250), 1),
    Quantity("compression_force_n", 0, 400, (0, 400), 1, zero=True),
    Quantity("compression_pressure_kpa", 0, 200, (0, 200), 0.1, zero=True),
    Quantity("compression_contact_area_mm2", 0, 100_000, (0, 100_000), 100),
    Quantity("average_glandular_dose_mgy", 0, 200, (0, 200), 0.01),
    Quantity("entrance_dose_mgy", 0, 2_000, (0, 2_000), 0.01),
    Quantity("half_value_layer_mm", 0, 20, (0, 5), 0.01),
)
TERMS = ("laterality", "view", "anode", "filter_material")
EVENT_LIMITS = {        # of events that are no mammogram's
    "ctdi_vol_mgy": 5_000, "dlp_mgy_cm": 100_000, "kvp_kv": 200, "tube_current_ma": 5_000, "exposure_mas": 100_000,
    "exposure_time_ms": 3_600_000, "scanning_length_mm": 5_000, "pitch": 10, "dap_gy_m2": 1,
    "reference_point_dose_gy": 100, "n_pulses": 1_000_000,
}  # fmt: skip
# A number in another unit than it says: a thousandfold beside mA × ms, tenfold beside kPa × mm2. Wide about the factor,
# since mA × ms is nominal and a contact area is measured.
CONTRADICTED = {
    "exposure_mas": "coalesce({s}_exposure_mas / nullif({s}_tube_current_ma * {s}_exposure_time_ms / 1000, 0)"
                    " NOT BETWEEN 0.00333 AND 300, false)",
    "compression_force_n": "coalesce({s}_compression_force_n / nullif({s}_compression_pressure_kpa *"
                           " {s}_compression_contact_area_mm2 / 1000, 0) BETWEEN 7 AND 14 OR"
                           " {s}_compression_force_n / nullif({s}_compression_pressure_kpa *"
                           " {s}_compression_contact_area_mm2 / 1000, 0) BETWEEN 0.07 AND 0.14, false)",
}


def believed(q: Quantity, side: str) -> str:
    """SQL: whether a side's value is there, plausible, and contradicted by no other of the same side."""
    sound = q.ok(f"{side}_{q.column}", "mg")
    if (unsound := CONTRADICTED.get(q.column)) is not None:
        sound += f" AND NOT {unsound.format(s=side)}"
    if q.column == "average_glandular_dose_mgy" and side == "r":
        sound += " AND NOT one_projection"
    return f"({sound})"

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

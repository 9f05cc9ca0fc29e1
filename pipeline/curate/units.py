"""Numbers of dose reports in the units of the tables. Pure. A unit that is not listed is refused, never guessed.

Units are UCUM code values (PS3.16 CID 82 and the templates TID 10003, 10013). Beside them stands what real reports
write instead: `uAs` (Hologic), `Gym2`, `mGycm` (Siemens, GE), `dGy.cm2` (Siemens), `mAs`.
"""

from __future__ import annotations

from decimal import Decimal

# unit of the table → unit of the report → factor
_FACTORS: dict[str, dict[str, str]] = {
    "mGy": {"mGy": "1", "Gy": "1000", "dGy": "100", "cGy": "10", "uGy": "0.001"},
    "Gy": {"Gy": "1", "dGy": "0.1", "cGy": "0.01", "mGy": "0.001", "uGy": "0.000001"},
    "mm": {"mm": "1", "cm": "10", "dm": "100", "m": "1000", "um": "0.001"},
    "kV": {"kV": "1", "V": "0.001"},
    "mA": {"mA": "1", "uA": "0.001", "A": "1000"},
    "mAs": {"uA.s": "0.001", "uAs": "0.001", "mA.s": "1", "mAs": "1", "A.s": "1000"},
    "ms": {"ms": "1", "s": "1000", "us": "0.001"},
    "s": {"s": "1", "ms": "0.001", "min": "60"},
    "N": {"N": "1", "daN": "10", "dN": "0.1", "kN": "1000"},
    "kPa": {"kPa": "1", "Pa": "0.001", "hPa": "0.1"},
    "mm2": {"mm2": "1", "cm2": "100", "dm2": "10000", "m2": "1000000"},
    "mGy.cm": {"mGy.cm": "1", "mGycm": "1", "Gy.cm": "1000"},
    "Gy.m2": {"Gy.m2": "1", "Gym2": "1", "Gy.cm2": "0.0001", "dGy.cm2": "0.00001", "cGy.cm2": "0.000001",
              "mGy.cm2": "0.0000001", "uGy.m2": "0.000001", "mGy.m2": "0.001"},
    "deg": {"deg": "1"},
    "1": {"1": "1", "{ratio}": "1", "{events}": "1", "events": "1", "{pulses}": "1", "{pulse}": "1", "{frames}": "1"},
}  # fmt: skip


def factor(unit: str | None, wanted: str) -> Decimal | None:
    """Return by what a number in `unit` is multiplied to be in `wanted`; None where that is not known."""
    found = _FACTORS[wanted].get((unit or "").strip())
    return None if found is None else Decimal(found)


def note(unit: str, wanted: str, by: Decimal) -> str:
    """Return the words for a source: `mGy`, or `uA.s × 0.001`."""
    return unit.strip() if by == 1 else f"{unit.strip()} × {by.normalize():f}"

"""Made-up dosimetry for demo and tests: a factor table and a table of local output, shaped as a physicist's are.

The numbers come from smooth functions that were made up. They are nobody's factors: the file's name holds SYNTHETIC, by
which every row that is worked out with them is marked, and so does every row's source.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from datetime import date

FACTORS_NAME = "SYNTHETIC-factors.csv"
OUTPUT_NAME = "SYNTHETIC-output.csv"
SOURCE = "SYNTHETIC: made up for tests"
THICKNESS_MM = tuple(range(20, 121, 10))
HVL_MM = (0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80)
AGES = ((40, 49), (50, 64), (65, None))
# Anode, filter; a made-up s, output in µGy/mAs at 1 m and 28 kV, HVL in mm there.
SPECTRA = (("Mo", "Mo", 1.00, 90.0, 0.34), ("Mo", "Rh", 1.02, 75.0, 0.40), ("Rh", "Rh", 1.06, 70.0, 0.42),
           ("Rh", "Ag", 1.08, 60.0, 0.50), ("W", "Rh", 1.04, 45.0, 0.52), ("W", "Ag", 1.04, 40.0, 0.55),
           ("W", "Al", 1.10, 50.0, 0.50))
KV = (22, 25, 28, 31, 34, 37, 40)
FOCUS_TABLE_MM = 660


def g(thickness_mm: float, hvl_mm: float) -> float:
    """Falls with thickness and rises with half-value layer, as the real one does; the numbers are made up."""
    return round(0.9 * math.exp(-thickness_mm / 45) * math.sqrt(0.4 + hvl_mm), 4)


def c(thickness_mm: float, hvl_mm: float, age_from: int) -> float:
    """Near 1, rising with thickness and age; made up."""
    return round(1 + 0.002 * (thickness_mm - 45) + 0.001 * (age_from - 50) - 0.05 * (hvl_mm - 0.4), 4)


def t(thickness_mm: float) -> float:
    """A little below 1; made up."""
    return round(1 - 0.0004 * thickness_mm, 4)


def factors_csv() -> str:
    """Return the text of a complete, made-up factor table."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["factor", "model", "anode", "filter", "age_from", "age_to", "thickness_mm", "hvl_mm", "value", "source"])
    for thick in THICKNESS_MM:
        for hvl in HVL_MM:
            write(["g", "", "", "", "", "", thick, hvl, g(thick, hvl), SOURCE])
            for low, high in AGES:
                write(["c", "", "", "", low, high or "", thick, hvl, c(thick, hvl, low), SOURCE])
        write(["t", "", "", "", "", "", thick, "", t(thick), SOURCE])
    for anode, filter_, s, _, _ in SPECTRA:
        write(["s", "", anode, filter_, "", "", "", "", s, SOURCE])
    return out.getvalue()


Device = tuple[str, str, str]                                       # manufacturer, model, serial number
Measured = Callable[[Device, str, str, int], tuple[float, float]]    # anode, filter, kV → µGy/mAs at 1 m, HVL in mm


def output_csv(devices: Iterable[Device], first: date, *, later: date | None = None, measured: Measured | None = None,
               focus_table_mm: int = FOCUS_TABLE_MM) -> str:
    """Return the text of a made-up output table of these sets, valid from `first`; from `later`, if given, with an
    output 5 % lower, as of an older tube. `measured` tells another set's than the one made up here."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(["manufacturer", "model", "serial_number", "from_date", "to_date", "anode", "filter", "kv",
           "output_ugy_per_mas_at_1m", "hvl_mm", "focus_table_mm"])
    for n, device in enumerate(devices):
        for start, share in ((first, 1.0), *([(later, 0.95)] if later else [])):
            for anode, filter_, _, output, hvl in SPECTRA:
                for kv in KV:
                    made, layer = measured(device, anode, filter_, kv) if measured else (
                        output * (kv / 28) ** 2 * (1 + 0.03 * (n % 5 - 2)), hvl + 0.008 * (kv - 28))
                    write([*device, start.isoformat(), "", anode, filter_, kv, round(made * share, 3), round(layer, 4),
                           focus_table_mm])
    return out.getvalue()

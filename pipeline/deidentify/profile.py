"""The standard's tables of de-identification, as data of the product: PS3.15 E.1-1."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path


@cache
def confidentiality_profile() -> dict[int, dict[str, str]]:
    """Return PS3.15 Table E.1-1 (2026d, with the gaps its file states) by tag; repeating groups are left out."""
    path = Path(__file__).with_name("data") / "ps3_15_table_e1_1_2026d.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["tag"]):
            found[int(row["tag"][1:5] + row["tag"][6:10], 16)] = row
    return found

"""The standard's tables of de-identification as data of the product: PS3.15 E.1-1 and E.3.10-1, PS3.16 CID 7050. Pure.

Each table names its edition in its file's name; what is known to be missing from it is said in `EDITION` and
`SAFE_EDITION`, which is printed wherever a recipe is compared with it.
"""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

EDITION = ("PS3.15 Table E.1-1: the rows of 2025b and those added in 2026c and 2026d, 656 in all. Known gaps: one row "
           "of 2026d (action X) is missing; (0040,E012) stands without its name, its options unverified.")
SAFE_EDITION = "PS3.15 Table E.3.10-1 of 2020: 130 rows. Later editions list 479."
BASIC = ("113100", "Basic Application Confidentiality Profile")
# CID 7050: code → meaning, column of the table
OPTIONS = {
    "113103": ("Clean Graphics Option", "clean_graphics"),
    "113104": ("Clean Structured Content Option", "clean_structured_content"),
    "113105": ("Clean Descriptors Option", "clean_descriptors"),
    "113106": ("Retain Longitudinal Temporal Information Full Dates Option", "retain_full_dates"),
    "113107": ("Retain Longitudinal Temporal Information Modified Dates Option", "retain_modified_dates"),
    "113108": ("Retain Patient Characteristics Option", "retain_patient_characteristics"),
    "113109": ("Retain Device Identity Option", "retain_device_identity"),
    "113110": ("Retain UIDs Option", "retain_uids"),
    "113111": ("Retain Safe Private Option", "retain_safe_private"),
    "113112": ("Retain Institution Identity Option", "retain_institution_identity"),
}
PRIVATE_ROW = "(GGGG,EEEE) WHERE GGGG IS ODD"
_DATA = Path(__file__).with_name("data")


@cache
def rows() -> tuple[dict[str, str], ...]:
    """Return Table E.1-1 row by row, in its order; `tag` as the table writes it."""
    with (_DATA / "ps3_15_table_e1_1_2026d.csv").open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def tag_of(row: dict[str, str]) -> int | None:
    """Return the tag of a row; None for one of a repeating group or of private attributes."""
    text = row["tag"]
    return int(text[1:5] + text[6:10], 16) if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", text) else None


@cache
def confidentiality_profile() -> dict[int, dict[str, str]]:
    """Return Table E.1-1 by tag; repeating groups are left out."""
    return {tag: row for row in rows() if (tag := tag_of(row)) is not None}


@cache
def safe_private() -> dict[tuple[int, str, int], tuple[str, str]]:
    """Return Table E.3.10-1: (group, creator, element within the block) → (VR, meaning)."""
    with (_DATA / "ps3_15_table_e3_10_1_2020.csv").open(newline="", encoding="utf-8") as file:
        return {(int(row["tag"][1:5], 16), row["private_creator"], int(row["tag"][8:10], 16)):
                (row["vr"], row["meaning"]) for row in csv.DictReader(file)}

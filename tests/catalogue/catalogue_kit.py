"""Facts of parts as a de-identification leaves them, their catalogue, and a filter evaluated the slow way."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline import layout
from pipeline.catalogue import build, find
from pipeline.catalogue.elements import element
from pipeline.catalogue.filter import Both, Filter, Literal, Not, Test
from pipeline.deidentify.facts import table
from pipeline.storage import open_store, tables

Image = tuple[tuple[str, str, str, str], Mapping[str, list[str]]]      # (patient, study, series, instance), facts


def part_of(store: Any, part: str, images: Iterable[Image]) -> None:
    images = list(images)
    rows = [{"patient": p, "study": s, "series": r, "instance": i, "key": f"parts/{part}/dicom/{i}.dcm",
             "sha256": b"\0" * 32, "bytes": 1, "acquisition_order": None} for (p, s, r, i), _ in images]
    tables.write(store, layout.facts("proj", part), table(rows, [dict(facts) for _, facts in images]))


def catalogue(folder: Path, parts: Mapping[str, Iterable[Image]], without: Iterable[str] = ()) -> find.Catalogue:
    """Return the catalogue of these parts, as `tre find` opens it."""
    store = open_store(f"file://{folder}/zone", "candidate")
    for part, images in parts.items():
        part_of(store, part, images)
    build.write(store, "proj", list(parts), set(without), folder / "catalogue.parquet")
    with find.opened(open_store(f"file://{folder}", "candidate"), "catalogue.parquet") as opened:
        return opened


# ---- a filter, image by image, with other means than the product's -----------------------------------------------
def holds(tree: Filter, image: Mapping[str, list[str]]) -> bool | None:
    """Kleene's logic over one image."""
    if isinstance(tree, Not):
        below = holds(tree.part, image)
        return None if below is None else not below
    if isinstance(tree, Both):
        found = [holds(part, image) for part in tree.parts]
        decisive = tree.word == "or"
        return decisive if decisive in found else None if None in found else not decisive
    raw = [value for value in image.get(tree.name) or () if value]
    if tree.op == "is null":
        return not raw
    if tree.op in ("like", "ilike"):
        flags = re.DOTALL | (re.IGNORECASE if tree.op == "ilike" else 0)
        pattern = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in tree.values[0].text)
        return any(re.fullmatch(pattern, value, flags) for value in raw) if raw else None
    values = [v for v in (_read(one, tree) for one in raw) if v is not None]
    return any(_one(value, tree) for value in values) if values else None


def _one(value: Any, test: Test) -> bool:
    given = [_given(one, test) for one in test.values]
    return {
        "=": lambda: value == given[0], "<": lambda: value < given[0], "<=": lambda: value <= given[0],
        ">": lambda: value > given[0], ">=": lambda: value >= given[0], "in": lambda: value in given,
        "between": lambda: given[0] <= value <= given[-1],
    }[test.op]()


def _kind(test: Test) -> str:
    kind = element(test.name).kind
    return ("number" if test.values[0].number else "text") if kind == "unknown" else kind


def _short(number: float) -> float:
    return float(struct.unpack("f", struct.pack("f", number))[0])


def _given(one: Literal, test: Test) -> Any:
    kind = _kind(test)
    if kind == "date":
        return date.fromisoformat(one.text)
    if kind == "age":
        return float(one.text.rstrip("Y"))
    if kind in ("number", "float32"):
        return _short(float(one.text)) if kind == "float32" else float(one.text)
    return one.text


def _read(value: str, test: Test) -> Any:
    kind = _kind(test)
    if kind == "text":
        return value
    try:
        if kind == "date":
            return date.fromisoformat(f"{value[:4]}-{value[4:6]}-{value[6:]}") if re.fullmatch("[12][0-9]{7}", value) \
                else None
        if kind == "age":
            return float(value[:3]) if re.fullmatch("[0-9]{3}Y", value) else None
        if not re.fullmatch(r"[-+0-9.eE]+", value, re.ASCII):
            return None
        number = float(Decimal(value))
        number = _short(number) if kind == "float32" else number
        return number if abs(number) != float("inf") else None
    except (ValueError, ArithmeticError):
        return None

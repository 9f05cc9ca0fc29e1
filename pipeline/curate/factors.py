"""The physicist's factor table: conversion factors for mean glandular dose, a CSV row per node, each with its source.

A file with any bad row is refused whole: the interpolation would bridge a missing node in silence. Between nodes it is
bilinear in thickness and half-value layer; beyond them nothing is ever extrapolated.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.errors import DosimetryRefused
from pipeline.schemas import FACTORS, material
from pipeline.storage import tables

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Floats = np.ndarray[Any, np.dtype[np.float64]]

LARGEST = 1 << 24
KINDS = ("g", "c", "s", "t")
COLUMNS = ("factor", "model", "anode", "filter", "age_from", "age_to", "thickness_mm", "hvl_mm", "value", "source")
SYNTHETIC = "SYNTHETIC"
# House plausibility limits, wide; they catch a wrong unit: published tables give thickness in cm.
LIMITS = {"thickness_mm": (10.0, 300.0), "hvl_mm": (0.05, 15.0), "value": (0.001, 10.0), "age_from": (0.0, 150.0),
          "age_to": (0.0, 150.0)}
_NUMBER = re.compile(r"[0-9]{1,6}(\.[0-9]{1,12})?")
_TOLD = 5       # lines named in a refusal


class Group(NamedTuple):
    """What a grid of factors is for; None: for any. Ages in years, both included."""

    factor: str
    model: str | None
    anode: str | None
    filter: str | None
    age_from: int | None
    age_to: int | None


@dataclass(frozen=True, slots=True)
class Grid:
    """Values over thickness (mm, rows) and half-value layer (mm, columns). An axis on which the factor does not depend
    is None, with one row or column. A node that is not given is NaN."""

    thickness: Floats | None
    hvl: Floats | None
    values: Floats

    def at(self, thickness: Floats, hvl: Floats) -> Floats:
        """Return the values there, bilinear between the four nodes around; NaN where one that counts is missing."""
        import numpy as np

        rows, cols = _between(self.thickness, thickness), _between(self.hvl, hvl)
        total = np.zeros(len(thickness))
        for row, weight_row in rows:
            for col, weight_col in cols:
                total += weight_row * weight_col * self.values[row, col]
        return total


def _between(axis: Floats | None, at: Floats) -> list[tuple[np.ndarray[Any, Any], Floats]]:
    """Return the indices of the nodes below and above, each with its weight; NaN weights outside the axis. On a node
    both are that node, so that its neighbours do not matter."""
    import numpy as np

    if axis is None:
        return [(np.zeros(len(at), np.int64), np.ones(len(at)))]
    above = np.clip(np.searchsorted(axis, at), 0, len(axis) - 1)
    below = np.where(axis[above] == at, above, np.maximum(above - 1, 0))
    span = axis[above] - axis[below]
    share = np.where(span > 0, (at - axis[below]) / np.where(span > 0, span, 1.0), 0.0)
    share = np.where((at >= axis[0]) & (at <= axis[-1]), share, np.nan)
    return [(below, 1.0 - share), (above, share)]


@dataclass(frozen=True)
class Factors:
    """A factor table by its file's name; `table` is schemas.FACTORS. `age_band_years`: how wide a released age is."""

    name: str
    synthetic: bool
    table: pa.Table
    age_band_years: int = 5

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the name and all that the table says."""
        return hashlib.sha256(self.name.encode() + b"\0" + tables.to_bytes(self.table)).hexdigest()

    @cached_property
    def grids(self) -> dict[Group, Grid]:
        """The grids by what they are for."""
        import numpy as np

        nodes: dict[Group, list[tuple[float | None, float | None, float]]] = {}
        for row in self.table.to_pylist():
            group = Group(*(row[name] for name in Group._fields))
            nodes.setdefault(group, []).append((row["thickness_mm"], row["hvl_mm"], row["value"]))
        found = {}
        for group, some in nodes.items():
            thick = sorted({node[0] for node in some if node[0] is not None})
            layers = sorted({node[1] for node in some if node[1] is not None})
            values = np.full((max(len(thick), 1), max(len(layers), 1)), np.nan)
            for at, layer, value in some:
                values[0 if at is None else thick.index(at), 0 if layer is None else layers.index(layer)] = value
            found[group] = Grid(np.array(thick) if thick else None, np.array(layers) if layers else None, values)
        return found

    def choose(self, kind: str, *, model: str | None, anode: str, filter_: str, age: int | None = None,
               any_age: bool = False) -> Group | None:
        """Return what applies: a row that names the model before one for any, then one that names the spectrum.

        `age` is the lower bound of a band (90: 90 and over), which must lie wholly in the row's ages.
        """
        def fits(group: Group) -> bool:
            named = ((group.model, fold(model)), (group.anode, anode), (group.filter, filter_))
            matches = group.factor == kind and all(want in (None, has) for want, has in named)
            return matches and (any_age or _in(group, age, self.age_band_years))

        def rank(group: Group) -> tuple[bool, ...]:
            return group.model is not None, group.anode is not None, group.filter is not None

        return max(filter(fits, self.grids), key=rank, default=None)


def _in(group: Group, age: int | None, width: int) -> bool:
    if group.age_from is None and group.age_to is None:
        return True
    if age is None:
        return False
    highest = age + width - 1 if age < 90 else 1000
    return (group.age_from or 0) <= age and (group.age_to is None or highest <= group.age_to)


def fold(model: str | None) -> str | None:
    """Return a model's name as the table is matched by: spaces as one, case-folded."""
    return " ".join((model or "").casefold().split()) or None


def of(name: str, table: pa.Table, age_band_years: int = 5) -> Factors:
    """Return a factor table that was read before. It is synthetic where its name, or the source of any row, says so."""
    sources = table["source"].unique().to_pylist()
    return Factors(name, any(SYNTHETIC in text.upper() for text in (name, *sources)), table, age_band_years)


def read(path: Path) -> Factors:
    """Return a factor file's table. Raises DosimetryRefused, naming lines and what is wrong with them."""
    wrong: list[tuple[int, str]] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    for line, cells in _lines(path):
        try:
            rows.append((line, _row(cells)))
        except ValueError as why:
            wrong.append((line, str(why)))
    wrong += _contradictions(rows)
    if wrong:
        told = "; ".join(f"line {line}: {why}" for line, why in sorted(wrong)[:_TOLD])
        raise DosimetryRefused(f"The factor table has {len(wrong)} bad rows: {told}.",
                               hint="It is refused whole: a missing node would be bridged in silence.")
    lacking = sorted(set(KINDS[:3]) - {row["factor"] for _, row in rows})
    if lacking:
        raise DosimetryRefused(f"The factor table has no rows for: {', '.join(lacking)}.")
    plain = sorted((row for _, row in rows), key=lambda r: tuple((r[c] is not None, r[c]) for c in FACTORS.names()))
    return of(path.name, tables.from_rows(FACTORS, plain))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str] | None]]:
    """Yield (line, cells by column); None for a row that has not as many cells as the header."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        if sorted(header) != sorted(COLUMNS) or len(data) > LARGEST:
            raise DosimetryRefused("The factor table's header is wrong, or it is larger than 16 MiB.",
                                   hint=f"Columns: {', '.join(COLUMNS)}.")
        for cells in reader:
            if any(cell.strip() for cell in cells):
                fits = len(cells) == len(header)
                yield reader.line_num, dict(zip(header, map(str.strip, cells), strict=True)) if fits else None
    except OSError as error:
        raise DosimetryRefused(f"The factor table cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise DosimetryRefused("The factor table is not UTF-8.") from None
    except csv.Error:
        raise DosimetryRefused("The factor table is not CSV.") from None


def _row(cells: dict[str, str] | None) -> dict[str, Any]:
    """Return a row of schemas.FACTORS. Raises ValueError, saying what is wrong."""
    if cells is None:
        raise ValueError("wrong number of cells")
    if cells["factor"] not in KINDS:
        raise ValueError(f"factor is one of {', '.join(KINDS)}")
    if not cells["source"]:
        raise ValueError("no source")
    row: dict[str, Any] = {name: _number(name, cells[name]) for name in LIMITS}
    for name in ("age_from", "age_to"):
        if row[name] is not None and row[name] != int(row[name]):
            raise ValueError(f"{name} is whole years")
        row[name] = None if row[name] is None else int(row[name])
    if row["value"] is None:
        raise ValueError("no value")
    if None not in (row["age_from"], row["age_to"]) and row["age_from"] > row["age_to"]:
        raise ValueError("age_from is above age_to")
    row |= {name: material(cells[name]) or None for name in ("anode", "filter")}
    return row | {"factor": cells["factor"], "model": fold(cells["model"]), "source": cells["source"]}


def _number(name: str, text: str) -> float | None:
    if not text:
        return None
    low, high = LIMITS[name]
    if not _NUMBER.fullmatch(text) or not low <= float(text) <= high:
        raise ValueError(f"{name} is not a number from {low:g} to {high:g}")
    return float(text)


def _contradictions(rows: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, str]]:
    """Return the rows that stand twice, that leave out an axis which others of their grid have, or whose ages overlap
    those of another grid that is otherwise for the same."""
    wrong = []
    nodes: Counter[tuple[Any, ...]] = Counter()
    axes: dict[Group, tuple[bool, bool]] = {}
    for line, row in rows:
        group = Group(*(row[name] for name in Group._fields))
        has = row["thickness_mm"] is not None, row["hvl_mm"] is not None
        node = (group, row["thickness_mm"], row["hvl_mm"])
        nodes[node] += 1
        if nodes[node] > 1:
            wrong.append((line, "this node was given before"))
        elif axes.setdefault(group, has) != has:
            wrong.append((line, "other rows of this factor have another set of axes"))
        elif len(axes) > 1 and any(_overlap(group, other) for other in axes if other != group):
            wrong.append((line, "its ages overlap those of other rows"))
    return wrong


def _overlap(one: Group, other: Group) -> bool:
    """Whether some age is in both, and both are otherwise for the same."""
    if one[:4] != other[:4]:
        return False
    low = max(one.age_from or 0, other.age_from or 0)
    return low <= min(1000 if g.age_to is None else g.age_to for g in (one, other))

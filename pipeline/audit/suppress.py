"""Small groups kept back, and others with them, so that no number that is not shown can be worked out. Pure.

A table with its sums is a graph: each sum is a point, each number a line between the two sums it stands in
(D. Gusfield, A Graph Theoretic Approach to Statistical Data Security, SIAM J. Comput. 17(3), 1988). A number that is
not shown can be worked out if and only if no round trip leads through its line along lines not shown, where a step one
way raises a number by one and a step the other way lowers it by one, and none may fall below one: zeros are shown, so a
number kept back is at least one. Where there is no such trip, the cheapest one is made by keeping back more. What
several numbers kept back add up to can be read off a sum, so that must be `minimum` people too.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
OUTSIDE = "outside"     # the other end of a number that stands in one sum only


@dataclass(slots=True)
class Line:
    """A number of people: `start` and `end` are the sums it stands in; it is itself the sum at those in `sum_of`."""

    start: Hashable
    end: Hashable
    people: int
    sum_of: frozenset[Hashable] = frozenset()
    hidden: bool = False
    fixed: bool = False     # shown elsewhere already: to keep it back here would be in vain

    def step(self, backwards: bool) -> bool:
        """Whether one person more (or fewer, as this direction means) leaves a number that may be."""
        lowers = backwards != (len(self.sum_of) == 1)
        return not lowers or self.people >= 2


def groups(people: Mapping[Key, int], total: int, minimum: int) -> set[Key] | None:
    """Return which groups of a list with a total are kept back; None: all of it, the total too.

    Groups without people are shown: none is none.
    """
    if total < minimum and total:
        return None
    lines = {key: Line(OUTSIDE, "sum", n) for key, n in people.items() if n}
    everything = Line(OUTSIDE, "sum", total, frozenset({"sum"}), fixed=True)
    if not _protect([*lines.values(), everything], minimum):
        return None
    return {key for key, line in lines.items() if line.hidden}


def cells(people: Mapping[tuple[str, str], int], minimum: int) -> set[tuple[str, str]]:
    """Return which cells of a table are kept back, all of whose row and column totals are known.

    Where the cells cannot be protected beside those totals, every cell is kept back, those without people too.
    """
    lines = {(row, column): Line(("row", row), ("column", column), n) for (row, column), n in people.items() if n}
    if not _protect(list(lines.values()), minimum):
        return set(people)
    return {key for key, line in lines.items() if line.hidden}


def tree(people: Mapping[tuple[str, ...], int], minimum: int) -> set[tuple[str, ...]] | None:
    """Return which groups of a hierarchy are kept back. Keys are paths, each with every path above it; () is the total.

    None: all of it, the total too. Each number is what those below it come to.
    """
    if 0 < people[()] < minimum:
        return None
    parents = {path[:-1] for path in people if path}
    lines = {}
    for path, n in people.items():
        above, below = path[:-1] if path else OUTSIDE, path if path in parents else OUTSIDE
        # A sum runs from what it is part of to what it is the sum of; a group without parts from outside.
        lines[path] = (Line(above, below, n, frozenset({below}), fixed=not path) if path in parents
                       else Line(OUTSIDE, above, n))
    if not _protect(list(lines.values()), minimum):
        return None
    return {path for path, line in lines.items() if line.hidden}


def _protect(lines: list[Line], minimum: int) -> bool:
    """Hide more lines until every hidden one is safe. False where that cannot be."""
    for line in lines:
        line.hidden = line.hidden or 0 < line.people < minimum
    if any(line.hidden and line.fixed for line in lines):
        return False
    at: dict[Hashable, list[Line]] = {}
    for line in lines:
        at.setdefault(line.start, []).append(line)
        at.setdefault(line.end, []).append(line)
    while True:
        before = sum(line.hidden for line in lines)
        for line in lines:
            if line.hidden and not _close(line, at):
                return False
        for point, there in at.items():
            if point != OUTSIDE and not _enough(point, there, minimum):
                return False
        if before == sum(line.hidden for line in lines):
            return True


def _enough(point: Hashable, there: list[Line], minimum: int) -> bool:
    """Hide more at this sum until what is not shown adds up to enough people. False where nothing is left to hide."""
    while True:
        hidden = [line for line in there if line.hidden]
        if not hidden or any(point in line.sum_of for line in hidden):
            return True
        if sum(line.people for line in hidden) >= minimum:
            return True
        left = [line for line in there if not line.hidden and not line.fixed and point not in line.sum_of]
        if not left:
            return False
        min(left, key=lambda line: line.people).hidden = True


def _close(line: Line, at: Mapping[Hashable, list[Line]]) -> bool:
    """Hide what the cheapest round trip through the line needs. False where there is none."""
    trips = []
    if line.step(backwards=False):
        trips.append(_cheapest(line, line.end, line.start, at))
    if line.step(backwards=True):
        trips.append(_cheapest(line, line.start, line.end, at))
    found = min((trip for trip in trips if trip), key=lambda trip: trip[0], default=None)
    if found is None:
        return False
    for other in found[1]:
        other.hidden = True
    return True


def _cheapest(
    without: Line, start: Hashable, goal: Hashable, at: Mapping[Hashable, list[Line]]
) -> tuple[int, list[Line]] | None:
    """Return cost (people newly kept back) and lines of the cheapest way from `start` to `goal`, or None (Dijkstra)."""
    queue: list[tuple[int, int, Hashable]] = [(0, 0, start)]
    cost: dict[Hashable, int] = {start: 0}
    came: dict[Hashable, tuple[Hashable, Line]] = {}
    done: set[Hashable] = set()
    order = 0       # ties are broken by what was found first, never by comparing points
    while queue:
        so_far, _, point = heapq.heappop(queue)
        if point in done:
            continue
        done.add(point)
        if point == goal:
            way = []
            while point != start:
                point, line = came[point]
                way.append(line)
            return so_far, way
        for line in at[point]:
            backwards = point == line.end
            if line is without or (line.fixed and not line.hidden) or not line.step(backwards):
                continue
            other = line.start if backwards else line.end
            price = so_far + (0 if line.hidden else line.people)
            if other not in done and price < cost.get(other, price + 1):
                cost[other], came[other], order = price, (point, line), order + 1
                heapq.heappush(queue, (price, order, other))
    return None

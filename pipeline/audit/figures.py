"""Numbers of groups: people, exposures, quartiles, with small groups kept back in every direction.

Counts come from DuckDB with one thread, so that they are the same on every machine. `people` are distinct persons.
The groups of one kind that are kept back are one group from then on, in every table that has that kind: what they come
to together can be read off the total in any case, and nothing else tells of one of them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.audit import suppress
from pipeline.audit.base import Asked, Grid

NOT_STATED = "not stated"
TOGETHER = "groups together"    # label of what is kept back; words beside it say how many groups
HELD = "–"


@dataclass(frozen=True, slots=True)
class Count:
    """People and rows of a group, and what else was asked of it. `shown` is False where it is kept back."""

    people: int
    n: int
    stats: tuple[float | None, ...] = ()
    shown: bool = True
    counted: bool = True        # False: the statistics are shown, how many they are of is not


@dataclass(frozen=True, slots=True)
class Listed:
    """Groups of one kind with their total. `held` names those kept back; together they are the group TOGETHER."""

    groups: dict[str, Count]
    total: Count
    held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Crossed:
    """Groups of two kinds. Cells are all there; those kept back are marked."""

    rows: Listed
    columns: Listed
    cells: dict[tuple[str, str], Count] = field(default_factory=dict)

    def cell(self, row: str, column: str) -> Count:
        """Return a cell: one that nobody is in, or one of a group that is kept back, has no numbers."""
        back = row in self.rows.held or column in self.columns.held
        return self.cells.get((row, column), Count(0, 0, shown=not back))


def listed(asked: Asked, view: str, group: str, stats: Sequence[str] = (), where: str = "true") -> Listed:
    """Return the groups of `view` by the SQL expression `group`, each with the aggregates `stats`.

    `view` has a column `person`; a null group is `not stated`. Largest first, what is kept back last.
    """
    held = _held(asked, view, group, where)
    return _list(_counted(asked, view, [(group, held)], stats, where), 0, held)


def crossed(
    asked: Asked, view: str, row: str, column: str, stats: Sequence[str] = (), where: str = "true"
) -> Crossed:
    """Return the groups by `row`, by `column`, and by both, the cells so that their totals do not give one away."""
    by = [(sql, _held(asked, view, sql, where)) for sql in (row, column)]
    found = _counted(asked, view, by, stats, where)
    rows, columns = (_list(found, n, held) for n, (_, held) in enumerate(by))
    inner = {(r, c): n for (r, c), n in found.items() if r is not None and c is not None}
    gone = suppress.cells({key: n.people for key, n in inner.items()}, asked.minimum)
    gone = gone if rows.total.shown else set(inner)
    return Crossed(rows, columns, {key: _shown(n, key not in gone) for key, n in inner.items()})


def _label(sql: str) -> str:
    return f"coalesce(({sql})::VARCHAR, '{NOT_STATED}')"


def _held(asked: Asked, view: str, sql: str, where: str) -> tuple[str, ...] | None:
    """Return which groups are kept back: together they are enough people. None: everything is."""
    rows = asked.rows(f"SELECT {_label(sql)} AS g, count(DISTINCT person) FROM {view} WHERE {where}"  # noqa: S608
                      " GROUP BY g ORDER BY 2, 1")
    people = dict(rows)
    total = asked.one(f"SELECT count(DISTINCT person) FROM {view} WHERE {where}")  # noqa: S608
    gone = suppress.groups(people, total, asked.minimum)
    if gone is None:
        return None
    held = [label for label in people if label in gone]
    while held:     # people of several groups are counted once
        together = asked.one(f"SELECT count(DISTINCT person) FROM {view} WHERE {where}"  # noqa: S608
                             f" AND list_contains(?, {_label(sql)})", held)
        if together >= asked.minimum:
            break
        more = [label for label in people if label not in held]
        if not more:
            return None
        held.append(more[0])
    return tuple(sorted(held))


def _counted(
    asked: Asked, view: str, by: Sequence[tuple[str, tuple[str, ...] | None]], stats: Sequence[str], where: str
) -> dict[tuple[str | None, ...], Count]:
    """Counts by group and by every sum over groups; a sum has None in its place."""
    names = [f"g{n}" for n in range(len(by))]
    groups = ", ".join(
        f"CASE WHEN list_contains(?, {_label(sql)}) THEN '{TOGETHER}' ELSE {_label(sql)} END AS {name}"
        for (sql, _), name in zip(by, names, strict=True))
    sets = "(g0, g1), (g0), (g1), ()" if len(by) == 2 else "(g0), ()"
    more = "".join(f", {sql}" for sql in stats)
    rows = asked.rows(
        f"SELECT {', '.join(names)}, count(DISTINCT person), count(*){more}"  # noqa: S608
        f" FROM (SELECT *, {groups} FROM {view} WHERE {where}) GROUP BY GROUPING SETS ({sets})",
        *([*(held or ())] for _, held in by))
    wide = len(by)
    found = {tuple(row[:wide]): Count(row[wide], row[wide + 1], tuple(map(_finite, row[wide + 2:]))) for row in rows}
    found.setdefault((None,) * wide, Count(0, 0, (None,) * len(stats)))
    return found


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _list(found: Mapping[tuple[str | None, ...], Count], at: int, held: tuple[str, ...] | None) -> Listed:
    """The groups of one kind out of counts by one or two; where everything is kept back, none and no total."""
    groups = {str(key[at]): n for key, n in found.items()
              if all((part is not None) == (i == at) for i, part in enumerate(key))}
    total = found[(None,) * len(next(iter(found)))]
    if held is None:
        return Listed({}, _shown(total, False), tuple(groups))
    last = {TOGETHER: 2, NOT_STATED: 1}
    order = sorted(groups.items(), key=lambda item: (last.get(item[0], 0), -item[1].n, item[0]))
    return Listed(dict(order), total, held)


def _shown(count: Count, shown: bool) -> Count:
    return count if shown else Count(0, 0, (None,) * len(count.stats), shown=False)


def named(found: Listed) -> dict[str, Count]:
    """Return the groups with a name: without what stands together."""
    return {label: n for label, n in found.groups.items() if label != TOGETHER}


def column(found: Crossed, label: str) -> Listed:
    """Return one column of a table as a list of its rows: marked where kept back, left out where empty."""
    cells = {row: found.cell(row, label) for row in found.rows.groups}
    total = found.columns.groups.get(label, Count(0, 0, shown=label not in found.columns.held))
    return Listed({row: n for row, n in cells.items() if n.n or not n.shown}, total, found.rows.held)


# ---- as text -------------------------------------------------------------------------------------------------------
def number(value: float | None, digits: int) -> str:
    """Return a number as people read it, without negative zero; empty for none."""
    if value is None:
        return ""
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if float(text.replace(",", "")) == 0 else text


def wilson(part: int, whole: int) -> tuple[float, float, float]:
    """Return lower end, share, upper end in per cent: Wilson's score interval, 95 %."""
    z, share = 1.959964, part / whole
    middle = share + z * z / (2 * whole)
    wide = z * math.sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    scale = 100 / (1 + z * z / whole)
    return max(0.0, (middle - wide) * scale), 100 * share, (middle + wide) * scale


def without_counts(found: Listed) -> Listed:
    """Return a list whose numbers of people and rows are not shown: only its statistics are."""
    def bare(n: Count) -> Count:
        return Count(0, 0, n.stats, n.shown, counted=False)

    return Listed({key: bare(n) for key, n in found.groups.items()}, bare(found.total), found.held)


def words(label: str, held: Sequence[str]) -> str:
    """Return a group's label as people read it."""
    return f"{len(held)} {TOGETHER}" if label == TOGETHER else label


def cells_text(n: Count) -> list[str]:
    """People and rows of a group as text."""
    return [f"{n.people:,}", f"{n.n:,}"] if n.shown and n.counted else [HELD, HELD]


def grid(title: str, what: str, found: Listed, stats: Sequence[tuple[str, int]], *, rows: str = "Exposures") -> Grid:
    """Return a list of groups as a grid; `stats` gives head and digits of each aggregate. The total stands last."""
    def line(label: str, n: Count) -> list[str]:
        if not n.shown:
            return [label, *[HELD] * (2 + len(stats))]
        values = zip(n.stats or (None,) * len(stats), stats, strict=True)
        return [label, *cells_text(n), *(number(v, digits) for v, (_, digits) in values)]

    lines = [line(words(label, found.held), n) for label, n in found.groups.items()]
    lines.append(line("All", found.total))
    return Grid(title, (what, "People", rows, *(head for head, _ in stats)), lines)


def cross_grid(title: str, what: str, found: Crossed, columns: Sequence[str], heads: Sequence[str], *,
               rows: str = "Exposures") -> Grid:
    """Return the numbers of rows in `columns` of a table as a grid, with people and totals."""
    held = found.rows.held
    lines = [[words(label, held), *cells_text(n),
              *(f"{c.n:,}" if (c := found.cell(label, name)).shown else HELD for name in columns)]
             for label, n in found.rows.groups.items()]
    total = found.rows.total
    lines.append(["All", *cells_text(total),
                  *(f"{found.columns.groups[name].n:,}" if name in found.columns.groups else HELD for name in columns)])
    return Grid(title, (what, "People", rows, *heads), lines)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV (RFC 4180, UTF-8). A number is written with 12 significant digits, none is empty.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue().encode()


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def list_csv(what: str, found: Listed, stats: Sequence[str], *, rows: str = "exposures") -> bytes:
    """Return a list of groups as CSV. The last lines are those kept back, together, and the total."""
    nothing = (None,) * len(stats)

    def line(label: str, n: Count) -> tuple[object, ...]:
        counts = (n.people, n.n) if n.shown and n.counted else (None, None)
        return (label, "no" if n.shown else "yes", *counts, *(n.stats or nothing if n.shown else nothing))

    lines = [line(words(label, found.held), n) for label, n in found.groups.items()]
    return table((what, "kept_back", "people", rows, *stats), [*lines, line("all", found.total)])


def cross_csv(row: str, column: str, found: Crossed, stats: Sequence[str], *, rows: str = "exposures") -> bytes:
    """Return the cells of a table as CSV, a line a cell; `kept_back` says whether its numbers are left empty.

    A cell that nobody is in has no line.
    """
    lines: list[Sequence[object]] = []
    for r in found.rows.groups:
        for c in found.columns.groups:
            n = found.cell(r, c)
            if n.shown and not n.n:
                continue
            names = (words(r, found.rows.held), words(c, found.columns.held))
            lines.append((*names, "no", n.people, n.n, *(n.stats or (None,) * len(stats))) if n.shown
                         else (*names, "yes", *(None,) * (2 + len(stats))))
    return table((row, column, "kept_back", "people", rows, *stats), lines)
